"""Fully connected layers: the matrix of the digital one, for inputs of any shape."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import analogsim
from analogsim import Crossbar
from analogsim.layers import AnalogLinear


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(6,), (3, 6), (2, 0, 6), (2, 3, 6)])
def test_the_chip_answers_with_what_it_holds(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(6, 4, bias=bias), torch.randn(shape)
    analog: Any = analogsim.convert(layer, "pcm")
    assert type(analog) is AnalogLinear
    assert analog.weight is layer.weight
    analogsim.program(analog, seed=1)
    held, variance = analog.analog.chip.weight_for(layer.weight)
    answer = analog.eval()(x)
    assert answer.shape == (*shape[:-1], 4)
    if variance is None:
        torch.testing.assert_close(answer, functional.linear(x, held, layer.bias))


def test_what_it_tells() -> None:
    analog = analogsim.convert(nn.Linear(6, 4), "pcm", crossbar=Crossbar(rows=3))
    told = "AnalogLinear(in_features=6, out_features=4, bias=True, device=pcm, crossbars of 3 rows x any number of"
    assert repr(analog).startswith(told)
    assert repr(analogsim.to_digital(analog)) == "Linear(in_features=6, out_features=4, bias=True)"
