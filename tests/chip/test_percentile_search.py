"""The largest weight found by what layers answer: better for heavy tails, untouched where that is no gain."""

import pytest
import torch
from torch import nn

import analogsim
from analogsim import Crossbar, Mapping
from analogsim.layers import matrices_of


def heavy(rows, columns):
    """Weights of Student's t with three degrees of freedom: a few are much larger than the rest."""
    return torch.distributions.StudentT(3.0).sample((rows, columns)) / columns**0.5


def network(make):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.copy_(make(*layer.weight.shape))
    return model, torch.randn(200, 64)


def wrong(analog, model, x, seeds=range(5)):
    """Mean squared error of a twin's answers on chips, one for each."""
    clean, found = model(x).detach(), []
    for seed in seeds:
        with analogsim.programmed(analog, seed, "1d"):
            found.append((analog(x).detach() - clean).square().mean())
    return torch.stack(found)


@pytest.mark.parametrize("per", ["layer", "network"])
def test_heavy_tails_are_clipped_to_the_good_of_the_network(per):
    model, x = network(heavy)
    analog = analogsim.convert(model, "gaussian(std=0.05, cells='pair', scale='tensor')")
    before = wrong(analog, model, x[100:])
    found = analogsim.search_percentile(analog, x[:100], per=per)
    gained = before - wrong(analog, model, x[100:])  # other chips, other inputs
    assert float(gained.mean()) > 3 * float(gained.std()) / len(gained) ** 0.5
    assert found.changed
    assert [row.layer for row in found.layers] == ["0", "2"]
    for row in found.layers:
        assert row.percentile < 100 == row.before
        assert row.errors[row.percentile] < row.errors[100.0]
        assert 0 < row.gained < 1
    chosen = {matrix.analog.name: matrix.analog.device for matrix in matrices_of(analog)}
    assert chosen == dict(found.devices)
    assert all(f"percentile={row.percentile}" in chosen[row.layer].name for row in found.layers)
    if per == "network":
        assert len({row.percentile for row in found.layers}) == 1
    again = analogsim.convert(model, found.devices)
    torch.testing.assert_close(wrong(again, model, x, [0]), wrong(analog, model, x, [0]))
    assert "taken away" in str(found)


def test_the_best_of_all_is_found():
    """Against twins with each percentile, the slow obvious way: a layer alone, on the same chips."""
    torch.manual_seed(0)
    model = nn.Linear(64, 32)
    with torch.no_grad():
        model.weight.copy_(heavy(32, 64))
    x = torch.randn(100, 64)
    percentiles = (100, 99, 97, 95, 90, 80)
    analog = analogsim.convert(model, "gaussian(std=0.05, cells='pair', scale='tensor')")
    (row,) = analogsim.search_percentile(analog, x, percentiles=percentiles, seed=11).layers
    variance = model(x).detach().double().var(correction=0)
    for percentile in percentiles:
        other = analogsim.convert(model, f"gaussian(std=0.05, cells='pair', scale='tensor', percentile={percentile})")
        error = wrong(other, model, x, range(11, 14)).double().mean() / variance
        assert row.errors[float(percentile)] == pytest.approx(float(error), rel=1e-3)
    assert row.errors[row.percentile] == min(row.errors.values())


@pytest.mark.parametrize("device", ["gaussian(std=0.05)", "quantization(levels=4096)"])
def test_even_weights_stay_as_they_are(device):
    """Uniform weights on fine cells, which clipping only costs; and noise on weights, which no cell stops."""
    model, x = network(lambda rows, columns: (torch.rand(rows, columns) - 0.5) * 2 / columns**0.5)
    analog = analogsim.convert(model, device)
    analogsim.program(analog, 1)
    chips = [matrix.analog.chip for matrix in matrices_of(analog)]
    found = analogsim.search_percentile(analog, x[:64], percentiles=(99, 95, 90))
    assert not found.changed
    assert [matrix.analog.chip for matrix in matrices_of(analog)] == chips
    assert {matrix.analog.device for matrix in matrices_of(analog)} == {analogsim.as_device_model(device)}


