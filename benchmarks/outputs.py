"""What it brings to match the outputs of chips to those of the digital network: how, and from how many inputs.

    python -m benchmarks.outputs digits-mlp --chips 25
    python -m benchmarks.outputs narrow-cnn lenet5 --crossbar standard

A network is trained plainly, and the same chips are judged as they are and with `analogsim.calibrate_outputs`, of
training inputs that differ from chip to chip: on phase-change memory after one year, the correction measured then or
when the chip was an hour old, and with 10.8 % stuck cells.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import cast, get_args

import torch
from torch import Tensor, nn

import analogsim
from analogsim.chip.outputs import Match
from analogsim.recipes.tasks import networks
from analogsim.recipes.tasks.data_sets import load
from analogsim.utils.text import table
from benchmarks.harness.small_tasks import TASKS

AGED = ("pcm", "1y")
STUCK = ("stuck-at(p_off=0.0904, p_on=0.0175)", "0s")


def _lenet5(shape: tuple[int, int, int], classes: int) -> nn.Module:
    return networks.build("lenet5", shape, classes, seed=0)


NETWORKS = {
    "digits-mlp": TASKS["digits"],
    "narrow-cnn": TASKS["fashion"],
    "lenet5": replace(TASKS["fashion"], model=_lenet5, lr=3e-3),
}
"""The networks of the small tasks, by their names here."""


def _train(model: nn.Module, x: Tensor, y: Tensor, rate: float, epochs: int) -> None:
    steps = len(x) // 64
    optimizer = torch.optim.Adam(model.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * steps)
    for _ in range(epochs):
        for part in torch.randperm(len(x))[: steps * 64].view(steps, 64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[part]), y[part]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    model.eval()


@torch.no_grad()
def _score(model: nn.Module, x: Tensor, y: Tensor) -> float:
    return 100 * float((model(x).argmax(1) == y).float().mean())


def _judged(
    analog: nn.Module, train: Tensor, test: tuple[Tensor, Tensor], chips: int, t: str, counts: Sequence[int]
) -> tuple[dict[str, list[list[float]]], float]:
    """Scores of all chips by row and number of inputs, and the seconds that a calibration with all of them took."""
    rows: dict[str, list[list[float]]] = {}
    seconds = []
    for seed in range(chips):
        generator = torch.Generator().manual_seed(seed)
        inputs = [train[torch.randperm(len(train), generator=generator)[:count]] for count in counts]
        ways = [("as it is", "", t), *((match, match, t) for match in get_args(Match))]
        ways += [("moments, measured at 1h", "moments", "1h")] if t != "0s" else []
        for name, match, measured in ways:
            scores = rows.setdefault(name, [[] for _ in counts])
            for place, part in enumerate(inputs):
                with analogsim.programmed(analog, seed, measured):
                    if match:
                        began = time.perf_counter()
                        analogsim.calibrate_outputs(analog, part, match=cast(Match, match))
                        seconds.append(time.perf_counter() - began)
                    if measured != t:
                        analogsim.drift(analog, t)
                    scores[place].append(_score(analog, *test))
    return rows, max(seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, judge and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outputs", description=__doc__)
    parser.add_argument("networks", nargs="*", default=["digits-mlp"], help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--crossbar", default="ideal", help="periphery (default: ideal)")
    parser.add_argument("--chips", type=int, default=15)
    parser.add_argument("--inputs", default="16,64,256", help="how many (default: 16,64,256)")
    parser.add_argument("--limit", type=int, default=30_000, help="samples of each part (default: 30000)")
    parser.add_argument("--epochs", type=int, help="default: those of the network")
    options = parser.parse_args(arguments)
    counts = [int(count) for count in options.inputs.split(",")]
    for name in options.networks:
        task = NETWORKS[name]
        data = load(task.data, limit=options.limit)
        (x, y), (tx, ty) = data.train.tensors, data.test.tensors
        torch.manual_seed(0)
        model = task.model(data.facts["shape"], data.facts["classes"])
        _train(model, x, y, task.lr, options.epochs or task.epochs)
        print(f"{name}, clean {_score(model, tx, ty):.2f}, crossbar {options.crossbar}, {options.chips} chips")
        for device, t in (AGED, STUCK):
            analog = analogsim.convert(model, device, crossbar=options.crossbar)
            analogsim.calibrate(analog, [x[:512]])
            rows, seconds = _judged(analog, x, (tx, ty), options.chips, t, counts)
            shown = [(way, *(_told(scores) for scores in found)) for way, found in rows.items()]
            print(table((f"{device} after {t}", *(f"{count} inputs" for count in counts)), shown))
            print(f"at most {seconds:.2f} s for a calibration\n")
    return 0


def _told(scores: Sequence[float]) -> str:
    """Mean and standard deviation over chips."""
    found = torch.tensor(scores)
    return f"{found.mean():.2f} ± {found.std(correction=0):.2f}"


if __name__ == "__main__":
    raise SystemExit(main())
