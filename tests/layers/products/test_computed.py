"""Weights that a forward computes: what is on the crossbar is the computed value."""

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
from analogsim import ConversionWarning, Crossbar, Gaussian, StaleChipError
from analogsim.inspection.carrying import audit
from analogsim.layers.module import matrices_of
from analogsim.layers.products.computed import ComputedSlot, Notes, RewrittenSlot, find_computed
from analogsim.testing import LayerContract
from tests.hardware import IDEAL

CUT = Crossbar(output_bound=1e9, rows=5)


class Standardised(nn.Conv2d):
    """Weights of zero mean and unit variance, S. Qiao et al., arXiv:1903.10520 (2019)."""

    def forward(self, input: Tensor) -> Tensor:
        mean, std = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return self._conv_forward(input, (self.weight - mean) / (std + 1e-5), self.bias)


class Masked(nn.Linear):
    """An autoregressive layer, M. Germain et al., MADE, ICML (2015)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("mask", torch.ones(outputs, inputs).tril())

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.mask * self.weight, self.bias)


class MaskedByHand(nn.Linear):
    """A mask that is no buffer, and a product from the other side."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.mask = torch.ones(outputs, inputs, dtype=torch.float64).tril()

    def forward(self, input: Tensor) -> Tensor:
        return ((self.weight * self.mask) @ input.mT).mT + self.bias


class MaskedInPlace(nn.Conv2d):
    """PixelCNN's convolution, A. van den Oord et al., ICML (2016), as most write it."""

    def __init__(self) -> None:
        super().__init__(4, 6, 3, padding=1)
        self.register_buffer("mask", torch.ones(6, 4, 3, 3))
        self.mask[:, :, 1, 1:] = 0
        self.mask[:, :, 2] = 0

    def forward(self, input: Tensor) -> Tensor:
        self.weight.data *= self.mask
        return super().forward(input)


class Binary(nn.Linear):
    """Signs with a gradient that goes straight through, I. Hubara et al., NeurIPS (2016)."""

    def forward(self, input: Tensor) -> Tensor:
        scale = self.weight.abs().mean(1, keepdim=True)
        weight = self.weight + (scale * self.weight.sign() - self.weight).detach()
        return functional.linear(input, weight, self.bias)


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:  # type: ignore[override]
        return weight.sign()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:  # type: ignore[override]
        return slope


