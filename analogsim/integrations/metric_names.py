"""How metrics are named in MLflow: ``test/accuracy/drifted_1d_p05``, whatever the metric calls itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

# The tag of a run that says whether the "higher" or the "lower" score of its metric is the better one.
BETTER = "metric.better"
_LONGEST = 150  # of 250 characters that MLflow takes; the rest is for the part and the end


def score_name(part: str, metric: str, end: str) -> str:
    """The name of a score of a network.

    Args:
        part: of which data: "search", "validation" or "test".
        metric: its own name, see `metric_name`.
        end: what of it, "clean", or as from `drifted`.
    """
    return f"{part}/{metric_name(metric)}/{end}"


def metric_name(metric: str) -> str:
    """A metric's name as one part of a name in MLflow.

    What MLflow does not take there becomes an underscore: ``"F1 (macro)"`` is ``F1 _macro_``.
    """
    return re.sub(r"[^\w.: -]+", "_", metric)[:_LONGEST].strip(". ") or "metric"


def legal(names: Mapping[str, T]) -> dict[str, T]:
    """Parameters under names that MLflow takes, with underscores for what it does not, and numbers for what is alike.

    ``"device.Gaussian#1.std"``, of the second of two effects of one class, is ``device.Gaussian_1.std``.
    """
    found: dict[str, T] = {}
    for name, value in names.items():
        made = "/".join(part.strip(".") or "_" for part in re.sub(r"[^\w.\-: /]", "_", name)[:_LONGEST].split("/"))
        number = 2
        free = made
        while free in found:
            free, number = f"{made}_{number}", number + 1
        found[free] = value
    return found


def drifted(label: str) -> str:
    """The end of a metric's name for a time such as "1d"; MLflow takes no plus sign, as in "1.5e+06s"."""
    return f"drifted_{label.replace('+', '')}"


def tail(quantile: float) -> str:
    """The end of a metric's name for the bad end of the chips, see `Report.tail`: "p05", or "p95"."""
    return f"p{100 * quantile:02.0f}"
