"""Evaluate a trained network again: another device, more chips, other times.

analogsim evaluate runs/20260101-120000-digits-lenet5-pcm --device "gaussian(std=0.05)" --chips 100
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import analogsim
from analogsim.recipes import _data, _models
from analogsim.recipes._checkpoint import load_checkpoint, load_weights
from analogsim.recipes._config import from_mapping
from analogsim.recipes._options import Config
from analogsim.recipes._training import in_order, load_data, torch_device
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


def evaluate(
    path: Path,
    *,
    device: str | None = None,
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
        device: the device model; default: the one of the run. So are ``chips``, ``times`` and ``compensation``.
        chips: how many chips.
        times: since programming, in any order.
        compensation: "global" or "none".
        folder: where the data lie, if they moved.
        seed: the first chip.
        show: progress bars.

    Returns:
        A report for each network, by its name.

    Warns:
        UserWarning: the training of a network was stopped before its end.
    """
    reports = {}
    for name, file in checkpoints(path).items():
        content = load_checkpoint(file)
        config = from_mapping(Config, content["config"], source=f"checkpoint {str(file)!r}")
        if folder is not None:
            config = replace(config, data=replace(config.data, folder=folder))
        if content["epoch"] < config.optimization.epochs:
            warnings.warn(
                f"evaluate: the {name} network was stopped after {content['epoch']} of {config.optimization.epochs} "
                "epochs; go on with: analogsim train --resume",
                stacklevel=2,
            )
        data = load_data(config)
        model = _models.build(config.model, data.shape, data.classes, seed=config.seed)
        load_weights(model, content["model"], f"checkpoint {str(file)!r}")
        given: dict[str, Any] = {"chips": chips, "times": times, "compensation": compensation}
        rule = replace(config.evaluation, **{key: value for key, value in given.items() if value is not None})
        model.to(torch_device("cpu" if config.run_on == "cpu" else "auto"))  # a GPU that trained may be missing here
        analog = analogsim.convert(model, config.device if device is None else device)
        reports[name] = analogsim.evaluate(
            analog,
            _data.batches(data.test, rule.batch_size),
            chips=rule.chips,
            times=in_order(rule.times),
            compensation=None if rule.compensation == "none" else rule.compensation,
            seed=seed,
            progress=show,
        )
    return reports
