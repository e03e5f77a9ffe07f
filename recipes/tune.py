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
import os
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analogsim.errors import AnalogsimError, InvalidValueError
from analogsim.evaluation.metrics import MetricLike
from analogsim.evaluation.report import compare_plot
from analogsim.recipes.config.arguments import Program, add_settings, files_and_overrides, help_width
from analogsim.recipes.config.options import STUDY_SHORT, Config, StudyConfig
from analogsim.recipes.config.outputs import keep_result, missing_folders, remove_empty
from analogsim.recipes.config.space import DEFAULT_SPACE, Choice
from analogsim.recipes.config.toml import describe, dump_toml, from_mapping, load_mapping, to_mapping
from analogsim.recipes.config.trial_config import training_config
from analogsim.recipes.study import final_comparison
from analogsim.recipes.study.beginning import code_in, merged, open_study, refuse_code, stored_settings, without_secrets
from analogsim.recipes.study.criterion import all_times, criterion
from analogsim.recipes.study.final_comparison import Final
from analogsim.recipes.study.folder import study_folder, study_name, writable_place
from analogsim.recipes.study.lease import Lease, LostLease
from analogsim.recipes.study.objectives import Objective
from analogsim.recipes.study.runs import StudyRuns
from analogsim.recipes.study.samplers import pruner, sampler, try_out
from analogsim.recipes.study.shared_database import storage_explained
from analogsim.recipes.study.storages import storage_url
from analogsim.recipes.study.trials import at_work, try_again
from analogsim.recipes.study.work import take_trials
from analogsim.recipes.tasks.networks import Model
from analogsim.recipes.tasks.task import Task
from analogsim.recipes.tracking.stores import shown
from analogsim.recipes.tracking.tracker import Status
from analogsim.recipes.training.setup import NOTHING, Given, check, load_data
from analogsim.utils.digests import sealed
from analogsim.utils.files import write_figure, write_whole
from analogsim.utils.times import seconds

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

_UNSENT = "MLflow has not taken everything yet: start the same command again when it answers"
_DONE = "analogsim:done"


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
        return self.runs.links(self.study)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON can hold it; without a comparison at the end there is no best trial."""
        found: dict[str, Any] = {"study": self.study.study_name, "folder": str(self.folder), "text": self.text}
        if self.final is not None:
            trial = self.final.trial
            found["best"] = {"number": trial.number, "params": trial.params, "values": trial.values}
            found["reports"] = {
                name: [sealed(report.to_dict()) for report in reports] for name, reports in self.final.reports.items()
            }
        return found

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
            raise InvalidValueError(
                f"tune: no option {name!r}; known are {', '.join(known)}, and any through settings=[...]"
            )
    return [f"{known[name]}={value}" for name, value in short.items()]


def _study_config(mapping: Mapping[str, Any], source: object, given: Given = NOTHING) -> StudyConfig:
    config = given.described(from_mapping(StudyConfig, mapping, "settings" if source is None else str(source)))
    _check(config, given)
    return config


def _check(config: StudyConfig, given: Given) -> None:
    """Whatever can be wrong and is cheap to see, before any work; so also each choice of the search space."""
    check(config, given)
    if config.optimization.epochs == 0:
        raise InvalidValueError(
            "optimization.epochs=0 trains nothing, so that there is nothing to search; give some epochs"
        )
    if given.model is not None and "model" in dict(config.search.parts):
        raise InvalidValueError("search.model: there is one network, which was handed over; take it out of the search")
    all_times(config)
    distributions = config.search.distributions(Config)
    sampler(config.study.sampler, 0)
    pruner(config.study.pruner, config.optimization.epochs)
    try_out(config.study.sampler, config.study.pruner, distributions, config.study.pareto)
    if config.study.timeout is not None:
        seconds(config.study.timeout)
    lowest = {name: part.choices[0] if isinstance(part, Choice) else part.low for name, part in config.search.parts}
    for name, part in config.search.parts:
        for value in part.choices if isinstance(part, Choice) else (part.low, part.high):
            try:
                check(training_config(config, {**lowest, name: value}), given)
            except AnalogsimError as error:
                raise InvalidValueError(f"search: {name}={value} cannot be trained: {error}") from error


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
        short: short options. ``model``, ``data``, ``task`` and ``metric`` may be values too, see `tune`.

    Returns:
        A callable of a trial: the drifted score, or (clean, drifted) for ``settings=["study.pareto=true"]``. Its
        ``finish(study)`` draws the study into its MLflow run and ends that.
    """
    own = ("model", "data", "task", "metric")
    values: dict[str, Any] = {name: short.pop(name) for name in own if not isinstance(short.get(name, ""), str)}
    given = Given(**values)
    if config is None:
        config = _study_config(load_mapping(StudyConfig, file, [*settings, *_long(short)]), file, given)
    elif file is not None or settings or short:
        raise InvalidValueError("objective: give a config, or what to make one of, not both")
    else:
        config = given.described(config)
        _check(config, given)
    return _goal(config, given)


