"""What only a GPU can show, as checks that need nothing but torch: the CPU's chip, CUDA graphs, no waiting.

`tests/whole/test_gpu.py` runs them as tests, ``python -m benchmarks gpu`` before it measures. On the CPU, where there
is nothing else to compare with, they go through the same code.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar, Wires
from analogsim.crossbar.crossbar import CrossbarLike
from analogsim.crossbar.wires import effective_conductance

CONVERTERS = Crossbar(rows=8, dac_bits=8, adc_bits=8, output_bound=9.0)


def small_network() -> tuple[nn.Module, Tensor]:
    """A convolution and a linear layer, and inputs for them, float64 on the CPU."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).double()
    return model, torch.randn(5, 2, 4, 4, dtype=torch.float64)


def a_chip_is_the_same_everywhere(place: torch.device, crossbar: CrossbarLike = "ideal") -> None:
    """Programmed on the CPU and moved, programmed in the place, and moved back: one chip.

    Raises:
        AssertionError: it is not, by more than rounding.
    """
    model, x = small_network()
    analog = analogsim.convert(model, "pcm", crossbar=crossbar)
    analogsim.program(analog, seed=1)
    analogsim.drift(analog, "1d")
    here = analog.eval()(x)
    model.to(place)
    assert analog.get_submodule("0").weight is model.get_submodule("0").weight
    there = analog(x.to(place))
    torch.testing.assert_close(there.cpu(), here)
    analogsim.program(analog, seed=1)
    analogsim.drift(analog, "1d")
    torch.testing.assert_close(analog(x.to(place)), there)
    model.cpu()
    torch.testing.assert_close(analog(x), here)


def wires_are_those_of_the_cpu(place: torch.device, mode: str) -> None:
    """IR drop and its gradient.

    Raises:
        AssertionError: they differ by more than 1e-9.
    """
    g = 25 * torch.rand(3, 40, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wires = Wires(row=1.0, col=1.0, source=5.0, sink=5.0, mode=mode)  # type: ignore[arg-type]
    results = []
    for where in (torch.device("cpu"), place):
        mine = g.to(where).requires_grad_()
        seen = effective_conductance(mine, wires)
        (slope,) = torch.autograd.grad(seen.square().sum(), mine)
        results.append((seen.detach().cpu(), slope.cpu()))
    torch.testing.assert_close(results[1], results[0], rtol=1e-9, atol=1e-9)


def compiled_steps_draw_anew_and_train(place: torch.device, device: str) -> None:
    """Compiled, on a GPU with CUDA graphs: a fresh draw each time, at any noise scale; chips answer as they do eagerly.

    Raises:
        AssertionError: two draws were the same, a gradient is missing, or the chip answers otherwise.
    """
    torch.compiler.reset()
    model, x = small_network()
    model, x = model.float().to(place), x.float().to(place)
    analog = analogsim.convert(model, device)
    how: dict[str, Any] = {"mode": "reduce-overhead"} if place.type == "cuda" else {"backend": "aot_eager"}
    compiled = torch.compile(analog, fullgraph=True, **how)
    answers = []
    for scale in (1.0, 1.0, 1.0, 0.9, 0.8, 0.7):  # and the weights stay: only draws can tell the first answers apart
        analogsim.set_noise_scale(analog, scale)
        model.zero_grad()
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


def nothing_waits_for_the_card(place: torch.device, device: str, crossbar: CrossbarLike = "ideal") -> None:
    """A step of training and a forward on a chip, without anything that would make the CPU wait for the GPU.

    Raises:
        RuntimeError: torch's, at the operation that waits.
    """
    model, x = small_network()
    model, x = model.float().to(place), x.float().to(place)
    analog = analogsim.convert(model, device, crossbar=crossbar)

    def step() -> None:
        analog.train()(x).square().sum().backward()

    step()  # what is made ready once may wait
    analogsim.program(analog, seed=1)
    analog.eval()(x)
    if place.type != "cuda":
        step()
        return
    torch.cuda.synchronize(place)
    torch.cuda.set_sync_debug_mode("error")
    try:
        analog.eval()(x)
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


CHECKS: dict[str, Callable[[torch.device], None]] = {
    "a chip moves, and is the same wherever it is programmed": a_chip_is_the_same_everywhere,
    "the same with converters": lambda place: a_chip_is_the_same_everywhere(place, CONVERTERS),
    "wires, exact": lambda place: wires_are_those_of_the_cpu(place, "exact"),
    "wires, fast": lambda place: wires_are_those_of_the_cpu(place, "fast"),
    "no waiting, gaussian": lambda place: nothing_waits_for_the_card(place, "gaussian"),
    "no waiting, pcm": lambda place: nothing_waits_for_the_card(place, "pcm"),
    "no waiting, converters": lambda place: nothing_waits_for_the_card(place, "pcm", CONVERTERS),
    "compiled steps, gaussian": lambda place: compiled_steps_draw_anew_and_train(place, "gaussian"),
    "compiled steps, pcm": lambda place: compiled_steps_draw_anew_and_train(place, "pcm"),
}
"""By what the table calls them; on a GPU the compiled ones use CUDA graphs."""
