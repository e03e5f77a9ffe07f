"""Evaluate a trained network again: another device or crossbar, more chips, other times, or part by part.

analogsim evaluate runs/20260101-120000-digits-lenet5-pcm --device "gaussian(std=0.05)" --chips 100
analogsim evaluate runs/20260101-120000-digits-lenet5-pcm --crossbar standard --ablate
analogsim evaluate runs/20260101-120000-digits-lenet5-pcm --chips 2000 --workers 8 --journal chips.jsonl
analogsim evaluate runs/20260101-120000-digits-lenet5-pcm --precision 0.001 --samples-per-chip auto
analogsim evaluate runs/20260101-120000-digits-lenet5-pcm --prepare 30s --track
analogsim evaluate --merge first.json second.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Unpack

import analogsim
from analogsim.errors import InvalidValueError
from analogsim.evaluation.ablation import Ablation
from analogsim.evaluation.preparation import Prepared
from analogsim.evaluation.report import Report, compare_plot, compare_table
from analogsim.evaluation.workers import Ranks
from analogsim.integrations.report_scores import ends
from analogsim.recipes.config.arguments import Program
from analogsim.recipes.config.outputs import check_figure, keep_result, shows_bars
from analogsim.recipes.tracking.tracked_run import start
from analogsim.recipes.training.restored import Asked, Restored, add_judging, asked_by, judging, restored
from analogsim.recipes.training.sharing import Sharing, add_sharing, sharing
from analogsim.utils.digests import sealed
from analogsim.utils.files import write_figure
from analogsim.utils.times import seconds


def evaluate(
    path: Path,
    *,
    show: bool = True,
    tell: Callable[[str], None] = lambda _: None,
    done: Callable[[str, Report], None] = lambda _, __: None,
    shared: Sharing = Sharing(),  # noqa: B008  a value that nothing changes
    **asked: Unpack[Asked],
) -> dict[str, Report]:
    """Evaluate the networks of a run on their test data.

    Args:
        path: a run's folder, or one checkpoint file.
        show: progress bars.
        tell: told a line where ranges of converters are not those of the run.
        done: given each network's name and what was found of it, as soon as it is.
        shared: who judges the chips, and where they are kept.
        asked: see `Asked`.

    Returns:
        A report for each network, by its name.

    Raises:
        ValueError: what is asked for cannot be.

    Warns:
        UserWarning: the training of a network was stopped before its end.
    """
    found = {}
    for name, network in restored(path, asked, tell, place=shared.place):
        found[name] = analogsim.evaluate(
            network.analog,
            network.test,
            progress=show and shows_bars(),
            clean=network.clean,
            **judging(network, asked) | network.config.evaluation.counts,
            **shared.options(name),
        )
        done(name, found[name])
    return found


@dataclass(frozen=True)
class PreparedReports:
    """A network before and after `analogsim.prepare`.

    Args:
        before: as it is.
        after: with what is kept.
        prepared: what that is.
    """

    before: Report
    after: Report
    prepared: Prepared


def prepare(
    path: Path,
    *,
    budget: float | str = "1min",
    copies: int = 1,
    digital: float = 0.0,
    track: bool = False,
    show: bool = True,
    tell: Callable[[str], None] = lambda _: None,
    done: Callable[[str, PreparedReports], None] = lambda _, __: None,
    shared: Sharing = Sharing(),  # noqa: B008  a value that nothing changes
    **asked: Unpack[Asked],
) -> dict[str, PreparedReports]:
    """Evaluate the networks of a run as they are and with what `analogsim.prepare` keeps, on the same chips.

    It is prepared for the last of the times, with inputs of the training data.

    Args:
        path: see `evaluate`, as for all that follow, what is raised and warned.
        budget: of time, for each network.
        copies: how many cells may hold one conductance.
        digital: which share of the weights may stay digital.
        track: whether what it brings is added to the network's run in MLflow.
        show: progress bars.
        tell: told a line.
        done: given what was found of each network, as soon as it is, and before it is added to anything.
        shared: who judges.
        asked: how.

    Raises:
        ValueError: several processes that judge together would each choose by their own clock; or there is no run in
            MLflow to add to.
    """
    seconds(budget)  # told before the work
    if isinstance(shared.executor, Ranks):
        told = "evaluate: --prepare chooses in one process; take --workers in place of torchrun"
        raise InvalidValueError(told)
    found = {}
    for name, network in restored(path, asked, tell, place=shared.place):
        if track and network.run_id is None:
            raise InvalidValueError(f"evaluate: --track adds to a run in MLflow, and the {name} network has none")
        how = judging(network, asked) | {"clean": network.clean, "progress": show and shows_bars()}
        how |= network.config.evaluation.counts
        before = analogsim.evaluate(network.analog, network.test, **how, **shared.options(name))
        prepared = analogsim.prepare(
            network.analog,
            network.calibration,
            budget=budget,
            copies=copies,
            digital=digital,
            time=how["times"][-1],
            compensation=how["compensation"],
            tell=partial(_tell_step, tell, name),
        )
        how["compensation"] = prepared.compensation
        after = analogsim.evaluate(prepared.analog, network.test, **how, **shared.options(f"{name}, prepared"))
        found[name] = PreparedReports(before, after, prepared)
        done(name, found[name])
        if track:
            _track(network, name, found[name])
    return found


def _tell_step(tell: Callable[[str], None], name: str, step: str) -> None:
    tell(f"{name}: {step}")


def _track(network: Restored, name: str, found: PreparedReports) -> None:
    """Add what was found to a network's run in MLflow."""
    tracking = network.config.tracking
    with start(
        True, experiment=tracking.experiment, name=name, uri=tracking.uri, run_id=network.run_id, params={}
    ) as tracker:
        tracker.metrics(ends(found.after, "prepared"), step=network.epoch)
        tracker.text(f"{found.prepared}\n", "prepared.txt")
        tracker.text(json.dumps(found.prepared.to_dict(), indent=1), "prepared.json")
        tracker.tags({"prepared": "+".join(found.prepared.kept) or "nothing"})


