"""Networks of a run, put on a chip again: as the run had it, or with something else in its place."""

from __future__ import annotations

import argparse
import shlex
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import nn

import analogsim
from analogsim.chip.ranges import Ranges, set_ranges
from analogsim.crossbar import Crossbar
from analogsim.errors import MissingFileError
from analogsim.evaluation.metrics import MetricLike
from analogsim.evaluation.monte_carlo import Clean
from analogsim.recipes.config.hardware import array_of
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.stored import from_stored
from analogsim.recipes.tasks.loaders import Loader
from analogsim.recipes.tasks.networks import Model, make_network
from analogsim.recipes.tasks.task import Task
from analogsim.recipes.training.checkpoint import load_checkpoint, load_weights
from analogsim.recipes.training.ranges import calibrate, calibration_batches, needs_ranges
from analogsim.recipes.training.setup import (
    Given,
    check_evaluation,
    check_network,
    compensation_of,
    load_data,
    refuse_stored_code,
    report_times,
    torch_device,
)


class Asked(TypedDict, total=False):
    """How to evaluate the networks of a run; what is left out, or None, is as the run has it.

    Args:
        device: the device model.
        crossbar: array, converters and wires.
        chips: how many chips; with a precision the most.
        precision: of the mean, see `analogsim.evaluate`.
        samples_per_chip: that each is asked, or "auto".
        times: since programming, in any order.
        compensation: all that `analogsim.evaluate` takes, and "none"; where it needs data, they are training data.
        folder: where the data lie, if they moved.
        seed: the first chip; default 0.
        model: the network, a name, ``file.py:factory`` or itself; the weights are the run's.
        data: the data, by their name or themselves.
        task: what was learned.
        metric: what is judged by.
        trust: whether code that the checkpoint names may be run; what is named here is run anyway.
    """

    device: str | None
    crossbar: str | None
    chips: int | None
    precision: float | None
    samples_per_chip: int | str | None
    times: Sequence[str] | None
    compensation: str | None
    folder: str | None
    seed: int
    model: Model | None
    data: Any
    task: str | Task | None
    metric: MetricLike | None
    trust: bool


@dataclass(frozen=True)
class Restored:
    """A network of a run.

    Args:
        analog: its twin, with the ranges that it needs.
        config: of the run, with what is asked for in its place.
        test: the data to judge it on.
        validation: the data to choose by.
        calibration: training data, for what needs data.
        task: what was learned, and what it is judged by.
        clean: what its clean score is the score of, see `analogsim.evaluate`: training saw converters or it did not.
        epoch: after which it is.
        run_id: of its MLflow run; None where it had none.
    """

    analog: nn.Module
    config: Config
    test: Iterable[Any]
    validation: Iterable[Any]
    calibration: Loader
    task: Task
    clean: Clean | None
    epoch: int = 0
    run_id: str | None = None


def checkpoints(path: Path, program: str = "evaluate") -> dict[str, Path]:
    """The checkpoints that a path names: a file, or all networks of a run's folder.

    Args:
        path: the file or the folder.
        program: which asks, for the error.

    Raises:
        FileNotFoundError: there is none.
    """
    if path.is_file():
        return {path.parent.name: path}
    # "plain" before "hardware-aware", as they were trained.
    found = {file.parent.name: file for file in sorted(path.glob("*/checkpoint.pt"), reverse=True)}
    if not found:
        raise MissingFileError(f"{program}: no checkpoint at {str(path)!r}; give a run's folder or a checkpoint file")
    return found


def _asked(config: Config, asked: Asked) -> Config:
    """The run's configuration with what is asked for in its place."""

    def given(**keys: str) -> dict[str, Any]:
        values = {option: asked.get(key) for option, key in keys.items()}
        return {option: value for option, value in values.items() if value is not None}

    counts = {"chips": "chips", "precision": "precision", "samples_per_chip": "samples_per_chip"}
    rule = replace(config.evaluation, **given(**counts, times="times", compensation="compensation"))
    if rule.precision is not None:  # chips are then the most
        rule = replace(rule, **given(most_chips="chips"))
    if asked.get("crossbar") not in (None, config.crossbar):  # where nothing was learned: as it is said
        config = replace(config, calibration=replace(config.calibration, learn_ranges=False))
    return replace(
        config,
        **given(device="device", crossbar="crossbar"),
        data=replace(config.data, **given(folder="folder")),
        evaluation=replace(rule, compensation=None if rule.compensation == "none" else rule.compensation),
    )


