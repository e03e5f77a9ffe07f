"""A network, its data and what it is judged by, of a module that workers can import."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

import analogsim

TIMES = ("1s", "1y")


def net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 4)).eval()


def twin(device: str = "pcm") -> nn.Module:
    return analogsim.convert(net(), device)


def batches(size: int = 30, samples: int = 90) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 6, generator=generator)
    y = torch.randint(4, (samples,), generator=generator)
    return list(zip(x.split(size), y.split(size), strict=True))


def told(output: Tensor, target: Tensor) -> Tensor:
    """A score that warns."""
    warnings.warn("this score is a joke", UserWarning, stacklevel=2)
    return output[:, 0]


class Peculiar(Exception):  # noqa: N818
    """One that cannot be made again of what it tells."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")
