"""How metrics are named in MLflow."""

from __future__ import annotations


def drifted(label: str) -> str:
    """The end of a metric's name for a time such as "1d"; MLflow takes no plus sign, as in "1.5e+06s"."""
    return f"drifted_{label.replace('+', '')}"
