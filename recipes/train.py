"""Train a network for a chip, beside the same network trained plainly, and see what is left of both.

    analogsim train --device pcm --data digits --model lenet5

Both networks start from the same weights and see the same batches. Each is an MLflow run; the last lines say how to
look at them. A run that was stopped goes on with ``analogsim train --resume FOLDER``, to the same numbers.

Several GPUs or CPUs, and several machines, train one network together when torchrun starts the same command on each:

    torchrun --nproc-per-node 4 -m analogsim train --device pcm --data cifar10 --model resnet20

``data.batch_size`` is the batch of all processes together, so that it is the same training, faster.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from analogsim.errors import InvalidValueError, MissingFileError
from analogsim.evaluation.ablation import ALL, Ablation
from analogsim.evaluation.display import spread
from analogsim.evaluation.metrics import MetricLike
from analogsim.evaluation.report import Report, compare_plot, compare_table
from analogsim.integrations.report_scores import curves, ends
from analogsim.recipes.config.arguments import Program, add_settings, files_and_overrides, help_width
from analogsim.recipes.config.options import SHORT, Config
from analogsim.recipes.config.outputs import keep_result, missing_folders, remove_empty, shows_bars
from analogsim.recipes.config.stored import from_stored
from analogsim.recipes.config.toml import describe, dump_toml, load_mapping, load_toml
from analogsim.recipes.tasks.data_sets import Splits
from analogsim.recipes.tasks.networks import Model
from analogsim.recipes.tasks.task import Task
from analogsim.recipes.tracking import stores, tracked_run
from analogsim.recipes.tracking.environment import environment_tags
from analogsim.recipes.tracking.log_report import log_ranges, log_report, parameters
from analogsim.recipes.tracking.run_names import facts_of, folder_end, run_color, run_name
from analogsim.recipes.tracking.run_views import list_link, list_scores, side_by_side
from analogsim.recipes.tracking.tracked_run import Run
from analogsim.recipes.tracking.tracker import NoRun, Tracker
from analogsim.recipes.tracking.used_data import used_data
from analogsim.recipes.training.loop import Progress, Training
from analogsim.recipes.training.owner import Owned, owned
from analogsim.recipes.training.processes import ALONE, Group, joined
from analogsim.recipes.training.setup import NOTHING, Given, check, load_data, refuse_stored_code, report_times
from analogsim.recipes.training.state import without_password
from analogsim.recipes.training.step import check_method
from analogsim.recipes.training.stopping import deferred
from analogsim.training import Step
from analogsim.utils.digests import CHANGED, is_as_written, sealed
from analogsim.utils.files import write_figure, write_whole
from analogsim.utils.times import label, seconds

PLAIN, AWARE = "plain", "hardware-aware"


@dataclass(frozen=True)
class Result:
    """What a training run gives: its folder, and for each network its report and its MLflow run.

    Attributes:
        also: by the network, its reports by the other metrics of the task.
    """

    folder: Path
    reports: dict[str, Report]
    trackers: dict[str, Tracker]
    also: dict[str, dict[str, Report]] = field(default_factory=dict)

    def __str__(self) -> str:
        return _tables(self.reports, self.also)

    def gained(self) -> str:
        """What training with the noise brought at each time, in a line; empty where that cannot be said."""
        plain, aware = self.reports.get(PLAIN), self.reports.get(AWARE)
        if plain is None or aware is None or plain.higher_is_better is None or len(plain.values) < 2:
            return ""
        gains = Ablation({ALL: plain, AWARE: aware}).gain(AWARE)  # the same chips, one by one
        told = ", ".join(
            f"{'+' if gain >= 0 else '-'}{spread(abs(gain), error, plain.unit)} after {label}"
            for gain, error, label in zip(*gains, plain.labels, strict=True)
        )
        return f"gained by training with the noise (chip by chip, mean ± standard error): {told}"


def _tables(reports: dict[str, Report], also: dict[str, dict[str, Report]]) -> str:
    """What the networks score, by one metric after another."""
    others = dict.fromkeys(metric for each in also.values() for metric in each)
    tables = [{kind: each[metric] for kind, each in also.items()} for metric in others]
    return "\n\n".join(map(compare_table, [reports, *tables]))


def new_folder(config: Config) -> Path:
    """Make a folder for a new run, named by time, data, model and device; no other process gets the same one.

    Raises:
        OSError: it cannot be made.
    """
    name = f"{datetime.now():%Y%m%d-%H%M%S}-{folder_end(config)}"[:120]
    for ending in itertools.chain([""], (f"-{attempt}" for attempt in itertools.count(2))):
        folder = Path(config.out) / f"{name}{ending}"
        with contextlib.suppress(FileExistsError):
            _make_folder(folder, exist_ok=False)
            break
    return folder


def _make_folder(folder: Path, *, exist_ok: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except OSError as error:
        raise type(error)(
            f"out: cannot make the folder {str(folder)!r}: {error.strerror}; give another place"
        ) from error


class _Bar:
    """Progress of one network: a bar over all steps, a line for each epoch where there is no terminal, or nothing."""

    def __init__(self, training: Training, name: str, show: bool) -> None:
        self._training = training
        self._bar: Any = None
        self._name = name
        self._show = show
        self._terminal = shows_bars()

    def step(self, at: Progress) -> None:
        if not (self._show and self._terminal):
            return
        if self._bar is None:
            from tqdm import tqdm

            total = self._training.config.optimization.epochs * at.batches
            self._bar = tqdm(
                total=total,
                initial=at.epoch * at.batches,
                desc=self._name,
                file=sys.stderr,
                ncols=shutil.get_terminal_size().columns - 1,
                bar_format="{desc}: {percentage:3.0f}%|{bar}| {remaining}{postfix}",  # with two scores: 80 columns
            )
        self._bar.update()

    def epoch(self, metrics: dict[str, float]) -> None:
        if not self._show:
            return
        percent = self._training.task.metric.unit == "%"
        scores = {key.split("/")[-1]: value for key, value in metrics.items() if key.startswith("validation/")}
        shown = {key: f"{100 * value:.1f} %" if percent else f"{value:.4g}" for key, value in scores.items()}
        shown = {"loss": f"{metrics['train/loss']:.3f}", **shown}
        if self._bar is not None:
            self._bar.set_postfix(shown)
        elif not self._terminal:
            told = ", ".join(f"{key} {text}" for key, text in shown.items())
            epochs = self._training.config.optimization.epochs
            print(f"{self._name}: epoch {self._training.epoch} of {epochs}, {told}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _start_tracking(config: Config, kind: str, training: Training, folder: Path, ours: Owned) -> Tracker:
    try:
        return tracked_run.start(
            config.tracking.enabled,
            experiment=config.tracking.experiment,
            name=run_name(config, kind, folder.name),
            uri=config.tracking.uri,
            run_id=training.run_id or None,
            mark=f"{ours.key} {kind}",
            again=ours.again,
            params=parameters(config, training.analog, kind),
            tags={
                "training": kind,
                "folder": folder.name,
                **run_color(folder.name, int(kind == AWARE)),
                "hardware.processes": str(training.group.world),
                **environment_tags(),
            },
        )
    except ValueError as error:
        if not training.run_id:
            raise
        raise InvalidValueError(
            f"{error}; go on in the directory the run was started in, or with --no-tracking"
        ) from error


def _list_scores(tracker: Tracker, training: Training) -> None:
    """Have MLflow's list of runs show what the networks will be judged by, at the time of the epochs and the last."""
    if isinstance(tracker, Run):
        times, epochs = report_times(training.config), training.config.evaluation.validation_time
        shown = [epochs, *times[-1:]] if seconds(epochs) in map(seconds, times) else times[-1:]
        list_scores(tracker, training.task.metric.name, [label(seconds(time)) for time in shown])


