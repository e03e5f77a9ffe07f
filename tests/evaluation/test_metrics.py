from __future__ import annotations

import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim.errors import NonFiniteError
from analogsim.evaluation import METRICS, Metric
from analogsim.evaluation.ablation import ALL, Ablation
from analogsim.evaluation.metrics import as_metric
from analogsim.evaluation.scores import Mean, accuracy


class F1:
    """Harmonic mean of precision and recall of class 1, over all that was seen; made as torchmetrics' metrics are."""

    higher_is_better = True

    def __init__(self) -> None:
        self.reset()

    def update(self, output: Tensor, target: Tensor) -> None:
        found = output.argmax(1) == 1
        self.hits += int((found & (target == 1)).sum())
        self.misses += int((found != (target == 1)).sum())

    def compute(self) -> Tensor:
        return torch.tensor(2 * self.hits / max(2 * self.hits + self.misses, 1), dtype=torch.float64)

    def reset(self) -> None:
        self.hits = self.misses = 0


class Perplexity(nn.Module):
    """With its state in a module, as torchmetrics has it."""

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(2, dtype=torch.float64))

    def update(self, output: Tensor, target: Tensor) -> None:
        loss = nn.functional.cross_entropy(output.double(), target, reduction="sum")
        self.seen += torch.stack((loss, torch.tensor(float(len(target)), dtype=torch.float64)))

    def compute(self) -> Tensor:
        return (self.seen[0] / self.seen[1]).exp()

    def reset(self) -> None:
        self.seen.zero_()


def network() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    x = torch.randn(90, 6)
    y = (x[:, 0] > 0.8).long()
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, list(zip(x.split(20), y.split(20), strict=True))


OPTIONS: dict[str, Any] = {"chips": 3, "times": ("1s", "1y")}


def by_hand(analog: nn.Module, data: list[tuple[Tensor, Tensor]], score: Any) -> np.ndarray[Any, Any]:
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    rows = []
    for seed in range(3):
        with analogsim.programmed(analog, seed), torch.no_grad():
            row = []
            for t in OPTIONS["times"]:
                analogsim.drift(analog, t)
                row.append(float(score(analog(x), y)))
            rows.append(row)
    return np.array(rows)


def f1(output: Tensor, target: Tensor) -> Tensor:
    whole = F1()
    whole.update(output, target)
    return whole.compute()


@pytest.mark.parametrize("together", [1, 2])
def test_f1_over_all_samples_is_no_mean_over_batches(together: int) -> None:
    model, data = network()
    analog = analogsim.convert(model, "gaussian(std=0.2)")
    mine = F1()
    mine.hits = 7  # of other data; it must neither count nor be lost
    report = analogsim.evaluate(analog, data, metric=mine, together=together, **OPTIONS)
    np.testing.assert_array_equal(report.values, by_hand(analog, data, f1))
    assert (mine.hits, report.metric, report.unit, report.higher_is_better) == (7, "F1", "", True)
    assert len(np.unique(report.values)) > 1
    means = analogsim.evaluate(analog, data, metric=lambda output, target: f1(output, target), **OPTIONS)
    assert not np.array_equal(means.values, report.values)


@pytest.mark.parametrize("together", [1, 3])
def test_perplexity_is_the_exponential_of_the_whole(together: int) -> None:
    model, data = network()
    analog = analogsim.convert(model, "gaussian(std=0.2)")
    report = analogsim.evaluate(analog, data, metric=Perplexity(), together=together, **OPTIONS)
    losses = analogsim.evaluate(analog, data, metric="cross_entropy", **OPTIONS)
    np.testing.assert_allclose(report.values, np.exp(losses.values), rtol=1e-5)
    assert report.clean == pytest.approx(math.exp(losses.clean), rel=1e-5)
    assert type(report.clean) is float


