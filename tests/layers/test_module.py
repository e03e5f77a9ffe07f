"""Modules with several matrices: linear ones, convolutions, transposed convolutions."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import conv1d, conv2d, conv_transpose2d

import analogsim
from analogsim import Crossbar, DeviceModel, Gaussian, Mapping, ReadNoise
from analogsim.chip.lifecycle import without_errors
from analogsim.inspection.carrying import audit
from analogsim.layers import AnalogLayer, AnalogModule, Slot, matrices_of, register_layer, register_routed
from analogsim.layers.module import drawn_in_eval, exactly
from analogsim.layers.registry import analog_types
from analogsim.layers.state import AnalogState
from analogsim.testing import LayerContract
from tests.hardware import IDEAL, PERIPHERIES

NOISY = "drift()+read-noise(std=0.1)"


def test_a_draw_of_what_is_no_matrix_names_those_there_are() -> None:
    analog = analogsim.convert(nn.MultiheadAttention(4, 2), "pcm")
    with pytest.raises(
        KeyError, match="draw_of: AnalogMultiheadAttention has no matrix 'z_proj'; its slots are q_proj"
    ):
        analog.draw_of("z_proj")


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


class Hourglass(nn.Module):
    """Down by a convolution, through one with groups, up again by a transposed one; a linear map of the channels."""

    down_options = {"stride": 2, "padding": (1, 0)}  # noqa: RUF012
    up_options = {"stride": 2, "groups": 2, "output_padding": (1, 0)}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.down, self.down_bias = nn.Parameter(torch.randn(4, 2, 3, 2)), nn.Parameter(torch.randn(4))
        self.within = nn.Parameter(torch.randn(4, 2, 2, 2))
        self.up, self.up_bias = nn.Parameter(torch.randn(4, 2, 3, 2)), nn.Parameter(torch.randn(4))
        self.mixed = nn.Parameter(torch.randn(3, 4))

    def forward(self, input: Tensor) -> Tensor:
        hidden = conv2d(input, self.down, self.down_bias, **self.down_options).tanh()
        hidden = conv2d(hidden, self.within, None, groups=2, dilation=2, padding=1).tanh()
        wide = conv_transpose2d(hidden, self.up, self.up_bias, **self.up_options).tanh()
        return functional.linear(wide.movedim(-3, -1), self.mixed)


@register_layer(Hourglass)
class AnalogHourglass(AnalogModule, Hourglass):
    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        return {
            "down": Slot("down", "down_bias", product=partial(conv2d, **cls.down_options)),
            "within": Slot("within", None, groups=2, product=partial(conv2d, groups=2, dilation=2, padding=1)),
            "up": Slot("up", "up_bias", transposed=True, groups=2, product=partial(conv_transpose2d, **cls.up_options)),
            "mixed": Slot("mixed", None),
        }

    def forward(self, input: Tensor) -> Tensor:
        hidden = self.draw_of("down")(input).tanh()
        hidden = self.draw_of("within")(hidden).tanh()
        wide = self.draw_of("up")(hidden).tanh()
        return self.draw_of("mixed")(wide.movedim(-3, -1))


class TestHourglass(LayerContract):
    """Every mapping, cut and converter, in training, on chips, in copies and files, compiled and under autocast."""

    def layer(self) -> nn.Module:
        return Hourglass()

    def inputs(self) -> tuple[Any, ...]:
        return (images(2, 2, 7, 6),)


class TestWithoutABatch(TestHourglass):
    def inputs(self) -> tuple[Any, ...]:
        return (images(2, 7, 6),)


class Waves(nn.Module):
    """Two convolutions of one Parameter, the second with the last rows."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(6, 2, 3))

    def forward(self, input: Tensor) -> Tensor:
        return conv1d(input, self.kernel[:2]) + conv1d(input, self.kernel[2:], stride=1).unflatten(-2, (2, 2)).sum(-2)


@register_layer(Waves)
class AnalogWaves(AnalogModule, Waves):
    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        return {
            "first": Slot("kernel", None, rows=(0, 2), product=conv1d),
            "second": Slot("kernel", None, rows=(2, 6), product=conv1d),
        }

    def forward(self, input: Tensor) -> Tensor:
        return self.draw_of("first")(input) + self.draw_of("second")(input).unflatten(-2, (2, 2)).sum(-2)


class TestWaves(LayerContract):
    def layer(self) -> nn.Module:
        return Waves()

    def inputs(self) -> tuple[Any, ...]:
        return (images(3, 2, 5),)


