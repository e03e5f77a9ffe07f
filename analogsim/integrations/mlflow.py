"""Reports in the MLflow run of a loop of one's own: `log_report` for one, `autolog` for all.

The names are those of ``analogsim train``, so that runs of either stand side by side. Needs
the extra ``recipes``; MLflow is imported at the first call.
"""

from __future__ import annotations

import time
import warnings
from collections import Counter
from typing import Any

from analogsim.errors import InvalidTypeError, InvalidValueError, MissingPackageError
from analogsim.evaluation.monte_carlo import listen, stop_listening
from analogsim.evaluation.report import Report
from analogsim.integrations.metric_names import metric_name
from analogsim.integrations.report_scores import curves, ends, read_as
from analogsim.utils.packages import how_to_install


def log_report(report: Report, *, part: str = "test", step: int = 0) -> str:
    """Log a report into the active MLflow run: metrics at each time, drift curves, every chip as a table, the figure.

    Metrics are ``test/accuracy/clean``, ``test/accuracy/drifted_1d`` with ``_p05`` and ``_std``, for each time of the
    report; ``test/accuracy/drift`` is the mean over seconds. The chips are ``test/chips.json``, the figure is
    ``test/drift.png``, and of later steps ``test/chips_3.json``; a report of one part and step has names of its own, so
    that another one needs another part or step.

    Args:
        report: what `analogsim.evaluate` gave.
        part: the start of all names: of which data, or of which network, the report is.
        step: of training, such as the epoch.

    Returns:
        The run's id. Without an active run it is one of its own, which has ended.

    Raises:
        TypeError: it is no report, or the step is no integer.
        ValueError: a part that MLflow does not take in names.
        ImportError: MLflow, matplotlib or pandas is not installed.
    """
    _check(report, part, step)
    mlflow = _imported()
    run = mlflow.active_run()
    if run is None:
        with mlflow.start_run() as own:
            _log(mlflow, own.info.run_id, report, part, step)
            return str(own.info.run_id)
    _log(mlflow, run.info.run_id, report, part, step)
    return str(run.info.run_id)


def autolog(*, disable: bool = False, part: str = "test") -> None:
    """Log every report that `analogsim.evaluate` gives in this process from now on, as `log_report` does.

    The first report of a run has step 0, the next one step 1. Where logging fails, the evaluation goes on, and a
    warning says why.

    Args:
        disable: log none from now on.
        part: see `log_report`.

    Raises:
        ValueError: a part that MLflow does not take in names.
        ImportError: MLflow is not installed.
    """
    stop_listening(_log_next)
    if not disable:
        _check_part(part)
        _imported()
        _autologged["part"] = part
        listen(_log_next)


_autologged = {"part": "test"}
_steps: Counter[str] = Counter()


def _log_next(report: Report) -> None:
    """Log a report of a run as its next one."""
    mlflow = _imported()
    run = mlflow.active_run()
    step = _steps[run.info.run_id] if run else 0
    try:
        _steps[log_report(report, part=_autologged["part"], step=step)] += 1
    except Exception as error:  # whatever a server answers: what was evaluated is worth more
        warnings.warn(f"autolog: the report is not in MLflow: {error}; log it with analogsim.log_report", stacklevel=4)


def _check(report: object, part: str, step: object) -> None:
    if not isinstance(report, Report):
        raise InvalidTypeError(f"log_report: give what analogsim.evaluate returns, got {report!r}")
    if isinstance(step, bool) or not isinstance(step, int):
        raise InvalidTypeError(f"log_report: step must be an integer, got {step!r}")
    _check_part(part)


def _check_part(part: object) -> None:
    if not isinstance(part, str) or metric_name(part) != part:
        raise InvalidValueError(
            f"log_report: part must be a word that MLflow takes in names, such as 'test', got {part!r}"
        )


def _log(mlflow: Any, run_id: str, report: Report, part: str, step: int) -> None:
    now = int(1000 * time.time())
    points = [(name, value, step) for name, value in ends(report, part).items()]
    points += [(name, value, at) for name, line in curves(report, part).items() for at, value in line.items()]
    client = mlflow.MlflowClient()
    metrics = [mlflow.entities.Metric(name, value, now, at) for name, value, at in points if value == value]
    for first in range(0, len(metrics), 1000):  # MLflow takes no more at once
        client.log_batch(run_id, metrics=metrics[first : first + 1000])
    for name, value in {**read_as(report), "device": report.device}.items():
        client.set_tag(run_id, name, value)
    end = f"_{step}" if step else ""
    frame = report.to_frame()
    client.log_table(run_id, {str(name): frame[name].tolist() for name in frame}, f"{part}/chips{end}.json")
    figure = report.plot()
    client.log_figure(run_id, figure, f"{part}/drift{end}.png")
    figure.clear()


def _imported() -> Any:
    try:
        import mlflow
    except ImportError as error:
        raise MissingPackageError(f"log_report needs MLflow: {error}; {how_to_install('recipes')}") from error
    return mlflow
