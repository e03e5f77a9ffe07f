"""Samples that a judgement asks again and again: as many as there is time for, drawn at random, kept in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler, Subset

from analogsim.utils.batches import Inputs, inputs_of, split

Batch = tuple[Inputs, Tensor]


class Samples:
    """Batches of ``(inputs, target)`` in memory; a loader, like the one that they came from.

    Args:
        batches: as `analogsim.utils.batches.split` gives them.
    """

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.batches = list(batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def __len__(self) -> int:
        """Number of samples, not of batches."""
        return sum(len(target) for _, target in self.batches)

    def take(self, count: int, *, pieces: int = 1) -> Samples:
        """So many of them, from all batches alike, at random but always the same ones.

        Batches of which nothing can be told apart (packed sequences, tensors without an axis for the samples) are taken
        as a whole, at least one of them.

        Args:
            count: how many; all of them where there are fewer.
            pieces: into how many batches at least, where the batches can be cut.
        """
        total = len(self)
        generator = torch.Generator().manual_seed(total)
        taken: list[Batch] = []
        passed = given = 0
        for inputs, target in self.batches:
            size = len(target)
            passed += size
            share = round(min(count, total) * passed / total) - given
            if not _divisible(inputs, size):
                if share * 2 > size or not given:
                    taken.append((inputs, target))
                    given += size
                continue
            given += share
            if share:
                index = torch.randperm(size, generator=generator)[:share]
                taken.append((_at(inputs, index, size), target[index.to(target.device)]))
        return Samples(_cut(taken, -(-given // max(pieces, 1))))

    def halves(self) -> tuple[Samples, Samples]:
        """Two halves without a sample in common; whole batches where these cannot be cut.

        Raises:
            ValueError: there is only one sample, or one batch that cannot be cut.
        """
        parts: tuple[list[Batch], list[Batch]] = ([], [])
        generator = torch.Generator().manual_seed(len(self))
        for inputs, target in self.batches:
            size = len(target)
            if size < 2 or not _divisible(inputs, size):
                parts[len(parts[0]) > len(parts[1])].append((inputs, target))
                continue
            order = torch.randperm(size, generator=generator)
            for part, index in zip(parts, (order[: (size + 1) // 2], order[(size + 1) // 2 :]), strict=True):
                part.append((_at(inputs, index, size), target[index.to(target.device)]))
        if not parts[1]:
            raise ValueError("judge: the test data cannot be halved to choose and to judge by; give validation=")
        return Samples(parts[0]), Samples(parts[1])

    def merged(self, size: int) -> Samples:
        """The same in batches of about this size, where neighbours have tensors of one shape."""
        joined: list[Batch] = []
        for inputs, target in self.batches:
            if joined and len(joined[-1][1]) + len(target) <= size and _alike(joined[-1], (inputs, target)):
                last, known = joined[-1]
                joined[-1] = (_joined(last, inputs, len(known), len(target)), torch.cat((known, target)))
            else:
                joined.append((inputs, target))
        return Samples(joined)

    def exchanged(self) -> Samples:
        """The same with targets that belong to other samples: what a network scores on these it knows nothing of."""
        targets = [target for _, target in self.batches]
        if len({target.shape[1:] for target in targets}) == 1:
            every = torch.cat(targets)
            every = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0)).to(every.device)]
            mixed = list(torch.split(every, [len(target) for target in targets]))
        else:  # sequences of other lengths in each batch
            mixed = [target.roll(1, 0) for target in targets]
        return Samples((inputs, target) for (inputs, _), target in zip(self.batches, mixed, strict=True))


def _tensors(value: Any) -> Iterator[Any]:
    """The leaves of inputs."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for entry in value:
            yield from _tensors(entry)
    else:
        yield value


def _divisible(inputs: Inputs, size: int) -> bool:
    """Whether single samples can be taken out of a batch."""
    leaves = [leaf for leaf in _tensors(inputs) if leaf is not None and not isinstance(leaf, bool | int | float | str)]
    return bool(leaves) and all(isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == size for leaf in leaves)


