"""Monte-Carlo over chips and times."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from analogsim.chip.batch_norm import has_batch_norm, own_statistics, reestimate_batch_norm
from analogsim.chip.calibration import calibrate
from analogsim.chip.compensation import Compensation
from analogsim.chip.lifecycle import Faults, as_seed, drift, programmed
from analogsim.conversion.digital import to_digital
from analogsim.crossbar.crossbar import IDEAL
from analogsim.errors import ConversionWarning
from analogsim.evaluation.metrics import Accumulator, Metric, MetricLike, as_metric, classes_axis
from analogsim.evaluation.report import Report
from analogsim.evaluation.stacked_chips import Chips
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import matrices_of
from analogsim.utils.batches import Data, Inputs, answer, call, inputs_of, loss_of, moved
from analogsim.utils.times import DEFAULT_TIMES, seconds


def _with_labels(inputs: Inputs, target: Tensor) -> Inputs:
    if not isinstance(inputs, Mapping):
        raise TypeError(
            "evaluate: the metric 'loss' hands labels to the network by name; give batches that are mappings with "
            f"'labels', got a pair of {type(inputs).__name__} and target"
        )
    return {**inputs, "labels": target}


def _ask(metric: Metric, targets: Tensor) -> Callable[[nn.Module, Inputs], Tensor]:
    """What is asked of a network: its answer, or its loss."""
    if metric.reads == "loss":
        return lambda model, inputs: loss_of(call(model, _with_labels(inputs, targets)))
    return lambda model, inputs: answer(call(model, inputs))


@torch.no_grad()
def _scores(
    networks: Callable[[Inputs, Callable[[nn.Module, Inputs], Tensor]], Iterable[Tensor]], data: Data, metric: Metric
) -> tuple[NDArray[np.float64], int, int | None]:
    """The score of each network, the number of samples, and that of classes.

    Args:
        networks: given inputs and how to ask, the answers of one network or several.
        data: the samples.
        metric: what is scored.
    """
    sums: list[Accumulator] = []
    samples, classes = 0, None
    for inputs, targets in data:
        for place, output in enumerate(networks(inputs, _ask(metric, targets))):
            if place == len(sums):
                sums.append(metric.begin(data.device))
            sums[place].update(output, targets)
            classes = None if output.ndim < 2 else output.shape[classes_axis(output, targets)]
        samples += len(targets)
    return np.array([metric.result(each) for each in sums]), samples, classes


def evaluate(
    analog: nn.Module,
    loader: Iterable[Any],
    *,
    chips: int = 25,
    times: Sequence[float | str] | None = None,
    metric: MetricLike = "accuracy",
    seed: int = 0,
    compensation: str | None = "global",
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
            ranges of converters set again; learned ones stay). ``"column+batch-norm"``, for example.
        calibration: the data for these: inputs, or tuples that begin with them, without use of labels. Not the data of
            the evaluation, or the result is no longer that of unseen data.
        faults: cells known to be stuck, see `program`: the same ones on each chip, or a function of the chip's seed,
            such as ``lambda seed: remap(analog, draw_faults(analog, "stuck-at", seed))``.
        together: how many chips go through the network at once, `torch.vmap` over their weights: the same scores but
            for rounding, less time where a forward leaves the hardware idle, more memory. Not for what is noisy from
            use to use (read noise, output noise), compensation from data, or networks that torch cannot map.
        progress: show a progress bar.

    Raises:
        ValueError: an empty loader, no time or chip, an unknown metric, a time before programming or one that a device
            has no formula for, chips together that cannot be.
        RuntimeError: torch cannot take several chips through this network at once.

    Warns:
        ConversionWarning: analog layers had no part in the answers; `audit` tells more.
    """
    if isinstance(chips, bool) or not isinstance(chips, int) or chips < 1:
        raise ValueError(f"evaluate: chips must be an integer >= 1, got {chips!r}")
    if isinstance(together, bool) or not isinstance(together, int) or together < 1:
        raise ValueError(f"evaluate: together must be an integer >= 1, got {together!r}")
    if isinstance(times, str) or (times is not None and not len(times)):
        raise ValueError(f'evaluate: times must be a sequence such as ("1s", "1d"), got {times!r}')
    wanted = _checked_compensation(compensation, analog, calibration)
    if together > 1 and wanted.from_data:
        raise ValueError(
            f"evaluate: together={together} with compensation {compensation!r}, which is made for each chip by itself; "
            "leave out one of them"
        )
    judged = as_metric(metric)
    first = as_seed(seed)
    layers = matrices_of(analog)
    instants = _default_times(layers) if times is None else tuple(seconds(t) for t in times)
    for layer in layers:
        for t in instants:
            layer.analog.device.check_time(t)
    data = Data(loader, layers[0].still()[0].device)
    digital = to_digital(analog).eval()
    scores, samples, classes = _scores(lambda inputs, ask: [ask(digital, inputs)], data, judged)
    values = np.empty((chips, len(instants)))
    seeds = tuple(range(first, first + chips))
    groups = [range(chips)[start : start + together] for start in range(0, chips, together)]
    bar = _progress_bar(groups) if progress else groups
    ranges = [(layer.analog, layer.analog.input_range, layer.analog.output_bound) for layer in layers]
    for layer in layers:
        layer.analog.used = False

    def known(chip: int) -> Faults | None:
        return faults(chip) if callable(faults) else faults

    try:
        for rows in bar:
            if together > 1:
                side_by_side = Chips(analog, [seeds[row] for row in rows], known)
                for column, t in enumerate(instants):
                    side_by_side.drift(t, wanted.gain)
                    values[rows, column], _, _ = _scores(side_by_side.answers, data, judged)
                continue
            (chip,) = (seeds[row] for row in rows)
            with (
                programmed(analog, chip, faults=known(chip)),
                own_statistics(analog) if wanted.batch_norm else nullcontext(),
            ):
                for column, t in enumerate(instants):
                    drift(analog, t, compensation=wanted.gain)
                    if wanted.ranges:
                        calibrate(analog, calibration or (), keep_learned=True)
                    if wanted.batch_norm:
                        batches = (moved(batch, data.device) for batch in inputs_of(calibration or ()))
                        reestimate_batch_norm(analog, batches)
                    values[rows, column], _, _ = _scores(lambda inputs, ask: [ask(analog, inputs)], data, judged)
    finally:
        for state, input_range, output_bound in ranges:
            state.input_range, state.output_bound = input_range, output_bound
    _warn_idle(layers)
    return Report(
        values=values,
        times=instants,
        clean=float(scores[0]),  # numpy's own would be in checkpoints, which then could not be read without pickle
        metric=judged.name,
        device=", ".join(dict.fromkeys(_described(layer) for layer in layers)),
        seeds=seeds,
        compensation=compensation,
        chance=judged.by_chance(classes),
        samples=samples,
        unit=judged.unit,
        higher_is_better=judged.higher_is_better,
    )


