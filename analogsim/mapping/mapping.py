"""From signed weights to conductances: how a weight is laid on cells, and what sets its scale.

A crossbar multiplies by conductances, which have no sign. `Mapping` says how a weight is laid on cells; `MappedWeight`
is one that lies there, and leads back from its conductances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from analogsim.errors import InvalidValueError, OperationError
from analogsim.mapping.cell_code import CellCode, Kind, Reference
from analogsim.mapping.layout import Layout
from analogsim.mapping.mapped_weight import MappedWeight
from analogsim.utils.text import in_short

SharedBy = Literal["column", "crossbar", "tensor"]
"""Which weights have the largest one of them, and so a scale, in common."""


# Beyond them lies no hardware, and no memory to hold it.
LIMITS = {"slices": (1, 64), "slice_bits": (1, 24), "copies": (1, 4096), "bias_rows": (0, 2**20)}
_MOST_BITS = 64


@dataclass(frozen=True)
class Mapping(CellCode):
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
        slice_bits: bits of one digit. The digits are those of the nearest integer code of ``slices * slice_bits`` bits,
            ``2**bits - 1`` at full scale; a cell stands at ``digit / (2**slice_bits - 1)`` of its range. What the code
            leaves over, half a step at most, is on the last cell (on the one before where that is full or empty), so
            that slicing alone loses nothing; cells that hold ``2**slice_bits`` levels round it away, and all codes are
            reached. Cells of other levels must have the digits among theirs (``levels - 1`` a multiple of
            ``2**slice_bits - 1``); `analogsim.convert` refuses other ones.
        copies: how many cells hold one conductance together; their mean counts.
        reference: of ``"offset"`` cells: ``"cells"``, a column of cells for each crossbar, which have the errors of any
            others and share them with all columns that are read against them, so that a weight errs as two cells do;
            or ``"ideal"``, the middle of the range as a number that is subtracted digitally: no cells, no errors, and
            nothing that follows when the mean of the cells moves. Cells of an even number of levels have none in the
            middle; their reference column stands at the level next above, and codes count from there.
        bias_rows: 0: the bias is added digitally. Else on how many rows of the crossbar it lies, an equal part of it
            on each, all driven by the input 1.

    Source: one-sided and two-sided pairs, offset column and bit slicing as in Xiao et al., IEEE Circuits and Systems
    Magazine (2022).
    """

    cells: Kind = "pair"
    scale: SharedBy = "column"
    percentile: float = 100.0
    slices: int = 1
    slice_bits: int = 4
    copies: int = 1
    bias_rows: int = 0
    reference: Reference = "cells"

    def __post_init__(self) -> None:
        kinds = (("cells", Kind), ("scale", SharedBy), ("reference", Reference))
        for name, choices in ((name, get_args(kind)) for name, kind in kinds):
            if getattr(self, name) not in choices:
                listed = ", ".join(f'"{choice}"' for choice in choices)
                raise InvalidValueError(f"mapping: {name} must be one of {listed}, got {getattr(self, name)!r}")
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidValueError(f"mapping: {name} must be an integer >= {least}, got {value!r}")
            if value > most:
                raise InvalidValueError(f"mapping: {name} must be at most {most}, got {in_short(value)}")
        if self.slices * self.slice_bits > _MOST_BITS:
            raise InvalidValueError(
                f"mapping: slices * slice_bits, the bits of a code, must be at most {_MOST_BITS}, got "
                f"{self.slices} * {self.slice_bits}"
            )
        value = self.percentile
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100:
            raise InvalidValueError(f"mapping: percentile must be in (0, 100], got {value!r}")
        object.__setattr__(self, "percentile", float(value))
        self._check_together()

    def _check_together(self) -> None:
        """Raise ValueError for fields that do not go with the cells."""
        if self.cells == "signed" and (self.slices, self.copies) != (1, 1):
            raise InvalidValueError('mapping: slices and copies are of cells; with cells="signed" both must be 1')
        if self.reference != "cells" and self.cells != "offset":
            raise InvalidValueError(
                f'mapping: reference="{self.reference}" is of cells="offset", got cells="{self.cells}"'
            )

    def references(self, layout: Layout) -> int:
        """Number of reference columns of a layer."""
        return len(layout.cols) if self.has_references else 0

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

    def to_conductance(
        self, weight: Tensor, largest: Tensor, g_min: float, g_max: float, layout: Layout | None = None
    ) -> Tensor:
        """Target conductances ``(cells, out, ...)`` of a weight ``(out, ...)``, see `MappedWeight.targets`."""
        return MappedWeight(self, layout, g_min, g_max, largest, weight.ndim).targets(weight)

    def to_weight(
        self, g: Tensor, ndim: int, largest: Tensor, g_min: float, g_max: float, layout: Layout | None = None
    ) -> Tensor:
        """The weights of ``ndim`` axes that conductances ``(..., cells, *weight.shape)`` stand for."""
        return MappedWeight(self, layout, g_min, g_max, largest, ndim).to_weight(g)

    def slice_weights(
        self, g: Tensor, ndim: int, largest: Tensor, g_min: float, g_max: float, layout: Layout | None = None
    ) -> Tensor:
        """What each slice holds of weights of ``ndim`` axes, see `MappedWeight.to_slices`."""
        return MappedWeight(self, layout, g_min, g_max, largest, ndim).to_slices(g)

    def to_weight_variance(
        self, variance: Tensor, ndim: int, largest: Tensor, g_min: float, g_max: float, layout: Layout | None = None
    ) -> Tensor:
        """Variance of the weights from independent variances of the cells, see `MappedWeight.to_variance`."""
        return MappedWeight(self, layout, g_min, g_max, largest, ndim).to_variance(variance)

    def slice_variances(
        self, variance: Tensor, ndim: int, largest: Tensor, g_min: float, g_max: float, layout: Layout | None = None
    ) -> Tensor:
        """Variance of each slice from those of the cells, see `MappedWeight.to_slice_variances`."""
        return MappedWeight(self, layout, g_min, g_max, largest, ndim).to_slice_variances(variance)


def _spread(layout: Layout | None, values: Tensor, like: Tensor) -> Tensor:
    if layout is None:  # pragma: no cover - several blocks of rows only come from a layout
        raise OperationError("no layout")
    return layout.spread(values, like)


def _percentile(values: Tensor, percentile: float) -> Tensor:
    """The percentile of each row ``(rows, n)``: the smallest value that at least that share does not exceed."""
    rank = max(1, -(-round(percentile * 1000) * values.shape[1] // 100_000))
    return values.kthvalue(min(rank, values.shape[1]), dim=1).values
