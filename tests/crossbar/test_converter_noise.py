"""Converters that are noisy and not alike: the same law for products and for tables that are looked up."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar, DeviceModel, Gaussian, Mapping, ReadNoise
from tests.hardware import Exact

K = 4.5  # standard errors
COLUMNS = 300
SLICED = Mapping("pair", "tensor", slices=2, slice_bits=1)


def linear(values: Tensor) -> tuple[nn.Module, Callable[[int], Tensor]]:
    layer = nn.Linear(len(values), values.shape[1], bias=False)
    with torch.no_grad():
        layer.weight.copy_(values.t())
    return layer, lambda line: torch.eye(len(values))[line]


def table(values: Tensor) -> tuple[nn.Module, Callable[[int], Tensor]]:
    return nn.Embedding.from_pretrained(values, freeze=False), torch.tensor


KINDS = pytest.mark.parametrize("kind", [linear, table], ids=["product", "table"])


def twin(kind: Any, crossbar: Crossbar, device: DeviceModel) -> tuple[nn.Module, Callable[[int, int], Tensor]]:
    """A matrix of 0 in the first line and 0.5, 1 and 2 in the others, and many answers to one line driven alone."""
    values = torch.tensor([0.0, 0.5, 1.0, 2.0]).unsqueeze(1).repeat(1, COLUMNS)
    layer, line_of = kind(values)
    analog = analogsim.convert(layer, device, crossbar=crossbar, embeddings=True)
    analogsim.program(analog, seed=1)

    def ask(line: int, uses: int) -> Tensor:
        driven = line_of(line)
        with torch.no_grad():
            return analog(driven.expand(uses, *driven.shape)).double()

    return analog, ask


@KINDS
def test_noise_of_a_converter_goes_through_its_gain(kind: Any) -> None:
    """On a chip noise stands before the converter whose gain is off: where it says twice as much, noise is twice."""
    uses = 4000
    crossbar = Crossbar(output_noise=0.05, gain_mismatch=0.2, offset_mismatch=0.1, input_range=1.0)
    analog, ask = twin(kind, crossbar, DeviceModel((Exact(),), mapping=Mapping("pair")))
    analog.eval()
    nothing, full = ask(0, uses), ask(3, uses)
    error = 2 * 0.05 / math.sqrt(uses)  # of a mean, the largest weight being 2
    gain, offset = (full.mean(0) - nothing.mean(0)) / 2, nothing.mean(0)
    assert float(gain.std() / 0.2) == pytest.approx(1, abs=K / math.sqrt(2 * COLUMNS) + error)
    assert float(gain.mean()) == pytest.approx(1, abs=K * 0.2 / math.sqrt(COLUMNS) + error)
    assert float(offset.std() / (2 * 0.1)) == pytest.approx(1, abs=K / math.sqrt(2 * COLUMNS) + error)
    for answers in (nothing, full):
        size = answers.std(0) / (2 * 0.05 * gain.abs())
        assert (size - 1).abs().max() < K * (1 / math.sqrt(2 * uses) + 0.01)  # the gain is known to a percent or less
        assert float(size.mean()) == pytest.approx(1, abs=K / math.sqrt(2 * uses * COLUMNS) + 0.005)


@KINDS
@pytest.mark.parametrize("mapping", [Mapping("pair"), SLICED], ids=["pair", "slices"])
def test_each_conversion_has_its_noise(kind: Any, mapping: Mapping) -> None:
    """Slices are converted one after the other: noise adds up by the squares of their shares."""
    uses = 200
    crossbar = Crossbar(output_noise=0.05, input_range=1.0)
    analog, ask = twin(kind, crossbar, DeviceModel((Exact(),), mapping=mapping))
    expected = 4 * 0.05**2 * sum(share**2 for share in mapping.significance)
    for training, scale in ((False, 1.0), (True, 1.0), (True, 0.5), (True, 2.0)):
        analog.train(training)
        analogsim.set_noise_scale(analog, scale)
        for line, clean in ((0, 0.0), (2, 1.0)):
            error = ask(line, uses) - clean
            assert float(error.var() / (scale**2 * expected)) == pytest.approx(1, abs=K * math.sqrt(2 / error.numel()))
            assert abs(float(error.mean())) < K * scale * math.sqrt(expected / error.numel())


@KINDS
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_the_noise_scale_counts_for_converters_that_are_not_alike(kind: Any, scale: float) -> None:
    """Drawn anew in each forward: variances over 100 of them, of 300 converters each."""
    forwards = 100
    analog, ask = twin(
        kind,
        Crossbar(gain_mismatch=0.1, offset_mismatch=0.05, input_range=1.0),
        DeviceModel((Exact(),), mapping=Mapping("pair")),
    )
    analog.train()
    analogsim.set_noise_scale(analog, scale)
    offsets = torch.cat([ask(0, 1) for _ in range(forwards)])
    both = torch.cat([ask(3, 1) for _ in range(forwards)]) - 2
    error = K * math.sqrt(2 / offsets.numel())
    assert float(offsets.var() / (scale * 2 * 0.05) ** 2) == pytest.approx(1, abs=error)
    assert float(both.var() / ((scale * 2 * 0.05) ** 2 + (scale * 2 * 0.1) ** 2)) == pytest.approx(1, abs=error)


@KINDS
@pytest.mark.parametrize("crossbar", [Crossbar(), Crossbar(output_bound=1e9)], ids=["ideal", "converters"])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_the_noise_scale_counts_for_cells(kind: Any, crossbar: Crossbar, scale: float) -> None:
    """Written errors and read noise of 300 cells, each in 100 forwards, on one line."""
    for effect in (Gaussian(0.02), ReadNoise(0.02)):
        analog, ask = twin(kind, crossbar, DeviceModel((effect,), mapping=Mapping("pair", "tensor")))
        analog.train()
        analogsim.set_noise_scale(analog, 1.0)
        whole = torch.cat([ask(2, 1) for _ in range(100)]) - 1
        analogsim.set_noise_scale(analog, scale)
        part = torch.cat([ask(2, 1) for _ in range(100)]) - 1
        assert float(part.var() / whole.var()) == pytest.approx(scale**2, rel=K * math.sqrt(4 / part.numel()))
        if isinstance(effect, ReadNoise):  # of both cells of a pair
            assert float(whole.var() / (2 * (2 * 0.02) ** 2)) == pytest.approx(1, abs=K * math.sqrt(2 / whole.numel()))
