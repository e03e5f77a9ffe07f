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
from analogsim import Crossbar, DeviceModel, Drift, Effect, Gaussian, Mapping, Wires
from tests.hardware import LARGE, Exact


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
        ("standart", "unknown name 'standart'; known: ideal, standard; did you mean 'standard'"),
        ("standard(bits=3)", "there is no 'bits'; it has rows, cols"),
        ("standard(adc_bit=6)", "there is no 'adc_bit'; it has rows, .*; did you mean 'adc_bits'"),
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


def test_a_field_that_is_new_is_told_and_switched_off_too() -> None:
    @dataclass(frozen=True)
    class Newer(Crossbar):
        dead_zone: float = 0.0

    assert Newer(dead_zone=0.25).converts
    assert not Newer().converts
    assert str(Newer(adc_bits=8, dead_zone=0.25)) == "8-bit ADC, dead zone 0.25"
    assert str(Newer()) == str(Crossbar()) == "ideal"
    assert Crossbar(rows=4, dac="unsigned", input_range="calibrated", output_bound=3.0).further() == {}
    analog = analogsim.convert(nn.Linear(4, 3), "gaussian", crossbar=Newer(dead_zone=0.25))
    data = [(torch.randn(8, 4), torch.arange(8) % 3)]
    assert "dead zone" in analogsim.ablate(analog, data, chips=1, times=[0]).reports
    with pytest.raises(ValueError, match=r"has dead_zone, of which nothing is known here.*leave out together"):
        analogsim.evaluate(analog, data, chips=2, times=[0], together=2)


def test_whose_the_ranges_are_is_told_and_read():
    crossbar = analogsim.as_crossbar("standard(ranges_per='layer')")
    assert crossbar.ranges_per == "layer"
    assert "one range per layer" in str(crossbar)
    assert "range per" not in str(analogsim.as_crossbar("standard"))
    assert not Crossbar(ranges_per="layer").converts
    assert str(Crossbar(ranges_per="layer")) == "ideal"
    with pytest.raises(ValueError, match='ranges_per must be "block" or "layer", got \'tile\''):
        Crossbar(ranges_per="tile")
