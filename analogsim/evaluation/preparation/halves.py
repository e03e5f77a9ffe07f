"""Inputs in two halves: what things are set by, and what they are judged by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from analogsim.errors import InvalidValueError
from analogsim.utils.batches import Inputs, batches_of, inputs_of, is_empty, samples_in
from analogsim.utils.tensors import holds_nonfinite
from analogsim.utils.torch_private import tree_flatten, tree_unflatten


def halves_of(inputs: Iterable[Any], most: int) -> tuple[list[Inputs], list[Inputs]]:
    """Every second sample of each batch, or every second batch.

    Args:
        inputs: batches, or one, see `batches_of`.
        most: samples that are taken.

    Returns:
        Two lists of batches; the same one twice where there is one batch that cannot be cut, or one sample.

    Raises:
        ValueError: there are none, a batch has no samples, or one is NaN or infinite.
    """
    batches: list[Inputs] = []
    count = 0
    for number, batch in enumerate(inputs_of(batches_of(inputs), "prepare")):
        if holds_nonfinite(batch, masks=True):
            raise InvalidValueError(f"prepare: batch {number} of the inputs holds NaN or infinite values")
        size = _samples(batch)
        if not size:
            raise InvalidValueError(f"prepare: batch {number} of the inputs holds no samples")
        fewer = _cut(batch, slice(0, most - count)) if size > most - count else None
        batches.append(batch if fewer is None else fewer)
        count += size
        if count >= most:
            break
    first: list[Inputs] = []
    second: list[Inputs] = []
    ahead = 0  # samples in the first half beyond those in the second
    for batch in batches:
        one, other = _cut(batch, slice(0, None, 2)), _cut(batch, slice(1, None, 2))
        if one is None:
            return (batches[::2], batches[1::2]) if len(batches) > 1 else (batches, batches)
        if other is None:  # of one sample, as the last batch of a loader may be
            (second if ahead > 0 else first).append(batch)
            ahead += -1 if ahead > 0 else 1
            continue
        first.append(one)
        second.append(other)
        ahead += _samples(one) - _samples(other)
    return (first, second) if second else (batches, batches)


def as_loader(batches: Iterable[Inputs]) -> list[tuple[Inputs, None]]:
    """Batches of inputs as a loader yields them, so that a tuple of arguments is not taken for inputs and target."""
    return [(batch, None) for batch in batches]


def _samples(batch: Inputs) -> int:
    try:
        return samples_in(batch, None)
    except ValueError:
        return 0 if is_empty(batch) else 1


def _cut(batch: Inputs, part: slice) -> Any:
    """Some samples of a batch, along the first axis of its tensors; None where these differ, or none are left."""
    leaves, tree = tree_flatten(batch)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if not all(map(_is_known, leaves)) or len({len(tensor) for tensor in tensors}) != 1:
        return None
    if not len(range(len(tensors[0]))[part]):
        return None
    return tree_unflatten([leaf[part] if isinstance(leaf, Tensor) else leaf for leaf in leaves], tree)


def _is_known(leaf: object) -> bool:
    """Whether it is a tensor with an axis of samples, or says the same of all samples."""
    if isinstance(leaf, Tensor):
        return leaf.ndim > 0 and not leaf.is_nested and leaf.layout is torch.strided
    return isinstance(leaf, bool | int | float | None)
