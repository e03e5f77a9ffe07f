"""Ranges found by what layers answer: never worse than those of calibrate, better where a few inputs are large."""

import pytest
import torch
from torch import nn

import analogsim
from analogsim import Crossbar
from analogsim.layers import matrices_of

CALIBRATED = Crossbar(dac_bits=6, adc_bits=6, output_noise=0.04, input_range="calibrated", output_bound="calibrated")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 8)).eval()


def inputs(count, tails):
    """Most inputs small; with tails, a few much larger ones."""
    x = torch.randn(count, 32)
    return torch.where(torch.rand(count, 32) < 0.002, 15 * x, x) if tails else x


def wrong(analog, model, x, seeds=range(5)):
    clean, found = model(x).detach(), []
    for seed in seeds:
        with analogsim.programmed(analog, seed, "1d"):
            found.append((analog(x).detach() - clean).square().mean())
    return torch.stack(found)


@pytest.mark.parametrize(
    ("tails", "changes"),
    [
        (False, {}),
        (True, {}),
        (True, {"rows": 16}),
        (False, {"rows": 16, "ranges_per": "layer"}),
        (True, {"output_bound": 12.0}),
    ],
    ids=str,
)
def test_never_worse_than_calibrate_on_other_inputs_and_chips(tails, changes):
    model = network()
    crossbar = CALIBRATED.replace(**changes)
    x, fresh = inputs(64, tails), inputs(300, tails)
    plain, found = (analogsim.convert(model, "pcm", crossbar=crossbar) for _ in range(2))
    analogsim.calibrate(plain, [x])
    searched = analogsim.search_ranges(found, x)
    lost = wrong(found, model, fresh) - wrong(plain, model, fresh)
    assert float(lost.mean()) < 2 * float(lost.std()) / len(lost) ** 0.5
    if tails:
        assert float(lost.mean()) < -3 * float(lost.std()) / len(lost) ** 0.5, "much better, where a few are large"
    for row, matrix in zip(searched.layers, matrices_of(found), strict=True):
        assert row.layer == matrix.analog.name
        assert row.error <= row.before
        assert row.input_range.shape == matrix.analog.range_shape("input_range")
        assert torch.equal(row.input_range, matrix.analog.input_range)
        if crossbar.needs_bound:
            assert row.output_bound.shape == matrix.analog.range_shape("output_bound")
            assert torch.equal(row.output_bound, matrix.analog.output_bound)
    assert "with calibrate" in str(searched)


def test_bounds_fit_at_every_age_that_counts():
    model, x = network(), inputs(64, False)
    crossbar = CALIBRATED.replace(adc_bits=8, output_noise=0.0)
    found = {}
    for ages in ("3d", ("1s", "3d"), None):
        analog = analogsim.convert(model, "drift(nu=0.15)", crossbar=crossbar)
        found[ages] = analogsim.search_ranges(analog, x, time=ages).layers[0].output_bound
    # Currents of an old chip are (3d / 1s + 1)^-0.15 = 0.15 of those of a fresh one, which would saturate.
    assert float(found["3d"].max()) < 0.7 * float(found["1s", "3d"].max())
    assert float(found[None].max()) > 0.7 * float(found["1s", "3d"].max()), "a second and a year where nobody says"


def test_where_nothing_is_gained_ranges_are_those_of_calibrate():
    """Inputs of +-1 fill their range, and fine converters have no steps to gain by."""
    torch.manual_seed(0)
    model = nn.Linear(16, 4)
    x = torch.randint(2, (64, 16)) * 2.0 - 1
    crossbar = Crossbar(dac_bits=12, adc_bits=16, output_bound=30.0, input_range="calibrated")
    plain, found = (analogsim.convert(model, "pcm", crossbar=crossbar) for _ in range(2))
    analogsim.calibrate(plain, [x])
    analogsim.search_ranges(found, x)
    assert torch.equal(plain.analog.input_range, found.analog.input_range)


def test_learned_ranges_stay_unless_asked():
    model, x = network(), inputs(64, tails=True)
    analog = analogsim.convert(model, "pcm", crossbar=CALIBRATED.replace(input_range="learned", output_bound=12.0))
    analogsim.calibrate(analog, [x])
    held = analogsim.range_parameters(analog)
    values = [parameter.detach().clone() for parameter in held]
    assert analogsim.search_ranges(analog, x).layers == ()
    assert all(torch.equal(now, then) for now, then in zip(held, values, strict=True))
    assert all(now is then for now, then in zip(analogsim.range_parameters(analog), held, strict=True))
    found = analogsim.search_ranges(analog, x, keep_learned=False)
    now = analogsim.range_parameters(analog)
    assert len(found.layers) == 2
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in now)
    assert any(not torch.equal(one, then) for one, then in zip(now, values, strict=True))


def test_learned_ranges_without_a_value_are_found():
    analog = analogsim.convert(network(), "pcm", crossbar=CALIBRATED.replace(input_range="learned"))
    assert len(analogsim.search_ranges(analog, inputs(64, tails=True)).layers) == 2
    assert len(analogsim.range_parameters(analog)) == 2


def test_bias_rows_fit():
    torch.manual_seed(0)
    model, x = nn.Linear(16, 4), 0.1 * torch.randn(64, 16)
    device = "pcm(bias_rows=2)"
    analog = analogsim.convert(model, device, crossbar=CALIBRATED.replace(rows=6))
    analogsim.search_ranges(analog, x)
    assert float(analog.analog.input_range[-1]) >= 1


def test_nothing_to_search_and_a_chip_that_stays():
    model, x = network(), inputs(64, tails=False)
    analog = analogsim.convert(model, "pcm", crossbar="standard")
    assert analogsim.search_ranges(analog, x).layers == ()
    analog = analogsim.convert(model, "pcm", crossbar=CALIBRATED)
    analogsim.calibrate(analog, [x])
    analogsim.program(analog, 4)
    chips = [matrix.analog.chip for matrix in matrices_of(analog)]
    analogsim.search_ranges(analog, x[:8], chips=1)
    assert [matrix.analog.chip for matrix in matrices_of(analog)] == chips


def test_ranges_are_as_before_where_it_fails():
    analog = analogsim.convert(network(), "pcm", crossbar=CALIBRATED)
    analogsim.calibrate(analog, [inputs(64, tails=False)])
    before = analogsim.get_ranges(analog)
    with pytest.raises(ValueError, match="NaN or infinite"):
        analogsim.search_ranges(analog, torch.full((4, 32), float("nan")))
    with pytest.raises(ValueError, match="search_ranges: chips must be an integer >= 1, got 0"):
        analogsim.search_ranges(analog, inputs(4, tails=False), chips=0)
    after = analogsim.get_ranges(analog)
    assert all(torch.equal(after[name][kind], before[name][kind]) for name in before for kind in before[name])
