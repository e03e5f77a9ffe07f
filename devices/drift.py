"""Conductance drift with one exponent per cell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from analogsim.device import Cells, Effect, State, param, register
from analogsim.noise import Noise


def decay(g: Tensor, nu: Tensor, t: float | Tensor, t0: float) -> Tensor:
    """``g ((t + t0)/t0)**-nu``: the power law of drift, t and t0 in seconds."""
    log_ratio = torch.log1p(t / t0) if isinstance(t, Tensor) else math.log1p(t / t0)
    return torch.mul(nu, -log_ratio).exp_() * g  # not in place: g may have chip dimensions that nu has not


@register("drift")
@dataclass(frozen=True)
class Drift(Effect):
    r"""Structural relaxation: conductance falls with a power of time.

    .. math:: g(t) = g(0) \left(\frac{t + t_0}{t_0}\right)^{-\nu}, \qquad \nu \sim N(\bar\nu, \sigma_\nu^2)

    with one exponent per cell, drawn once for the life of the chip. A cell whose exponent comes out negative grows.

    Args:
        nu: mean exponent.
        nu_std: its standard deviation from cell to cell. It is the point of the model: one exponent for all cells is a
            gain, which any compensation removes without loss.
        t0: time of the first reading after programming.

    Source: the power law and the typical 0.05 with a spread of 0.01 to 0.04 for phase-change memory are from Joshi et
    al., Nat. Commun. 11:2473 (2020), and the works it cites. Independent of the conductance here; see ``pcm`` for the
    dependence that was measured.
    """

    nu: float = param(0.05, "1", ge=0)
    nu_std: float = param(0.01, "1", ge=0)
    t0: float = param(20.0, "s", gt=0)

    cellwise: ClassVar[bool] = True

    def draw(self, cells: Cells, noise: Noise) -> State:
        """See `Effect.draw`."""
        return {"nu": noise.normal_like(cells.target, self.nu_std).add_(self.nu)}

    def age(self, g: Tensor, t: float | Tensor, cells: Cells, drawn: State) -> Tensor:
        """See `Effect.age`."""
        return decay(g, drawn["nu"], t, self.t0)
