r"""From signed weights to conductances and back.

A crossbar multiplies by conductances, which have no sign. `Mapping` says how a weight is laid on cells. A tensor
of conductances has one axis more than the weight, in front of it: ``(cells, *weight.shape)``, in µS, with any
chip dimensions before that. Whatever the mapping, a weight is a fixed linear combination of its cells:

.. math:: w = \frac{w_{max}}{g_{max} - g_{min}} \sum_c a_c\, g_c
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from analogsim.mapping.layout import Layout
from analogsim.utils.tensors import clamp_own

Kind = Literal["pair", "two-sided", "offset", "signed"]
Scale = Literal["column", "crossbar", "tensor"]


@dataclass(frozen=True)
class Mapping:
    r"""How a weight is laid on cells, and what sets its scale.

    Args:
        cells: ``"pair"``: two cells, ``G+`` for the positive part and ``G-`` for the negative part, the other one
            at ``g_min`` (a one-sided differential pair). ``"two-sided"``: a differential pair whose cells both move,
            in opposite directions, from the middle of the range. ``"offset"``: one cell, and one reference column of
            cells in the middle of the range per crossbar, which is subtracted. ``"signed"``: the idealised array of
            the weight-noise literature, one value per weight that takes either sign; its unit is the weight itself,
            and ``g_max`` is the largest weight.
        scale: the largest weight, which is laid on ``g_max``: of each ``"column"`` of a crossbar (rescaled digitally
            after the converter), of each ``"crossbar"``, or of the whole ``"tensor"``.
        percentile: which percentile of the magnitudes counts as the largest weight. Weights beyond it saturate, and
            get no gradient in training.
        slices: bit slicing: over how many cells the digits of a conductance are spread, each of which has a column and
            a converter of its own. The most significant come first.
        slice_bits: bits of one digit. All digits but the last are whole, the last one holds what is left, so that
            slicing alone loses nothing; a device of limited levels or precision rounds it.
        copies: how many cells hold one conductance together; their mean counts.
        bias_rows: 0: the bias is added digitally. Else on how many rows of the crossbar it lies, an equal part of it
            on each, all driven by the input 1.

    Source: one-sided and two-sided pairs, offset column and bit slicing as in Xiao et al., IEEE Circuits and Systems
    Magazine (2022).
    """

    cells: Kind = "pair"
    scale: Scale = "column"
    percentile: float = 100.0
    slices: int = 1
    slice_bits: int = 4
    copies: int = 1
    bias_rows: int = 0

    def __post_init__(self) -> None:
        for name, choices in (("cells", get_args(Kind)), ("scale", get_args(Scale))):
            if getattr(self, name) not in choices:
                listed = ", ".join(f'"{choice}"' for choice in choices)
                raise ValueError(f"mapping: {name} must be one of {listed}, got {getattr(self, name)!r}")
        for name, least in (("slices", 1), ("slice_bits", 1), ("copies", 1), ("bias_rows", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"mapping: {name} must be an integer >= {least}, got {value!r}")
        value = self.percentile
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100:
            raise ValueError(f"mapping: percentile must be in (0, 100], got {value!r}")
        object.__setattr__(self, "percentile", float(value))
        if self.cells == "signed" and (self.slices, self.copies) != (1, 1):
            raise ValueError('mapping: slices and copies are of cells; with cells="signed" both must be 1')

    @property
    def _planes(self) -> int:
        return 2 if self.cells in ("pair", "two-sided") else 1

    @property
    def cells_per_weight(self) -> int:
        """Number of cells that hold one weight, reference columns not counted."""
        return self._planes * self.slices * self.copies

    def references(self, layout: Layout) -> int:
        """Number of reference columns of a layer."""
        return len(layout.cols) if self.cells == "offset" else 0

    @property
    def significance(self) -> tuple[float, ...]:
        """Share of each slice in the full scale, the most significant first; they sum up to 1."""
        base, count = 2**self.slice_bits, self.slices
        upper = [(base - 1) * base ** (count - 1 - place) / base**count for place in range(count - 1)]
        return (*upper, 1.0 - sum(upper))

    def largest(self, weight: Tensor, layout: Layout | None = None) -> Tensor:
        """The weight that is laid on ``g_max``; it broadcasts against ``weight``.

        Shape ``(out, 1, ...)`` for ``scale="column"`` on one block of rows, that of the weight on several, a scalar for
        ``"tensor"``. A column of zeros takes the largest weight of its crossbar or of the tensor, and a tensor of zeros
        the bound ``1/sqrt(inputs)`` of torch's initialisation: its cells have their errors like any others, so the
        scale must not vanish.
        """
        magnitude = weight.abs()
        if self.percentile < 100:
            magnitude = self._within(magnitude, layout)
        # What is not above 0 becomes the bound.
        whole = torch.threshold(magnitude.amax(), 0.0, (weight.shape[0] / max(1, weight.numel())) ** 0.5)
        if self.scale == "tensor":
            return whole
        if layout is None or len(layout.rows) == 1:
            column = (magnitude.flatten(1).amax(1) if weight.ndim > 1 else magnitude).unsqueeze(1)
        else:
            column = layout.columns(magnitude)
        if self.scale == "crossbar":
            column = (
                layout.over_columns(column) if layout is not None else column.amax(0, keepdim=True).expand_as(column)
            )
        column = torch.where(column > 0, column, whole)
        return column.view(-1, *(1,) * (weight.ndim - 1)) if column.shape[1] == 1 else _spread(layout, column, weight)

    def _within(self, magnitude: Tensor, layout: Layout | None) -> Tensor:
        """Magnitudes stopped at the percentile of their column, crossbar or tensor."""
        shape = magnitude.shape
        flat = magnitude.flatten(1) if magnitude.ndim > 1 else magnitude.unsqueeze(1)
        rows = ((0, flat.shape[1]),) if layout is None else layout.rows
        cols = ((0, len(flat)),) if layout is None else layout.cols
        if self.scale == "tensor":
            return flat.clamp(max=_percentile(flat.reshape(1, -1), self.percentile)[0]).view(shape)
        out = torch.empty_like(flat)
        for top, bottom in rows:
            for left, right in cols:
                block = flat[left:right, top:bottom]
                values = block if self.scale == "column" else block.reshape(1, -1)
                out[left:right, top:bottom] = torch.minimum(block, _percentile(values, self.percentile).unsqueeze(1))
        return out.view(shape)

    def saturated(self, weight: Tensor, largest: Tensor) -> Tensor | None:
        """Mask of the weights beyond the range; None where the mapping leaves none there."""
        return None if self.percentile == 100 or self.cells == "signed" else weight.abs() > largest

    def to_conductance(
        self, weight: Tensor, largest: Tensor, g_min: float, g_max: float, layout: Layout | None = None
    ) -> Tensor:
        """Target conductances ``(cells, out, ...)`` of a weight ``(out, ...)``; µS (``"signed"``: unit of the weight).

        Reference columns stand behind the columns of the weight, one for each block of columns. The cells of one
        weight are ordered by plane (G+ before G-), slice and copy.
        """
        if self.cells == "signed":
            return weight.unsqueeze(0)
        span = g_max - g_min
        if self.cells == "pair" and self.slices == 1:
            # The ratio first: the range divided by a column of denormal numbers would be infinite.
            scaled = (weight / largest).mul_(span)
            # Rounding may carry the largest weight one ulp past g_max, where cited formulas end.
            target = clamp_own(torch.stack((scaled, -scaled)), 0, span)
        else:
            target = self._digits(self._parts(weight / largest, layout)).mul_(span)
        if self.copies > 1:
            target = target.repeat_interleave(self.copies, 0)
        return target.add_(g_min).clamp_max_(g_max) if g_min else target

    def _parts(self, weight: Tensor, layout: Layout | None) -> Tensor:
        """Non-negative parts ``(planes, out (+ references), ...)`` of weights relative to the largest."""
        if self.cells == "pair":
            return clamp_own(torch.stack((weight, -weight)), 0, 1)
        if self.cells == "two-sided":
            return clamp_own(torch.stack((1 + weight, 1 - weight)).mul_(0.5), 0, 1)
        count = 1 if layout is None else self.references(layout)
        reference = weight.new_zeros(()).expand(count, *weight.shape[1:])
        return clamp_own(torch.cat((weight, reference)).add_(1).mul_(0.5), 0, 1).unsqueeze(0)

    def _digits(self, part: Tensor) -> Tensor:
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

    def slice_weights(
        self, g: Tensor, ndim: int, largest: Tensor, g_min: float, g_max: float, layout: Layout | None = None
    ) -> Tensor:
        """What each slice holds of weights of ``ndim`` axes, at full scale: ``(..., slices, *weight.shape)``.

        The weight is the sum over slices times `significance`.
        """
        axis = -ndim - 1
        if self.cells == "signed":
            return g
        lead = g.shape[: g.ndim + axis]
        cells = g.reshape(*lead, self._planes, self.slices, self.copies, *g.shape[axis + 1 :])
        part = cells.mean(axis) if self.copies > 1 else cells.squeeze(axis)
        plane = part.movedim(axis - 1, 0)
        if self.cells == "offset":
            difference = self._less_reference(plane[0], ndim, layout).mul_(2.0)
        else:
            difference = plane[0] - plane[1]
        return difference * (largest / (g_max - g_min))

    def _less_reference(self, g: Tensor, ndim: int, layout: Layout | None) -> Tensor:
        """``(..., out + references, ...)`` to ``(..., out, ...)``: each column less the reference of its block."""
        axis = g.ndim - ndim
        cols = ((0, g.shape[axis] - 1),) if layout is None else layout.cols
        out = cols[-1][1]
        weights, references = g.narrow(axis, 0, out), g.narrow(axis, out, g.shape[axis] - out)
        parts = [
            weights.narrow(axis, start, end - start) - references.narrow(axis, place, 1)
            for place, (start, end) in enumerate(cols)
        ]
        return torch.cat(parts, axis)

    def to_weight(
        self, g: Tensor, ndim: int, largest: Tensor, g_min: float, g_max: float, layout: Layout | None = None
    ) -> Tensor:
        """The weights of ``ndim`` axes that conductances ``(..., cells, *weight.shape)`` stand for."""
        axis = -ndim - 1
        if self.cells == "signed":
            return g.squeeze(axis)
        if self.cells == "pair" and self.cells_per_weight == 2:
            positive, negative = g.unbind(axis)
            return (positive - negative) * (largest / (g_max - g_min))
        return self._joined(self.slice_weights(g, ndim, largest, g_min, g_max, layout), axis, 1)

    def join(self, slices: Tensor) -> Tensor:
        """The weight ``(out, ...)`` that slices ``(slices, out, ...)`` hold together."""
        return self._joined(slices, -slices.ndim, 1)

    def _joined(self, slices: Tensor, axis: int, power: int) -> Tensor:
        if self.slices == 1:
            return slices.squeeze(axis)
        parts = zip(slices.unbind(axis), self.significance, strict=True)
        return torch.stack([part * share**power for part, share in parts]).sum(0)

    def slice_variances(
        self, variance: Tensor, ndim: int, largest: Tensor, g_min: float, g_max: float, layout: Layout | None = None
    ) -> Tensor:
        """Variance of each slice from independent variances of the cells (µS²): ``(..., slices, *weight.shape)``.

        A reference column's noise reaches every column of its crossbar; its variance is counted in each of them, that
        they share it is not.
        """
        axis = -ndim - 1
        if self.cells == "signed":
            return variance
        lead = variance.shape[: variance.ndim + axis]
        cells = variance.reshape(*lead, self._planes, self.slices, self.copies, *variance.shape[axis + 1 :])
        part = (cells.mean(axis) / self.copies) if self.copies > 1 else cells.squeeze(axis)
        plane = part.movedim(axis - 1, 0)
        if self.cells == "offset":
            total = self._less_reference(_negated_references(plane[0], ndim, layout), ndim, layout).mul_(4.0)
        else:
            total = plane.sum(0)
        return total * (largest / (g_max - g_min)).square()

    def to_weight_variance(
        self, variance: Tensor, ndim: int, largest: Tensor, g_min: float, g_max: float, layout: Layout | None = None
    ) -> Tensor:
        """Variance of the weights from independent variances of the cells (µS²), see `slice_variances`."""
        axis = -ndim - 1
        if self.cells == "signed":
            return variance.squeeze(axis)
        return self._joined(self.slice_variances(variance, ndim, largest, g_min, g_max, layout), axis, 2)

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
        if self.cells_per_weight != 2 or self._planes != 2:
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
        free = free[:, : len(weight)].reshape(self._planes, self.slices, self.copies, *weight.shape).mean(2)
        planes = torch.stack([self.join(plane) for plane in free]) if self.slices > 1 else free.squeeze(1)
        return torch.where(weight >= 0, planes[0], planes[1]) if self.cells == "pair" else planes.mean(0)


def _spread(layout: Layout | None, values: Tensor, like: Tensor) -> Tensor:
    if layout is None:  # pragma: no cover - several blocks of rows only come from a layout
        raise RuntimeError("no layout")
    return layout.spread(values, like)


def _negated_references(g: Tensor, ndim: int, layout: Layout | None) -> Tensor:
    """Reference columns with the sign turned, so that a difference becomes a sum."""
    axis = g.ndim - ndim
    out = g.shape[axis] - 1 if layout is None else layout.cols[-1][1]
    weights, references = g.narrow(axis, 0, out), g.narrow(axis, out, g.shape[axis] - out)
    return torch.cat((weights, -references), axis)


def _percentile(values: Tensor, percentile: float) -> Tensor:
    """The percentile of each row ``(rows, n)``: the smallest value that at least that share does not exceed."""
    rank = max(1, -(-int(percentile * 1000) * values.shape[1] // 100_000))
    return values.kthvalue(min(rank, values.shape[1]), dim=1).values