def test_a_layers_loss_of_an_objects_metric() -> None:
    model, data = network()
    analog = analogsim.convert(model, "gaussian(std=0.5)")
    result = analogsim.sensitivity(analog, data, t=0, chips=2, metric=Perplexity())
    assert not result.higher_is_better
    assert result.mean() == pytest.approx(float(result.everything.mean[0]) - result.clean)
    ablation = analogsim.ablate(analog, data, times=(0,), chips=2, metric=Perplexity())
    assert ablation.gain("Gaussian")[0, 0] == pytest.approx(result.mean())


def test_a_metric_of_ones_own_is_shown_as_it_says() -> None:
    model, data = network()
    analog = analogsim.convert(model, "gaussian(std=0.5)")
    own = Metric("right", accuracy, unit="%", higher_is_better=True, chance=lambda classes: 1 / classes)
    report = analogsim.evaluate(analog, data, metric=own, **OPTIONS)
    known = analogsim.evaluate(analog, data, **OPTIONS)
    mine, theirs = (str(each).splitlines() for each in (report, known))
    assert mine[0].split() == ["right", *theirs[0].split()[1:]]
    assert [line.split() for line in mine[2:]] == [line.split() for line in theirs[2:]]
    np.testing.assert_array_equal(report.normalized, known.normalized)
    table = str(analogsim.sensitivity(analog, data, t=0, chips=2, metric=own))
    assert table.splitlines()[0].split()[:5] == ["analog", "right", "[%]", "loss", "[%]"]
    assert str(analogsim.ablate(analog, data, times=(0,), chips=2, metric=own)).startswith("right [%]")
    fixed = analogsim.evaluate(analog, data, metric=Metric("half", accuracy, chance=0.25), **OPTIONS)
    assert fixed.chance == 0.25


@pytest.mark.parametrize("judge", [analogsim.sensitivity, analogsim.ablate])
def test_an_unknown_direction_is_said_and_not_guessed(judge: Any) -> None:
    model, data = network()
    analog = analogsim.convert(model, "gaussian(std=0.5)")

    def wrong(output: Tensor, target: Tensor) -> Tensor:
        return (output.argmax(1) != target).float()

    with pytest.raises(ValueError, match="not known whether a higher 'wrong' is better; say higher_is_better=True"):
        judge(analog, data, chips=1, metric=wrong)
    told = judge(analog, data, chips=1, metric=wrong, higher_is_better=False)
    same = judge(analog, data, chips=1, metric=Metric("wrong", wrong, higher_is_better=False))
    assert str(told) == str(same)


def test_a_lower_score_is_the_better_one_of_a_loss() -> None:
    model, data = network()
    ablation = analogsim.ablate(
        analogsim.convert(model, "gaussian(std=0.5)"), data, times=(0,), chips=3, metric="cross_entropy"
    )
    assert ablation.gain("Gaussian")[0, 0] > 0


def test_the_mean_counts_samples_and_starts_again() -> None:
    mean = Mean(lambda output, target: output)
    mean.update(torch.tensor([1.0, 2.0, 3.0]), torch.zeros(3))
    mean.update(torch.tensor(10.0), torch.zeros(1))
    assert mean.compute() == 4.0
    mean.reset()
    mean.update(torch.tensor(5.0), torch.zeros(2))
    assert mean.compute() == 5.0


def test_what_a_metric_can_be_given_as() -> None:
    assert as_metric("accuracy") is METRICS["accuracy"]
    own = Metric("own", accuracy)
    assert as_metric(own) is own
    function = as_metric(accuracy)
    assert (function.name, function.unit, function.higher_is_better, function.chance) == ("accuracy", "", None, None)
    assert (as_metric(F1()).name, as_metric(F1()).higher_is_better) == ("F1", True)
    for score in (F1, "accuracy", 3):
        with pytest.raises(TypeError, match=r"the score must be a function of .output, target. or an object with"):
            Metric("own", score)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the score must be a function"):
        as_metric(F1)  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"metric must be one of accuracy, cross_entropy, loss, .*, f1 or a function, got 3"
    ):
        as_metric(3)  # type: ignore[arg-type]


