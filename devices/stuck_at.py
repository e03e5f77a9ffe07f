"""Cells that no longer follow what is written."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from analogsim.device import STUCK_OFF, STUCK_ON, Cells, Effect, State, param, register
from analogsim.errors import InvalidValueError
from analogsim.noise import Noise


@register("stuck-at")
@dataclass(frozen=True)
class StuckAt(Effect):
    r"""Stuck cells, independently of one another or in whole lines.

    A cell is stuck off with probability ``p_off`` (SA0), on with ``p_on`` (SA1), at

    .. math:: g_{off}\,D(s_{off}), \qquad g_{on}\,D(s_{on}), \qquad
        D(s) = e^{s \xi},\quad \max(0, 1 + s \xi)\quad\text{or}\quad \max(0, 1 + s u)

    for the distributions ``"lognormal"``, ``"normal"`` and ``"uniform"``, with :math:`\xi \sim N(0, 1)` and u uniform
    in [-1, 1), one number for each cell. A stuck cell takes neither programming noise nor drift, wherever the effect
    stands in the chain. By default cells are stuck at the ends of the range; values outside are those of shorts and
    opens, which have no slow noise of reading either, since no formula was fitted to them.

    Args:
        p_off: fraction of the cells that are stuck off.
        p_on: fraction of the cells that are stuck on.
        cluster: what is stuck together: a ``"cell"`` alone, all cells of a ``"row"`` (an input of the layer, for all
            outputs), of a ``"column"`` (an output, for all inputs; the two sides of a pair are two columns), or of a
            ``"block"``. A line goes through the whole layer, also where that is cut over several crossbars.
        block: side of a block, in rows and in columns of one side of the pairs.
        off: where a cell is that is stuck off: ``"g_min"``, or a conductance; 0 is an open.
        on: where a cell is that is stuck on: ``"g_max"``, or a conductance; one far above is a short.
        off_spread: :math:`s_{off}`.
        on_spread: :math:`s_{on}`.
        distribution: D, ``"lognormal"``, ``"normal"`` or ``"uniform"``.

    Source: the default fractions were measured on a 4-Mb HfO2 array, C.-Y. Chen et al., IEEE Trans. Comput. (2015).
    """

    p_off: float = param(0.0904, "fraction of cells", ge=0, le=1)
    p_on: float = param(0.0175, "fraction of cells", ge=0, le=1)
    cluster: str = param("cell", "1", choices=("cell", "row", "column", "block"))
    block: int = param(8, "cells", ge=1)
    off: float | str = param("g_min", "µS", ge=0, words=("g_min",))
    on: float | str = param("g_max", "µS", ge=0, words=("g_max",))
    off_spread: float = param(0.0, "fraction of off", ge=0)
    on_spread: float = param(0.0, "fraction of on", ge=0)
    distribution: str = param("lognormal", "1", choices=("lognormal", "normal", "uniform"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.p_off + self.p_on > 1:
            raise InvalidValueError(f"StuckAt: p_off + p_on must be <= 1, got {self.p_off} + {self.p_on}")

    def draw(self, cells: Cells, noise: Noise) -> State:
        """See `Effect.draw`."""
        drawn = {"fault": self._faults(cells, noise)}
        if self.off_spread or self.on_spread:
            off, on = self._values(cells)
            target = cells.target
            at_off = self._spread(target, off, self.off_spread, noise.fold("off"))
            drawn["at"] = torch.where(drawn["fault"] == STUCK_OFF, at_off, 0.0)
            at_on = self._spread(target, on, self.on_spread, noise.fold("on"))
            drawn["at"] = torch.where(drawn["fault"] == STUCK_ON, at_on, drawn["at"])
        return drawn

    def _values(self, cells: Cells) -> tuple[float, float]:
        """Conductances of cells that are stuck off and on, µS, without their spread."""
        off = cells.g_min if isinstance(self.off, str) else self.off
        return off, float(cells.g_max) if isinstance(self.on, str) else self.on

    def _spread(self, like: Tensor, value: float, spread: float, noise: Noise) -> Tensor:
        """Conductances of stuck cells, shaped like ``like``."""
        if not spread:
            return torch.full_like(like, value)
        if self.distribution == "uniform":
            factor = noise.uniform_like(like).mul_(2).sub_(1).mul_(spread).add_(1).clamp_min_(0)
        else:
            factor = noise.normal_like(like, spread)
            factor = factor.exp_() if self.distribution == "lognormal" else factor.add_(1).clamp_min_(0)
        return factor.mul_(value).to(like.dtype)

    def _faults(self, cells: Cells, noise: Noise) -> Tensor:
        if self.cluster == "block":
            return self._blocks(cells.target, noise)
        lines = cells.target
        if self.cluster == "row":
            lines = lines[:1, :1]
        elif self.cluster == "column":
            for axis in range(2, lines.ndim):
                lines = lines.narrow(axis, 0, 1)
        fault = self._drawn(lines, noise)
        return fault if self.cluster == "cell" else fault.expand_as(cells.target).clone()

    def _drawn(self, like: Tensor, noise: Noise) -> Tensor:
        u = noise.uniform_like(like)
        off = u < self.p_off
        on = (u >= self.p_off) & (u < self.p_off + self.p_on)
        return off.to(torch.int8) * STUCK_OFF + on.to(torch.int8) * STUCK_ON

    def _blocks(self, target: Tensor, noise: Noise) -> Tensor:
        flat = target.flatten(2) if target.ndim > 2 else target.unsqueeze(2)
        coarse = self._drawn(flat[:, :: self.block, :: self.block], noise)
        fine = coarse.repeat_interleave(self.block, 1).repeat_interleave(self.block, 2)
        return fine[:, : flat.shape[1], : flat.shape[2]].reshape(target.shape)

    def held(self, drawn: State) -> Tensor:
        """See `Effect.held`."""
        return drawn["fault"] != 0

    def hold(self, g: Tensor, cells: Cells, drawn: State) -> Tensor:
        """See `Effect.hold`."""
        fault = drawn["fault"]
        if "at" in drawn:
            return torch.where(fault == 0, g, drawn["at"].to(g.dtype))
        off, on = self._values(cells)
        return g.masked_fill(fault == STUCK_OFF, off).masked_fill_(fault == STUCK_ON, on)
