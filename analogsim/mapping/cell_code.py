"""How a number is written on the cells of one weight: planes of either sign, digits in slices, copies."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from analogsim.errors import InvalidValueError
from analogsim.utils.tensors import clamp_own

Kind = Literal["pair", "two-sided", "offset", "signed"]

Reference = Literal["cells", "ideal"]
"""What ``"offset"`` cells are read against: a column of cells, or a number."""


def stuck_cells(faults: Tensor) -> Tensor:
    """Mask of the cells that a map of faults says are stuck; see `CellCode.around` for what it holds."""
    return ~faults.isnan() if faults.is_floating_point() else faults != 0


class CellCode:
    """What of a `Mapping` is the same whatever the range of the cells and the scale of the weights.

    The cells of one weight are ordered by plane (G+ before G-), slice and copy. See `Mapping` for the fields.
    """

    cells: Kind
    percentile: float
    slices: int
    slice_bits: int
    copies: int
    reference: Reference

    @property
    def planes(self) -> int:
        """Number of parts that a weight is cut into, each of which has cells of its own: G+ and G-, or one."""
        return 2 if self.cells in ("pair", "two-sided") else 1

    @property
    def cells_per_weight(self) -> int:
        """Number of cells that hold one weight, reference columns not counted."""
        return self.planes * self.slices * self.copies

    @property
    def has_references(self) -> bool:
        """Whether columns of cells stand beside those of the weights."""
        return self.cells == "offset" and self.reference == "cells"

    @property
    def largest_code(self) -> int:
        """The integer that all digits together stand for at full scale."""
        return int(2 ** (self.slices * self.slice_bits)) - 1

    @property
    def significance(self) -> tuple[float, ...]:
        """Share of each slice in the full scale, the most significant first; they sum up to 1.

        Slice k of n, of b bits each, is a digit of the integer code: :math:`2^{b(n-1-k)} (2^b - 1) / (2^{nb} - 1)`.
        """
        base = 2**self.slice_bits
        return tuple((base - 1) * base**place / self.largest_code for place in reversed(range(self.slices)))

    def middle(self, levels: int | None) -> float:
        """Where reference cells stand, as a part of the range.

        Half of it; for cells that hold levels, the level next above, or no code would be exact.

        Args:
            levels: how many a cell holds; None for any conductance.
        """
        if levels is None:
            return 0.5
        top = self.largest_code if self.slices > 1 else levels - 1
        return (top + 1) // 2 / top

    def check_levels(self, levels: int) -> None:
        """Raise ValueError if a digit is none of the levels that a cell holds."""
        if self.slices == 1 or (levels - 1) % (2**self.slice_bits - 1) == 0:
            return
        fitting = [bits for bits in range(1, 17) if (levels - 1) % (2**bits - 1) == 0]
        raise InvalidValueError(
            f"mapping: slice_bits={self.slice_bits} makes digits from 0 to {2**self.slice_bits - 1}, which are no "
            f"levels of cells that hold {levels}; take slice_bits={' or '.join(map(str, fitting))}, or cells of "
            f"{2**self.slice_bits} levels"
        )

    def parts(self, weight: Tensor, references: int, levels: int | None = None) -> Tensor:
        """Non-negative parts ``(planes, out (+ references), ...)`` of weights relative to the largest."""
        if self.cells == "pair":
            return clamp_own(torch.stack((weight, -weight)), 0, 1)
        if self.cells == "two-sided":
            return clamp_own(torch.stack((1 + weight, 1 - weight)).mul_(0.5), 0, 1)
        middle = self.middle(levels if self.has_references else None)
        if self.has_references:
            weight = torch.cat((weight, weight.new_zeros(()).expand(references, *weight.shape[1:])))
        return clamp_own(weight.mul(0.5).add_(middle), 0, 1).unsqueeze(0)

    def digits(self, part: Tensor) -> Tensor:
        """Each part in [0, 1] cut into slices in [0, 1]: ``(planes, ...)`` to ``(planes * slices, ...)``.

        Digits are those of the nearest integer code. What the code leaves of the part, half a step at most, is held by
        the last cell; where that one is at an end of its range, by the one before, in which it counts less. So slicing
        alone loses nothing, and cells that round to their levels hold the nearest code.
        """
        if self.slices == 1:
            return part
        base, code = 2**self.slice_bits, part * float(self.largest_code)
        whole = code.round()
        digits, left = self._whole_digits(whole)
        rest = code.sub_(whole).add_(left)
        for place in reversed(range(self.slices)):
            wanted = digits[place].add_(rest)
            digits[place] = wanted.clamp(0, base - 1)
            rest = (wanted - digits[place]).div_(base)
        return torch.stack(digits, 1).flatten(0, 1).div_(base - 1)

    def _whole_digits(self, code: Tensor) -> tuple[list[Tensor], Tensor]:
        """The digits of integer codes, and what is left of codes that a dtype rounds up past the largest."""
        base, digits, left = 2**self.slice_bits, [], code
        for place in reversed(range(self.slices)):
            step = float(base**place)
            digits.append((left / step).floor_().clamp_max_(base - 1))
            left = torch.sub(left, digits[-1], alpha=step)
        return digits, left

    def rounded_digits(self, digits: Tensor, u: Tensor) -> Tensor:
        """Whole digits of codes that are rounded at random, up with the probability of what is over.

        Digit by digit, what the last cell cannot hold would now and then move a digit that counts much more.

        Args:
            digits: of any value, ``(cells, *weight.shape)``.
            u: numbers from [0, 1), like ``digits``; those of the last slice count.
        """
        each, random = (
            values.reshape(self.planes, self.slices, self.copies, *values.shape[1:]) for values in (digits, u)
        )
        code = torch.zeros_like(each[:, 0])
        for place, digit in enumerate(each.unbind(1)):
            code = code.add(digit, alpha=float(2 ** (self.slice_bits * (self.slices - 1 - place))))
        whole, _ = self._whole_digits((code + random[:, -1]).floor_().clamp_(0, self.largest_code))
        return torch.stack(whole, 1).reshape(digits.shape)

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
        """Targets that make the best of cells known to be stuck: where one cell of a pair is, the others move.

        The difference is what counts, and working cells take up what the stuck ones cannot, as far as the range goes:
        of copies first those of the same side, all by as much, then those of the other one. Slices and single cells
        keep their targets.

        Args:
            target: conductances ``(cells, out (+ references), ...)``.
            faults: like ``target``; of integers, 0 for a cell that works, 1 for one at ``g_min``, 2 for one at
                ``g_max``; of floating numbers, the conductance at which a cell is stuck, µS, and NaN for one that
                works.
            g_min: lowest conductance.
            g_max: highest one.
        """
        stuck = stuck_cells(faults)
        held = faults.to(target.dtype)
        if not faults.is_floating_point():
            held = torch.where(faults == 1, g_min, g_max).to(target.dtype)
        if self.planes != 2 or self.slices != 1:
            return torch.where(stuck, held, target)
        if self.copies > 1:
            return torch.where(stuck, held, self._shared(target, stuck, held, g_min, g_max))
        difference = target[0] - target[1]
        partner = torch.stack((held[1] + difference, held[0] - difference)).clamp(g_min, g_max)
        return torch.where(stuck, held, torch.where(stuck.flip(0), partner, target))

    def _shared(self, target: Tensor, stuck: Tensor, held: Tensor, g_min: float, g_max: float) -> Tensor:
        """Targets of the working copies of pairs, the same for all of a side; those where none is stuck are kept."""
        sides = (2, self.copies, *target.shape[1:])
        held_together = torch.where(stuck, held, 0.0).view(sides).sum(1)
        working = (~stuck).view(sides).sum(1)
        lacking = target.view(sides).sum(1) - held_together

        def shares(together: Tensor) -> Tensor:
            return (together / working.clamp(min=1)).clamp(g_min, g_max)

        short = lacking - working * shares(lacking)
        moved = shares(lacking - short.flip(0)).unsqueeze(1)  # what one side is short of, the other has less
        return torch.where(stuck.view(sides).any(1).any(0), moved, target.view(sides)).view(target.shape)

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