def test_a_result_that_is_no_number() -> None:
    class Several(F1):
        def compute(self) -> Any:
            return {"precision": 1.0, "recall": 0.5}

    model, data = network()
    with pytest.raises(
        TypeError, match="'Several' must compute one number, got dict with 'precision', 'recall'; say which"
    ):
        analogsim.evaluate(analogsim.convert(model, "pcm"), data, metric=Several(), **OPTIONS)


def test_metrics_that_have_a_name_can_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "f1", Metric("f1", F1(), higher_is_better=True))
    model, data = network()
    analog = analogsim.convert(model, "pcm")
    named = analogsim.evaluate(analog, data, metric="f1", **OPTIONS)
    np.testing.assert_array_equal(named.values, analogsim.evaluate(analog, data, metric=F1(), **OPTIONS).values)


def test_torchmetrics_objects_are_taken_as_they_are() -> None:
    classification = pytest.importorskip("torchmetrics.classification")
    model, data = network()
    analog = analogsim.convert(model, "gaussian(std=0.2)")
    theirs = classification.MulticlassF1Score(num_classes=2, average="none", ignore_index=0)
    options = {**OPTIONS, "chips": 2}
    with pytest.raises(TypeError, match="'MulticlassF1Score' must compute one number, got Tensor"):
        analogsim.evaluate(analog, data, metric=theirs, **options)
    score = classification.MulticlassRecall(num_classes=2, average="macro")
    score.update(torch.eye(2), torch.tensor([1, 0]))  # of other data
    report = analogsim.evaluate(analog, data, metric=score, **options)
    assert (report.metric, report.higher_is_better, float(score.compute())) == ("MulticlassRecall", True, 0.0)
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    with torch.no_grad():
        right = model(x).argmax(1) == y
    assert report.clean == pytest.approx(float((right[y == 0].float().mean() + right[y == 1].float().mean()) / 2))
    at_once = analogsim.evaluate(analog, data, metric=score, together=2, **options)
    np.testing.assert_allclose(at_once.values, report.values, atol=1e-6)
    assert analogsim.sensitivity(analog, data, t=0, chips=1, metric=score).higher_is_better


def test_metrics_go_to_other_processes() -> None:
    for metric in (*METRICS.values(), Metric("f1", F1(), higher_is_better=True)):
        again = pickle.loads(pickle.dumps(metric))
        assert (again.name, again.unit, again.chance) == (metric.name, metric.unit, metric.chance)
    assert pickle.loads(pickle.dumps(METRICS["accuracy"])) == METRICS["accuracy"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": None}, "name must be text, got None"),
        ({"unit": None}, "unit must be text, got None"),
        ({"higher_is_better": "min"}, "metric 'near': higher_is_better must be True, False or None, got 'min'"),
        ({"chance": "half"}, "chance must be a number, a function of the number of classes, or None, got 'half'"),
        ({"reads": "logits"}, "reads must be 'answer', 'loss' or 'output', got 'logits'"),
    ],
)
def test_a_metric_of_other_arguments_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Metric(**{"name": "near", "score": accuracy, **given})


def test_what_the_user_says_of_the_direction_must_be_a_truth() -> None:
    model, data = network()
    with pytest.raises(TypeError, match="sensitivity: higher_is_better must be True, False or None, got 'no'"):
        analogsim.sensitivity(analogsim.convert(model, "pcm"), data, metric=accuracy, higher_is_better=cast(Any, "no"))


def test_an_ablation_of_reports_without_a_direction_says_so() -> None:
    model, data = network()
    report = analogsim.evaluate(analogsim.convert(model, "pcm"), data, chips=1, times=["1d"], metric=accuracy)
    with pytest.raises(ValueError, match="gain: it is not known whether a higher 'accuracy' is better"):
        Ablation({ALL: report, "drift": report}).gain("drift")


def test_reports_of_opposite_directions_are_not_compared() -> None:
    model, data = network()
    analog = analogsim.convert(model, "pcm")
    reports = {
        str(better): analogsim.evaluate(
            analog, data, chips=1, times=["1d"], metric=Metric("near", accuracy, higher_is_better=better)
        )
        for better in (True, None, False)
    }
    analogsim.compare_table({name: reports[name] for name in ("True", "None")})
    with pytest.raises(ValueError, match="compare: the reports do not agree whether a higher 'near' is better"):
        analogsim.compare_table(reports)


