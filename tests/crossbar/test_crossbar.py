"""Layers on crossbars: whatever the mapping and the cuts, an ideal chip answers as the network does."""

import copy
import itertools
import math
import pickle
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import analogsim
from analogsim import Crossbar, DeviceModel, Drift, Effect, Gaussian, Mapping, ReadNoise, StuckAt, Wires


@dataclass(frozen=True)
class Nothing(Effect):
    """An effect without an effect."""


@dataclass(frozen=True)
class Exact(Effect):
    """Programs exactly, and is drawn all the same."""

    def program(self, g, cells, noise):
        return g.clone()


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, groups=4, stride=2, bias=False),
        nn.Conv2d(12, 12, 2, groups=12, padding=2, padding_mode="reflect"),
        nn.Flatten(),
        nn.Linear(588, 7),
    ).double()


def images(count=3):
    return torch.randn(count, 3, 9, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gradients(output, model):
    return torch.autograd.grad(output.square().sum(), list(model.parameters()))


LARGE = Crossbar(output_bound=1e9)  # through the signal path, and nothing happens there


@pytest.mark.parametrize("cells", ["pair", "two-sided", "offset", "signed"])
@pytest.mark.parametrize("scale", ["column", "crossbar", "tensor"])
@pytest.mark.parametrize("periphery", [Crossbar(), LARGE], ids=["ideal", "converted"])
def test_ideal_is_digital(cells, scale, periphery):
    """In training and on a chip, with its gradients, for every mapping, whatever a layer is cut into."""
    model, x = network(), images()
    wanted, slopes = model(x), gradients(model(x), model)
    kinds = [(1, 1, 0)] if cells == "signed" else [(1, 1, 2), (3, 1, 0), (2, 2, 1)]
    for (slices, copies, bias_rows), (rows, cols) in itertools.product(kinds, [(None, None), (7, None), (50, 30)]):
        mapping = Mapping(cells, scale, slices=slices, copies=copies, bias_rows=bias_rows)
        effect = Gaussian(std=0.0) if cells == "signed" else Nothing()
        device = DeviceModel((effect, *(() if cells == "signed" else (Exact(),))), g_min=1.0, mapping=mapping)
        analog = analogsim.convert(model, device, crossbar=periphery.replace(rows=rows, cols=cols))
        trained = analog.train()(x)
        torch.testing.assert_close(trained, wanted, rtol=1e-12, atol=1e-12)
        for ours, theirs in zip(gradients(trained, model), slopes, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
        analogsim.program(analog)
        torch.testing.assert_close(analog.eval()(x), wanted, rtol=1e-12, atol=1e-12)
        plain = analogsim.to_digital(analog, "programmed")
        torch.testing.assert_close(plain(x), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv3d])
@pytest.mark.parametrize("batched", [True, False])
def test_other_convolutions_through_converters(kind, batched):
    torch.manual_seed(0)
    layer = kind(4, 6, 3, dilation=2, groups=2, padding="same", padding_mode="circular").double()
    shape = (4, *(7,) * (layer.weight.ndim - 2))
    x = torch.randn(*((2,) if batched else ()), *shape, dtype=torch.float64)
    analog = analogsim.convert(layer, DeviceModel((Nothing(),)), crossbar=LARGE.replace(rows=8))
    torch.testing.assert_close(analog(x), layer(x))


def test_any_shape_of_linear_input():
    torch.manual_seed(0)
    layer = nn.Linear(10, 4).double()
    analog = analogsim.convert(layer, DeviceModel((Nothing(),)), crossbar=LARGE.replace(rows=3))
    for shape in ((10,), (3, 10), (2, 5, 10), (0, 10)):
        x = torch.randn(*shape, dtype=torch.float64)
        torch.testing.assert_close(analog(x), layer(x))


def test_a_layer_of_ones_own_needs_nothing_but_its_product():
    class Twice(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    @analogsim.register_layer(Twice)
    class AnalogTwice(analogsim.AnalogLayer, Twice):
        def product(self, input, weight, bias):
            return 2 * nn.functional.linear(input, weight, bias)

    torch.manual_seed(0)
    layer = Twice(10, 4, bias=False).double()
    x = torch.randn(5, 10, dtype=torch.float64)
    analog = analogsim.convert(layer, DeviceModel((Nothing(),)), crossbar=LARGE.replace(rows=3))
    torch.testing.assert_close(analog(x), layer(x))


# Converters


def error(crossbar, mapping=None):
    """Root-mean-square error relative to the outputs', of a chip without other errors; training sees the same."""
    model, x = network(), images(8)
    analog = analogsim.convert(model, DeviceModel((Nothing(),), g_min=1.0, mapping=mapping), crossbar=crossbar)
    analogsim.program(analog)
    output, wanted = analog.eval()(x), model(x)
    torch.testing.assert_close(analog.train()(x), output)
    return ((output - wanted).square().mean() / wanted.square().mean()).sqrt().item()


@pytest.mark.parametrize("which", [("dac_bits",), ("adc_bits",), ("dac_bits", "adc_bits")], ids="+".join)
@pytest.mark.parametrize("mapping", [Mapping(), Mapping("offset", slices=2, bias_rows=1)], ids=["pair", "offset"])
def test_error_falls_as_two_to_the_minus_bits(which, mapping):
    """Each two bits more divide the error by four, within 40 %; six of them by 64, within a quarter."""
    bound = 100 if "adc_bits" in which else None
    errors = [
        error(Crossbar(rows=100, output_bound=bound, **dict.fromkeys(which, bits)), mapping) for bits in (8, 10, 12, 14)
    ]
    for one, next_one in itertools.pairwise(errors):
        assert one / next_one == pytest.approx(4, rel=0.4)
    assert errors[0] / errors[-1] == pytest.approx(64, rel=0.25)


def test_bit_serial_inputs_converge_too():
    errors = [error(Crossbar(dac_bits=bits, adc_bits=bits, bit_serial=True, output_bound=24)) for bits in (6, 8, 10)]
    for one, next_one in itertools.pairwise(errors):
        assert one / next_one == pytest.approx(4, rel=1 / 3)


def test_bit_serial_inputs_without_output_converter_are_the_inputs():
    model, x = network(), images()
    outputs = []
    for serial in (False, True):
        crossbar = Crossbar(dac_bits=5, bit_serial=serial)
        outputs.append(analogsim.convert(model, DeviceModel((Nothing(),)), crossbar=crossbar)(x))
    torch.testing.assert_close(*outputs)
    slopes = [gradients(output, model) for output in outputs]
    for ours, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(ours, theirs)


def line(values, crossbar, weight=1.0, **options):
    """What a layer of one weight makes of a column of numbers."""
    layer = nn.Linear(1, 1, bias=False).double()
    layer.weight.data.fill_(weight)
    analog = analogsim.convert(layer, DeviceModel((Nothing(),)), crossbar=crossbar)
    x = torch.tensor(values, dtype=torch.float64).unsqueeze(1).requires_grad_()
    output = analog(x)
    output.sum().backward()
    return output.detach().squeeze(1).tolist(), x.grad.squeeze(1).tolist(), layer.weight.grad.item()


def test_levels_of_the_input_converter():
    said, slopes, _ = line([-3.0, -1.0, -0.6, 0.1, 0.2, 0.9, 2.0], Crossbar(dac_bits=3, input_range=1.0))
    assert said == pytest.approx([-1, -1, -2 / 3, 0, 1 / 3, 1, 1])
    assert slopes == [0, 1, 1, 1, 1, 1, 0], "no gradient where it saturates"


def test_levels_of_an_unsigned_converter():
    said, slopes, _ = line([-1.0, 0.0, 0.4, 0.6, 1.8], Crossbar(dac_bits=2, dac="unsigned", input_range=1.5))
    assert said == pytest.approx([0, 0, 0.5, 0.5, 1.5])
    assert slopes[0] == slopes[-1] == 0


def test_levels_of_the_output_converter():
    crossbar = Crossbar(adc_bits=3, output_bound=1.5, input_range=2.0)
    said, slopes, _ = line([-8.0, -2.4, 0.4, 0.6, 2.0, 4.0], crossbar, weight=10.0)
    # In units of (range x weight) a step is 0.5: 10 in units of the output.
    assert said == pytest.approx([-30, -20, 0, 10, 20, 30])
    assert slopes == [0, 10, 10, 10, 10, 0]


def test_the_dynamic_range_is_that_of_each_vector():
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data.copy_(torch.tensor([[1.0, 0.0]]))
    analog = analogsim.convert(layer, DeviceModel((Nothing(),)), crossbar=Crossbar(dac_bits=2))
    x = torch.tensor([[1.0, 100.0], [1.0, -1.5], [0.0, 0.0], [1e-30, 0.0]])
    assert analog(x).flatten().tolist() == pytest.approx([0, 1.5, 0, 1e-30])
    assert analog(x[:2])[1] == analog(x[1:2])[0], "what else is in the batch plays no part"


def test_output_noise_is_in_units_of_range_times_weight():
    """Variance within 5 standard errors, on a chip and in training with its scale."""
    torch.manual_seed(0)
    layer = nn.Linear(600, 2, bias=False)
    layer.weight.data.copy_(torch.tensor([[0.5], [2.0]]) * torch.rand(2, 600).clamp(max=0.999))
    layer.weight.data[:, 0] = torch.tensor([0.5, 2.0])
    crossbar = Crossbar(rows=200, output_noise=0.04, input_range=3.0)
    analog = analogsim.convert(layer, DeviceModel((Nothing(),)), crossbar=crossbar)
    x = torch.zeros(40_000, 600)
    analogsim.program(analog)
    # Three blocks of rows, each with its own converter and largest weights of about 0.5 and 2.
    full = torch.stack([layer.weight[:, start : start + 200].abs().amax(1) for start in (0, 200, 400)]).square().sum(0)
    for output, factor in ((analog.eval()(x), 1.0), (analog.train()(x), 1.0), (scaled(analog, 0.5)(x), 0.25)):
        variance = output.var(0) / (factor * (0.04 * 3.0) ** 2 * full)
        assert (variance - 1).abs().max() < 5 * math.sqrt(2 / len(x))
    analogsim.drift(analog, 0)
    first, again = analog.eval()(x), analog(x)
    assert not torch.equal(first, again), "each conversion has its own noise"
    analogsim.drift(analog, 0)
    assert torch.equal(analog(x), first), "which begins anew with every drift"


def scaled(analog, scale):
    analogsim.set_noise_scale(analog, scale)
    return analog


@pytest.mark.parametrize("mapping", [Mapping(), Mapping("two-sided", slices=2, slice_bits=2, copies=2)], ids=str)
def test_read_noise_follows_its_law_through_converters(mapping):
    """Against reading each cell anew for each sample, the slow obvious way; 5 standard errors of the variance."""
    torch.manual_seed(0)
    layer = nn.Linear(6, 3, bias=False).double()
    device = DeviceModel((ReadNoise(std=0.1),), g_max=25.0, mapping=mapping)
    analog = analogsim.convert(layer, device, crossbar=LARGE.replace(rows=4))
    analogsim.program(analog)
    x = torch.randn(6, dtype=torch.float64)
    count = 40_000
    fast = analog.eval()(x.expand(count, 6)).var(0)
    chip = analog.analog.chip
    g = chip.written.programmed
    xi = torch.randn(count, *g.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    slow = (device.to_weight(g + 2.5 * xi, chip.written) @ x).var(0)
    assert (fast / slow - 1).abs().max() < 5 * math.sqrt(4 / count)


@pytest.mark.parametrize("slices", [1, 2])
def test_each_converter_of_a_chip_is_its_own(slices):
    """Gain and offset of 800 converters: within 5 standard errors, the same at every time and on every input."""
    torch.manual_seed(0)
    layer = nn.Linear(8, 400 // slices, bias=False).double()
    layer.weight.data[:, ::4] = 1.0  # every block has the same scale
    crossbar = Crossbar(rows=4, gain_mismatch=0.05, offset_mismatch=0.2, input_range=1.0)
    mapping = Mapping("pair", "tensor", slices=slices, slice_bits=1)
    analog = analogsim.convert(layer, DeviceModel((Drift(nu=0.0, nu_std=0.0),), mapping=mapping), crossbar=crossbar)
    analogsim.program(analog, seed=1)
    gain, offset = analog.analog.chip.array_for(layer.weight).converter_errors.values()
    assert gain.shape == offset.shape == (slices, 400 // slices, 2)
    for values, std in ((gain, 0.05), (offset, 0.2)):
        assert float(values.std() / std) == pytest.approx(1, abs=5 / math.sqrt(2 * 800))
        assert float(values.mean() / std) == pytest.approx(0, abs=5 / math.sqrt(800))
    share = torch.tensor(mapping.significance, dtype=torch.float64).view(-1, 1, 1)
    zero, x = torch.zeros(1, 8, dtype=torch.float64), torch.rand(3, 8, dtype=torch.float64)
    torch.testing.assert_close(analog.eval()(zero)[0], (offset * share).sum((0, 2)))
    array = analog.analog.chip.array_for(layer.weight)
    currents = torch.stack([x[:, s:e] @ array.slices[:, :, s:e].mT for s, e in array.layout.rows], -1)
    wanted = ((currents * (1 + gain[:, None]) + offset[:, None]) * share[..., None]).sum((0, 3))
    answer = analog(x)
    torch.testing.assert_close(answer, wanted)
    analogsim.drift(analog, "1d")
    torch.testing.assert_close(analog(x), answer)
    analogsim.program(analog, seed=2)
    assert not torch.allclose(analog(x), answer)
    fresh = analog.train()(zero)
    assert not torch.equal(fresh, analog(zero)), "training draws converters anew"
    assert not scaled(analog, 0.0)(zero).any()


def test_reading_noise_and_a_digital_gain_grow_together():
    """Drift compensation amplifies what comes out of the converter, its noise and steps included."""
    torch.manual_seed(0)
    layer = nn.Linear(50, 5, bias=False)
    crossbar = Crossbar(output_noise=0.1, input_range=1.0)
    analog = analogsim.convert(layer, DeviceModel((Drift(nu=0.1, nu_std=0.0),)), crossbar=crossbar)
    analogsim.program(analog)
    analogsim.drift(analog, "1y")
    gain = (1 + 365 * 86400 / 20) ** 0.1
    x = torch.randn(40_000, 50)
    output = analog.eval()(x)
    error = (output - layer(x)).detach()
    wanted = 0.1 * gain * layer.weight.abs().amax(1)
    assert (error.std(0) / wanted - 1).abs().max() < 5 / math.sqrt(2 * len(x))
    assert (error.mean(0) / wanted).abs().max() < 5 / math.sqrt(len(x))


def test_stuck_cells_and_saturated_weights_get_no_gradient():
    torch.manual_seed(0)
    layer = nn.Linear(40, 20)
    device = DeviceModel((StuckAt(p_off=0.3, p_on=0.0),), mapping=Mapping(percentile=80))
    for crossbar in (Crossbar(), Crossbar(rows=30, dac_bits=8, adc_bits=8)):
        analog = analogsim.convert(layer, device, crossbar=crossbar)
        layer.zero_grad()
        analog(torch.ones(1, 40)).sum().backward()
        none = (layer.weight.grad == 0).float().mean()
        assert 0.3 < none < 0.6
        largest = device.largest(layer.weight.detach(), analog.analog.layout)
        assert not layer.weight.grad[layer.weight.abs() > largest].any()


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("mapping", [Mapping(), Mapping("offset", slices=2)], ids=["pair", "offset"])
def test_training_sees_the_same_noise_through_ideal_converters(scale, mapping):
    """The gain that undoes the drift comes behind the converters; what comes out is the same."""
    torch.manual_seed(0)
    layer = nn.Linear(30, 20)
    device = analogsim.as_device_model("pcm").replace(mapping=mapping)
    x, seen = torch.randn(8, 30), []
    for periphery in (Crossbar(), LARGE):
        twin = scaled(analogsim.convert(layer, device, crossbar=periphery.replace(rows=16)), scale)
        torch.manual_seed(1)
        layer.zero_grad()
        output = twin(x)
        output.square().sum().backward()
        seen.append((output, layer.weight.grad.clone()))
    for ideal, converted in zip(*seen, strict=True):
        torch.testing.assert_close(converted, ideal, rtol=1e-4, atol=1e-4)


def test_training_through_converters_learns():
    torch.manual_seed(0)
    x = torch.randn(256, 20)
    y = (x[:, :3].sum(1) > 0).long()
    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 2))
    crossbar = Crossbar(rows=8, dac_bits=6, adc_bits=6, output_noise=0.04, input_range="learned")
    analog = analogsim.convert(model, "pcm", crossbar=crossbar)
    analogsim.calibrate(analog, [x])
    ranges = analogsim.range_parameters(analog)
    start = [value.item() for value in ranges]
    optimizer = torch.optim.Adam([*model.parameters(), *ranges], lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(analog(x), y).backward()
        optimizer.step()
    report = analogsim.evaluate(analog, [(x, y)], chips=3, times=("1s", "1d"))
    assert report.clean > 0.95
    assert report.mean.min() > 0.9
    assert all(value.item() != was for value, was in zip(ranges, start, strict=True))


@pytest.mark.parametrize(
    "crossbar",
    [
        Crossbar(rows=16, dac_bits=8, adc_bits=8, output_noise=0.04),
        Crossbar(rows=16, dac_bits=4, adc_bits=6, bit_serial=True, input_range=2.0),
    ],
    ids=["plain", "bit-serial"],
)
def test_training_compiles_into_one_graph(crossbar):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5))
    analog = analogsim.convert(model, "pcm", crossbar=crossbar)
    x = torch.randn(2, 1, 8, 8)
    explained = torch._dynamo.explain(analog)(x)
    assert explained.graph_break_count == 0, explained.break_reasons


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes(dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype)
    x = torch.randn(4, 20, dtype=dtype)
    x[0] = 0
    analog = analogsim.convert(model, "pcm", crossbar=Crossbar(rows=8, dac_bits=8, adc_bits=8, output_noise=0.01))
    output = analog(x)
    assert output.dtype == dtype
    assert output.isfinite().all()
    output.sum().backward()
    analogsim.program(analog)
    assert analog.eval()(x).dtype == dtype


def test_autocast():
    model = nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 3))
    analog = analogsim.convert(model, "pcm", crossbar=Crossbar(dac_bits=8, adc_bits=8))
    with torch.autocast("cpu", torch.bfloat16):
        assert analog(torch.randn(4, 20)).dtype == model(torch.randn(4, 20)).dtype == torch.bfloat16


