r"""The ladder: what is left of plain and of hardware-aware networks on chips, task by task, device by device.

    python -m benchmarks.robust digits-mlp fashion-lenet5 --device pcm --crossbar standard --seeds 3 --chips 25 \
        --rows plain,gaussian,default --out ladder.json
    python -m benchmarks.robust --table ladder.json

A row says how a network is trained: ``plain``; ``gaussian``, under textbook noise of 5 % of the largest weight, which
knows of no crossbar; ``default``, as ``analogsim train`` does without options, for the device and crossbar that it will
run on; and any other one as ``name:KEY=VALUE,KEY=VALUE``. Each row is judged with each of ``--remedies``: a
compensation such as ``global+affine``, or ``prepare``, what `analogsim.prepare` keeps of all that it tries, or
``prepare(digital=0.13)``, where so much of the weights may stay digital. What FILE
has is not measured again, and trained networks lie in ``--work`` by what they were trained on, so that another device
trains the plain ones no second time.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

import analogsim
from analogsim.chip.compensation import CompensationLike
from analogsim.evaluation.report import Report
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import load_toml, to_mapping
from analogsim.recipes.tasks.data_sets import Splits
from analogsim.recipes.tasks.loaders import take
from analogsim.recipes.training.loop import Training
from analogsim.recipes.training.restored import restored
from analogsim.recipes.training.setup import check, load_data
from analogsim.utils.files import write_whole
from analogsim.utils.text import table
from benchmarks.harness.ladder import DEVICES, LADDER, settings_of
from benchmarks.harness.timing import environment, write

ROWS: Mapping[str, tuple[str, ...]] = {
    "plain": (),
    "gaussian": ("noise.device=gaussian(std=0.05)", "noise.shape=constant", "noise.end=1", "noise.clip_sigmas=none"),
    "default": (),
}
"""The settings of each row."""
PREPARE = "prepare"
_TO_CHOOSE = 1_000_000  # the first of the chips to choose by, see "Decisions" in CONTRIBUTING.md
_OF_NO_CHIP = ("plain", "gaussian")  # trained the same whatever they will run on


@dataclass(frozen=True)
class Row:
    """A way to train.

    Args:
        name: in tables.
        settings: of the recipe.
    """

    name: str
    settings: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> Row:
        """A row of `ROWS`, or ``name:KEY=VALUE,KEY=VALUE``.

        Raises:
            ValueError: there is no such row.
        """
        name, colon, settings = text.partition(":")
        if colon:
            return cls(name, tuple(_parted(settings)))
        if name not in ROWS:
            raise ValueError(f"rows: there is no {name!r}; there are {', '.join(ROWS)}, or name:KEY=VALUE,KEY=VALUE")
        return cls(name, ROWS[name])

    @property
    def aware(self) -> bool:
        """Whether it is trained with noise."""
        return self.name != "plain"

    @property
    def bound(self) -> bool:
        """Whether it is trained for the chip that it will run on."""
        return self.name not in _OF_NO_CHIP


def _parted(text: str) -> list[str]:
    """Parts between commas that stand in no parentheses."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


@dataclass(frozen=True)
class _Trained:
    path: Path
    data: Splits
    seconds: float


