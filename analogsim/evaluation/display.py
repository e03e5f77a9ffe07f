"""How scores are shown: in tables, frames and figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analogsim.evaluation.report import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame


FloatArray = NDArray[np.float64]


_EXTRA = 'install it with: pip install "analogsim-torch[plot]"'


def _spread(mean: float, std: float, metric: str) -> str:
    return number(mean, metric) + ("" if np.isnan(std) else f" ± {number(std, metric)}")


def _std(values: FloatArray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def _unit(metric: str) -> str:
    return " [%]" if metric == "accuracy" else ""


def _frame(rows: list[dict[str, Any]]) -> DataFrame:
    try:
        import pandas as pd
    except ImportError:
        raise ImportError(f"to_frame needs pandas; {_EXTRA}") from None
    return pd.DataFrame(rows)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(f"plot needs matplotlib; {_EXTRA}") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
