from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

from analogsim.recipes.tasks.loaders import Adapted, Batched, batches, take


class Words(Dataset[Any]):
    """Rows of tokens of several lengths."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> Any:
        return torch.full((1 + index % 3,), index), index


def padded(samples: list[Any]) -> Any:
    tokens = torch.nn.utils.rnn.pad_sequence([given for given, _ in samples], batch_first=True)
    return (tokens, torch.tensor([len(given) for given, _ in samples])), torch.tensor([target for _, target in samples])


def test_batches_of_any_data_are_those_of_tensors() -> None:
    class OneByOne(Dataset[Any]):
        def __len__(self) -> int:
            return 20

        def __getitem__(self, index: int) -> Any:
            return torch.tensor([float(index)]), index

    whole = TensorDataset(torch.arange(20.0)[:, None], torch.arange(20))
    for seed in (None, 3):
        loaders = [
            batches(data, 6, generator=None if seed is None else torch.Generator().manual_seed(seed))
            for data in (whole, OneByOne())
        ]
        for (one, target), (other, same) in zip(*loaders, strict=True):
            assert torch.equal(one, other)
            assert torch.equal(target, same)


def test_a_collate_keeps_what_it_makes() -> None:
    first = next(iter(batches(Words(), 4, collate=padded)))
    assert isinstance(first, tuple)
    assert isinstance(first[0], tuple)
    assert first[0][0].shape == (4, 3)
    with pytest.raises(RuntimeError, match="equal size"):
        next(iter(batches(Words(), 4)))


def test_data_that_give_several_samples_at_once_are_asked_once() -> None:
    asked = []

    class AtOnce(Words):
        def __getitems__(self, index: list[int]) -> list[Any]:
            asked.append(index)
            return [self[at] for at in index]

    assert Batched(AtOnce(), padded)[[1, 4]][1].tolist() == [1, 4]
    assert asked == [[1, 4]]


def test_some_of_the_samples() -> None:
    whole = TensorDataset(torch.arange(5), torch.arange(5))
    assert take(whole, torch.tensor([3, 1])).tensors[0].tolist() == [3, 1]
    some = take(Words(), torch.tensor([3, 1]))
    assert isinstance(some, Subset)
    assert [some[at][1] for at in range(len(some))] == [3, 1]


def test_batches_made_into_something_else() -> None:
    loader = Adapted(batches(Words(), 4, collate=padded), lambda batch: (batch[0][0], batch[1]))
    assert len(loader) == 2
    assert [inputs.shape for inputs, _ in loader] == [(4, 3), (3, 3)] == [inputs.shape for inputs, _ in loader]
