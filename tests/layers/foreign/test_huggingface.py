"""Hugging Face's fully connected layer, whose weight lies the other way round."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar, ReadNoise
from analogsim.inspection.carrying import audit

Conv1D: Any = pytest.importorskip("transformers.pytorch_utils").Conv1D


def layer() -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = Conv1D(nf=4, nx=10)
    nn.init.normal_(made.bias)
    return made.double()


def inputs() -> Tensor:
    return torch.randn(3, 5, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_chip_of_it_is_that_of_the_linear_layer_with_the_same_weight() -> None:
    model, x = layer(), inputs()
    linear = nn.Linear(10, 4).double()
    with torch.no_grad():
        linear.weight.copy_(model.weight.t())
        linear.bias.copy_(model.bias)
    answers = []
    for network in (model, linear):
        analog = analogsim.convert(nn.Sequential(network), "pcm", crossbar=Crossbar(rows=4, wire_resistance=1.0))
        analogsim.program(analog, seed=2)
        analogsim.drift(analog, "1d")
        answers.append(analog.eval()(x))
    torch.testing.assert_close(*answers)
    assert not torch.allclose(answers[0], model(x))


def test_its_size_device_and_chip_are_told() -> None:
    analog = analogsim.convert(layer(), "pcm")
    assert repr(analog) == "AnalogConv1D(nf=4, nx=10, device=pcm, no chip)"
    (row,) = analogsim.summary(analog).rows
    assert (row.kind, row.shape, row.parameters, row.cells) == ("Conv1D", (4, 10), 44, 80)


def test_read_noise_by_its_output_law() -> None:
    """4000 uses against the sum over cells of s^2 x^2; five standard errors."""
    model, x = layer(), inputs()[0, :1]
    analog = analogsim.convert(model, ReadNoise(std=0.05))
    analogsim.program(analog)
    with torch.no_grad():
        _, variance = analog.analog.chip.weight_for(analog.matrix)
        law = x.square() @ variance.to(x.dtype).t()
        uses = analog.eval()(x.expand(4000, -1))
        assert ((uses.var(0) / law[0] - 1) / (2 / 4000) ** 0.5).abs().max() < 5
        assert ((uses.mean(0) - model(x)[0]) / (law[0] / 4000).sqrt()).abs().max() < 5


def test_gpt2_runs_analog_but_for_its_tables() -> None:
    """Every Conv1D, and the head, which is tied to the table of tokens: the perturbed chip moves the output."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=50, n_positions=8, n_embd=16, n_layer=2, n_head=2)
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config).eval()
    analog = analogsim.convert(model, "gaussian(std=0.0)")
    kinds = [row.kind for row in analogsim.summary(analog).rows if row.analog]
    assert kinds == ["Conv1D"] * 8 + ["Linear"]
    tokens = torch.arange(8).unsqueeze(0)
    analogsim.program(analog)
    torch.testing.assert_close(analog(tokens).logits, model(tokens).logits)
    assert audit(analog, tokens).passed
