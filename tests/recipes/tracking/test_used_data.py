from __future__ import annotations

import json

import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from analogsim.recipes.config.options import Config, DataOptions
from analogsim.recipes.tasks.data_sets import Splits
from analogsim.recipes.tracking.used_data import used_data


def splits(test: object | None = None) -> Splits:
    samples = torch.arange(200.0).reshape(100, 2)
    whole = TensorDataset(samples, torch.zeros(100))
    return Splits("digits", whole, whole, TensorDataset(samples[:30], torch.zeros(30)) if test is None else test)


def test_data_are_named_and_told_apart() -> None:
    train, test = used_data(Config(), splits())
    assert (train.name, train.part, train.context, train.rows) == ("digits", "train", "training", 100)
    assert (test.name, test.part, test.context, test.rows) == ("digits", "test", "evaluation", 30)
    assert used_data(Config(), splits()) == [train, test]
    other = splits()
    other.train.tensors[0][0] += 1
    assert used_data(Config(), other)[0].digest != train.digest
    assert used_data(Config(), other)[1].digest != test.digest  # which are of the same memory
    fewer = Config(data=DataOptions(limit=100))
    assert not {each.digest for each in used_data(fewer, splits())} & {train.digest, test.digest}


def test_data_that_are_read_as_they_are_used_are_not_read_for_it() -> None:
    class Read(Dataset):
        def __len__(self) -> int:
            return 7

        def __getitem__(self, place: int) -> object:
            raise AssertionError("read")

    _, test = used_data(Config(), splits(Read()))
    assert (test.rows, len(test.digest)) == (7, 16)
    _, unknown = used_data(Config(), splits(iter(())))
    assert unknown.rows is None


def test_mlflow_is_told_the_same() -> None:
    pytest.importorskip("mlflow", reason="needs analogsim-torch[recipes]")
    train, _ = used_data(Config(), splits())
    told = train.as_input()
    assert (told.dataset.name, told.dataset.digest) == ("digits", train.digest)
    assert [(tag.key, tag.value) for tag in told.tags] == [("mlflow.data.context", "training")]
    assert json.loads(told.dataset.profile) == {"num_rows": 100}
    assert json.loads(told.dataset.source) == {"data": "digits", "part": "train"}
