"""Training steps that torch.compile takes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from analogsim.utils.text import table
from benchmarks.harness import peer_methods
from benchmarks.harness.methods import Contender, HandWritten, Method, Twin, descend, relative
from benchmarks.harness.networks import Case
from benchmarks.harness.timing import Spread, duration, interleave


class Compiled(Method):
    """A method whose forward and backward torch.compile takes.

    Args:
        model: the network.
        make: the method.
    """

    def __init__(self, model: nn.Module, make: Callable[[nn.Module], Method] = Method) -> None:
        super().__init__(model)
        method = make(model)
        self.optimizer = method.optimizer
        self.network = cast(nn.Module, torch.compile(getattr(method, "analog", model)))

    def backward(self, images: Tensor, labels: Tensor) -> None:
        """See `Method.backward`."""
        descend(self.network, images, labels)


def contenders(inputs: Tensor) -> tuple[Contender, ...]:
    """The methods; ranges start from ``inputs``."""
    noisy, behind = (contender.make for contender in peer_methods.ours(inputs))
    return (
        Contender("plain", Method),
        Contender("plain, compiled", Compiled),
        Contender("hand-written, relative, compiled", lambda model: Compiled(HandWritten(model, relative).model)),
        Contender("convert, gaussian, compiled", lambda model: Compiled(model, noisy)),
        Contender("convert, 8 bits, compiled", lambda model: Compiled(model, behind)),
        Contender("convert, pcm, compiled", lambda model: Compiled(model, lambda model: Twin(model, "pcm"))),
    )


def run(
    case: Case, device: torch.device, *, rounds: int, steps: int | None, say: Callable[[str], object] = print
) -> list[dict[str, Any]]:
    """Time a training step of every method on one network; print the table and return its rows for JSON."""
    torch.compiler.reset()  # it compiles no more than eight networks of a process
    images, labels = case.data(device)
    calls = {}
    for contender in contenders(images):
        calls[contender.name] = partial(contender.make(case.model(device)).step, images, labels)
        for _ in range(2):  # compiles
            calls[contender.name]()
    seconds = interleave(calls, rounds=rounds, steps=steps, device=device)
    records, rows = [], []
    for name, values in seconds.items():
        step = Spread.of(values)
        ratio, compiled = (Spread.of(values / seconds[other]) for other in ("plain", "plain, compiled"))
        records.append(
            {
                "benchmark": "compiled",
                "model": case.name,
                "batch": case.batch,
                "method": name,
                "seconds": step.as_dict(),
                "ratio": ratio.as_dict(),
                "ratio_to_compiled": compiled.as_dict(),
            }
        )
        rows.append((name, duration(step.median), *ratio.as_ratio(), *compiled.as_ratio()))
    say(f"Training step of {case.name}, batch {case.batch}, on {device.type}: median of {rounds} rounds\n")
    say(table(("method", "step", "to plain", "quartiles", "to plain compiled", "quartiles"), rows) + "\n")
    return records
