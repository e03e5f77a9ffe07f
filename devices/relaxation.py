"""A spread that grows after programming: what the models of the technologies share."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from analogsim.device import Cells, Effect, State, param
from analogsim.noise import Noise


def time_like(t: float | Tensor, g: Tensor) -> Tensor:
    """A time in seconds as a tensor of the dtype and torch device of ``g``."""
    return torch.as_tensor(t, dtype=g.dtype, device=g.device)


def counts(weight: float | Tensor) -> bool:
    """Whether a weight may be other than zero; nobody looks into a tensor."""
    return isinstance(weight, Tensor) or weight != 0


@dataclass(frozen=True)
class Relaxation(Effect):
    r"""Each cell wanders from what was written. The base of spreads, and shifts of the mean, measured at several times.

    .. math:: g(t) = \max\left(0,\ g_{prog} + s \left(M(t) + \sqrt{V(t) - V_0}\ \xi\right)\right), \qquad
        \xi \sim N(0, 1)\ \text{per cell}

    where :math:`V(t)` is the variance of the published error at time t and :math:`V_0` that of programming, which was
    drawn already; :math:`M(t)` is the shift of the mean, none for a source that finds none. Between the measured times
    V and M are interpolated linearly in the logarithm of time; before the first one they are those of programming.

    The programming error and the relaxation of a cell are independent of each other, so the variances add up to the
    published ones at every time. One number per cell says where it goes: its error is correlated in time, and a chip
    can be followed. (Independent steps from one measured time to the next, the other choice, would need a variance
    that never falls, which not every published fit has.)

    Args:
        scale: s, a factor on the published growth and shift.
    """

    scale: float = param(1.0, "1", ge=0)

    cellwise: ClassVar[bool] = True

    knots: ClassVar[tuple[float, ...]]
    """Times at which the spread was measured, on the scale of `clock`; the first is that of programming."""

    def clock(self, t: Tensor) -> Tensor:
        """The logarithmic time in which V is interpolated."""
        raise NotImplementedError(f"{type(self).__name__} does not say how time counts; override clock")

    def spreads(self, cells: Cells) -> tuple[Tensor, ...]:
        """Standard deviation at each of the `knots`, in the unit of the conductances, fresh tensors."""
        raise NotImplementedError(f"{type(self).__name__} does not say how large its spread is; override spreads")

    def spread(self, cells: Cells, place: int) -> Tensor:
        """The standard deviation at one of the `knots`; override it where one costs less than all."""
        return self.spreads(cells)[place]

    def shift(self, t: float | Tensor, cells: Cells) -> Tensor | None:
        """M(t), broadcast against the target; None for a mean that stays."""
        return None

    def weights(self, t: float | Tensor) -> list[float | Tensor]:
        """How much each of the `knots` counts at a time, in numbers for a number; they sum up to 1."""
        if isinstance(t, Tensor):
            now, knots = self.clock(t), self.knots
            risen = [((now - one) / (other - one)).clamp(0, 1) for one, other in itertools.pairwise(knots)]
            return [1 - risen[0], *(one - other for one, other in itertools.pairwise(risen)), risen[-1]]
        at = float(self.clock(torch.tensor(t, dtype=torch.float64, device="cpu")))
        return [float(np.interp(at, self.knots, [one == other for other in self.knots])) for one in self.knots]

    def draw(self, cells: Cells, noise: Noise) -> State:
        """See `Effect.draw`."""
        return {"xi": noise.normal_like(cells.target)}

    def growth(self, t: float | Tensor, cells: Cells) -> Tensor:
        """``V(t) - V_0``, broadcast against the target."""
        weights = self.weights(t)
        first = self.spread(cells, 0).square()
        total: Tensor | None = None
        for place, weight in enumerate(weights):
            if place and counts(weight):
                part = self.spread(cells, place).square().sub_(first).mul(weight)
                total = part if total is None else total + part
        return torch.zeros_like(first) if total is None else total

    def age(self, g: Tensor, t: float | Tensor, cells: Cells, drawn: State) -> Tensor:
        """See `Effect.age`."""
        t = time_like(t, g) if isinstance(t, Tensor) else t
        moved = self.growth(t, cells).sqrt_().mul(drawn["xi"])
        shift = self.shift(t, cells)
        moved = moved if shift is None else moved.add_(shift)
        return moved.mul_(self.scale).add(g).clamp_min_(0)
