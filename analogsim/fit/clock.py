"""What the column time counts from, and t0 of the power law."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.fit.estimate import BoolArray, FloatArray, IntArray, median_by
from analogsim.fit.lines import Lines
from analogsim.fit.measurements import Measurements


@dataclass(frozen=True)
class Clock:
    """Times on the clock of the device model, whose zero is the first reading.

    Args:
        t0: time between programming and the first reading, seconds.
        start: what the column time shows at the first reading, seconds.
        notes, warnings: what was assumed.
    """

    t0: float
    start: float
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def log_time(self, time: FloatArray) -> FloatArray:
        """``ln((t + t0)/t0)``."""
        return np.asarray(np.log1p((time - self.start) / self.t0))


def best_t0(time: FloatArray, y: FloatArray, cell: IntArray, start: float) -> float:
    """The t0 with which the conductances of single cells follow power laws best, seconds."""
    from scipy.optimize import minimize_scalar

    times, when = np.unique(time, return_inverse=True)
    pairs, group = np.unique(cell * len(times) + when, return_inverse=True)
    middle = median_by(y, group.astype(np.intp), len(pairs))
    number, time = pairs // len(times), times[pairs % len(times)] - start
    good: BoolArray = middle > 0
    good &= np.bincount(number[good], minlength=number.max() + 1)[number] >= 3
    _, number = np.unique(number[good], return_inverse=True)
    z, time = np.log(middle[good]), time[good]
    one = np.ones_like(z)

    def misfit(log_t0: float) -> float:
        lines = Lines.through(z, np.log1p(time / np.exp(log_t0)), one, number, number.max() + 1)
        rest = np.sort(lines.rest)
        return float(rest[: max(1, int(0.9 * len(rest)))].sum())  # the worst are outliers

    steps = time[time > 0]
    ends = float(np.log(steps.min() / 100)), float(np.log(steps.max()))
    grid = np.linspace(*ends, 30)
    best = int(np.argmin([misfit(value) for value in grid]))
    near = float(grid[max(0, best - 1)]), float(grid[min(len(grid) - 1, best + 1)])
    return float(np.exp(minimize_scalar(misfit, bounds=near, method="bounded").x))


_LONG = 1e8  # seconds, 3 years: a first reading so late, in a series that took less than a tenth of that


def _is_a_clock(times: FloatArray) -> bool:
    """Whether times are those of a clock that nobody set to zero: seconds since 1970, or days of a spreadsheet."""
    return float(times[0]) >= _LONG and float(np.ptp(times)) < 0.1 * float(times[0])


def set_clock(measured: Measurements, t0: float | None, g_max: float) -> Clock:
    """What the column time counts from; see `analogsim.fit_device`.

    Raises:
        ValueError: t0 is needed, or not above zero.
    """
    times = np.unique(measured.time)
    first = float(times[0])
    if t0 is not None:
        if isinstance(t0, bool) or not isinstance(t0, int | float | np.number):
            raise InvalidTypeError(f"fit_device: t0 must be a number (seconds), got {t0!r}")
        if not 0 < t0 < np.inf:
            raise InvalidValueError(f"fit_device: t0 must be > 0 seconds, got {t0!r}")
        told: tuple[str, ...] = ()
        if _is_a_clock(times):
            note = f"time is a clock's, {first:.6g} s at the first reading of all, from which it is counted"
            return Clock(float(t0), first, notes=(note,))
        if first and abs(np.log(first / t0)) < 0.7:
            told = (
                f"with t0={t0:g} s the column time counts from the first reading, but it begins at {first:g} s; leave "
                "t0 out if it counts from programming",
            )
        return Clock(float(t0), 0.0, warnings=told)
    if _is_a_clock(times):
        raise InvalidValueError(
            f"fit_device: time begins at {first:.6g} s, {first / 31536000:.0f} years, and goes on for "
            f"{float(np.ptp(times)):.3g} s: it is a clock's. Give the time since the cell was programmed, or t0, the "
            "seconds between programming and the first reading, if all cells were programmed at once"
        )
    if first > 0:
        note = f"time counts from programming; t0 = {first:g} s, the first reading, which is time 0 of the device"
        return Clock(first, first, notes=(note,))
    if len(times) == 1:
        return Clock(1.0, 0.0)
    high = measured.target > 0.1 * g_max
    _, count = np.unique(measured.cell[high] + 1j * measured.time[high], return_counts=True)
    per_cell = len(count) / max(1, len(np.unique(measured.cell[high])))
    if per_cell < 2.5:
        raise InvalidValueError(
            "fit_device: the first time is 0, so the time between programming and the first reading is not known; give "
            "t0 in seconds, as in t0=20"
        )
    _, cell = np.unique(measured.cell[high], return_inverse=True)
    found = best_t0(measured.time[high], measured.measured[high], cell.astype(np.intp), 0.0)
    return Clock(
        found,
        0.0,
        warnings=(
            f"the first time is 0, so t0, the time between programming and the first reading, is not known: fitted as "
            f"{found:.3g} s; give t0 in seconds",
        ),
    )