# Chips


def test_a_chip_on_crossbars_is_kept(tmp_path):
    torch.manual_seed(0)
    model = network()
    crossbar = Crossbar(rows=30, cols=8, dac_bits=8, adc_bits=8, input_range="calibrated", output_bound="calibrated")
    device = analogsim.as_device_model("pcm").replace(mapping=Mapping("offset", slices=2, bias_rows=1))
    analog = analogsim.convert(model, device, crossbar=crossbar)
    analogsim.program(analog, seed=3)
    analogsim.calibrate(analog, [images()])
    analogsim.drift(analog, "1d")
    wanted = analog.eval()(images())
    for kept in (copy.deepcopy(analog), pickle.loads(pickle.dumps(analog))):
        assert torch.equal(kept(images()), wanted)
    analogsim.save_chip(analog, tmp_path / "chip")
    other = analogsim.convert(model, device, crossbar=crossbar)
    analogsim.load_chip(other, tmp_path / "chip")
    assert torch.equal(other.eval()(images()), wanted)
    wrong = analogsim.convert(model, device, crossbar=crossbar.replace(adc_bits=7))
    with pytest.raises(ValueError, match="with the crossbar the chip was made of"):
        analogsim.load_chip(wrong, tmp_path / "chip")
    analogsim.program(analog, seed=3)
    analogsim.drift(analog, "1d")
    assert torch.equal(analog(images()), wanted), "the same seed is the same chip"


