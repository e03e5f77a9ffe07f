import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import analogsim
from analogsim import AnalogLayer, Crossbar, DeviceModel, Effect
from analogsim.chip import COMPENSATIONS, Adjustment, CalibrationData, Gain
from analogsim.chip.compensation import as_compensations
from analogsim.evaluation import Metric
from analogsim.layers.module import matrices_of


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, (None, ())),
        ("global", ("global", ())),
        ("column+batch-norm", ("column", ("batch-norm",))),
        ("ranges+crossbar", ("crossbar", ("ranges",))),
        ("batch-norm+ranges", (None, ("ranges", "batch-norm"))),
        ("batch-norm+affine+ranges+global", ("global", ("ranges", "affine", "batch-norm"))),
    ],
)
def test_what_there_is(text, wanted):
    found = as_compensations(text)
    gain, adjustments = wanted
    assert found.gain == (gain and COMPENSATIONS[gain])
    assert [part.name for part in found.adjustments] == list(adjustments), "ranges before batch norm"
    assert found.text == text
    assert found.needs_data == bool(adjustments)
    assert as_compensations(found) is found


@pytest.mark.parametrize(
    "text", ["colum", "", True, ["global"], "global+column", "column+column", "global+", "affine@", "@1h"]
)
def test_what_there_is_not(text):
    with pytest.raises(ValueError, match="compensation: must be None, or one of global, crossbar, column"):
        as_compensations(text)


@pytest.mark.parametrize("periphery", [Crossbar(), Crossbar(output_bound=1e9)], ids=["ideal", "converted"])
def test_column_gains_undo_what_differs_from_column_to_column(periphery):
    """Each column drifts at a speed of its own; one gain cannot follow that, gains of columns can."""

    @dataclass(frozen=True)
    class ColumnDrift(Effect):
        def age(self, g, t, cells, drawn):
            speed = torch.linspace(0.01, 0.1, g.shape[-2], dtype=g.dtype).unsqueeze(1)
            return g * (1 + t / 20) ** -speed

    torch.manual_seed(0)
    layer = nn.Linear(12, 8).double()
    x = torch.randn(5, 12, dtype=torch.float64)
    analog = analogsim.convert(layer, DeviceModel((ColumnDrift(),)), crossbar=periphery.replace(rows=5))
    analogsim.program(analog)
    errors = {}
    for kind in (None, "global", "column"):
        analogsim.drift(analog, "1y", compensation=kind)
        errors[kind] = float((analog.eval()(x) - layer(x)).detach().norm() / layer(x).detach().norm())
    assert errors["column"] < 1e-12 < 0.1 < errors["global"] < errors[None]
    with pytest.raises(ValueError, match="'column\\+batch-norm' needs data that go through the chip"):
        analogsim.drift(analog, "1y", compensation="column+batch-norm")


def noisy_network():
    """A network with batch norm, trained a little, and data."""
    torch.manual_seed(0)
    x = torch.randn(600, 20) + 1
    y = (x[:, :5].sum(1) > x[:, 5:10].sum(1)).long()
    model = nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval(), x, y


def test_ranges_are_set_again_on_each_chip():
    model, x, y = noisy_network()
    crossbar = Crossbar(adc_bits=4, input_range="calibrated", output_bound="calibrated")
    analog = analogsim.convert(model, "pcm", crossbar=crossbar)
    analogsim.calibrate(analog, [x])
    bound = analog[0].analog.output_bound
    options = {"chips": 3, "times": ("1y",)}
    fixed = analogsim.evaluate(analog, [(x, y)], **options)
    again = analogsim.evaluate(analog, [(x, y)], compensation="global+ranges", calibration=[(x[:300],)], **options)
    assert not np.array_equal(fixed.values, again.values)
    assert analog[0].analog.output_bound is bound
    with analogsim.programmed(analog, 1, "1y"):
        analogsim.calibrate(analog, [x[:300]])
        assert analog[0].analog.output_bound < 0.9 * bound, "currents have faded"
        score = (analog(x).argmax(1) == y).float().mean()
    assert float(score) == pytest.approx(again.values[1, 0])