def _train_one(training: Training, tracker: Tracker, name: str, show: bool) -> None:
    bar = _Bar(training, name, show)
    training.set_random_state()
    # A kill may come after a checkpoint and before its metrics are in MLflow; what is there is not logged twice.
    for epoch, metrics in enumerate(training.history, 1):
        tracker.metrics(metrics, step=epoch)
    try:
        while not training.done:
            metrics = training.run_epoch(bar.step)
            bar.epoch(metrics)
            tracker.metrics(metrics, step=training.epoch)
    finally:
        bar.close()


def _judge(training: Training, data: Splits, tracker: Tracker, show: bool) -> tuple[Report, dict[str, Report]]:
    """The final evaluation on test data, kept beside the checkpoint and in the run; and that by other metrics."""
    config = training.config
    chips, times = config.evaluation.chips, report_times(config)
    report = training.judge(data.test, times=times, progress=show and shows_bars(), **config.evaluation.counts)
    also = {
        metric.name: training.judge(data.test, chips=chips, times=times, metric=metric) for metric in training.task.also
    }

    def keep() -> None:
        path = training.path.with_name("report.json")
        write_whole(path, json.dumps(sealed(report.to_dict())))
        train_data, test_data = used_data(config, data)
        tracker.inputs([train_data, test_data])
        kind = AWARE if training.aware else PLAIN
        tracker.model(facts_of(config, kind), training.path, step=training.epoch)
        log_report(report, tracker, step=training.epoch, part="test", on=test_data)
        log_ranges(training.analog, tracker)
        tracker.artifact(training.path, "checkpoint")
        tracker.artifact(path)
        for other in also.values():
            tracker.metrics(ends(other, "test"), step=training.epoch)
        if also:
            beside = path.with_name("also.json")
            write_whole(beside, json.dumps({name: sealed(other.to_dict()) for name, other in also.items()}))
            tracker.artifact(beside)

    training.group.first(keep)
    return report, also


