"""Scores that have a name, against torchmetrics, scikit-learn and formulas written out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim.errors import NonFiniteError
from analogsim.evaluation import METRICS
from analogsim.evaluation.scores import F1, R2, accuracy

CPU = torch.device("cpu")


def scored(name: str, *batches: tuple[Tensor, Tensor]) -> float:
    metric = METRICS[name]
    accumulator = metric.begin(CPU)
    for output, target in batches:
        metric.add(accumulator, output, target)
    return metric.result(accumulator)


def cut(output: Tensor, target: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(output.split(size), target.split(size), strict=True))


def tokens() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    output, target = torch.randn(9, 7, 5, generator=generator), torch.randint(5, (9, 7), generator=generator)
    target[::2, 3:] = -100  # padded, more in some samples than in others
    target[4] = -100
    return output, target


def test_perplexity_and_bits_are_those_of_all_tokens() -> None:
    text = pytest.importorskip("torchmetrics.text")
    output, target = tokens()
    theirs = text.Perplexity(ignore_index=-100)
    theirs.update(output, target)
    for size in (9, 2):
        assert scored("perplexity", *cut(output, target, size)) == pytest.approx(float(theirs.compute()), rel=1e-6)
        in_front = [(each.movedim(-1, 1), of) for each, of in cut(output, target, size)]
        assert scored("perplexity", *in_front) == pytest.approx(float(theirs.compute()), rel=1e-6)
    loss = float(nn.functional.cross_entropy(output.movedim(-1, 1), target))
    assert scored("bits_per_character", *cut(output, target, 4)) == pytest.approx(loss / math.log(2), rel=1e-6)
    by_samples = scored("cross_entropy", (output, target))
    assert abs(by_samples - loss) > 1e-3  # which is a mean over samples, however many of their tokens count


def test_one_who_guesses_has_the_perplexity_of_the_number_of_classes() -> None:
    for name in ("perplexity", "bits_per_character"):
        assert scored(name, (torch.zeros(3, 8), torch.arange(3))) == pytest.approx(METRICS[name].by_chance(8))


def test_a_perplexity_beyond_all_numbers_is_infinite_and_said() -> None:
    with pytest.raises(NonFiniteError, match="'perplexity' makes inf of answers that are finite"):
        scored("perplexity", (torch.tensor([[0.0, 1e6]]), torch.tensor([0])))


@pytest.mark.parametrize("name", ["mean_squared_error", "root_mean_squared_error", "r2"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_regression_is_as_scikit_learn_has_it(name: str, outputs: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(50, outputs, generator=generator) * torch.tensor([1.0, 5.0, 0.1])[:outputs] + 1000
    output = target + torch.randn(50, outputs, generator=generator)
    theirs = getattr(sklearn, "r2_score" if name == "r2" else "mean_squared_error")(target.double(), output.double())
    theirs = math.sqrt(theirs) if name.startswith("root") else theirs
    for size in (50, 7, 1):
        assert scored(name, *cut(output, target, size)) == pytest.approx(theirs, rel=1e-9)


def test_regression_is_as_torchmetrics_has_it() -> None:
    theirs = pytest.importorskip("torchmetrics.regression")
    torch.manual_seed(0)
    target = torch.randn(60)
    output = target + 0.3 * torch.randn(60)
    for name, other in (
        ("mean_squared_error", theirs.MeanSquaredError()),
        ("root_mean_squared_error", theirs.MeanSquaredError(squared=False)),
        ("r2", theirs.R2Score()),
    ):
        other.update(output, target)
        assert scored(name, *cut(output[:, None], target, 8)) == pytest.approx(float(other.compute()), rel=1e-5)


@pytest.mark.parametrize("name", ["mean_squared_error", "root_mean_squared_error", "r2"])
def test_what_would_be_stretched_is_refused(name: str) -> None:
    for shape in ((4, 2), (4, 4), (2,), (4, 1, 2)):
        with pytest.raises(ValueError, match=f"{name.removeprefix('root_')}: outputs and targets must have one shape"):
            scored(name, (torch.zeros(4), torch.zeros(shape)))
    with pytest.raises(ValueError, match="the targets of this batch hold NaN"):
        scored(name, (torch.zeros(2), torch.tensor([1.0, torch.nan])))
    with pytest.raises(TypeError, match=r"needs tensors, got a tensor .* and, as target, a list of 2 float"):
        scored(name, (torch.zeros(2), [1.0, 2.0]))  # type: ignore[arg-type]


def test_complex_errors_count_by_their_magnitude() -> None:
    assert scored("mean_squared_error", (torch.tensor([1 + 1j, 0]), torch.tensor([0j, 2]))) == 3.0


def test_where_r2_is_not_known() -> None:
    with pytest.raises(ValueError, match="r2: needs two samples or more, got 1"):
        scored("r2", (torch.zeros(1), torch.ones(1)))
    same = torch.stack((torch.arange(4.0), torch.full((4,), 0.1)), 1)
    with pytest.raises(ValueError, match="the targets of output 1 are the same in all 4 samples"):
        scored("r2", *cut(torch.zeros(4, 2), same, 3))
    with pytest.raises(ValueError, match="outputs of 3 numbers after some of 2"):
        scored("r2", (torch.zeros(4, 2), same), (torch.zeros(4, 3), torch.zeros(4, 3)))


def labelled() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(40, 6, generator=generator)
    target = ((output + torch.randn(40, 6, generator=generator)) > 0.5).float()
    output[:, 4], target[:, 4] = -1, 0  # a label that is nowhere
    return output, target


def test_labels_are_as_torchmetrics_and_scikit_learn_have_them() -> None:
    theirs, sklearn = pytest.importorskip("torchmetrics.classification"), pytest.importorskip("sklearn.metrics")
    output, target = labelled()
    right, f1 = theirs.MultilabelAccuracy(6, threshold=0.5), theirs.MultilabelF1Score(6)
    for each in (right, f1):
        each.update(output, target.long())
    for kind in (torch.float32, torch.int64, torch.bool):
        batches = cut(output, target.to(kind), 7)
        assert scored("label_accuracy", *batches) == pytest.approx(float(right.compute()), rel=1e-6)
        assert scored("f1", *batches) == pytest.approx(float(f1.compute()), rel=1e-6)
    macro = sklearn.f1_score(target.numpy(), (output > 0).numpy(), average="macro", zero_division=0)
    assert scored("f1", (output, target)) == pytest.approx(macro)


def test_f1_of_classes_and_of_tokens() -> None:
    theirs, sklearn = pytest.importorskip("torchmetrics.classification"), pytest.importorskip("sklearn.metrics")
    output, target = tokens()
    other = theirs.MulticlassF1Score(5, ignore_index=-100)
    other.update(output.movedim(-1, 1), target)
    for size in (9, 2):
        assert scored("f1", *cut(output, target, size)) == pytest.approx(float(other.compute()), rel=1e-6)
    flat, classes = output.flatten(0, 1), target.flatten()
    counted = classes != -100
    macro = sklearn.f1_score(classes[counted], flat.argmax(1)[counted], average="macro")
    assert scored("f1", *cut(flat, classes, 10)) == pytest.approx(macro)


@pytest.mark.parametrize("name", ["label_accuracy", "f1"])
def test_labels_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}: targets must be 0 or 1 for each label, got some from 0 to 2"):
        scored(name, (torch.zeros(2, 3), torch.tensor([[0, 1, 2], [0, 0, 0]])))
    with pytest.raises(TypeError, match="complex outputs are neither above nor below 0"):
        scored(name, (torch.zeros(2, 3) + 0j, torch.zeros(2, 3)))
    with pytest.raises(TypeError, match="needs tensors, got a list of 1 str"):
        scored(name, (["a"], ["b"]))  # type: ignore[arg-type]
    if name == "label_accuracy":
        with pytest.raises(ValueError, match=r"must have one shape .*got \(2, 3\) and \(2,\)"):
            scored(name, (torch.zeros(2, 3), torch.zeros(2)))


def test_f1_of_nothing_or_of_other_classes() -> None:
    with pytest.raises(ValueError, match="f1: no class is in the targets or the answers"):
        scored("f1", (torch.full((2, 3), -1.0), torch.zeros(2, 3)))
    f1 = F1()
    f1.update(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="f1: answers of 4 classes after some of 3"):
        f1.update(torch.zeros(2, 4), torch.zeros(2, 4))


def test_all_targets_padding_is_no_score() -> None:
    nothing = (torch.zeros(2, 3, 4), torch.full((2, 3), -100))
    for name in ("perplexity", "bits_per_character"):
        with pytest.raises(ValueError, match=f"{name}: no token to score"):
            scored(name, nothing)
    with pytest.raises(ValueError, match="f1: no class is"):
        scored("f1", nothing)


def test_they_start_again() -> None:
    output, target = tokens()
    for name in ("perplexity", "bits_per_character", "f1"):
        again = METRICS[name].begin(CPU)
        again.update(torch.zeros(4, 5), torch.arange(4))
        again.reset()
        again.update(output, target)
        assert again.compute() == scored(name, (output, target))
    r2 = R2()
    for _ in range(2):
        r2.reset()
        r2.update(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
        assert r2.compute() == 0.5


def test_accuracy_says_what_it_was_given() -> None:
    with pytest.raises(TypeError, match=r"accuracy: needs tensors, got a list of 2 dict and, as target, a list of 2 s"):
        accuracy([{}, {}], ["a", "b"])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["perplexity", "bits_per_character", "f1", "cross_entropy"])
def test_by_their_names_in_evaluate_sensitivity_and_together(name: str) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(30, 6), torch.randint(4, (30,))
    analog = analogsim.convert(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), "pcm")
    options: dict[str, Any] = {"chips": 3, "metric": name}
    one = analogsim.evaluate(analog, [(x, y)], times=("1d",), **options)
    many = analogsim.evaluate(analog, list(zip(x.split(7), y.split(7), strict=True)), times=("1d",), **options)
    np.testing.assert_allclose(many.values, one.values, rtol=1e-6)
    assert (one.metric, one.higher_is_better, one.unit) == (name, name == "f1", "%" if name == "f1" else "")
    result = analogsim.sensitivity(analog, [(x, y)], t="1d", **options)
    np.testing.assert_array_equal(result.everything.values, one.values)
