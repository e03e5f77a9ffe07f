r"""A weight laid on cells: what its conductances stand for.

A tensor of conductances has one axis more than the weight, in front of it: ``(cells, *weight.shape)``, in µS, with any
chip dimensions before that. Whatever the mapping, a weight is a fixed linear combination of its cells:

.. math:: w = \frac{w_{max}}{g_{max} - g_{min}} \sum_c a_c\, g_c
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from analogsim.mapping.cell_code import CellCode
from analogsim.mapping.layout import Layout
from analogsim.utils.tensors import clamp_own


@dataclass(frozen=True)
class MappedWeight:
    """Where a weight lies and in which units: all that leads from its conductances back to it.

    Args:
        mapping: how it is written on cells, a `Mapping`.
        layout: the blocks that it lies in; None for a single one.
        g_min: lowest conductance of a cell, µS.
        g_max: highest one, µS.
        largest: the weight that is laid on ``g_max``, broadcastable; see `Mapping.largest`. ``"signed"`` cells hold the
            weight itself, whatever it is.
        ndim: number of axes of the weight.
        levels: how many levels a cell holds, equally spaced from ``g_min`` to ``g_max``; None for any conductance.
    """

    mapping: CellCode
    layout: Layout | None
    g_min: float
    g_max: float
    largest: Tensor
    ndim: int
    levels: int | None = None

    @property
    def unit(self) -> Tensor:
        """The weight that a µS stands for, broadcastable like ``largest``."""
        return self.largest / (self.g_max - self.g_min)

    def targets(self, weight: Tensor) -> Tensor:
        """Conductances ``(cells, out, ...)`` of a weight ``(out, ...)``; µS (``"signed"``: unit of the weight).

        Reference columns stand behind the columns of the weight, one for each block of columns. The cells of one
        weight are ordered by plane (G+ before G-), slice and copy.
        """
        code = self.mapping
        if code.cells == "signed":
            return weight.unsqueeze(0)
        span = self.g_max - self.g_min
        if code.cells == "pair" and code.slices == 1:
            # The ratio first: the range divided by a column of denormal numbers would be infinite.
            scaled = (weight / self.largest).mul_(span)
            # Rounding may carry the largest weight one ulp past g_max, where cited formulas end.
            target = clamp_own(torch.stack((scaled, -scaled)), 0, span)
        else:
            references = 1 if self.layout is None else len(self.layout.cols)
            target = code.digits(code.parts(weight / self.largest, references, self.levels)).mul_(span)
        if code.copies > 1:
            target = target.repeat_interleave(code.copies, 0)
        return target.add_(self.g_min).clamp_max_(self.g_max) if self.g_min else target

    def to_weight(self, g: Tensor) -> Tensor:
        """The weight ``(..., out, ...)`` that conductances ``(..., cells, *weight.shape)`` stand for."""
        code, axis = self.mapping, -self.ndim - 1
        if code.cells == "signed":
            return g.squeeze(axis)
        if code.cells == "pair" and code.slices * code.copies == 1:
            positive, negative = g.unbind(axis)
            return (positive - negative) * self.unit
        return code.joined(self.to_slices(g), axis)

    def to_slices(self, g: Tensor) -> Tensor:
        """What each slice holds of the weight, at full scale: ``(..., slices, *weight.shape)``.

        The weight is the sum over slices times `Mapping.significance`.
        """
        code = self.mapping
        if code.cells == "signed":
            return g
        plane = code.by_plane(g, self.ndim)
        offset = code.cells == "offset"
        difference = self._less_reference(plane[0]).mul_(2.0) if offset else plane[0] - plane[1]
        return difference * self.unit

    def to_variance(self, variance: Tensor) -> Tensor:
        """Variance of the weight from independent variances of the cells (µS²), see `to_slice_variances`."""
        code, axis = self.mapping, -self.ndim - 1
        if code.cells == "signed":
            return variance.squeeze(axis)
        return code.joined(self.to_slice_variances(variance), axis, 2)

    def to_slice_variances(self, variance: Tensor) -> Tensor:
        """Variance of each slice from independent variances of the cells (µS²): ``(..., slices, *weight.shape)``.

        A reference column's noise reaches every column of its crossbar; its variance is counted in each of them, that
        they share it is not.
        """
        code = self.mapping
        if code.cells == "signed":
            return variance
        plane = code.by_plane(variance, self.ndim)
        if code.copies > 1:
            plane = plane / code.copies
        if code.cells != "offset":
            total = plane.sum(0)
        elif code.has_references:
            total = self._with_reference(plane[0], torch.add).mul_(4.0)
        else:
            total = plane[0] * 4.0
        return total * self.unit.square()

    def around(self, target: Tensor, faults: Tensor) -> Tensor:
        """Targets that make the best of cells known to be stuck, see `Mapping.around`."""
        return self.mapping.around(target, faults, self.g_min, self.g_max)

    def saturated(self, weight: Tensor) -> Tensor | None:
        """Mask of the weights beyond the range; None where the mapping leaves none there."""
        return self.mapping.saturated(weight, self.largest)

    def following(self, weight: Tensor, held: Tensor | None) -> Tensor | None:
        """How far the array follows each weight (0 to 1, like the weight); None if it follows all.

        Args:
            weight: ``(out, ...)``; one beyond the range moves nothing.
            held: mask of the cells that do not follow their target, see `Mapping.following`; None for none.
        """
        follows = None if held is None else self.mapping.following(weight, held)
        saturated = self.saturated(weight)
        if saturated is None:
            return follows
        within = (~saturated).to(weight.dtype)
        return within if follows is None else follows * within

    def _less_reference(self, g: Tensor) -> Tensor:
        """What offset cells conduct beyond their reference."""
        if self.mapping.has_references:
            return self._with_reference(g, torch.sub)
        return g - (self.g_min + self.g_max) / 2

    def _with_reference(self, g: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """``(..., out + references, ...)`` to ``(..., out, ...)``: each column with the reference of its block."""
        axis = g.ndim - self.ndim
        cols = ((0, g.shape[axis] - 1),) if self.layout is None else self.layout.cols
        out = cols[-1][1]
        weights, references = g.narrow(axis, 0, out), g.narrow(axis, out, g.shape[axis] - out)
        parts = [
            combine(weights.narrow(axis, start, end - start), references.narrow(axis, place, 1))
            for place, (start, end) in enumerate(cols)
        ]
        return torch.cat(parts, axis)