class Ladder:
    """Trains and judges what is not in the file yet.

    Args:
        out: the file of all cells; None keeps them in memory only.
        work: the folder of trained networks.
        settings: of all rows, such as ``"optimization.epochs=5"``.
        samples: of the test data, drawn once for all; None: all of them.
        chosen: judge on validation data and on chips that no final evaluation meets, to choose by.
        brought: by the name of a row, what gives a training the network that another tool has trained, and says how
            many seconds that took.
        show: told a line for each cell.
    """

    def __init__(
        self,
        out: Path | None,
        work: Path,
        settings: Sequence[str] = (),
        *,
        samples: int | None = None,
        chosen: bool = False,
        brought: Mapping[str, Callable[[Training], float]] = MappingProxyType({}),
        show: Callable[[str], object] = print,
    ) -> None:
        self.cells: list[dict[str, Any]] = []
        self._out, self._work = out, work
        self._settings, self._samples = tuple(settings), samples
        self._chosen, self._brought = chosen, brought
        self._show = show
        self._data: dict[str, Splits] = {}
        if out is not None and out.is_file():
            self.cells = json.loads(out.read_text(encoding="utf-8"))["cells"]

    def measure(
        self, task: str, row: Row, seed: int, *, device: str, crossbar: str, remedies: Iterable[str], chips: int
    ) -> list[dict[str, Any]]:
        """Train the network of a row, if nobody has, and judge it with each remedy.

        Args:
            task: of `LADDER`.
            row: how it is trained.
            seed: of training.
            device: of `DEVICES`, or any text of one.
            crossbar: that it runs on.
            remedies: compensations, or `PREPARE`.
            chips: how many.

        Returns:
            The cells of what is asked for, one for each remedy.
        """
        remedies = tuple(remedies)
        text, times = DEVICES.get(device, (device, ()))
        question = {"task": task, "row": row.name, "seed": seed, "device": device, "crossbar": crossbar}
        question |= {"chips": chips, "settings": [*row.settings, *self._settings], "samples": self._samples}
        left = [one for one in remedies if not self._known(question | {"remedy": one})]
        if not left:
            return [self._known(question | {"remedy": one})[0] for one in remedies]
        judged = [f"device={text}", f"crossbar={crossbar}", "evaluation.validation_chips=1", "tracking.enabled=false"]
        asked = [*settings_of(LADDER[task], self._work), *self._settings, f"seed={seed}", *row.settings]
        if times:
            judged.append(f"evaluation.times={json.dumps(times)}")
            judged.append(f"evaluation.validation_time={times[min(2, len(times) - 1)]}")
        whole = load_toml(Config, None, [*asked, *judged])
        check(whole)
        apart = whole if row.bound else load_toml(Config, None, asked)
        trained = self._trained(apart, row)
        for remedy in left:
            gain = remedy if digital_share(remedy) is None else "auto"
            config = replace(whole, evaluation=replace(whole.evaluation, compensation=gain))
            started = time.perf_counter()
            report = self._judge(config, trained.path, remedy, chips)
            cell = question | {"remedy": remedy, **_numbers(report, trained.data), "trained": trained.seconds}
            self._keep(cell | {"judged": time.perf_counter() - started})
        return [self._known(question | {"remedy": one})[0] for one in remedies]

    def _known(self, question: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [cell for cell in self.cells if all(cell.get(name) == value for name, value in question.items())]

    def _keep(self, cell: dict[str, Any]) -> None:
        self.cells.append(cell)
        if self._out is not None:
            write(self._out, {**environment(torch.device("cpu")), "cells": self.cells})
        where = " ".join(str(cell[name]) for name in ("task", "row", "seed", "device", "crossbar", "remedy"))
        scale = _scale(cell)
        clean, mean, std, tail = (scale * np.array(cell[name]) for name in ("clean", "mean", "std", "tail"))
        on_chips = " ".join(f"{m:.2f} ± {s:.2f}" for m, s in zip(mean, std, strict=True))
        took = f"trained {cell['trained']:.0f} s, judged {cell['judged']:.0f} s"
        self._show(f"{where}: clean {clean:.2f}, on chips {on_chips}, tail {tail[-1]:.2f}; {took}")

    def _load(self, config: Config) -> Splits:
        key = json.dumps([to_mapping(config.data), config.seed, config.task, config.metric])
        if key not in self._data:
            self._data = {key: load_data(config)}  # one at a time: they may be large
        return self._data[key]

    def _trained(self, config: Config, row: Row) -> _Trained:
        """The checkpoint of a row, trained if there is none; and the seconds that its epochs took."""
        data = self._load(config)
        versions = [analogsim.__version__, torch.__version__]
        bring = self._brought.get(row.name)
        other = [] if bring is None else [row.name]
        asked = json.dumps([to_mapping(config), row.aware, versions, *other], sort_keys=True)
        key = hashlib.sha256(asked.encode()).hexdigest()[:16]
        path = self._work / "networks" / key / "checkpoint.pt"
        took = path.with_name("seconds.json")
        training = Training(config, data, aware=row.aware, path=path)
        training.set_random_state()
        training.save()
        seconds = json.loads(took.read_text(encoding="utf-8")) if took.is_file() else []
        if bring is not None and not training.done:
            seconds = [bring(training)]
            write_whole(took, json.dumps(seconds))
        while not training.done:
            started = time.perf_counter()
            training.run_epoch(lambda _: None)
            seconds = [*seconds[: training.epoch - 1], time.perf_counter() - started]
            write_whole(took, json.dumps(seconds))
        return _Trained(path, data, sum(seconds))

    def _judge(self, config: Config, path: Path, remedy: str, chips: int) -> Report:
        """The report of a trained network on the chips of a configuration."""
        asked: Any = {"trust": True, "device": config.device, "crossbar": config.crossbar, "chips": chips}
        asked |= {"times": config.evaluation.times, "compensation": config.evaluation.compensation}
        ((_, network),) = restored(path, asked, lambda _: None)
        data = self._load(config)
        test = data.validation if self._chosen else data.test
        if self._samples is not None and self._samples < len(test):
            drawn = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[: self._samples]
            test = take(test, drawn)
        compensation: CompensationLike = network.config.evaluation.compensation
        analog = network.analog
        if (share := digital_share(remedy)) is not None:
            prepared = analogsim.prepare(analog, network.calibration, copies=1, digital=share)
            analog, compensation = prepared.analog, prepared.compensation
        return analogsim.evaluate(
            analog,
            data.batches(test, config.evaluation.batch_size),
            chips=chips,
            times=network.config.evaluation.times,
            metric=data.task.metric,
            compensation=compensation,
            calibration=network.calibration,
            clean=network.clean,
            seed=_TO_CHOOSE if self._chosen else 0,
        )


def digital_share(remedy: str) -> float | None:
    """The share of the weights that ``prepare`` or ``prepare(digital=0.13)`` may leave digital; None for others."""
    if remedy == PREPARE:
        return 0.0
    found = re.fullmatch(rf"{PREPARE}\(digital=([0-9.]+)\)", remedy)
    return float(found[1]) if found else None


def _numbers(report: Report, data: Splits) -> dict[str, Any]:
    """What a cell keeps of a report."""
    chance = report.chance
    if chance is None and report.metric == "bits_per_character":
        chance = math.log2(data.facts["vocabulary"])
    return {
        "times": list(report.labels),
        "metric": report.metric,
        "clean": report.clean,
        "digital": report.digital,
        "chance": chance,
        "mean": report.mean.tolist(),
        "std": np.nan_to_num(report.std).tolist(),
        "tail": report.quantile(report.tail).tolist(),
    }


def normalised(cell: Mapping[str, Any], clean: float, key: str = "mean") -> list[float] | None:
    """How far a cell's scores are from chance, relative to the clean plain network; None where chance is not known.

    Args:
        cell: of a ladder.
        clean: of the plain network.
        key: which scores, ``"mean"`` or ``"tail"``.
    """
    chance = cell["chance"]
    return None if chance is None else [(score - chance) / (clean - chance) for score in cell[key]]


def tables(cells: Sequence[Mapping[str, Any]]) -> str:
    """A table for each task, device and crossbar: rows and remedies, mean over seeds, and the last time normalised.

    By the clean score of the plain network, which is one whatever it runs on: where it was measured on other hardware
    alone, it is taken from there. Where it was not measured, a line below the table says so.
    """
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    plain: dict[str, list[Mapping[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["task"], cell["device"], cell["crossbar"]), []).append(cell)
        if cell["row"] == "plain":
            plain.setdefault(cell["task"], []).append(cell)
    return "\n\n".join(f"{', '.join(name)}\n{_table(group, plain.get(name[0], []))}" for name, group in groups.items())


def _table(group: Sequence[Mapping[str, Any]], trained: Sequence[Mapping[str, Any]]) -> str:
    """A table of cells, and the plain networks of the task on any hardware, of which each seed counts once."""
    rows: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for cell in group:
        rows.setdefault((cell["row"], cell["remedy"]), []).append(cell)
    plain = list({(cell["seed"], cell["samples"], *cell["settings"]): cell for cell in trained}.values())
    times = group[0]["times"]
    head = ("row", "compensation", "seeds", "clean", *times, f"5th pct. {times[-1]}", "std over seeds")
    lines = [(*name, *_line(found, plain)) for name, found in rows.items()]
    shown = table((*head, "normalised", "5th pct.", "training time"), lines, right=2)
    if plain:
        return shown
    return f"{shown}\nnot normalised, and no training time: no row {'plain'!r} of this task was measured"


def _line(found: Sequence[Mapping[str, Any]], plain: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a table says of the cells of a row, one of each seed, beside those of the plain network."""
    scale = _scale(found[0])
    mean, std, tail = (scale * np.mean([cell[key] for cell in found], axis=0) for key in ("mean", "std", "tail"))
    ends = [scale * cell["mean"][-1] for cell in found]
    clean = _mean(plain, "digital") if plain else None
    return [
        str(len(found)),
        f"{scale * _mean(found, 'clean'):.2f}",
        *(f"{m:.2f} ± {s:.2f}" for m, s in zip(mean, std, strict=True)),
        f"{tail[-1]:.2f}",
        f"{np.std(ends, ddof=1):.2f}" if len(ends) > 1 else "",
        *(_share(found, clean, key) for key in ("mean", "tail")),
        f"{_mean(found, 'trained') / _mean(plain, 'trained'):.2f}x" if plain else "",
    ]


def _scale(cell: Mapping[str, Any]) -> float:
    """What scores are shown times: shares are, in percent."""
    return 1.0 if cell["metric"] == "bits_per_character" else 100.0


def _mean(cells: Sequence[Mapping[str, Any]], key: str) -> float:
    return float(np.mean([cell[key] for cell in cells]))


def _share(found: Sequence[Mapping[str, Any]], clean: float | None, key: str) -> str:
    shares = [None if clean is None else normalised(cell, clean, key) for cell in found]
    known = [share[-1] for share in shares if share is not None]
    return f"{np.mean(known):.3f}" if known else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for, a line a cell, and print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.robust", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", help=f"of {', '.join(LADDER)}")
    parser.add_argument("--device", nargs="+", default=["pcm"], help=f"of {', '.join(DEVICES)}, or the text of one")
    parser.add_argument("--crossbar", nargs="+", default=["standard"], help="array, converters and wires")
    parser.add_argument("--rows", type=_parted, default=list(ROWS), metavar="A,B", help="how networks are trained")
    parser.add_argument("--row", action="append", default=[], metavar="NAME:KEY=VALUE,...", help="one more row")
    parser.add_argument(
        "--remedies",
        type=_parted,
        default=["global"],
        metavar="A,B",
        help="compensations, prepare, or prepare(digital=0.1): with so much of the weights digital",
    )
    parser.add_argument("--seeds", type=int, default=3, help="training seeds, from 0 on")
    parser.add_argument("--chips", type=int, default=25)
    parser.add_argument("--epochs", type=int, help="of all rows (default: the task's own)")
    parser.add_argument("--limit", type=int, help="samples of each part of the data (default: all)")
    parser.add_argument("--samples", type=int, help="of the test data (default: all)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings of all rows")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON of all cells, gone on with where it is there")
    parser.add_argument("--work", type=Path, default=Path("data/robust"), help="trained networks and unpacked data")
    parser.add_argument("--table", type=Path, metavar="FILE", help="only print the tables of a file")
    options = parser.parse_args(arguments)
    if options.table is not None:
        print(tables(json.loads(options.table.read_text(encoding="utf-8"))["cells"]))
        return 0
    unknown = set(options.tasks) - set(LADDER)
    if unknown or not options.tasks:
        parser.error(f"there is no task {', '.join(sorted(unknown))!r}; there are {', '.join(LADDER)}")
    try:
        rows = [Row.read(text) for text in (*options.rows, *options.row)]
    except ValueError as error:
        parser.error(str(error))
    settings = [*options.set]
    settings += [] if options.epochs is None else [f"optimization.epochs={options.epochs}"]
    settings += [] if options.limit is None else [f"data.limit={options.limit}"]
    ladder = Ladder(options.out, options.work, settings, samples=options.samples, show=partial(print, flush=True))
    asked = itertools.product(options.tasks, range(options.seeds), rows, options.device, options.crossbar)
    for task, seed, row, device, crossbar in asked:
        where = {"device": device, "crossbar": crossbar}
        ladder.measure(task, row, seed, **where, remedies=options.remedies, chips=options.chips)
    print(f"\n{tables(ladder.cells)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
