"""Bilinear layers: the product with one input on crossbars, that with the other digital."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar, DeviceModel, Mapping, ReadNoise
from analogsim.layers import AnalogBilinear
from tests.hardware import LARGE, Exact

IDEAL = DeviceModel((Exact(),))


def layer(bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Bilinear(4, 7, 3, bias=bias).double()


def inputs(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    one, two = (torch.randn(*shape, width, generator=generator, dtype=torch.float64) for width in (4, 7))
    return one, two


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
