"""Modules of types that nobody registered: an example shows their products."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import analogsim
from analogsim import ConversionWarning, Crossbar, Gaussian
from analogsim.inspection.carrying import audit
from analogsim.layers.module import matrices_of
from analogsim.layers.products.discovery import FoldedSlot
from tests.hardware import IDEAL


class Bare(nn.Module):
    """Parameters and a way to use them."""

    shapes: ClassVar[dict[str, tuple[int, ...]]]

    def __init__(self) -> None:
        super().__init__()
        for name, shape in self.shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape)))


class Turned(Bare):
    shapes: ClassVar[dict[str, tuple[int, ...]]] = {"kernel": (6, 4), "bias": (4,)}

    def forward(self, input: Tensor) -> Tensor:
        return torch.addmm(self.bias, input.flatten(0, -2), self.kernel).view(*input.shape[:-1], 4)


class Joint(Bare):
    shapes: ClassVar[dict[str, tuple[int, ...]]] = {"qkv": (12, 6), "out": (4, 6)}

    def forward(self, input: Tensor) -> Tensor:
        q, k, v = (functional.linear(input, part) for part in self.qkv.chunk(3))
        return (q @ k.mT).softmax(-1) @ v @ self.out


class Heads(Bare):
    """As flax lays them: ``(in, heads, size)`` and ``(heads, size, out)``."""

    shapes: ClassVar[dict[str, tuple[int, ...]]] = {"query": (6, 2, 3), "out": (2, 3, 5)}

    def forward(self, input: Tensor) -> Tensor:
        return torch.einsum("bthd,hdo->bto", torch.einsum("bti,ihd->bthd", input, self.query).tanh(), self.out)


class Experts(Bare):
    """Every expert for every token, weighed by a router."""

    shapes: ClassVar[dict[str, tuple[int, ...]]] = {"router": (3, 6), "up": (3, 4, 6), "down": (3, 6, 4)}

    def forward(self, input: Tensor) -> Tensor:
        weights = functional.linear(input, self.router).softmax(-1)
        hidden = torch.einsum("bti,eoi->beto", input, self.up).relu()
        outputs = torch.matmul(hidden, self.down.mT)
        return torch.einsum("beto,bte->bto", outputs, weights)


class Kernel(Bare):
    shapes: ClassVar[dict[str, tuple[int, ...]]] = {"weight": (6, 3, 3), "depth": (6, 1, 3)}

    def forward(self, input: Tensor) -> Tensor:
        wide = functional.conv1d(functional.pad(input, (1, 1)), self.weight)
        return functional.conv1d(wide, self.depth, padding=1, groups=6)


class Root(nn.Module):
    """Parameters of the network itself beside a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 4)
        self.readout = nn.Parameter(torch.randn(4, 3))

    def forward(self, input: Tensor) -> Tensor:
        return self.first(input).relu() @ self.readout


TYPES: dict[type[nn.Module], set[str]] = {
    Turned: {"kernel"},
    Joint: {"qkv", "out"},
    Heads: {"query", "out"},
    Experts: {"router", *(f"{name}.{place}" for name in ("down",) for place in range(3)), "up"},
    Kernel: {"weight", "depth"},
    Root: {"first", "readout"},
}


def made(kind: Callable[[], nn.Module]) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    shape = (2, 3, 6)
    return kind().double(), torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("kind", TYPES)
