"""Find the noise schedule with which a network survives a chip best, over many workers if there are.

    analogsim tune --device pcm --data fashion-mnist --model lenet5 --trials 50

Each trial trains the network with other settings and is judged on a few chips a day after programming; those that
fall behind are pruned. At the end the best is compared with the default settings and with plain training on test data
and on chips that the search never used. The same command, started again or on another machine with the same
``--study`` and ``--storage``, shares the work or goes on with it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shlex
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analogsim.device.parse import as_device_model
from analogsim.evaluation.metrics import METRICS
from analogsim.evaluation.report import compare_plot
from analogsim.recipes.config.arguments import Program, add_settings, files_and_overrides
from analogsim.recipes.config.options import STUDY_SHORT, Config, StudyConfig
from analogsim.recipes.config.space import DEFAULT_SPACE, Choice, Space
from analogsim.recipes.config.toml import describe, dump_toml, flatten, from_mapping, load_mapping, to_mapping
from analogsim.recipes.study import final_comparison
from analogsim.recipes.study.criterion import Criterion, criterion
from analogsim.recipes.study.final_comparison import Final
from analogsim.recipes.study.folder import owned_folder
from analogsim.recipes.study.lease import Lease, LostLease
from analogsim.recipes.study.objectives import Objective, Surplus
from analogsim.recipes.study.runs import StudyRuns
from analogsim.recipes.study.samplers import pruner, sampler
from analogsim.recipes.study.shared_database import storage_errors, storage_explained, told
from analogsim.recipes.study.storages import database_file, open_storage, quietly, storage_url
from analogsim.recipes.study.trial_config import all_times, training_config
from analogsim.recipes.study.trials import DEFAULT, at_work, give_up, identity, try_again, work_left
from analogsim.recipes.tasks.data_sets import Splits
from analogsim.recipes.tracking.stores import shown
from analogsim.recipes.tracking.tracked_run import Status
from analogsim.recipes.training.setup import check, load_data
from analogsim.utils.files import write_figure, write_whole
from analogsim.utils.times import seconds

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

_CONFIG, _METRIC, _DONE = "analogsim:config", "analogsim:metric", "analogsim:done"
# What another worker of a study, or a later one, may have different: nothing of it changes what is searched.
_FREE = (
    *("run_on", "out", "data.folder", "data.download", "tracking."),
    *(
        "study.name",
        "study.trials",
        "study.timeout",
        "study.storage",
        "study.heartbeat",
        "study.retries",
        "study.final_seeds",
    ),
    *("study.sampler", "study.pruner", "evaluation.chips"),
)
_ACCURACY = {"metric": "accuracy", "unit": "%", "better": "higher"}  # what studies went by that do not say
_FAILURES = 3  # of the storage, one after the other, each after waiting for it
_DRAW = 20.0  # progress is drawn at most every so many times as long as drawing takes


@dataclass(frozen=True)
class Tuned:
    """What a study gives.

    Attributes:
        study: Optuna's study.
        folder: where everything lies: best.toml, report.txt, trials, checkpoints.
        runs: the MLflow side.
        final: the comparison at the end; None where another worker made it, or no trial is good enough.
        text: the result as text.
    """

    study: optuna.Study
    folder: Path
    runs: StudyRuns
    final: Final | None
    text: str

    def links(self) -> str:
        """How to look at it in MLflow and in Optuna's dashboard."""
        return self.runs.links()

    def __str__(self) -> str:
        return self.text


def configure(file: str | Path | None = None, settings: Sequence[str] = (), **short: object) -> StudyConfig:
    """A study's configuration.

    Args:
        file: a TOML file, of ``analogsim train`` or with ``[study]`` and ``[search]`` besides.
        settings: changes to it, such as ``"noise.ramp=0.3"`` or ``"search.noise.end={low=1, high=4}"``.
        short: the command line's short options: device, data, model, epochs, time, min_clean, ...

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown option, or a value it does not take.
    """
    return _study_config(load_mapping(StudyConfig, file, [*settings, *_long(short)]), file)


def _long(short: Mapping[str, object]) -> list[str]:
    known = {name.replace("-", "_"): key for name, (key, _) in STUDY_SHORT.items()}
    for name in short:
        if name not in known:
            raise ValueError(f"tune: no option {name!r}; known are {', '.join(known)}, and any through settings=[...]")
    return [f"{known[name]}={value}" for name, value in short.items()]


