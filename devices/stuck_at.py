"""Cells that no longer follow what is written."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from analogsim.device import STUCK_OFF, STUCK_ON, Cells, Effect, State, held_by, param, register
from analogsim.noise import Noise


@register("stuck-at")
@dataclass(frozen=True)
class StuckAt(Effect):
    """Cells stuck at the ends of the range, independently of one another or in whole lines.

    A cell is stuck at ``g_min`` with probability ``p_off`` (SA0, stuck off), at ``g_max`` with ``p_on`` (SA1, stuck
    on). A stuck cell takes neither programming noise nor drift, wherever the effect stands in the chain.

    Args:
        p_off: fraction of the cells at ``g_min``.
        p_on: fraction of the cells at ``g_max``.
        cluster: what is stuck together: a ``"cell"`` alone, all cells of a ``"row"`` (an input of the layer, for all
            outputs), of a ``"column"`` (an output, for all inputs; the two sides of a pair are two columns), or of a
            ``"block"``. A line goes through the whole layer, also where that is cut over several crossbars.
        block: side of a block, in rows and in columns of one side of the pairs.

    Source: defaults measured on a 4-Mb HfO2 array, C.-Y. Chen et al., IEEE Trans. Comput. (2015).
    """

    p_off: float = param(0.0904, "fraction of cells", ge=0, le=1)
    p_on: float = param(0.0175, "fraction of cells", ge=0, le=1)
    cluster: str = param("cell", "1", choices=("cell", "row", "column", "block"))
    block: int = param(8, "cells", ge=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.p_off + self.p_on > 1:
            raise ValueError(f"StuckAt: p_off + p_on must be <= 1, got {self.p_off} + {self.p_on}")

    def draw(self, cells: Cells, noise: Noise) -> State:
        """See `Effect.draw`."""
        if self.cluster == "block":
            return {"fault": self._blocks(cells.target, noise)}
        lines = cells.target
        if self.cluster == "row":
            lines = lines[:1, :1]
        elif self.cluster == "column":
            for axis in range(2, lines.ndim):
                lines = lines.narrow(axis, 0, 1)
        fault = self._drawn(lines, noise)
        return {"fault": fault if self.cluster == "cell" else fault.expand_as(cells.target).clone()}

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
        return held_by(drawn["fault"], g, cells)