CONVERTED = Crossbar(rows=5, dac_bits=6, adc_bits=6, input_range="dynamic", output_bound=2.0, gain_mismatch=0.05)


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("crossbar", [CONVERTED, CONVERTED.replace(bit_serial=True), Crossbar()], ids=str)
def test_a_convolution_of_several_is_one_of_its_own(crossbar: Crossbar, mode: bool) -> None:
    """With converters, read noise and bias rows: the same numbers as torch's layers with the same names."""
    torch.manual_seed(0)
    one = Hourglass()
    layers = nn.ModuleDict(
        {
            "down": nn.Conv2d(2, 4, (3, 2), 2, (1, 0)),
            "within": nn.Conv2d(4, 4, 2, groups=2, dilation=2, padding=1, bias=False),
            "up": nn.ConvTranspose2d(4, 4, (3, 2), 2, groups=2, output_padding=(1, 0)),
            "mixed": nn.Linear(4, 3, bias=False),
        }
    )
    for name, layer in layers.items():
        layer.weight = getattr(one, name)
        layer.bias = getattr(one, f"{name}_bias", None)
    device = DeviceModel((Gaussian(0.02), ReadNoise(0.02)), mapping=Mapping("pair", "column", slices=2, bias_rows=1))
    joint, apart = (analogsim.convert(model, device, crossbar=crossbar) for model in (one, layers))
    x = images(2, 2, 7, 6)
    for analog in (joint, apart):
        analogsim.program(analog, seed=1)
        analog.train(mode)
    torch.manual_seed(2)
    answer = joint(x)
    torch.manual_seed(2)
    hidden = apart["within"](apart["down"](x).tanh()).tanh()
    wanted = apart["mixed"](apart["up"](hidden).tanh().movedim(-3, -1))
    assert torch.equal(answer, wanted)


def test_one_convolution_of_several_may_stay_digital() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(Hourglass()), images(2, 2, 7, 6)
    for digital in ("down", "within", "up", "mixed"):
        analog = analogsim.convert(model, {f"0.{digital}": None, "*": Gaussian(0.0)})
        assert [matrix.analog.name for matrix in matrices_of(analog)] == [
            f"0.{name}" for name in ("down", "within", "up", "mixed") if name != digital
        ]
        torch.testing.assert_close(analog(x), model(x))


class Unsaid(Hourglass):
    """Of whose kernels nobody says what is made of them."""


@register_layer(Unsaid)
class AnalogUnsaid(AnalogModule, Unsaid):
    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        return {"down": Slot("down", None)}

    def forward(self, input: Tensor) -> Tensor:
        return self.draw_of("down")(input)


@pytest.mark.parametrize("device", ["pcm", {"*": None}], ids=["analog", "digital"])
def test_a_kernel_without_a_product_is_refused(device: Any) -> None:
    analog = AnalogUnsaid()
    if device == "pcm":
        with pytest.warns(analogsim.ConversionWarning, match="within"):
            analog = analogsim.convert(Unsaid(), device)
    else:
        analog.__dict__["matrices"] = {}
    message = r"'down' is a matrix \(4, 2, 3, 2\).*Slot\('down', product=torch.nn.functional.conv2d\)"
    with pytest.raises(TypeError, match=message):
        analog(images(2, 2, 7, 6))


class Followed(Hourglass):
    """The same forward, followed where its products are taken."""


class TestFollowed(LayerContract):
    @pytest.fixture(autouse=True)
    def _registered(self) -> Any:
        before = dict(analog_types)
        register_routed(
            Followed,
            {
                "down": "down_bias",
                "within": Slot("within", None, groups=2),
                "up": Slot("up", "up_bias", transposed=True, groups=2),
                "mixed": None,
            },
        )
        yield
        analog_types.clear()
        analog_types.update(before)

    def layer(self) -> nn.Module:
        return Followed()

    def inputs(self) -> tuple[Any, ...]:
        return (images(2, 2, 7, 6),)


def test_slots_are_values() -> None:
    """Two that lie in the same place are one, whatever functions their products are made by."""
    first, second = (AnalogHourglass.slots(Hourglass()) for _ in range(2))
    assert first == second
    assert copy.deepcopy(first) == first


# Linear ones, against their forwards in torch.


def vectors() -> Tensor:
    return torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gradients(output: Tensor, model: nn.Module) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(output.square().sum(), list(model.parameters()), allow_unused=True)


