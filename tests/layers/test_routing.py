"""Layers of people's own: subclasses with and without a forward, whose products are followed."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import analogsim
from analogsim import ConversionWarning, Crossbar, Gaussian
from analogsim.errors import NotRoutedError
from analogsim.inspection.carrying import audit
from analogsim.layers import AnalogConv2d, Slot, register_routed
from tests.hardware import IDEAL, LARGE, PERIPHERIES


class Named(nn.Linear):
    """Nothing of its own but the name."""


class Lora(nn.Linear):
    """Low-rank adaptation, as E. Hu et al., ICLR (2022) have it."""

    def __init__(self, inputs: int, outputs: int, rank: int = 2) -> None:
        super().__init__(inputs, outputs)
        self.lora_A = nn.Parameter(torch.randn(rank, inputs))
        self.lora_B = nn.Parameter(torch.randn(outputs, rank))

    def forward(self, input: Tensor) -> Tensor:
        base = functional.linear(input, self.weight, bias=self.bias)
        return base + input @ self.lora_A.t() @ self.lora_B.t()


class Padded(nn.Conv2d):
    """Pads its input by itself."""

    def forward(self, input: Tensor) -> Tensor:
        wide = functional.pad(input, (0, 2, 1, 1), value=0.5)
        return functional.conv2d(wide, self.weight, self.bias, self.stride, (0, 0), self.dilation, groups=self.groups)


class Grown(nn.ConvTranspose2d):
    """Drops the border of its output."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        wide = functional.conv_transpose2d(input, self.weight, None, stride=self.stride, groups=self.groups)
        return wide[..., 1:-1, 1:-1]


class Super(nn.Linear):
    """Hands on to the forward above it."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu() + 1


class Biased(nn.Linear):
    """Takes its product with another bias."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.weight, self.bias.abs()) - functional.linear(input.abs(), self.weight)


class Scaled(nn.Conv2d):
    """Takes another weight for each input."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight / input.abs().amax()
        return functional.conv2d(input, weight, self.bias, self.stride, self.padding)


def images(channels: int) -> Tensor:
    shape = (2, channels, 5, 6)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def vectors() -> Tensor:
    return torch.randn(3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "named": (lambda: Named(5, 4), vectors),
    "lora": (lambda: Lora(5, 4), vectors),
    "super": (lambda: Super(5, 4), vectors),
    "biased": (lambda: Biased(5, 4), vectors),
    "padded": (lambda: Padded(4, 6, 3, stride=2, groups=2), lambda: images(4)),
    "grown": (lambda: Grown(4, 6, 3, stride=2, groups=2), lambda: images(4)),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, inputs = LAYERS[name]
    return make().double(), inputs()


def quietly(model: nn.Module, device: Any, **options: Any) -> nn.Module:
    """The twin, without the warning of what stays digital inside it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        return analogsim.convert(model, device, **options)


def gradients(output: Tensor, model: nn.Module) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(output.square().sum(), list(model.parameters()), allow_unused=True)


@pytest.mark.parametrize("name", LAYERS)
@PERIPHERIES
def test_ideal_is_digital(name: str, periphery: Crossbar) -> None:
    model, x = made(name)
    wanted = model(x)
    slopes = gradients(wanted, model)
    analog = quietly(model, IDEAL, crossbar=periphery)
    trained = analog(x)
    torch.testing.assert_close(trained, wanted, rtol=1e-12, atol=1e-12)
    for ours, theirs, parameter in zip(gradients(trained, model), slopes, model.parameters(), strict=True):
        # A bias that the forward leaves out is on the crossbar, and subtracted again: 0 and nothing are one.
        missing = torch.zeros_like(parameter)
        torch.testing.assert_close(missing if ours is None else ours, missing if theirs is None else theirs)
    analogsim.program(analog)
    torch.testing.assert_close(analog.eval()(x), wanted, rtol=1e-12, atol=1e-12)
    assert audit(analog, x).passed
    plain = analogsim.to_digital(analog, "programmed")
    assert type(plain) is type(model)
    torch.testing.assert_close(plain(x), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_the_chip_answers_and_comes_back_from_copies_and_files(name: str, tmp_path: Path) -> None:
    model, x = made(name)
    analog = quietly(model, "pcm")
    assert type(analog).__name__ == f"Analog{type(model).__name__}"
    assert isinstance(analog, type(model))
    analogsim.program(analog, seed=1)
    fresh = analog.eval()(x)
    assert not torch.allclose(fresh, model(x))
    analogsim.drift(analog, "1y")
    answer = analog(x)
    assert not torch.allclose(answer, fresh)
    torch.testing.assert_close(analogsim.to_digital(analog, "programmed")(x), answer)
    for again in (copy.deepcopy(analog), pickle.loads(pickle.dumps(analog))):
        assert type(again) is type(analog)
        torch.testing.assert_close(again(x), answer)
    analogsim.save_chip(analog, tmp_path / "chip.safetensors")
    analogsim.erase(analog)
    analogsim.load_chip(analog, tmp_path / "chip.safetensors")
    torch.testing.assert_close(analog(x), answer)
    assert list(analog.state_dict()) == list(model.state_dict())
    analog.load_state_dict(made(name)[0].state_dict(), strict=True)


@pytest.mark.parametrize("name", ["lora", "super", "padded", "grown"])
@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_compiled_and_under_autocast(name: str, mode: bool) -> None:
    model, x = made(name)
    analog = quietly(model, IDEAL, crossbar=Crossbar(rows=3))
    analogsim.program(analog)
    analog.train(mode)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(analog, fullgraph=True, backend="aot_eager")(x), model(x))
    model.float()
    analogsim.program(analog)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(analog(x.float()), model(x.float()), rtol=0.05, atol=0.05)


