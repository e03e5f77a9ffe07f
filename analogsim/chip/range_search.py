"""Ranges of converters, found by what each layer then answers to data."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from analogsim.chip.calibration import calibrate, with_bias
from analogsim.chip.compensation import CompensationLike, gain_of
from analogsim.chip.layer_errors import FIRST_SEED, Ages, Chips, Trial, best_trial, chips_for, is_better, measure_layers
from analogsim.chip.ranges import ranges_as_they_are, set_ranges
from analogsim.errors import OperationError
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import matrices_of
from analogsim.utils.batches import batches_of
from analogsim.utils.checks import check_flag
from analogsim.utils.text import table

_PARTS = tuple(2 ** (-step / 3) for step in range(13))  # of the largest magnitude, down to a sixteenth
_AROUND = (0.63, 0.79, 1.26, 1.59)  # of what was found for the whole layer: the range of one block of it
_MOST_BLOCKS = 8  # that are looked at one by one


@dataclass(frozen=True)
class LayerRanges:
    """What was found for a layer.

    Args:
        layer: its name.
        input_range: now, in units of its input; that of each block of rows where they have their own.
        output_bound: now, in units of (input range x largest weight), likewise; None where it is none of calibration.
        error: mean squared error of the layer's outputs, relative to the variance of the digital ones; mean over chips.
        before: the same with the ranges of `calibrate`.
    """

    layer: str
    input_range: Tensor | None
    output_bound: Tensor | None
    error: float
    before: float


@dataclass(frozen=True)
class RangeSearch:
    """What `search_ranges` found; ``str()`` is a table. `get_ranges` has the ranges as values.

    Args:
        layers: each with ranges from calibration.
    """

    layers: tuple[LayerRanges, ...]

    def __str__(self) -> str:
        body = [
            (
                layer.layer or "(the model itself)",
                _told(layer.input_range),
                _told(layer.output_bound),
                f"{layer.error:.3g}",
                f"{layer.before:.3g}",
            )
            for layer in self.layers
        ]
        return table(("layer", "input range", "output bound", "error", "with calibrate"), body)


def _told(value: Tensor | None) -> str:
    if value is None:
        return "-"
    value = value.detach()  # a learned one takes part in autograd
    least, most = float(value.abs().min()), float(value.abs().max())
    return f"{least:.3g}" if least == most else f"{least:.3g} to {most:.3g}"


def search_ranges(
    analog: nn.Module,
    inputs: Iterable[Any],
    *,
    percentile: float = 99.99,
    keep_learned: bool = True,
    chips: int = 3,
    time: Ages | None = None,
    compensation: CompensationLike = "global",
    seed: int = FIRST_SEED,
) -> RangeSearch:
    """Set the ranges of converters that a crossbar leaves to calibration, by the error of what layers answer.

    `calibrate` takes a percentile of the magnitudes. Here the range of each layer is the one with which its outputs
    differ least from the digital network's, in the mean square, on a few chips and with exact inputs: a smaller one
    saturates more, and leaves smaller steps and less output noise beside what is read. The range of `calibrate` stays
    unless another one is better by 1 % of its error and by two standard errors over the chips. First the input range,
    as a part of the largest magnitude (of each block of rows its own); then that of each block around it, where a
    layer has at most eight; then the output bound. No labels are used. A chip that is programmed stays as it is, and
    has no part. Where no converter asks for it, nothing happens.

    Args:
        analog: the twin.
        inputs: one batch (a tensor, or a mapping of keyword arguments), or what yields some; 64 inputs suffice.
        percentile: of the ranges that it begins with, see `calibrate`.
        keep_learned: leave ranges that are learned, and have a value, as they are.
        chips: on how many chips.
        time: their ages, one or several, of which the mean counts; None: a second and a year, or as near to them as
            the devices' formulas go.
        compensation: a gain, see `drift`.
        seed: the first chip; by default no chip of an evaluation.

    Raises:
        ValueError, BypassedError: see `calibrate`. Ranges are as before then.
    """
    check_flag(keep_learned, "search_ranges: keep_learned")
    tried_on = chips_for(analog, chips, time, gain_of(compensation), seed, "search_ranges")
    batches = batches_of(inputs, kept=True)
    restore = ranges_as_they_are(analog)
    held = [(matrix.analog, matrix.analog.chip) for matrix in matrices_of(analog)]
    try:
        for state, _ in held:
            state.chip = None
        return _search(analog, batches, percentile, keep_learned, tried_on)
    except BaseException:
        restore()
        raise
    finally:
        for state, chip in held:
            state.chip = chip


def _search(
    analog: nn.Module, batches: Iterable[Any], percentile: float, keep_learned: bool, chips: Chips
) -> RangeSearch:
    kept = _kept(analog) if keep_learned else set()
    calibrate(analog, batches, percentile=100.0, keep_learned=keep_learned)
    most = {matrix: matrix.analog.input_range for matrix in matrices_of(analog)}
    calibrate(analog, batches, percentile=percentile, keep_learned=keep_learned)
    first = _first(analog, kept)
    if not first:
        return RangeSearch(())

    measured = partial(_measured, analog, batches, chips)
    ranged = [matrix for matrix in first if matrix.analog.crossbar.needs_range and matrix not in kept]
    whole = {matrix: [first[matrix], *_of_layer(matrix, first[matrix], most[matrix])] for matrix in ranged}
    found = first | {matrix: whole[matrix][best_trial(errors)] for matrix, errors in measured(whole).items()}
    single = {matrix: [found[matrix], *_of_blocks(matrix, found[matrix])] for matrix in ranged}
    joined = {matrix: [_joined(single[matrix], errors)] for matrix, errors in measured(single).items()}
    last = {
        matrix: [trial, found[matrix], *joined.get(matrix, ()), *_of_bound(found[matrix])]
        for matrix, trial in first.items()
    }
    return RangeSearch(
        tuple(_set(analog, matrix, last[matrix], errors) for matrix, errors in measured(last).items()),
    )


def _measured(
    analog: nn.Module, batches: Iterable[Any], chips: Chips, trials: Mapping[AnalogMatrix, Sequence[Trial]]
) -> dict[AnalogMatrix, Tensor]:
    """The errors of layers for which there is more than one trial."""
    wanted = {matrix: tried for matrix, tried in trials.items() if len(tried) > 1}
    return measure_layers(analog, batches, wanted, chips, "search_ranges") if wanted else {}


def _set(analog: nn.Module, matrix: AnalogMatrix, trials: Sequence[Trial], errors: Tensor) -> LayerRanges:
    """Set the ranges of the best trial, and say what they are."""
    place, state = best_trial(errors), matrix.analog
    ranges = {"input_range": trials[place].input_range, "output_bound": trials[place].output_bound}
    needed = {"input_range": state.crossbar.needs_range, "output_bound": state.crossbar.needs_bound}
    wanted = {kind: value for kind, value in ranges.items() if needed[kind] and value is not None}
    set_ranges(analog, {state.name: wanted})
    error, before = float(errors[place].mean()), float(errors[0].mean())
    return LayerRanges(state.name, state.input_range, state.output_bound, error, before)


def _kept(analog: nn.Module) -> set[AnalogMatrix]:
    """Those whose input range is learned and has a value."""
    return {
        matrix
        for matrix in matrices_of(analog)
        if matrix.analog.crossbar.learns and matrix.analog.input_range is not None
    }


def _first(analog: nn.Module, kept: Collection[AnalogMatrix]) -> dict[AnalogMatrix, Trial]:
    """What is searched for, with the ranges that it has."""
    found = {}
    for matrix in matrices_of(analog):
        crossbar = matrix.analog.crossbar
        if (crossbar.needs_range and matrix not in kept) or crossbar.needs_bound:
            found[matrix] = Trial.now(matrix.analog)
    return found


def _with_range(matrix: AnalogMatrix, trial: Trial, wanted: Tensor) -> Trial:
    """Another input range, and the output bound that is the same current then."""
    wanted = with_bias(wanted.clone(), matrix) if matrix.analog.layout.bias_rows else wanted
    bound = trial.output_bound
    if matrix.analog.crossbar.needs_bound and bound is not None and trial.input_range is not None:
        bound = bound * (trial.input_range.detach().abs() / wanted)
    return replace(trial, input_range=wanted, output_bound=bound)


def _of_layer(matrix: AnalogMatrix, trial: Trial, most: Tensor | None) -> list[Trial]:
    """Input ranges that are one part of the largest magnitude of each block."""
    return [] if most is None else [_with_range(matrix, trial, most.detach().abs() * part) for part in _PARTS]


def _of_blocks(matrix: AnalogMatrix, trial: Trial) -> list[Trial]:
    """Other input ranges of one block of rows at a time."""
    now = trial.input_range
    if now is None or not now.ndim or len(now) > _MOST_BLOCKS:
        return []
    found = []
    for block in range(len(now)):
        for factor in _AROUND:
            other = now.detach().abs().clone()
            other[block] = other[block] * factor
            found.append(_with_range(matrix, trial, other))
    return found


def _joined(trials: Sequence[Trial], errors: Tensor) -> Trial:
    """The best range of each block, of trials that changed one of them at a time; blocks err by themselves."""
    now, bound = trials[0].input_range, trials[0].output_bound
    if now is None:  # pragma: no cover - blocks have ranges
        raise OperationError("no ranges")
    wanted = now.detach().abs().clone()
    for block in range(len(wanted)):
        first = 1 + block * len(_AROUND)
        place = first + int(errors[first : first + len(_AROUND)].mean(1).argmin())
        other = trials[place].input_range
        if other is not None and is_better(errors[0], errors[place], least=0.0):
            wanted[block] = other[block]
    if isinstance(bound, Tensor) and bound.ndim:
        bound = bound * (now.detach().abs() / wanted)
    return replace(trials[0], input_range=wanted, output_bound=bound)


def _of_bound(trial: Trial) -> list[Trial]:
    """Other output bounds from calibration."""
    bound = trial.output_bound
    if bound is None or not trial.crossbar.needs_bound:
        return []
    return [replace(trial, output_bound=bound * factor) for factor in (0.4, 0.5, *_AROUND, 2.0)]
