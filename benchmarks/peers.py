"""A training step with aihwkit-lightning's analog layers, with ours and with plain torch, in one interleaved run.

Both sides simulate the same: normal noise on the weights (5 % of the layer's largest weight), alone or behind 8-bit
converters with trained input ranges, an output bound of 12 and output noise of 0.04. Before anything is timed, the
same seed must give the same gradients where only weights are noisy, and converters without noise the same answers,
to rounding in float64.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from analogsim.utils.text import table
from benchmarks.harness import peer_methods
from benchmarks.harness.methods import Contender, HandWritten, Method, answer, relative
from benchmarks.harness.networks import CASES, Case
from benchmarks.harness.options import add_options, begin
from benchmarks.harness.peer_methods import CONVERTERS, LIGHTNING
from benchmarks.harness.timing import Spread, duration, interleave, write

_TOLERANCE = 1e-9  # of a norm, in float64

_MISSING = f"""\
{LIGHTNING} is not installed, and without it there is nothing to compare with. It asks for one version of torch, so
give it an environment of its own, and start the benchmark there, from the root of the checkout:

    python -m venv peers
    peers/bin/pip install {LIGHTNING} numpy scipy safetensors
    peers/bin/python -m benchmarks.peers"""


def contenders(inputs: Tensor) -> tuple[Contender, ...]:
    """Plain torch, noise written by hand, ours, and those of aihwkit-lightning; ranges start from ``inputs``."""
    return (
        Contender("plain", Method),
        Contender("hand-written, relative", lambda model: HandWritten(model, relative), "relative"),
        *peer_methods.ours(inputs),
        *peer_methods.theirs(inputs),
    )


def _distance(value: list[Tensor], reference: list[Tensor]) -> float:
    """The largest difference of two tensors, relative to the largest of the reference's norms."""
    scale = torch.stack([tensor.norm() for tensor in reference]).max()
    return max(float((a - b).norm() / scale) for a, b in zip(value, reference, strict=True))


def check(case: Case, device: torch.device, *, batch: int = 4) -> None:
    """Contenders that simulate the same must compute the same; otherwise their times compare nothing.

    Raises:
        RuntimeError: gradients under the same noise, or answers of converters without noise, differ by more than
            rounding.
    """
    inputs, labels = case.data(device, batch)
    inputs = inputs.double()
    found: dict[str, list[Tensor]] = {}
    for contender in contenders(inputs):
        if contender.noise:
            method = contender.make(case.model(device).double())
            torch.manual_seed(0)
            method.backward(inputs, labels)
            found[contender.name] = [p.grad for p in method.model.parameters() if p.grad is not None]
    _agree(case, "gradients", found)
    model, silent = partial(case.model, device), CONVERTERS.silent
    networks = {
        "ours": peer_methods.Behind(model().double(), silent, inputs).analog,
        "theirs": peer_methods.Lightning(model().double(), silent, inputs).model,
        "theirs, fast": peer_methods.Lightning(model().double(), silent, inputs, fast=True).model,
    }
    _agree(case, "answers", {name: [answer(network, inputs)] for name, network in networks.items()})


def _agree(case: Case, what: str, found: dict[str, list[Tensor]]) -> None:
    (first, reference), *others = found.items()
    for name, tensors in others:
        error = _distance(tensors, reference)
        if not error <= _TOLERANCE:
            raise RuntimeError(
                f"{case.name}: the {what} of {name!r} and {first!r} differ by {error:.1e}, more than rounding: do not "
                "compare their times"
            )


def run(
    case: Case, device: torch.device, *, rounds: int, steps: int | None, say: Callable[[str], object] = print
) -> list[dict[str, Any]]:
    """Time a training step of every contender on one network; print the table and return its rows for JSON."""
    check(case, device)
    inputs, labels = case.data(device)
    calls = {
        contender.name: partial(contender.make(case.model(device)).step, inputs, labels)
        for contender in contenders(inputs)
    }
    seconds = interleave(calls, rounds=rounds, steps=steps, device=device)
    records, rows = [], []
    for name, values in seconds.items():
        step, ratio = Spread.of(values), Spread.of(values / seconds["plain"])
        least = step.least / float(seconds["plain"].min())
        record = {
            "benchmark": "peers",
            "model": case.name,
            "batch": case.batch,
            "method": name,
            "seconds": step.as_dict(),
            "ratio": ratio.as_dict(),
            "ratio_of_least": least,
        }
        row = [name, duration(step.median), *ratio.as_ratio(), f"{least:.2f}x", "", ""]
        if name in peer_methods.COUNTERPARTS:
            to_ours = Spread.of(values / seconds[peer_methods.COUNTERPARTS[name]])
            record["ratio_to_ours"] = to_ours.as_dict()
            row[-2:] = to_ours.as_ratio()
        records.append(record)
        rows.append(row)
    say(f"Training step of {case.name}, batch {case.batch}, on {device.type}: median of {rounds} rounds\n")
    head = ("method", "step", "to plain", "quartiles", "fastest, to plain", "to ours", "quartiles")
    say(table(head, rows) + "\n")
    return records


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 2 if aihwkit-lightning is not installed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser)
    options = parser.parse_args(arguments)
    if not peer_methods.available():
        print(_MISSING, file=sys.stderr)
        return 2
    document = begin(options, **{LIGHTNING: peer_methods.version()})
    times = {"rounds": options.rounds, "steps": options.steps}
    results = [row for name in options.models for row in run(CASES[name], options.device, **times)]
    if options.json is not None:
        write(options.json, document | {"settings": times, "results": results})
        print(f"written: {options.json}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
