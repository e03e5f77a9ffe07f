"""A fit in the units of people: effects, table, checks, plot, and what the data cannot tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from analogsim.device.model import Effect
from analogsim.devices.fitted import FittedDrift, FittedProgramming, FittedReadNoise, FittedSlowNoise
from analogsim.fit.clock import Clock
from analogsim.fit.estimate import Basis, FloatArray, evaluate
from analogsim.fit.model import Params, Problem
from analogsim.fit.result import Check, Panel, Parameter

_FEW_CELLS = 30
_DECADE = float(np.log(10.0))
_LOW = 0.35  # of g_max: what is hidden below is told


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    """Six digits, more than any measurement tells, so that the file stays readable."""
    return tuple(float(f"{value:.6g}") for value in values)


def _ends(low: float, high: float) -> dict[str, float]:
    return {"x_min": float(f"{low:.6g}"), "x_max": min(1.0, float(f"{high:.6g}"))}


def chain(problem: Problem, params: Params, t0: float) -> tuple[Effect, ...]:
    """The effects that were found."""
    mean, std = (problem.programming_basis.coefficients(part) for part in params.programming)
    ends = _ends(problem.x.min(), problem.x.max())
    effects: list[Effect] = [FittedProgramming(_rounded(std), _rounded(mean), **ends)]
    if params.drift is not None:
        nu, nu_std = (_rounded(problem.drift_basis.coefficients(part)) for part in params.drift)
        effects.append(FittedDrift(nu, nu_std, float(f"{t0:.6g}"), **_ends(*problem.drift_range)))
    if params.slow is not None:
        slow = _rounded(problem.drift_basis.coefficients(params.slow))
        effects.append(FittedSlowNoise(slow, **_ends(*problem.drift_range), t0=float(f"{t0:.6g}")))
    if params.white is not None:
        white = _rounded(problem.white_basis.coefficients(params.white))
        effects.append(FittedReadNoise(white, **_ends(*problem.white_range)))
    return tuple(effects)


class _Shown(NamedTuple):
    """A law as the table shows it: at some targets or conductances, in a unit."""

    name: str
    unit: str
    factor: float
    basis: Basis
    weights: Callable[[Params], FloatArray | None]
    places: FloatArray
    over_log: bool = False
    sign: bool = False


def _shown(problem: Problem, g_max: float) -> Iterator[_Shown]:
    def three(x: FloatArray) -> FloatArray:
        return np.unique(np.quantile(x, [0.0, 0.5, 1.0], method="nearest"))

    basis, x = problem.programming_basis, three(problem.x)
    yield _Shown("programming sd", "µS", g_max, basis, lambda p: p.programming[1], x)
    yield _Shown("programming mean error", "µS", g_max, basis, lambda p: p.programming[0], x, sign=True)
    if problem.drifting.any():
        basis, x = problem.drift_basis, three(problem.x[problem.drifting])

        def part(index: int) -> Callable[[Params], FloatArray | None]:
            return lambda p: None if p.drift is None else p.drift[index]

        yield _Shown("drift exponent, mean", "1", 1.0, basis, part(0), x, over_log=True, sign=True)
        yield _Shown("drift exponent, sd", "1", 1.0, basis, part(1), x, over_log=True)
        yield _Shown("slow noise sd", "% of g", 100.0, basis, lambda p: p.slow, x, over_log=True)
    ends = np.array(problem.white_range)
    yield _Shown("read noise sd", "µS", g_max, problem.white_basis, lambda p: p.white, ends)


def parameters(problem: Problem, params: Params, samples: Sequence[Params], g_max: float) -> Iterator[Parameter]:
    """Every fitted law at some conductances, in the units of people, with 95 % intervals."""
    for law in _shown(problem, g_max):
        weights = [found for one in (params, *samples) if (found := law.weights(one)) is not None]
        if not weights or not len(weights[0]):
            continue
        varies = len(weights[0]) > 1
        coefficients = [law.basis.coefficients(one) for one in weights]
        for place in law.places if varies else law.places[[len(law.places) // 2]]:
            at = np.log([place]) if law.over_log else np.array([place])
            values = [law.factor * float(evaluate(one, at)[0]) for one in coefficients]
            values = values if law.sign else [max(0.0, value) for value in values]
            low, high = np.quantile(values[1:], [0.025, 0.975]) if samples else (np.nan, np.nan)
            where = f" at {place * g_max:.4g} µS" if varies else ""
            yield Parameter(law.name + where, values[0], law.unit, float(low), float(high))


def checks(problem: Problem, params: Params) -> list[tuple[Check, FloatArray]]:
    """Whether standardised residuals are normal, and these."""
    from scipy.stats import kstest

    found = []

    def add(name: str, residuals: FloatArray, left_out: int) -> None:
        if len(residuals) >= 8:
            p = float(kstest(residuals, "norm").pvalue)
            found.append((Check(name, len(residuals), left_out, p), np.asarray(residuals)))

    errors, kept = problem.errors(params), problem.kept
    mean, std = errors.parts(params.programming)
    # Cells that may have come out at zero are no part of a normal distribution.
    away = problem.x + mean > 4 * std
    add("programming", errors.residuals(params.programming)[kept.programming & away], int((~kept.programming).sum()))
    if params.drift is not None:
        law = problem.exponents(params)
        add("drift exponent", law.residuals(params.drift)[kept.drift], int((~kept.drift).sum()))
    return found


def panels(problem: Problem, params: Params, g_max: float) -> Iterator[Panel]:
    """What was measured, with the laws."""
    x = np.linspace(problem.x.min(), problem.x.max(), 100)
    errors, kept = problem.errors(params), problem.kept
    mean, std = (g_max * evaluate(problem.programming_basis.coefficients(part), x) for part in params.programming)
    yield Panel(
        "programming error [µS]",
        "target [µS]",
        g_max * problem.x,
        g_max * errors.y,
        kept.programming,
        g_max * x,
        mean,
        np.maximum(std, 0),
    )
    if params.drift is not None:
        x = np.linspace(*problem.drift_range, 100)
        law = problem.exponents(params)
        mean, std = (evaluate(problem.drift_basis.coefficients(part), np.log(x)) for part in params.drift)
        at = g_max * problem.x[problem.drifting]
        yield Panel("drift exponent", "target [µS]", at, law.y, kept.drift, g_max * x, mean, np.maximum(std, 0))
    if params.white is not None:
        x = np.linspace(*problem.white_range, 100)
        mean = g_max * np.maximum(evaluate(problem.white_basis.coefficients(params.white), x), 0)
        y = g_max * np.sqrt(problem.square)
        title = "read noise: sd of repeated readings [µS]"
        none = np.zeros_like(x)
        yield Panel(title, "conductance [µS]", g_max * problem.white_at, y, kept.white, g_max * x, mean, none)


def cannot_tell(problem: Problem, params: Params, clock: Clock, low: float, high: float) -> Iterator[str]:
    """What the data cannot tell, and which would."""
    cells, x = len(problem.x), np.unique(problem.x)
    if cells < _FEW_CELLS:
        yield f"{cells} cells are few: standard deviations are known to {100 / np.sqrt(2 * cells):.0f} % at best"
    lowest = x.min() * high
    if len(x) < 3 or np.ptp(x) < 0.5:
        yield (
            f"the targets span {lowest:g} to {x.max() * high:g} µS in {len(x)} steps: beyond, how the errors depend on "
            "the conductance is not known; measure targets over the whole range"
        )
    if low < lowest * (1 - 1e-9):
        yield f"no target below {lowest:g} µS was measured: cells at g_min = {low:g} µS take the errors of that one"
    one_time = float(np.ptp(problem.groups.log_time)) == 0
    if params.white is None:
        why = "repeated readings are all equal" if problem.repeated.any() else "no reading is repeated"
        into = "programming error" if one_time else "slow noise"
        yield f"{why}: read noise cannot be told apart from {into}; read each cell several times in a row"
    if one_time:
        yield "one reading time only: no drift; read the same cells again, decades of time apart"
    elif not problem.drifting.any():
        yield "no drift: no cell has two readings at different times well above the noise; read high targets more often"
    else:
        yield from _drift_cannot_tell(problem, params, high)
        yield from _curved(problem, params, clock)


def _drift_cannot_tell(problem: Problem, params: Params, high: float) -> Iterator[str]:
    span = float(np.ptp(problem.groups.log_time))
    if span < _DECADE:
        yield (
            f"the readings span a factor of {np.exp(span):.1f} in time since programming: exponents are known badly "
            "and say little about later times; go on for at least a factor of 10"
        )
    if not (problem.times >= 3).any():
        yield (
            "two reading times: slow noise cannot be told apart from the spread of the exponents; read at three times "
            "or more"
        )
    if params.drift is None:
        yield "no drift was found: zero exponents explain the data as well"
    lowest = problem.drift_range[0]
    if lowest > _LOW:
        yield (
            f"drift is hidden by noise below {lowest * high:.3g} µS: lower cells take the exponents of that target; "
            "repeat readings, or measure lower targets"
        )


def _curved(problem: Problem, params: Params, clock: Clock) -> Iterator[str]:
    """Whether the mean conductance leaves the power law at some time."""
    if params.drift is None or not (problem.times >= 3).any():
        return
    groups, seen = problem.groups, problem.seen
    keep = problem.kept.drift[problem.number[groups.cell[seen]]]
    lines = problem.lines(params, problem.slow(params)[problem.drifting])
    number = problem.number[groups.cell[seen]]
    height = (lines.z0 - lines.slope * lines.s1) / lines.s0
    z = np.log(groups.mean[seen] / problem.level[groups.cell[seen]])
    away = (z - height[number] - lines.slope[number] * groups.log_time[seen])[keep]
    at = groups.log_time[seen][keep]
    for when in np.unique(at):
        here = away[at == when]
        if len(here) >= 10:
            mean, error = float(here.mean()), float(here.std(ddof=1)) / np.sqrt(len(here))
            if abs(mean) > max(6 * error, 0.02):
                t = clock.t0 * float(np.expm1(when))
                yield (
                    f"the mean conductance {t:.3g} s after the first reading is {100 * mean:+.1f} % off the power law: "
                    f"is t0 = {clock.t0:.3g} s the time between programming and the first reading?"
                )
                return
