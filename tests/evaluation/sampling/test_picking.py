from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from analogsim.evaluation.sampling.picking import is_divisible, joined, picked, some_of
from analogsim.utils import batches as batches_module
from analogsim.utils.batches import Data

Pair = namedtuple("Pair", "left right")
CPU = torch.device("cpu")


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


x, y = torch.arange(12.0).view(6, 2), torch.arange(6)
KINDS: list[Any] = [
    (x, y),
    ((x, x + 1), y),
    ({"ids": x, "flag": True, "none": None}, {"a": y, "b": y + 1}),
    (x, ["a", "b", "c", "d", "e", "f"]),
    (Pair(x, x * 2), [y, y + 1]),
]


@pytest.mark.parametrize("batch", KINDS, ids=["tensors", "arguments", "mappings", "texts", "named"])
def test_parts_put_together_are_the_whole(batch: Any) -> None:
    assert is_divisible(batch, 6)
    parts = [picked(batch, torch.tensor(index), 6) for index in ([0, 1, 2], [3], [4, 5])]
    again = joined(parts, [3, 1, 2])
    assert again is not None
    assert same(again[0], batch[0])
    assert same(again[1], batch[1])


@pytest.mark.parametrize(
    "other",
    [
        (torch.zeros(2, 3), y[:2]),
        (x[:2].double(), y[:2]),
        (x[:2], y[:2].tolist()),
        ((x[:2],), y[:2]),
    ],
    ids=["another length", "another type", "another target", "another structure"],
)
def test_what_does_not_fit_is_not_joined(other: Any) -> None:
    assert joined([(x, y), other], [6, 2]) is None
    assert joined([other], [2]) is other


def test_mappings_of_other_keys_or_settings_do_not_fit() -> None:
    one = ({"ids": x, "scale": 1.0}, y)
    assert joined([one, ({"ids": x}, y)], [6, 6]) is None
    assert joined([one, ({"ids": x, "scale": 2.0}, y)], [6, 6]) is None


class Told(Dataset[Any]):
    """Says which samples were read."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        self.read.append(index)
        return torch.full((3,), float(index)), index


class Streamed(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([(torch.full((3,), float(index)), index) for index in range(10)])


WANTED: dict[int, list[int] | None] = {0: [1, 3], 2: None}


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("kind", ["indexed", "streamed", "list", "shuffled"])
def test_some_samples_of_some_batches(kept: bool, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kept:
        monkeypatch.setattr(batches_module, "_KEEP_BYTES", 8)
    told = Told()
    loader: Any = {
        "indexed": DataLoader(told, 4),
        "streamed": DataLoader(Streamed(), 4),
        "list": list(DataLoader(told, 4)),
        "shuffled": DataLoader(told, 4, shuffle=True, generator=torch.Generator().manual_seed(0)),
    }[kind]
    data = Data(loader, CPU)
    assert data.is_kept is kept
    told.read.clear()
    found = dict(some_of(data, WANTED))
    assert list(found) == [0, 2]
    assert [len(target) for _, target in found.values()] == [2, 2]
    for inputs, target in found.values():
        assert torch.equal(inputs[:, 0], target.float())
    if kind != "shuffled":
        assert [target.tolist() for _, target in found.values()] == [[1, 3], [8, 9]]
    if kind == "indexed" and not kept:
        assert told.read == [1, 3, 8, 9], "and nothing else"


def test_no_samples_are_read_of_nothing() -> None:
    data = Data(DataLoader(TensorDataset(x, y), 2), CPU)
    assert list(some_of(data, {})) == []