def _goal(config: StudyConfig, given: Given, wanted: int | None = None) -> Objective:
    data = load_data(config, given)
    rule = criterion(config, data.task.metric)
    runs = StudyRuns(config, data, rule, model=given.model)
    folder = partial(study_folder, config)
    return Objective(config, data, rule, runs, folder, wanted=wanted, model=given.model)


def tune(
    config: StudyConfig,
    *,
    show: Callable[[str], None] = lambda _: None,
    model: Model | None = None,
    data: Any = None,
    task: str | Task | None = None,
    metric: MetricLike | None = None,
    done: Callable[[Tuned], None] = lambda _: None,
) -> Tuned:
    """Work on a study until it has all its trials, then compare the best of them.

    Args:
        config: from `configure`. Of an existing study only ``study.trials`` and what does not touch the search may
            differ from what it was begun with.
        show: told a line for each trial.
        model: the network in place of what ``config.model`` names: a module, of which copies are trained, or a factory
            that may ask for facts of the data by name. A study is gone on with by the same one; so for what follows.
        data: the data in place of ``config.data``: whatever a factory of data may return, see `data_sets.load`.
        task: what is to be learned in place of ``config.task``, a `Task`.
        metric: what networks are judged by in place of ``config.metric``; it has a direction.
        done: given the result of the comparison, where this worker makes it, as soon as it is there: before it is
            written, drawn or sent anywhere.

    Raises:
        ValueError: a setting is wrong, or is another one than the study was begun with.
        ConnectionError: Optuna's storage or MLflow cannot be reached at the start.
        KeyboardInterrupt: as it comes, with a note that says how to go on; the trial at work is tried again then.
    """
    given = Given(model, data, task, metric)
    config = given.described(config)
    _check(config, given)
    made = missing_folders(config.out)
    writable_place(config)
    try:
        return _take_part(config, given, show, done)
    except BaseException:
        remove_empty(made)
        raise


def _take_part(config: StudyConfig, given: Given, show: Callable[[str], None], done: Callable[[Tuned], None]) -> Tuned:
    """Work on the study of a configuration that was checked."""
    import optuna

    goal = _goal(config, given, wanted=config.study.trials)
    for note in goal.data.notes:
        show(note)

    def on_dead(study: optuna.Study, trial: FrozenTrial) -> None:
        show(f"trial {trial.number}: its worker died; it is tried again")
        try_again(study, trial, config.study.retries)

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with storage_explained(storage_url(config.study.storage)):
            study = open_study(config, goal.criterion, goal.runs, on_dead)
            show(f"study {study.study_name!r}, {config.study.trials} trials, of\n{config.search}")
            return _work(goal, study, show, done)
    except KeyboardInterrupt as stop:
        where = f" --storage {shown(config.study.storage)}" if config.study.storage else ""
        code = "".join(f" --{option} {text}" for option, (_, text) in code_in(to_mapping(config)).items())
        stop.add_note(f"go on with: analogsim tune --study {shlex.quote(study_name(config))}{where}{code}")
        raise
    finally:
        optuna.logging.set_verbosity(verbosity)


def load(file: str | Path | None, settings: Sequence[str], *, trust: bool = False) -> StudyConfig:
    """The configuration of a new study, or of one that exists already with what is given on top.

    Args:
        file: see `configure`.
        settings: changes.
        trust: run the code that an existing study names; otherwise what file and settings name themselves.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: as `configure` and `tune`.
    """
    given = load_mapping(StudyConfig, file, settings)
    alone = from_mapping(StudyConfig, given, "settings" if file is None else str(file))
    begun = stored_settings(alone)
    if begun is None:
        return _study_config(given, file)
    if not trust:
        refuse_code(begun, given, study_name(alone))
    return _study_config(merged(begun, given), f"study {study_name(alone)!r}")


