from __future__ import annotations

import re

import numpy as np
import pytest

from analogsim.evaluation.report import Report
from analogsim.recipes.comparison import charts
from tests.recipes.reports import YEAR, report


def chart(*reports: Report, width: int = 80) -> list[str]:
    return charts.drift_chart(dict(zip(charts.MARKS, reports, strict=False)), width).splitlines()


def level(lines: list[str], mark: str, column: int) -> float:
    """The value at which a letter stands, read as a person does: from the labels of the axis."""
    labels = {row: float(line.split()[0]) for row, line in enumerate(lines[1:-2]) if "┤" in line}
    (low, high), rows = (min(labels.values()), max(labels.values())), (max(labels), min(labels))
    (row,) = [row for row, line in enumerate(lines[1:-2]) if column < len(line) and line[column] == mark]
    return low + (high - low) * (rows[0] - row) / (rows[0] - rows[1])


def test_letters_stand_where_the_axes_say() -> None:
    lines = chart(report(0.9), report(0.82))
    half_row = 0.5
    labels = re.finditer(r"\S+", lines[-1])
    for index, label in enumerate(labels):
        column = label.start() + (len(label[0]) - 1) // 2
        for mark, made in (("A", report(0.9)), ("B", report(0.82))):
            value = made.clean if index == 0 else made.mean[index - 1]
            assert level(lines, mark, column) == pytest.approx(100 * value, abs=half_row)
    assert lines[-1].split() == ["clean", "1s", "1h", "1d", "1mo", "1y"]
    assert lines[0] == "accuracy [%], mean over chips; the scale starts at 75, not at 0"
    # time is logarithmic: from 1 s to 1 h as far as from 1 h to 3600 h
    far = chart(report(times=(1.0, 3600.0, 3600.0**2)))[-1]
    positions = [match.start() + (len(match[0]) - 1) // 2 for match in re.finditer(r"\S+", far)][1:]
    assert abs((positions[1] - positions[0]) - (positions[2] - positions[1])) <= 1


@pytest.mark.parametrize("width", [70, 80, 100])
def test_a_chart_has_its_width(width: int) -> None:
    lines = chart(*(report(0.9 - 0.05 * n) for n in range(10)), width=width)
    assert max(map(len, lines)) == width
    assert len(lines) < 30


def test_letters_at_one_place_stand_side_by_side() -> None:
    text = "\n".join(chart(*[report()] * 3))
    assert text.count("ABC") == 6
    crowded = "\n".join(chart(*[report(times=(1.0, 2.0, YEAR))] * 9, width=60))
    assert "ABCDE+" in crowded  # a plus where there is no room
    assert re.search(r"┤ +\+$", crowded, re.MULTILINE)


@pytest.mark.parametrize(
    ("made", "first"),
    [
        (
            report(values=np.full((2, 5), 0.5), clean=0.5),
            "accuracy [%], mean over chips; the scale starts at 49.4, not at 0",
        ),
        (
            report(values=np.full((2, 1), 0.0), clean=0.0, times=(0.0,)),
            "accuracy [%], mean over chips; the scale starts at",
        ),
        (
            report(values=np.full((2, 5), 0.0), clean=0.0, metric="loss"),
            "loss, mean over chips; the scale starts at -0.6",
        ),
        (
            report(values=np.full((2, 5), np.nan), metric="loss", clean=1.0),
            "loss, mean over chips; the scale starts at",
        ),
        (report(values=np.array([[1e-5] * 5, [3e-5] * 5]), clean=0.0, metric="loss"), "loss, mean over chips"),
        (report(times=(100.0, 101.0, 102.0)), "accuracy"),
    ],
    ids=["flat", "zero", "zero loss", "nan", "small", "close times"],
)
def test_a_chart_of_odd_values(made: Report, first: str) -> None:
    lines = chart(made)
    assert lines[0].startswith(first)
    assert "A" in "".join(lines)
    spread = [float(line.split()[0]) for line in lines if "┤" in line]
    assert spread == sorted(spread, reverse=True)
    assert len(set(spread)) == len(spread) > 1
    if made.metric == "accuracy":  # noise of a tenth of a percent is not blown up
        assert spread[0] - spread[-1] >= 1
