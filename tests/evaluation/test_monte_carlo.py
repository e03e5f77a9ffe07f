from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import analogsim
from analogsim import AnalogLayer, Gaussian, ReadNoise
from analogsim import evaluate as evaluate_function
from analogsim.evaluation.monte_carlo import listen, stop_listening
from analogsim.evaluation.report import Report

TIMES = (0.0, "1h", "1y")
Batches = list[tuple[Tensor, Tensor]]


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 4))


def batches(size: int = 20, samples: int = 90) -> Batches:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 6, generator=generator)
    y = torch.randint(4, (samples,), generator=generator)
    return list(zip(x.split(size), y.split(size), strict=True))


def by_hand(analog: nn.Module, data: Batches, seeds: range, compensation: str | None = "global") -> np.ndarray:
    values = np.empty((len(seeds), len(TIMES)))
    modes = [part.training for part in analog.modules()]
    analog.eval()
    for row, seed in enumerate(seeds):
        analogsim.program(analog, seed=seed)
        for column, t in enumerate(TIMES):
            analogsim.drift(analog, t, compensation=compensation)
            right = 0
            with torch.no_grad():
                for x, y in data:
                    right += int((analog(x).argmax(1) == y).sum())
            values[row, column] = right / sum(len(y) for _, y in data)
    analogsim.erase(analog)
    for part, mode in zip(analog.modules(), modes, strict=True):
        part.training = mode
    return values


@pytest.mark.parametrize("device", ["pcm", [Gaussian(0.1), ReadNoise(0.1)]], ids=str)
@pytest.mark.parametrize("compensation", ["global", None])
def test_values_are_those_of_a_loop_by_hand(device: object, compensation: str | None) -> None:
    analog = analogsim.convert(net(), device)
    data = batches()
    report = evaluate_function(analog, data, chips=3, times=TIMES, seed=5, compensation=compensation)
    np.testing.assert_allclose(report.values, by_hand(analog, data, range(5, 8), compensation), atol=1e-7)
    assert report.values.std() > 0
    assert report.times == (0.0, 3600.0, 365 * 86400.0)
    assert report.seeds == (5, 6, 7)
    assert report.compensation == compensation
    assert report.samples == 90
    assert report.chance == 0.25
    assert report.metric == "accuracy"


def test_the_same_report_twice_and_its_parts() -> None:
    analog = analogsim.convert(net(), "pcm")
    first = evaluate_function(analog, batches(), chips=4, times=TIMES)
    torch.manual_seed(7)
    assert first.to_dict() == evaluate_function(analog, batches(), chips=4, times=TIMES).to_dict()
    part = evaluate_function(analog, batches(), chips=2, times=(TIMES[2], TIMES[1]), seed=1)
    np.testing.assert_array_equal(part.values, first.values[1:3, [2, 1]])


def test_independent_of_the_batch_size() -> None:
    analog = analogsim.convert(net(), "pcm")
    reports = [
        evaluate_function(analog, batches(size), chips=2, times=TIMES, metric="cross_entropy") for size in (90, 7, 1)
    ]
    for report in reports[1:]:
        np.testing.assert_allclose(report.values, reports[0].values, rtol=1e-5)
        assert report.clean == pytest.approx(reports[0].clean, rel=1e-5)


def test_clean_is_the_digital_model() -> None:
    model = net()
    analog = analogsim.convert(model, Gaussian(0.5))
    report = evaluate_function(analog, batches(), chips=1, times=(0,))
    model.eval()
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in batches())
    assert report.clean == pytest.approx(right / 90)
    exact = evaluate_function(analogsim.convert(model, Gaussian(0.0)), batches(), chips=1, times=(0,))
    assert exact.values[0, 0] == pytest.approx(report.clean)


@pytest.mark.parametrize("fails", [False, True])
def test_chip_modes_and_weights_are_restored(fails: bool) -> None:
    analog = analogsim.convert(net(), "pcm")
    analog[1].eval()
    analogsim.program(analog, seed=42)
    analogsim.drift(analog, "1d", compensation=None)
    chips = [layer.analog.chip for layer in analog.modules() if isinstance(layer, AnalogLayer)]
    before = repr(analog), [part.training for part in analog.modules()]
    state = {name: value.clone() for name, value in analog.state_dict().items()}
    calls = []

    def metric(output: Tensor, target: Tensor) -> Tensor:
        calls.append(1)
        if fails and len(calls) == 12:
            raise KeyError("in the metric")
        assert not torch.is_grad_enabled()
        return output[:, 0]

    if fails:
        with pytest.raises(KeyError):
            evaluate_function(analog, batches(), chips=2, times=TIMES, metric=metric)
    else:
        evaluate_function(analog, batches(), chips=2, times=TIMES, metric=metric)
    assert (repr(analog), [part.training for part in analog.modules()]) == before
    now = [layer.analog.chip for layer in analog.modules() if isinstance(layer, AnalogLayer)]
    assert all(old is new for old, new in zip(chips, now, strict=True))
    assert all(torch.equal(value, state[name]) for name, value in analog.state_dict().items())