def test_normal_weights_are_not_harmed():
    """By other chips and inputs, within the spread over chips."""
    model, x = network(lambda rows, columns: torch.randn(rows, columns) / columns**0.5)
    analog = analogsim.convert(model, "pcm")
    before = wrong(analog, model, x[100:])
    analogsim.search_percentile(analog, x[:100])
    lost = wrong(analog, model, x[100:]) - before
    assert float(lost.mean()) <= 2 * float(lost.std()) / len(lost) ** 0.5


def test_ranges_are_kept_and_bounds_follow():
    model, x = network(heavy)
    crossbar = Crossbar(rows=32, dac_bits=8, adc_bits=8, input_range="calibrated", output_bound="calibrated")
    analog = analogsim.convert(model, "gaussian(std=0.05, cells='pair', scale='tensor')", crossbar=crossbar)
    with pytest.raises(analogsim.NotCalibratedError, match="converters without a range"):
        analogsim.search_percentile(analog, x[:50])
    analogsim.calibrate(analog, [x])
    before, first = analogsim.get_ranges(analog), wrong(analog, model, x)
    found = analogsim.search_percentile(analog, x[:50])
    after = analogsim.get_ranges(analog)
    assert found.changed
    for row in found.layers:
        assert torch.equal(before[row.layer]["input_range"], after[row.layer]["input_range"])
        larger = after[row.layer]["output_bound"] > before[row.layer]["output_bound"]
        assert bool(larger.all()) is (row.percentile != row.before)
    assert float((wrong(analog, model, x) / first).mean()) < 1


def test_what_a_mapping_already_says_is_where_it_begins():
    model, x = network(heavy)
    analog = analogsim.convert(model, "gaussian(std=0.05, cells='pair', scale='tensor', percentile=95)")
    found = analogsim.search_percentile(analog, x[:50], percentiles=[100])
    assert [(row.before, row.percentile) for row in found.layers] == [(95.0, 95.0)] * 2
    assert matrices_of(analog)[0].analog.device.laid == Mapping(scale="tensor", percentile=95.0)


def test_batches_of_any_form():
    model, x = network(heavy)
    ways = [x[:60], list(x[:60].split(20)), iter(x[:60].split(20)), [(part, 0) for part in x[:60].split(20)]]
    tables = {str(analogsim.search_percentile(analogsim.convert(model, "pcm"), way, percentiles=(90,))) for way in ways}
    assert len(tables) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"percentiles": ()}, "give at least one percentile, got none"),
        ({"percentiles": (0,)}, r"a percentile must be in \(0, 100\], got 0"),
        ({"percentiles": (101,)}, "got 101"),
        ({"percentiles": ("99",)}, "got '99'"),
        ({"per": "column"}, 'per must be "layer" or "network", got \'column\''),
        ({"chips": 0}, "search_percentile: chips must be an integer >= 1, got 0"),
        ({"time": "1x"}, "cannot read '1x'"),
        ({"compensation": "batch-norm"}, "needs data that go through the chip"),
    ],
)
def test_what_is_refused(changes, message):
    model, x = network(heavy)
    with pytest.raises(ValueError, match=message):
        analogsim.search_percentile(analogsim.convert(model, "pcm"), x[:4], **changes)


def test_inputs_that_are_none():
    analog = analogsim.convert(nn.Linear(3, 2), "pcm")
    with pytest.raises(TypeError, match=r"give a tensor \(one batch\).*, got a int"):
        analogsim.search_percentile(analog, 3)
    with pytest.raises(ValueError, match="search_percentile: the loader is empty"):
        analogsim.search_percentile(analog, [])
    with pytest.raises(ValueError, match="search_percentile: batch 1 of the inputs holds no samples"):
        analogsim.search_percentile(analog, [torch.zeros(1, 3), torch.zeros(0, 3)])
    with pytest.raises(TypeError, match=r"percentiles must be a sequence such as .*, got 99"):
        analogsim.search_percentile(analog, torch.zeros(1, 3), percentiles=99)
    with pytest.raises(TypeError, match="seed: must be an integer, got 'a'"):
        analogsim.search_percentile(analog, torch.zeros(1, 3), seed="a")
