r"""Resistive memory with program and verify: programming error.

Source: Milo et al., IRPS 2021, 50 to 225 µS; the formula is absolute and does not scale.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from analogsim.device import Cells, DeviceModel, register
from analogsim.devices.programming import ProgrammingNoise, check_range, polynomial


@dataclass(frozen=True)
class MiloProgramming(ProgrammingNoise):
    r"""Error of programming.

    .. math:: g_{prog} = g + s \sigma \xi, \qquad \sigma = 4.782321 - 0.009107\, g_{target}\ \mathrm{µS}

    Args:
        scale: s, a factor on the published error.

    Source: Milo et al., IRPS 2021, 50 to 225 µS.
    """

    def check(self, model: DeviceModel) -> None:
        """See `Effect.check`."""
        check_range("MiloProgramming", model, 50.0, 225.0)

    def sigma(self, cells: Cells) -> Tensor:
        """See `ProgrammingNoise.sigma`."""
        return polynomial(cells.target, (4.782321, -0.009107))


@register("reram-milo")
def reram_milo(*, g_min: float = 50.0, g_max: float = 225.0) -> DeviceModel:
    """Resistive memory in differential pairs: programming error. Nothing is known of later times, and nothing changes.

    Args:
        g_min: lowest conductance, at least 50 µS.
        g_max: highest conductance, at most 225 µS.

    Raises:
        ValueError: a range beyond the measured one.

    Source: see the effect `MiloProgramming`.
    """
    return DeviceModel((MiloProgramming(),), g_min=g_min, g_max=g_max, name="reram-milo")
