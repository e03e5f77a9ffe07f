"""What MLflow is told of a report: scores by name, and how they are read."""

from __future__ import annotations

from analogsim.evaluation.report import Report, clean_columns
from analogsim.integrations.metric_names import BETTER, drifted, score_name, tail


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


def curves(report: Report, part: str) -> dict[str, dict[int, float]]:
    """The mean and the bad end of the chips over the time since programming, in seconds.

    A step of MLflow's is a whole number: of several times within one second, the last stands for all.

    Args:
        report: over chips and times.
        part: as in `ends`.
    """
    whole = {round(time): index for index, time in enumerate(report.times)}
    lines = {"drift": report.mean, f"drift_{tail(report.tail)}": report.quantile(report.tail)}
    return {
        score_name(part, report.metric, name): {second: float(values[index]) for second, index in whole.items()}
        for name, values in lines.items()
    }
