"""What it costs to take many chips through a network: one after the other, and several at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

import analogsim
from analogsim.chip.stacked_chips import Chips
from analogsim.utils.text import table
from benchmarks.harness.methods import answer
from benchmarks.harness.networks import Case
from benchmarks.harness.timing import Spread, interleave

COUNTS = (1, 4, 16)
_TIME = 86400.0
CHIPS, TIMES = 4, ("1s", "1h", "1d", "1mo", "1y")
IMAGES, BATCH = 10_000, 500


@torch.no_grad()
def _at_once(chips: Chips, images: Tensor) -> Tensor:
    return torch.stack(chips.answers(images, lambda model, inputs: answer(model, cast(Tensor, inputs))))


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


def _evaluation(case: Case, device: torch.device, rounds: int) -> dict[str, Any]:
    """`analogsim.evaluate` beside as many plain passes over the data: all that chips and times cost is in it."""
    model = case.model(device).eval()
    loader = [case.data(device, BATCH) for _ in range(IMAGES // BATCH)]
    analog = analogsim.convert(model, "pcm")
    passes = 1 + CHIPS * len(TIMES)  # the clean one too

    def plain() -> None:
        for _ in range(passes):
            for images, _ in loader:
                answer(model, images)

    def evaluate() -> None:
        analogsim.evaluate(analog, loader, chips=CHIPS, times=TIMES)

    seconds = interleave({"plain": plain, "evaluate": evaluate}, rounds=rounds, steps=1, device=device)
    ratio, took = Spread.of(seconds["evaluate"] / seconds["plain"]), Spread.of(seconds["evaluate"])
    return {
        "benchmark": "montecarlo",
        "model": case.name,
        "images": len(loader) * BATCH,
        "chips": CHIPS,
        "times": len(TIMES),
        "way": "evaluate",
        "seconds": took.as_dict(),
        "seconds_per_chip_and_time": took.median / passes,
        "to_plain_forwards": ratio.as_dict(),
    }


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
    found = _evaluation(case, device, max(1, rounds // 4))
    say(
        f"evaluate with {CHIPS} chips at {len(TIMES)} times on {found['images']:,} samples: "
        f"{found['to_plain_forwards']['median']:.2f}x as many plain passes, "
        f"{found['seconds_per_chip_and_time']:.3g} s for each chip and time\n"
    )
    return [*records, found]
