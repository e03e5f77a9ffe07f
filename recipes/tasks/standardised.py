"""Inputs of mean 0 and standard deviation 1, as measured on what a network learns from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

_MEASURED = 2000  # samples that mean and spread are measured on, where they are read one by one


def is_bytes(data: Any) -> bool:
    """Whether samples are images in bytes, tensors ``(N, C, H, W)`` that lie there as a whole."""
    return isinstance(data, TensorDataset) and data.tensors[0].dtype is torch.uint8 and data.tensors[0].ndim == 4


def standardised(train: Any, *others: Any) -> list[Any]:
    """Data whose inputs are standardised by the first ones; inputs that are no real numbers or bytes stay as they are.

    Args:
        train: samples ``(input, target)``. Of such as are read one by one, some 2,000 are measured.
        others: more of them.
    """
    parts = [train, *others]
    first = train.tensors[0] if isinstance(train, TensorDataset) else train[0][0]
    if not isinstance(first, Tensor) or not (first.is_floating_point() or first.dtype is torch.uint8):
        return parts
    if all(type(part) is TensorDataset for part in parts):
        mean, std = _mean_and_std(first)
        return [TensorDataset(_by(part.tensors[0], mean, std), *part.tensors[1:]) for part in parts]
    some = torch.linspace(0, len(train) - 1, min(len(train), _MEASURED)).long().tolist()
    mean, std = _mean_and_std(torch.stack([train[at][0] for at in some]))
    return [Standardised(part, mean[0], std[0]) for part in parts]


class Standardised(Dataset[Any]):
    """Samples whose inputs are standardised when they are asked for.

    Args:
        data: the samples, with tensors as inputs.
        mean: to take away, in a shape that goes with an input's.
        std: to divide by.
    """

    def __init__(self, data: Dataset[Any], mean: Tensor, std: Tensor) -> None:
        self._data: Any = data
        self._mean = mean
        self._std = std

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        inputs, target = self._data[index]
        return _by(inputs, self._mean, self._std), target


def _mean_and_std(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Per channel of images ``(N, C, H, W)``, per column of a table ``(N, F)``, else one for all; they broadcast."""
    axes = {2: (0,), 4: (0, 2, 3)}.get(inputs.ndim, tuple(range(inputs.ndim)))
    # Of the bytes as they are: scaling them to [0, 1] first would cancel.
    whole = inputs if inputs.is_floating_point() else inputs.float()
    std, mean = torch.std_mean(whole, dim=axes, correction=0, keepdim=True)
    # a channel without contrast has no scale of its own
    return mean, torch.where(std > 1e-6, std, 1.0 if inputs.is_floating_point() else 255.0)


def _by(inputs: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    if inputs.is_floating_point():
        return (inputs - mean) / std
    return inputs.float().sub_(mean).div_(std)