def _each(function: Callable[..., Any], *values: Any) -> Any:
    """Inputs of the same structure, with a function of their tensors in the place of these."""
    first = values[0]
    if isinstance(first, Mapping):
        return {key: _each(function, *(value[key] for value in values)) for key in first}
    if isinstance(first, tuple | list):
        return tuple(_each(function, *entries) for entries in zip(*values, strict=True))
    return function(*values) if isinstance(first, Tensor) else first


def _at(inputs: Inputs, index: Tensor, size: int) -> Any:
    return _each(lambda leaf: leaf[index.to(leaf.device)], inputs)


def _joined(inputs: Inputs, more: Inputs, size: int, extra: int) -> Any:
    return _each(lambda one, other: torch.cat((one, other)), inputs, more)


def _alike(one: Batch, other: Batch) -> bool:
    """Whether two batches can be one."""
    if not all(_divisible(inputs, len(target)) for inputs, target in (one, other)):
        return False

    def kind(batch: Batch) -> list[Any]:
        leaves = [*_tensors(batch[0]), batch[1]]
        names = list(batch[0]) if isinstance(batch[0], Mapping) else type(batch[0])
        return [names, [(leaf.shape[1:], leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in leaves]]

    return kind(one) == kind(other)


def _cut(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """Batches of this size at most, where they can be cut."""
    for inputs, target in batches:
        if not _divisible(inputs, len(target)) or len(target) <= size:
            yield inputs, target
            continue
        for start in range(0, len(target), size):
            index = torch.arange(start, min(start + size, len(target)))
            yield _at(inputs, index, len(target)), target[index.to(target.device)]


def thinned(loader: Iterable[Any], most: int) -> Iterable[Any]:
    """A loader of at most so many samples at random: of a `DataLoader`, whose other samples are then never read.

    Any other iterable, and one that fits, is handed back as it is.

    Args:
        loader: in order or shuffled; its own samples are drawn anew, always the same ones.
        most: how many samples.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return loader
    data: Dataset[Any] = loader.dataset
    total = len(data)  # type: ignore[arg-type]
    if total <= most:
        return loader
    index = torch.randperm(total, generator=torch.Generator().manual_seed(total))[:most].sort().values.tolist()
    how: dict[str, Any] = {"num_workers": loader.num_workers, "generator": torch.Generator()}
    if loader.batch_size is not None:
        part: Dataset[Any] = Subset(data, index)
        return DataLoader(part, loader.batch_size, collate_fn=loader.collate_fn, **how)
    if isinstance(loader.sampler, BatchSampler):  # whole batches are taken out of the data at once
        sampler = BatchSampler(SequentialSampler(range(most)), loader.sampler.batch_size, drop_last=False)
        places = [[index[place] for place in batch] for batch in sampler]
        return DataLoader(data, sampler=places, batch_size=None, collate_fn=loader.collate_fn, **how)
    return loader


def read(loader: Iterable[Any], most: int, allowed: float) -> tuple[Samples, bool]:
    """The samples of a loader, and whether reading them took longer than it may and was left.

    Args:
        loader: yields batches, see `analogsim.evaluate`.
        most: samples that are wanted; those of a `DataLoader` are drawn from all of it.
        allowed: seconds.

    Raises:
        ValueError: there are none.
        TypeError: something else comes.
    """
    start, batches = time.monotonic(), []
    for batch in thinned(loader, most):
        batches.append(split(batch))
        if time.monotonic() - start > allowed:
            return Samples(batches), True
    if not batches:
        raise ValueError("judge: a loader is empty (or can be read only once); give a DataLoader or a list of batches")
    found = Samples(batches)
    return (found.take(most) if len(found) > most else found), False


def read_inputs(loader: Iterable[Any], most: int, allowed: float) -> list[Inputs]:
    """The inputs of about so many samples, for what is calibrated on data.

    Args:
        loader: yields inputs, or tuples that begin with them.
        most: samples.
        allowed: seconds.

    Raises:
        ValueError: there are none.
        TypeError: something else comes.
    """
    start, found, count = time.monotonic(), [], 0
    for inputs in inputs_of(thinned(loader, most)):
        found.append(inputs)
        first = next((leaf for leaf in _tensors(inputs) if isinstance(leaf, Tensor) and leaf.ndim), None)
        count += 1 if first is None else len(first)
        if count >= most or time.monotonic() - start > allowed:
            break
    return found