def test_a_bias_on_the_crossbar_is_part_of_the_chip():
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    device = DeviceModel((Gaussian(std=0.1),), mapping=Mapping("pair", bias_rows=2))
    analog = analogsim.convert(layer, device)
    analogsim.program(analog)
    zero = analog.eval()(torch.zeros(1, 4))
    assert not torch.allclose(zero[0], layer.bias), "it has errors like any weight"
    plain = analogsim.to_digital(analog, "programmed")
    torch.testing.assert_close(plain(torch.ones(1, 4)), analog(torch.ones(1, 4)))
    with torch.no_grad():
        layer.bias.add_(1)
    with pytest.raises(analogsim.StaleChipError):
        analog(torch.zeros(1, 4))
    analog.train()(torch.zeros(1, 4)).sum().backward()
    torch.testing.assert_close(layer.bias.grad, torch.ones(3))


# What convert says


def test_crossbars_by_pattern():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    small = Crossbar(rows=2)
    analog = analogsim.convert(model, {"2": None, "*": "pcm"}, crossbar={"0": small})
    assert analog[0].analog.crossbar == small
    assert analog[1].analog.crossbar == Crossbar()
    for pattern in ("2", "nothing"):
        with pytest.raises(ValueError, match=f"crossbar pattern {pattern!r} has no effect"):
            analogsim.convert(model, {"2": None, "*": "pcm"}, crossbar={pattern: small})
    for wrong in ({"0": 3}, 512):
        with pytest.raises(TypeError, match="crossbar: give a name"):
            analogsim.convert(model, "pcm", crossbar=wrong)


