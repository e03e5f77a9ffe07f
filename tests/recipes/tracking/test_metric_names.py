from __future__ import annotations

import pytest

from analogsim.recipes.tracking.metric_names import drifted, score_name, tail
from analogsim.recipes.tracking.tracked_run import check_name


@pytest.mark.parametrize(("label", "name"), [("1d", "drifted_1d"), ("1.5e+06s", "drifted_1.5e06s")])
def test_mlflow_takes_the_name_of_a_time(label: str, name: str) -> None:
    assert drifted(label) == name
    check_name("metric", f"test/accuracy/{name}_p05")


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("accuracy", "test/accuracy/clean"),
        ("bits per character", "test/bits per character/clean"),
        ("F1 (macro)", "test/F1 _macro_/clean"),
        ("F1/macro", "test/F1_macro/clean"),
        ("../..", "test/_/clean"),
        ("(", "test/_/clean"),
        ("", "test/metric/clean"),
        ("Größe µ", "test/Größe µ/clean"),
        ("x" * 300, f"test/{'x' * 150}/clean"),
    ],
)
def test_mlflow_takes_whatever_a_metric_is_called(metric: str, name: str) -> None:
    assert score_name("test", metric, "clean") == name
    check_name("metric", name)


def test_the_bad_end_of_the_chips() -> None:
    assert (tail(0.05), tail(0.95)) == ("p05", "p95")