def test_learned_ranges_are_left_to_training():
    model, x, y = noisy_network()
    crossbar = Crossbar(adc_bits=6, dac_bits=6, input_range="learned", output_bound="calibrated")
    analog = analogsim.convert(model, "pcm", crossbar=crossbar)
    analogsim.calibrate(analog, [x])
    (learned, *_) = analogsim.range_parameters(analog)
    with torch.no_grad():
        learned.mul_(0.5)
    seen = []

    def metric(output, target):
        seen.append((analog[0].analog.input_range is learned, analog[0].analog.output_bound))
        return (output.argmax(1) == target).float()

    bound = analog[0].analog.output_bound
    analogsim.evaluate(analog, [(x, y)], chips=1, times=("1y",), metric=metric, compensation="ranges", calibration=[x])
    assert seen[-1][0]
    assert seen[-1][1] is not bound
    assert analog[0].analog.output_bound is bound
    analogsim.calibrate(analog, [x])
    assert analog[0].analog.input_range is not learned
    analog = analogsim.convert(model, "pcm", crossbar=crossbar.replace(output_bound=4.0))
    analogsim.calibrate(analog, [x])
    with pytest.raises(ValueError, match="no crossbar leaves a range to calibration"):
        analogsim.evaluate(analog, [(x, y)], compensation="ranges", calibration=[x])


@pytest.mark.parametrize(
    ("compensation", "calibration", "message"),
    [
        ("batch-norm", None, "needs data: give calibration="),
        ("batch-norm", iter([1]), "can be read only once"),
        ("ranges", [1], "no crossbar leaves a range to calibration"),
        ("global+column", None, "compensation: must be None"),
    ],
)
def test_what_evaluate_refuses(compensation, calibration, message):
    model, x, y = noisy_network()
    analog = analogsim.convert(model, "pcm")
    with pytest.raises(ValueError, match=message):
        analogsim.evaluate(analog, [(x, y)], compensation=compensation, calibration=calibration)
    plain = analogsim.convert(nn.Sequential(nn.Linear(20, 2)), "pcm")
    with pytest.raises(ValueError, match="the network has no batch norm"):
        analogsim.evaluate(plain, [(x, y)], compensation="batch-norm", calibration=[x])


# --- outputs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("affine+bias", "two of them are of one kind, outputs"),
        ("affine+affine@1h", "two of them are of one kind, outputs"),
        ("global@1h", "'global' is made anew at each age"),
        ("batch-norm@1h", "'batch-norm' is made anew at each age"),
        ("affine@soon", "'soon'"),
        ("affine@-1", "-1"),
    ],
)
def test_outputs_are_corrected_once_and_only_they_are_measured_at_an_age_of_their_own(text, message):
    with pytest.raises(ValueError, match=message):
        as_compensations(text)


@pytest.mark.parametrize("crossbar", ["ideal", "standard(input_range='calibrated')"])
def test_outputs_in_evaluate_are_those_of_calibrate_outputs(crossbar):
    """At each age its own, or all from one hour; afterwards the chip that was there is as it was."""
    model, x, y = noisy_network()
    analog = analogsim.convert(model, "pcm", crossbar=crossbar).eval()
    analogsim.calibrate(analog, [x])
    analogsim.program(analog, seed=7)
    analogsim.calibrate_outputs(analog, x[:100])
    held = [matrix.analog.chip.correction for matrix in matrices_of(analog)]
    options = {"chips": 2, "times": ("1s", "1y"), "metric": "cross_entropy", "calibration": [x[:300]]}

    def by_hand(seed, t, measured):
        with analogsim.programmed(analog, seed, measured), torch.no_grad():
            analogsim.calibrate_outputs(analog, [x[:300]])
            analogsim.drift(analog, t)
            return float(nn.functional.cross_entropy(analog(x), y))

    for text, at in (("global+affine", None), ("global+affine@1h", "1h")):
        report = analogsim.evaluate(analog, [(x, y)], compensation=text, **options)
        wanted = [[by_hand(seed, t, at or t) for t in ("1s", "1y")] for seed in (0, 1)]
        if crossbar == "ideal":  # output noise is another in the two orders
            np.testing.assert_allclose(report.values, wanted, rtol=1e-5)
        else:
            np.testing.assert_allclose(report.values, wanted, rtol=0.2)
        assert f"compensation: {text}" in str(report)
    assert [matrix.analog.chip.correction for matrix in matrices_of(analog)] == held
    assert pickle.loads(pickle.dumps(as_compensations("affine@1h"))) == as_compensations("affine@1h")