def test_crossbars_by_name():
    layer = nn.Linear(4, 4)
    standard = analogsim.convert(layer, "pcm", crossbar="standard").analog.crossbar
    assert (standard.dac_bits, standard.adc_bits, standard.rows, standard.output_noise) == (8, 8, 512, 0.04)
    assert str(standard) == "crossbars of 512 rows x any number of columns, 8-bit DAC, 8-bit ADC, output noise 0.04"
    other = analogsim.convert(layer, "pcm", crossbar={"*": "ideal(adc_bits=6, wire_resistance=2.0)"}).analog.crossbar
    assert other == Crossbar(adc_bits=6, wire_resistance=2.0)
    assert str(other) == "6-bit ADC, wires of 2 and 2 ohm per cell"
    assert str(Crossbar()) == "ideal"
    for text, message in (
        ("standart", "unknown name 'standart'; known: ideal, standard"),
        ("standard(bits=3)", "there is no 'bits'; it has rows, cols"),
        ("standard(adc_bits=1)", "adc_bits must be an integer from 2"),
        ("standard()x", "cannot read"),
    ):
        with pytest.raises(ValueError, match=message):
            analogsim.convert(layer, "pcm", crossbar=text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "crossbar: rows must be an integer >= 1 or None, got 0"),
        ({"cols": 2.5}, "crossbar: cols must be an integer >= 1 or None, got 2.5"),
        ({"dac_bits": 1}, "crossbar: dac_bits must be an integer from 2 to 24 or None, got 1"),
        ({"adc_bits": True}, "crossbar: adc_bits must be an integer from 2 to 24 or None, got True"),
        ({"dac": "signed"}, "crossbar: dac must be"),
        (
            {"input_range": "static"},
            "crossbar: input_range must be a number > 0 or one of dynamic, calibrated, learned",
        ),
        ({"input_range": 0}, "crossbar: input_range must be a number > 0"),
        ({"output_bound": -1}, 'crossbar: output_bound must be a number > 0 or "calibrated" or None, got -1'),
        ({"gain_mismatch": -0.1}, "crossbar: gain_mismatch must be a finite number >= 0, got -0.1"),
        ({"output_noise": math.nan}, "crossbar: output_noise must be a finite number >= 0, got nan"),
        ({"bit_serial": True}, "crossbar: bit_serial needs dac_bits"),
        ({"wire_resistance": -1.0}, "-1.0"),
    ],
)
def test_illegal_crossbars(options, message):
    with pytest.raises(ValueError, match=message):
        Crossbar(**options)