def _warn_idle(layers: Sequence[AnalogMatrix]) -> None:
    idle = [layer.analog.title for layer in layers if not layer.analog.used]
    if idle and len(idle) < len(layers):  # a compiled twin leaves no trace at all
        names = ", ".join(map(repr, idle[:5])) + (", ..." if len(idle) > 5 else "")
        warnings.warn(
            f"evaluate: analog layers without a part in the answers: {names}. Either the network does not use them in "
            "eval, or something reads their weights and takes the products digitally; see analogsim.audit and "
            "analogsim.register_routed",
            ConversionWarning,
            stacklevel=3,
        )


def _checked_compensation(
    compensation: str | None, analog: nn.Module, calibration: Iterable[Any] | None
) -> Compensation:
    wanted = Compensation.of(compensation)
    if wanted.from_data and calibration is None:
        raise ValueError(f"evaluate: compensation {compensation!r} needs data: give calibration=, a loader of inputs")
    if wanted.from_data and isinstance(calibration, Iterator):
        raise ValueError("evaluate: calibration can be read only once; give a DataLoader or a list of batches")
    if wanted.batch_norm and not has_batch_norm(analog):
        raise ValueError(f"evaluate: compensation {compensation!r}: the network has no batch norm")
    if wanted.ranges and not any(layer.analog.crossbar.calibrates for layer in matrices_of(analog)):
        raise ValueError(
            f"evaluate: compensation {compensation!r}: no crossbar leaves a range to calibration; give "
            'Crossbar(input_range="calibrated") or output_bound="calibrated"'
        )
    return wanted


def _described(layer: AnalogMatrix) -> str:
    device, crossbar = layer.analog.device.name, layer.analog.crossbar
    return device if crossbar == IDEAL else f"{device} ({crossbar})"


def _default_times(layers: Sequence[AnalogMatrix]) -> tuple[float, ...]:
    """`DEFAULT_TIMES` as far as all devices go; programming itself, where they go nowhere."""
    spans = [layer.analog.device.times for layer in layers]
    first, last = max(span[0] for span in spans), min(span[1] for span in spans)
    return tuple(t for t in map(seconds, DEFAULT_TIMES) if first <= t <= last) or (0.0,)


def _progress_bar(groups: list[range]) -> Iterable[range]:
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError('evaluate: progress=True needs tqdm; pip install "analogsim-torch[recipes]"') from None
    bar: Iterable[range] = tqdm(groups, desc="chips", unit="chip", leave=False)
    return bar
