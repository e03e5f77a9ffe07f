from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from analogsim.recipes.tasks import data_sets
from analogsim.recipes.tasks.answering import check_answers
from analogsim.recipes.tasks.task import Classification, Regression


def data(task: Any = None, classes: int = 3) -> data_sets.Splits:
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    y = torch.arange(30) % classes
    return data_sets.load({"train": (x, y), "validation": (x, y), "test": (x, y), "task": task})


class Answers(nn.Module):
    """Two layers that answer as they are told to."""

    def __init__(self, outputs: int = 3, change: Any = lambda output: output) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, outputs))
        self.change = change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.layers(x))


def boom(output: Tensor) -> Tensor:
    raise KeyError("no\nsuch thing")


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (
            Answers(outputs=2),
            "the network answers (2, 2) to 2 samples, and the data have 3 classes; let it give a logit",
        ),
        (nn.Linear(5, 3), "(2, 4) of torch.float32: RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        (nn.Linear(4, 3).double(), "RuntimeError: mat1 and mat2 must have the same dtype"),
        (Answers(change=boom), "a tensor (2, 4) of torch.float32: KeyError: 'no\\nsuch thing'; analogsim --debug"),
        (Answers(change=lambda output: {"a": output, "b": output}), "there is no loss of what"),
        (Answers().requires_grad_(False), "are frozen (requires_grad=False), and nothing can be trained"),
    ],
    ids=["few outputs", "other inputs", "double", "raises", "a mapping", "frozen"],
)
def test_what_cannot_be_trained_is_told_in_a_line(network: nn.Module, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as told:
        check_answers(network, "nets.py:build", data(), learns=True)
    assert "\n" not in str(told.value)


def test_all_is_as_it_was_before() -> None:
    network = Answers()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    check_answers(network, network, data(), learns=True)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())  # batch norm's too
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]  # type: ignore[index]
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())


def test_what_is_only_judged_need_not_be_trainable() -> None:
    one = Answers(outputs=1).requires_grad_(False)
    check_answers(one, one, data(classes=2), learns=False)  # a metric may take one logit for two classes
    with pytest.raises(ValueError, match="does not answer samples"):
        check_answers(nn.Linear(5, 1), "nets.py:build", data(), learns=False)


class OneLogit(Classification):
    """Two classes, told by one number."""

    def loss(self, answer: Tensor, target: Tensor) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(answer.squeeze(1), target.float())


def test_a_task_of_ones_own_says_what_answers_are() -> None:
    check_answers(Answers(outputs=1), "nets.py:build", data(OneLogit(), classes=2), learns=True)
    with pytest.raises(ValueError, match=r"task regression: outputs of shape \(2, 3\) for targets of shape \(2,\)"):
        check_answers(Answers(), "nets.py:build", data(Regression()), learns=True)
