r"""What each piece of training brings alone, on top of training under the device's own noise on its crossbar.

    python -m benchmarks.pieces --seeds 5 --chips 15 --out pieces.json
    python -m benchmarks.pieces --task fashion --seeds 2 --only noise,learned --out pieces.json
    python -m benchmarks.pieces --on learned --only plain,noise,triple,stuck,clip-narrow --out pieces.json
    python -m benchmarks.pieces --table --out pieces.json

``digits``: a 64-24-24-10 network on 8 x 8 digits, 40 epochs. ``fashion``: a narrow convolutional network on pooled
images of Fashion-MNIST (27,000 for training), 5 epochs. Adam, cosine. All are judged on the same chips of the standard
crossbar, ``pcm`` after one year and ``stuck-at`` (10.8 % of the cells), with the global gain. Gains are differences to
the row "noise", seed by seed: mean and standard error. Times are those of training on the processor, over those of
plain training. What FILE has is not measured again.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import analogsim
from analogsim.training import SeveralDraws, SharpnessAware, Step, plain_step
from analogsim.utils.text import table
from benchmarks.harness.small_tasks import TASKS, Task, batches_of
from benchmarks.harness.timing import environment, write

STANDARD, LEARNED = "standard", "standard(input_range='learned')"
AFTER = {"pcm, 1 year": ("pcm", "1y"), "stuck cells": ("stuck-at", "0s")}
BASE = "noise"
RANGES = ("dynamic", "learned")


@dataclass(frozen=True)
class Piece:
    """A way to train.

    Args:
        told: in the table.
        device: whose noise training sees; None: plain training.
        crossbar: that it sees.
        scale: of the noise, see `analogsim.NoiseSchedule`.
        times: at which it sees the device; None: one second to one year.
        clip: limit of the weights at the start and the end, in standard deviations.
        per: what shares a limit.
        step: how a step comes by its gradients.
        average: decay of a moving average of the weights; 0: none.
    """

    told: str
    device: str | None = "pcm"
    crossbar: str = STANDARD
    scale: Mapping[str, Any] = field(default_factory=dict)
    times: tuple[str, ...] | None = None
    clip: tuple[float, float] | None = None
    per: str = "layer"
    step: Step = plain_step
    average: float = 0.0

    def on(self, ranges: str) -> Piece:
        """The same on the crossbar whose ranges are dynamic or learned, where it is trained on a standard one."""
        seen = self.device is not None and self.crossbar == STANDARD
        return replace(self, crossbar=LEARNED) if seen and ranges == "learned" else self


PIECES = {
    "plain": Piece("no noise, no crossbar", device=None),
    "ideal": Piece("noise, ideal crossbar", crossbar="ideal"),
    BASE: Piece("noise of the device, standard crossbar"),
    "learned": Piece("+ input ranges learned", crossbar=LEARNED),
    "half": Piece("+ half the noise", scale={"end": 0.5}),
    "double": Piece("+ twice the noise", scale={"end": 2.0}),
    "triple": Piece("+ three times the noise", scale={"end": 3.0}),
    "ramp": Piece("+ noise ramped from 0", scale={"shape": "linear", "end": 1.0, "ramp": True}),
    "ramp-double": Piece("+ noise ramped from 0 to twice", scale={"shape": "linear", "end": 2.0, "ramp": True}),
    "jitter": Piece("+ random scale, 0 to twice", scale={"jitter": 1.0}),
    "decade": Piece("+ ages up to ten years", times=("1s", "10y")),
    "year": Piece("+ one age, a year", times=("1y",)),
    "stuck": Piece("+ stuck cells drawn per step", device="pcm+stuck-at"),
    "drop": Piece("+ drop-connect, 5 %", device="pcm+stuck-at(p_off=0.05,p_on=0.0)"),
    "clip-layer": Piece("+ clipped per layer at 2.5", clip=(2.5, 2.5)),
    "clip-narrow": Piece("+ clipped per layer at 1.5", clip=(1.5, 1.5)),
    "clip-column": Piece("+ clipped per column at 2", clip=(2.0, 2.0), per="column"),
    "clip-annealed": Piece("+ clipped per column, 4 to 1.5", clip=(4.0, 1.5), per="column"),
    "mean": Piece("+ two draws, mean", step=SeveralDraws(2)),
    "worst": Piece("+ two draws, worst", step=SeveralDraws(2, "worst")),
    "cvar": Piece("+ four draws, worst half", step=SeveralDraws(4, "cvar")),
    "sharpness": Piece("+ sharpness-aware, 1 std", step=SharpnessAware(1.0)),
    "sharpness-far": Piece("+ sharpness-aware, 3 std", step=SharpnessAware(3.0)),
    "average": Piece("+ moving average, 0.99", average=0.99),
}


def train(task: Task, piece: Piece, seed: int) -> tuple[nn.Module, nn.Module | None, float]:
    """A network trained so, the twin whose ranges it learned, and the processor time it took."""
    epoch, _, facts = batches_of(task)
    torch.manual_seed(seed)
    model = task.model(facts["shape"], facts["classes"])
    net: nn.Module = model
    parameters: list[Any] = list(model.parameters())
    shuffle = torch.Generator().manual_seed(seed)
    steps = task.epochs * len(epoch(shuffle))
    schedules: list[Any] = []
    if piece.device is not None:
        net = analogsim.convert(model, piece.device, crossbar=piece.crossbar)
        if piece.times is not None:
            analogsim.set_train_times(net, piece.times)
        if piece.crossbar == LEARNED:
            analogsim.calibrate(net, [inputs for _, (inputs, _) in zip(range(8), epoch(shuffle), strict=False)])
            parameters += analogsim.range_parameters(net)
        scale = dict(piece.scale)
        over = steps if scale.pop("ramp", False) else 1
        schedules.append(analogsim.NoiseSchedule(net, **{"end": 1.0, "steps": over, "seed": seed, **scale}))
    if piece.clip is not None:
        start, end = piece.clip
        schedules.append(analogsim.ClipSchedule(net, start=start, end=end, steps=steps, per=piece.per))  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(parameters, lr=task.lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    average = None
    if piece.average:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(piece.average))  # type: ignore[no-untyped-call]
    begun = time.process_time()
    net.train()
    for _ in range(task.epochs):
        for inputs, targets in epoch(shuffle):
            optimizer.zero_grad()
            piece.step(net, lambda x=inputs, y=targets: nn.functional.cross_entropy(net(x), y))  # type: ignore[misc]
            optimizer.step()
            decay.step()
            for schedule in schedules:
                schedule.step()
            if average is not None:
                average.update_parameters(model)
    spent = time.process_time() - begun
    trained = copy.deepcopy(average.module) if average is not None else model
    return trained.eval(), net if piece.crossbar == LEARNED else None, spent


def judge(model: nn.Module, learned: nn.Module | None, test: Any, chips: int) -> dict[str, Any]:
    """Its scores on chips of each device."""
    found: dict[str, Any] = {}
    for name, (device, t) in AFTER.items():
        twin = analogsim.convert(model, device, crossbar=STANDARD if learned is None else LEARNED)
        if learned is not None:
            analogsim.set_ranges(twin, analogsim.get_ranges(learned))
        report = analogsim.evaluate(twin, test, chips=chips, times=(t,))
        tail = float(report.quantile(report.tail)[0])
        found[name] = {"mean": float(report.mean[0]), "std": float(report.std[0]), "tail": tail, "clean": report.clean}
    return found


Known = Mapping[tuple[str, int], Mapping[str, Any]]
"""What was measured, by piece and seed."""


def summary(rows: Sequence[Mapping[str, Any]], name: str, on: str) -> str:
    """The table of a task, on crossbars of one kind."""
    known = {(row["piece"], row["seed"]): row for row in rows if (row["task"], row["on"]) == (name, on)}
    head = ["training", "seeds", "clean"]
    for after in AFTER:
        head += [after, "gain", "5th pct.", "std of chips"]
    lines = [_line(known, key) for key in PIECES if any(other == key for other, _ in known)]
    return f"{name}, input ranges {on}\n{table([*head, 'time'], lines)}"


def _line(known: Known, key: str) -> list[str]:
    """The row of a piece."""
    seeds = [seed for other, seed in known if other == key]
    first, *_ = AFTER
    line = [PIECES[key].told, str(len(seeds)), f"{_mean(known, key, first, 'clean'):.2f}"]
    for after in AFTER:
        line += [f"{_mean(known, key, after, 'mean'):.2f}", "" if key == BASE else _gain(known, key, after)]
        line += [f"{_mean(known, key, after, what):.2f}" for what in ("tail", "std")]
    pairs = [(known[key, seed], known["plain", seed]) for seed in seeds if ("plain", seed) in known]
    ratios = [mine["seconds"] / plain["seconds"] for mine, plain in pairs]
    return [*line, f"{np.median(ratios):.1f}" if ratios else ""]


def _mean(known: Known, key: str, after: str, what: str) -> float:
    """In percent, over seeds."""
    return 100 * float(np.mean([row["scores"][after][what] for (other, _), row in known.items() if other == key]))


def _gain(known: Known, key: str, after: str) -> str:
    """Over training with noise alone, seed by seed: mean and standard error."""
    pairs = [(known[key, seed], known[BASE, seed]) for other, seed in known if other == key and (BASE, seed) in known]
    gains = [100 * (mine["scores"][after]["mean"] - base["scores"][after]["mean"]) for mine, base in pairs]
    error = f" ± {np.std(gains, ddof=1) / len(gains) ** 0.5:.2f}" if len(gains) > 1 else ""
    return f"{np.mean(gains):+.2f}{error}" if gains else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and judge what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pieces", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=tuple(TASKS), default="digits")
    parser.add_argument("--only", help=f"of {', '.join(PIECES)}; default: all")
    parser.add_argument(
        "--on", choices=RANGES, default=RANGES[0], help="input ranges of the crossbar that all but plain see"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--chips", type=int, default=15)
    parser.add_argument("--epochs", type=int, help="other than the task's")
    parser.add_argument("--out", type=Path, default=Path("pieces.json"))
    parser.add_argument("--table", action="store_true", help="print what FILE has")
    options = parser.parse_args(arguments)
    names = options.only.split(",") if options.only else list(PIECES)
    unknown = [name for name in names if name not in PIECES]
    if unknown:
        parser.error(f"--only: there is no {unknown[0]!r}; there are {', '.join(PIECES)}")
    document = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {"rows": []}
    rows: list[dict[str, Any]] = document["rows"]
    if not options.table:
        task = TASKS[options.task]
        task = task if options.epochs is None else replace(task, epochs=options.epochs)
        _, test, _ = batches_of(task)
        for seed in range(options.seeds):
            for name in names:
                key = {"task": options.task, "on": options.on, "piece": name, "seed": seed}
                key |= {"epochs": task.epochs, "chips": options.chips}
                if any(all(row[field] == value for field, value in key.items()) for row in rows):
                    continue
                model, learned, spent = train(task, PIECES[name].on(options.on), seed)
                rows.append({**key, "seconds": spent, "scores": judge(model, learned, test, options.chips)})
                write(options.out, {**environment(torch.device("cpu")), "rows": rows})
    groups = dict.fromkeys((row["task"], row["on"]) for row in rows)
    print("\n\n".join(summary(rows, *group) for group in groups))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
