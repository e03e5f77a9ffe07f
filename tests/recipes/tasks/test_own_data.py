from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from analogsim.recipes.tasks import data_sets
from analogsim.recipes.tasks.task import Classification


def pair(count: int = 40, classes: int = 4) -> tuple[Tensor, Tensor]:
    return torch.arange(float(count * 3)).reshape(count, 3), torch.arange(count) % classes


def labels(part: Any) -> list[int]:
    return [int(part[at][1]) for at in range(len(part))]


@pytest.mark.parametrize(
    "given",
    [
        (pair(), pair(8), pair(12)),
        {"train": pair(), "val": pair(8), "test": pair(12)},
        [TensorDataset(*pair()), TensorDataset(*pair(8)), TensorDataset(*pair(12))],
        tuple(DataLoader(TensorDataset(*pair(count)), batch_size=5) for count in (40, 8, 12)),
        tuple((given.numpy(), target.numpy()) for given, target in (pair(), pair(8), pair(12))),
    ],
    ids=["tensors", "dict", "sets", "loaders", "arrays"],
)
def test_three_parts_in_any_form(given: Any) -> None:
    splits = data_sets.load(given)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [40, 8, 12]
    assert (splits.shape, splits.classes, splits.task.name) == ((3,), 4, "classification")
    assert torch.equal(splits.train[1][0], torch.tensor([3.0, 4.0, 5.0]))  # left as they are
    inputs, target = next(iter(splits.batches(splits.test, 5)))
    assert (inputs.shape, target.tolist()) == ((5, 3), [0, 1, 2, 3, 0])
    assert any(note.startswith("task: classification, as the targets look") for note in splits.notes)


def test_of_two_parts_a_share_is_held_out_of_each_class_and_said() -> None:
    splits = data_sets.load((pair(), pair(12)), validation=0.2)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [32, 8, 12]
    assert sorted(labels(splits.validation)) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert any("20% of the training samples of your own are held out for validation" in note for note in splits.notes)
    other = data_sets.load((pair(), pair(12)), validation=0.2, seed=1)
    assert not torch.equal(splits.validation.tensors[0], other.validation.tensors[0])


def test_limit_and_splits_as_they_are() -> None:
    whole = data_sets.load((pair(), pair(8), pair(12)), limit=5)
    assert [len(part) for part in (whole.train, whole.validation, whole.test)] == [5, 5, 5]
    again = data_sets.load(whole)
    assert torch.equal(again.train.tensors[0], whole.train.tensors[0])
    assert again.task is whole.task


def test_images_in_bytes_are_standardised_and_it_is_said() -> None:
    images = torch.randint(256, (40, 1, 4, 4), dtype=torch.uint8)
    splits = data_sets.load(((images, pair()[1]), (images[:8], pair(8)[1])))
    assert splits.train.tensors[0].mean().item() == pytest.approx(0, abs=1e-5)
    assert any("bytes are standardised" in note for note in splits.notes)


def test_a_collate_of_a_loader_is_kept_and_samples_may_be_anything() -> None:
    class Words(Dataset[Any]):
        def __len__(self) -> int:
            return 9

        def __getitem__(self, index: int) -> Any:
            return {"input_ids": torch.full((1 + index % 3,), index), "labels": index % 2}

    def collate(samples: list[Any]) -> Any:
        tokens = [sample["input_ids"] for sample in samples]
        return {
            "input_ids": torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True),
            "labels": torch.tensor([sample["labels"] for sample in samples]),
        }

    splits = data_sets.load(
        {"train": DataLoader(Words(), 3, collate_fn=collate), "test": Words(), "validation": Words()}
    )
    assert (splits.facts["vocabulary"], splits.classes) == (9, 2)
    assert "shape" not in splits.facts
    batch = next(iter(splits.batches(splits.test, 4)))
    assert batch["input_ids"].shape == (4, 3)
    with pytest.raises(ValueError, match=r"no batch can be made of the train samples .* got a mapping with 'x'"):
        data_sets.load(([{"x": 1}], [{"x": 1}], [{"x": 1}]))


