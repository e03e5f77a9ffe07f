"""Compare runs: their drift curves side by side, and in what they differ.

    analogsim compare runs/20260101-120000-digits-lenet5-pcm --html compare.html

Runs come from MLflow or from folders. ``analogsim ui`` serves the page of MLflow that the link at the end opens.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from analogsim.errors import InvalidValueError, MissingFileError
from analogsim.evaluation.report import Report
from analogsim.recipes.comparison import saved_runs
from analogsim.recipes.comparison.charts import MARKS
from analogsim.recipes.comparison.comparison import Comparison
from analogsim.recipes.comparison.saved_runs import SavedRun
from analogsim.recipes.config.arguments import Program
from analogsim.recipes.config.outputs import check_output, keep_result
from analogsim.recipes.tracking import links
from analogsim.recipes.tracking.run_views import side_by_side
from analogsim.utils.files import write_whole
from analogsim.utils.times import label

_AXES = 6  # parameters that differ in MLflow's parallel coordinates
LIMIT = 10  # runs of an experiment, unless another number is asked for


def compare(
    runs: Sequence[str | os.PathLike[str]] = (),
    *,
    experiment: str | None = None,
    filter: str = "",
    order: str | None = None,
    limit: int = LIMIT,
    uri: str | None = None,
    port: int = links.PORT,
) -> Comparison:
    """Compare runs, or those of an experiment.

    Runs that are in MLflow are given a view there, which the link of the result opens.

    Args:
        runs: Each the id of an MLflow run, an unambiguous beginning of it (four letters or more), the name of a run,
            or a folder of ``analogsim train`` with all its networks, or one that holds a ``report.json``.
        experiment: Name of an MLflow experiment, in place of `runs`.
        filter: MLflow's filter string for its runs, such as ``params.model = 'lenet5'``.
        order: The metric that orders them, the best first: the highest, or the lowest where the runs are judged by it
            and lower is better; ``"train/loss asc"``: the lowest. Default: newest first.
        limit: So many of them at most.
        uri: MLflow tracking URI; see ``stores.tracking_uri``.
        port: Where ``analogsim ui`` serves a database, for the links.

    Raises:
        ValueError: No run, one that is unknown, ambiguous or deleted, reports that cannot be compared, or none.
        FileNotFoundError: There is no such folder or database.
        ConnectionError: The MLflow server cannot be reached.
    """
    if bool(runs) == (experiment is not None):
        raise InvalidValueError(
            "compare: give runs (ids, names or folders), or --experiment NAME with or without --filter"
        )
    if experiment is None and (filter or order or limit != LIMIT):
        raise InvalidValueError(
            "compare: --filter, --order and --limit choose from an experiment: give --experiment NAME"
        )
    if not 1 <= limit <= len(MARKS):
        raise InvalidValueError(f"compare: --limit must be from 1 to {len(MARKS)}, got {limit}")
    store = saved_runs.Store(uri)
    notes = []
    if experiment is not None:
        found, more = store.of_experiment(experiment, filter=filter, order=order, limit=limit)
        if more:
            notes.append(f"more runs match; these are the first {limit}: --limit gives another number")
    else:
        found = []
        for word in runs:
            found += _found(word, store, uri, notes)
        found = list({run.where: run for run in reversed(found)}.values())[::-1]
    if len(found) > len(MARKS):
        raise InvalidValueError(f"compare: {len(found)} runs are too many to tell apart; give at most {len(MARKS)}")
    if len({run.uri for run in found if run.experiment_id}) > 1:
        notes.append("no link: the runs are in different MLflow stores")
    return _with_view(Comparison(_comparable(found, notes), tuple(notes), port))


def _with_view(made: Comparison) -> Comparison:
    """With the page of MLflow that opens on the curves of the runs, if they are in MLflow."""
    if not made.link:
        return made
    names = dict.fromkeys(name for run in made.stored for name in run.metrics)
    count = "1 run" if len(made.stored) == 1 else f"{len(made.stored)} runs"
    title = f"{count} side by side: {', '.join(run.name for run in made.stored)}"
    params = list(made.differing)[:_AXES]
    return replace(made, view=side_by_side(made.stored, list(names), title=title, params=params, port=made.port))


def _found(word: str | os.PathLike[str], store: saved_runs.Store, uri: str | None, notes: list[str]) -> list[SavedRun]:
    text = os.fspath(word)
    if not Path(text).is_dir():
        try:
            return [store.named(text)]
        except FileNotFoundError as error:
            raise MissingFileError(f"compare: no folder {text!r} (in {Path.cwd()}), and {error}") from error
    return [_located(run, store if uri else saved_runs.Store(run.uri), notes) for run in saved_runs.of_folder(text)]


def _located(run: SavedRun, store: saved_runs.Store, notes: list[str]) -> SavedRun:
    """A run of a folder with its place in MLflow; to compare it, it need not be there."""
    if not run.run_id:
        notes.append(f"{run.name}: not in the link, it was made without MLflow")
        return run
    try:
        return store.locate(run)
    except (OSError, ValueError, ImportError) as error:
        notes.append(f"{run.name}: not in the link: {error}")
        return run


def _comparable(found: Sequence[SavedRun], notes: list[str]) -> tuple[SavedRun, ...]:
    """The runs under distinct names, their reports at the times that all of them have."""
    names = [run.name for run in found]
    distinct = [run if names.count(run.name) == 1 else replace(run, name=f"{run.name} {run.where}") for run in found]
    reports = {run.name: run.report for run in distinct if run.report is not None}
    if not reports:
        listed = "; ".join(f"{run.name}: {run.status}" for run in distinct[:8])
        raise InvalidValueError(
            f"compare: no run has a report yet, which is made at the end of a training ({listed}); "
            "go on with one that was stopped: analogsim train --resume FOLDER"
        )
    better = _one_direction(reports)
    shared = _shared_times(reports, notes)

    def alike(report: Report) -> Report:
        return replace(report.only(shared), higher_is_better=better)

    return tuple(replace(run, report=run.report and alike(run.report)) for run in distinct)


def _one_direction(reports: Mapping[str, Report]) -> bool | None:
    """Whether the higher score is the better one in all reports, as far as one of them knows.

    Raises:
        ValueError: their scores are not of one kind, but of two metrics, in two units, or read in two directions.
    """
    of = {name: report.heading for name, report in reports.items()}
    if len(set(of.values())) > 1:
        listed = "; ".join(f"{name}: {heading}" for name, heading in of.items())
        raise InvalidValueError(
            f"compare: the reports have different metrics, give runs with the same one: {listed}; of an experiment: "
            f"--filter \"tags.metric = '{next(iter(reports.values())).metric}'\""
        )
    better = {name: report.higher_is_better for name, report in reports.items() if report.higher_is_better is not None}
    if len(set(better.values())) > 1:
        listed = "; ".join(f"{name}: {'higher' if high else 'lower'}" for name, high in better.items())
        raise InvalidValueError(
            f"compare: the reports do not agree which {next(iter(reports.values())).metric} is the better one: {listed}"
        )
    return next(iter(better.values()), None)


def _shared_times(reports: Mapping[str, Report], notes: list[str]) -> list[float]:
    """The times that all reports have; a note says which others there are."""
    every = sorted({time for report in reports.values() for time in report.times})
    shared = [time for time in every if all(time in report.times for report in reports.values())]
    if not shared:
        listed = "; ".join(f"{name}: {', '.join(report.labels)}" for name, report in reports.items())
        raise InvalidValueError(
            f"compare: the runs were evaluated at no common time ({listed}); evaluate them again at common times: "
            "analogsim evaluate FOLDER --times 1s,1d"
        )
    if len(shared) < len(every):
        left = ", ".join(label(time) for time in every if time not in shared)
        notes.append(f"left out, because not all runs were evaluated then: {left}")
    return shared


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.description = "Compare runs: their drift curves side by side, and the parameters in which they differ."
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="the name of an MLflow run, its id or the beginning of it, or a folder of analogsim train",
    )
    parser.add_argument("--experiment", metavar="NAME", help="the runs of an MLflow experiment, newest first")
    parser.add_argument("--filter", default="", help="of these: MLflow's filter, such as \"params.model = 'lenet5'\"")
    parser.add_argument(
        "--order", metavar="METRIC", help='best first; "METRIC asc": lowest first, "METRIC desc": highest'
    )
    parser.add_argument("--limit", type=int, default=LIMIT, help="so many at most; default: %(default)s")
    parser.add_argument("--html", metavar="FILE", help="write a page that needs nothing beside it")
    parser.add_argument("--open", action="store_true", help="open MLflow's page that compares them")
    parser.add_argument("--uri", help="MLflow store; default: MLFLOW_TRACKING_URI, else mlflow.db here")
    parser.add_argument(
        "--port", type=int, default=links.PORT, help="of analogsim ui, for the links; default: %(default)s"
    )


def _run_command(options: argparse.Namespace) -> object:
    check_output(options.html, "compare")
    found = compare(
        options.runs,
        experiment=options.experiment,
        filter=options.filter,
        order=options.order,
        limit=options.limit,
        uri=options.uri,
        port=options.port,
    )
    result = _result_of(found)
    keep_result(options, result)
    print(found.text(shutil.get_terminal_size((200, 24)).columns))  # a pipe has no width: the wide tables
    if options.html is not None:
        write_whole(options.html, found.to_html())
        print(f"\nas a page: {options.html}")
    if found.link and not options.quiet:
        print("\n" + "\n".join(["Side by side in MLflow:", *([found.command] if found.command else []), found.link]))
    if options.open:
        if not found.link:
            raise InvalidValueError("compare: --open: there is no page of MLflow for these runs, see above")
        links.open_page(found.link)
    return result


def _result_of(found: Comparison) -> dict[str, object]:
    """A comparison as JSON can hold it."""
    return {
        "runs": [
            {
                "name": run.name,
                "status": run.status,
                "run_id": run.run_id,
                "report": run.report and run.report.to_dict(),
            }
            for run in found.runs
        ],
        "differing": {name: list(values) for name, values in found.differing.items()},
        "notes": list(found.notes),
        "link": found.link,
    }


PROGRAM = Program(
    "compare",
    "compare runs: drift curves, and in what the runs differ",
    _declare,
    _run_command,
    words="runs",
    examples=(
        "compare runs/FIRST runs/SECOND --html compare.html",
        "compare --order test/accuracy/drifted_1y --limit 5",
    ),
    result="the runs",
)
