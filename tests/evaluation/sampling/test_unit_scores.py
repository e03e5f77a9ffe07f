from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from analogsim.evaluation.metrics import METRICS, Metric, as_metric
from analogsim.evaluation.sampling.unit_scores import MARGIN, SCORE, WEIGHT, margins, noting
from analogsim.evaluation.scores import IGNORED, Averaged

generator = torch.Generator().manual_seed(0)
OUTPUT = torch.randn(30, 5, generator=generator)
TARGET = torch.randint(5, (30,), generator=generator)
TOKENS = torch.randn(30, 5, 7, generator=generator)
WORDS = torch.randint(5, (30, 7), generator=generator)
WORDS[3, 2:] = IGNORED
WORDS[7] = IGNORED


def squares(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output.argmax(1) - target).double() ** 2


AVERAGES: dict[str, tuple[Any, Any, Any]] = {
    **{name: (name, OUTPUT, TARGET) for name in ("accuracy", "cross_entropy")},
    **{f"{name} of tokens": (name, TOKENS, WORDS) for name in ("accuracy", "perplexity", "bits_per_character")},
    **{name: (name, OUTPUT, OUTPUT + 1) for name in ("mean_squared_error", "root_mean_squared_error")},
    "label_accuracy": ("label_accuracy", OUTPUT, (OUTPUT > 0.3).long()),
    "a function": (squares, OUTPUT, TARGET),
    "a function with a transform": (Metric("s", squares, transform=lambda o, t: (-o, t)), OUTPUT, TARGET),
    "the mean of a batch": (nn.CrossEntropyLoss(), OUTPUT, TARGET),
}


@pytest.mark.parametrize("name", AVERAGES)
def test_what_is_noted_makes_the_score(name: str) -> None:
    metric, output, target = AVERAGES[name]
    metric = as_metric(metric)
    assert metric.is_average
    plain = metric.begin(torch.device("cpu"))
    both = [noting(metric, whole=whole).begin(torch.device("cpu")) for whole in (True, False)]
    for part in (slice(0, 20), slice(20, 30)):
        metric.add(plain, output[part], target[part])
        for each in both:
            each.update(output[part], target[part])
    true = metric.result(plain)
    assert both[0].compute() == true
    assert both[1].compute() == pytest.approx(true, rel=1e-6)
    rows = metric.details(both[1])
    assert rows is not None
    assert len(rows) == (2 if name == "the mean of a batch" else 30)
    mean = float((rows[:, SCORE] * rows[:, WEIGHT]).sum() / rows[:, WEIGHT].sum())
    assert isinstance(plain, Averaged)
    assert plain.of_mean(mean) == pytest.approx(true, rel=1e-6)


@pytest.mark.parametrize("name", ["f1", "r2"])
def test_what_is_no_average_says_so(name: str) -> None:
    assert not METRICS[name].is_average


def test_samples_of_which_nothing_counts_weigh_nothing() -> None:
    noted = noting(METRICS["accuracy"], whole=False).begin(torch.device("cpu"))
    noted.update(TOKENS, WORDS)
    rows = METRICS["accuracy"].details(noted)
    assert rows is not None
    assert rows[7, WEIGHT] == 0
    assert rows[7, SCORE] == 0
    assert (rows[[0, 3], WEIGHT] == 1).all()


def test_margins_are_the_lead_of_the_right_class() -> None:
    found = margins(torch.tensor([[3.0, 1.0, 0.0], [3.0, 1.0, 0.0]]), torch.tensor([0, 1]))
    assert found is not None
    assert found.tolist() == [2.0, -2.0]
    for output, target in ((TOKENS, WORDS), (OUTPUT, TARGET.double()), (OUTPUT, TARGET - 9), ("a", "b")):
        assert margins(output, target) is None
    noted = noting(METRICS["accuracy"], whole=False).begin(torch.device("cpu"))
    noted.update(OUTPUT, TARGET)
    rows = METRICS["accuracy"].details(noted)
    assert rows is not None
    assert ((rows[:, MARGIN] > 0) == (rows[:, SCORE] == 1)).all()


def test_of_nothing_there_is_no_score() -> None:
    with pytest.raises(ValueError, match="no sample to score"):
        noting(METRICS["accuracy"], whole=False).begin(torch.device("cpu")).compute()


def test_roots_of_what_is_estimated_below_nothing_are_nothing() -> None:
    score = METRICS["root_mean_squared_error"].begin(torch.device("cpu"))
    assert isinstance(score, Averaged)
    assert score.of_mean(-1e-9) == 0
    assert score.of_mean(4.0) == 2
    tokens = METRICS["perplexity"].begin(torch.device("cpu"))
    assert isinstance(tokens, Averaged)
    assert tokens.of_mean(1.0) == math.e