def ablate(
    path: Path,
    *,
    tell: Callable[[str], None] = lambda _: None,
    done: Callable[[str, Ablation], None] = lambda _, __: None,
    shared: Sharing = Sharing(),  # noqa: B008  a value that nothing changes
    **asked: Unpack[Asked],
) -> dict[str, Ablation]:
    """Evaluate the networks of a run with each non-ideality switched off in turn, see `analogsim.ablate`.

    Args:
        path: see `evaluate`, as for all that follow, what is raised and warned.
        tell: told a line.
        done: given each network's name and what was found of it, as soon as it is.
        shared: who judges.
        asked: how.
    """
    found = {}
    for name, network in restored(path, asked, tell, place=shared.place):
        found[name] = analogsim.ablate(network.analog, network.test, **judging(network, asked), **shared.options(name))
        done(name, found[name])
    return found


def merge(files: Sequence[str]) -> dict[str, Report]:
    """The reports that several evaluations of one run wrote, network by network.

    Args:
        files: as ``--json`` writes them, each of other chips.

    Raises:
        ValueError: a file holds no reports or other networks, or they are no parts of one evaluation.
    """
    parts: list[dict[str, Report]] = []
    for file in files:
        try:
            stored = json.loads(Path(file).read_text(encoding="utf-8"))
            parts.append({name: Report.from_dict(report) for name, report in stored.items()})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidValueError(
                f"evaluate: {file!r} holds no reports, or damaged ones ({error}); give files that --json wrote"
            ) from error
        if parts[-1].keys() != parts[0].keys():
            found, first = (", ".join(sorted(part)) for part in (parts[-1], parts[0]))
            raise InvalidValueError(f"evaluate: {file!r} has reports of {found}, and {files[0]!r} of {first}")
    return {name: Report.merged(part[name] for part in parts) for name in parts[0]}


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.description = "Evaluate the networks of a run again: on another device, with more chips, at other times."
    add_judging(parser, optional=True)
    add_sharing(parser)
    parser.add_argument(
        "--times", help='since programming, such as "90,1h,1w", bare numbers in seconds; default: the run\'s'
    )
    parser.add_argument(
        "--precision",
        type=float,
        metavar="HALF",
        help="judge chips until half the 95 %% interval of their mean is no wider, at every time, such as 0.001 (0.1 "
        "points of accuracy); --chips is the most then, by default 10,000",
    )
    parser.add_argument(
        "--samples-per-chip",
        type=_samples,
        metavar="N",
        help="test samples that each chip is asked, drawn where errors change answers; auto: as many as it is worth; "
        "default: all",
    )
    parser.add_argument("--plot", metavar="FILE", help="draw the drift curves (png, svg, pdf)")
    parser.add_argument("--ablate", action="store_true", help="switch each non-ideality off in turn")
    parser.add_argument(
        "--prepare",
        metavar="TIME",
        nargs="?",
        const="1min",
        help="try what helps without labels, within this time for each network, and keep what does; default: 1min",
    )
    parser.add_argument(
        "--copies", type=int, metavar="N", help="with --prepare: how many cells may hold one conductance"
    )
    parser.add_argument(
        "--digital",
        type=float,
        metavar="SHARE",
        help="with --prepare: share of the weights that may stay digital, 0 to 1",
    )
    parser.add_argument("--track", action="store_true", help="with --prepare: add what it brings to the runs in MLflow")
    parser.add_argument("--merge", metavar="FILE", nargs="+", help="join reports of --json, of other chips each")


