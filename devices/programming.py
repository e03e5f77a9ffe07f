"""Error of programming whose size depends on the state: what the models of the technologies share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from analogsim.device import Cells, DeviceModel, Effect, param
from analogsim.errors import InvalidValueError
from analogsim.noise import Noise

T = TypeVar("T")


def one_of(owner: str, name: str, value: str, known: Mapping[str, T]) -> T:
    """What stands in ``known`` under ``value``; an error that lists them if nothing does."""
    if not isinstance(value, str) or value not in known:
        raise InvalidValueError(f"{owner}: {name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    return known[value]


def polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """``c0 + c1 x + c2 x**2 + ...``, a fresh tensor; at least one coefficient, the constant first."""
    value = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value.mul_(x).add_(coefficient)
    return value


def check_range(owner: str, model: DeviceModel, low: float, high: float, unit: str = "µS") -> None:
    """Refuse a conductance range that leaves the one on which a formula was fitted and with which it does not scale."""
    if model.g_min < low or model.g_max > high:
        raise InvalidValueError(
            f"{owner}: the formula holds from {low:g} to {high:g} {unit}, got g_min={model.g_min:g} and "
            f"g_max={model.g_max:g}; give the device model a range within"
        )


@dataclass(frozen=True)
class ProgrammingNoise(Effect):
    r"""Normal error of iterative programming. The base of published fits, which say what :math:`\sigma` is.

    .. math:: g_{prog} = \max(0, g + s\,\sigma(g_{target})\,\xi), \qquad \xi \sim N(0, 1)\ \text{per cell}

    Args:
        scale: s, a factor on the published error.
    """

    scale: float = param(1.0, "1", ge=0)

    cellwise: ClassVar[bool] = True

    def sigma(self, cells: Cells) -> Tensor:
        """Standard deviation of the error, in the unit of the conductances, a fresh tensor shaped like the target."""
        raise NotImplementedError(f"{type(self).__name__} does not say how large its error is; override sigma")

    def program(self, g: Tensor, cells: Cells, noise: Noise) -> Tensor:
        """See `Effect.program`."""
        return noise.normal_like(g, self.scale).mul_(self.sigma(cells)).add_(g).clamp_min_(0)