def _study_config(mapping: Mapping[str, Any], source: object) -> StudyConfig:
    config = from_mapping(StudyConfig, mapping, "settings" if source is None else str(source))
    _check(config)
    return config


def _check(config: StudyConfig) -> None:
    """Whatever can be wrong and is cheap to see, before any work; so also each choice of the search space."""
    check(config)
    all_times(config)
    config.search.distributions(Config)
    sampler(config.study.sampler, 0)
    pruner(config.study.pruner, config.optimization.epochs)
    if config.study.timeout is not None:
        seconds(config.study.timeout)
    lowest = {name: part.choices[0] if isinstance(part, Choice) else part.low for name, part in config.search.parts}
    for name, part in config.search.parts:
        for value in part.choices if isinstance(part, Choice) else (part.low, part.high):
            try:
                check(training_config(config, {**lowest, name: value}))
            except ValueError as error:
                raise ValueError(f"search: {name}={value} cannot be trained: {error}") from error


def study_name(config: StudyConfig) -> str:
    """The study's name: as given, else of data, model and device."""
    made = f"{config.data.name}-{config.model}-{as_device_model(config.device).name}"
    return config.study.name or made + ("-pareto" if config.study.pareto else "")


def study_folder(config: StudyConfig, study: optuna.Study) -> Path:
    """The study's folder on this disk, made if there is none; another study's of the same name is left alone.

    Raises:
        OSError: it cannot be made.
    """
    name = study_name(config) if study.study_name.startswith("no-name-") else study.study_name
    safe = "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in name)[:120]
    return owned_folder(_place(config), safe, identity(study))


def _place(config: StudyConfig) -> Path:
    """The folder that the study's is in; made if there is none, and tried, since nothing can be kept without it."""
    try:
        place = Path(config.out)
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return place
    except OSError as error:
        raise type(error)(
            f"out: cannot write to the folder {config.out!r}: {error.strerror or error}; give another place with --out"
        ) from error


def objective(
    file: str | Path | None = None, settings: Sequence[str] = (), *, config: StudyConfig | None = None, **short: object
) -> Objective:
    """An objective for a study of your own::

        study = optuna.create_study(direction="maximize")  # "minimize" where a lower score is the better one
        study.optimize(analogsim.recipes.tune.objective(data="digits", model="mlp"), n_trials=20)

    Trials are logged to MLflow below a run for the study; switch that off with ``settings=["tracking.enabled=false"]``.
    How many trials there are, who samples and who prunes is the study's business. Use several processes rather than
    ``n_jobs``: training draws from torch's global generator, which threads share.

    Args:
        file: see `configure`; so are ``settings`` and ``short``.
        settings: changes.
        config: a configuration from `configure`, in place of the others.
        short: short options.

    Returns:
        A callable of a trial: the drifted score, or (clean, drifted) for ``settings=["study.pareto=true"]``. Its
        ``finish(study)`` draws the study into its MLflow run and ends that.
    """
    if config is None:
        config = configure(file, settings, **short)
    elif file is not None or settings or short:
        raise ValueError("objective: give a config, or what to make one of, not both")
    data, rule = _judged_by(config)
    return Objective(config, data, rule, StudyRuns(config, data, rule), partial(study_folder, config))


def _judged_by(config: StudyConfig) -> tuple[Splits, Criterion]:
    """The data, and what networks on them are judged by."""
    data = load_data(config)
    return data, criterion(config, METRICS["accuracy"])


def tune(config: StudyConfig, *, show: Callable[[str], None] = lambda _: None) -> Tuned:
    """Work on a study until it has all its trials, then compare the best of them.

    Args:
        config: from `configure`. Of an existing study only ``study.trials`` and what does not touch the search may
            differ from what it was begun with.
        show: told a line for each trial.

    Raises:
        ValueError: a setting is wrong, or is another one than the study was begun with.
        ConnectionError: Optuna's storage or MLflow cannot be reached at the start.
        KeyboardInterrupt: as it comes, with a note that says how to go on; the trial at work is tried again then.
    """
    import optuna

    _check(config)
    _place(config)
    data, rule = _judged_by(config)
    runs = StudyRuns(config, data, rule)

    def on_dead(study: optuna.Study, trial: FrozenTrial) -> None:
        show(f"trial {trial.number}: its worker died; it is tried again")
        try_again(study, trial, config.study.retries)

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with storage_explained(storage_url(config.study.storage)):
            study = _open(config, rule, runs, on_dead)
            folder = study_folder(config, study)
            show(f"study {study.study_name!r}, {config.study.trials} trials, of\n{config.search}")
            return _work(Objective(config, data, rule, runs, lambda _: folder, wanted=config.study.trials), study, show)
    except KeyboardInterrupt as stop:
        where = f" --storage {shown(config.study.storage)}" if config.study.storage else ""
        stop.add_note(f"go on with: analogsim tune --study {shlex.quote(study_name(config))}{where}")
        raise
    finally:
        optuna.logging.set_verbosity(verbosity)