# --- metrics --------------------------------------------------------------------------------------------------------


def test_custom_metrics() -> None:
    analog = analogsim.convert(net(), "pcm")

    def half(output: Tensor, target: Tensor) -> Tensor:
        return torch.full((len(target),), 0.5)

    report = evaluate_function(analog, batches(), chips=2, times=(0,), metric=half)
    assert report.metric == "half"
    assert report.chance is None
    assert report.clean == 0.5
    assert (report.values == 0.5).all()
    # One score per sample, or their mean: batches of different sizes count by their samples.
    per_sample = evaluate_function(analog, batches(40), chips=1, times=(0,), metric=lambda o, t: o[:, 0])
    mean = evaluate_function(analog, batches(40), chips=1, times=(0,), metric=lambda o, t: o[:, 0].mean())
    np.testing.assert_allclose(per_sample.values, mean.values, rtol=1e-5)
    everything = torch.cat([x for x, _ in batches()])
    with analogsim.programmed(analog, seed=0), torch.no_grad():
        np.testing.assert_allclose(per_sample.values[0, 0], analog(everything)[:, 0].mean().item(), rtol=1e-5)


def test_cross_entropy() -> None:
    model = net()
    analog = analogsim.convert(model, "pcm")
    report = evaluate_function(analog, batches(), chips=1, times=(0,), metric="cross_entropy")
    x, y = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    with torch.no_grad():
        assert report.clean == pytest.approx(float(nn.functional.cross_entropy(model.eval()(x), y)), rel=1e-5)
    assert report.chance is None


def test_accuracy_of_every_pixel() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1))
    analog = analogsim.convert(model, Gaussian(0.0))
    x, y = torch.randn(5, 1, 2, 2), torch.randint(3, (5, 2, 2))
    report = evaluate_function(analog, [(x, y)], chips=1, times=(0,))
    assert report.clean == pytest.approx(float((model(x).argmax(1) == y).float().mean()))
    assert report.chance == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "target", [torch.zeros(6, 1), torch.zeros(6, 4), torch.zeros(1)], ids=["column", "one-hot", "one"]
)
def test_accuracy_refuses_what_would_broadcast(target: Tensor) -> None:
    analog = analogsim.convert(net(), "pcm")
    with pytest.raises(ValueError, match=r"accuracy: needs outputs .*got \(6, 4\) and"):
        evaluate_function(analog, [(torch.randn(6, 6), target.long())], chips=1)


def test_accuracy_refuses_a_single_output() -> None:
    analog = analogsim.convert(nn.Linear(6, 1), "pcm")
    with pytest.raises(ValueError, match="two or more classes"):
        evaluate_function(analog, [(torch.randn(6, 6), torch.zeros(6).long())], chips=1)


@pytest.mark.parametrize("result", [0.5, torch.zeros(3), None])
def test_metrics_that_return_something_else(result: object) -> None:
    analog = analogsim.convert(net(), "pcm")
    with pytest.raises(TypeError, match="one score per sample, or their mean"):
        evaluate_function(analog, batches(), chips=1, metric=lambda output, target: result)  # type: ignore[arg-type]


# --- data -----------------------------------------------------------------------------------------------------------


