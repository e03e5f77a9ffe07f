"""Samples by their place, and loaders of whole batches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
)

from analogsim.errors import InvalidValueError

Collate = Callable[[list[Any]], Any]


class Batched(Dataset[Any]):
    """Data that give a whole batch when asked for a list of places.

    Args:
        data: samples by their place.
        collate: makes a batch of a list of samples.
    """

    def __init__(self, data: Dataset[Any], collate: Collate = default_collate) -> None:
        self._data: Any = data
        self._collate = collate

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: list[int]) -> Any:
        several = getattr(self._data, "__getitems__", None)
        return self._collate([self._data[at] for at in index] if several is None else several(index))


class Adapted:
    """A loader whose batches are made into something else on their way.

    Args:
        loader: yields batches as they are.
        batch: makes of one what is wanted.
    """

    def __init__(self, loader: DataLoader[Any], batch: Callable[[Any], Any]) -> None:
        self._loader = loader
        self._batch = batch

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        return map(self._batch, self._loader)


Loader = DataLoader[Any] | Adapted


def batches(
    data: Any,
    batch_size: int,
    *,
    generator: torch.Generator | None = None,
    collate: Collate | None = None,
) -> DataLoader[Any]:
    """A loader of whole batches, of tensors without the per-sample fetch and collate that dominate on small images.

    Args:
        data: The samples.
        batch_size: Samples in a batch; the last one may be smaller.
        generator: Shuffles anew in each epoch. Given its state as it was before `iter(loader)`, the epoch
            comes again in the same order, so that a run can be resumed. Default: in order.
        collate: Makes a batch of a list of samples; default: tensors are indexed, all else goes torch's own way.
    """
    if batch_size < 1:
        raise InvalidValueError(f"batches: batch_size must be >= 1, got {batch_size}")
    if len(data) == 0:
        raise InvalidValueError("batches: the data set is empty, got 0 samples; give at least one")
    order = SequentialSampler(data) if generator is None else RandomSampler(data, generator=generator)
    indexed = isinstance(data, TensorDataset) and collate is None
    # At the start of each epoch the loader draws a seed for its workers. Without a generator of its own it
    # takes that from the global random state, and a look at the validation part would change the training.
    return DataLoader(
        data if indexed else Batched(data, default_collate if collate is None else collate),
        sampler=BatchSampler(order, batch_size, drop_last=False),
        batch_size=None,
        collate_fn=None if indexed else _as_it_is,  # torch would take tuples in a batch for lists
        generator=torch.Generator() if generator is None else generator,
    )


def take(data: Any, index: Tensor) -> Any:
    """The samples at some places."""
    if type(data) is TensorDataset:
        return TensorDataset(*data[index])
    return Subset(data, index.tolist())


def _as_it_is(batch: Any) -> Any:
    return batch