def restored(
    path: Path,
    asked: Asked,
    tell: Callable[[str], None],
    program: str = "evaluate",
    *,
    place: Callable[[Callable[[], torch.device]], torch.device] = lambda choose: choose(),
) -> Iterator[tuple[str, Restored]]:
    """Each network of a run by its name.

    Args:
        path: a run's folder, or one checkpoint file.
        asked: what takes the place of what the run had.
        tell: told a line where ranges of converters are not those of the run, and what was decided of the data.
        program: which asks, for errors and warnings.
        place: gives a process of several its own torch device, see `Group.place`.

    Raises:
        ValueError: what is asked for cannot be; or the checkpoint names code, and nobody asked for it.
    """
    given = Given(asked.get("model"), asked.get("data"), asked.get("task"), asked.get("metric"))
    told: set[str] = set()
    for name, file in checkpoints(path, program).items():
        content = load_checkpoint(file)
        run = from_stored(Config, content["config"], f"checkpoint {str(file)!r}")
        if content["epoch"] < run.optimization.epochs:
            warnings.warn(
                f"{program}: the {name} network was stopped after {content['epoch']} of {run.optimization.epochs} "
                "epochs; go on with: analogsim train --resume",
                stacklevel=3,
            )
        if not asked.get("trust"):
            command = f"analogsim {program} {shlex.quote(str(path))}"
            refuse_stored_code(run, given.options, command, f"checkpoint {str(file)!r}")
        config = _asked(given.described(run), asked)
        check_evaluation(config)
        data = load_data(config, given)
        for note in data.notes:
            if note not in told:
                tell(note)
        told.update(data.notes)
        named = config.model if given.model is None else given.model
        model = make_network(named, data.facts, seed=config.seed)
        check_network(config, model)
        rule = replace(config.evaluation, compensation=compensation_of(config, model))
        config = replace(config, evaluation=rule)
        load_weights(model, content["model"], f"checkpoint {str(file)!r}")
        wanted = "cpu" if config.run_on == "cpu" else "auto"
        model.to(place(partial(torch_device, wanted)))  # a GPU that trained may be missing here
        then, now = (array_of(each, aware=content["aware"]) for each in (run, config))
        analog = analogsim.convert(model, config.device, crossbar=now)
        batches = calibration_batches(config, data)
        stored = (content.get("ranges") or [{}])[0] if now == then else {}
        note = _give_ranges(analog, now, stored, config, batches, same=config.device == run.device)
        if note:
            tell(f"{name}: {note}")
        test, validation = (data.batches(part, config.evaluation.batch_size) for part in (data.test, data.validation))
        clean: Clean | None = None if content["aware"] and then.learns else "digital"
        yield (
            name,
            Restored(analog, config, test, validation, batches, data.task, clean, content["epoch"], content["run_id"]),
        )


def _give_ranges(
    analog: nn.Module, array: Crossbar, ranges: Ranges, config: Config, batches: Loader, *, same: bool
) -> str:
    """Give a twin the ranges of the checkpoint where they fit, and say what was done where they do not.

    Args:
        analog: the twin.
        array: that it is on.
        ranges: of the checkpoint, if it is of such an array.
        config: says which percentile fits.
        batches: training data.
        same: whether the device is the one of the checkpoint.
    """
    if not needs_ranges(array):
        return ""
    if ranges and same:
        set_ranges(analog, ranges)
        return ""
    # On another device bounds may have another unit: what is the largest weight is a matter of the mapping.
    calibrate(analog, array, config, batches, learned=ranges)
    if not (ranges and array.learns):
        return "ranges of converters were set on training data"
    return "output bounds were set on training data" if array.needs_bound else ""


def judging(network: Restored, asked: Asked) -> dict[str, Any]:
    """The arguments of `analogsim.evaluate` by which a network is judged."""
    rule = network.config.evaluation
    return {
        "chips": rule.chips,
        "times": report_times(network.config),
        "compensation": rule.compensation,
        "calibration": network.calibration,
        "metric": network.task.metric,
        "seed": asked.get("seed", 0),
    }


def add_judging(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """The arguments that say which run to judge, and on which chips.

    Args:
        parser: gets them.
        optional: whether the run may be left out.
    """
    parser.add_argument(
        "run", metavar="RUN", nargs="?" if optional else None, help="a run's folder, or a checkpoint file"
    )
    parser.add_argument("--device", help="device model; default: the run's")
    parser.add_argument("--crossbar", help="array, converters and wires; default: the run's")
    parser.add_argument("--chips", type=int, help="how many chips; default: the run's")
    parser.add_argument("--compensation", help='such as "column" or "global+batch-norm", or none; default: the run\'s')
    parser.add_argument("--folder", help="where the data lie")
    parser.add_argument("--seed", type=int, default=0, help="the first chip; default: 0")
    parser.add_argument("--metric", help="what is judged by, a name or file.py:score; default: the run's")
    for option, what in (("model", "network"), ("data", "data"), ("task", "task")):
        parser.add_argument(f"--{option}", help=f"the {what} of the run, named again: code in a run is not run unasked")
    parser.add_argument("--trust", action="store_true", help="run whatever code the run names")


def asked_by(options: argparse.Namespace, times: Sequence[str] | None) -> Asked:
    """What the arguments of `add_judging` ask for.

    Args:
        options: as they were given.
        times: since programming; None for those of the run.
    """
    return {
        "device": options.device,
        "crossbar": options.crossbar,
        "chips": options.chips,
        "precision": getattr(options, "precision", None),
        "samples_per_chip": getattr(options, "samples_per_chip", None),
        "times": times,
        "compensation": options.compensation,
        "folder": options.folder,
        "seed": options.seed,
        "model": options.model,
        "data": options.data,
        "task": options.task,
        "metric": options.metric,
        "trust": options.trust,
    }