class Detector(nn.Module):
    """A box for each picture, as torchvision's detectors answer: a list with a mapping for each."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes = nn.Linear(12, 4)

    def forward(self, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
        found = self.boxes(torch.stack([each.flatten() for each in pictures]))
        return [
            {"boxes": box[None], "scores": torch.ones(1), "labels": torch.ones(1, dtype=torch.long)} for box in found
        ]


def detection() -> tuple[nn.Module, list[Any]]:
    torch.manual_seed(0)
    model = Detector()
    with torch.no_grad():
        model.boxes.bias.copy_(torch.tensor([10.0, 10.0, 60.0, 60.0]))
    pictures = [torch.randn(3, 2, 2) for _ in range(8)]
    boxes = [each["boxes"].detach() + 2 * torch.randn(1, 4) for each in model(pictures)]
    targets = [{"boxes": box, "labels": torch.ones(1, dtype=torch.long)} for box in boxes]
    return model, [(pictures[:5], targets[:5]), (pictures[5:], targets[5:])]


def test_detectors_and_mean_average_precision(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    theirs = pytest.importorskip("torchmetrics.detection").MeanAveragePrecision
    model, data = detection()
    other = theirs()
    with torch.no_grad():
        for pictures, targets in data:
            other.update(model(pictures), targets)
    metric = Metric("mAP", theirs(), pick="map")
    analog = analogsim.convert(model, "gaussian(std=0.02)")
    options: dict[str, Any] = {"times": ("1s",), "chips": 2, "metric": metric}
    report = analogsim.evaluate(analog, data, **options)
    assert report.clean == pytest.approx(float(other.compute()["map"]))
    assert (report.metric, report.higher_is_better) == ("mAP", True)
    with ThreadPoolExecutor(1) as executor:
        shared = analogsim.evaluate(analog, data, executor=executor, journal=tmp_path / "chips.jsonl", **options)
    np.testing.assert_array_equal(shared.values, report.values)
    again = analogsim.evaluate(analog, data, journal=tmp_path / "chips.jsonl", **options)  # the same question
    np.testing.assert_array_equal(again.values, report.values)
    with pytest.raises(ValueError, match=r"no result 'mAP': it computes .*'map', 'map_50'"):
        analogsim.evaluate(analog, data, **{**options, "metric": Metric("mAP", theirs(), pick="mAP")})


def overlap(output: list[dict[str, Tensor]], target: list[dict[str, Tensor]]) -> Tensor:
    return torch.stack([(one["boxes"] - two["boxes"]).abs().mean() for one, two in zip(output, target, strict=True)])


def test_structures_of_several_chips_at_once() -> None:
    model, data = detection()
    analog = analogsim.convert(model, "gaussian(std=0.2)")
    options: dict[str, Any] = {"times": ("1s",), "chips": 3, "metric": Metric("miss", overlap, higher_is_better=False)}
    one = analogsim.evaluate(analog, data, **options)
    np.testing.assert_allclose(analogsim.evaluate(analog, data, together=3, **options).values, one.values, rtol=1e-5)
    assert one.values.std() > 0
    assert not analogsim.sensitivity(analog, data, t="1s", chips=1, metric=options["metric"]).higher_is_better


def test_what_is_wrong_inside_of_structures_is_found() -> None:
    model, data = detection()
    with torch.no_grad():
        model.get_parameter("boxes.bias")[2] = torch.nan
    with pytest.raises(NonFiniteError, match="to batch 0 hold NaN"):
        analogsim.evaluate(analogsim.convert(model, "pcm"), data, metric=overlap, chips=1)

    class Short(Detector):
        def forward(self, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
            return super().forward(pictures)[1:]

    with pytest.raises(
        ValueError, match="answers to batch 0 with a list of 4 dict, and its target is a list of 5 dict"
    ):
        analogsim.evaluate(analogsim.convert(Short(), "pcm"), data, metric=overlap, chips=1)


class Speller(nn.Module):
    """Says a word for each of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Linear(6, 8)

    def forward(self, x: Tensor) -> list[str]:
        return [" ".join("abcd"[int(pair.argmax()) :] for pair in row.view(2, 4)) for row in self.words(x)]


