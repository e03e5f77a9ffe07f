from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import analogsim
from analogsim.crossbar.adapter import Adapter
from analogsim.layers.module import matrices_of

HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0


def moved(adapter: Adapter) -> Adapter:
    """With numbers that change what is answered."""
    with torch.no_grad():
        for value in adapter.tensors.values():
            value.add_(0.2 * torch.randn_like(value))
    return adapter


def test_a_fresh_one_changes_nothing_and_is_drawn_in_units_of_the_weight() -> None:
    torch.manual_seed(0)
    weight = 1e-3 * torch.randn(30, 40)
    adapter = Adapter.fresh(weight, 3, (HOUR, YEAR))
    assert {name: tuple(value.shape) for name, value in adapter.tensors.items()} == {
        "scale": (2, 30),
        "offset": (2, 30),
        "down": (3, 40),
        "up": (30, 3),
        "strength": (2, 3),
    }
    assert adapter.numbers == 60 + 60 + 120 + 90 + 6
    assert all(value.requires_grad and value.is_leaf for value in adapter.tensors.values())
    # The standard deviation of 120 numbers: four standard errors are a quarter of it.
    assert float(adapter.down.detach().std()) == pytest.approx(1e-3, rel=0.25)
    folded, bias = adapter.at(DAY, weight.device).folded(weight, None)
    torch.testing.assert_close(folded, weight)
    torch.testing.assert_close(bias, torch.zeros(30))


def test_the_stage_is_the_formula() -> None:
    """Scale and offset of the crossbars' product, and B (A x) beside it."""
    torch.manual_seed(0)
    layer, x = nn.Linear(5, 4).double(), torch.randn(6, 5).double()
    analog = analogsim.convert(layer, "gaussian(std=0)").eval()
    analogsim.program(analog)
    adapter = moved(Adapter.fresh(layer.weight, 2))
    analog.analog.adapter = adapter
    product = functional.linear(x, layer.weight) * adapter.scale[0] + adapter.offset[0]
    wanted = product + functional.linear(functional.linear(x, adapter.down), adapter.up) + layer.bias
    torch.testing.assert_close(analog(x), wanted)
    digital = analogsim.to_digital(analog, "programmed")
    torch.testing.assert_close(digital(x), wanted)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_a_convolution_takes_it_as_two_convolutions(groups: int) -> None:
    """The first of so many channels with the stride and padding of its own, the second of kernel 1."""
    torch.manual_seed(0)
    layer = nn.Conv2d(6, 12, 3, stride=2, padding=1, groups=groups, bias=False).double()
    x = torch.randn(2, 6, 9, 9).double()
    analog = analogsim.convert(layer, "gaussian(std=0)").eval()
    analogsim.program(analog)
    adapter = analog.analog.adapter = Adapter.fresh(layer.weight, 2)
    with torch.no_grad():
        adapter.up.normal_()
    beside = []
    for part, up in zip(x.chunk(groups, 1), adapter.up.chunk(groups), strict=True):
        narrow = functional.conv2d(part, adapter.down, stride=2, padding=1)
        beside.append(functional.conv2d(narrow, up[:, :, None, None]))
    torch.testing.assert_close(analog(x), layer(x) + torch.cat(beside, 1))


def test_between_two_ages_it_is_interpolated_over_the_logarithm_of_time() -> None:
    adapter = Adapter.fresh(torch.ones(3, 2), 1, (HOUR, YEAR))
    with torch.no_grad():
        adapter.scale[0], adapter.scale[1] = 1.0, 3.0
        adapter.strength[0], adapter.strength[1] = 0.0, 1.0
        adapter.up.fill_(1.0)
        adapter.down.fill_(1.0)
    place = torch.device("cpu")
    for age, share in ((0.0, 0.0), (1.0, 0.0), (HOUR, 0.0), (math.sqrt(HOUR * YEAR), 0.5), (YEAR, 1.0), (1e12, 1.0)):
        found = adapter.at(age, place)
        torch.testing.assert_close(found.affine.scale, torch.full((3,), 1 + 2 * share))
        torch.testing.assert_close(found.beside, torch.full((3, 2), share))