def test_matrices_that_stay_digital_inside_an_analog_layer_are_told_once() -> None:
    model = nn.Sequential(Lora(5, 4), nn.ReLU(), Lora(4, 3))
    with pytest.warns(ConversionWarning) as caught:
        analog = analogsim.convert(model, "pcm")
    (warning,) = caught
    told = str(warning.message)
    assert "2 x Lora (its lora_A, lora_B are no weights of a product it is known for): '0', '2'" in told
    found = analogsim.summary(analog)
    assert [(row.name, row.analog, row.parameters) for row in found.rows] == [
        ("0", True, 24),
        ("0", False, 18),
        ("2", True, 15),
        ("2", False, 14),
    ]
    assert sum(row.share for row in found.rows) == pytest.approx(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = analogsim.convert(nn.Sequential(Lora(5, 4), nn.Linear(4, 3)), {"0": None, "*": "pcm"})
    assert type(kept[0]) is Lora


def test_the_errors_are_those_of_the_weight_alone() -> None:
    model, x = made("lora")
    analog = quietly(model, Gaussian(std=0.5))
    analogsim.program(analog)
    held, _ = analog.analog.chip.weight_for(model.weight)
    wanted = functional.linear(x, held, model.bias) + x @ model.lora_A.t() @ model.lora_B.t()
    torch.testing.assert_close(analog.eval()(x), wanted)
    assert not torch.allclose(wanted, model(x))


def test_a_weight_that_is_never_met_is_an_error() -> None:
    with pytest.raises(NotRoutedError, match=r"'0': the forward of Scaled did not take its weight.*to None"):
        analogsim.convert(nn.Sequential(Scaled(4, 6, 3)), "pcm")


class Chosen(nn.Module):
    """Three weights in one Parameter, of which a forward takes one, or none; all of them go into a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.bank = nn.Parameter(torch.randn(3, 4, 6))

    def forward(self, input: Tensor, which: int | None, scaled: bool, sums: bool = False) -> Tensor:
        scale = self.bank.square().sum() if scaled else torch.ones(())
        if sums:
            return input.sum() * scale
        return (input[..., :4] if which is None else functional.linear(input, self.bank[which])) / scale


register_routed(Chosen, {f"bank.{place}": Slot("bank", None, index=place) for place in range(3)})


class Idle(nn.Linear):
    """Does not ask for its weight at all."""

    def forward(self, input: Tensor) -> Tensor:
        return input * 2


register_routed(Idle, {"weight": "bias"})


def test_the_only_weight_is_not_one_of_many() -> None:
    with pytest.raises(
        NotRoutedError, match=r"'0\.weight': the forward of Idle did not take its weight.*of it\)\. Its"
    ):
        analogsim.convert(nn.Sequential(Idle(4, 4)), "pcm")(torch.ones(2, 4))


def test_of_many_weights_a_forward_may_choose_some() -> None:
    """Or none at all; but where it takes the Parameter only in what is no product, all would stay digital."""
    torch.manual_seed(0)
    model, x = Chosen(), torch.randn(5, 6)
    analog = quietly(model, IDEAL).eval()
    analogsim.program(analog)
    for which in (0, 1, 2, None):
        for scaled in (False, True) if which is not None else (False,):
            torch.testing.assert_close(analog(x, which, scaled), model(x, which, scaled))
    with pytest.raises(NotRoutedError, match=r"'.*bank\.0': the forward of Chosen did not take its weight"):
        analog(x, None, True)
    with pytest.raises(NotRoutedError, match=r"it went into "):
        analog(x, None, True, sums=True)


def test_layers_of_timm() -> None:
    layers: Any = pytest.importorskip("timm.layers")
    torch.manual_seed(0)
    model, x = layers.Conv2dSame(4, 6, 3, stride=2).double(), images(4)
    for crossbar in (Crossbar(), LARGE.replace(rows=9)):
        analog = analogsim.convert(model, IDEAL, crossbar=crossbar)
        analogsim.program(analog)
        assert isinstance(analog, AnalogConv2d)
        for mode in (True, False):
            torch.testing.assert_close(analog.train(mode)(x), model(x))
        assert audit(analog.eval(), x).passed
    standardised = layers.ScaledStdConv2d(4, 6, 3).double()
    torch.testing.assert_close(quietly(standardised, IDEAL)(x), standardised(x))


def test_several_products_in_one_forward_meet_one_array() -> None:
    """Twice the same product with two biases: in training too, the errors of the weight cancel."""

    class Twice(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return functional.linear(input, self.weight, self.bias) - functional.linear(input, self.weight)

    model = Twice(5, 4).double()
    analog = analogsim.convert(model, Gaussian(std=0.5))
    torch.testing.assert_close(analog(vectors()), model.bias.expand(3, -1))


def test_two_forwards_in_one_meet_the_same_layer() -> None:
    """A routed module in a routed module, without noise, where the weight is met again on the way down."""

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Padded(4, 6, 3)

        def forward(self, input: Tensor) -> Tensor:
            output: Tensor = self.inner(input)
            return output

    register_routed(Outer)
    model, x = Outer().double(), images(4)
    analog = analogsim.convert(model, Gaussian(std=0.0))
    analogsim.set_noise_scale(analog, 0.0)
    torch.testing.assert_close(analog(x), model(x))
    torch.testing.assert_close(analog(x), model(x))
    assert "product" not in vars(analog.inner)
