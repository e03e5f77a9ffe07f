from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from analogsim.evaluation.display import deviation, figure, frame, heading, in_unit, number, spread, titled


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.90254, "%", "90.25"),
        (1.0, "%", "100.00"),
        (0.90254, "", "0.9025"),
        (1234.56, "bit", "1235"),
        (0.0, None, "0"),
    ],
)
def test_numbers(value: float, unit: str | None, text: str) -> None:
    assert number(value, unit) == text


def test_spreads() -> None:
    assert spread(0.9, 0.01, "%") == "90.00 ± 1.00"
    assert spread(0.9, 0.01, "") == "0.9 ± 0.01"
    assert spread(0.9, math.nan, "%") == "90.00"


def test_headings() -> None:
    assert [heading("accuracy", "%"), heading("entropy", "bit"), heading("loss", ""), heading("loss", None)] == [
        "accuracy [%]",
        "entropy [bit]",
        "loss",
        "loss",
    ]


def test_deviation() -> None:
    assert deviation(np.array([1.0, 3.0])) == pytest.approx(math.sqrt(2))
    assert math.isnan(deviation(np.array([1.0])))


def test_frames_of_rows_and_of_columns() -> None:
    pytest.importorskip("pandas")
    rows, columns = frame([{"a": 1, "b": 2}, {"a": 3, "b": 4}]), frame({"a": [1, 3], "b": [2, 4]})
    assert rows.equals(columns)


def test_figures() -> None:
    pytest.importorskip("matplotlib")
    drawn, axes = figure(3.0, 2.0)
    assert drawn.axes == [axes]
    assert tuple(drawn.get_size_inches()) == (3.0, 2.0)


@pytest.mark.parametrize(
    ("package", "use"),
    [("pandas", lambda: frame([])), ("matplotlib.figure", lambda: figure(1.0, 1.0))],
    ids=["pandas", "matplotlib"],
)
def test_what_is_not_installed_is_told(package: str, use: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **named: Any) -> Any:
        if name == package:
            raise ImportError(name)
        return real(name, *args, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=f"needs {package.partition('.')[0]}; install it with: pip install"):
        use()


def test_a_figure_shows_all_of_its_title_and_shares_in_percent() -> None:
    pytest.importorskip("matplotlib")
    drawn, axes = figure(6.4, 4.0)
    axes.plot([0, 1], [0.2, 0.8])
    in_unit(axes.yaxis, "%")
    in_unit(axes.xaxis, "bit")
    long = "pcm on crossbars of 512 rows with " + ", ".join(f"converter {number}" for number in range(12))
    titled(axes, "one line", long)
    drawn.canvas.draw()
    assert " ".join(axes.get_title().split("\n")) == f"one line {long}"
    edge = drawn.bbox.x1
    assert all(0 <= side <= edge for side in (axes.title.get_window_extent().x0, axes.title.get_window_extent().x1))
    assert [label.get_text() for label in axes.get_yticklabels()][1:3] == ["20", "30"]
    assert "0.2" in [label.get_text() for label in axes.get_xticklabels()]