class Turned(nn.Module):
    """A product with a weight ``(in, out)``."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(5, 4))

    def forward(self, input: Tensor) -> Tensor:
        return input @ self.kernel


@register_layer(Turned)
class AnalogTurned(AnalogLayer, Turned):
    bias = None

    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        return {"": Slot("kernel", None, transposed=True)}

    def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.linear(input, weight, bias)


class Gated(nn.Module):
    """One product opens and closes another."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.gate = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(4, 5))

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.value) * functional.linear(input, self.gate).sigmoid()


@register_layer(Gated)
class AnalogGated(AnalogModule, Gated):
    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        return {name: Slot(name, None) for name in ("value", "gate")}

    def forward(self, input: Tensor) -> Tensor:
        return self.draw_of("value")(input) * self.draw_of("gate")(input).sigmoid()


class Bare(Gated):
    """The same, with a forward that nobody rewrote."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.value) * functional.linear(input, weight=self.gate).sigmoid()


register_routed(Bare, {"value": None, "gate": None})


@pytest.mark.parametrize("kind", [Turned, Gated, Bare])
@PERIPHERIES
def test_registered_types(kind: type[nn.Module], periphery: Crossbar, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(kind()).double(), vectors()
    exact = analogsim.convert(model, IDEAL, crossbar=periphery)
    torch.testing.assert_close(exact(x), model(x))
    torch.testing.assert_close(gradients(exact(x), model), gradients(model(x), model))
    analog = analogsim.convert(model, "pcm", crossbar=periphery)
    analogsim.program(analog, seed=1)
    analogsim.drift(analog, "1d")
    answer = analog.eval()(x)
    report = audit(analog, x)
    assert report.passed
    assert [row.name for row in report.rows] == (["0"] if kind is Turned else ["0.value", "0.gate"])
    torch.testing.assert_close(analogsim.to_digital(analog, "programmed")(x), answer)
    for again in (copy.deepcopy(analog), pickle.loads(pickle.dumps(analog))):
        torch.testing.assert_close(again(x), answer)
    analogsim.save_chip(analog, tmp_path / "chip.safetensors")
    analogsim.erase(analog)
    analogsim.load_chip(analog, tmp_path / "chip.safetensors")
    torch.testing.assert_close(analog(x), answer)
    analog.load_state_dict(nn.Sequential(kind()).state_dict(), strict=True)
    assert sum(row.share for row in analogsim.summary(analog).rows) == pytest.approx(1)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(exact, fullgraph=True, backend="aot_eager")(x), model(x))


@pytest.mark.parametrize("kind", [Gated, Bare])
def test_one_matrix_of_several_may_stay_digital(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(kind()).double(), vectors()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        analog = analogsim.convert(model, {"0.gate": None, "*": IDEAL})
    analogsim.program(analog)
    torch.testing.assert_close(analog.eval()(x), model(x))
    assert [row.name for row in audit(analog, x).rows] == ["0.value"]
    rows = analogsim.summary(analog).rows
    assert [(row.name, row.analog, row.parameters) for row in rows] == [("0.value", True, 20), ("0", False, 20)]


class Past(Gated):
    """Ends in the forward of its base for some inputs only."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) if input.ndim == 2 else Gated.forward(self, input)


def test_a_subclass_that_goes_past_the_analog_forward_is_an_error_in_that_forward() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(Past()).double(), vectors()
    analog = analogsim.convert(model, IDEAL)
    torch.testing.assert_close(analog(x), model(x))
    with pytest.raises(
        analogsim.NotRoutedError, match=r"'0\.value': the forward of Past did not come to that of its base"
    ):
        analog(x.unsqueeze(0))
    torch.testing.assert_close(analog(x), model(x))
    digital = analogsim.convert(nn.Sequential(model[0], nn.Linear(5, 2).double()), {"0": None, "*": IDEAL})
    digital[0](x.unsqueeze(0))


