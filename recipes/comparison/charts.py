"""Drift curves as text: a letter for each run, over the logarithm of time, in a terminal's width."""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    axis = _axis(min(every), max(every), least=1.0 if scale == 100 else 0.01 * max(map(abs, every)))
    left = max(map(len, axis.labels)) + 2
    columns = [_CLEAN, *_columns(first.times, width - left - 1 - min(len(reports), 8))]
    grid = [[" "] * (width - left) for _ in range(axis.each * axis.steps + 1)]
    if len(values) < _DENSE:
        for line in values.values():
            _draw_dots(grid, axis, columns[1:], line[1:])
    _draw_marks(grid, axis, columns, values)
    start = "" if axis.low == 0 else f"; the scale starts at {axis.labels[0]}, not at 0"
    return "\n".join(
        [
            f"{first.heading}, mean over chips{start}",
            *_labelled(grid, axis, left),
            " " * (left - 1) + "└" + "─" * (width - left),
            " " * left + _under(columns, ["clean", *first.labels], width - left),
        ]
    )


@dataclass(frozen=True)
class _Axis:
    """Of the values: labels from `low` on, each `step` above the one before, several rows of text apart."""

    low: float
    step: float
    steps: int

    @property
    def each(self) -> int:
        """Rows from one label to the next."""
        return max(1, round(_ROWS / self.steps))

    @property
    def labels(self) -> list[str]:
        places = max(0, -math.floor(math.log10(self.step) + 1e-9))
        return [f"{self.low + self.step * index:.{places}f}" for index in range(self.steps + 1)]

    def row(self, value: float) -> int:
        """The row of a value, counted from below."""
        return round((value - self.low) / (self.step * self.steps) * self.each * self.steps)


def _axis(low: float, high: float, least: float) -> _Axis:
    """The axis for a span of `least` or more."""
    if high - low < least or high == low:
        middle, least = (low + high) / 2, least or 1.0
        low, high = middle - least / 2, middle + least / 2
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return _Axis(first * step, step, max(last - first, 1))


def _draw_dots(grid: list[list[str]], axis: _Axis, columns: Sequence[int], line: Sequence[float]) -> None:
    """Dots from each time to the next, where both have a value."""
    for (x0, y0), (x1, y1) in itertools.pairwise(zip(columns, line, strict=True)):
        for x in range(x0 + 1, x1) if math.isfinite(y0 + y1) else ():
            grid[axis.row(y0 + (y1 - y0) * (x - x0) / (x1 - x0))][x] = "·"


def _draw_marks(
    grid: list[list[str]], axis: _Axis, columns: Sequence[int], values: Mapping[str, Sequence[float]]
) -> None:
    """The letters of each time, those of one row side by side as far as there is room before the next time."""
    for index, (column, following) in enumerate(itertools.pairwise([*columns, len(grid[0])])):
        room = max(following - column - 1, 1)
        rows: dict[int, str] = {}
        for mark, line in values.items():
            if math.isfinite(line[index]):
                height = axis.row(line[index])
                rows[height] = rows.get(height, "") + mark
        for height, here in rows.items():
            text = here if len(here) <= room else here[: room - 1] + "+"
            grid[height][column : column + len(text)] = text


def _labelled(grid: Sequence[Sequence[str]], axis: _Axis, left: int) -> list[str]:
    """The rows from the top down, behind the labels of the axis."""
    lines = []
    for height, row in reversed(list(enumerate(grid))):
        index, between = divmod(height, axis.each)
        label, tick = ("", "│") if between else (axis.labels[index], "┤")
        lines.append(f"{label:>{left - 2}} {tick}{''.join(row).rstrip()}")
    return lines


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