def test_a_crossbar_is_a_value():
    crossbar = Crossbar(rows=512, dac_bits=8, adc_bits=8, wire_resistance=1)
    assert crossbar.wires == Wires(row=1, col=1)
    assert crossbar.output_bound == 12
    assert crossbar == eval(repr(crossbar)) == pickle.loads(pickle.dumps(crossbar))
    assert hash(crossbar) == hash(crossbar.replace())
    assert Crossbar().wires is None
    assert not Crossbar(rows=3, wire_resistance=1).converts


def test_crossbars_too_small_or_of_the_wrong_kind_are_refused():
    layer = nn.Linear(4, 4)
    with pytest.raises(ValueError, match="cols=1 are too few for one weight of 2 cells"):
        analogsim.convert(layer, "pcm", crossbar=Crossbar(cols=1))
    offset = DeviceModel((Nothing(),), mapping=Mapping("offset"))
    with pytest.raises(ValueError, match="cols=1 are too few for one weight of 1 cells and a reference column"):
        analogsim.convert(layer, offset, crossbar=Crossbar(cols=1))
    with pytest.raises(ValueError, match="wire_resistance acts on conductances, and 'gaussian' has none"):
        analogsim.convert(layer, "gaussian", crossbar=Crossbar(wire_resistance=1.0))
    current = DeviceModel((Nothing(),), unit="nA")
    with pytest.raises(ValueError, match="needs conductances in µS, 'Nothing' is in nA"):
        analogsim.convert(layer, current, crossbar=Crossbar(wire_resistance=1.0))


