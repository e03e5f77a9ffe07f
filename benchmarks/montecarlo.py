"""What it costs to take many chips through a network: one after the other, and several at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

import analogsim
from analogsim.text import table
from analogsim.together import Chips
from benchmarks._methods import answer
from benchmarks._networks import Case
from benchmarks._timing import Spread, interleave

COUNTS = (1, 4, 16)
_TIME = 86400.0


@torch.no_grad()
def _at_once(chips: Chips, images: Tensor) -> Tensor:
    return chips.answers(images, lambda model, inputs: answer(model, cast(Tensor, inputs)))


def _in_turn(model: nn.Module, images: Tensor, count: int) -> None:
    for _ in range(count):
        answer(model, images)


def _check(analog: nn.Module, chips: Chips, images: Tensor) -> None:
    for seed, got in enumerate(_at_once(chips, images)):
        with analogsim.programmed(analog, seed, _TIME):
            wanted = answer(analog, images)
        error = float((got - wanted).norm() / wanted.norm())
        if not error <= 1e-4:
            raise RuntimeError(f"chip {seed} at once and alone differ by {error:.1e}: do not time it")


def run(
    case: Case, device: torch.device, *, rounds: int, steps: int | None, say: Callable[[str], object] = print
) -> list[dict[str, Any]]:
    """Time the forwards of many chips of one network; print the table and return its rows for JSON."""
    model = case.model(device).eval()
    images, _ = case.data(device)
    analog = analogsim.convert(model, "pcm").eval()
    analogsim.program(analog)
    records, rows = [], []
    for count in COUNTS:
        chips = Chips(analog, range(count), lambda seed: None)
        chips.drift(_TIME, "global")
        _check(analog, chips, images)
        calls: dict[str, Callable[[], object]] = {
            "plain": partial(_in_turn, model, images, count),
            "in turn": partial(_in_turn, analog, images, count),
            "together": partial(_at_once, chips, images),
        }
        seconds = interleave(calls, rounds=rounds, steps=steps, device=device)
        for way in ("in turn", "together"):
            ratio = Spread.of(seconds[way] / seconds["plain"])
            records.append(
                {
                    "benchmark": "montecarlo",
                    "model": case.name,
                    "batch": case.batch,
                    "chips": count,
                    "way": way,
                    "seconds": Spread.of(seconds[way]).as_dict(),
                    "to_plain_forwards": ratio.as_dict(),
                }
            )
            rows.append((str(count), way, *ratio.as_ratio()))
    say(f"Chips of {case.name}, batch {case.batch}, on {device.type}: median of {rounds} rounds\n")
    say(table(("chips", "way", "to as many plain forwards", "quartiles"), rows, right=2) + "\n")
    return records