def load(file: str | Path | None, settings: Sequence[str]) -> StudyConfig:
    """The configuration of a new study, or of one that exists already with what is given on top.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: as `configure` and `tune`.
    """
    given = load_mapping(StudyConfig, file, settings)
    config = _study_config(given, file)
    begun = _begun(config)
    return config if begun is None else _study_config(_merged(begun, given), f"study {study_name(config)!r}")


def _begun(config: StudyConfig) -> dict[str, Any] | None:
    """What the study of this name was begun with; None where there is no such study."""
    url = storage_url(config.study.storage)
    file = database_file(url)
    if file is not None and not file.exists():  # opening it would make it
        return None
    with storage_explained(url):
        storage = open_storage(url, heartbeat=config.study.heartbeat, on_dead=lambda *_: None)
        for summary in storage.get_all_studies():
            if summary.study_name == study_name(config) and _CONFIG in summary.user_attrs:
                begun: dict[str, Any] = json.loads(summary.user_attrs[_CONFIG])
                return begun
    return None


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested tables in one; a search space is one thing and not merged."""
    merged = dict(below)
    for key, value in above.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping) and key != "search"
        merged[key] = _merged(merged[key], value) if nested else value
    return merged


def _open(
    config: StudyConfig, rule: Criterion, runs: StudyRuns, on_dead: Callable[[optuna.Study, FrozenTrial], None]
) -> optuna.Study:
    """Open the study, or begin it: then one worker says what it is about and makes its run, and the others wait."""
    import optuna

    url = storage_url(config.study.storage)
    study = optuna.create_study(
        storage=open_storage(url, heartbeat=config.study.heartbeat, on_dead=on_dead),
        study_name=study_name(config),
        load_if_exists=True,
        directions=rule.directions,
        sampler=sampler(config.study.sampler, config.study.seed),
        pruner=pruner(config.study.pruner, config.optimization.epochs),
    )
    lease = Lease(study, "analogsim:beginning", config.study.heartbeat)
    with lease.held(lambda: _CONFIG in study.user_attrs and runs.opened(study)) as ours:
        if ours:
            new = _CONFIG not in study.user_attrs
            if new and any(DEFAULT not in trial.user_attrs for trial in study.get_trials(deepcopy=False)):
                raise ValueError(
                    f"study.name: {study.study_name!r} is a study that analogsim tune did not begin; choose another"
                )
            if not new:  # whose run was not made yet
                _check_same(study, config, rule)
            runs.open(study)
            if new:
                with quietly():
                    study.set_metric_names(rule.names)
                study.set_user_attr(_METRIC, rule.described())
                _enqueue_default(study, config)
                study.set_user_attr(_CONFIG, json.dumps(to_mapping(_without_storage(config))))
        else:
            _check_same(study, config, rule)
            runs.open(study)
    return study


def _enqueue_default(study: optuna.Study, config: StudyConfig) -> None:
    """Make the values of the configuration the first trial, where the search space holds them."""
    given = flatten(training_config(config))
    wanted = config.study.default_first and all(part.holds(given[name]) for name, part in config.search.parts)
    if wanted and not study.get_trials(deepcopy=False):
        study.enqueue_trial({name: given[name] for name, _ in config.search.parts}, user_attrs={DEFAULT: True})


def _without_storage(config: StudyConfig) -> StudyConfig:
    """What may be kept where others read it: an address may hold a password."""
    uri = config.tracking.uri
    uri = uri if uri is not None and shown(uri) == uri else None
    return replace(config, study=replace(config.study, storage=None), tracking=replace(config.tracking, uri=uri))


def _check_same(study: optuna.Study, config: StudyConfig, rule: Criterion) -> None:
    name = study.study_name
    begun = flatten(from_mapping(StudyConfig, json.loads(study.user_attrs[_CONFIG]), f"study {name!r}"))
    for key, value in flatten(config).items():
        if begun[key] != value and not key.startswith(_FREE):
            raise ValueError(
                f"study {name!r} was begun with {key}={_said(begun[key])}, now it is {_said(value)}; go on with "
                f"`analogsim tune --study {name}`, or give this one another name with --study"
            )
    known = study.user_attrs.get(_METRIC, _ACCURACY)
    if known != rule.described():  # of the task, or of a metric of the user's own, which the settings only name
        before, now = (
            ", ".join(f"{word}: {said}" for word, said in each.items()) for each in (known, rule.described())
        )
        raise ValueError(
            f"study {name!r} was begun by another metric ({before}; now {now}); give this one another name with --study"
        )


def _said(value: Any) -> str:
    if isinstance(value, Space):
        return "; ".join(f"{name}: {part}" for name, part in value.parts)
    return repr(value)


def _work(goal: Objective, study: optuna.Study, show: Callable[[str], None]) -> Tuned:
    """Take trials until there are enough, and the lead in what comes after if no other worker has it."""
    config, runs = goal.config, goal.runs
    folder = goal.folder(study)
    dump_toml(_without_storage(config), folder / "study.toml")
    status: Status = "FAILED"
    try:
        if _take_trials(study, goal, show):
            tuned = _conclude(study, goal, show)
        else:
            tuned = Tuned(study, folder, runs, None, "the time is up; other workers are still at work on this study")
        status = "FINISHED"
        return tuned
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        with contextlib.suppress(Exception):  # of a storage that is gone; the first error is the one to be told
            if not at_work(study):  # else others go on, and the study with them
                runs.parent.end(status)


def _take_trials(study: optuna.Study, goal: Objective, show: Callable[[str], None]) -> bool:
    """Do trials until there is none left to do, by anybody; False where only the time is up."""
    config = goal.config
    until = math.inf if config.study.timeout is None else time.monotonic() + seconds(config.study.timeout)
    drawn, drawing, waiting = -math.inf, 0.0, False

    def step() -> bool | None:
        nonlocal drawn, drawing, waiting
        goal.runs.send_unsent(study, wait=False)
        in_time = time.monotonic() < until
        if in_time and work_left(study, config.study.trials):
            waiting = False
            _one_trial(study, goal, show)
            if time.monotonic() > drawn + _DRAW * drawing:
                began = time.monotonic()
                goal.runs.log_progress(study, wait=False)
                drawn, drawing = time.monotonic(), time.monotonic() - began
            return None
        others = at_work(study)
        if not others and not (in_time and work_left(study, config.study.trials)):
            return True
        if others and not in_time:
            return False
        if others and not waiting:
            show(f"waiting for {others} trial(s) of other workers, in case one of them dies")
        waiting = True
        time.sleep(min(5.0, config.study.heartbeat / 2))
        return None

    failures = 0
    while True:
        try:
            done = step()
        except storage_errors() as error:  # a server that was stopped in the middle of an answer
            failures += 1
            if failures == _FAILURES:
                raise
            show(f"the storage failed, and is tried again: {told(error)}")
            continue
        failures = 0
        if done is not None:
            return done


def _conclude(study: optuna.Study, goal: Objective, show: Callable[[str], None]) -> Tuned:
    """Make the comparison at the end, or tell of the one that was made of these very trials."""
    config, folder = goal.config, goal.folder(study)
    what = [len(study.get_trials(deepcopy=False)), config.study.final_seeds, config.evaluation.chips]
    lease = Lease(study, "analogsim:ending", config.study.heartbeat)
    goal.runs.still_ours = lease.check
    ours = True
    while ours:
        try:
            with lease.held(lambda: study.user_attrs.get(_DONE) == what) as ours:
                if ours:
                    tuned, whole = _finish(study, goal, show)
                    study.set_user_attr(_DONE, what if whole else None)
                    return tuned
        except LostLease:
            show("the others took this worker for dead, and one of them makes the comparison")
    report = folder / "report.txt"
    text = (
        report.read_text(encoding="utf-8").strip() if report.is_file() else "the study is done; its result is in MLflow"
    )
    return Tuned(study, folder, goal.runs, None, text)


def _one_trial(study: optuna.Study, goal: Objective, show: Callable[[str], None]) -> None:
    import optuna

    goal.forget()
    try:
        study.optimize(goal, n_trials=1, catch=(Surplus,))
    except KeyboardInterrupt:
        if goal.number is not None:  # tried again, from its last checkpoint, when the study goes on
            give_up(study, goal.number)
        raise
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
        if not (goal.lost or goal.ended):
            raise
        show(f"trial {goal.number}: the others took this worker for dead, and try it again")
        return
    except Exception as error:
        if goal.number is not None and isinstance(error, (OSError, *storage_errors())):  # no fault of the trial
            give_up(study, goal.number, goal.config.study.retries)
        raise
    if goal.number is not None:
        show(_line(study, goal.criterion, goal.number))


def _line(study: optuna.Study, rule: Criterion, number: int) -> str:
    trial = study.get_trials(deepcopy=False)[number]
    best = final_comparison.best_trial(study)
    values = "  ".join(rule.shown(value) for value in trial.values or ())
    until = "" if best is None else f"  (best: trial {best.number}, {rule.shown(best.values[-1])})"
    took = trial.duration.total_seconds() if trial.duration else 0.0
    settings = ", ".join(f"{name.rpartition('.')[2]} {_short(value)}" for name, value in trial.params.items())
    return f"trial {number}  {trial.state.name.lower()}  {values}{until}  {took:.0f} s  {settings}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _finish(study: optuna.Study, goal: Objective, show: Callable[[str], None]) -> tuple[Tuned, bool]:
    """Compare the best network with the others and write all down; also whether MLflow has taken everything."""
    show("comparing the best trial with the default settings and with plain training, on fresh chips")
    config, rule, runs, folder = goal.config, goal.criterion, goal.runs, goal.folder(study)
    progress = runs.log_progress(study)
    final = final_comparison.compare(study, config, goal.data, folder, runs)
    text = _head(study, storage_url(config.study.storage))
    if final is None:
        text += f"\n\n{final_comparison.why_none(study, rule)}"
    else:
        text += f"\n\n{final_comparison.describe(study, config, rule, final)}"
        figure = compare_plot({name: reports[0] for name, reports in final.reports.items()})
        write_figure(folder / "drift.png", figure)
        runs.still_ours()
        final_comparison.log(study, config, rule, final, text, runs)
    write_whole(folder / "report.txt", text + "\n")
    unsent = runs.send_unsent(study)
    whole = progress and not unsent and runs.parent.delivered and (final is None or final.delivered)
    if not whole:
        text += "\n\nMLflow has not taken everything yet: start the same command again when it answers"
    return Tuned(study, folder, runs, final, text), whole


def _head(study: optuna.Study, url: str) -> str:
    states = Counter(trial.state.name.lower() for trial in study.get_trials(deepcopy=False))
    return f"study {study.study_name!r} in {shown(url)}: " + ", ".join(
        f"{count} {state}" for state, count in sorted(states.items())
    )


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Let Optuna find the training noise with which a network survives best. Started again with "
        "the same --study and --storage it goes on; started several times at once, the workers share the trials."
    )
    parser.epilog = (
        f"what is searched, unless a file says otherwise:\n\n{DEFAULT_SPACE}\n\n"
        'another range: search.noise.end="{low=1, high=4}"; out of the search: search.noise.end=none\n\n'
        f"all settings, for the file and for KEY=VALUE:\n\n{describe(StudyConfig)}"
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_settings(parser, STUDY_SHORT)
    parser.add_argument("--pareto", action="store_true", help="the whole front of clean against drifted score")
    parser.add_argument("--quiet", action="store_true", help="no line for each trial")


def _run_command(options: argparse.Namespace) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("tune: torchrun makes one network of several processes; start the same command several times")
    files, overrides = files_and_overrides(options, STUDY_SHORT)
    overrides += ["study.pareto=true"] if options.pareto else []
    config = load(files[0] if files else None, overrides)

    def show(line: str) -> None:
        print(line, flush=True)

    tuned = tune(config) if options.quiet else tune(config, show=show)
    print(f"\n{tuned}\n\nbest settings, trials, checkpoints: {tuned.folder}")
    print(tuned.links())


PROGRAM = Program(
    "tune",
    "let Optuna find the noise schedule with which a network survives best",
    _declare,
    _run_command,
    words="settings",
)