class BinaryByFunction(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        weight = Sign.apply(self.weight.clamp(-1, 1))
        return functional.conv2d(input, weight, self.bias, self.stride, padding=self.padding, groups=self.groups)


class LowRank(nn.Linear):
    """The weight and a product of two others, as one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.down, self.up = nn.Parameter(torch.randn(2, inputs)), nn.Parameter(torch.randn(outputs, 2))

    def forward(self, input: Tensor) -> Tensor:
        return input @ (self.weight + self.up @ self.down).t() + self.bias


class Mixed(nn.Linear):
    """A softmax over the outputs, as mixtures have it, and a regulariser beside."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.weight.softmax(0), self.bias) + self.weight.square().mean()


class Unfolded(nn.Conv2d):
    """A standardised convolution as one product."""

    def forward(self, input: Tensor) -> Tensor:
        weight = self.weight.flatten(1)
        weight = (weight - weight.mean(1, keepdim=True)) * self.weight.shape[0] ** 0.5
        return weight @ functional.unfold(input, self.kernel_size) + self.bias[:, None]


class Spread(nn.ConvTranspose2d):
    """A transposed convolution of a bounded kernel."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        return functional.conv_transpose2d(input, self.weight.tanh(), self.bias, self.stride, groups=self.groups)


class Pointwise(nn.Linear):
    """A fully connected layer as a convolution with positive weights."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.conv1d(input.mT, self.weight.exp().unsqueeze(-1), self.bias).mT


class OtherWay(nn.Linear):
    """A weight that is taken from its other side, without a word."""

    def forward(self, input: Tensor) -> Tensor:
        return input @ self.weight


def quantised(float_layer: nn.Module, kind: str) -> nn.Module:
    quantization = pytest.importorskip("torch.ao.quantization")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        qat: Any = pytest.importorskip("torch.ao.nn.qat")
        float_layer.qconfig = quantization.get_default_qat_qconfig("x86")  # type: ignore[assignment]
        layer: nn.Module = getattr(qat, kind).from_float(float_layer)
    return layer


def of_timm(name: str, *args: Any, **options: Any) -> nn.Module:
    layer: nn.Module = getattr(pytest.importorskip("timm.layers"), name)(*args, **options)
    return layer


VECTORS, IMAGES = (2, 3, 6), (2, 4, 5, 5)

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "standardised": (lambda: Standardised(4, 6, 3, padding=1, groups=2), IMAGES),
    "masked": (lambda: Masked(6, 4), VECTORS),
    "masked by hand": (lambda: MaskedByHand(6, 4), VECTORS),
    "masked in place": (MaskedInPlace, IMAGES),
    "binary": (lambda: Binary(6, 4), VECTORS),
    "binary by a function": (lambda: BinaryByFunction(4, 6, 3, padding=1, groups=2), IMAGES),
    "low rank": (lambda: LowRank(6, 4), VECTORS),
    "mixed": (lambda: Mixed(6, 4), VECTORS),
    "unfolded": (lambda: Unfolded(4, 6, 3), IMAGES),
    "spread": (lambda: Spread(4, 6, 3, stride=2, groups=2), IMAGES),
    "pointwise": (lambda: Pointwise(6, 4), VECTORS),
    "other way": (lambda: OtherWay(4, 6, bias=False), VECTORS),
    "timm's StdConv2d": (lambda: of_timm("StdConv2d", 4, 6, 3, bias=True), IMAGES),
    "timm's StdConv2dSame": (lambda: of_timm("StdConv2dSame", 4, 6, 3), IMAGES),
    "timm's ScaledStdConv2d": (lambda: of_timm("ScaledStdConv2d", 4, 6, 3), IMAGES),
    "timm's ScaledStdConv2dSame": (lambda: of_timm("ScaledStdConv2dSame", 4, 6, 3, stride=2), IMAGES),
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    return make().double(), torch.randn(shape, dtype=torch.float64, requires_grad=True)


def quietly(model: nn.Module, device: Any, **options: Any) -> Any:
    """The twin, without the warning of what stays digital inside it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        return analogsim.convert(model, device, **options)


def gradients(output: Tensor, model: nn.Module, x: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(output.square().sum(), [x, *model.parameters()], allow_unused=True)
    return [slope for slope in found if slope is not None]


@pytest.mark.parametrize("name", LAYERS)
def test_without_noise_it_is_the_digital_layer(name: str) -> None:
    model, x = made(name)
    state = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    analog = quietly(model, IDEAL, crossbar=CUT)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    wanted = model(x)
    got = analog(x)
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(gradients(got, model, x), gradients(wanted, model, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)
    analogsim.program(analog)
    torch.testing.assert_close(analog.eval()(x), wanted, rtol=1e-10, atol=1e-10)
    assert audit(analog, x.detach()).passed == (name != "mixed")  # which adds a mean of the weight to its answer
    assert list(analog.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("name", LAYERS)
def test_the_chip_holds_the_computed_value(name: str, tmp_path: Path) -> None:
    """Noise is there, in copies and files too, and other weights make it stale."""
    model, x = made(name)
    wanted = model(x)
    analog = quietly(model, "pcm")
    assert ((analog(x) - wanted).abs() > 1e-6).double().mean() > 0.8
    analogsim.program(analog, seed=1)
    analogsim.drift(analog, "1d")
    answer = analog.eval()(x)
    assert ((answer - wanted).abs() > 1e-6).double().mean() > 0.8
    torch.testing.assert_close(analog(x), answer)
    for again in (copy.deepcopy(analog), pickle.loads(pickle.dumps(analog))):
        torch.testing.assert_close(again(x), answer)
    analogsim.save_chip(analog, tmp_path / "chip.safetensors")
    analogsim.erase(analog)
    analogsim.load_chip(analog, tmp_path / "chip.safetensors")
    torch.testing.assert_close(analog(x), answer)
    with torch.no_grad():
        model.weight.mul_(torch.linspace(-2, 2, model.weight.shape[1]).view(1, -1, *(1,) * (model.weight.ndim - 2)))
    with pytest.raises(StaleChipError):
        analog(x)


@pytest.mark.parametrize("name", ["masked", "standardised"])
def test_the_errors_are_those_of_the_computed_weight(name: str) -> None:
    model, x = made(name)
    analog = quietly(model, Gaussian(std=0.5))
    analogsim.program(analog)
    (matrix,) = matrices_of(analog)
    computed, _ = matrix.still()
    held, _ = matrix.analog.chip.weight_for(computed)
    assert isinstance(matrix.analog.slot, ComputedSlot)
    if name == "masked":
        torch.testing.assert_close(computed, model.weight * model.mask)
        torch.testing.assert_close(analog.eval()(x), functional.linear(x, held, model.bias))
    assert not torch.allclose(held, computed)
    with pytest.raises(ValueError, match="is computed from other Parameters"):
        analogsim.to_digital(analog, "programmed")
    assert type(analogsim.to_digital(analog)) is type(model)


@pytest.mark.parametrize(
    ("kind", "layer", "shape"),
    [("Linear", nn.Linear(6, 4), VECTORS), ("Conv2d", nn.Conv2d(4, 6, 3, padding=1, groups=2), IMAGES)],
    ids=["linear", "conv"],
)
def test_quantisation_in_training(kind: str, layer: nn.Module, shape: tuple[int, ...]) -> None:
    """torch.ao's modules, whose observers keep what convert found."""
    torch.manual_seed(0)
    model, x = quantised(layer, kind), torch.randn(shape)
    model(x)
    state = copy.deepcopy(model.state_dict())
    analog = quietly(model, IDEAL)
    analogsim.program(analog)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    torch.testing.assert_close(analog(x), model(x))
    torch.testing.assert_close(analog.eval()(x), model(x))
    assert not torch.equal(matrices_of(analog)[0].still()[0], layer.weight)


def test_a_mask_that_is_put_on_in_the_forward_is_on_the_chip() -> None:
    model, x = made("masked in place")
    before = model.weight.clone()
    analog = quietly(model, IDEAL)
    assert torch.equal(model.weight, before)
    assert isinstance(matrices_of(analog)[0].analog.slot, RewrittenSlot)
    analogsim.program(analog)
    torch.testing.assert_close(analog.eval()(x), model(x))


class TestMasked(LayerContract):
    """A masked fully connected layer."""

    computed = True

    def layer(self) -> nn.Module:
        return Masked(6, 4)

    def inputs(self) -> tuple[Any, ...]:
        return (torch.randn(2, 3, 6),)


@pytest.mark.slow
class TestStandardised(LayerContract):
    """A standardised convolution."""

    computed = True

    def layer(self) -> nn.Module:
        return Standardised(4, 6, 3, padding=1, groups=2)

    def inputs(self) -> tuple[Any, ...]:
        return (torch.randn(2, 4, 5, 5),)


def test_what_depends_on_the_input_is_no_weight() -> None:
    class Dynamic(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return functional.linear(input, self.weight * input.mean())

    with pytest.raises(analogsim.errors.NotRoutedError, match=r"forward of Dynamic.*it went into mul\."):
        quietly(Dynamic(6, 4), "pcm")


def test_forwards_that_cannot_be_tried_are_left_alone() -> None:
    class Two(nn.Linear):
        def forward(self, input: Tensor, other: Tensor) -> Tensor:
            return functional.linear(input * other, self.weight)

    assert find_computed(Two(6, 4), "weight") is None
    x = torch.randn(3, 6)
    torch.testing.assert_close(quietly(Two(6, 4), Gaussian(std=0.0))(x, x).shape, torch.Size([3, 4]))


def test_notes_are_of_the_tensor_itself() -> None:
    notes: Notes[int] = Notes()
    one = torch.zeros(2)
    notes[one] = 1
    notes[one] = 2
    assert notes.get(one) == 2
    assert notes.get(torch.zeros(2)) is None
    assert notes.get("one") is None