def test_outputs_are_matched_to_the_digital_batch_norm():
    """Before statistics are estimated again: those of the digital network are what outputs are matched through."""
    model, x, y = noisy_network()
    analog = analogsim.convert(model, "pcm+stuck-at(p_off=0.1)").eval()
    options = {"chips": 3, "times": ("1d",), "metric": "cross_entropy", "calibration": [x[:300]]}
    values = [
        analogsim.evaluate(analog, [(x, y)], compensation=text, **options).values
        for text in ("global+batch-norm+affine", "global+affine+batch-norm", "global+affine", "global")
    ]
    np.testing.assert_array_equal(values[0], values[1])
    assert (values[2] < values[3]).all()


def test_where_outputs_cannot_be_matched():
    model, x, y = noisy_network()
    analog = analogsim.convert(model, "pcm").eval()
    with pytest.raises(ValueError, match="needs data: give calibration="):
        analogsim.evaluate(analog, [(x, y)], compensation="affine")
    with pytest.raises(ValueError, match=r"together=2 with compensation 'bias', which is made for each chip"):
        analogsim.evaluate(analog, [(x, y)], compensation="bias", calibration=[x], together=2)
    analogsim.program(analog)
    with pytest.raises(ValueError, match=r"there is analogsim\.calibrate_outputs"):
        analogsim.drift(analog, "1y", compensation="global+affine")


# --- one's own ------------------------------------------------------------------------------------------------------


class Offset(Adjustment):
    """What each analog layer's outputs are off by on average, measured against the digital network, is taken off."""

    name = "offset"

    @contextmanager
    def on_chip(self, analog, data):
        layers = {name: layer for name, layer in analog.named_modules() if isinstance(layer, AnalogLayer)}
        offsets = {}

        def corrected(name):
            return lambda layer, inputs, output: output - offsets.get(name, 0)

        def mean_output(network, name):
            seen = []
            hook = network.get_submodule(name).register_forward_hook(lambda layer, inputs, output: seen.append(output))
            for inputs in data.inputs():
                network(inputs)
            hook.remove()
            return torch.cat(seen).mean(0)

        def renew():
            offsets.clear()
            for name in layers:  # in the order of the forward: each behind those that are corrected
                offsets[name] = mean_output(analog, name) - mean_output(data.digital, name)

        hooks = [layer.register_forward_hook(corrected(name)) for name, layer in layers.items()]
        try:
            yield renew
        finally:
            for hook in hooks:
                hook.remove()


def error(output, target):
    return (output - target).square().mean(1)


def test_an_adjustment_of_ones_own_acts_wherever_a_name_does():
    model, x, _ = noisy_network()
    with torch.no_grad():
        data = [(x, model(x))]
    analog = analogsim.convert(model, "stuck-at(p_on=0.05)")
    options = {"metric": Metric("error", error, higher_is_better=False), "chips": 3, "times": (0,)}
    plain = analogsim.evaluate(analog, data, compensation=None, **options)
    shifted = analogsim.evaluate(analog, data, compensation=Offset(), calibration=[x[:300], x[300:]], **options)
    assert (shifted.values < 0.85 * plain.values).all()
    assert (shifted.compensation, shifted.described.split(": ")[-1]) == ("offset", "offset")
    assert not any(module._forward_hooks for module in analog.modules()), "undone"
    again = analogsim.evaluate(analog, data, compensation=None, **options)
    assert np.array_equal(again.values, plain.values)
    options |= {"calibration": [x]}
    for joined in ("global" + Offset() + "batch-norm", "global+batch-norm" + Offset()):
        report = analogsim.evaluate(analog, data, compensation=joined, **options)
        assert report.compensation == joined.text
        assert set(joined.names) == {"global", "offset", "batch-norm"}
        assert (report.values != shifted.values).all()
    ablation = analogsim.ablate(analog, data, compensation="global" + Offset(), **options)
    assert {report.compensation for report in ablation.reports.values()} == {"global+offset"}
    time = {"t": options.pop("times")[0]}
    result = analogsim.sensitivity(analog, data, compensation=Offset(), **options, **time)
    assert result.everything.compensation == "offset"
    np.testing.assert_array_equal(
        result.everything.values,
        analogsim.evaluate(analog, data, compensation=Offset(), times=(0,), **options).values,
    )