def test_a_task_with_batches_of_its_own() -> None:
    class Second(Classification):
        """Of three columns the second one is the target."""

        def batch(self, raw: Any) -> Any:
            return raw[0], raw[1]

        def facts(self, train: Any) -> dict[str, object]:
            return {"classes": 4}

    triples = TensorDataset(*pair(), torch.zeros(40))
    splits = data_sets.load({"train": triples, "validation": triples, "test": triples, "task": Second()})
    assert [len(batch) for batch in splits.batches(splits.train, 20)] == [2, 2]
    assert splits.facts == {"classes": 4, "outputs": 4}


def test_a_factory_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own_data_of_test.py"
    path.write_text(
        "import torch\n"
        "def make(seed, limit=None, size=6):\n"
        "    x, y = torch.zeros(size, 2), torch.arange(size) % 2\n"
        "    facts = {'class_names': ('a', 'b')}\n"
        "    return {'train': (x + seed, y), 'validation': (x, y), 'test': (x, y), 'facts': facts}\n"
    )
    splits = data_sets.load(f"{path}:make", seed=7)
    assert splits.name == f"{path}:make"
    assert splits.facts["class_names"] == ("a", "b")
    assert float(splits.train.tensors[0].max()) == 7
    assert data_sets.names_code(splits.name)
    assert not data_sets.names_code("folder:images")
    assert data_sets.source_of("text:corpus") == "text"


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([])


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        (None, TypeError, "must give train and test parts, .* got NoneType"),
        ((pair(),), TypeError, "got 1 of them"),
        ({"train": pair()}, ValueError, "gave a dict of 'train'; wanted 'train', 'test'"),
        ({"train": pair(), "test": pair(), "extra": 1}, ValueError, "'extra'; wanted"),
        ((pair(), (pair()[0], pair(8)[1])), ValueError, r"the test part .* \(40, 3\) and targets of shape \(8,\)"),
        ((pair(0), pair()), ValueError, "the train part of your own is empty"),
        ((Stream(), pair()), TypeError, "must be a data set with __len__ and __getitem__, .* got Stream"),
        ((DataLoader(Stream()), pair()), TypeError, "got Stream"),
        ((3, pair()), TypeError, "got int"),
        (
            (pair(), pair(12, classes=6)),
            ValueError,
            "the test part of your own has class 5, and the train part .* 0 to 3",
        ),
        ((pair(), [("a", "b")]), ValueError, "no batch can be made of the test samples"),
        (
            (pair(4), (pair(4)[0], np.array(["a"] * 4))),
            TypeError,
            "the test part of your own makes no tensors: can't convert",
        ),
    ],
)
def test_what_is_no_data(given: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        data_sets.load(given)


def test_classes_may_be_learned_as_numbers() -> None:
    splits = data_sets.load("digits", limit=50, task="regression")
    assert (splits.task.name, splits.facts["outputs"]) == ("regression", 1)
    said = {"train": pair(), "test": pair(12), "facts": {"classes": 4}, "task": "classification"}
    assert data_sets.load(said, task="regression").facts["outputs"] == 1
    assert data_sets.load("digits", limit=50, task="classification").facts["outputs"] == 10


def test_classes_that_the_train_part_lacks_are_counted_where_somebody_says_so() -> None:
    splits = data_sets.load({"train": pair(), "test": pair(12, classes=6), "facts": {"classes": 7}})
    assert (splits.classes, splits.facts["outputs"]) == (7, 7)
    rows = torch.tensor([[1, 2, 3], [2, 3, 4], [3, 4, 5]])
    tokens = (rows, rows + 1)
    facts = data_sets.load({"train": tokens, "validation": tokens, "test": tokens, "facts": {"vocabulary": 20}}).facts
    assert (facts["vocabulary"], facts["outputs"]) == (20, 20)
