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
