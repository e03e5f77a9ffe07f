"""What the recipes tell MLflow of a network: its parameters, and a report as metrics, curves and a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import analogsim
from analogsim.recipes._config import flatten
from analogsim.recipes._tracking import Tracker
from analogsim.registry import as_device_model
from analogsim.report import Report

if TYPE_CHECKING:
    from analogsim.recipes._training import Training


def parameters(training: Training, kind: str) -> dict[str, object]:
    """Everything that shapes a network: its options, the device's own parameters, its share of analog ones."""
    config = training.config
    values = {key: value for key, value in flatten(config).items() if not key.startswith(("tracking.", "out"))}
    summary = analogsim.summary(training.analog)
    return {
        **values,
        "training": kind,
        **{f"device.{key}": value for key, value in as_device_model(config.device).parameters().items()},
        "model.analog_share": round(summary.analog_share, 6),
        "model.cells": sum(row.cells for row in summary.rows),
    }


def drifted(label: str) -> str:
    """The end of a metric's name for a time such as "1d"; MLflow takes no plus sign, as in "1.5e+06s"."""
    return f"drifted_{label.replace('+', '')}"


def ends(report: Report, part: str) -> dict[str, float]:
    """Every time of a report as scalars: names to sort runs by, and to put on the axes of MLflow's compare page.

    Args:
        report: over chips and times.
        part: of which data, the start of the names: "test" gives ``test/accuracy/drifted_1d``.
    """
    named = {f"{part}/accuracy/clean": report.clean}
    for index, time in enumerate(report.labels):
        name = f"{part}/accuracy/{drifted(time)}"
        named[name] = float(report.mean[index])
        named[f"{name}_p05"] = float(report.quantile(0.05)[index])
        named[f"{name}_std"] = float(report.std[index])
    return {key: value for key, value in named.items() if value == value}


def log_report(report: Report, tracker: Tracker, *, step: int, part: str) -> None:
    """Log a report: its scalars at a step (the epoch), drift curves over seconds, and every chip as a table."""
    tracker.metrics(ends(report, part), step=step)
    # A step is a whole number: of several times within one second, the last stands for all.
    whole = {round(time): index for index, time in enumerate(report.times)}
    for name, values in (("drift", report.mean), ("drift_p05", report.quantile(0.05))):
        tracker.curve(f"{part}/accuracy/{name}", list(whole), values[list(whole.values())].tolist())
    frame = report.to_frame()
    tracker.table({str(column): frame[column].tolist() for column in frame}, "chips.json")
