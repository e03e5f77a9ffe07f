from __future__ import annotations

import doctest
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset, Subset, TensorDataset

from analogsim.evaluation import Metric
from analogsim.evaluation.metrics import METRICS
from analogsim.recipes.tasks import task as module
from analogsim.recipes.tasks.task import TASKS, Classification, Regression, Task, as_task, targets_of, task_for


class Listed(Dataset[Any]):
    """Samples one by one."""

    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


def test_the_example_of_the_docstring() -> None:
    assert doctest.testmod(module).attempted >= 4
    assert doctest.testmod(module).failed == 0


def test_the_loss_of_classes_is_torchs_wherever_they_stand() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(6, 3), torch.randint(3, (6,))
    assert torch.equal(TASKS["classification"].loss(logits, target), functional.cross_entropy(logits, target))
    places, labels = torch.randn(2, 5, 3), torch.randint(3, (2, 5))
    labels[0, 0] = -100
    wanted = functional.cross_entropy(places.movedim(-1, 1), labels)
    assert torch.equal(TASKS["classification"].loss(places, labels), wanted)
    assert torch.equal(TASKS["classification"].loss(places.movedim(-1, 1), labels), wanted)


def test_as_many_tokens_as_places_are_no_riddle() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 4, 4), torch.randint(4, (2, 4))
    wanted = functional.cross_entropy(logits.flatten(0, 1), target.flatten())
    torch.testing.assert_close(TASKS["language-modelling"].loss(logits, target), wanted)


def test_numbers_are_never_stretched() -> None:
    task = TASKS["regression"]
    answer, target = torch.tensor([[1.0], [2.0]]), torch.tensor([0, 0])
    assert float(task.loss(answer, target)) == float(task.loss(answer[:, 0], target[:, None])) == 2.5
    for wrong in (torch.zeros(2, 2), torch.zeros(1), torch.zeros(2, 1, 1)):
        with pytest.raises(ValueError, match=r"task regression: outputs of shape .* for targets of shape \(2,\)"):
            task.loss(wrong, target)


def test_labels() -> None:
    task = TASKS["multi-label"]
    answer, target = torch.tensor([[0.5, -1.0]]), torch.tensor([[1, 0]])
    assert torch.equal(task.loss(answer, target), functional.binary_cross_entropy_with_logits(answer, target.float()))
    with pytest.raises(ValueError, match="give a logit for each label"):
        task.loss(answer, target[:, :1])


def test_what_samples_tell() -> None:
    images, tokens = torch.zeros(4, 1, 3, 3), torch.tensor([[0, 4], [2, 1]])
    assert TASKS["classification"].facts(TensorDataset(images, torch.tensor([0, 2, 1, -100]))) == {
        "shape": (1, 3, 3),
        "classes": 3,
        "outputs": 3,
    }
    assert TASKS["language-modelling"].facts(TensorDataset(tokens, torch.tensor([[4, 6], [1, 0]]))) == {
        "shape": (2,),
        "vocabulary": 7,
        "outputs": 7,
    }
    facts = TASKS["regression"].facts(TensorDataset(images, torch.tensor([[0.0], [2], [0], [2]])))
    assert facts == {"shape": (1, 3, 3), "outputs": 1, "target_variance": 1.0}
    assert TASKS["multi-label"].facts(TensorDataset(images, torch.eye(4)))["classes"] == 4
    ragged = Listed([(torch.zeros(size, dtype=torch.int64) + size, 1) for size in (2, 3)])
    assert TASKS["classification"].facts(ragged) == {"vocabulary": 4, "classes": 2, "outputs": 2}


def test_targets_are_found_wherever_they_lie() -> None:
    whole = TensorDataset(torch.zeros(3, 2), torch.tensor([2, 0, 1]))
    assert targets_of(Subset(whole, [0, 2])).tolist() == [2, 1]  # type: ignore[union-attr]
    mapping = Listed([{"input_ids": torch.tensor([1, 9]), "labels": 1}, {"input_ids": torch.tensor([3]), "labels": 0}])
    assert targets_of(mapping).tolist() == [1, 0]  # type: ignore[union-attr]
    assert TASKS["classification"].facts(mapping)["vocabulary"] == 10
    asked = []

    class Kept(Listed):
        targets = (0, 1, 2, 0)

        def __getitem__(self, index: int) -> Any:
            asked.append(index)
            return super().__getitem__(index)

    assert targets_of(Kept([(torch.zeros(2), 5)] * 4)).tolist() == [0, 1, 2, 0]  # type: ignore[union-attr]
    assert asked == [0]
    assert targets_of(Listed([(1, torch.zeros(1)), (1, torch.zeros(2))])) is None
    assert targets_of(Listed(["text"])) is None


