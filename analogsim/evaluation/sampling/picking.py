"""Samples taken out of batches, and put together again, whatever structure their inputs and targets have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler

from analogsim.utils.batches import Data, Inputs, moved, samples_in, split

Batch = tuple[Inputs, Any]
"""Inputs and target, as `analogsim.utils.batches.split` gives them."""


def is_divisible(batch: Batch, size: int) -> bool:
    """Whether single samples can be taken out of a batch."""
    inputs, target = batch
    return is_cuttable(inputs, size, False) and is_cuttable(target, size, True)


def is_cuttable(value: Any, size: int, target: bool) -> bool:
    """Whether every part of a value has an axis, or an entry, for each sample; what has neither is for all of them."""
    parts = _parts(value, size, target)
    if parts is not None:
        kept = [part for part in parts if not _is_shared(part)]
        return bool(kept) and all(is_cuttable(part, size, target) for part in kept)
    return (isinstance(value, Tensor) and value.ndim > 0 and len(value) == size) or _is_listed(value, size)


def _parts(value: Any, size: int, target: bool) -> list[Any] | None:
    """What a value consists of, each with something of all samples; None where it is no such collection.

    A tuple holds arguments, or the parts of a target; so does a list in which all parts of a target are tensors of as
    many samples as there are. Any other list of as many entries as samples has one for each.
    """
    if isinstance(value, PackedSequence):
        return None
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, list | tuple):
        each = all(isinstance(part, Tensor) and part.ndim and len(part) == size for part in value)
        parts = isinstance(value, tuple) and not (target and len(value) == size and not each)
        return list(value) if parts or (target and value and each) or len(value) != size else None
    return None


def _is_shared(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _is_listed(value: Any, size: int) -> bool:
    """Whether a value has an entry for each sample."""
    return isinstance(value, list | tuple) and not isinstance(value, PackedSequence) and len(value) == size


def part_at(value: Any, index: Tensor, size: int, target: bool) -> Any:
    """Some samples' part of a value that can be cut."""
    if _is_shared(value):
        return value
    if isinstance(value, Mapping):
        return {key: part_at(entry, index, size, target) for key, entry in value.items()}
    if _parts(value, size, target) is not None:
        return _like(value, [part_at(entry, index, size, target) for entry in value])
    if isinstance(value, Tensor):
        return value[index.to(value.device)]
    return type(value)(value[place] for place in index.tolist())


def picked(batch: Batch, index: Tensor, size: int) -> Batch:
    """Some samples of a batch that can be cut."""
    inputs, target = batch
    return part_at(inputs, index, size, False), part_at(target, index, size, True)


def joined(batches: Sequence[Batch], sizes: Sequence[int]) -> Batch | None:
    """Several batches as one; None where they do not fit together, such as pictures or texts of other lengths.

    Args:
        batches: of which single samples can be taken, see `is_divisible`.
        sizes: how many samples each of them has.
    """
    if len(batches) == 1:
        return batches[0]
    try:
        inputs = _joined([inputs for inputs, _ in batches], sizes, False)
        return inputs, _joined([target for _, target in batches], sizes, True)
    except _UnlikeError:
        return None


class _UnlikeError(Exception):
    """Parts that do not fit together."""


def _joined(values: Sequence[Any], sizes: Sequence[int], target: bool) -> Any:
    first = values[0]
    _check_alike([type(value) for value in values])
    if _is_shared(first):
        _check_alike(values)
        return first
    if isinstance(first, Tensor):
        _check_alike([(value.shape[1:], value.dtype) for value in values])
        return torch.cat(list(values))
    if isinstance(first, Mapping):
        _check_alike([value.keys() for value in values])
        return {key: _joined([value[key] for value in values], sizes, target) for key in first}
    in_parts = [_parts(value, size, target) is not None for value, size in zip(values, sizes, strict=True)]
    _check_alike(in_parts)
    if not in_parts[0]:
        return type(first)(each for value in values for each in value)
    _check_alike([len(value) for value in values])
    return _like(first, [_joined(parts, sizes, target) for parts in zip(*values, strict=True)])


def _like(value: Any, entries: list[Any]) -> Any:
    """A list, a tuple or a named tuple, as a value is one, of other entries."""
    if isinstance(value, list):
        return entries
    return type(value)(*entries) if hasattr(value, "_fields") else tuple(entries)


def _check_alike(values: Sequence[Any]) -> None:
    if any(value != values[0] for value in values):
        raise _UnlikeError


def some_of(data: Data, wanted: Mapping[int, Sequence[int] | None]) -> Iterator[tuple[int, Batch]]:
    """Some samples of some batches, with the number of each batch, in order.

    Data in memory are indexed, and so is the data set of a `DataLoader` that reads it in order, of which nothing else
    is read then. Anything else is read through, up to the last batch that is wanted.

    Args:
        data: the batches.
        wanted: for the number of a batch which of its samples, ascending; None for all.
    """
    loader = None if data.is_kept else data.loader
    if isinstance(loader, DataLoader) and _reads_in_order(loader):
        yield from _indexed(data, loader, wanted)
        return
    last = max(wanted, default=-1)
    for number, (inputs, target) in enumerate(data):
        if number in wanted:
            places = wanted[number]
            batch: Batch = (inputs, target)
            size = samples_in(inputs, target)
            yield number, batch if places is None else picked(batch, torch.tensor(places), size)
        if number >= last:
            return


def _reads_in_order(loader: DataLoader[Any]) -> bool:
    """Whether which samples a batch holds follows from its number."""
    plain = type(loader.sampler) is SequentialSampler and loader.batch_size is not None
    return plain and not isinstance(loader.dataset, IterableDataset)


def _indexed(
    data: Data, loader: DataLoader[Any], wanted: Mapping[int, Sequence[int] | None]
) -> Iterator[tuple[int, Batch]]:
    """See `some_of`: of a data set that is read by index."""
    size: int = loader.batch_size or 1
    total = len(loader.dataset)  # type: ignore[arg-type]
    numbers = sorted(wanted)
    rows = []
    for number in numbers:
        places = wanted[number]
        whole = range(number * size, min((number + 1) * size, total))
        rows.append([*whole] if places is None else [number * size + place for place in places])
    how: dict[str, Any] = {"num_workers": loader.num_workers, "collate_fn": loader.collate_fn}
    part: DataLoader[Any] = DataLoader(loader.dataset, batch_sampler=rows, generator=torch.Generator(), **how)
    for number, batch in zip(numbers, part, strict=True):
        inputs, target = split(batch)
        yield number, (moved(inputs, data.device), moved(target, data.device))