def _nothing(line: str) -> None:
    """Nobody is told."""


def _tell_all(lines: Iterable[str], group: Group, tell: Callable[[str], None]) -> None:
    """Each line once, from process 0."""
    for line in dict.fromkeys(lines) if group.main else ():
        tell(line)


def train(
    config: Config,
    folder: Path | None = None,
    *,
    show: bool = True,
    group: Group = ALONE,
    step: Step | None = None,
    model: Model | None = None,
    data: Any = None,
    task: str | Task | None = None,
    metric: MetricLike | None = None,
    tell: Callable[[str], None] = _nothing,
    done: Callable[[Result], None] = lambda _: None,
) -> Result:
    """Train plain and hardware-aware networks and evaluate both on many chips.

    Of 0 epochs, which put weights on chips as they are, there is a plain network only.

    Args:
        config: what to do.
        folder: where checkpoints and reports go; default: a new one in ``config.out``. Checkpoints that are there
            are gone on from.
        show: progress bars on the error stream.
        group: the processes that train together, see `processes.joined`; each calls this, and
            gets the same reports. Only process 0 writes, logs and shows anything.
        step: how each step of both networks comes by its gradients, in place of ``config.training``, see
            `analogsim.training.step`. A run is gone on with by the same one.
        model: the network in place of what ``config.model`` names: a module, of which copies are trained, or a factory
            that may ask for facts of the data by name. A run is gone on with by the same one; so for what follows.
        data: the data in place of ``config.data``: whatever a factory of data may return, see `data_sets.load`.
        task: what is to be learned in place of ``config.task``, a `Task`.
        metric: what is judged by in place of ``config.metric``.
        tell: told, a line each, what was decided of data and weights.
        done: given the result as soon as both networks are judged, in process 0, before it is drawn or sent anywhere.

    Raises:
        ValueError, OSError: something in the options, the data, the folder or the tracking server is not as it must
            be; told before training starts.
        UnavailableError: another process is at work in the folder.
        ValueError: training diverged.
        TypeError: ``step`` is no callable, or gives no loss.
        RuntimeError: ``step`` leaves no gradients.
        KeyboardInterrupt: as it comes, with a note that says how to go on.
    """
    if step is not None:
        check_method(step)
    given = Given(model, data, task, metric)
    config = given.described(config)
    group.each(lambda: check(config, given))
    splits = (group.by_turns if config.data.download else group.each)(lambda: load_data(config, given))
    _tell_all([*splits.notes, *_password_told(config)], group, tell)
    folder, made = group.first(lambda: _ready_folder(config, folder))
    trackers: dict[str, Tracker] = {}
    try:
        with contextlib.ExitStack() as scope:
            ours = group.first(lambda: scope.enter_context(owned(folder, tell)))
            with _ended(trackers, group):
                kinds = _prepared(config, splits, folder, group, step, model)
                _tell_all([note for training in kinds.values() for note in training.notes], group, tell)
                result = _run(kinds, config, splits, folder, trackers, show and group.main, ours)
                group.first(lambda: _keep(result, done))
    except BaseException as error:
        if group.main:
            remove_empty(made)
        if isinstance(error, KeyboardInterrupt) and group.main and folder.is_dir():
            error.add_note(f"go on with: {group.command} train --resume {shlex.quote(str(folder))}")
        raise
    return result


