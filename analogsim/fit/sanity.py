"""Whether what was measured, and what was fitted to it, can be a memory cell's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from analogsim.device.model import Effect
from analogsim.devices.fitted import FittedDrift, FittedProgramming, FittedReadNoise, FittedSlowNoise
from analogsim.errors import InvalidValueError
from analogsim.fit.estimate import FloatArray, evaluate
from analogsim.fit.measurements import Measurements

_CHANCE = 1e-3  # a rank correlation that chance gives more often than this is none
_LOOSE = 0.7  # below this rank correlation readings follow their targets badly
_FEW = 8  # cells below which nothing is said


def check_follow(measured: Measurements) -> tuple[str, ...]:
    """Whether cells with higher targets read higher at first; a warning where they hardly do.

    Raises:
        ValueError: they do not, or they read lower.
    """
    from scipy.stats import spearmanr

    order = np.lexsort((measured.time, measured.cell))
    first = order[np.unique(measured.cell[order], return_index=True)[1]]
    target, reading = measured.target[first], measured.measured[first]
    if len(first) < _FEW or len(np.unique(target)) < 2 or len(np.unique(reading)) < 2:
        return ()
    found = spearmanr(target, reading)
    rank, chance = float(found.statistic), float(found.pvalue)
    told = f"the first readings of {len(first)} cells and their targets have a rank correlation of {rank:.2f}"
    if rank < 0 and chance < _CHANCE:
        raise InvalidValueError(
            f"fit_device: {told}: readings fall where targets rise. If measured is a resistance, say so: "
            "units={'measured': 'kΩ'} or 'measured [kΩ]' in the header; if the target is one, name its unit"
        )
    if chance >= _CHANCE:
        raise InvalidValueError(
            f"fit_device: {told}, as by chance: the readings do not follow the targets. Is the column 'target' what "
            "was asked of these cells, and 'cell' the cell that was read?"
        )
    if rank < _LOOSE:
        return (f"{told}: they follow them loosely; is the column 'target' what was asked of these cells?",)
    return ()


class _Limit(NamedTuple):
    """A fitted number that some values of are doubtful, and others absurd."""

    name: str
    values: FloatArray
    unit: str
    doubtful: tuple[float, float]
    absurd: tuple[float, float]
    cause: str


def _limits(effects: Sequence[Effect]) -> Iterator[_Limit]:
    def law(coefficients: Sequence[float], low: float, high: float, over_log: bool = False) -> FloatArray:
        x = np.linspace(low, high, 33)
        return evaluate(coefficients, np.log(x) if over_log else x)

    scatter = "is the table one reading of one cell a row, each in its unit?"
    for effect in effects:
        if isinstance(effect, FittedProgramming):
            ends = effect.x_min, effect.x_max
            unit = "g_max"
            yield _Limit("programming sd", law(effect.sigma, *ends), unit, (-1, 0.3), (-2, 1.0), scatter)
            offset = law(effect.offset, *ends)
            yield _Limit(
                "programming mean error", offset, unit, (-0.5, 0.3), (-1.0, 1.0), "are target and measured in one unit?"
            )
        elif isinstance(effect, FittedDrift):
            ends = effect.x_min, effect.x_max
            cause = "does the column time count seconds since programming, or since what?"
            mean, std = law(effect.nu, *ends, True), law(effect.nu_std, *ends, True)
            yield _Limit("drift exponent", mean, "", (-0.1, 0.3), (-1.5, 1.5), cause)
            yield _Limit("spread of the drift exponents", std, "", (-1, 0.2), (-2, 1.0), cause)
        elif isinstance(effect, FittedSlowNoise):
            std = law(effect.std, effect.x_min, effect.x_max, True)
            yield _Limit("slow noise sd", std, "of g", (-1, 0.5), (-2, 1.0), scatter)
        elif isinstance(effect, FittedReadNoise):
            std = law(effect.std, effect.x_min, effect.x_max)
            yield _Limit("read noise sd", std, "g_max", (-1, 0.3), (-2, 1.0), scatter)


def check_effects(effects: Sequence[Effect]) -> tuple[str, ...]:
    """Warnings of fitted numbers that are doubtful for a memory cell.

    Args:
        effects: fitted ones.

    Raises:
        ValueError: one is out of any question.
    """
    told = []
    for name, values, unit, doubtful, absurd, cause in _limits(effects):
        # The worse end counts, measured by the wider limits.
        middle, half = sum(absurd) / 2, (absurd[1] - absurd[0]) / 2
        worst = float(values[np.argmax(np.abs(values - middle))])
        what = f"{name} of {worst:.3g}{f' {unit}' if unit else ''}"
        if not abs(worst - middle) <= half:
            raise InvalidValueError(f"fit_device: the fit gives a {what}, which no memory cell has: {cause}")
        low, high = float(values.min()), float(values.max())
        if low < doubtful[0] or high > doubtful[1]:
            odd = low if low < doubtful[0] else high
            told.append(f"a {name} of {odd:.3g}{f' {unit}' if unit else ''} is doubtful: {cause}")
    return tuple(told)
