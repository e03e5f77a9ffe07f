"""Monte-Carlo over chips and times."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from analogsim.chip.compensation import (
    Adjustment,
    CalibrationData,
    CompensationLike,
    Compensations,
    Renew,
    as_compensations,
)
from analogsim.chip.lifecycle import Faults, as_seed, drift, programmed
from analogsim.conversion.digital import to_digital
from analogsim.conversion.first_forward import stop_watching
from analogsim.crossbar.crossbar import IDEAL
from analogsim.evaluation.metrics import Metric, MetricLike, as_metric
from analogsim.evaluation.report import Report
from analogsim.evaluation.scoring import Ask, ask_alone, find_alone, score_networks
from analogsim.evaluation.stacked_chips import Chips
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import matrices_of
from analogsim.layers.state import Uses
from analogsim.utils.batches import Data, Inputs
from analogsim.utils.nonfinite import Source
from analogsim.utils.times import DEFAULT_TIMES, label, seconds


@dataclass(frozen=True)
class _Course:
    """What every chip goes through.

    Args:
        analog: the twin.
        times: its ages, seconds.
        compensations: made at each of them.
        calibration: what they are made of.
        data: what is asked at each age.
        metric: what the answers are judged by.
        faults: known to be stuck, of a chip by its seed.
        masked: whether minus infinity stands in the answers of the digital network.
    """

    analog: nn.Module
    times: tuple[float, ...]
    compensations: Compensations
    calibration: CalibrationData
    data: Data
    metric: Metric
    faults: Callable[[int], Faults | None]
    masked: bool

    def of_one(self, seed: int) -> list[float]:
        """The scores of a chip at all times."""
        analog, gain = self.analog, self.compensations.gain
        values = []
        with programmed(analog, seed, faults=self.faults(seed)):
            for t in self.times:
                drift(analog, t, compensation=gain)
                # Undone after each age: ranges must not be measured through the batch norm of an earlier one.
                with ExitStack() as stack:
                    adjusted = [
                        _entered(stack, adjustment, analog, self.calibration)
                        for adjustment in self.compensations.adjustments
                    ]
                    with torch.no_grad():
                        for renew in adjusted:
                            renew()
                    find = find_alone(analog, _title(seed, t))
                    values += score_networks(ask_alone(analog), self.data, self.metric, find, masked=self.masked).values
        return values

    def side_by_side(self, seeds: Sequence[int]) -> list[list[float]]:
        """The scores of several chips, each at all times, taken through the network at once."""
        chips = Chips(self.analog, seeds, self.faults)
        columns = []
        for t in self.times:
            chips.drift(t, self.compensations.gain)
            find = partial(self._find_beside, seeds, t)
            columns.append(score_networks(chips.answers, self.data, self.metric, find, masked=self.masked).values)
        return [list(row) for row in zip(*columns, strict=True)]

    def _find_beside(self, seeds: Sequence[int], t: float, place: int, inputs: Inputs, ask: Ask) -> tuple[str, Source]:
        """See `Find`: of one of several chips, by itself."""
        seed = seeds[place]
        with programmed(self.analog, seed, t, compensation=self.compensations.gain, faults=self.faults(seed)):
            return find_alone(self.analog, _title(seed, t))(place, inputs, ask)


def _title(seed: int, t: float) -> str:
    return f"chip {seed} after {label(t)}"


def _entered(stack: ExitStack, adjustment: Adjustment, analog: nn.Module, data: CalibrationData) -> Renew:
    """What makes an adjustment on the chip as it is, until the stack is left."""
    block = adjustment.on_chip(analog, data)
    renew = stack.enter_context(block) if hasattr(block, "__exit__") else None
    if not callable(renew):
        got = "no block" if renew is None and not hasattr(block, "__exit__") else f"a block that gives {renew!r}"
        raise TypeError(
            f"evaluate: on_chip of the compensation {adjustment.name!r} must be a @contextmanager that yields a "
            f"function which makes the correction, got {got}"
        )
    return renew


def evaluate(
    analog: nn.Module,
    loader: Iterable[Any],
    *,
    chips: int = 25,
    times: Sequence[float | str] | None = None,
    metric: MetricLike = "accuracy",
    seed: int = 0,
    compensation: CompensationLike = "global",
    calibration: Iterable[Any] | None = None,
    faults: Faults | Callable[[int], Faults] | None = None,
    together: int = 1,
    progress: bool = False,
) -> Report:
    """What is left of a network: its score on many chips, each followed through time, beside the clean score.

    The chips are ``program(seed)``, ``program(seed + 1)``, ...: the same ones in every call. Chip, modes and
    Parameters of ``analog`` are as before afterwards.

    Args:
        analog: the twin from `convert`.
        loader: yields pairs ``(input, target)``, where the input is a tensor, a tuple of arguments or a mapping of
            keyword arguments; or mappings with ``"labels"``, as Hugging Face's collators make them. Tensors are moved
            to the model's torch device. Up to 1 GiB is kept in memory; more is read again for each chip and time.
        chips: how many chips.
        times: since programming, seconds or text, each at least 0. Default: one second, hour, day, month and year, as
            far as the devices' formulas go.
        metric: ``"accuracy"``, ``"cross_entropy"``, ``"loss"`` (the network's own, when it is given labels), a
            function of ``(output, target)`` that returns one score per sample, or their mean, an object with
            ``update(output, target)``, ``compute()`` and ``reset()``, or one of these with name, unit and direction:
            an `analogsim.evaluation.Metric`. The output is what the network returns, or the ``logits`` in it. Targets
            of -100 do not count, but for what a function of one's own does with them.
        seed: the first chip.
        compensation: ``"global"``, ``"crossbar"``, ``"column"`` or None, see `drift`; and what needs data, joined by
            ``+``: ``"batch-norm"`` (statistics estimated again on each chip at each time), ``"ranges"`` (calibrated
            ranges of converters set again; learned ones stay). ``"column+batch-norm"``, for example. Objects of
            `analogsim.chip.Gain` and `analogsim.chip.Adjustment` take the place of a name, also after a ``+``.
        calibration: the data for these: inputs, or tuples that begin with them, without use of labels. Not the data of
            the evaluation, or the result is no longer that of unseen data.
        faults: cells known to be stuck, see `program`: the same ones on each chip, or a function of the chip's seed,
            such as ``lambda seed: remap(analog, draw_faults(analog, "stuck-at", seed))``.
        together: how many chips go through the network at once, `torch.vmap` over their weights: the same scores but
            for rounding, less time where a forward leaves the hardware idle, more memory. Not for what is noisy from
            use to use (read noise, output noise), compensation from data, or networks that torch cannot map.
        progress: show a progress bar.

    Raises:
        ValueError: an empty loader or batch, no time or chip, an unknown metric, targets that it cannot take, a time
            before programming or one that a device has no formula for, chips together that cannot be.
        NonFiniteError: an answer or a score is NaN or infinite; it names the chip, the time, and the first layer that
            answered so. Minus infinity is let through where masks put it, also into the digital network's answers.
        BypassedError: no analog layer had a part in the answers.
        RuntimeError: torch cannot take several chips through this network at once.

    Warns:
        ConversionWarning: some analog layers had no part in the answers; `audit` tells more.
    """
    report, uses = judge_chips(
        analog,
        loader,
        chips=chips,
        times=times,
        metric=metric,
        seed=seed,
        compensation=compensation,
        calibration=calibration,
        faults=faults,
        together=together,
        progress=progress,
    )
    uses.warn("evaluate", stacklevel=2)
    return report


def judge_chips(
    analog: nn.Module,
    loader: Iterable[Any],
    *,
    chips: int,
    times: Sequence[float | str] | None,
    metric: MetricLike,
    seed: int,
    compensation: CompensationLike,
    calibration: Iterable[Any] | None,
    faults: Faults | Callable[[int], Faults | None] | None = None,
    together: int = 1,
    progress: bool = False,
    action: str = "evaluate",
) -> tuple[Report, Uses]:
    """What `evaluate` does, and which layers had a part in the answers, of which it says nothing yet.

    Args:
        analog: the twin; see `evaluate` for what follows.
        loader: the data.
        chips: how many.
        times: since programming.
        metric: the score.
        seed: the first chip.
        compensation: of drift, and what is made from data.
        calibration: the data for it.
        faults: known to be stuck.
        together: how many chips at once.
        progress: show a progress bar.
        action: in whose name an error is raised.

    Raises:
        BypassedError: none had.
    """
    _check_count("chips", chips)
    _check_count("together", together)
    if isinstance(times, str) or (times is not None and not len(times)):
        raise ValueError(f'evaluate: times must be a sequence such as ("1s", "1d"), got {times!r}')
    wanted = as_compensations(compensation)
    _check_compensations(wanted, analog, calibration, together)
    judged = as_metric(metric)
    first = as_seed(seed)
    layers = matrices_of(analog)
    instants = _instants(times, layers)
    data = Data(loader, layers[0].still()[0].device)
    # What is judged here looks for itself, at every chip.
    watching = [(module, watch) for module in analog.modules() for watch in stop_watching(module)]
    digital = to_digital(analog).eval()
    clean = score_networks(ask_alone(digital), data, judged, find_alone(digital, "the digital network"))
    course = _Course(
        analog=analog,
        times=instants,
        compensations=wanted,
        calibration=CalibrationData(digital, calibration, data.device),
        data=data,
        metric=judged,
        faults=_of_chips(faults),
        masked=clean.masked,
    )
    uses = Uses([matrix.analog for matrix in layers])
    seeds = range(first, first + chips)
    groups = [seeds[start : start + together] for start in range(0, chips, together)]
    values = []
    for group in _progress_bar(groups) if progress else groups:
        values += course.side_by_side(group) if together > 1 else [course.of_one(chip) for chip in group]
        uses.check(action)
    if uses.idle:  # which may have a part in training
        for module, watch in watching:
            watch.watch(module)
    report = Report(
        values=np.array(values),
        times=instants,
        clean=clean.values[0],
        metric=judged.name,
        device=", ".join(dict.fromkeys(_described(layer) for layer in layers)),
        seeds=tuple(seeds),
        compensation=wanted.text,
        chance=judged.by_chance(clean.classes),
        samples=clean.samples,
        unit=judged.unit,
        higher_is_better=judged.higher_is_better,
    )
    return report, uses


def _of_chips(faults: Faults | Callable[[int], Faults | None] | None) -> Callable[[int], Faults | None]:
    """The faults of a chip by its seed."""
    return faults if callable(faults) else lambda chip: faults


def _check_count(name: str, count: object) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"evaluate: {name} must be an integer >= 1, got {count!r}")


def _check_compensations(
    wanted: Compensations, analog: nn.Module, calibration: Iterable[Any] | None, together: int
) -> None:
    if wanted.needs_data and calibration is None:
        raise ValueError(f"evaluate: compensation {wanted.text!r} needs data: give calibration=, a loader of inputs")
    if wanted.needs_data and isinstance(calibration, Iterator):
        raise ValueError("evaluate: calibration can be read only once; give a DataLoader or a list of batches")
    wanted.check(analog, "evaluate")
    if together > 1 and wanted.adjustments:
        raise ValueError(
            f"evaluate: together={together} with compensation {wanted.text!r}, which is made for each chip by itself; "
            "leave out one of them"
        )


def _instants(times: Sequence[float | str] | None, layers: Sequence[AnalogMatrix]) -> tuple[float, ...]:
    """The times in seconds; by default as far as the devices' formulas go."""
    instants = _default_times(layers) if times is None else tuple(seconds(t) for t in times)
    for layer in layers:
        for t in instants:
            layer.analog.device.check_time(t)
    return instants


def _described(layer: AnalogMatrix) -> str:
    device, crossbar = layer.analog.device.name, layer.analog.crossbar
    return device if crossbar == IDEAL else f"{device} ({crossbar})"


def _default_times(layers: Sequence[AnalogMatrix]) -> tuple[float, ...]:
    """`DEFAULT_TIMES` as far as all devices go; programming itself, where they go nowhere."""
    spans = [layer.analog.device.times for layer in layers]
    first, last = max(span[0] for span in spans), min(span[1] for span in spans)
    return tuple(t for t in map(seconds, DEFAULT_TIMES) if first <= t <= last) or (0.0,)


def _progress_bar(groups: Sequence[range]) -> Iterable[range]:
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError('evaluate: progress=True needs tqdm; pip install "analogsim-torch[recipes]"') from None
    bar: Iterable[range] = tqdm(groups, desc="chips", unit="chip", leave=False)
    return bar
