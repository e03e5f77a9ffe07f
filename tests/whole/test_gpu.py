"""What only a GPU can show: moves between devices, wires there, CUDA graphs."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import analogsim
from analogsim import Crossbar, Wires
from analogsim.crossbar.wires import effective_conductance

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def made() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).double()
    return model, torch.randn(5, 2, 4, 4, dtype=torch.float64)


@pytest.mark.parametrize("crossbar", ["ideal", Crossbar(rows=8, dac_bits=8, adc_bits=8, output_bound=9.0)], ids=str)
def test_a_chip_moves_and_is_the_same_wherever_it_is_programmed(crossbar: object) -> None:
    model, x = made()
    analog = analogsim.convert(model, "pcm", crossbar=crossbar)
    analogsim.program(analog, seed=1)
    analogsim.drift(analog, "1d")
    here = analog.eval()(x)
    model.cuda()
    assert analog[0].weight is model[0].weight
    there = analog(x.cuda())
    torch.testing.assert_close(there.cpu(), here)
    analogsim.program(analog, seed=1)
    analogsim.drift(analog, "1d")
    torch.testing.assert_close(analog(x.cuda()), there)
    model.cpu()
    torch.testing.assert_close(analog(x), here)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_wires_are_those_of_the_cpu(mode: str) -> None:
    g = 25 * torch.rand(3, 40, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wires = Wires(row=1.0, col=1.0, source=5.0, sink=5.0, mode=mode)  # type: ignore[arg-type]
    results = []
    for place in ("cpu", "cuda"):
        mine = g.to(place).requires_grad_()
        seen = effective_conductance(mine, wires)
        (slope,) = torch.autograd.grad(seen.square().sum(), mine)
        results.append((seen.detach().cpu(), slope.cpu()))
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("device", ["gaussian", "pcm"])
def test_cuda_graphs_draw_anew_and_train(device: str) -> None:
    """Compiled with CUDA graphs: a fresh draw in each replay, at any noise scale; a chip answers as it does eagerly."""
    torch._dynamo.reset()
    model, x = made()
    model, x = model.float().cuda(), x.float().cuda()
    analog = analogsim.convert(model, device)
    compiled = torch.compile(analog, fullgraph=True, mode="reduce-overhead")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    answers = []
    for step in range(6):
        analogsim.set_noise_scale(analog, 1 - step / 10)
        optimizer.zero_grad()
        answer = compiled(x)
        answer.square().sum().backward()
        answers.append(answer.detach().clone())
    assert len({tuple(answer.flatten().tolist()) for answer in answers}) == 6
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    analogsim.program(analog, seed=1)
    wanted = copy.deepcopy(analog).eval()(x)
    analog.eval()
    for _ in range(3):
        torch.testing.assert_close(compiled(x).clone(), wanted)
