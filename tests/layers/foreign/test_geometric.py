"""Layers of PyTorch Geometric."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import Gaussian

geometric: Any = pytest.importorskip("torch_geometric.nn", reason="needs analogsim-torch[graphs]")

EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 3, 5]])


def test_its_size_device_and_chip_are_told() -> None:
    analog = analogsim.convert(geometric.Linear(5, 4, bias=False), "pcm")
    assert repr(analog) == "AnalogGeometricLinear(5, 4, bias=False, device=pcm, no chip)"


def test_a_layer_without_weights_yet_wants_a_batch_first() -> None:
    model = geometric.GCN(-1, 8, 2, 3)
    with pytest.raises(ValueError, match="has no weights yet; run a batch"):
        analogsim.convert(model, "pcm")
    model(torch.randn(6, 5), EDGES)
    analogsim.convert(model, "pcm")


def graph() -> tuple[Tensor, Tensor]:
    return torch.randn(6, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64), EDGES


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "GCN": lambda: geometric.GCN(16, 8, 2, 3),
    "GAT": lambda: geometric.GAT(16, 8, 2, 3, heads=2),
    "GraphSAGE": lambda: geometric.GraphSAGE(16, 8, 2, 3),
    "GIN": lambda: geometric.GIN(16, 8, 2, 3),
    "transformer": lambda: geometric.TransformerConv(16, 3, heads=2),
    "chebyshev": lambda: geometric.ChebConv(16, 3, K=3),
}


@pytest.mark.filterwarnings("ignore::analogsim.ConversionWarning")  # the vectors of attention stay digital
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS.keys())
def test_networks(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model, inputs = make().double().eval(), graph()
    silent = analogsim.convert(model, Gaussian(0.0))
    analogsim.program(silent)
    torch.testing.assert_close(silent(*inputs), model(*inputs), rtol=1e-12, atol=1e-12)
    noisy = analogsim.convert(model, Gaussian(0.1))
    analogsim.program(noisy, seed=1)
    assert (noisy(*inputs) - model(*inputs)).abs().max() > 1e-3
    assert analogsim.audit(noisy, *inputs).passed
    assert sum(row.share for row in analogsim.summary(noisy).rows if row.analog) > 0.8