def test_the_age_is_that_of_the_chip_or_of_the_draw() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(4, 3), torch.randn(5, 4)
    analog = analogsim.convert(layer, "drift").eval()
    analog.analog.adapter = adapter = Adapter.fresh(layer.weight, 0, (HOUR, YEAR))
    with torch.no_grad():
        adapter.offset[1] = 1.0
    analogsim.program(analog)
    for age, offset in (("1h", 0.0), ("1y", 1.0)):
        analogsim.drift(analog, age)
        torch.testing.assert_close(analog(x), analog_without(analog, x) + offset)
    analogsim.erase(analog)
    analog.train()
    with pytest.raises(ValueError, match="numbers for 2 ages, and a draw in training may be of any age"):
        analog(x)
    analogsim.set_noise_scale(analog, 0.0)  # nothing has happened: the first age
    torch.testing.assert_close(analog(x), layer(x))
    analogsim.set_noise_scale(analog, 1.0)
    analogsim.set_train_times(analog, ("1y",))
    torch.manual_seed(1)
    drawn = analog(x)
    torch.manual_seed(1)
    torch.testing.assert_close(drawn, analog_without(analog, x) + 1.0)


def analog_without(analog: Any, x: Tensor) -> Tensor:
    adapter, analog.analog.adapter = analog.analog.adapter, None
    try:
        return analog(x)
    finally:
        analog.analog.adapter = adapter


@pytest.mark.parametrize("crossbar", ["ideal", "standard(output_noise=0)", "standard(output_noise=0, bit_serial=True)"])
@pytest.mark.parametrize("device", ["drift", "pcm(slices=2)"])
def test_adapters_of_first_layers_get_gradients_through_a_chip(crossbar: str, device: str) -> None:
    """Those of the digital network, but for the errors of the chip; also where inputs go in bit by bit."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)), torch.randn(100, 6)
    model.requires_grad_(False)
    analog = analogsim.convert(model, device, crossbar=crossbar).eval()
    analogsim.program(analog)
    offset = torch.zeros(8, requires_grad=True)
    model[2](torch.tanh(model[0](x) + offset)).square().sum().backward()
    analogsim.add_adapters(analog)
    analog(x).square().sum().backward()
    found = analog[0].analog.adapter.offset.grad[0]
    assert (found - offset.grad).norm() < 0.15 * offset.grad.norm()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(kind: torch.dtype) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(6, 8).to(kind), torch.randn(80, 6).to(kind)
    analog = analogsim.convert(model, "drift").eval()
    analogsim.program(analog)
    analog.analog.adapter = moved(Adapter.fresh(model.weight, 2))
    assert analog.analog.adapter.scale.dtype is torch.float32
    assert analog(x).dtype is kind
    whole = analogsim.convert(nn.Linear(6, 8), "drift", crossbar="standard(output_noise=0)").eval()
    analogsim.program(whole)
    whole.analog.adapter = moved(Adapter.fresh(whole.weight, 2))
    wanted = whole(x.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert (whole(x.float()) - wanted).abs().max() < 0.05 * wanted.abs().max()


def test_torch_compile_sees_it_and_its_changes() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), torch.randn(80, 6)
    analog = analogsim.convert(model, "drift").eval()
    analogsim.program(analog)
    torch.compiler.reset()
    compiled = torch.compile(analog, backend="eager", fullgraph=True)
    before = analog(x)
    analogsim.add_adapters(analog, 2, ages=("1h", "1y"))
    for matrix in matrices_of(analog):
        moved(matrix.analog.adapter)
    for age in ("1h", "1y"):
        analogsim.drift(analog, age)
        torch.testing.assert_close(compiled(x), analog(x))
    analogsim.remove_adapters(analog)
    analogsim.program(analog)
    torch.testing.assert_close(compiled(x), before)


def test_copies_have_numbers_of_their_own() -> None:
    torch.manual_seed(0)
    analog = analogsim.convert(nn.Linear(4, 3), "drift").eval()
    analogsim.program(analog)
    analogsim.add_adapters(analog, 1)
    x = torch.randn(5, 4)
    before = analog(x)
    again = copy.deepcopy(analog)
    moved(again.analog.adapter)
    torch.testing.assert_close(analog(x), before)
    assert not torch.allclose(again(x), before)
    assert "adapter of rank 1" in repr(analog)
