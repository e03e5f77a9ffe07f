"""Cells that hold a finite number of levels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from analogsim.device import Cells, Effect, param, register
from analogsim.noise import Noise
from analogsim.utils.tensors import clamp_own


@register("quantization")
@dataclass(frozen=True)
class Quantization(Effect):
    r"""Uniform levels between ``g_min`` and ``g_max``.

    .. math:: g_{prog} = g_{min} + \Delta \left\lfloor \frac{g - g_{min}}{\Delta} + r \right\rfloor,
        \qquad \Delta = \frac{g_{max} - g_{min}}{levels - 1}

    with r = 1/2 (nearest level) or, for stochastic rounding, r uniform in [0, 1), which keeps the mean. A pair of
    cells with n levels each holds 2n - 1 signed weights. Over bit slices the nearest code is held; stochastic rounding
    is of the code as a whole, whose digits are whole then.

    Args:
        levels: number of levels of one cell, both ends included.
        stochastic: round up or down at random, with the nearer level the more likely.
    """

    levels: int = param(16, "1", ge=2)
    stochastic: bool = param(False, "1")

    cellwise: ClassVar[bool] = True

    def cell_levels(self) -> int | None:
        """See `Effect.cell_levels`."""
        return self.levels

    def program(self, g: Tensor, cells: Cells, noise: Noise) -> Tensor:
        """See `Effect.program`."""
        step = (cells.g_max - cells.g_min) / (self.levels - 1)
        position = (g - cells.g_min) / step
        if not self.stochastic:
            level = position.round_()
        elif cells.code is None or cells.code.slices == 1:
            level = (position + noise.uniform_like(g)).floor_()
        else:
            digit = (self.levels - 1) / (2**cells.code.slice_bits - 1)  # in levels
            level = cells.code.rounded_digits(position / digit, noise.uniform_like(g)).mul_(digit)
        return clamp_own(level, 0, self.levels - 1).mul_(step).add_(cells.g_min).to(g.dtype)
