"""How a number is written on the cells of one weight: planes of either sign, digits in slices, copies."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from analogsim.utils.tensors import clamp_own

Kind = Literal["pair", "two-sided", "offset", "signed"]


class CellCode:
    """What of a `Mapping` is the same whatever the range of the cells and the scale of the weights.

    The cells of one weight are ordered by plane (G+ before G-), slice and copy. See `Mapping` for the fields.
    """

    cells: Kind
    percentile: float
    slices: int
    slice_bits: int
    copies: int

    @property
    def planes(self) -> int:
        """Number of parts that a weight is cut into, each of which has cells of its own: G+ and G-, or one."""
        return 2 if self.cells in ("pair", "two-sided") else 1

    @property
    def cells_per_weight(self) -> int:
        """Number of cells that hold one weight, reference columns not counted."""
        return self.planes * self.slices * self.copies

    @property
    def significance(self) -> tuple[float, ...]:
        """Share of each slice in the full scale, the most significant first; they sum up to 1."""
        base, count = 2**self.slice_bits, self.slices
        upper = [(base - 1) * base ** (count - 1 - place) / base**count for place in range(count - 1)]
        return (*upper, 1.0 - sum(upper))

    def parts(self, weight: Tensor, references: int) -> Tensor:
        """Non-negative parts ``(planes, out (+ references), ...)`` of weights relative to the largest."""
        if self.cells == "pair":
            return clamp_own(torch.stack((weight, -weight)), 0, 1)
        if self.cells == "two-sided":
            return clamp_own(torch.stack((1 + weight, 1 - weight)).mul_(0.5), 0, 1)
        reference = weight.new_zeros(()).expand(references, *weight.shape[1:])
        return clamp_own(torch.cat((weight, reference)).add_(1).mul_(0.5), 0, 1).unsqueeze(0)

    def digits(self, part: Tensor) -> Tensor:
        """Each part in [0, 1] cut into slices in [0, 1]: ``(planes, ...)`` to ``(planes * slices, ...)``."""
        if self.slices == 1:
            return part
        base = 2**self.slice_bits
        left = part * base  # in units of the digit at hand
        digits = []
        for _ in range(self.slices - 1):
            digit = left.floor().clamp_max_(base - 1)
            digits.append(digit / (base - 1))
            left = (left - digit) * base
        digits.append((left / base).clamp(0, 1))
        return torch.stack(digits, 1).flatten(0, 1)

    def by_plane(self, cells: Tensor, ndim: int) -> Tensor:
        """Values of cells ``(..., cells, *weight.shape)`` as ``(planes, ..., slices, *weight.shape)``.

        Copies are there by their mean. ``ndim`` is the number of axes of the weight.
        """
        axis = -ndim - 1
        lead = cells.shape[: cells.ndim + axis]
        each = cells.reshape(*lead, self.planes, self.slices, self.copies, *cells.shape[axis + 1 :])
        part = each.mean(axis) if self.copies > 1 else each.squeeze(axis)
        return part.movedim(axis - 1, 0)

    def join(self, slices: Tensor) -> Tensor:
        """The weight ``(out, ...)`` that slices ``(slices, out, ...)`` hold together."""
        return self.joined(slices, -slices.ndim)

    def joined(self, slices: Tensor, axis: int, power: int = 1) -> Tensor:
        """The sum over the axis of slices, each times a power of its significance."""
        if self.slices == 1:
            return slices.squeeze(axis)
        parts = zip(slices.unbind(axis), self.significance, strict=True)
        return torch.stack([part * share**power for part, share in parts]).sum(0)

    def saturated(self, weight: Tensor, largest: Tensor) -> Tensor | None:
        """Mask of the weights beyond the range; None where the mapping leaves none there."""
        return None if self.percentile == 100 or self.cells == "signed" else weight.abs() > largest

    def around(self, target: Tensor, faults: Tensor, g_min: float, g_max: float) -> Tensor:
        """Targets that make the best of cells known to be stuck: where one cell of a pair is, its partner moves.

        The difference is what counts, and the working cell takes up what the stuck one cannot, as far as the range
        goes. Slices, copies and single cells keep their targets.

        Args:
            target: conductances ``(cells, out (+ references), ...)``.
            faults: 0 for a cell that works, 1 for one at ``g_min``, 2 for one at ``g_max``, like ``target``.
            g_min: lowest conductance.
            g_max: highest one.
        """
        stuck = faults != 0
        held = torch.where(faults == 1, g_min, g_max).to(target.dtype)
        if self.cells_per_weight != 2 or self.planes != 2:
            return torch.where(stuck, held, target)
        difference = target[0] - target[1]
        partner = torch.stack((held[1] + difference, held[0] - difference)).clamp(g_min, g_max)
        return torch.where(stuck, held, torch.where(stuck.flip(0), partner, target))

    def following(self, weight: Tensor, held: Tensor) -> Tensor:
        """How far each weight still moves the output when cells are held: 1 all the way, 0 not at all.

        Of a one-sided pair only the cell that carries the weight counts, of the others each plane by its share; of
        slices the share in the full scale, of copies their number.

        Args:
            weight: ``(out, ...)``.
            held: mask of the cells that do not follow their target, ``(cells, out (+ references), ...)``.
        """
        free = (~held).to(weight.dtype)
        if self.cells == "signed":
            return free.squeeze(0)
        free = free[:, : len(weight)].reshape(self.planes, self.slices, self.copies, *weight.shape).mean(2)
        planes = torch.stack([self.join(plane) for plane in free]) if self.slices > 1 else free.squeeze(1)
        return torch.where(weight >= 0, planes[0], planes[1]) if self.cells == "pair" else planes.mean(0)
