"""The signal path of a product: levels, noise and gradients of converters, on chips and in training."""

import copy
import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import analogsim
from analogsim import Crossbar, DeviceModel, Drift, Effect, Mapping, ReadNoise, StuckAt
from tests.hardware import LARGE


@dataclass(frozen=True)
class Nothing(Effect):
    """An effect without an effect."""


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


def error(crossbar, mapping=None, count=8):
    """Root-mean-square error relative to the outputs', of a chip without other errors; training sees the same."""
    model, x = network(), images(count)
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
        error(Crossbar(rows=100, output_bound=bound, **dict.fromkeys(which, bits)), mapping, 32)
        for bits in (8, 10, 12, 14)
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
    start = [value.detach().clone() for value in ranges]
    assert [len(value) for value in ranges] == [3, 2]
    optimizer = torch.optim.Adam([*model.parameters(), *ranges], lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(analog(x), y).backward()
        optimizer.step()
    report = analogsim.evaluate(analog, [(x, y)], chips=3, times=("1s", "1d"))
    assert report.clean > 0.95
    assert report.mean.min() > 0.9
    assert all(bool((value != was).all()) for value, was in zip(ranges, start, strict=True))


@pytest.mark.parametrize(
    "crossbar",
    [
        Crossbar(rows=16, dac_bits=8, adc_bits=8, output_noise=0.04),
        pytest.param(
            Crossbar(rows=16, dac_bits=4, adc_bits=6, bit_serial=True, input_range=2.0), marks=pytest.mark.slow
        ),
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


def by_hand(layer, x, blocks, ranges, levels):
    """The sum over blocks of what each makes of its own inputs, rounded within a range of its own."""
    total = 0.0
    for (start, end), full in zip(blocks, ranges, strict=True):
        rows = torch.zeros_like(layer.weight).flatten(1)
        rows[:, start:end] = layer.weight.flatten(1)[:, start:end]
        driven = (x / full * levels).round().clamp(-levels, levels) / levels * full
        if x.ndim == 2:
            total = total + driven @ rows.T
        else:
            total = total + nn.functional.conv1d(driven, rows.view_as(layer.weight), groups=layer.groups)
    return total


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("layer", [nn.Linear(12, 5), nn.Conv1d(4, 6, 3), nn.Conv1d(8, 6, 3, groups=2)], ids=str)
def test_blocks_with_ranges_of_their_own_are_the_loop_by_hand(layer, mode, recompute):
    """Also where a cut goes through the kernel of a channel, whose inputs two blocks drive."""
    torch.manual_seed(0)
    layer = copy.deepcopy(layer).double()
    layer.bias = None
    x = torch.randn(7, 12 if isinstance(layer, nn.Linear) else layer.in_channels, dtype=torch.float64)
    if not isinstance(layer, nn.Linear):
        x = torch.randn(7, layer.in_channels, 9, dtype=torch.float64)
    device = DeviceModel((ReadNoise(std=0.0),), mapping=analogsim.Mapping())
    # Within the kernel: of two channels and three positions one block has no more than two rows.
    crossbar = Crossbar(rows=2, dac_bits=5, input_range="learned")
    analog = analogsim.convert(layer, device, crossbar=crossbar)
    analogsim.set_recompute(analog, recompute)
    blocks = analog.analog.layout.rows
    ranges = torch.rand(len(blocks), dtype=torch.float64) + 0.5
    analogsim.set_ranges(analog, {"": {"input_range": ranges}})
    (learned,) = analogsim.range_parameters(analog)
    analogsim.program(analog)
    analog.train(mode)
    wanted = by_hand(layer, x, blocks, learned.detach().double(), 15)
    torch.testing.assert_close(analog(x), wanted, rtol=1e-9, atol=1e-9)
    # A dynamic one is that of the vector, or the sample, on the channels of the block.
    analog = analogsim.convert(layer, device, crossbar=crossbar.replace(input_range="dynamic"))
    analogsim.program(analog)
    size = layer.weight[0, 0].numel() if x.ndim == 3 else 1
    own = []
    for start, end in blocks:
        first, last = start // size, -(-end // size)
        groups = getattr(layer, "groups", 1)
        part = x.unflatten(1, (groups, -1))[:, :, first:last].flatten(1)
        own.append(part.abs().amax(1).view(-1, *(1,) * (x.ndim - 1)))
    torch.testing.assert_close(analog.train(mode)(x), by_hand(layer, x, blocks, own, 15), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"bit_serial": True}, {"adc_bits": 7, "output_noise": 0.0}], ids=str)
def test_each_block_learns_its_own_range(options):
    """Two layers side by side with one block each have the same gradients as one layer with two blocks."""
    torch.manual_seed(0)
    layer = nn.Linear(12, 5, bias=False).double()
    halves = [nn.Linear(6, 5, bias=False).double() for _ in range(2)]
    for half, weight in zip(halves, layer.weight.detach().split(6, 1), strict=True):
        half.weight.data = weight.clone()
    device = DeviceModel((ReadNoise(std=0.0),), mapping=analogsim.Mapping(scale="column"))
    crossbar = Crossbar(rows=6, dac_bits=4, input_range="learned", **options)
    x = torch.randn(9, 12, dtype=torch.float64, requires_grad=True)
    whole, *parts = (analogsim.convert(one, device, crossbar=crossbar) for one in (layer, *halves))
    analogsim.set_ranges(whole, {"": {"input_range": torch.tensor([1.2, 0.7])}})
    for part, value in zip(parts, (1.2, 0.7), strict=True):
        analogsim.set_ranges(part, {"": {"input_range": value}})
    whole(x).square().sum().backward()
    of_input, x.grad = x.grad, None
    sum(part(inputs) for part, inputs in zip(parts, x.split(6, 1), strict=True)).square().sum().backward()
    torch.testing.assert_close(of_input, x.grad)
    torch.testing.assert_close(layer.weight.grad, torch.cat([half.weight.grad for half in halves], 1))
    (learned,) = analogsim.range_parameters(whole)
    own = torch.stack([analogsim.range_parameters(part)[0].grad for part in parts])
    torch.testing.assert_close(learned.grad, own)


def test_one_sample_does_not_change_the_answer_to_another():
    """The dynamic range is each sample's own, of a vector and of a convolution."""
    torch.manual_seed(0)
    for layer, x in ((nn.Linear(12, 5), torch.randn(4, 12)), (nn.Conv2d(3, 5, 3), torch.randn(4, 3, 6, 6))):
        analog = analogsim.convert(layer, "gaussian(std=0)", crossbar=Crossbar(rows=7, dac_bits=6, adc_bits=6))
        louder = x.clone()
        louder[0] *= 100
        torch.testing.assert_close(analog(louder)[1:], analog(x)[1:])
