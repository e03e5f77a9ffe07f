import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar, DeviceModel, ReadNoise
from analogsim.chip.calibration import Magnitudes, find_saturated, saturation_told

OWN = Crossbar(rows=8, dac_bits=8, adc_bits=8, input_range="calibrated", output_bound="calibrated")
CALIBRATED = OWN.replace(ranges_per="layer")
QUIET = DeviceModel((ReadNoise(std=0.0),), mapping=analogsim.Mapping())


def twin(crossbar=CALIBRATED, device=QUIET):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3))
    return model, analogsim.convert(model, device, crossbar=crossbar)


def data(count=512):
    return torch.randn(count, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("percent", [50, 99, 99.9, 100])
def test_percentiles_of_a_stream(percent):
    values = torch.randn(100_000, generator=torch.Generator().manual_seed(0)) * 3 - 5
    counted = Magnitudes()
    for part in values.split(999):
        counted.add(part)
    exact = values.abs().double().sort().values[int(len(values) * percent / 100) - 1]
    assert exact <= counted.percentile(percent) <= exact * 1.008
    assert counted.largest == values.abs().max()
    assert counted.lowest == values.min()


def test_magnitudes_not_signed_values_count():
    counted = Magnitudes()
    counted.add(torch.linspace(-10, 0, 1001))
    assert counted.percentile(99) == pytest.approx(9.9, rel=0.01)


def test_ranges_fit_the_data():
    model, analog = twin()
    x = data()
    with pytest.raises(analogsim.NotCalibratedError, match=r"layer '0' has converters without a range: call"):
        analog(x)
    analogsim.calibrate(analog, [(part, None) for part in x.split(100)], percentile=100)
    assert analog.training, "modes are as before"
    hidden = model[1](model[0](x))
    assert analog[0].analog.input_range.item() == pytest.approx(x.abs().max().item())
    assert analog[2].analog.input_range.item() == pytest.approx(hidden.abs().max().item(), rel=0.03)
    state = analog[2].analog
    bound = 0.0
    for start, end in state.layout.rows:
        block = model[2].weight[:, start:end]
        current = hidden[:, start:end] @ (block / block.abs().amax(1, keepdim=True)).T / state.input_range
        bound = max(bound, current.abs().max().item())
    assert state.output_bound.item() == pytest.approx(bound, rel=0.03)
    assert (analog(x) - model(x)).std() < 0.03 * model(x).std()


def test_a_percentile_lets_the_rest_saturate():
    _, analog = twin()
    x = data()
    x[0, 0] = 1000.0
    analogsim.calibrate(analog, [x], percentile=99)
    assert analog[0].analog.input_range.item() == pytest.approx(
        x.abs().flatten().kthvalue(6083).values.item(), rel=0.01
    )


def test_calibrating_again_starts_anew():
    _, analog = twin()
    analogsim.calibrate(analog, [data()])
    first = analog[2].analog.output_bound.item()
    analogsim.calibrate(analog, [data() * 10])
    assert analog[0].analog.input_range.item() > 20
    analogsim.calibrate(analog, [data()])
    assert analog[2].analog.output_bound.item() == first


def test_a_chip_is_calibrated_as_it_is():
    model, analog = twin(device=analogsim.as_device_model("pcm"))
    analogsim.calibrate(analog, [data()])
    clean = analog[2].analog.input_range.item()
    analogsim.program(analog, seed=1)
    analogsim.drift(analog, "1y", compensation=None)
    analogsim.calibrate(analog, [data()])
    assert analog[2].analog.input_range.item() < 0.8 * clean, "what the chip says has faded"
    before = [parameter.clone() for parameter in model.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_digital_bias_and_a_row_of_ones_fit():
    device = DeviceModel((ReadNoise(std=0.0),), mapping=analogsim.Mapping(bias_rows=1))
    model, analog = twin(device=device)
    analogsim.calibrate(analog, [data() * 0.01])
    assert analog[0].analog.input_range.item() == 1.0
    assert (analog(data() * 0.01) - model(data() * 0.01)).abs().max() < 0.02


def test_learned_ranges():
    model, analog = twin(CALIBRATED.replace(input_range="learned"))
    with pytest.raises(analogsim.NotCalibratedError):
        analogsim.range_parameters(analog)
    analogsim.calibrate(analog, [data()], percentile=90)
    ranges = analogsim.range_parameters(analog)
    assert [value.requires_grad for value in ranges] == [True, True]
    assert not {id(value) for value in ranges} & {id(parameter) for parameter in analog.parameters()}
    assert model.state_dict().keys() == analog.state_dict().keys()
    wanted = model(data()).detach()
    optimizer = torch.optim.Adam(ranges, lr=0.05)
    errors = []
    for _ in range(30):
        optimizer.zero_grad()
        error = (analog(data()) - wanted).square().mean()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.5 * errors[0], "a range too small grows"
    with pytest.raises(ValueError, match="no layer learns its input range"):
        analogsim.range_parameters(twin()[1])


def test_nothing_to_calibrate():
    _, analog = twin(Crossbar(dac_bits=8))
    analogsim.calibrate(analog, [])
    assert analog[0].analog.input_range is None


@pytest.mark.parametrize(
    ("loader", "options", "error", "message"),
    [
        ([], {}, ValueError, "the loader is empty"),
        ([torch.zeros(2, 12)], {}, ValueError, "layer '0' got no input other than 0"),
        ([torch.full((2, 12), torch.nan)], {}, ValueError, "layer '0': its input values are NaN or infinite"),
        ([1], {}, TypeError, "loader must yield inputs .a tensor, or a mapping"),
        ([torch.ones(2, 12)], {"percentile": 0}, ValueError, "percentile must be in"),
    ],
)
def test_bad_data_leaves_ranges_as_they_were(loader, options, error, message):
    _, analog = twin()
    analogsim.calibrate(analog, [data()])
    before = analog[0].analog.input_range.item()
    with pytest.raises(error, match=message):
        analogsim.calibrate(analog, loader, **options)
    assert analog[0].analog.input_range.item() == before
    analog(data())


def test_an_unsigned_converter_refuses_negative_inputs():
    unsigned = CALIBRATED.replace(dac="unsigned")
    _, analog = twin(unsigned)
    with pytest.raises(ValueError, match=r"layer '0' gets inputs down to -.*, and its converter is unsigned"):
        analogsim.calibrate(analog, [data()])
    _, analog = twin({"0": CALIBRATED, "2": unsigned})
    analogsim.calibrate(analog, [data()])
    with pytest.raises(ValueError, match="has no analog layer"):
        analogsim.calibrate(nn.Linear(2, 2), [data()])


def test_by_default_one_value_in_ten_thousand_saturates():
    assert inspect.signature(analogsim.calibrate).parameters["percentile"].default == 99.99
    _, analog = twin()
    x = torch.rand(10_000, 12, generator=torch.Generator().manual_seed(0))
    x[:11, 0] = 50.0  # 11 of 120,000: fewer than one in ten thousand
    analogsim.calibrate(analog, [x])
    assert float(analog[0].analog.input_range) <= 1.008
    x[:13, 0] = 50.0
    analogsim.calibrate(analog, [x])
    assert float(analog[0].analog.input_range) == pytest.approx(50, rel=0.008)


def test_each_block_has_the_range_of_its_inputs_and_each_slice_the_bound_of_its_outputs():
    """Against the slow loop by hand, at the percentile that is the largest."""
    device = QUIET.replace(mapping=analogsim.Mapping(slices=3, slice_bits=2))
    _, analog = twin(OWN.replace(rows=5), device)
    x = data()
    x[:, :4] *= 100.0
    analogsim.calibrate(analog, [(part,) for part in x.split(100)], percentile=100)
    state = analog[0].analog
    assert [end - start for start, end in state.layout.rows] == [4, 4, 4]
    assert state.input_range.shape == (3,)
    assert state.output_bound.shape == (3, 3)
    analogsim.program(analog)
    array = analog[0].analog.chip.array
    for block, (start, end) in enumerate(state.layout.rows):
        part = x[:, start:end]
        assert state.input_range[block].item() == pytest.approx(part.abs().max().item(), rel=1e-6)
        codes = 127
        driven = (part / state.input_range[block] * codes).round() / codes
        for place in range(3):
            current = driven @ array.slices[place][:, start:end].T / array.scale[:, block]
            assert state.output_bound[place, block].item() == pytest.approx(current.abs().max().item(), rel=1e-5)


def test_bounds_of_their_own_are_finer_than_one_for_all_slices():
    """Four slices of two bits, 8-bit converters: of normal weights few use the upper levels of the first slice."""
    torch.manual_seed(0)
    layer = nn.Linear(64, 32, bias=False)
    nn.init.normal_(layer.weight)
    x = torch.randn(500, 64)
    device = QUIET.replace(mapping=analogsim.Mapping(slices=4, slice_bits=2))
    errors = {}
    for per in ("layer", "block"):
        crossbar = Crossbar(adc_bits=8, output_bound="calibrated", ranges_per=per)
        analog = analogsim.convert(layer, device, crossbar=crossbar)
        analogsim.calibrate(analog, [x])
        analogsim.program(analog)
        bound = analog.analog.output_bound
        assert bound.shape == ((4, 1) if per == "block" else ())
        with torch.no_grad():
            errors[per] = float((analog.eval()(x) - layer(x)).std() / layer(x).std())
    assert errors["block"] < 0.8 * errors["layer"]


@pytest.mark.parametrize("ranges", ["calibrated", "learned", "dynamic"])
def test_a_block_of_small_inputs_keeps_its_resolution(ranges):
    """Inputs 100 times smaller, on crossbars of their own, meet all levels there: their error is 100 times smaller."""
    torch.manual_seed(0)
    layer = nn.Linear(16, 8, bias=False).double()
    x = torch.randn(400, 16, dtype=torch.float64)
    x[:, 8:] *= 0.01
    errors = {}
    for per in ("layer", "block"):
        crossbar = Crossbar(rows=8, dac_bits=6, input_range=ranges, ranges_per=per)
        analog = analogsim.convert(layer, QUIET, crossbar=crossbar)
        analogsim.calibrate(analog, [x], percentile=100)
        analogsim.program(analog)
        with torch.no_grad():
            large, small = x.clone(), x.clone()
            large[:, 8:] = 0
            part = analog.eval()(x) - analog(large)  # what the small ones add
            small[:, :8] = 0
            errors[per] = float((part - layer(small)).std() / layer(small).std())
    assert errors["block"] < 0.05
    assert errors["layer"] > 10 * errors["block"]


@pytest.mark.parametrize(("rows", "wanted"), [(7, (6, 1)), (9, (13,)), (4, (3, 4, 3, 3))])
def test_the_input_1_of_bias_rows_fits_where_it_lies(rows, wanted):
    """A block with nothing but bias rows has the range 1; one without any that of its inputs."""
    del wanted
    device = QUIET.replace(mapping=analogsim.Mapping(bias_rows=6))
    _, analog = twin(Crossbar(rows=rows, dac_bits=8, input_range="calibrated"), device)
    x = 0.01 * data()
    analogsim.calibrate(analog, [x], percentile=100)
    state = analog[0].analog
    for block, (start, end) in enumerate(state.layout.rows):
        found = state.input_range[block].item()
        assert found == pytest.approx(1.0 if end > 12 else x[:, start:end].abs().max().item(), rel=1e-6)


def test_a_block_that_gets_nothing_takes_the_range_of_the_others():
    _, analog = twin(OWN.replace(rows=6, output_bound=12.0))
    x = data()
    x[:, :6] = 0
    analogsim.calibrate(analog, [x])
    assert analog[0].analog.input_range[0] == analog[0].analog.input_range[1] > 0
    with pytest.raises(ValueError, match="layer '0' got no input other than 0"):
        analogsim.calibrate(analog, [torch.zeros(3, 12)])


def test_a_table_has_a_bound_for_each_slice():
    torch.manual_seed(0)
    device = QUIET.replace(mapping=analogsim.Mapping(slices=2, slice_bits=3))
    crossbar = Crossbar(rows=4, adc_bits=8, output_bound="calibrated")
    layer = nn.Embedding(11, 5)
    analog = analogsim.convert(layer, device, crossbar=crossbar, embeddings=True)
    index = torch.arange(11)
    analogsim.calibrate(analog, [index], percentile=100)
    bound = analog.analog.output_bound
    assert bound.shape == (2, 3)
    assert torch.equal(bound, bound[:, :1].expand(2, 3))
    analogsim.program(analog)
    torch.testing.assert_close(analog.eval()(index), layer(index), rtol=0, atol=0.1)


def test_counts_grow_to_where_values_are():
    """In any order; what is far apart, zero and tiny is counted as by one long table."""
    values = torch.cat([10.0 ** torch.linspace(-30, 30, 999), torch.zeros(200), -(10.0 ** torch.linspace(-3, 3, 500))])
    values = values[torch.randperm(len(values), generator=torch.Generator().manual_seed(0))]
    counted = Magnitudes()
    for part in (torch.zeros(0), torch.zeros(3), *values.split(7)):
        counted.add(part)
    every = torch.cat([torch.zeros(3), values]).abs().double().sort().values
    for percent in (1, 11, 12, 30, 50, 90, 99.9, 100):
        exact = every[max(1, -(-len(every) * int(percent * 1000) // 100_000)) - 1]
        assert exact <= counted.percentile(percent) <= exact * 1.008
    assert Magnitudes().percentile(50) == 0


def saturating(bound: object = 1.0, **more: Any) -> tuple[nn.Module, Tensor]:
    """A twin whose first layer sums up 64 inputs of one sign, and whose second one does not."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 5, bias=False), nn.Linear(5, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.arange(64) < torch.tensor([6, 20, 35, 50, 64]).unsqueeze(1))
        model[1].weight.copy_(torch.tensor([[1.0, 0.1, 0, 0, 0], [0, 0, 0, 0, 1e-3]]))
    array = analogsim.Crossbar(output_bound=bound, adc_bits=None if bound is None else 8, **more)  # type: ignore[arg-type]
    return analogsim.convert(model, "pcm", crossbar=array).eval(), torch.ones(4, 64)


@pytest.mark.parametrize("rows", [None, 16])
def test_what_lies_beyond_a_bound_is_counted_without_errors_of_a_chip(rows: int | None) -> None:
    analog, x = saturating(13.0 if rows is None else 7.0, **({} if rows is None else {"rows": rows}))
    state = torch.get_rng_state()
    for t in (None, "1y"):
        if t is not None:
            analogsim.program(analog)
            analogsim.drift(analog, t)
        # Columns of all rows carry 6, 20, 35, 50 and 64; those of 16 rows 16 in ten of 20 cases, else 6 at most.
        found = find_saturated(analog, x)
        assert found == {"0": pytest.approx(0.8 if rows is None else 0.5), "1": 0.0}
    assert torch.equal(torch.get_rng_state(), state)
    told = saturation_told(analog, found)
    assert f"layers '0' {0.8 if rows is None else 0.5:.0%} lies beyond" in told
    assert "output_bound='calibrated'" in told


def test_bounds_that_data_set_may_cut_off() -> None:
    analog, x = saturating("calibrated", rows=16, input_range=1.0)
    analogsim.calibrate(analog, [x], percentile=10)
    assert find_saturated(analog, x) == {}


def test_nothing_saturates_without_a_bound() -> None:
    analog, x = saturating(None)
    assert find_saturated(analog, x) == {}
    assert saturation_told(analog, {}) == ""
    assert saturation_told(analog, {"0": 0.049}) == ""
