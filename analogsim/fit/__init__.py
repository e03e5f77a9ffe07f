"""A device model from measured conductances."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from analogsim.errors import FitWarning, InvalidTypeError, InvalidValueError
from analogsim.fit.clock import Clock, set_clock
from analogsim.fit.measurements import Measurements, read
from analogsim.fit.model import Params, Problem
from analogsim.fit.readings import Readings
from analogsim.fit.result import Check, FitReport, FittedDevice, Panel, Parameter
from analogsim.fit.sample import sample_measurements
from analogsim.fit.sanity import check_effects, check_follow
from analogsim.fit.summary import cannot_tell, chain, checks, panels, parameters
from analogsim.utils.checks import MOST_TURNS, check_whole, is_finite

__all__ = [
    "Check",
    "FitReport",
    "FittedDevice",
    "Panel",
    "Parameter",
    "fit_device",
    "sample_measurements",
]


def _end(name: str, value: float | None, default: float) -> float:
    """An end of the range: what was given, else the default."""
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not is_finite(value):
        raise InvalidTypeError(f"fit_device: {name} must be a number (µS), got {value!r}")
    return float(value)


def _range(measured: Measurements, g_min: float | None, g_max: float | None) -> tuple[float, float]:
    low, high = float(measured.target.min()), float(measured.target.max())
    bottom, top = _end("g_min", g_min, low if low < high else 0.0), _end("g_max", g_max, high)
    if not 0 <= bottom < top:
        raise InvalidValueError(f"fit_device: need 0 <= g_min < g_max in µS, got g_min={bottom!r} and g_max={top!r}")
    if high > top * (1 + 1e-9):
        raise InvalidValueError(
            f"fit_device: targets reach {high:g} µS, above g_max={top:g}; give a g_max that holds them all, or leave "
            "out these rows"
        )
    return bottom, top


def _readings(measured: Measurements, clock: Clock, g_max: float) -> Readings:
    x = np.zeros(measured.cell.max() + 1)
    x[measured.cell] = measured.target / g_max
    return Readings(measured.measured / g_max, clock.log_time(measured.time), measured.cell, np.minimum(x, 1.0))


def _bootstrap(problem: Problem, params: Params, samples: int, seed: int) -> list[Params]:
    """Parameters of samples of the cells, drawn with replacement."""
    generator = np.random.default_rng(seed)
    cells = len(problem.x)
    even = np.full(cells, 1 / cells)
    return [problem.refit(params, generator.multinomial(cells, even).astype(float)) for _ in range(samples)]


def _name(name: str | None, data: Any) -> str:
    if name is not None:
        return name
    stem = Path(data).stem if isinstance(data, str | os.PathLike) else ""
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") or "fitted"


def fit_device(
    data: Any,
    *,
    units: Mapping[str, str] | None = None,
    t0: float | None = None,
    g_min: float | None = None,
    g_max: float | None = None,
    name: str | None = None,
    bootstrap: int = 200,
    seed: int = 0,
) -> FittedDevice:
    r"""Fit programming error, drift and read noise to measured conductances of single cells.

    .. math:: g_{prog} = \max\left(0,\ g + g_{max} (m(x) + \sigma(x)\,\xi)\right), \qquad
        g(t) = g_{prog} \left(\frac{t + t_0}{t_0}\right)^{-\nu}, \quad \nu \sim N(\mu(x), s(x)^2), \qquad
        g_{read} = g(t) (1 + q(x)\,\xi_t) + g_{max}\,\sigma_r(g/g_{max})\,\xi

    with :math:`x = g/g_{max}` of the target, m, σ and σ_r polynomials in x, and μ, s and q in ln x, of orders that
    an information criterion chooses. The scatter of repeated readings is read noise; what scatters from time to time
    beyond it is slow noise (q). Readings that do not go with the others of their cell, and cells beyond four standard
    deviations, are left out and counted.

    Args:
        data: a CSV file, a mapping of arrays or a pandas frame with the columns target, time, measured, cell: one row
            for each reading of one cell. Several rows of one cell and time are repeated readings. Units may stand in
            the headers: ``target [µS]``, ``time [h]``; other columns are not used.
        units: or here, ``{"target": "µS", "measured": "kΩ", "time": "h"}``: nS, µS, mS or S; Ω (ohm), kΩ, MΩ or GΩ,
            resistances; % of g_max; ns, µs, ms, s, min, h or d. Default: µS and seconds.
        t0: seconds between programming and the first reading, if the column time counts from the first reading.
            Default: the column counts from programming, and t0 is the first time in it. Either way time 0 of the device
            model is the first reading.
        g_min: conductance of a cell that stands for zero, µS. Default: the lowest target.
        g_max: conductance of the largest weight, µS. Default: the highest target; needed where columns are in %.
        name: of the device model. Default: that of the file.
        bootstrap: number of samples of the cells for the intervals; 0 for none.
        seed: of these samples.

    Returns:
        A device model of fitted effects; ``str`` of it is a table with 95 % intervals, ``plot()`` a figure, ``save()``
        a file for ``convert(model, device="mine.toml")``, ``report`` all of it as values.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: columns are missing, swapped, in the wrong unit or not numeric; a time or target is negative; there
            are no rows; a cell has several targets; readings do not follow their targets; times are dates or a
            clock's; or the fit gives what no memory cell has.
        TypeError: something else was given.

    Warns:
        FitWarning: what the data cannot tell; also in the report.

    Example:
        >>> from analogsim.fit import sample_measurements
        >>> fit = fit_device(sample_measurements("gaussian(std=0.03)+drift+read-noise"), bootstrap=0)
        >>> [type(effect).__name__ for effect in fit.effects]
        ['FittedProgramming', 'FittedDrift', 'FittedReadNoise']
    """
    check_whole(seed, "fit_device: seed", 0, 2**63 - 1)
    if (
        isinstance(bootstrap, bool)
        or not isinstance(bootstrap, int)
        or bootstrap == 1
        or not 0 <= bootstrap <= MOST_TURNS
    ):
        raise InvalidValueError(f"fit_device: bootstrap must be 0 or an integer above 1, got {bootstrap!r}")
    top = None if g_max is None else _end("g_max", g_max, 0.0)
    measured = read(data, units, top)
    loose = check_follow(measured)
    low, high = _range(measured, g_min, g_max)
    clock = set_clock(measured, t0, high)
    problem = Problem(_readings(measured, clock, high))
    params = problem.fit()
    effects = chain(problem, params, clock.t0)
    told = (*clock.warnings, *loose, *check_effects(effects), *cannot_tell(problem, params, clock, low, high))
    samples = _bootstrap(problem, params, bootstrap, seed)
    tested = checks(problem, params)
    told += tuple(
        f"{one.name}: what is left is not normal (p = {one.p:.1g}); look at the plot before trusting its tails"
        for one, _ in tested
        if one.p < 1e-3
    )
    notes = measured.notes + clock.notes
    if problem.outliers:
        notes += (f"{problem.outliers} of {len(measured.cell)} readings left out: far from the others of their cell",)
    if problem.torn:
        notes += (
            f"{problem.torn} of {problem.torn + len(problem.x)} cells left out: their readings contradict each other "
            "(telegraph noise between two states, or several cells under one name?)",
        )
    times = len(np.unique(measured.time))
    report = FitReport(
        described=f"{len(problem.x)} cells, {len(np.unique(problem.x))} targets, {times} times, "
        f"{len(measured.cell)} readings",
        parameters=tuple(parameters(problem, params, samples, high)),
        checks=tuple(one for one, _ in tested),
        notes=notes,
        warnings=told,
        panels=tuple(panels(problem, params, high)),
        residuals=tuple(values for _, values in tested),
    )
    for text in told:
        warnings.warn(f"fit_device: {text}", FitWarning, stacklevel=2)
    return FittedDevice(effects, g_min=low, g_max=high, name=_name(name, data), report=report)
