"""The largest weight of each layer, found by what the layer then answers to data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from analogsim.chip.compensation import CompensationLike, gain_of
from analogsim.chip.layer_errors import FIRST_SEED, Ages, Trial, best_trial, chips_for, measure_layers
from analogsim.chip.lifecycle import erase
from analogsim.device.model import DeviceModel
from analogsim.device.parse import with_mapping
from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import matrices_of
from analogsim.utils.batches import batches_of
from analogsim.utils.text import table

PERCENTILES = (100.0, 99.9, 99.5, 99.0, 98.0, 96.0, 93.0, 90.0, 85.0, 80.0)
"""What is tried besides what a layer has."""


@dataclass(frozen=True)
class LayerPercentile:
    """What was found for a layer.

    Args:
        layer: its name.
        percentile: of the magnitudes, which counts as the largest weight now.
        before: what it was.
        errors: by percentile tried, the mean squared error of the layer's outputs, relative to the variance of the
            digital ones; mean over chips. The first is as it was.
    """

    layer: str
    percentile: float
    before: float
    errors: Mapping[float, float]

    @property
    def gained(self) -> float:
        """Which part of the error it took away."""
        before = self.errors[self.before]
        return 1 - self.errors[self.percentile] / before if before else 0.0


@dataclass(frozen=True)
class PercentileSearch:
    """What `search_percentile` found; ``str()`` is a table.

    Args:
        layers: each.
        devices: what each lies on now, by its name: ``convert(model, found.devices)`` gives such a twin again.
    """

    layers: tuple[LayerPercentile, ...]
    devices: Mapping[str, DeviceModel]

    @property
    def changed(self) -> bool:
        """Whether any layer's largest weight is another one now."""
        return any(layer.percentile != layer.before for layer in self.layers)

    def __str__(self) -> str:
        head = ("layer", "percentile", "before", "error", "before", "taken away")
        body = [
            (
                layer.layer or "(the model itself)",
                f"{layer.percentile:g}",
                f"{layer.before:g}",
                f"{layer.errors[layer.percentile]:.3g}",
                f"{layer.errors[layer.before]:.3g}",
                f"{layer.gained:.0%}",
            )
            for layer in self.layers
        ]
        return table(head, body)


def search_percentile(
    analog: nn.Module,
    inputs: Iterable[Any],
    *,
    percentiles: Sequence[float] = PERCENTILES,
    per: Literal["layer", "network"] = "layer",
    chips: int = 3,
    time: Ages | None = None,
    compensation: CompensationLike = "global",
    seed: int = FIRST_SEED,
) -> PercentileSearch:
    """Find which percentile of the weights' magnitudes should count as the largest, and lay the weights so.

    The largest weight stands at ``g_max``. Where few weights are much larger than the rest (heavy tails), these use a
    small part of the range, and errors that are a part of ``g_max`` are large beside them; to let the largest saturate
    costs less. Each percentile is tried on a few chips of each layer, with exact inputs, and judged by the mean squared
    error of what the layer answers; no labels are used. What a layer has stays unless another one is better by 1 % of
    its error and by two standard errors over the chips. Layers whose device is a noise on weights (`Mapping` of
    ``"signed"`` ones), which has no cells to saturate, stay as they are.

    The twin is changed in place: its devices get ``Mapping(percentile=...)``, which their names say
    (``"pcm(percentile=99.5)"``), and a chip that was there is gone if any did. Output bounds from calibration, which
    are multiples of the largest weight, follow.

    Args:
        analog: the twin; ranges of converters that come from calibration must be there.
        inputs: one batch (a tensor, or a mapping of keyword arguments), or what yields some; 64 inputs suffice.
        percentiles: what is tried, in (0, 100].
        per: one for each ``"layer"``, or one for the ``"network"``, by the mean of the layers' relative errors.
        chips: on how many chips.
        time: their ages, one or several, of which the mean counts; None: a second and a year, or as near to them as
            the devices' formulas go.
        compensation: a gain, see `drift`.
        seed: the first chip; by default no chip of an evaluation.

    Raises:
        ValueError: no inputs, percentile or chip; NaN or infinite inputs; a percentile out of its limits; an age that a
            device has no formula for.
        NotCalibratedError: converters have no range yet.
        BypassedError: no analog layer had a part in the answers.

    Source: clipping of the largest weights to percentiles as in quantization; the criterion is ours.
    """
    if per not in ("layer", "network"):
        raise InvalidValueError(f'search_percentile: per must be "layer" or "network", got {per!r}')
    asked = _checked(percentiles)
    tried_on = chips_for(analog, chips, time, gain_of(compensation), seed, "search_percentile")
    batches = batches_of(inputs, kept=True)
    matrices = matrices_of(analog)
    trials: dict[AnalogMatrix, list[Trial]] = {}
    places: dict[AnalogMatrix, dict[float, int]] = {}
    for matrix in matrices:
        trials[matrix], places[matrix] = _trials(matrix, asked)
    errors = measure_layers(analog, batches, trials, tried_on, "search_percentile")
    chosen = _best_of_each(errors) if per == "layer" else _best_of_all(errors, asked, places)
    rows = []
    for matrix, found in errors.items():
        state, place = matrix.analog, chosen.get(matrix, 0)
        told = [trial.device.laid.percentile for trial in trials[matrix]]
        rows.append(
            LayerPercentile(state.name, told[place], told[0], dict(zip(told, found.mean(1).tolist(), strict=True)))
        )
        if place:
            trials[matrix][place].put(state)
            state.device.prepare()
    result = PercentileSearch(tuple(rows), {matrix.analog.name: matrix.analog.device for matrix in matrices})
    if result.changed:
        erase(analog)
    return result