class Counted:
    """A loader that counts its passes."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        return iter(batches())


def test_small_data_is_read_once_and_large_data_again(monkeypatch: pytest.MonkeyPatch) -> None:
    analog = analogsim.convert(net(), "pcm")
    loader = Counted()
    kept = evaluate_function(analog, loader, chips=2, times=TIMES)
    assert loader.passes == 1
    monkeypatch.setattr("analogsim.utils.batches._KEEP_BYTES", 1000)
    again = evaluate_function(analog, loader, chips=2, times=TIMES)
    assert loader.passes == 1 + 1 + 1 + 2 * len(TIMES)  # until it is too much, then clean, then each chip and time
    assert again.to_dict() == kept.to_dict()


def test_generators(monkeypatch: pytest.MonkeyPatch) -> None:
    analog = analogsim.convert(net(), "pcm")
    kept = evaluate_function(analog, batches(), chips=2, times=TIMES)
    assert evaluate_function(analog, (b for b in batches()), chips=2, times=TIMES).to_dict() == kept.to_dict()
    monkeypatch.setattr("analogsim.utils.batches._KEEP_BYTES", 1000)
    with pytest.raises(ValueError, match="can be read only once; give a DataLoader"):
        evaluate_function(analog, (b for b in batches()), chips=2)


def test_data_loaders_and_lists_as_batches() -> None:
    analog = analogsim.convert(net(), "pcm")
    x, y = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    loader = DataLoader(TensorDataset(x, y), batch_size=20)  # yields lists
    kept = evaluate_function(analog, batches(), chips=2, times=TIMES)
    assert evaluate_function(analog, loader, chips=2, times=TIMES).to_dict() == kept.to_dict()
    shuffled = DataLoader(TensorDataset(x, y), batch_size=20, shuffle=True)
    report = evaluate_function(analog, shuffled, chips=2, times=TIMES)
    np.testing.assert_allclose(report.values, kept.values, atol=1e-7)


@pytest.mark.parametrize("loader", [3, None])
def test_what_is_no_loader(loader: object) -> None:
    with pytest.raises(TypeError, match="loader must yield"):
        evaluate_function(analogsim.convert(net(), "pcm"), loader)  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [torch.zeros(2, 6), (torch.zeros(2, 6),), {"x": torch.zeros(2)}, (1, torch.zeros(2))])
def test_batches_that_are_no_pairs(batch: object) -> None:
    with pytest.raises(TypeError, match=r"each batch must be a pair .input, target., where the input is a tensor"):
        evaluate_function(analogsim.convert(net(), "pcm"), [batch])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loader": []}, "loader is empty"),
        ({"chips": 0}, "chips must be an integer >= 1, got 0"),
        ({"chips": 2.0}, "chips must be an integer"),
        ({"chips": True}, "chips must be an integer"),
        ({"times": ()}, "times must be a sequence"),
        ({"times": "1d"}, r"times must be a sequence such as .*, got '1d'"),
        ({"times": ("1s", -1)}, "time: must be finite and >= 0"),
        ({"metric": "top"}, r"metric must be one of accuracy, cross_entropy, loss, .*got 'top'"),
        ({"compensation": "all"}, "compensation: must be"),
    ],
)
def test_bad_arguments(options: dict[str, object], words: str) -> None:
    analog = analogsim.convert(net(), "pcm")
    with pytest.raises(ValueError, match=words):
        evaluate_function(analog, **{"loader": batches(), **options})  # type: ignore[arg-type]


def test_bad_seeds_and_models() -> None:
    with pytest.raises(TypeError, match=r"seed: must be an integer, got 1.5"):
        evaluate_function(analogsim.convert(net(), "pcm"), batches(), seed=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no analog layer"):
        evaluate_function(net(), batches())


def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    analog = analogsim.convert(net(), "pcm")
    shown = evaluate_function(analog, batches(), chips=2, times=TIMES, progress=True)
    captured = capsys.readouterr()
    assert "chips" in captured.err
    assert captured.out == ""
    assert shown.to_dict() == evaluate_function(analog, batches(), chips=2, times=TIMES).to_dict()
    assert capsys.readouterr().err == ""


def test_several_devices_are_named() -> None:
    analog = analogsim.convert(net(), {"0": Gaussian(0.1), "*": "pcm"})
    report = evaluate_function(analog, batches(), chips=1, times=(0,))
    assert isinstance(report, Report)
    assert report.device == "Gaussian, pcm"


def test_layers_without_a_part_in_the_answers_warn() -> None:
    class Bypassed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.read, self.idle = nn.Linear(6, 6), nn.Linear(6, 3), nn.Linear(6, 3)

        def forward(self, input: Tensor) -> Tensor:
            return (self.used(input).unsqueeze(1) * self.read.weight).sum(-1)

    torch.manual_seed(0)
    analog = analogsim.convert(Bypassed(), "pcm")
    loader = [(torch.randn(8, 6), torch.randint(3, (8,)))]
    with pytest.warns(analogsim.ConversionWarning, match="without a part in the answers: 'read', 'idle'. Either"):
        evaluate_function(analog, loader, chips=1, times=("1s",))


def test_the_clean_score_is_pythons_own_number() -> None:
    """It goes into checkpoints, which are read without pickle."""
    assert type(analogsim.evaluate(analogsim.convert(net(), "pcm"), batches(), chips=1, times=(0,)).clean) is float


LEARNED = "standard(input_range='learned')"


def clipped() -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """A twin whose right answers come of a learned range that clips, and are lost without converters."""
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    analog = analogsim.convert(model, "pcm", crossbar=LEARNED)
    analogsim.set_ranges(analog, {"": {"input_range": torch.tensor(1.0)}})
    # Behind the converters 10 is 1 and loses against 2 * 0.8; without them it wins.
    x = torch.tensor([[10.0, 0.8]]).expand(20, 2)
    return analog, [(x, torch.ones(20, dtype=torch.long))]


def test_clean_is_behind_converters_whose_ranges_are_learned() -> None:
    analog, data = clipped()
    analog.train()
    analogsim.program(analog, seed=7)
    held = analog.analog.chip
    report = analogsim.evaluate(analog, data, chips=2, times=("1d",))
    assert (report.clean, report.digital) == (1.0, 0.0)
    assert analogsim.evaluate(analog, data, chips=2, times=("1d",)).to_dict() == report.to_dict()  # no errors in it
    assert analog.training
    assert analog.analog.chip is held
    asked = analogsim.evaluate(analog, data, chips=1, times=("1d",), clean="digital")
    assert (asked.clean, asked.digital, asked.apart) == (0.0, 0.0, False)
    assert analogsim.sensitivity(analog, data, chips=1, t="1d").clean == 0  # the rest of which is digital
    ablated = analogsim.ablate(analog, data, chips=2, times=["1d"])
    assert [line.split() for line in str(ablated).splitlines()[-5:-3]] == [["clean", "100.00"], ["digital", "0.00"]]


def test_clean_is_the_digital_network_unless_ranges_are_learned() -> None:
    analog = analogsim.convert(net(), "pcm", crossbar="standard(dac_bits=2,adc_bits=2)")
    plain = analogsim.evaluate(analog, batches(), chips=1, times=("1d",), metric="cross_entropy")
    assert plain.clean == plain.digital
    asked = analogsim.evaluate(analog, batches(), chips=1, times=("1d",), metric="cross_entropy", clean="converters")
    assert asked.digital == plain.digital
    assert asked.clean != plain.clean
    np.testing.assert_array_equal(asked.values, plain.values)
    ideal = analogsim.convert(net(), "pcm")
    report = analogsim.evaluate(ideal, batches(), chips=1, times=("1d",), clean="converters")
    assert not report.apart
    with pytest.raises(ValueError, match='clean must be "converters", "digital" or None, got \'twin\''):
        analogsim.evaluate(ideal, batches(), chips=1, clean="twin")  # type: ignore[arg-type]


def test_a_journal_does_not_ask_what_clean_is(tmp_path: Path) -> None:
    analog, data = clipped()
    given = {"chips": 2, "times": ("1d",), "journal": tmp_path / "chips.jsonl"}
    first = analogsim.evaluate(analog, data, **given)
    again = analogsim.evaluate(analog, data, **given, clean="digital")
    np.testing.assert_array_equal(first.values, again.values)


def test_converters_that_saturate_are_told_once_for_a_call() -> None:
    """And not where the bound is set from data."""
    torch.manual_seed(0)
    model = nn.Linear(64, 5)
    with torch.no_grad():
        model.weight.fill_(1.0)
    x = torch.ones(6, 64)
    data = [(x, torch.zeros(6, dtype=torch.long))]
    analog = analogsim.convert(model, "pcm", crossbar="standard")
    with pytest.warns(UserWarning, match="evaluate: output converters saturate: .*100% lies beyond") as caught:
        analogsim.evaluate(analog, data, chips=2, times=["1s"])
    assert len(caught) == 1
    analog = analogsim.convert(model, "pcm", crossbar="standard(output_bound='calibrated')")
    analogsim.calibrate(analog, [x])
    analogsim.evaluate(analog, data, chips=2, times=["1s"])


def test_each_report_is_told_once() -> None:
    torch.manual_seed(0)
    heard: list[analogsim.Report] = []
    analog = analogsim.convert(nn.Linear(4, 2), "pcm")
    data = [(torch.randn(8, 4), torch.zeros(8, dtype=torch.long))]
    listen(heard.append)
    try:
        first = analogsim.evaluate(analog, data, chips=2, times=["1d"])
        assert heard == [first]
        analogsim.sensitivity(analog, data, chips=1, t="1d")
        assert len(heard) == 1  # what is judged on the way to another answer is no report that somebody asked for
    finally:
        stop_listening(heard.append)
    analogsim.evaluate(analog, data, chips=1, times=["1d"])
    assert len(heard) == 1
    stop_listening(heard.append)
