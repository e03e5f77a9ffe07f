"""What the options of a training stand for: torch device, data, times; and whether all of it can be."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import cache

import torch

from analogsim.chip.batch_norm import has_batch_norm
from analogsim.chip.compensation import as_compensations
from analogsim.crossbar import as_crossbar
from analogsim.device.parse import as_device_model
from analogsim.recipes.config.options import Config
from analogsim.recipes.tasks import data_sets, networks
from analogsim.recipes.tasks.data_sets import Splits
from analogsim.utils.times import DEFAULT_TIMES, seconds


def torch_device(run_on: str) -> torch.device:
    """The torch device for ``run_on``: "auto" takes a GPU where there is one.

    Raises:
        ValueError: cuda was asked for, and there is none.
    """
    if run_on == "cuda" and not torch.cuda.is_available():
        raise ValueError('run_on: "cuda" was asked for, but torch finds no GPU; use "auto" or "cpu"')
    return torch.device("cuda" if run_on != "cpu" and torch.cuda.is_available() else "cpu")


def load_data(config: Config) -> Splits:
    """The data that the options name."""
    rule = config.data
    return data_sets.load(
        rule.name,
        rule.folder,
        download=rule.download,
        validation=rule.validation,
        seed=config.seed,
        limit=rule.limit,
    )


def in_order(times: Sequence[str]) -> tuple[str, ...]:
    """Times after programming, the earliest first: a drift curve is drawn along them.

    Raises:
        ValueError: there is none, one is no time, or two are the same.
    """
    if not times:
        raise ValueError("evaluation.times: give at least one time")
    ordered = sorted(times, key=seconds)
    for first, second in itertools.pairwise(ordered):
        if seconds(first) == seconds(second):
            raise ValueError(f"evaluation.times: {first!r} and {second!r} are the same time; give each once")
    return tuple(ordered)


def report_times(config: Config) -> tuple[str, ...]:
    """The times of the final evaluation, in order; of the default ones those that the device has formulas for.

    Raises:
        ValueError: see `in_order`; or a time that the device has no formula for.
    """
    device = as_device_model(config.device)
    times = in_order(config.evaluation.times)
    first, last = device.times
    if times == DEFAULT_TIMES:
        times = tuple(time for time in times if first <= seconds(time) <= last) or ("0s",)
    for time in times:
        device.check_time(seconds(time))
    return times


def check_evaluation(config: Config) -> None:
    """Whatever can be wrong in how networks are judged, and is cheap to see.

    Raises:
        ValueError: which option, and what it may be.
    """
    report_times(config)
    wanted = as_compensations(config.evaluation.compensation).names
    if "ranges" in wanted and not as_crossbar(config.crossbar).calibrates:
        raise ValueError(
            f"evaluation.compensation: {config.evaluation.compensation!r} sets ranges again, and crossbar="
            f"{config.crossbar!r} leaves none to calibration; take a crossbar such as "
            "\"standard(input_range='calibrated')\", or another compensation"
        )
    if "batch-norm" in wanted and not _normalises(config.model, config.data.name):
        raise ValueError(
            f"evaluation.compensation: {config.evaluation.compensation!r} is for networks with batch norm, and model="
            f"{config.model!r} has none; leave batch-norm out"
        )


@cache
def _normalises(model: str, data: str) -> bool:
    shape, classes = data_sets.SHAPES.get(
        data, data_sets.SHAPES["digits"]
    )  # an unknown name is told where data are loaded
    return has_batch_norm(networks.build(model, shape, classes, seed=0))


def check(config: Config) -> None:
    """Whatever can be wrong in the options and is cheap to see, before any work.

    Raises:
        ValueError: which option, and what it may be.
    """
    as_device_model(config.device)
    if config.noise.device is not None:
        as_device_model(config.noise.device)
    as_crossbar(config.crossbar)
    as_device_model(config.device).check_time(seconds(config.evaluation.validation_time))
    check_evaluation(config)
    if config.noise.shape == "exponential" and not (config.noise.start > 0 and config.noise.end > 0):
        raise ValueError("noise.shape=exponential needs noise.start and noise.end > 0")