def test_an_example_shows_the_products(kind: type[nn.Module], tmp_path: Path) -> None:
    model, x = made(kind)
    wanted = model(x)
    slopes = torch.autograd.grad(wanted.square().sum(), list(model.parameters()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        analog = analogsim.convert(model, IDEAL, crossbar=Crossbar(output_bound=1e9, rows=4), example=x)
    assert {matrix.analog.name for matrix in matrices_of(analog)} == TYPES[kind]
    got = analog(x)
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
    mine = torch.autograd.grad(got.square().sum(), list(model.parameters()))
    for ours, theirs in zip(mine, slopes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)
    analogsim.program(analog)
    torch.testing.assert_close(analog.eval()(x), wanted, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(analogsim.to_digital(analog, "programmed")(x), wanted, rtol=1e-10, atol=1e-10)
    assert audit(analog, x).passed
    assert analogsim.summary(analog).analog_share > 0.85


@pytest.mark.parametrize("kind", TYPES)
def test_chips_copies_and_files(kind: type[nn.Module], tmp_path: Path) -> None:
    model, x = made(kind)
    analog = analogsim.convert(model, "pcm", example=x)
    analogsim.program(analog, seed=2)
    analogsim.drift(analog, "1d")
    answer = analog.eval()(x)
    assert not torch.allclose(answer, model(x))
    for again in (copy.deepcopy(analog), pickle.loads(pickle.dumps(analog))):
        torch.testing.assert_close(again(x), answer)
    analogsim.save_chip(analog, tmp_path / "chip.safetensors")
    analogsim.erase(analog)
    analogsim.load_chip(analog, tmp_path / "chip.safetensors")
    torch.testing.assert_close(analog(x), answer)
    assert list(analog.state_dict()) == list(model.state_dict())
    plain = analogsim.to_digital(analog)
    assert type(plain) is kind
    assert vars(plain).keys() == vars(model).keys()


def test_without_an_example_they_stay_digital() -> None:
    model, _ = made(Root)
    with pytest.warns(ConversionWarning, match="bare Parameters"):
        analog = analogsim.convert(model, Gaussian(std=0.1))
    assert [matrix.analog.name for matrix in matrices_of(analog)] == ["first"]


def test_patterns_and_forms() -> None:
    model, x = made(Heads)
    analog = analogsim.convert(model, {"query": Gaussian(std=0.5), "*": None}, example=x)
    (matrix,) = matrices_of(analog)
    assert matrix.analog.slot == FoldedSlot("query", None, outputs=(1, 2), inputs=(0,))
    assert matrix.analog.shape == (6, 6)
    assert not torch.allclose(analog(x), model(x))


def test_a_type_may_be_found_in_one_network_and_lend_in_another() -> None:
    """What an example showed of one module says nothing of another of its type."""

    class Lending(Bare):
        shapes: ClassVar[dict[str, tuple[int, ...]]] = {"own": (4, 6)}

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 6)

        def forward(self, input: Tensor) -> Tensor:
            return functional.linear(input @ self.inner.weight.T, self.own)

    model, x = made(Lending)
    with pytest.warns(ConversionWarning, match="Lending"):
        before = analogsim.convert(model, Gaussian(std=0.1))
    assert [matrix.analog.name for matrix in matrices_of(before)] == ["inner"]
    found = analogsim.convert(made(Lending)[0], Gaussian(std=0.1), example=x)
    assert {matrix.analog.name for matrix in matrices_of(found)} == {"own", "inner"}
    with pytest.warns(ConversionWarning, match="Lending"):
        again = analogsim.convert(model, Gaussian(std=0.1))
    assert type(again) is type(before)


def test_what_is_no_product_stays_digital() -> None:
    class Scale(Bare):
        shapes: ClassVar[dict[str, tuple[int, ...]]] = {"scale": (3, 6), "inner": (6, 6)}

        def forward(self, input: Tensor) -> Tensor:
            return input * self.scale + input @ self.inner.softmax(-1)

    model, x = made(lambda: nn.Sequential(Scale(), nn.Linear(6, 4)))
    with pytest.warns(ConversionWarning, match="Scale"):
        analog = analogsim.convert(model, Gaussian(std=0.1), example=x)
    assert [matrix.analog.name for matrix in matrices_of(analog)] == ["1"]


# --- products without an input ----------------------------------------------------------------------------------------


class Learned(Bare):
    """A learned query goes through a layer: it is an input of the layer's, and no matrix."""

    shapes: ClassVar[dict[str, tuple[int, ...]]] = {"latent": (1, 2, 6)}

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, input: Tensor) -> Tensor:
        query = self.q(self.latent.expand(len(input), -1, -1))
        return (query @ self.k(input).mT).softmax(-1) @ input


class Factors(Bare):
    """Two factors make a matrix, with which the product is taken."""

    shapes: ClassVar[dict[str, tuple[int, ...]]] = {"a": (6, 2), "b": (2, 6), "own": (6, 6)}

    def forward(self, input: Tensor) -> Tensor:
        return (input @ self.own) @ (self.a @ self.b)


class Iterated(nn.Sequential):
    """A power iteration multiplies the weight with a vector that it keeps."""

    def __init__(self) -> None:
        super().__init__(nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6)), nn.Linear(6, 6))


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [(Learned, ["q", "k"]), (Factors, ["own"]), (Iterated, ["0", "1"])],
    ids=lambda value: str(value),
)
@pytest.mark.filterwarnings("ignore:convert. weights that stay digital")
def test_a_product_of_parameters_alone_is_none_with_inputs(kind: type[nn.Module], wanted: list[str]) -> None:
    torch.manual_seed(0)
    model, x = kind().eval(), torch.randn(3, 4, 6)
    analog = analogsim.convert(model, "gaussian(std=0.1)", example=x)
    assert [matrix.analog.name for matrix in matrices_of(analog)] == wanted
    analogsim.program(analog, seed=0)
    assert audit(analog, x).passed


def test_a_bias_of_its_own_is_the_bias_of_the_product() -> None:
    """On the crossbar, with the weight; one that is none, or no vector, stays digital."""
    torch.manual_seed(0)
    x = torch.randn(3, 6)
    analog = analogsim.convert(Turned(), IDEAL, example=x)
    assert [matrix.analog.slot.bias for matrix in matrices_of(analog)] == ["bias"]
    analog = analogsim.convert(Joint(), IDEAL, example=torch.randn(2, 3, 6))
    assert {matrix.analog.slot.bias for matrix in matrices_of(analog)} == {None}
