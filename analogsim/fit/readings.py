"""Readings of cells, in units of g_max: which of them are outliers, and what repeated ones say together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analogsim.errors import InvalidValueError
from analogsim.fit.estimate import ROUGH, TINY, BoolArray, FloatArray, IntArray, bins, median_by, normal_scale


@dataclass(frozen=True, eq=False)
class Readings:
    """Single readings, ``(readings,)`` each.

    Args:
        y: conductance over g_max.
        log_time: L.
        cell: number of the cell.
        x: target over g_max of each cell, ``(cells,)``.
    """

    y: FloatArray
    log_time: FloatArray
    cell: IntArray
    x: FloatArray


@dataclass(frozen=True, eq=False)
class Groups:
    """Readings of one cell at one time together, ``(groups,)`` each.

    Args:
        mean: of the readings.
        squares: sum of their squared deviations from the mean.
        count: number of the readings.
        log_time: L.
        cell: number of the cell.
        expected: the conductance to be expected from the cell's other readings.
    """

    mean: FloatArray
    squares: FloatArray
    count: FloatArray
    log_time: FloatArray
    cell: IntArray
    expected: FloatArray


def rough_exponent(readings: Readings) -> float:
    """One exponent for all cells, by soft-L1 regression."""
    from scipy.optimize import least_squares

    used = (readings.y > 0) & (readings.x[readings.cell] > 0.1)
    cells = len(readings.x)
    if not used.any() or np.ptp(readings.log_time[used]) == 0:
        return 0.0
    cell, log_time = readings.cell[used], readings.log_time[used]
    z = np.log(readings.y[used])
    z = z - median_by(z, cell, cells)[cell]
    log_time = log_time - median_by(log_time, cell, cells)[cell]
    scale = max(normal_scale(z), TINY)
    return -float(least_squares(lambda c: c[0] * log_time - z, [0.0], loss="soft_l1", f_scale=scale).x[0])


def follow_their_cell(readings: Readings) -> tuple[BoolArray, FloatArray]:
    """Which readings go with the others of their cell, and the conductance of each cell at L = 0 by its median."""
    cells = len(readings.x)
    back = readings.y * np.exp(rough_exponent(readings) * readings.log_time)
    level = median_by(back, readings.cell, cells)
    away = np.abs(back - level[readings.cell])
    place = bins(level, 20, 30)[readings.cell] * 100 + bins(readings.log_time, 1, 20)
    scale = np.zeros_like(away)
    for one in np.unique(place):
        inside = place == one
        scale[inside] = normal_scale(away[inside & (away > 0)])
    count = np.bincount(readings.cell, minlength=cells)[readings.cell]
    keep = (away <= ROUGH * scale) | (count < 3)
    return keep, median_by(back[keep], readings.cell[keep], cells)


def without_torn(readings: Readings) -> tuple[Readings, FloatArray, int, int]:
    """The readings that go with the others of their cell, and what was left out.

    A cell of which less than half do is left out as a whole: the median of what jumps between two states may lie
    between them, or is that of either by chance.

    Returns:
        The readings, with the cells numbered anew; the conductance of each cell at L = 0 by its median, ``(cells,)``;
        how many readings of the cells that are kept were left out; how many cells.

    Raises:
        ValueError: no cell is left.
    """
    keep, level = follow_their_cell(readings)
    cells = len(readings.x)
    there = 2 * np.bincount(readings.cell[keep], minlength=cells) >= np.bincount(readings.cell, minlength=cells)
    keep &= there[readings.cell]
    if not there.any():
        raise InvalidValueError(
            "fit_device: the readings of every cell contradict each other; give one row for each reading, with a cell "
            "of its own for each device and each time that it was programmed"
        )
    number = (np.cumsum(there) - 1).astype(np.intp)
    kept = Readings(readings.y[keep], readings.log_time[keep], number[readings.cell[keep]], readings.x[there])
    return kept, level[there], int((~keep & there[readings.cell]).sum()), int((~there).sum())


def grouped(readings: Readings, level: FloatArray) -> Groups:
    """Readings of one cell at one time, together."""
    times, when = np.unique(readings.log_time, return_inverse=True)
    pairs, group = np.unique(readings.cell * len(times) + when, return_inverse=True)
    count = np.bincount(group).astype(float)
    mean = np.bincount(group, readings.y) / count
    squares = np.asarray(np.bincount(group, (readings.y - mean[group]) ** 2), np.float64)
    cell, log_time = (pairs // len(times)).astype(np.intp), times[pairs % len(times)]
    expected = level[cell] * np.exp(-rough_exponent(readings) * log_time)
    return Groups(mean, squares, count, log_time, cell, expected)
