from __future__ import annotations

import pytest

from analogsim.recipes.tracking.metric_names import drifted
from analogsim.recipes.tracking.tracked_run import check_name


@pytest.mark.parametrize(("label", "name"), [("1d", "drifted_1d"), ("1.5e+06s", "drifted_1.5e06s")])
def test_mlflow_takes_the_name_of_a_time(label: str, name: str) -> None:
    assert drifted(label) == name
    check_name("metric", f"test/accuracy/{name}_p05")