def _checked(percentiles: Sequence[float]) -> list[float]:
    """The percentiles as numbers."""
    asked: list[float] = []
    if not isinstance(percentiles, Iterable):
        raise InvalidTypeError(
            f"search_percentile: percentiles must be a sequence such as (99.5, 99.0), got {percentiles!r}"
        )
    for value in percentiles:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100:
            raise InvalidValueError(f"search_percentile: a percentile must be in (0, 100], got {value!r}")
        asked.append(float(value))
    if not asked:
        raise InvalidValueError("search_percentile: give at least one percentile, got none")
    return list(dict.fromkeys(asked))


def _trials(matrix: AnalogMatrix, percentiles: Sequence[float]) -> tuple[list[Trial], dict[float, int]]:
    """A layer as it is and with each percentile that makes a difference; and the place of each percentile there."""
    state = matrix.analog
    weight = state.layout.lay(*matrix.still()).float()
    now = Trial.now(state)
    trials, seen = [now], [state.device.largest(weight, state.layout)]
    places: dict[float, int] = {state.device.laid.percentile: 0}
    if state.device.signed:  # the largest weight only scales its noise, so that any smaller one would seem better
        return trials, dict.fromkeys(percentiles, 0)
    for percentile in percentiles:
        device = with_mapping(state.device, percentile=percentile)
        largest = device.largest(weight, state.layout)
        same = next((place for place, other in enumerate(seen) if torch.equal(largest, other)), len(seen))
        places[percentile] = same
        if same == len(seen):
            seen.append(largest)
            bound = now.output_bound
            if state.crossbar.needs_bound and bound is not None:  # which is a multiple of the largest weight
                bound = bound * (seen[0].mean() / largest.mean())
            trials.append(Trial(device, now.crossbar, now.input_range, bound))
    return trials, places


def _best_of_each(errors: Mapping[AnalogMatrix, Tensor]) -> dict[AnalogMatrix, int]:
    return {matrix: best_trial(found) for matrix, found in errors.items()}


def _best_of_all(
    errors: Mapping[AnalogMatrix, Tensor],
    asked: Sequence[float],
    places: Mapping[AnalogMatrix, Mapping[float, int]],
) -> dict[AnalogMatrix, int]:
    """For each layer the trial of one percentile, with which the relative errors of all are least."""
    choices = [dict.fromkeys(errors, 0)]
    choices += [{matrix: places[matrix][percentile] for matrix in errors} for percentile in asked]
    sums = [torch.stack([errors[matrix][place] for matrix, place in choice.items()]).sum(0) for choice in choices]
    return choices[best_trial(torch.stack(sums))]