def _samples(text: str) -> int | str:
    """A number of samples, or what `analogsim.evaluate` says to any other word."""
    return int(text) if text.lstrip("-").isdecimal() else text


def _check_options(options: argparse.Namespace) -> None:
    """Whatever of the arguments does not go together, told before the work."""
    check_figure(options.plot, "evaluate")
    if (options.run is None) == (options.merge is None):
        raise InvalidValueError("evaluate: give a run's folder or checkpoint file, or --merge with files of --json")
    if options.ablate and options.plot is not None:
        raise InvalidValueError("evaluate: --ablate has no drift curves to draw; leave out --plot")
    if options.ablate and (options.precision is not None or options.samples_per_chip is not None):
        raise InvalidValueError(
            "evaluate: --ablate compares the same chips on all data; leave out --precision and --samples-per-chip"
        )
    if options.prepare is None and (options.copies is not None or options.digital is not None or options.track):
        raise InvalidValueError("evaluate: --copies, --digital and --track go with --prepare")
    if options.prepare is not None and options.ablate:
        raise InvalidValueError("evaluate: give --ablate or --prepare, not both")


def _run_command(options: argparse.Namespace) -> object:
    _check_options(options)
    if options.merge is not None:
        reports = merge(options.merge)
        keep_result(options, _sealed(reports))
        print(compare_table(reports))
        return _drawn(reports, options)
    asked = asked_by(options, None if options.times is None else options.times.split(","))
    with sharing(options, "evaluate") as shared:
        if options.prepare is not None:
            return _prepare_command(options, shared, asked)
        if options.ablate:
            known: dict[str, object] = {}

            def each(name: str, ablation: Ablation) -> None:
                known[name] = _sealed(ablation.reports)
                if shared.main:
                    keep_result(options, known)
                shared.tell(f"{name} network\n\n{ablation}\n")

            ablate(Path(options.run), tell=shared.tell, done=each, shared=shared, **asked)
            return known if shared.main else None
        show, reports = shared.main and not options.quiet, dict[str, Report]()
        with _told_anyway(reports, shared, options):
            evaluate(Path(options.run), show=show, tell=shared.tell, done=reports.__setitem__, shared=shared, **asked)
        return _drawn(reports, options) if shared.main else None


def _prepare_command(options: argparse.Namespace, shared: Sharing, asked: Asked) -> object:
    reports: dict[str, Report] = {}

    def done(name: str, each: PreparedReports) -> None:
        shared.tell(f"{name} network\n\n{each.prepared}\n")
        reports.update({name: each.before, f"{name}, prepared": each.after})

    with _told_anyway(reports, shared, options):
        prepare(
            Path(options.run),
            budget=options.prepare,
            copies=1 if options.copies is None else options.copies,
            digital=0.0 if options.digital is None else options.digital,
            track=options.track,
            show=not options.quiet,
            tell=lambda line: None if options.quiet else shared.tell(line),
            done=done,
            shared=shared,
            **asked,
        )
    return _drawn(reports, options)


@contextmanager
def _told_anyway(reports: dict[str, Report], shared: Sharing, options: argparse.Namespace) -> Iterator[None]:
    """Print and keep what a block puts into `reports`, also what there is when an error ends it."""
    try:
        yield
    finally:
        if reports:
            if shared.main:
                keep_result(options, _sealed(reports))
            shared.tell(compare_table(reports))


def _drawn(reports: dict[str, Report], options: argparse.Namespace) -> object:
    """Draw the reports where they are to be drawn, and give them as JSON holds them."""
    if options.plot is not None:
        write_figure(options.plot, compare_plot(reports))
    return _sealed(reports)


def _sealed(reports: Mapping[str, Report]) -> dict[str, object]:
    return {name: sealed(report.to_dict()) for name, report in reports.items()}


PROGRAM = Program(
    "evaluate",
    "evaluate a trained network again",
    _declare,
    _run_command,
    examples=(
        'evaluate runs/RUN --device "gaussian(std=0.05)" --times 1s,1w,1y',
        "evaluate runs/RUN --crossbar standard --ablate",
        "evaluate runs/RUN --precision 0.001 --samples-per-chip auto",
        "evaluate runs/RUN --prepare 30s --track",
        "evaluate --merge first.json second.json --json - --quiet",
    ),
    result="the reports",
)
