"""Inputs in two halves: what things are set by, and what they are judged by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from analogsim.utils.batches import Inputs, batches_of, inputs_of, samples_in
from analogsim.utils.torch_private import tree_flatten, tree_unflatten


def halves_of(inputs: Iterable[Any], most: int) -> tuple[list[Inputs], list[Inputs]]:
    """Every second sample of each batch, or every second batch.

    Args:
        inputs: batches, or one, see `batches_of`.
        most: samples that are taken.

    Returns:
        Two lists of batches; the same one twice where there is one batch that cannot be cut, or one sample.

    Raises:
        ValueError: there are none.
    """
    batches: list[Inputs] = []
    count = 0
    for batch in inputs_of(batches_of(inputs)):
        size = _samples(batch)
        fewer = _cut(batch, slice(0, most - count)) if size > most - count else None
        batches.append(batch if fewer is None else fewer)
        count += size
        if count >= most:
            break
    first, second = [], []
    for batch in batches:
        one, other = _cut(batch, slice(0, None, 2)), _cut(batch, slice(1, None, 2))
        if one is None or other is None:
            break
        first.append(one)
        second.append(other)
    else:
        return first, second
    return (batches[::2], batches[1::2]) if len(batches) > 1 else (batches, batches)


def _samples(batch: Inputs) -> int:
    try:
        return samples_in(batch, None)
    except ValueError:
        return 1


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
