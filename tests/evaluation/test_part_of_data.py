"""`evaluate` with a precision, and with part of the data for each chip."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import analogsim
from analogsim.evaluation.report import Report, compare_table
from analogsim.evaluation.sampling.over_chips import Sampled, chip_variance, half_width
from analogsim.utils import batches as batches_module

TIMES = ["1s", "1mo"]
SAMPLES = 1500
Batches = list[tuple[Tensor, Tensor]]


def task(size: int = 500, samples: int = SAMPLES) -> tuple[nn.Module, Batches]:
    """A network that is right on most of its data."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 4))
    for part in model.parameters():
        part.data = torch.randn(part.shape, generator=generator)
    x = torch.randn(samples, 6, generator=generator)
    with torch.no_grad():
        y = (model(x) + 0.5 * torch.randn(samples, 4, generator=generator)).argmax(1)
    return model, list(zip(x.split(size), y.split(size), strict=True))


def asked(**options: Any) -> Report:
    model, data = task()
    analog = analogsim.convert(model, options.pop("device", "pcm"))
    return analogsim.evaluate(analog, options.pop("data", data), **{"times": TIMES, "chips": 24, **options})


def test_chips_are_judged_until_the_mean_is_known() -> None:
    report = asked(precision=0.006, chips=None)
    count = len(report.seeds)
    assert half_width(report.values).max() <= 0.006
    assert 16 <= count < 200
    every = asked(chips=count)
    np.testing.assert_array_equal(report.values, every.values)
    assert report.precision == 0.006
    assert report.sampled is None
    assert str(report).splitlines()[-1].startswith("95 % interval of the mean, at the time when it is widest: ±0.")
    again = Report.from_dict(json.loads(json.dumps(report.to_dict())))
    assert again == report
    assert str(again) == str(report)


def test_the_most_chips_are_the_most_and_that_is_told() -> None:
    with pytest.warns(
        UserWarning, match=r"evaluate: after 20 chips the mean is known to ±.* points, not to ±0.01 points"
    ):
        report = asked(precision=0.0001, chips=20)
    assert len(report.seeds) == 20
    assert "not ±0.01 points as was asked for" in str(report)


@pytest.mark.parametrize("samples", [120, "auto"])
def test_estimates_are_those_of_all_the_data(samples: Any) -> None:
    """Each chip within 5 of its own standard errors, and all of them together as chance has it (4 standard errors)."""
    exact, part = asked(), asked(samples_per_chip=samples)
    assert part.sampled is not None
    later = slice(8, None)
    apart = (part.values - exact.values)[later] / np.sqrt(part.sampled.variances[later])
    assert np.abs(apart).max() < 6
    assert abs(apart[:, 1].mean()) < 4 / np.sqrt(16)
    assert 0.3 < apart.std() < 1.8
    assert part.sampled.asked[later].mean() < 0.7 * SAMPLES
    assert part.clean == exact.clean
    assert part.samples == SAMPLES
    if samples == 120:
        assert abs(part.sampled.asked.mean() - 120) < 10
        assert f"24 chips on {round(part.sampled.asked.mean(0).min())} " in str(part)
        assert f" of {SAMPLES} samples each, compensation: global" in str(part)


def test_all_samples_are_exact() -> None:
    exact, part = asked(chips=3), asked(chips=3, samples_per_chip=SAMPLES)
    np.testing.assert_allclose(part.values, exact.values, atol=1e-12)
    np.testing.assert_allclose(part.std, exact.std, atol=1e-12)
    np.testing.assert_allclose(part.quantile(0.05), exact.quantile(0.05), atol=1e-12)


