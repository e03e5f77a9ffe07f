"""A spread that grows after programming: what the models of the technologies share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from analogsim.device import Cells, Effect, State, param
from analogsim.noise import Noise


def time_like(t: float | Tensor, g: Tensor) -> Tensor:
    """A time in seconds as a tensor of the dtype and torch device of ``g``."""
    return torch.as_tensor(t, dtype=g.dtype, device=g.device)


@dataclass(frozen=True)
class Relaxation(Effect):
    r"""Each cell wanders from what was written, and the mean stays. The base of spreads measured at several times.

    .. math:: g(t) = \max\left(0,\ g_{prog} + s \sqrt{V(t) - V_0}\ \xi\right), \qquad \xi \sim N(0, 1)\ \text{per cell}

    where :math:`V(t)` is the variance of the published error at time t and :math:`V_0` that of programming, which was
    drawn already. Between the measured times V is interpolated linearly in the logarithm of time; before the first one
    it is :math:`V_0`.

    The programming error and the relaxation of a cell are independent of each other, so the variances add up to the
    published ones at every time. One number per cell says where it goes: its error is correlated in time, and a chip
    can be followed. (Independent steps from one measured time to the next, the other choice, would need a variance
    that never falls, which not every published fit has.)

    Args:
        scale: s, a factor on the published growth.
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

    def draw(self, cells: Cells, noise: Noise) -> State:
        """See `Effect.draw`."""
        return {"xi": noise.normal_like(cells.target)}

    def growth(self, t: Tensor, cells: Cells) -> Tensor:
        """``V(t) - V_0``, broadcast against the target."""
        now = self.clock(t)
        variances = [spread.square() for spread in self.spreads(cells)]
        total = torch.zeros_like(cells.target)
        steps = zip(self.knots, self.knots[1:], variances, variances[1:], strict=False)
        for start, end, before, after in steps:
            total = total + (after - before) * ((now - start) / (end - start)).clamp(0, 1)
        return total

    def age(self, g: Tensor, t: float | Tensor, cells: Cells, drawn: State) -> Tensor:
        """See `Effect.age`."""
        std = self.growth(time_like(t, g), cells).sqrt_().mul_(self.scale)
        return (drawn["xi"] * std + g).clamp_min_(0)
