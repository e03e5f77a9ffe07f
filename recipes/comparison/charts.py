"""Drift curves as text: a letter for each run, over the logarithm of time, in a terminal's width."""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Mapping, Sequence

from analogsim.evaluation.report import Report

MARKS = string.ascii_uppercase + string.ascii_lowercase

_ROWS = 16  # about so many
_DENSE = 6  # from so many runs on, the dots between the letters would hide more than they show
_CLEAN = 3  # columns from the axis to the clean values
_START = 10  # and to the first time


def drift_chart(reports: Mapping[str, Report], width: int = 80) -> str:
    """The mean over chips of several reports, with the clean value at the left.

    Letters that fall on one place stand side by side, the first of them at its time; a plus says that more would.

    Args:
        reports: by the one letter they are drawn with; all of one metric and the same times.
        width: in characters.
    """
    first = next(iter(reports.values()))
    scale = 100.0 if first.unit == "%" else 1.0
    values = {mark: [scale * report.clean, *(scale * report.mean)] for mark, report in reports.items()}
    every = [value for row in values.values() for value in row if math.isfinite(value)] or [0.0]
    low, step, steps = _axis(min(every), max(every), least=1.0 if scale == 100 else 0.01 * max(map(abs, every)))
    each = max(1, round(_ROWS / steps))  # rows from one label to the next
    labels = [f"{low + step * index:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}" for index in range(steps + 1)]
    left = max(map(len, labels)) + 2
    columns = [_CLEAN, *_columns(first.times, width - left - 1 - min(len(reports), 8))]

    def row(value: float) -> int:
        return round((value - low) / (step * steps) * each * steps)

    grid = [[" "] * (width - left) for _ in range(each * steps + 1)]
    for line in values.values() if len(reports) < _DENSE else ():
        for (x0, y0), (x1, y1) in itertools.pairwise(zip(columns[1:], line[1:], strict=True)):
            for x in range(x0 + 1, x1) if math.isfinite(y0 + y1) else ():
                grid[row(y0 + (y1 - y0) * (x - x0) / (x1 - x0))][x] = "·"
    for index, column in enumerate(columns):
        room = max((columns[index + 1] if index + 1 < len(columns) else width - left) - column - 1, 1)
        for height in range(len(grid)):
            here = [mark for mark, row_ in values.items() if math.isfinite(row_[index]) and row(row_[index]) == height]
            text = "".join(here) if len(here) <= room else "".join(here[: room - 1]) + "+"
            grid[height][column : column + len(text)] = text
    lines = [
        f"{labels[height // each] if height % each == 0 else '':>{left - 2}} {'┤' if height % each == 0 else '│'}"
        + "".join(grid[height]).rstrip()
        for height in reversed(range(len(grid)))
    ]
    start = "" if low == 0 else f"; the scale starts at {labels[0]}, not at 0"
    return "\n".join(
        [
            f"{first.heading}, mean over chips{start}",
            *lines,
            " " * (left - 1) + "└" + "─" * (width - left),
            " " * left + _under(columns, ["clean", *first.labels], width - left),
        ]
    )


def _axis(low: float, high: float, least: float) -> tuple[float, float, int]:
    """The lowest label, the distance of labels and how many distances, for a span of `least` or more."""
    if high - low < least or high == low:
        middle, least = (low + high) / 2, least or 1.0
        low, high = middle - least / 2, middle + least / 2
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return first * step, step, max(last - first, 1)


def _columns(times: Sequence[float], last: int) -> list[int]:
    """The column of each time; the moment after programming stands at a tenth of a second."""
    logs = [math.log10(max(time, 0.1)) for time in times]
    span = max(logs) - min(logs)
    return [_START + (round((log - min(logs)) / span * (last - _START)) if span else 0) for log in logs]


def _under(columns: Sequence[int], labels: Sequence[str], width: int) -> str:
    """Labels centred under their columns; one for which there is no room is left out."""
    line, end = "", -1
    for column, label in zip(columns, labels, strict=True):
        start = min(max(column - (len(label) - 1) // 2, 0), width - len(label))
        if start > end:
            line = line.ljust(start) + label
            end = len(line)
    return line
