"""Bilinear layers: the product with one input on crossbars, that with the other digital."""

from __future__ import annotations

import copy
import itertools
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar, DeviceModel, Drift, Effect, Gaussian, Mapping, ReadNoise
from analogsim.audit import audit
from analogsim.layers import AnalogBilinear

LARGE = Crossbar(output_bound=1e9)  # through the signal path, and nothing happens there


@dataclass(frozen=True)
class Exact(Effect):
    """Programs exactly, and is drawn all the same."""

    def program(self, g: Tensor, cells: Any, noise: Any) -> Tensor:
        return g.clone()


IDEAL = DeviceModel((Exact(),))


def layer(bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Bilinear(4, 7, 3, bias=bias).double()


def inputs(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    one, two = (torch.randn(*shape, width, generator=generator, dtype=torch.float64) for width in (4, 7))
    return one, two


def gradients(output: Tensor, model: nn.Module, *more: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(output.square().sum(), [*model.parameters(), *more])


@pytest.mark.parametrize("cells", ["pair", "offset", "signed"])
@pytest.mark.parametrize("periphery", [Crossbar(), LARGE], ids=["ideal", "converted"])
@pytest.mark.parametrize("bias", [True, False])
def test_ideal_is_digital(cells: str, periphery: Crossbar, bias: bool) -> None:
    model, pair = layer(bias), inputs(5)
    for each in pair:
        each.requires_grad_()
    wanted = model(*pair)
    slopes = gradients(wanted, model, *pair)
    kinds = [(1, 1, 0)] if cells == "signed" else [(1, 1, 2), (3, 1, 0), (2, 2, 1)]
    for (slices, copies, bias_rows), (rows, cols) in itertools.product(kinds, [(None, None), (3, 9)]):
        mapping = Mapping(cells, "column", slices=slices, copies=copies, bias_rows=bias_rows)  # type: ignore[arg-type]
        effect = Gaussian(std=0.0) if cells == "signed" else Exact()
        device = DeviceModel((effect,), g_min=1.0, mapping=mapping)
        analog = analogsim.convert(model, device, crossbar=periphery.replace(rows=rows, cols=cols))
        trained = analog.train()(*pair)
        torch.testing.assert_close(trained, wanted, rtol=1e-12, atol=1e-12)
        for ours, theirs in zip(gradients(trained, model, *pair), slopes, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
        analogsim.program(analog)
        torch.testing.assert_close(analog.eval()(*pair), wanted, rtol=1e-12, atol=1e-12)
        plain = analogsim.to_digital(analog, "programmed")
        assert type(plain) is nn.Bilinear
        torch.testing.assert_close(plain(*pair), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(), (5,), (2, 5), (0,)])
def test_any_shape_of_inputs(shape: tuple[int, ...]) -> None:
    model, pair = layer(), inputs(*shape)
    analog = analogsim.convert(model, IDEAL)
    torch.testing.assert_close(analog(*pair), model(*pair))


def test_its_matrix_bias_and_cells_are_told() -> None:
    analog = analogsim.convert(layer(), "pcm")
    assert type(analog) is AnalogBilinear
    weight, bias = analogsim.summary(analog).rows
    assert (weight.shape, weight.parameters, weight.cells, weight.analog) == ((12, 7), 84, 168, True)
    assert (bias.parameters, bias.analog) == (3, False)
    assert repr(analog).endswith("out_features=3, bias=True, device=pcm, no chip)")


@pytest.mark.parametrize("periphery", [Crossbar(), LARGE.replace(rows=3)], ids=["ideal", "converted"])
def test_read_noise_by_its_output_law(periphery: Crossbar) -> None:
    """The first product's noise, weighted by the other input; 4000 uses, five standard errors."""
    model, (one, two) = layer(), inputs(1)
    analog = analogsim.convert(model, ReadNoise(std=0.05), crossbar=periphery)
    analogsim.program(analog)
    matrix = analog.matrices[""]
    with torch.no_grad():
        _, variance = matrix.analog.chip.weight_for(matrix.matrix)
        law = (two.square() @ variance.double().t()).view(3, 4) @ one[0].square()
        uses = analog.eval()(one.expand(4000, -1), two.expand(4000, -1))
        assert ((uses.var(0) / law - 1) / (2 / 4000) ** 0.5).abs().max() < 5
        assert ((uses.mean(0) - model(one, two)[0]) / (law / 4000).sqrt()).abs().max() < 5


def test_converters_act_before_the_digital_product() -> None:
    model, (one, two) = layer(bias=False), inputs(6)
    crossbar = Crossbar(adc_bits=5, output_bound=4.0)
    device = DeviceModel((Exact(),), mapping=Mapping("pair", "tensor"))
    analog = analogsim.convert(model, device, crossbar=crossbar)
    analogsim.program(analog)
    full = two.abs().amax(1, keepdim=True) * model.weight.detach().abs().max()
    read = two @ model.weight.detach().flatten(0, 1).t() / full
    said = (read * 15 / 4).round().clamp(-15, 15) * 4 / 15 * full
    wanted = (said.view(6, 3, 4) * one.unsqueeze(1)).sum(-1)
    torch.testing.assert_close(analog.eval()(one, two), wanted)
    torch.testing.assert_close(analog.train()(one, two), wanted)


def test_chip_file_copies_and_state(tmp_path: Path) -> None:
    model, pair = layer(), inputs(5)
    analog = analogsim.convert(model, [Gaussian(0.05), Drift(0.05, 0.02)])
    analogsim.program(analog, seed=1)
    fresh = analog.eval()(*pair)
    assert audit(analog, *pair).passed
    analogsim.drift(analog, "1y")
    answer = analog(*pair)
    assert not torch.allclose(answer, fresh)
    torch.testing.assert_close(analogsim.to_digital(analog, "programmed")(*pair), answer)
    for again in (copy.deepcopy(analog), pickle.loads(pickle.dumps(analog))):
        torch.testing.assert_close(again(*pair), answer)
    analogsim.save_chip(analog, tmp_path / "chip.safetensors")
    analogsim.erase(analog)
    analogsim.load_chip(analog, tmp_path / "chip.safetensors")
    torch.testing.assert_close(analog(*pair), answer)
    analog.load_state_dict(layer().state_dict(), strict=True)
    assert list(analog.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_compiled_and_under_autocast(mode: bool) -> None:
    model, pair = layer(), inputs(5)
    analog = analogsim.convert(model, IDEAL)
    analogsim.program(analog)
    analog.train(mode)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(analog, fullgraph=True, backend="aot_eager")(*pair), model(*pair))
    model.float()
    analogsim.program(analog)
    with torch.autocast("cpu", torch.bfloat16):
        one, two = (each.float() for each in pair)
        torch.testing.assert_close(analog(one, two).float(), model(one, two).float(), rtol=0.05, atol=0.05)
