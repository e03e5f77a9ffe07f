"""The thread's question: what does a training step on noisy weights cost beside a plain one?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from analogsim.utils.text import table
from benchmarks.harness.methods import CONTENDERS, Contender
from benchmarks.harness.networks import Case
from benchmarks.harness.timing import Spread, duration, interleave

_TOLERANCE = 1e-9  # of the norm of a gradient, in float64


def _gradients(contender: Contender, case: Case, device: torch.device, batch: int) -> list[Tensor]:
    """The gradients of one step with a given seed, in float64.

    Raises:
        RuntimeError: the step moved a Parameter, which only the optimizer may.
    """
    model = case.model(device).double()
    parameters = list(model.parameters())
    method = contender.make(model)
    before = [parameter.detach().clone() for parameter in parameters]
    images, labels = case.data(device, batch)
    torch.manual_seed(0)
    method.backward(images.double(), labels)
    if not all(map(torch.equal, parameters, before)):
        raise RuntimeError(f"{case.name}: {contender.name!r} does not give the clean weights back")
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


def check(case: Case, device: torch.device, *, batch: int = 4) -> None:
    """Methods that draw the same noise are to have the same gradients; otherwise their times compare nothing.

    Raises:
        RuntimeError: two gradients differ by more than rounding, or a method leaves noise in the Parameters.
    """
    references: dict[str, tuple[str, list[Tensor]]] = {}
    for contender in CONTENDERS:
        if not contender.noise:
            continue
        gradients = _gradients(contender, case, device, batch)
        name, reference = references.setdefault(contender.noise, (contender.name, gradients))
        scale = torch.stack([gradient.norm() for gradient in reference]).max()
        for index, (ours, theirs) in enumerate(zip(gradients, reference, strict=True)):
            error = float((ours - theirs).norm() / scale)
            if not error <= _TOLERANCE:
                raise RuntimeError(
                    f"{case.name}: the gradients of {contender.name!r} and {name!r} for Parameter {index} differ by "
                    f"{error:.1e} of the largest, more than rounding: do not compare their times"
                )


def run(
    case: Case, device: torch.device, *, rounds: int, steps: int | None, say: Callable[[str], object] = print
) -> list[dict[str, Any]]:
    """Time a training step of every method on one network; print the table and return its rows for JSON."""
    check(case, device)
    images, labels = case.data(device)
    calls = {
        contender.name: partial(contender.make(case.model(device)).step, images, labels) for contender in CONTENDERS
    }
    seconds = interleave(calls, rounds=rounds, steps=steps, device=device)
    plain = seconds[CONTENDERS[0].name]
    records, rows = [], []
    for name, values in seconds.items():
        step, ratio = Spread.of(values), Spread.of(values / plain)
        least = step.least / float(plain.min())
        records.append(
            {
                "benchmark": "train",
                "model": case.name,
                "batch": case.batch,
                "method": name,
                "seconds": step.as_dict(),
                "ratio": ratio.as_dict(),
                "ratio_of_least": least,
            }
        )
        rows.append((name, duration(step.median), *ratio.as_ratio(), duration(step.least), f"{least:.2f}x"))
    say(f"Training step of {case.name}, batch {case.batch}, on {device.type}: median of {rounds} rounds\n")
    say(table(("method", "step", "to plain", "quartiles", "fastest", "to plain"), rows) + "\n")
    return records
