"""What the recipes tell MLflow of a network: its parameters, and a report as metrics, curves and a table."""

from __future__ import annotations

from dataclasses import fields

from torch import nn

import analogsim
from analogsim.chip.ranges import get_ranges
from analogsim.crossbar import IDEAL
from analogsim.device.parse import as_device_model
from analogsim.evaluation.report import Report
from analogsim.integrations.metric_names import legal
from analogsim.integrations.report_scores import curves, ends, read_as
from analogsim.recipes.config.hardware import array_of
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import flatten
from analogsim.recipes.tracking.tracker import Tracker
from analogsim.recipes.tracking.used_data import UsedData


def of_hardware(config: Config, *, aware: bool) -> dict[str, object]:
    """What the texts for device and crossbar stand for: the device's parameters, and what is not ideal.

    Args:
        config: with these texts.
        aware: whether the network is trained for the hardware.
    """
    array = array_of(config, aware=aware)
    entries = {spec.name: getattr(array, spec.name) for spec in fields(array)}
    named = {
        **{f"device.{key}": value for key, value in as_device_model(config.device).parameters().items()},
        **{f"crossbar.{key}": value for key, value in entries.items() if value != getattr(IDEAL, key)},
    }
    return legal(named)


def parameters(config: Config, analog: nn.Module, kind: str) -> dict[str, object]:
    """Everything that shapes a network: its options, the hardware's own parameters, its share of analog ones.

    Args:
        config: its options.
        analog: its twin on ``config.device``.
        kind: "plain" or "hardware-aware".
    """
    values = {key: value for key, value in flatten(config).items() if not key.startswith(("tracking.", "out"))}
    summary = analogsim.summary(analog)
    return {
        **values,
        "training": kind,
        **of_hardware(config, aware=kind != "plain"),
        "model.analog_share": round(summary.analog_share, 6),
        "model.cells": sum(row.cells for row in summary.rows),
    }


def log_ranges(analog: nn.Module, tracker: Tracker) -> None:
    """Log the ranges of converters that calibration or training has set, as a table, if there are any.

    Of a layer with several the largest, and in a column of its own the smallest.
    """
    found = get_ranges(analog)
    if found:
        kinds = dict.fromkeys(kind for ranges in found.values() for kind in ranges)
        columns = {kind: [float(ranges[kind].abs().max()) for ranges in found.values()] for kind in kinds}
        if any(value.ndim for ranges in found.values() for value in ranges.values()):
            for kind in kinds:
                columns[f"smallest_{kind}"] = [float(ranges[kind].abs().min()) for ranges in found.values()]
        tracker.table({"layer": list(found), **columns}, "ranges.json")


def log_report(report: Report, tracker: Tracker, *, step: int, part: str, on: UsedData | None = None) -> None:
    """Log a report: its scalars at a step (the epoch), drift curves over seconds, and every chip as a table.

    The scalars are those of the model that was kept last, where it is said `on` which data.
    """
    tracker.tags(read_as(report))
    tracker.metrics(ends(report, part), step=step, on=on)
    for name, points in curves(report, part).items():
        tracker.curve(name, list(points), list(points.values()))
    frame = report.to_frame()
    tracker.table({str(column): frame[column].tolist() for column in frame}, "chips.json")
