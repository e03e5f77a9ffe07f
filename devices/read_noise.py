"""White read noise: drawn anew in every use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from analogsim.device import Cells, DeviceModel, Effect, param, register
from analogsim.devices.gaussian import check_law, error_size


@register("read-noise")
@dataclass(frozen=True)
class ReadNoise(Effect):
    r"""White noise of reading, independent for each cell and each matrix-vector product.

    .. math:: g_{read} = g + \sigma \xi, \qquad \sigma = m\,g_{max},\quad m\,g,\quad\text{or}\quad m\,g_{max}^2 / g

    No weight is sampled for it: the noise of output i is :math:`N(0, \sum_j \sigma_{ij}^2 x_j^2)`, which one product
    with :math:`x^2` gives exactly. Its gradient is not followed: the noise is outside the network. The inverse law
    stops growing below :math:`g_{min}`, which conductances may reach by error or drift.

    Args:
        std: m, the standard deviation as a fraction of ``g_max`` (of ``g``, of ``g_max**2 / g``).
        law: how the noise depends on the conductance.

    Source: about 1 % per product on the measured HfOx arrays of Wan et al., Nature 608 (2022).
    """

    std: float = param(0.01, "fraction of g_max", ge=0)
    law: str = param("constant", "1", choices=("constant", "proportional", "inverse"))

    signed: ClassVar[bool] = True

    cellwise: ClassVar[bool] = True

    def check(self, model: DeviceModel) -> None:
        """See `Effect.check`."""
        check_law("ReadNoise", self.law, model)

    def read_std(self, g: Tensor, cells: Cells) -> Tensor:
        """See `Effect.read_std`."""
        at = g.clamp(min=cells.g_min) if self.law == "inverse" else g
        return torch.zeros_like(g).add_(error_size(self.law, self.std, at, cells.g_max))
