"""Inputs of mean 0 and standard deviation 1, as measured on what a network learns from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

_AT_ONCE = 512  # samples that are read and measured at a time, where they do not lie there as a whole


def is_bytes(data: Any) -> bool:
    """Whether samples are images in bytes, tensors ``(N, C, H, W)`` that lie there as a whole."""
    return isinstance(data, TensorDataset) and data.tensors[0].dtype is torch.uint8 and data.tensors[0].ndim == 4


def standardised(train: Any, *others: Any) -> list[Any]:
    """Data whose inputs are standardised by the first ones; inputs that are no real numbers or bytes stay as they are.

    Args:
        train: samples ``(input, target)``. Such as do not lie there as tensors are all read once.
        others: more of them.
    """
    parts = [train, *others]
    first = train.tensors[0] if isinstance(train, TensorDataset) else train[0][0]
    if not isinstance(first, Tensor) or not (first.is_floating_point() or first.dtype is torch.uint8):
        return parts
    if all(type(part) is TensorDataset for part in parts):
        mean, std = _mean_and_std(first)
        return [TensorDataset(_by(part.tensors[0], mean, std), *part.tensors[1:]) for part in parts]
    mean, std = _mean_and_std_piece_by_piece(train)
    return [Standardised(part, mean, std) for part in parts]


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

    def __getitems__(self, index: Sequence[int]) -> list[tuple[Tensor, Any]]:
        """The samples of several places, which data may read by several threads."""
        return [(_by(inputs, self._mean, self._std), target) for inputs, target in _several(self._data, index)]


def _several(data: Any, index: Sequence[int]) -> Any:
    read = getattr(data, "__getitems__", None)
    return [data[at] for at in index] if read is None else read(list(index))


def _mean_and_std_piece_by_piece(data: Any) -> tuple[Tensor, Tensor]:
    """As `_mean_and_std`, of one sample's dimensions, of data that are read a piece at a time."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    centre: Tensor | None = None
    is_float = True
    for start in range(0, len(data), _AT_ONCE):
        inputs = torch.stack([one for one, _ in _several(data, range(start, min(start + _AT_ONCE, len(data))))])
        is_float = inputs.is_floating_point()
        axes = _axes(inputs)
        if centre is None:  # near the mean, so that sums of squares keep their digits
            centre = inputs.double().mean(axes, keepdim=True)
        values = inputs.double() - centre
        total, squares = total + values.sum(axes, keepdim=True), squares + values.square().sum(axes, keepdim=True)
        count += values.numel() // centre.numel()
    mean = total / count
    std = (squares / count - mean.square()).clamp_(min=0).sqrt_().float()
    return (mean + cast(Tensor, centre)).float()[0], _of_contrast(std, is_float)[0]


def _axes(inputs: Tensor) -> tuple[int, ...]:
    """Over all but channels of images ``(N, C, H, W)``, or columns of a table ``(N, F)``; else over all."""
    return {2: (0,), 4: (0, 2, 3)}.get(inputs.ndim, tuple(range(inputs.ndim)))


def _of_contrast(std: Tensor, is_float: bool) -> Tensor:
    """A channel without contrast has no scale of its own."""
    return torch.where(std > 1e-6, std, 1.0 if is_float else 255.0)


def _mean_and_std(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Per channel of images ``(N, C, H, W)``, per column of a table ``(N, F)``, else one for all; they broadcast."""
    # Of the bytes as they are: scaling them to [0, 1] first would cancel.
    whole = inputs if inputs.is_floating_point() else inputs.float()
    std, mean = torch.std_mean(whole, dim=_axes(inputs), correction=0, keepdim=True)
    return mean, _of_contrast(std, inputs.is_floating_point())


def _by(inputs: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    if inputs.is_floating_point():
        return (inputs - mean) / std
    return inputs.float().sub_(mean).div_(std)
