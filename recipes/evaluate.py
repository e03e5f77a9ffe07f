"""Evaluate a trained network again: another device or crossbar, more chips, other times, or part by part.

analogsim evaluate runs/20260101-120000-digits-lenet5-pcm --device "gaussian(std=0.05)" --chips 100
analogsim evaluate runs/20260101-120000-digits-lenet5-pcm --crossbar standard --ablate
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

import analogsim
from analogsim.ablate import Ablation
from analogsim.recipes import _data, _models
from analogsim.recipes._checkpoint import load_checkpoint, load_weights
from analogsim.recipes._config import from_mapping
from analogsim.recipes._options import Config
from analogsim.recipes._training import load_data, report_times, torch_device
from analogsim.report import Report


def checkpoints(path: Path) -> dict[str, Path]:
    """The checkpoints that a path names: a file, or all networks of a run's folder.

    Raises:
        FileNotFoundError: there is none.
    """
    if path.is_file():
        return {path.parent.name: path}
    # "plain" before "hardware-aware", as they were trained.
    found = {file.parent.name: file for file in sorted(path.glob("*/checkpoint.pt"), reverse=True)}
    if not found:
        raise FileNotFoundError(f"evaluate: no checkpoint at {str(path)!r}; give a run's folder or a checkpoint file")
    return found


def _restored(
    path: Path,
    *,
    device: str | None,
    crossbar: str | None,
    chips: int | None,
    times: Sequence[str] | None,
    compensation: str | None,
    folder: str | None,
) -> Iterator[tuple[str, nn.Module, Iterable[Any], dict[str, Any]]]:
    """Each network of a run by its name, on its device, with its test data and how it is to be judged."""
    for name, file in checkpoints(path).items():
        content = load_checkpoint(file)
        config = from_mapping(Config, content["config"], source=f"checkpoint {str(file)!r}")
        if folder is not None:
            config = replace(config, data=replace(config.data, folder=folder))
        if content["epoch"] < config.optimization.epochs:
            warnings.warn(
                f"evaluate: the {name} network was stopped after {content['epoch']} of {config.optimization.epochs} "
                "epochs; go on with: analogsim train --resume",
                stacklevel=3,
            )
        data = load_data(config)
        model = _models.build(config.model, data.shape, data.classes, seed=config.seed)
        load_weights(model, content["model"], f"checkpoint {str(file)!r}")
        given: dict[str, Any] = {"chips": chips, "times": times, "compensation": compensation}
        rule = replace(config.evaluation, **{key: value for key, value in given.items() if value is not None})
        model.to(torch_device("cpu" if config.run_on == "cpu" else "auto"))  # a GPU that trained may be missing here
        where = replace(
            config,
            device=config.device if device is None else device,
            crossbar=config.crossbar if crossbar is None else crossbar,
            evaluation=rule,
        )
        judged = {
            "chips": rule.chips,
            "times": report_times(where),
            "compensation": None if rule.compensation == "none" else rule.compensation,
        }
        analog = analogsim.convert(model, where.device, crossbar=where.crossbar)
        yield name, analog, _data.batches(data.test, rule.batch_size), judged


def evaluate(
    path: Path,
    *,
    device: str | None = None,
    crossbar: str | None = None,
    chips: int | None = None,
    times: Sequence[str] | None = None,
    compensation: str | None = None,
    folder: str | None = None,
    seed: int = 0,
    show: bool = True,
) -> dict[str, Report]:
    """Evaluate the networks of a run on their test data.

    Args:
        path: a run's folder, or one checkpoint file.
        device: the device model; default: the one of the run. So it is for all that follow.
        crossbar: array, converters and wires.
        chips: how many chips.
        times: since programming, in any order.
        compensation: "global", "crossbar", "column" or "none".
        folder: where the data lie, if they moved.
        seed: the first chip.
        show: progress bars.

    Returns:
        A report for each network, by its name.

    Warns:
        UserWarning: the training of a network was stopped before its end.
    """
    restored = _restored(
        path, device=device, crossbar=crossbar, chips=chips, times=times, compensation=compensation, folder=folder
    )
    return {
        name: analogsim.evaluate(analog, loader, seed=seed, progress=show, **judged)
        for name, analog, loader, judged in restored
    }


def ablate(
    path: Path,
    *,
    device: str | None = None,
    crossbar: str | None = None,
    chips: int | None = None,
    times: Sequence[str] | None = None,
    compensation: str | None = None,
    folder: str | None = None,
    seed: int = 0,
) -> dict[str, Ablation]:
    """Evaluate the networks of a run with each non-ideality switched off in turn, see `analogsim.ablate`.

    Args:
        path: see `evaluate`, as for all that follow.
        device: the device model.
        crossbar: array, converters and wires.
        chips: how many chips.
        times: since programming.
        compensation: "global", "crossbar", "column" or "none".
        folder: where the data lie.
        seed: the first chip.
    """
    restored = _restored(
        path, device=device, crossbar=crossbar, chips=chips, times=times, compensation=compensation, folder=folder
    )
    return {name: analogsim.ablate(analog, loader, seed=seed, **judged) for name, analog, loader, judged in restored}