def test_a_device_is_refused_where_its_formulas_end():
    @dataclass(frozen=True)
    class Short(Effect):
        times = (10.0, 3600.0)

        def age(self, g, t, cells, drawn):
            return g * 0.9 if t else g

    layer, data = nn.Linear(4, 2), [(torch.randn(8, 4), torch.zeros(8, dtype=torch.long))]
    device = DeviceModel((Short(), Drift()))
    assert device.times == (10.0, 3600.0)
    analog = analogsim.convert(layer, device)
    assert analog.analog.train_times == (10.0, 3600.0)
    report = analogsim.evaluate(analog, data, chips=1)
    assert report.labels == ("1h",)
    analogsim.program(analog)
    analogsim.drift(analog, 0)
    for t in (1, "2h"):
        with pytest.raises(ValueError, match="Short is valid from 10s to 1h after programming"):
            analogsim.drift(analog, t)
    with pytest.raises(ValueError, match="got 1d; choose times within"):
        analogsim.evaluate(analog, data, times=("1h", "1d"))
    with pytest.raises(ValueError, match="Short is valid"):
        analogsim.convert(layer, device, train_times=("1s", "1h"))


# Wires


def test_wires_act_on_the_physical_array():
    """The cells of a weight side by side on its word line, blocks each on a crossbar of their own."""
    torch.manual_seed(0)
    layer = nn.Linear(6, 4, bias=False).double()
    wires = Wires(row=20.0, col=5.0)
    for mapping in (Mapping(), Mapping("offset")):
        device = DeviceModel((Nothing(),), g_max=100.0, mapping=mapping)
        crossbar = Crossbar(rows=3, cols=4 if mapping.cells == "pair" else 3, wire_resistance=wires)
        analog = analogsim.convert(layer, device, crossbar=crossbar)
        assert analog.analog.layout.crossbars == 4
        analogsim.program(analog)
        analog.eval()
        written = analog.analog.chip.written
        weight = torch.zeros(4, 6, dtype=torch.float64)
        for place, (left, right) in enumerate(analog.analog.layout.cols):
            for top, bottom in analog.analog.layout.rows:
                g = written.programmed[:, :, top:bottom]
                span = torch.as_tensor(written.largest[left:right]) / 100
                if mapping.cells == "pair":
                    lines = torch.stack([g[cell, column] for column in range(left, right) for cell in (0, 1)], 1)
                    seen = analogsim.crossbar.effective_conductance(lines, wires)
                    weight[left:right, top:bottom] = (seen[:, 0::2] - seen[:, 1::2]).T * span[:, top : top + 1]
                else:
                    lines = torch.stack([*g[0, left:right], g[0, 4 + place]], 1)
                    seen = analogsim.crossbar.effective_conductance(lines, wires)
                    weight[left:right, top:bottom] = 2 * (seen[:, :-1] - seen[:, -1:]).T * span[:, top : top + 1]
        x = torch.randn(5, 6, dtype=torch.float64)
        torch.testing.assert_close(analog(x), x @ weight.T)
        assert (weight - layer.weight).abs().max() > 1e-3


def test_no_resistance_no_difference():
    layer = nn.Linear(6, 4)
    analog = analogsim.convert(layer, "pcm", crossbar=Crossbar(wire_resistance=1e-9))
    ideal = analogsim.convert(layer, "pcm")
    for twin in (analog, ideal):
        analogsim.program(twin)
        analogsim.drift(twin, "1d")
    torch.testing.assert_close(analog.eval()(torch.ones(1, 6)), ideal.eval()(torch.ones(1, 6)))


def test_training_behind_wires_gives_the_gradient_to_the_weights():
    torch.manual_seed(0)
    layer = nn.Linear(30, 20, bias=False)
    analog = analogsim.convert(layer, "pcm", crossbar=Crossbar(rows=16, wire_resistance=5.0))
    x = torch.randn(7, 30)
    analog(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(20, 30))