@contextlib.contextmanager
def _ended(trackers: Mapping[str, Tracker], group: Group) -> Iterator[None]:
    """End all runs after a block, as it ended itself."""
    try:
        yield
        for tracker in trackers.values():
            tracker.end()
    except BaseException as error:
        group.leaving()
        for tracker in trackers.values():
            tracker.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise


def _password_told(config: Config) -> list[str]:
    """A line on where the password of the tracking server comes from, where the run has not kept it."""
    uri = config.tracking.uri
    if not (config.tracking.enabled and stores.lacks_password(uri)) or stores.lacks_password(stores.tracking_uri(uri)):
        return []
    return [f"the password of {uri} is not kept with the run; it is that of {stores.PASSWORD} or MLFLOW_TRACKING_URI"]


def _ready_folder(config: Config, folder: Path | None) -> tuple[Path, list[Path]]:
    """The folder of a run, and those that were made for a new one, to be taken away again if they stay empty."""
    if folder is None:
        made = missing_folders(config.out)
        folder = new_folder(config)
        return folder, [folder, *made]
    _make_folder(folder, exist_ok=True)
    return folder, []


def _prepared(
    config: Config, data: Splits, folder: Path, group: Group, step: Step | None, model: Model | None
) -> dict[str, Training]:
    """The networks; whatever may be refused is refused for both before the first one trains."""
    kinds = (PLAIN, AWARE) if config.baseline else (AWARE,)
    return {
        kind: Training(
            config,
            data,
            aware=kind == AWARE,
            path=folder / kind / "checkpoint.pt",
            group=group,
            step=step,
            model=model,
        )
        for kind in (kinds if config.optimization.epochs else (PLAIN,))
    }


def _run(
    trainings: dict[str, Training],
    config: Config,
    data: Splits,
    folder: Path,
    trackers: dict[str, Tracker],
    show: bool,
    ours: Owned,
) -> Result:
    """Train and judge; each tracker is put into ``trackers`` once it is started, for the caller to end."""
    kinds = tuple(trainings)
    group = trainings[kinds[0]].group
    trackers.update(dict.fromkeys(kinds, NoRun()))

    def announce() -> None:
        told = folder / "config.toml"
        new = not told.exists()
        if new:  # first: with it the run can be gone on with, whatever comes
            dump_toml(without_password(config), told)
        elif (text := told.read_text(encoding="utf-8")) != stores.shown(text):  # of a version that kept passwords
            write_whole(told, stores.shown(text))
        try:
            for kind in kinds:
                trackers[kind] = _start_tracking(config, kind, trainings[kind], folder, ours)
        except BaseException:
            if new:
                told.unlink()
            raise

    with deferred():  # a run that was made is one that is known
        group.first(announce)
        for kind in kinds:
            trainings[kind].run_id = trackers[kind].run_id or trainings[kind].run_id
            trainings[kind].save()
    group.first(lambda: _list_scores(trackers[kinds[0]], trainings[kinds[0]]))
    reports: dict[str, Report] = {}
    also: dict[str, dict[str, Report]] = {}
    for kind in kinds:
        _train_one(trainings[kind], trackers[kind], kind, show)
        reports[kind], also[kind] = _judge(trainings[kind], data, trackers[kind], show)
    return Result(folder, reports, trackers, also)


def _keep(result: Result, done: Callable[[Result], None]) -> None:
    """The comparison of the networks, told, in the folder and in each run."""
    table = str(result)
    done(result)
    write_whole(result.folder / "report.txt", table + "\n")
    figure = compare_plot(result.reports)
    write_figure(result.folder / "drift.png", figure)
    for tracker in result.trackers.values():
        tracker.text(table, "report.txt")
        tracker.figure(figure, "drift.png")


