"""Training steps in eager code, whose draws are made by eager code and by `analogsim.use_compiled_noise`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import analogsim
from analogsim.utils.text import table
from benchmarks.harness import peer_methods
from benchmarks.harness.methods import Contender, Method, Twin
from benchmarks.harness.networks import Case
from benchmarks.harness.timing import Spread, duration, interleave


class CompiledNoise(Method):
    """A method whose draws compiled code makes; those of the methods beside it it does not.

    Args:
        model: the network.
        make: the method.
    """

    def __init__(self, model: nn.Module, make: Callable[[nn.Module], Method]) -> None:
        super().__init__(model)
        self._method = make(model)

    def step(self, images: Tensor, labels: Tensor) -> None:
        """See `Method.step`."""
        analogsim.use_compiled_noise()
        self._method.step(images, labels)
        analogsim.use_compiled_noise(False)


def contenders(inputs: Tensor) -> tuple[Contender, ...]:
    """The methods, each with eager and with compiled noise; ranges start from ``inputs``."""
    gaussian, converters = peer_methods.ours(inputs)
    found = [Contender("plain", Method)]
    for method in (gaussian, converters, Contender("convert, pcm", lambda model: Twin(model, "pcm"))):
        found.append(method)
        found.append(Contender(f"{method.name}, compiled noise", partial(CompiledNoise, make=method.make)))
    return tuple(found)


def run(
    case: Case, device: torch.device, *, rounds: int, steps: int | None, say: Callable[[str], object] = print
) -> list[dict[str, Any]]:
    """Time a training step of every method on one network; print the table and return its rows for JSON."""
    images, labels = case.data(device)
    calls = {
        contender.name: partial(contender.make(case.model(device)).step, images, labels)
        for contender in contenders(images)
    }
    seconds = interleave(calls, rounds=rounds, steps=steps, device=device)
    records, rows = [], []
    for name, values in seconds.items():
        step, ratio = Spread.of(values), Spread.of(values / seconds["plain"])
        records.append(
            {
                "benchmark": "draws",
                "model": case.name,
                "batch": case.batch,
                "method": name,
                "seconds": step.as_dict(),
                "ratio": ratio.as_dict(),
            }
        )
        rows.append((name, duration(step.median), *ratio.as_ratio()))
    say(f"Training step of {case.name}, batch {case.batch}, on {device.type}: median of {rounds} rounds\n")
    say(table(("method", "step", "to plain", "quartiles"), rows) + "\n")
    return records