def test_the_same_however_it_is_shared_out_and_continued(tmp_path: Path) -> None:
    options: dict[str, Any] = {"samples_per_chip": "auto", "precision": 0.009, "chips": 100, "seed": 3}
    alone = asked(**options)
    assert 16 < len(alone.seeds) <= 100
    with ThreadPoolExecutor(3) as pool:
        assert asked(executor=pool, **options) == alone
    journal = tmp_path / "chips.jsonl"
    first = asked(journal=journal, **{**options, "precision": None, "chips": 11})
    np.testing.assert_array_equal(first.values, alone.values[:11])
    written = journal.read_bytes().count(b"\n")
    assert asked(journal=journal, **options) == alone
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + len(alone.seeds) > written
    journal.write_bytes(b"".join(lines[:14]))  # as a kill may leave it
    assert asked(journal=journal, **options) == alone
    assert asked(journal=journal, **options) == alone
    for other in ({"samples_per_chip": None}, {"samples_per_chip": 50}, {"seed": 4}):
        with pytest.raises(ValueError, match="chips of another question, with another sampling"):
            asked(journal=journal, **{**options, **other})
    asked(journal=tmp_path / "all.jsonl", chips=2)
    with pytest.raises(ValueError, match=r"another sampling \(None there"):
        asked(journal=tmp_path / "all.jsonl", chips=2, samples_per_chip=50)


@pytest.mark.parametrize("metric", ["cross_entropy", "root_mean_squared_error", "perplexity", "a function", "a mean"])
def test_any_metric_that_follows_from_a_mean(metric: str) -> None:
    model, data = task(size=50, samples=1000)
    if metric == "root_mean_squared_error":
        data = [(x, model(x).detach() + 0.1) for x, _ in data]

    def top2(output: Tensor, target: Tensor) -> Tensor:
        return (output.topk(2).indices == target[:, None]).any(1)

    score: Any = {"a function": top2, "a mean": nn.CrossEntropyLoss()}.get(metric, metric)
    exact, part = (
        asked(data=data, metric=score, chips=16, samples_per_chip=samples, times=["1d"]) for samples in (None, 200)
    )
    assert part.sampled is not None
    assert part.clean == exact.clean
    apart = (part.values - exact.values) / np.sqrt(part.sampled.variances)
    assert np.abs(apart).max() < 6
    assert abs(apart.mean()) < 4 / np.sqrt(16)
    assert 100 < part.sampled.asked.mean() < 300


@pytest.mark.parametrize("metric", ["f1", "r2"])
def test_metrics_of_all_samples_together_are_refused(metric: str) -> None:
    with pytest.raises(ValueError, match=rf"the metric '{metric}' is computed of all samples together"):
        asked(metric=metric, samples_per_chip=100)


