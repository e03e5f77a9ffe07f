"""What the recipes tell MLflow of a network: its parameters, and a report as metrics, curves and a table."""

from __future__ import annotations

from dataclasses import fields

from torch import nn

import analogsim
from analogsim.chip.ranges import get_ranges
from analogsim.crossbar import IDEAL
from analogsim.device.parse import as_device_model
from analogsim.evaluation.report import Report, clean_columns
from analogsim.recipes.config.hardware import array_of
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import flatten
from analogsim.recipes.tracking.metric_names import BETTER, drifted, legal, score_name, tail
from analogsim.recipes.tracking.tracker import Tracker


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


def clean_scores(report: Report) -> dict[str, float]:
    """The scores of a network without errors by the ends of their names: clean, and digital where it differs."""
    return {name: getattr(report, name) for name in clean_columns([report])}


def ends(report: Report, part: str) -> dict[str, float]:
    """Every time of a report as scalars: names to sort runs by, and to put on the axes of MLflow's compare page.

    Args:
        report: over chips and times.
        part: of which data, the start of the names: "test" gives ``test/accuracy/drifted_1d``, and for the bad end of
            the chips ``test/accuracy/drifted_1d_p05``, or ``_p95`` where the lower score is the better one.
    """
    named = {score_name(part, report.metric, end): score for end, score in clean_scores(report).items()}
    for index, time in enumerate(report.labels):
        name = score_name(part, report.metric, drifted(time))
        named[name] = float(report.mean[index])
        named[f"{name}_{tail(report.tail)}"] = float(report.quantile(report.tail)[index])
        named[f"{name}_std"] = float(report.std[index])
    return {key: value for key, value in named.items() if value == value}


def read_as(report: Report) -> dict[str, str]:
    """The tags that tell how the scores of a run are read: the metric, its unit, and which end is the good one."""
    better = {True: "higher", False: "lower", None: "not known"}[report.higher_is_better]
    return {"metric": report.metric, "metric.unit": report.unit or "", BETTER: better}


def log_report(report: Report, tracker: Tracker, *, step: int, part: str) -> None:
    """Log a report: its scalars at a step (the epoch), drift curves over seconds, and every chip as a table."""
    tracker.tags(read_as(report))
    tracker.metrics(ends(report, part), step=step)
    # A step is a whole number: of several times within one second, the last stands for all.
    whole = {round(time): index for index, time in enumerate(report.times)}
    for name, values in (("drift", report.mean), (f"drift_{tail(report.tail)}", report.quantile(report.tail))):
        tracker.curve(score_name(part, report.metric, name), list(whole), values[list(whole.values())].tolist())
    frame = report.to_frame()
    tracker.table({str(column): frame[column].tolist() for column in frame}, "chips.json")
