"""The foot of the bit lines: one place for every layer, in which a new kind of converter is seen by all of them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar, DeviceModel
from analogsim.crossbar import signal_path
from analogsim.crossbar.foot import Foot, draw_converter_errors
from analogsim.layers import AnalogModule, matrices_of
from analogsim.layers.registry import analog_types
from analogsim.noise.sources import KeyedNoise
from analogsim.testing import LayerContract
from analogsim.testing.layer import tensors
from tests.hardware import Exact
from tests.layers import test_contract as contracts

CONTRACTS = {
    name: kind
    for name, kind in vars(contracts).items()
    if name.startswith("Test") and inspect.isclass(kind) and issubclass(kind, LayerContract)
}


@dataclass(frozen=True)
class Halving(Crossbar):
    """A kind of converter that is not in the package: each says half of what it should."""

    @property
    def converts(self) -> bool:
        return True


@pytest.fixture
def halving(monkeypatch: pytest.MonkeyPatch) -> None:
    """What such a converter does, in the one place where converters are described."""
    own = Foot.read

    def read(self: Foot, *args: Any, **kwargs: Any) -> Tensor:
        said = own(self, *args, **kwargs)
        return said / 2 if isinstance(self.crossbar, Halving) else said

    monkeypatch.setattr(Foot, "read", read)


def wide(value: Any) -> Any:
    """Inputs in float64."""
    if type(value) is tuple:
        return tuple(map(wide, value))
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def twin(contract: LayerContract) -> tuple[nn.Module, tuple[Any, ...]]:
    torch.manual_seed(0)
    model = contract.layer().double()
    x = tuple(map(wide, contract.inputs()))
    analog = contract.convert(model, DeviceModel((Exact(),)), crossbar=Crossbar(output_bound=1e9))
    analogsim.program(analog)
    return analog, x


@pytest.mark.usefixtures("halving")
@pytest.mark.parametrize("name", CONTRACTS)
def test_a_new_kind_of_converter_is_seen_by_every_matrix_of_every_layer(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training and on a chip, whichever of a layer's matrices has such converters."""
    contract = CONTRACTS[name]()
    if name == "TestRegisteredRouted":
        monkeypatch.setitem(analog_types, contracts.Bare, AnalogModule)  # and gone after the test
        del analog_types[contracts.Bare]
        analogsim.register_routed(contracts.Bare, {"up": None, "down": None})
    analog, x = twin(contract)
    for mode in (True, False):
        analog.train(mode)
        before = tensors(contract.answer(analog, x))
        for matrix in matrices_of(analog):
            ordinary, matrix.analog.crossbar = matrix.analog.crossbar, Halving(output_bound=1e9)
            after = tensors(contract.answer(analog, x))
            assert not all(map(torch.allclose, after, before)), matrix.analog.title
            matrix.analog.crossbar = ordinary


def test_the_layers_above_are_all_that_become_analog() -> None:
    met = set()
    for contract in CONTRACTS.values():
        try:
            model = contract().layer()
        except pytest.skip.Exception:  # of a package that is not here
            continue
        met |= {kind for module in model.modules() for kind in type(module).__mro__}
    ours = {kind for kind, analog in analog_types.items() if analog.__module__.startswith("analogsim.")}
    assert nn.Linear in ours
    assert ours <= met


def test_what_differs_from_converter_to_converter_is_drawn_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind of its own is drawn for a chip and in training, for products and look-ups, and moves with the array."""

    def draw(crossbar: Crossbar, like: Tensor, noise: Any, scale: Any = 1.0) -> dict[str, Tensor]:
        return {**draw_converter_errors(crossbar, like, noise, scale), "curve": noise.normal_like(like, 0.1)}

    monkeypatch.setattr(signal_path, "draw_converter_errors", draw)
    seen: list[Tensor] = []
    own = Foot.read

    def read(self: Foot, *args: Any, **kwargs: Any) -> Tensor:
        seen.append(self.errors["curve"])
        return own(self, *args, **kwargs)

    monkeypatch.setattr(Foot, "read", read)
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 3))
    analog = analogsim.convert(model, "pcm", crossbar=Crossbar(rows=3, output_bound=2.0), embeddings=True)
    analogsim.program(analog, seed=1)
    seen.clear()  # the gain of a new chip is measured through the converters
    x = torch.tensor([0, 6])
    for mode in (False, False, True, True):
        analog.train(mode)(x)
    table, matrix = (layer.analog.chip.array for layer in analog)
    assert isinstance(analog[0], AnalogModule)
    assert table.converter_errors["curve"].shape == (1, 4, 3)
    assert matrix.to(torch.device("meta")).converter_errors["curve"].is_meta
    once, again, *fresh = zip(seen[::3], seen[1::3], strict=True)  # a look-up, and two blocks of a product
    assert all(map(torch.equal, once, again))
    assert not torch.equal(fresh[0][0], fresh[1][0])
    assert not torch.equal(once[0], fresh[0][0])


def test_names_of_errors() -> None:
    like, noise = torch.zeros(2, 3, 1), KeyedNoise("1")
    assert draw_converter_errors(Crossbar(adc_bits=8), like, noise) == {}
    apart = Crossbar(gain_mismatch=0.1)
    assert draw_converter_errors(apart, like, noise, 0.0) == {}
    found = draw_converter_errors(apart, like, noise)
    assert list(found) == ["gain", "offset"]
    assert all(error.shape == like.shape for error in found.values())
    assert not found["offset"].any()