class Among(nn.Module):
    """A network whose answer depends on what else is in the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x)
        return found - found.mean(0)


def test_samples_that_are_not_judged_by_themselves_are_refused() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 6) + torch.linspace(-3, 3, 300)[:, None]
    data = [(x[:150], torch.zeros(150).long()), (x[150:], torch.ones(150).long())]
    with pytest.raises(
        ValueError, match=r"scores \d+ of 256 samples otherwise when they are taken out of their batches"
    ):
        analogsim.evaluate(analogsim.convert(Among(), "pcm"), data, metric="cross_entropy", samples_per_chip=50)


@pytest.mark.parametrize("shuffled", [False, True])
def test_data_that_are_read_again(shuffled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    _, data = task()
    x, y = (torch.cat(part) for part in zip(*data, strict=True))
    kept = asked(data=[*DataLoader(TensorDataset(x, y), 100)], chips=10, samples_per_chip=100)
    monkeypatch.setattr(batches_module, "_KEEP_BYTES", 8)
    loader = DataLoader(TensorDataset(x, y), 100, shuffle=shuffled, generator=torch.Generator().manual_seed(0))
    if shuffled:
        with pytest.raises(ValueError, match="or the loader gives other samples in each pass"):
            asked(data=loader, chips=10, samples_per_chip=100)
    else:
        np.testing.assert_allclose(asked(data=loader, chips=10, samples_per_chip=100).values, kept.values, atol=1e-9)


def test_a_device_without_a_change_in_time_is_asked_once() -> None:
    report = asked(device="gaussian(std=0.05)", samples_per_chip=100)
    assert report.sampled is not None
    assert report.constant
    np.testing.assert_array_equal(report.values[:, 0], report.values[:, 1])
    np.testing.assert_array_equal(report.sampled.variances[:, 0], report.sampled.variances[:, 1])


def test_a_chip_that_is_asked_nothing_is_an_estimate_too() -> None:
    report = asked(chips=30, samples_per_chip=1)
    assert report.sampled is not None
    assert (report.sampled.asked == 0).any()
    assert np.isfinite(report.values).all()
    with pytest.warns(UserWarning, match=r"quantile: what 30 chips on part of the data say of their spread after 1s"):
        assert np.isnan(report.quantile(0.05)).any()
    assert "± ?" in str(report)
    assert "?: what 30 chips on part of the data say" in str(report)


def test_reports_on_part_of_the_data_are_cut_and_merged() -> None:
    one = asked(chips=10, samples_per_chip=100)
    two = asked(chips=10, samples_per_chip=100, seed=50)
    both = Report.merged([two, one])
    assert both.sampled is not None
    assert one.sampled is not None
    np.testing.assert_array_equal(both.sampled.variances[:10], one.sampled.variances)
    assert both.std[1] > 0
    last = both.only(["1mo"])
    assert last.sampled == both.sampled.at(slice(None), [1])
    assert last.std[0] == pytest.approx(both.std[1])
    with pytest.raises(ValueError, match="some of the reports are of chips on part of the data"):
        Report.merged([one, asked(chips=2, seed=80)])
    assert "one" in compare_table({"one": one, "two": two})


@pytest.mark.parametrize(
    "change",
    [
        {"sampled": 3},
        {"sampled": {"variances": [[0.1]]}},
        {"sampled": {"variances": [[0.1]], "asked": [[1]], "wanted": 3}},
        {"sampled": {"variances": [[-0.1, 0.1]], "asked": [[1, 1]], "wanted": 3}},
        {"precision": -1},
        {"precision": "small"},
    ],
)
def test_what_is_stored_is_looked_at(change: dict[str, Any]) -> None:
    values, sampled = np.array([[0.5, 0.4]]), Sampled(np.full((1, 2), 0.01), np.ones((1, 2), int), 1)
    report = Report(values, (1.0, 2.0), 0.6, "accuracy", "pcm", (0,), None, precision=0.1, sampled=sampled)
    stored = json.loads(json.dumps(report.to_dict()))
    assert Report.from_dict(stored) == report
    with pytest.raises(ValueError, match="report: it has"):
        Report.from_dict({**stored, **change})


def test_progress_is_shown_where_the_end_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    asked(precision=0.03, chips=None, progress=True)
    assert "chip" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_said_is_so_on_a_network_whose_answer_is_known() -> None:
    """2,000 chips on all the data, beside 60 evaluations on part of them, of other chips.

    Intervals within 4 standard errors of 95 % (11 %); mean, variance and percentile over the evaluations within 4 of
    theirs and of the 2,000 chips'; the percentile besides within a tenth of a deviation, for chips that are not quite
    normal.
    """
    truth = asked(chips=2000, times=["1mo"], seed=10**6)
    true, spread, tail = truth.mean[0], truth.std[0], truth.quantile(0.05)[0]
    means, variances, tails, held, shares = [], [], [], [], []
    for repeat in range(60):
        options: dict[str, Any] = {"chips": None, "precision": 0.005, "samples_per_chip": "auto", "seed": 2000 * repeat}
        report = asked(times=["1mo"], **options)
        assert half_width(report.values)[0] <= 0.005
        means.append(report.mean[0])
        variances.append(chip_variance(report.values, report.sampled)[0])
        tails.append(report.known_quantile(0.05)[0])
        low, high = report.interval()[:, 0]
        held.append(low <= true <= high)
        assert report.sampled is not None
        full = (1.96 * spread / 0.005) ** 2
        shares.append(report.sampled.asked.sum() / (full * SAMPLES))
    assert np.mean(held) > 0.84
    for found, answer, of_truth, law in (
        (means, true, spread / np.sqrt(2000), 0.0),
        (variances, spread**2, spread**2 * np.sqrt(2 / 2000), 0.0),
        (tails, tail, 2.1 * spread / np.sqrt(2000), 0.1 * spread),
    ):
        known = np.array(found)[~np.isnan(found)]
        error = np.hypot(known.std() / np.sqrt(len(known)), of_truth)
        assert abs(known.mean() - answer) < 4 * error + law
    assert np.mean(shares) < 1
    assert np.mean(shares) < 0.4
    assert np.isnan(tails).mean() < 0.4