def test_texts_and_bleu() -> None:
    theirs = pytest.importorskip("torchmetrics.text").BLEUScore(n_gram=1)
    torch.manual_seed(0)
    model, x = Speller(), torch.randn(6, 6)
    words = [[each] for each in model(x)]
    words[0] = ["none of these"]
    data = [(x[:4], words[:4]), (x[4:], words[4:])]
    other = type(theirs)(n_gram=1)
    other.update(model(x), words)
    analog = analogsim.convert(model, "gaussian(std=0.01)")
    report = analogsim.evaluate(analog, data, metric=theirs, chips=2, times=("1s",))
    assert report.clean == pytest.approx(float(other.compute()))
    assert 0 < report.clean < 1
    assert report.higher_is_better
    with pytest.raises(RuntimeError, match=r"cannot take several chips through Speller at once: .* Leave out together"):
        analogsim.evaluate(analog, data, metric=theirs, chips=2, times=("1s",), together=2)

    class Deaf(Speller):
        def forward(self, x: Tensor) -> list[str]:
            return [f"{self.words(x).ndim}"] * len(x)

    with pytest.raises(ValueError, match="holds no tensor, so that chips cannot be told apart; leave out together"):
        analogsim.evaluate(analogsim.convert(Deaf(), "pcm"), data, metric=theirs, chips=2, times=("1s",), together=2)


def test_transforms_and_collections() -> None:
    theirs, top = pytest.importorskip("torchmetrics.classification"), pytest.importorskip("torchmetrics")
    model, data = network()
    analog = analogsim.convert(model, "pcm")
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    options: dict[str, Any] = {"chips": 1, "times": ("1s",)}
    area = theirs.BinaryAUROC()
    area.update(model(x).softmax(1)[:, 1], y)
    wanted = pytest.approx(float(area.compute()))
    for turn in (
        lambda output, target: (output.softmax(1)[:, 1], target),
        lambda output, target: {"target": target, "preds": output.softmax(1)[:, 1]},
    ):
        metric = Metric("AUROC", theirs.BinaryAUROC(), transform=turn)
        report = analogsim.evaluate(analog, data, metric=metric, **options)
        assert report.clean == wanted
        assert report.higher_is_better
    both = top.MetricCollection([theirs.MulticlassRecall(2), theirs.MulticlassPrecision(2)])
    with pytest.raises(TypeError, match="with 'MulticlassRecall', 'MulticlassPrecision'; say which"):
        analogsim.evaluate(analog, data, metric=both, **options)
    report = analogsim.evaluate(analog, data, metric=Metric("recall", both, pick="MulticlassRecall"), **options)
    assert report.higher_is_better
    assert report.clean == analogsim.evaluate(analog, data, metric=both["MulticlassRecall"], **options).clean
    with pytest.raises(TypeError, match="transform of the metric 'own' must return a tuple of arguments or a mapping"):
        analogsim.evaluate(
            analog, data, metric=Metric("own", accuracy, transform=lambda output, target: output), **options
        )
    for given in ({"pick": True, "score": F1()}, {"pick": 1.5, "score": F1()}, {"pick": "a", "score": accuracy}):
        with pytest.raises(TypeError, match="metric 'own': pick"):
            Metric("own", **given)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="transform must be a function of"):
        Metric("own", F1(), transform=3)  # type: ignore[arg-type]


def test_the_whole_output_may_be_read() -> None:
    model, data = network()

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"first": x, "scores": self.net(x)}

    metric = Metric("right", accuracy, reads="output", transform=lambda output, target: (output["scores"], target))
    report = analogsim.evaluate(analogsim.convert(Two(), "pcm"), data, metric=metric, chips=1)
    assert report.clean == analogsim.evaluate(analogsim.convert(model, "pcm"), data, chips=1).clean
