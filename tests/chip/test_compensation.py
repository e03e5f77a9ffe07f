from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import analogsim
from analogsim import Crossbar, DeviceModel, Drift, Effect
from analogsim.chip.batch_norm import own_statistics, reestimate_batch_norm
from analogsim.chip.compensation import Compensation
from analogsim.crossbar.gains import gains, global_gain, measured_sums
from analogsim.devices import pcm
from analogsim.mapping.layout import Layout
from analogsim.noise import KeyedNoise


def weight_of(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("gain", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gain_of_all_cells_is_undone(gain, dtype):
    weight = weight_of(6, 5).to(dtype)
    measured = global_gain(weight.abs().sum(), weight / gain)
    assert measured.shape == ()
    assert measured.dtype == dtype
    assert float(measured) == pytest.approx(gain, rel=1e-5)


def test_signs_do_not_cancel():
    weight = torch.tensor([1.0, -1.0])
    assert global_gain(weight.abs().sum(), weight / 2) == 2


def test_an_array_that_reads_zero_is_left_alone():
    zero = torch.zeros(3, 4)
    for reference in (0.0, 1.0):
        assert global_gain(torch.tensor(reference), zero) == 1


def test_arguments_are_not_written_into():
    reference, now = torch.tensor(3.0), weight_of(3, 4)
    global_gain(reference, now)
    assert reference == 3
    assert torch.equal(now, weight_of(3, 4))


def test_one_exponent_for_all_cells_is_undone_exactly():
    device = DeviceModel((Drift(nu=0.05, nu_std=0.0),))
    weight = weight_of(50, 40)
    written = device.program(weight, KeyedNoise("drift"))
    fresh, old = (device.to_weight(device.age(written, t), written) for t in (0.0, 3.15e7))
    torch.testing.assert_close(old * global_gain(fresh.abs().sum(), old), fresh)


def test_the_mean_decay_of_pcm_is_undone_and_its_spread_is_not():
    """The gain is measured, not known: it knows no exponent, and what is left of the error is the spread."""
    device = pcm()
    weight = weight_of(200, 200)
    written = device.program(weight, KeyedNoise("pcm"))
    fresh, old = (device.to_weight(device.age(written, t), written) for t in (0.0, 3.15e7))
    gain = global_gain(fresh.abs().sum(), old)

    def error(now):
        return float((now - weight).norm() / weight.norm())

    assert 1.5 < gain < 3
    assert float((old * gain).abs().sum()) == pytest.approx(float(fresh.abs().sum()), rel=1e-5)
    assert 1.5 * error(fresh) < error(old * gain) < 0.5 * error(old)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, Compensation(None)),
        ("global", Compensation("global")),
        ("column+batch-norm", Compensation("column", batch_norm=True)),
        ("ranges+crossbar", Compensation("crossbar", ranges=True)),
        ("batch-norm+ranges", Compensation(None, batch_norm=True, ranges=True)),
    ],
)
def test_what_there_is(text, wanted):
    assert Compensation.of(text) == wanted


@pytest.mark.parametrize("text", ["colum", "", True, ["global"], "global+column", "column+column", "global+"])
def test_what_there_is_not(text):
    with pytest.raises(ValueError, match="compensation: must be None, or one of global, crossbar, column"):
        Compensation.of(text)


def faded(weight, layout):
    """A layer of which every column of every crossbar has faded by a factor of its own."""
    factors = torch.rand(len(weight), len(layout.rows), generator=torch.Generator().manual_seed(1)) * 0.5 + 0.4
    return factors, weight * layout.spread(factors, weight)


def test_each_kind_of_gain_undoes_what_it_can_measure():
    weight = weight_of(6, 10)
    layout = Layout.of(weight.shape, rows=4, cols=2)
    factors, now = faded(weight, layout)
    before, after = measured_sums(weight, layout), measured_sums(now, layout)
    torch.testing.assert_close(gains("column", before, after, layout), 1 / factors)
    assert gains("global", before, after, layout) == pytest.approx(float(weight.abs().sum() / now.abs().sum()))
    crossbar = gains("crossbar", before, after, layout)
    for left, right in layout.cols:
        for block, (top, bottom) in enumerate(layout.rows):
            part = (slice(left, right), slice(top, bottom))
            wanted = weight[part].abs().sum() / now[part].abs().sum()
            torch.testing.assert_close(crossbar[left:right, block], wanted.expand(right - left))
    assert gains("column", before, torch.zeros_like(after), layout).eq(1).all()


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


def test_trap_14_batch_norm_is_estimated_on_each_chip_and_left_as_it_was():
    model, x, y = noisy_network()
    analog = analogsim.convert(model, "pcm")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options = {"chips": 4, "times": ("1y",)}
    plain = analogsim.evaluate(analog, [(x, y)], compensation=None, **options)
    renewed = analogsim.evaluate(analog, [(x, y)], compensation="batch-norm", calibration=[x[:300]], **options)
    assert renewed.mean[0] > plain.mean[0] + 0.003
    assert renewed.compensation == "batch-norm"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert analog[1]._buffers is model[1]._buffers, "twin and model share their statistics again"
    assert analog[1].momentum == 0.1
    with analogsim.programmed(analog, 2, "1y", compensation=None), own_statistics(analog):
        reestimate_batch_norm(analog, [x[:300]])
        hidden = analog[0](x[:300])
        torch.testing.assert_close(analog[1].running_mean, hidden.mean(0))
        torch.testing.assert_close(analog[1].running_var, hidden.var(0))
        score = (analog(x).argmax(1) == y).float().mean()
    assert float(score) == pytest.approx(renewed.values[2, 0])


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