class Told(nn.Module):
    """For the two below."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))


@pytest.mark.parametrize("wrong", [[Slot()], {"": "weight"}, {0: Slot()}, "weight", None, {"up": Slot(), "": None}])
def test_slots_that_are_no_dict_of_slots_are_told(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class AnalogTold(AnalogModule, Told):
        @classmethod
        def slots(cls, module: nn.Module) -> dict[str, Slot]:
            return cast(dict[str, Slot], wrong)

    monkeypatch.setattr(AnalogTold, "stands_for", Told, raising=False)
    monkeypatch.setitem(analog_types, Told, AnalogTold)
    with pytest.raises(TypeError, match=r"AnalogTold.slots must return a dict of Slot by label.*got"):
        analogsim.convert(Told(), "pcm")


def test_a_layer_with_one_matrix_gives_it_no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    class AnalogTold(AnalogLayer, Told):
        @classmethod
        def slots(cls, module: nn.Module) -> dict[str, Slot]:
            return {"weight": Slot(bias=None)}

    monkeypatch.setattr(AnalogTold, "stands_for", Told, raising=False)
    monkeypatch.setitem(analog_types, Told, AnalogTold)
    with pytest.raises(ValueError, match="whose one matrix has the label ''"):
        analogsim.convert(Told(), "pcm")


def settings(analog: nn.Module) -> list[tuple[Any, ...]]:
    return [(s.answering, s.crossbar, s.adapter, s.chip) for s in (matrix.analog for matrix in matrices_of(analog))]


@pytest.mark.parametrize("programmed", [True, False])
@pytest.mark.parametrize("bias_rows", [0, 2])
def test_a_twin_answers_exactly_as_its_digital_network(bias_rows: int, programmed: bool) -> None:
    """Whatever the device, the converters and the chip, which are there again afterwards."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(2), nn.LSTM(9, 5, batch_first=True)).double()
    device = analogsim.DeviceModel(
        (analogsim.Drift(), analogsim.ReadNoise(std=0.1)), mapping=analogsim.Mapping("pair", bias_rows=bias_rows)
    )
    analog = analogsim.convert(model, device, crossbar="standard(input_range=1.0)")
    x = torch.randn(3, 2, 5, 5).double()
    if programmed:
        analogsim.program(analog)
    before = settings(analog)
    with exactly(analog):
        assert not analog.training
        torch.testing.assert_close(analog(x)[0], model(x)[0])
    assert settings(analog) == before
    assert analog.training


def test_fresh_draws_and_adapters_are_left_out() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3).double(), torch.randn(5, 4).double()
    analog = analogsim.convert(model, "pcm").eval()
    analogsim.add_adapters(analog)
    with torch.no_grad():
        analog.analog.adapter.offset += 1.0
    with drawn_in_eval(analog, lambda state: 1.0):
        with exactly(analog):
            torch.testing.assert_close(analog(x), model(x))
        with exactly(analog, adapters=True):
            torch.testing.assert_close(analog(x), model(x) + 1.0)
        assert (analog(x) - model(x)).abs().min() > 0.3


def test_converters_act_without_their_errors() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3), torch.randn(50, 4)
    noisy = analogsim.convert(model, NOISY, crossbar="standard(input_range=1.0, output_noise=0.1, gain_mismatch=0.1)")
    still = analogsim.convert(model, NOISY, crossbar="standard(input_range=1.0, output_noise=0)")
    with exactly(noisy, converters=True), exactly(still, converters=True):
        found = noisy(x)
        assert torch.equal(found, still(x))
    assert (found - model(x)).abs().max() > 0.1  # inputs beyond 1 are cut off
    with without_errors(noisy):
        assert torch.equal(noisy(x), found)


def test_an_error_leaves_all_as_it_was() -> None:
    analog = analogsim.convert(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), NOISY)
    before = settings(analog)

    def fails(state: AnalogState) -> float:
        if state.name == "1":
            raise KeyError(state.name)
        return 1.0

    with pytest.raises(KeyError), drawn_in_eval(analog, fails):
        pass
    with pytest.raises(RuntimeError), exactly(analog):
        analog(torch.ones(1, 7))
    assert settings(analog) == before


@pytest.mark.parametrize("kind", ["linear", "recurrent", "attention"])
def test_a_look_sees_every_input_and_changes_no_answer(kind: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 6, 4).double()
    model: nn.Module = {
        "linear": nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)),
        "recurrent": nn.GRU(4, 4, batch_first=True),
        "attention": nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
    }[kind].double()
    analog = analogsim.convert(model, NOISY, crossbar="standard(input_range=1.0)").eval()
    seen: dict[str, list[Tensor]] = {matrix.analog.name: [] for matrix in matrices_of(analog)}

    def look(drawn: Any, input: Tensor) -> None:
        torch.testing.assert_close(drawn.clean(input).detach(), drawn._answer(input, drawn._weight).detach())
        seen[drawn.owner.analog.name].append(input)

    with torch.no_grad(), exactly(analog, looks=dict.fromkeys(matrices_of(analog), look)):
        torch.testing.assert_close(analog(x), model.eval()(x))
    assert all(seen.values())
    if kind == "recurrent":
        assert sorted(map(len, seen.values())) == [1, 6]  # all inputs at once, states one after the other