def test_an_adjustment_is_undone_when_something_fails():
    model, x, y = noisy_network()
    analog = analogsim.convert(model, "pcm")

    def fails(output, target):
        if any(module._forward_hooks for module in analog.modules()):
            raise KeyError
        return output[:, 0]

    with pytest.raises(KeyError):
        analogsim.evaluate(analog, [(x, y)], metric=fails, compensation=Offset(), calibration=[x])
    assert not any(module._forward_hooks for module in analog.modules())


def test_an_adjustment_knows_the_age_of_the_chip_and_follows_what_is_early():
    seen = []

    class Note(Adjustment):
        needs_data = False

        def __init__(self, name, early):
            self.name, self.early = name, early

        @contextmanager
        def on_chip(self, analog, data):
            assert data.loader is None
            yield lambda: seen.append((self.name, analog[0].analog.chip.seed, analog[0].analog.chip.time))
            seen.append(f"{self.name} undone")

    model, x, y = noisy_network()
    analog = analogsim.convert(model, "pcm")
    both = Note("late", False) + Note("early", True)
    analogsim.evaluate(analog, [(x, y)], chips=1, seed=4, times=("1s", "1h"), compensation=both)
    hour, second = ([("early", 4, t), ("late", 4, t), "late undone", "early undone"] for t in (3600.0, 1.0))
    assert seen == [*second, *hour]
    with pytest.raises(ValueError, match=r"'late' is made anew for each use of the chip; here give one of global"):
        analogsim.drift(analog, "1s", compensation=Note("late", False))
    with pytest.raises(ValueError, match="together=2 with compensation 'late', which is made for each chip by itself"):
        analogsim.evaluate(analog, [(x, y)], together=2, compensation=Note("late", False))


def median_gain(reference, now, layout):
    return (reference / now).median()


def test_a_gain_of_ones_own(tmp_path, monkeypatch):
    model, x, y = noisy_network()
    analog = analogsim.convert(model, "pcm")
    median = Gain("median", median_gain)
    options = {"chips": 2, "times": ("1y",), "metric": "cross_entropy"}
    reports = {}
    for wanted in (None, "global", median):
        reports[wanted] = analogsim.evaluate(analog, [(x, y)], compensation=wanted, **options)
    assert reports[median].compensation == "median"
    assert abs(reports[median].mean - reports["global"].mean) < 0.5 * abs(reports[None].mean - reports["global"].mean)
    assert not np.array_equal(reports[median].values, reports["global"].values)
    at_once = analogsim.evaluate(analog, [(x, y)], compensation=median, together=2, **options)
    np.testing.assert_allclose(at_once.values, reports[median].values, rtol=1e-4)
    joined = analogsim.evaluate(analog, [(x, y)], compensation=median + "batch-norm", calibration=[x], **options)
    assert joined.compensation == "median+batch-norm"
    ablation = analogsim.ablate(analog, [(x, y)], compensation=median, **options)
    assert np.array_equal(ablation.reports["drift compensation"].values, reports[None].values)
    with analogsim.programmed(analog, 1, "1y", compensation=median), torch.no_grad():
        score = nn.functional.cross_entropy(analog(x), y)
        assert float(score) == pytest.approx(reports[median].values[1, 0], rel=1e-5)
        with pytest.raises(ValueError, match=r"'median' is none that is known; put it into analogsim.chip.COMPENSAT"):
            analogsim.save_chip(analog, tmp_path / "chip")
        with monkeypatch.context() as known:
            known.setitem(COMPENSATIONS, "median", median)
            analogsim.save_chip(analog, tmp_path / "chip")
            analogsim.load_chip(analog, tmp_path / "chip")
            assert float(nn.functional.cross_entropy(analog(x), y)) == float(score)
            assert as_compensations("median+batch-norm").gain is median
        with pytest.raises(ValueError, match="load_chip: layer '0' has the gain 'median', which is not known here"):
            analogsim.load_chip(analog, tmp_path / "chip")