@pytest.mark.parametrize(
    ("task", "targets", "words"),
    [
        ("classification", torch.zeros(2), r"class numbers, integers, got torch.float32; say task=regression"),
        ("classification", torch.zeros(2, 1).long(), r"\(N,\), got \(2, 1\); take the last axis away"),
        ("classification", torch.tensor([0, -1]), "from 0 on, .* got one of -1"),
        ("classification", torch.tensor([-100, -100]), "got none that counts"),
        ("regression", torch.tensor([0.0, math.nan]), "finite real numbers"),
        ("multi-label", torch.tensor([[0, 2], [0, 1]]), "0 or 1 for each label.* values from 0 to 2"),
        ("multi-label", torch.tensor([0, 1]), r"got a shape of \(2,\)"),
    ],
)
def test_targets_of_another_task(task: str, targets: Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TASKS[task].facts(TensorDataset(torch.zeros(2, 3), targets))


@pytest.mark.parametrize(
    ("inputs", "targets", "name"),
    [
        (torch.zeros(3, 2), torch.tensor([0, 1, 2]), "classification"),
        (torch.zeros(3, 1, 4, 4), torch.zeros(3, 4, 4).long() + 3, "classification"),
        (torch.zeros(3, 2), torch.tensor([0.5, 1, 2]), "regression"),
        (torch.zeros(3, 2), torch.tensor([0.0, 1, 1]), "regression"),
        (torch.zeros(3, 2), torch.eye(3), "multi-label"),
        (torch.zeros(3, 2), torch.eye(3).long(), "multi-label"),
        (torch.tensor([[1, 2, 3]]), torch.tensor([[2, 3, 4]]), "language-modelling"),
        (torch.tensor([[1, 2, 3]]), torch.tensor([[0, 1, 0]]), "classification"),  # tags
    ],
)
def test_what_targets_look_like(inputs: Tensor, targets: Tensor, name: str) -> None:
    assert task_for(TensorDataset(inputs, targets)).name == name


def test_guessing() -> None:
    assert TASKS["classification"].guess({"classes": 10}) == math.log(10)
    assert TASKS["classification"].guess({"classes": 1}) == math.log(2)
    assert TASKS["language-modelling"].guess({"vocabulary": 65}) == math.log(65)
    assert TASKS["regression"].guess({"target_variance": 50.0}) == 50
    assert TASKS["regression"].guess({"target_variance": 0.0}) == 1
    assert [task.guess({}) for task in TASKS.values() if task.name != "multi-label"] == [None] * 3


def test_another_metric_leaves_the_task_alone() -> None:
    task = TASKS["classification"]
    other = task.judged_by(METRICS["cross_entropy"])
    assert (other.metric.name, [one.name for one in other.also]) == ("cross_entropy", ["accuracy"])
    assert (task.metric.name, task.also) == ("accuracy", ())
    assert task.judged_by(task.metric).also == ()


OWN = """
from analogsim.evaluation import Metric
from analogsim.recipes.tasks.task import Regression, Task

class Robust(Regression):
    name = "robust"
    metric = Metric("absolute error", lambda answer, target: (answer - target).abs(), higher_is_better=False)

VALUE = Robust()
NUMBER = 3

class Bare(Task):
    name = "bare"
"""


def test_a_users_own(tmp_path: Path) -> None:
    path = tmp_path / "own_tasks_of_test_task.py"
    path.write_text(OWN)
    assert as_task(f"{path}:Robust").name == as_task(f"{path}:VALUE").name == "robust"
    value = Regression()
    assert as_task(value) is value
    assert as_task("classification").metric.name == "accuracy"
    for wrong, words in (("NUMBER", "got 3"), ("Bare", "it has no metric, an analogsim.evaluation.Metric")):
        with pytest.raises(TypeError, match=rf"task: .*:{wrong} must be a subclass of .*Task; {words}"):
            as_task(f"{path}:{wrong}")
    with pytest.raises(ValueError, match=r"unknown name 'regresion', known are .*did you mean 'regression'"):
        as_task("regresion")

    class Silent(Task):
        metric = Metric("none", lambda answer, target: answer)

    with pytest.raises(NotImplementedError, match="task Silent: it has no loss"):
        Silent().loss(torch.zeros(1), torch.zeros(1))
    assert isinstance(Classification().batch((torch.zeros(1), torch.zeros(1))), tuple)