def _work(goal: Objective, study: optuna.Study, show: Callable[[str], None], done: Callable[[Tuned], None]) -> Tuned:
    """Take trials until there are enough, and the lead in what comes after if no other worker has it."""
    config, runs = goal.config, goal.runs
    folder = goal.folder(study)
    dump_toml(without_secrets(config), folder / "study.toml")
    status: Status = "FAILED"
    try:
        if take_trials(study, goal, show):
            tuned = _conclude(study, goal, show, done)
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


def _conclude(
    study: optuna.Study, goal: Objective, show: Callable[[str], None], done: Callable[[Tuned], None]
) -> Tuned:
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
                    tuned, whole = _finish(study, goal, show, done)
                    study.set_user_attr(_DONE, what if whole else None)
                    return tuned
        except LostLease:
            show("the others took this worker for dead, and one of them makes the comparison")
    report = folder / "report.txt"
    text = (
        report.read_text(encoding="utf-8").strip() if report.is_file() else "the study is done; its result is in MLflow"
    )
    return Tuned(study, folder, goal.runs, None, text)


def _finish(
    study: optuna.Study, goal: Objective, show: Callable[[str], None], done: Callable[[Tuned], None]
) -> tuple[Tuned, bool]:
    """Compare the best network with the others and write all down; also whether MLflow has taken everything."""
    show("comparing the best trial with the default settings and with plain training, on fresh chips")
    config, rule, runs, folder = goal.config, goal.criterion, goal.runs, goal.folder(study)
    progress = runs.log_progress(study)
    final = final_comparison.compare(study, config, goal.data, folder, runs, model=goal.model)
    text = _head(study, storage_url(config.study.storage))
    if final is None:
        text += f"\n\n{final_comparison.why_none(study, rule)}"
    else:
        text += f"\n\n{final_comparison.describe(study, config, rule, final)}"
    tuned = Tuned(study, folder, runs, final, text)
    done(tuned)
    write_whole(folder / "report.txt", text + "\n")
    if final is not None:
        figure = compare_plot({name: reports[0] for name, reports in final.reports.items()})
        write_figure(folder / "drift.png", figure)
        runs.still_ours()
        final_comparison.log(study, config, rule, final, text, runs)
    unsent = runs.send_unsent(study)
    whole = (
        runs.end_strays(study)
        and progress
        and not unsent
        and runs.parent.delivered
        and (final is None or final.delivered)
    )
    return tuned if whole else replace(tuned, text=f"{text}\n\n{_UNSENT}"), whole


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
        'another range: search.noise.end="{low=1, high=4}"\n'
        "out of the search: search.noise.end=none\n\n"
        f"all settings, for the file and for KEY=VALUE:\n\n{describe(StudyConfig, help_width())}"
    )
    add_settings(parser, STUDY_SHORT)
    parser.add_argument("--pareto", action="store_true", help="the whole front of clean against drifted score")
    parser.add_argument("--trust", action="store_true", help="run the code that the study's stored settings name")


def _run_command(options: argparse.Namespace) -> object:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InvalidValueError(
            "tune: torchrun makes one network of several processes; start the same command several times"
        )
    files, overrides = files_and_overrides(options, STUDY_SHORT)
    overrides += ["study.pareto=true"] if options.pareto else []
    config = load(files[0] if files else None, overrides, trust=options.trust)

    def show(line: str) -> None:
        print(line, flush=True)

    told: list[str] = []

    def done(tuned: Tuned) -> None:
        keep_result(options, tuned.to_dict())
        print(f"\n{tuned}", flush=True)
        told[:] = [tuned.text]

    tuned = tune(config, show=(lambda _: None) if options.quiet else show, done=done)
    rest = tuned.text.removeprefix(told[-1]).strip() if told else tuned.text  # of what was printed already
    for part in filter(None, (rest, f"best settings, trials, checkpoints: {tuned.folder}")):
        print(f"\n{part}")
    print(tuned.links())
    return tuned.to_dict()


PROGRAM = Program(
    "tune",
    "let Optuna find the noise schedule with which a network survives best",
    _declare,
    _run_command,
    words="settings",
    examples=(
        "tune --data fashion-mnist --model lenet5 --trials 50 --timeout 8h",
        "tune digits-lenet5 --study mine --storage sqlite:///optuna.db",
        'tune --model mlp search.noise.end="{low=1, high=4}" --trials 5',
    ),
    result="study, best trial and reports",
)
