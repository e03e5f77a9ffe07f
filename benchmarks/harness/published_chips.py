"""Chips of published tables that no device of the package is: written against the public interface, as a plug-in is."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import analogsim
from analogsim import Cells, DeviceModel, Effect, Gaussian, Noise, ReadNoise, param, register


def daffodil() -> DeviceModel:
    """ReRAM of the chip of Yousuf et al., Nat. Commun. 16 (2025), as its authors simulate it.

    Pairs of cells between 133 and 233 µS, a normal error of 16.66 µS when written, and read noise uniform within
    10 µS, which is normal here and of the same variance. Their cells stop at the ends of the range; ours do at zero.
    """
    top = 233.0
    effects = (Gaussian(std=16.66 / top), ReadNoise(std=10 / math.sqrt(3) / top))
    return DeviceModel(effects, g_min=133.0, g_max=top, mapping=analogsim.Mapping("pair"), name="daffodil")


@dataclass(frozen=True)
class RightCensored(Effect):
    r"""Noise of training on weights: normal, and what is above a limit is the limit.

    .. math:: w + m\,w_{max} \min(\xi, c), \qquad \xi \sim N(0, 1)

    Args:
        std: m, of the normal number before it is cut.
        limit: c, in standard deviations.

    Source: Z. Yan et al., ICCAD 2023. They find c and m by a search of their own; here both are given.
    """

    std: float = param(0.1, "fraction of the largest weight", ge=0)
    limit: float = param(1.0, "standard deviations")

    signed: ClassVar[bool] = True

    def error(self, g: Tensor, g_max: Callable[[Tensor], float | Tensor], noise: Noise) -> Tensor:
        """See `Effect.error`."""
        return noise.normal_like(g).clamp_(max=self.limit).mul_(self.std * g_max(g))

    def program(self, g: Tensor, cells: Cells, noise: Noise) -> Tensor:
        """See `Effect.program`."""
        return self.error(g, lambda _: cells.g_max, noise).add_(g)


@dataclass(frozen=True)
class Verified(Effect):
    r"""Weights of one layer, of which some were read back and written again until they were right.

    .. math:: w + m_i\,w_{max}\,\xi, \qquad \xi \sim N(0, 1)

    Args:
        std: m of a weight that was written once, as a fraction of the largest one.
        verified: m of one that was chosen.
        chosen: a byte for each weight in their order, 1 for those that were.
    """

    std: float = param(0.1, "fraction of the largest weight", ge=0)
    verified: float = param(0.01, "fraction of the largest weight", ge=0)
    chosen: bytes = field(default=b"", repr=False)

    signed: ClassVar[bool] = True

    def program(self, g: Tensor, cells: Cells, noise: Noise) -> Tensor:
        """See `Effect.program`."""
        if g.numel() != len(self.chosen):
            raise ValueError(f"Verified: {len(self.chosen)} weights were chosen from, and the layer has {g.numel()}")
        chosen = torch.frombuffer(bytearray(self.chosen), dtype=torch.bool).view(g.shape).to(g.device)
        size = torch.where(chosen, self.verified, self.std) * cells.g_max
        return noise.normal_like(g).mul_(size.to(g.dtype)).add_(g)


NAMES: Mapping[str, Any] = {"daffodil": daffodil, "right-censored": RightCensored}
"""What recipes call them."""


def register_chips() -> None:
    """Let text name these chips, as recipes do. Not by import, so that the list of devices stays the package's."""
    for name, factory in NAMES.items():
        register(name)(factory)


def verified_chips(
    model: nn.Module, chosen: Mapping[str, Tensor], std: float, verified: float
) -> dict[str, DeviceModel]:
    """A device for each layer, for `analogsim.convert`.

    Args:
        model: the digital network.
        chosen: masks by the names of layers, shaped like their weights.
        std: of weights that are written once, as a fraction of the largest of their layer.
        verified: of those that are chosen.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    if layers.keys() != chosen.keys():
        raise ValueError(f"verified_chips: masks of {sorted(chosen)}, and the network has {sorted(layers)}")
    devices = {}
    for name, mask in chosen.items():
        effect = Verified(std, verified, mask.cpu().numpy().astype("uint8").tobytes())
        devices[name] = DeviceModel((effect,), name=f"verified {float(mask.float().mean()):.2f}")
    return devices