def test_an_exact_answer_draws_nothing() -> None:
    analog = analogsim.convert(nn.Linear(4, 3), NOISY)
    analogsim.set_recompute(analog)
    x = torch.ones(2, 4)
    before = torch.get_rng_state()
    with exactly(analog):
        analog(x)
    assert torch.equal(torch.get_rng_state(), before)
    with drawn_in_eval(analog, lambda state: 1.0):
        analog(x)
    assert not torch.equal(torch.get_rng_state(), before)


def test_weights_in_tensors_by_themselves_are_what_is_multiplied() -> None:
    analog = analogsim.convert(nn.Linear(4, 3, bias=False), NOISY)
    other = torch.randn(3, 4)
    with exactly(analog, laid={analog: other}):
        assert torch.equal(analog(torch.eye(4)), other.t())


class Pair(nn.Module):
    """Two twins that were converted one by one."""

    def __init__(self, make: Callable[[], nn.Module], crossbar: str = "ideal") -> None:
        super().__init__()
        self.encoder = analogsim.convert(make(), "pcm", crossbar=crossbar)
        self.decoder = analogsim.convert(make(), "pcm", crossbar=crossbar)
        self.decoder.load_state_dict(self.encoder.state_dict())


def effective_weights(analog: nn.Module) -> list[Tensor]:
    """What the chip answers with, matrix by matrix."""
    found = []
    for matrix in matrices_of(analog):
        assert matrix.analog.chip is not None
        found.append(matrix.analog.chip.weight_for(*matrix.still())[0].detach().clone())
    return found


def an_lstm() -> nn.Module:
    return nn.LSTM(6, 6)


def a_layer() -> nn.Module:
    return nn.Linear(6, 6)


def a_sequence() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 6), nn.TransformerEncoderLayer(6, 2, 8, batch_first=True))


@pytest.mark.parametrize("make", [a_layer, a_sequence, an_lstm])
def test_twins_in_one_module_are_told_apart_by_their_places(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    """By their names alone, both got one chip's errors, and a file of the pair held one of them."""
    torch.manual_seed(0)
    pair = Pair(make).eval()
    alone = [matrix.analog.name for matrix in matrices_of(pair.encoder)]
    names = [matrix.analog.name for matrix in matrices_of(pair)]
    assert names == [f"{twin}.{name}".removesuffix(".") for twin in ("encoder", "decoder") for name in alone]
    assert [matrix.analog.name for matrix in matrices_of(pair)] == names
    assert [matrix.analog.name for matrix in matrices_of(nn.ModuleDict({"held": pair}))] == names
    analogsim.program(pair, seed=0)
    analogsim.drift(pair, "1d")
    chips = effective_weights(pair)
    for first, second in zip(chips[: len(alone)], chips[len(alone) :], strict=True):
        assert not torch.equal(first, second)
    analogsim.save_chip(pair, tmp_path / "pair.safetensors")
    again = Pair(make).eval()
    again.load_state_dict(pair.state_dict())
    analogsim.load_chip(again, tmp_path / "pair.safetensors")
    for first, second in zip(chips, effective_weights(again), strict=True):
        assert torch.equal(first, second)


def test_ranges_of_twins_in_one_module_are_those_of_each() -> None:
    torch.manual_seed(0)
    pair = Pair(a_layer, "standard(input_range='calibrated')")
    analogsim.calibrate(pair.encoder, torch.rand(8, 6))
    analogsim.calibrate(pair.decoder, 3 * torch.rand(8, 6))
    ranges = analogsim.get_ranges(pair)
    assert ranges.keys() == {"encoder", "decoder"}
    assert ranges["decoder"]["input_range"] > 2 * ranges["encoder"]["input_range"]


def test_a_twin_that_was_programmed_keeps_its_cells_in_a_module_of_several() -> None:
    torch.manual_seed(0)
    pair = Pair(a_layer)
    analogsim.program(pair.encoder, seed=3)
    (held,) = effective_weights(pair.encoder)
    assert analogsim.get_ranges(pair) == {}
    assert torch.equal(effective_weights(pair.encoder)[0], held)
    chip = matrices_of(pair.encoder)[0].analog.chip
    assert chip is not None
    assert chip.name == "encoder"
