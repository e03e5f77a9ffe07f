"""Reports and runs made up for tests of what shows them."""

from __future__ import annotations

from typing import Any

import numpy as np

from analogsim.evaluation.report import Report
from analogsim.recipes.comparison.comparison import Comparison
from analogsim.recipes.comparison.saved_runs import SavedRun

HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0
TIMES = (1.0, HOUR, DAY, 30 * DAY, YEAR)


def report(accuracy: float = 0.9, *, times: tuple[float, ...] = TIMES, **changes: Any) -> Report:
    """Two chips, which lose a hundredth from each time to the next."""
    values = np.array([[accuracy + chip - 0.01 * index for index in range(len(times))] for chip in (-0.01, 0.01)])
    settings: dict[str, Any] = {
        "values": values,
        "times": times,
        "clean": accuracy + 0.02,
        "metric": "accuracy",
        "device": "pcm",
        "seeds": (0, 1),
        "compensation": "global",
        "chance": 0.1,
        "samples": 500,
    }
    return Report(**(settings | changes))


def saved(name: str, made: Report | None, number: int = 0, **changes: Any) -> SavedRun:
    settings: dict[str, Any] = {
        "name": name,
        "report": made,
        "params": {},
        "metrics": {},
        "status": "FINISHED",
        "run_id": f"{number:032x}",
        "experiment_id": "1",
        "uri": "sqlite:////data/mlflow.db",
    }
    return SavedRun(**(settings | changes))


def shown() -> Comparison:
    params = {"lr": "0.1", "same": "1", "long": "x" * 100, "only": "here"}
    return Comparison(
        (
            saved("first run", report(0.9), 1, params=params, metrics={"loss": 0.25}),
            saved("second", report(0.8), 2, params={"lr": "0.2", "same": "1", "long": "y" * 100}),
            saved("third", None, 3, status="RUNNING", metrics={"loss": 0.75}, params={"lr": "0.3", "same": "1"}),
        ),
        notes=("a note",),
    )
