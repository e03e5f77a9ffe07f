"""Samples that a judgement asks again and again: as many as there is time for, drawn at random, kept in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, SequentialSampler, Subset

from analogsim.errors import InvalidValueError
from analogsim.evaluation.sampling.picking import Batch, is_cuttable, is_divisible, part_at, picked
from analogsim.utils.batches import Inputs, inputs_of, samples_in, split


class Samples:
    """Batches of ``(inputs, target)`` in memory; a loader, like the one that they came from.

    Args:
        batches: as `analogsim.utils.batches.split` gives them.

    Raises:
        ValueError: a batch without samples, or one that does not tell how many it has.
    """

    def __init__(self, batches: Iterable[Batch]) -> None:
        self.batches = list(batches)
        self._sizes = [samples_in(inputs, target) for inputs, target in self.batches]

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)

    def __len__(self) -> int:
        """Number of samples, not of batches."""
        return sum(self._sizes)

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
        for batch, size in zip(self.batches, self._sizes, strict=True):
            passed += size
            share = round(min(count, total) * passed / total) - given
            if not is_divisible(batch, size):
                if share * 2 > size or not given:
                    taken.append(batch)
                    given += size
                continue
            given += share
            if share:
                taken.append(picked(batch, torch.randperm(size, generator=generator)[:share], size))
        return Samples(_cut(taken, -(-given // max(pieces, 1))))

    def halves(self) -> tuple[Samples, Samples]:
        """Two halves without a sample in common; whole batches where these cannot be cut.

        Raises:
            ValueError: there is only one sample, or one batch that cannot be cut.
        """
        parts: tuple[list[Batch], list[Batch]] = ([], [])
        generator = torch.Generator().manual_seed(len(self))
        for batch, size in zip(self.batches, self._sizes, strict=True):
            if size < 2 or not is_divisible(batch, size):
                parts[len(parts[0]) > len(parts[1])].append(batch)
                continue
            order = torch.randperm(size, generator=generator)
            for part, index in zip(parts, (order[: (size + 1) // 2], order[(size + 1) // 2 :]), strict=True):
                part.append(picked(batch, index, size))
        if not parts[1]:
            raise InvalidValueError("judge: the test data cannot be halved to choose and to judge by; give validation=")
        return Samples(parts[0]), Samples(parts[1])

    def exchanged(self) -> Samples | None:
        """The same with targets that belong to other samples: what a network scores on these it knows nothing of.

        None where they cannot be told apart.
        """
        targets = [target for _, target in self.batches]
        if all(isinstance(target, Tensor) and target.ndim for target in targets):
            if len({target.shape[1:] for target in targets}) == 1:
                every = torch.cat(targets)
                every = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0)).to(every.device)]
                mixed: list[Any] = list(torch.split(every, [len(target) for target in targets]))
            else:  # sequences of other lengths in each batch
                mixed = [target.roll(1, 0) for target in targets]
        elif all(is_cuttable(target, size, True) for target, size in zip(targets, self._sizes, strict=True)):
            rolled = [torch.arange(size).roll(1) for size in self._sizes]
            mixed = [part_at(*each, True) for each in zip(targets, rolled, self._sizes, strict=True)]
            if set(self._sizes) == {1}:
                mixed = mixed[1:] + mixed[:1]
        else:
            return None
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


def _cut(batches: Iterable[Batch], most: int) -> Iterator[Batch]:
    """Batches of this size at most, where they can be cut."""
    for batch in batches:
        size = samples_in(*batch)
        if size <= most or not is_divisible(batch, size):
            yield batch
            continue
        for start in range(0, size, most):
            yield picked(batch, torch.arange(start, min(start + most, size)), size)


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


def read(
    loader: Iterable[Any], most: int, allowed: float, now: Callable[[], float] = time.monotonic
) -> tuple[Samples, bool]:
    """The samples of a loader, and whether reading them took longer than it may and was left.

    Args:
        loader: yields batches, see `analogsim.evaluate`.
        most: samples that are wanted; those of a `DataLoader` are drawn from all of it.
        allowed: seconds.
        now: tells the time.

    Raises:
        ValueError: there are none.
        TypeError: something else comes.
    """
    start, batches = now(), []
    for batch in thinned(loader, most):
        batches.append(split(batch))
        if now() - start > allowed:
            return Samples(batches), True
    if not batches:
        raise InvalidValueError(
            "judge: a loader is empty (or can be read only once); give a DataLoader or a list of batches"
        )
    found = Samples(batches)
    return (found.take(most) if len(found) > most else found), False


def read_inputs(
    loader: Iterable[Any], most: int, allowed: float, now: Callable[[], float] = time.monotonic
) -> list[Inputs]:
    """The inputs of about so many samples, for what is calibrated on data.

    Args:
        loader: yields inputs, or tuples that begin with them.
        most: samples.
        allowed: seconds.
        now: tells the time.

    Raises:
        ValueError: there are none.
        TypeError: something else comes.
    """
    start, found, count = now(), [], 0
    for inputs in inputs_of(thinned(loader, most)):
        found.append(inputs)
        first = next((leaf for leaf in _tensors(inputs) if isinstance(leaf, Tensor) and leaf.ndim), None)
        count += 1 if first is None else len(first)
        if count >= most or now() - start > allowed:
            break
    return found