def test_a_gain_of_ones_own_that_is_none():
    analog = analogsim.convert(nn.Linear(4, 3), "pcm")
    analogsim.program(analog)
    analogsim.drift(analog, "1d")
    for rule in (lambda reference, now, layout: 2.0, lambda reference, now, layout: now.sum(1)):
        with pytest.raises(
            ValueError, match=r"compensation 'odd': its rule must give a scalar tensor or one of \(3, 1\)"
        ):
            analogsim.drift(analog, "1y", compensation=Gain("odd", rule))
        assert analog.analog.chip.time == 86400.0


def test_gains_that_are_no_numbers_are_refused():
    analog = analogsim.convert(nn.Linear(4, 3), "pcm")
    analogsim.program(analog)

    def undefined(reference, now, layout):
        return torch.where(reference == reference.max(), torch.nan, 1.0)

    for rule, count in ((undefined, "1 of 3"), (lambda *_: torch.tensor(torch.inf), "1 of 1")):
        message = rf"compensation 'odd': its rule gives NaN or infinite gains, {count}, as where"
        with pytest.raises(ValueError, match=message):
            analogsim.drift(analog, "1y", compensation=Gain("odd", rule))
        assert analog.analog.chip.time == 0
    analogsim.drift(analog, "1y", compensation="column")


def test_two_gains_cannot_be_joined():
    with pytest.raises(ValueError, match=r"must be None, or one of global, .* got 'global.median'"):
        "global" + Gain("median", median_gain)
    with pytest.raises(ValueError, match=r"got 'offset.offset'"):
        Offset() + Offset()


def test_compensations_go_to_other_processes():
    for part in COMPENSATIONS.values():
        assert pickle.loads(pickle.dumps(part)) == part


def test_what_has_nothing_to_do_is_said_of_the_network_and_left_out_of_its_parts():
    model, x, y = noisy_network()
    analog = analogsim.convert(model, "pcm")
    for judge in (analogsim.sensitivity, analogsim.ablate, analogsim.evaluate):
        with pytest.raises(
            ValueError, match=r"compensation 'global\+ranges': no crossbar leaves a range to calibration"
        ):
            judge(analog, [(x, y)], chips=1, compensation="global+ranges", calibration=[x])
    analog = analogsim.convert(model, "pcm", crossbar={"0": Crossbar(adc_bits=6, output_bound="calibrated")})
    analogsim.calibrate(analog, [x])
    result = analogsim.sensitivity(analog, [(x, y)], chips=1, compensation="global+ranges", calibration=[x])
    assert {name: each.compensation for name, each in result.reports.items()} == {"0": "global+ranges", "3": "global"}


def test_what_a_compensation_lacks_is_said() -> None:
    class Nameless(Adjustment):
        @contextmanager
        def on_chip(self, analog: nn.Module, data: CalibrationData) -> Iterator[Any]:
            yield lambda: None

    class Bare(Nameless):
        name = "bare"

        def on_chip(self, analog: nn.Module, data: CalibrationData) -> Any:
            yield lambda: None

    class Idle(Nameless):
        name = "idle"

        @contextmanager
        def on_chip(self, analog: nn.Module, data: CalibrationData) -> Iterator[Any]:
            yield

    torch.manual_seed(0)
    analog = analogsim.convert(nn.Linear(4, 3), "pcm")
    data = [(torch.randn(8, 4), torch.arange(8) % 3)]

    def judge(compensation: Any) -> None:
        analogsim.evaluate(analog, data, chips=1, times=["1d"], compensation=compensation, calibration=[data[0][0]])

    with pytest.raises(ValueError, match=r"needs a name to stand in reports, text without '.'; its name is None"):
        judge(Nameless())
    with pytest.raises(TypeError, match=r"on_chip of the compensation 'bare' must be a @contextmanager .* got no bl"):
        judge(Bare())
    with pytest.raises(TypeError, match=r"of the compensation 'idle' .* which makes the correction, got .* gives None"):
        judge(Idle())