def resume_config(folder: Path, *, tracking: bool = True, given: Given = NOTHING, trust: bool = False) -> Config:
    """The configuration a run was started with.

    Args:
        folder: the run's.
        tracking: False goes on without MLflow; what is missing there is logged when the run is resumed with it.
        given: what is named anew.
        trust: whether code that only the folder names may be run.

    Raises:
        FileNotFoundError: the folder is not one of ``analogsim train``.
        ValueError: its configuration names code, and nobody asked for it; or it is not as it was written.
    """
    path = folder / "config.toml"
    if not path.is_file():
        raise MissingFileError(f"resume: {str(folder)!r} is no run of analogsim train: there is no config.toml in it")
    if not is_as_written(path.read_text(encoding="utf-8", errors="replace")):
        raise InvalidValueError(f"resume: {str(path)!r} is not as it was written when the run began: {CHANGED}")
    stored = load_mapping(Config, path)
    if "experiment" not in stored.get(
        "tracking", {}
    ):  # what any version wrote last; without it defaults would be taken
        raise InvalidValueError(
            f"resume: {str(path)!r} is not whole: its end is missing; put back what the run began with (a checkpoint "
            "holds it too), or start anew in another folder"
        )
    config = from_stored(Config, stored, str(path))
    if not trust:
        command = f"analogsim train --resume {shlex.quote(str(folder))}"
        refuse_stored_code(config, given.options, command, f"resume: {str(path)!r}")
    config = given.described(config)
    return config if tracking else replace(config, tracking=replace(config.tracking, enabled=False))


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Train a network for a device, beside the same network trained plainly, and evaluate both on many "
        "chips through time. With no options: LeNet-5 on the bundled digits, for phase-change memory, one minute. "
        "A configuration is a file, or the name of one that comes with analogsim (analogsim init lists them)."
    )
    parser.epilog = "all settings, for the file and for KEY=VALUE:\n\n" + describe(Config, help_width())
    add_settings(parser, SHORT)
    parser.add_argument("--no-baseline", action="store_true", help="only the hardware-aware network")
    parser.add_argument("--resume", metavar="FOLDER", help="go on with a run that was stopped")
    parser.add_argument("--trust", action="store_true", help="with --resume: run whatever code the run names")


def _asked_for(options: argparse.Namespace) -> tuple[Config, Path | None]:
    """What ``analogsim train`` is to do, and the folder to go on in."""
    if options.resume is not None:
        again = Given(options.model, options.data, options.task, options.metric)
        given = [f"--{name}" for name in SHORT if getattr(options, name) is not None and name not in again.options]
        if options.settings or given or options.no_baseline or options.download:
            raise InvalidValueError(
                "--resume goes on with the options of the run; the only others are --no-tracking and --quiet, --trust, "
                "and --model, --data, --task and --metric for code that is named again"
            )
        folder = Path(options.resume)
        return resume_config(folder, tracking=not options.no_tracking, given=again, trust=options.trust), folder
    if options.trust:
        raise InvalidValueError("--trust is for --resume; what you name yourself is run anyway")
    files, overrides = files_and_overrides(options, SHORT)
    overrides += ["baseline=false"] if options.no_baseline else []
    return load_toml(Config, files[0] if files else None, overrides), None


def _run_command(options: argparse.Namespace) -> object:
    with joined() as group:
        config, folder = group.first(lambda: _asked_for(options))

        def done(result: Result) -> None:
            keep_result(options, _result_of(result))
            print("\n" + "\n".join(filter(None, (str(result), result.gained()))), flush=True)

        result = train(config, folder, show=not options.quiet, group=group, tell=print, done=done)
    if not group.main:
        return None
    print(f"\nreport, drift curve, checkpoints: {result.folder}")
    print(f"the picture: {result.folder / 'drift.png'}")
    runs = [tracker for tracker in result.trackers.values() if isinstance(tracker, Run)]
    if runs:
        print(f"\nSee the run in MLflow:\n{runs[-1].links()}")
    if len(runs) > 1:
        report = result.reports[AWARE]
        names = [*curves(report, "test"), *ends(report, "test")]
        link = side_by_side(runs, names, title=f"{result.folder.name}, side by side", params=["training"])
        print(f"Both networks side by side:\n{link}")
    if runs:
        print(f"All runs, with their scores:\n{list_link(runs[-1])}")
    return _result_of(result)


def _result_of(result: Result) -> dict[str, object]:
    """A result as JSON can hold it."""
    return {
        "folder": str(result.folder),
        "reports": {kind: sealed(report.to_dict()) for kind, report in result.reports.items()},
        "also": {
            kind: {name: sealed(each.to_dict()) for name, each in several.items()}
            for kind, several in result.also.items()
        },
        "runs": {kind: tracker.run_id for kind, tracker in result.trackers.items() if tracker.run_id},
    }


PROGRAM = Program(
    "train",
    "train a network for a device, beside the same network trained plainly",
    _declare,
    _run_command,
    words="settings",
    examples=(
        "train",
        "train fashion-mnist-lenet5 --download",
        'train --device "gaussian(std=0.05)" evaluation.times=1h,1w,1y',
        "train my.toml --seed 1 --json - --quiet",
        "train --resume runs/RUN",
    ),
    result="folder, reports and runs",
)
