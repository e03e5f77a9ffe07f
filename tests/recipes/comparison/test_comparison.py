from __future__ import annotations

import re

import numpy as np
import pytest

from analogsim.recipes.comparison.comparison import Comparison
from tests.recipes.reports import YEAR, report, saved, shown


def test_text_has_curves_scores_parameters_and_notes() -> None:
    text = str(shown())
    assert all(len(line) <= 80 for line in text.splitlines())
    assert re.search(r"^A +first run$", text, re.MULTILINE)
    assert "pcm, 2 chips, 500 samples, compensation: global" in text
    # mean at each time, then std and 5th percentile at the last
    assert re.search(r"^ +clean +1s +1h +1d +1mo +1y +± std 1y +5th pct\. 1y$", text, re.MULTILINE)
    assert re.search(r"^A +92\.00 +90\.00 +89\.00 +88\.00 +87\.00 +86\.00 +1\.41 +85\.10$", text, re.MULTILINE)
    assert re.search(r"^C +RUNNING +loss 0\.75$", text, re.MULTILINE)
    assert re.search(r"^lr +0\.1 +0\.2 +0\.3$", text, re.MULTILINE)
    assert re.search(r"^only +here$", text, re.MULTILINE)
    assert re.search(r"^long +x{10}…x{10} +y{10}…y{10}$", text, re.MULTILINE)
    assert "same" not in text
    assert text.endswith("a note")
    wide = shown().text(120)
    assert re.search(r"^A +92\.00 +90\.00 ± 1\.41 .* 86\.00 ± 1\.41 +85\.10$", wide, re.MULTILINE)


def test_one_chip_has_no_spread() -> None:
    one = report(values=report().values[:1], seeds=(0,))
    text = Comparison((saved("a", one),)).text(200)
    assert "±" not in text.replace("mean ± std", "")
    assert "nan" not in Comparison((saved("a", one),)).text(80)


def test_different_settings_are_told_for_each() -> None:
    runs = (saved("a", report()), saved("b", report(device="drift"), 1), saved("c", report(), 2))
    text = str(Comparison(runs))
    assert "A C: pcm, 2 chips" in text
    assert "B: drift, 2 chips" in text


def test_many_runs_and_parameters_stay_in_the_width() -> None:
    runs = tuple(
        saved(f"run {n}", report(0.9 - n / 100), n, params={"noise.end": f"{n}.123456789", "device": f"gaussian({n})"})
        for n in range(12)
    )
    text = str(Comparison(runs))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.count("noise.end") > 1  # in several tables
    assert all(f"{n}.123456789" in text for n in range(12))


def test_parameters_of_a_run_without_any_are_no_difference() -> None:
    runs = (
        saved("a", report(), params={"x": "1"}),
        saved("b", report(), 1),
        saved("c", report(), 2, params={"x": "1"}),
    )
    assert Comparison(runs).differing == {}


def test_the_frame_has_a_row_for_each_run_and_time() -> None:
    frame = shown().to_frame()
    assert list(frame.columns) == ["run", "seconds", "time", "clean", "mean", "std", "p05", "chips"]
    assert len(frame) == 10
    row = frame[(frame.run == "second") & (frame.time == "1y")].iloc[0]
    assert row["mean"] == pytest.approx(0.76)
    assert (row["seconds"], row["chips"]) == (YEAR, 2)
    assert row["std"] == pytest.approx(np.std([0.75, 0.77], ddof=1))


def test_the_link_is_of_one_store() -> None:
    result = shown()
    assert result.link.startswith("http://127.0.0.1:5000/#/compare-runs?runs=")
    assert result.command == "analogsim ui --uri sqlite:////data/mlflow.db"
    other = saved("b", report(), 9, uri="sqlite:////other/mlflow.db")
    assert Comparison((*result.runs, other)).link == ""
    folder = saved("c", report(), 9, experiment_id="")
    assert Comparison((*result.runs, folder)).link == result.link


def test_a_table_as_wide_as_the_terminal_is_told_in_full() -> None:
    """One column less, and only the spread at the last time is left."""
    spread_out = report(values=report().values + np.array([[-1.0], [1.0]]) * [0.0, 0.01, 0.02, 0.03, 0.05])
    result = Comparison((saved("a", spread_out),))
    rows = [line for line in result.text(200).splitlines() if re.match(r"A +92\.00 ", line)]
    (full,) = rows
    pairs = re.findall(r"\d+\.\d\d ± (\d+\.\d\d)", full)
    expected = [100 * value for value in spread_out.std]  # sqrt(2) times half of the distance of two chips
    assert [float(pair) for pair in pairs] == pytest.approx(expected, abs=0.005)
    head = "mean ± std over chips"
    assert head in result.text(len(full))
    narrow = result.text(len(full) - 1)
    assert head not in narrow
    assert re.search(rf"^A +92\.00( +\d+\.\d\d){{5}} +{pairs[-1]} +\d+\.\d\d$", narrow, re.MULTILINE)


def test_as_many_runs_stand_side_by_side_as_fit() -> None:
    short = tuple(saved(f"run {n}", report(), n, params={"k": str(n % 10)}) for n in range(24))
    heads = re.findall(r"^parameter +(.*)$", Comparison(short).text(80), re.MULTILINE)
    # the longest name and three characters a run: 9 + 23 * 3 = 78
    assert [head.split() for head in heads] == [list("ABCDEFGHIJKLMNOPQRSTUVW"), ["X"]]
    long = tuple(saved(f"run {n}", report(), n, params={"k" * 40: letter * 40}) for n, letter in enumerate("xyz"))
    text = Comparison(long).text(50)
    # names are cut to 32 characters, values to 12: two of them would take 32 + 2 * 14
    assert re.findall(r"^parameter {25}(.*)$", text, re.MULTILINE) == [f"{mark:>12}" for mark in "ABC"]
    values = re.findall(r"^k+…k+  (([xyz])\2*…\2+)$", text, re.MULTILINE)
    assert [len(value) for value, _ in values] == [12, 12, 12]


def test_digital_scores_have_a_column_where_one_is_not_the_clean_one() -> None:
    pair = Comparison((saved("a", report(0.9)), saved("b", report(0.8, digital=0.7), 1), saved("c", None, 2)))
    text = pair.text(200)
    assert re.search(r"^ +clean +digital +1s ", text, re.MULTILINE)
    assert re.search(r"^A +92\.00 +92\.00 +90\.00", text, re.MULTILINE)
    assert re.search(r"^B +82\.00 +70\.00 +80\.00", text, re.MULTILINE)
    assert list(pair.to_frame()["digital"].unique()) == [0.92, 0.7]
    page = pair.to_html()
    assert "<th>clean</th><th>digital</th>" in page
    assert "<td>82.00</td><td>70.00</td>" in page
    assert "<td></td>" * 7 in page  # the run without a report has as many cells
    assert "digital" not in shown().to_html()
