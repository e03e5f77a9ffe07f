"""What the options of a training stand for: torch device, data, times; and whether all of it can be."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

import torch
from torch import nn

from analogsim.chip.batch_norm import has_batch_norm
from analogsim.chip.compensation import as_compensations
from analogsim.crossbar import as_crossbar
from analogsim.device.parse import as_device_model
from analogsim.errors import InvalidValueError
from analogsim.evaluation import Metric
from analogsim.evaluation.metrics import MetricLike
from analogsim.evaluation.sampling.rounds import as_plan
from analogsim.recipes.config.options import Config
from analogsim.recipes.tasks import data_sets, networks
from analogsim.recipes.tasks.data_sets import Splits
from analogsim.recipes.tasks.networks import Model
from analogsim.recipes.tasks.references import is_reference, named, refuse_unnamed
from analogsim.recipes.tasks.task import TASKS, Task, as_task, load_metric
from analogsim.recipes.tasks.weights import check_file
from analogsim.recipes.training.methods import method_of
from analogsim.utils.times import DEFAULT_TIMES, seconds

Options = TypeVar("Options", bound=Config)
AUTO = "auto"


def torch_device(run_on: str) -> torch.device:
    """The torch device for ``run_on``: "auto" takes a GPU where there is one.

    Raises:
        ValueError: cuda was asked for, and there is none.
    """
    if run_on == "cuda" and not torch.cuda.is_available():
        raise InvalidValueError('run_on: "cuda" was asked for, but torch finds no GPU; use "auto" or "cpu"')
    return torch.device("cuda" if run_on != "cpu" and torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Given:
    """What is handed over in place of what the options name: values in Python, or names again.

    Args:
        model: see `networks.make_network`.
        data: see `data_sets.load`.
        task: see `as_task`.
        metric: see `load_metric`.
    """

    model: Model | None = None
    data: Any = None
    task: str | Task | None = None
    metric: MetricLike | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """What of it is there."""
        return tuple(name for name in ("model", "data", "task", "metric") if getattr(self, name) is not None)

    def described(self, config: Options) -> Options:
        """The options with what it is called in their place: where it was imported from, or its text."""
        texts: dict[str, Any] = {name: _called(getattr(self, name)) for name in self.options if name != "data"}
        data = config.data if self.data is None else replace(config.data, name=_called(self.data))
        return replace(config, **texts, data=data)


NOTHING = Given()


def _called(value: Any) -> str:
    if isinstance(value, Splits | Metric) or (isinstance(value, Task) and value.name in TASKS):
        return value.name
    return "your own" if isinstance(value, tuple | list | dict) else named(value)


def load_data(config: Config, given: Given = NOTHING) -> Splits:
    """The data that the options name, with the task and the metric that they name.

    Args:
        config: the options.
        given: what takes their place.

    Raises:
        ValueError: the evaluation at the end is not possible with the metric.
    """
    rule = config.data
    splits = data_sets.load(
        rule.name if given.data is None else given.data,
        rule.folder,
        download=rule.download,
        validation=rule.validation,
        seed=config.seed,
        limit=rule.limit,
        task=config.task if given.task is None else given.task,
    )
    metric = config.metric if given.metric is None else given.metric
    if metric is not None:
        splits = replace(splits, task=splits.task.judged_by(load_metric(metric)))
    as_plan(**config.evaluation.counts, together=1, metric=splits.task.metric)
    return splits


def refuse_stored_code(config: Config, given: Collection[str], command: str, where: str) -> None:
    """Refuse options of a file that the user did not write, where they name code that nobody named in this command.

    Args:
        config: the options in the file.
        given: which of ``"model"``, ``"data"``, ``"task"`` and ``"metric"`` are named anew.
        command: to which they are to be added.
        where: the file, for the message.

    Raises:
        ValueError: with the command to type.
    """
    data = config.data.name if data_sets.names_code(config.data.name) else None
    stored = {"model": config.model, "data": data, "task": config.task, "metric": config.metric}
    refuse_unnamed({option: text for option, text in stored.items() if option not in given}, command, where)


def in_order(times: Sequence[str]) -> tuple[str, ...]:
    """Times after programming, the earliest first: a drift curve is drawn along them.

    Raises:
        ValueError: there is none, one is no time, or two are the same.
    """
    if not times:
        raise InvalidValueError("evaluation.times: give at least one time")
    ordered = sorted(times, key=seconds)
    for first, second in itertools.pairwise(ordered):
        if seconds(first) == seconds(second):
            raise InvalidValueError(f"evaluation.times: {first!r} and {second!r} are the same time; give each once")
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
    wanted = as_compensations(_said(config)).names
    if "ranges" in wanted and not as_crossbar(config.crossbar).calibrates:
        raise InvalidValueError(
            f"evaluation.compensation: {config.evaluation.compensation!r} sets ranges again, and crossbar="
            f"{config.crossbar!r} leaves none to calibration; take a crossbar such as "
            "\"standard(input_range='calibrated')\", or another compensation"
        )
    if "batch-norm" in wanted and not (is_reference(config.model) or _normalises(config.model, config.data.name)):
        raise _no_batch_norm(config)


def check_network(config: Config, model: nn.Module) -> None:
    """What of `check_evaluation` takes the network itself, where it is a user's own.

    Raises:
        ValueError: which option, and what it may be.

    Warns:
        UserWarning: the network has batch norm, and its statistics are not estimated again.
    """
    again, normalises = "batch-norm" in as_compensations(_said(config)).names, has_batch_norm(model)
    if again and not normalises:
        raise _no_batch_norm(config)
    asked = config.evaluation.compensation
    if normalises and not again and not _left(config):
        left = "none" if asked is None else asked
        warnings.warn(
            f"evaluation.compensation: the network has batch norm, whose statistics are others on chips, and {left!r} "
            f"keeps them; {'' if asked is None else f'{left}+'}batch-norm estimates them again on each chip",
            stacklevel=2,
        )


def compensation_of(config: Config, model: nn.Module) -> str | None:
    """The compensation with which a network is judged.

    Args:
        config: says which, or leaves it to the network.
        model: the network.
    """
    return f"{_said(config)}+batch-norm" if _left(config) and has_batch_norm(model) else _said(config)


def _left(config: Config) -> bool:
    return config.evaluation.compensation == AUTO


def _said(config: Config) -> str | None:
    """The compensation that is said, or the gain of the one that the network decides."""
    return "global" if _left(config) else config.evaluation.compensation


def _no_batch_norm(config: Config) -> ValueError:
    return InvalidValueError(
        f"evaluation.compensation: {config.evaluation.compensation!r} is for networks with batch norm, and model="
        f"{config.model!r} has none; leave batch-norm out"
    )


@cache
def _normalises(model: str, data: str) -> bool:
    """Whether a network by name has batch norm; True where its data have yet to be read, and `check_network` looks."""
    if data not in data_sets.SHAPES:
        return True
    shape, classes = data_sets.SHAPES[data]
    return has_batch_norm(networks.build(model, shape, classes, seed=0))


def _check_noise(config: Config) -> None:
    noise, device = config.noise, as_device_model(config.noise.device or config.device)
    if noise.clip_start is not None and noise.clip_sigmas is None:
        raise InvalidValueError(
            f"noise.clip_start={noise.clip_start:g} is where the limit starts, and noise.clip_sigmas=none sets "
            "none; give both, or none of them"
        )
    if noise.times is None:
        return
    ages = [seconds(time) for time in noise.times]
    if not ages or min(ages) <= 0 or (len(ages) == 2 and ages[0] > ages[1]):
        raise InvalidValueError(
            f"noise.times: must be ages above 0, and a range from the earlier to the later, got {list(noise.times)}"
        )
    for age in ages:
        device.check_time(age)


def check(config: Config, given: Given = NOTHING) -> None:
    """Whatever can be wrong in the options and is cheap to see, before any work; code that they name is imported.

    Args:
        config: the options.
        given: what takes the place of some.

    Raises:
        ValueError: which option, and what it may be.
        FileNotFoundError, ImportError, TypeError: what an option names is not there, or is something else.
    """
    networks.check_model(config.model if given.model is None else given.model)
    data_sets.check_name(config.data.name if given.data is None else given.data)
    task, metric = given.task or config.task, config.metric if given.metric is None else given.metric
    if task is not None:
        as_task(task)
    if metric is not None:
        load_metric(metric)
    if config.weights is not None:
        check_file(config.weights)
    elif config.optimization.epochs == 0 and given.model is None and not is_reference(config.model):
        raise InvalidValueError(
            f"optimization.epochs=0 puts a network on chips as it is, and model={config.model!r} starts at random; "
            "give weights=FILE, or train it"
        )
    as_device_model(config.device)
    if config.noise.device is not None:
        as_device_model(config.noise.device)
    as_crossbar(config.crossbar)
    as_device_model(config.device).check_time(seconds(config.evaluation.validation_time))
    check_evaluation(config)
    method_of(config.training.step)
    _check_noise(config)
    if config.noise.shape == "exponential" and not (config.noise.start > 0 and config.noise.end > 0):
        raise InvalidValueError("noise.shape=exponential needs noise.start and noise.end > 0")
