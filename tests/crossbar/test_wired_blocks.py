"""Weights behind wires: their cells lie side by side, blocks each on a crossbar of their own."""

from dataclasses import dataclass

import torch
from torch import nn

import analogsim
from analogsim import Crossbar, DeviceModel, Effect, Mapping, Wires


@dataclass(frozen=True)
class Nothing(Effect):
    """An effect without an effect."""


def test_wires_act_on_the_physical_array():
    """The cells of a weight side by side on its word line, blocks each on a crossbar of their own."""
    torch.manual_seed(0)
    layer = nn.Linear(6, 4, bias=False).double()
    wires = Wires(row=20.0, col=5.0)
    for mapping in (Mapping(), Mapping("offset")):
        device = DeviceModel((Nothing(),), g_max=100.0, mapping=mapping)
        crossbar = Crossbar(rows=3, cols=4 if mapping.cells == "pair" else 3, wire_resistance=wires)
        analog = analogsim.convert(layer, device, crossbar=crossbar)
        assert analog.analog.layout.crossbars == 4
        analogsim.program(analog)
        analog.eval()
        written = analog.analog.chip.written
        weight = torch.zeros(4, 6, dtype=torch.float64)
        for place, (left, right) in enumerate(analog.analog.layout.cols):
            for top, bottom in analog.analog.layout.rows:
                g = written.programmed[:, :, top:bottom]
                span = torch.as_tensor(written.largest[left:right]) / 100
                if mapping.cells == "pair":
                    lines = torch.stack([g[cell, column] for column in range(left, right) for cell in (0, 1)], 1)
                    seen = analogsim.crossbar.effective_conductance(lines, wires)
                    weight[left:right, top:bottom] = (seen[:, 0::2] - seen[:, 1::2]).T * span[:, top : top + 1]
                else:
                    lines = torch.stack([*g[0, left:right], g[0, 4 + place]], 1)
                    seen = analogsim.crossbar.effective_conductance(lines, wires)
                    weight[left:right, top:bottom] = 2 * (seen[:, :-1] - seen[:, -1:]).T * span[:, top : top + 1]
        x = torch.randn(5, 6, dtype=torch.float64)
        torch.testing.assert_close(analog(x), x @ weight.T)
        assert (weight - layer.weight).abs().max() > 1e-3


def test_no_resistance_no_difference():
    layer = nn.Linear(6, 4)
    analog = analogsim.convert(layer, "pcm", crossbar=Crossbar(wire_resistance=1e-9))
    ideal = analogsim.convert(layer, "pcm")
    for twin in (analog, ideal):
        analogsim.program(twin)
        analogsim.drift(twin, "1d")
    torch.testing.assert_close(analog.eval()(torch.ones(1, 6)), ideal.eval()(torch.ones(1, 6)))


def test_training_behind_wires_gives_the_gradient_to_the_weights():
    torch.manual_seed(0)
    layer = nn.Linear(30, 20, bias=False)
    analog = analogsim.convert(layer, "pcm", crossbar=Crossbar(rows=16, wire_resistance=5.0))
    x = torch.randn(7, 30)
    analog(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(20, 30))
