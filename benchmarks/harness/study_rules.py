"""What holds of a study whatever happened to its workers: the rules, and what a history says against them.

A history is what is left in Optuna's storage, in MLflow and in what the workers said. Each rule is a function from it
to sentences, one for each violation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_KEPT = ("COMPLETE", "PRUNED")
# Pruned is no failure: the run was stopped on purpose. What was stopped by hand fails in Optuna, and is tried again.
_STATUS = {"COMPLETE": {"FINISHED"}, "PRUNED": {"KILLED"}, "FAIL": {"FAILED", "KILLED"}}
_CURVE = "validation/accuracy/drifted_1d"  # one point after each epoch
_DONE = re.compile(r"^trial (\d+)  (complete|pruned)  ", re.MULTILINE)
# Done; storage or disk away; SIGHUP, Ctrl-C, SIGTERM; the same before anything listens, and SIGKILL.
_ENDS = {0, 2, 129, 130, 143, -1, -2, -15, -9}


@dataclass(frozen=True)
class Trial:
    """A trial as Optuna has it.

    Attributes:
        number, state, params, value: Optuna's.
        retries: the numbers of those that it tries again, the last one last.
        began: whether it has a folder: before that there is nothing to tell of it.
        epochs: after which it reported.
    """

    number: int
    state: str
    params: tuple[tuple[str, Any], ...] = ()
    value: float | None = None
    retries: tuple[int, ...] = ()
    began: bool = True
    epochs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Recorded:
    """A run as MLflow has it.

    Attributes:
        id, status: MLflow's.
        role: study, trial or final.
        trial: the number of its trial.
        state: of the trial, as it was told.
        network: which one of the comparison at the end.
        points: the steps of each metric.
        objective: the value that it was told.
    """

    id: str
    status: str
    role: str
    trial: int | None = None
    state: str | None = None
    network: str | None = None
    points: dict[str, tuple[int, ...]] = field(default_factory=dict)
    objective: float | None = None


@dataclass(frozen=True)
class History:
    """What is left of a study.

    Attributes:
        wanted: trials that were asked for.
        epochs: of each.
        trials, runs: as they are at the end.
        said: what each worker wrote, standard output and standard error together.
        codes: with which workers ended, negative for a signal.
    """

    wanted: int
    epochs: int
    trials: Sequence[Trial]
    runs: Sequence[Recorded]
    said: Sequence[str] = ()
    codes: Sequence[int] = ()


def violations(history: History) -> list[str]:
    """All that a history says against the rules; empty where they hold."""
    return [f"{rule.__name__}: {sentence}" for rule in RULES for sentence in rule(history)]


def each_trial_once(history: History) -> Iterator[str]:
    """Numbers without a gap, and no two that are kept with the same settings."""
    numbers = Counter(trial.number for trial in history.trials)
    for number in range(max(numbers, default=-1) + 1):
        if numbers[number] != 1:
            yield f"trial {number} is there {numbers[number]} times"
    settings = Counter(trial.params for trial in history.trials if trial.state in _KEPT)
    for params, count in settings.items():
        if count > 1:
            yield f"{count} trials are kept of the settings {dict(params)}"


def as_many_as_wanted(history: History) -> Iterator[str]:
    """All have ended, and as many are kept as were asked for."""
    for trial in history.trials:
        if trial.state not in _STATUS:
            yield f"trial {trial.number} is still {trial.state}"
    kept = sum(trial.state in _KEPT for trial in history.trials)
    if kept != history.wanted:
        yield f"{kept} trials are kept, and {history.wanted} were wanted"


def each_failed_one_tried_again_once(history: History) -> Iterator[str]:
    """What began and failed is tried again by one other trial, of the same settings."""
    again = Counter(trial.retries[-1] for trial in history.trials if trial.retries)
    by_number = {trial.number: trial for trial in history.trials}
    for trial in history.trials:
        count = again[trial.number]
        if count > 1 or (count == 0 and trial.state == "FAIL" and trial.began):
            yield f"trial {trial.number} failed and is tried again {count} times"
        if count and trial.state in _KEPT:
            yield f"trial {trial.number} is kept, and tried again all the same"
        before = by_number.get(trial.retries[-1]) if trial.retries else None
        if before is not None and not set(before.params) <= set(trial.params) and trial.state in _KEPT:
            yield f"trial {trial.number} tries {before.number} again with other settings"


def told_once_by_one_worker(history: History) -> Iterator[str]:
    """No two workers say that they did the same trial."""
    told = Counter(int(number) for text in history.said for number, _ in _DONE.findall(text))
    for number, count in told.items():
        if count > 1:
            yield f"trial {number} was done by {count} workers"


def one_run_a_trial(history: History) -> Iterator[str]:
    """Each trial that is kept is one run, in the state that it has; one that failed at most one."""
    runs: dict[int | None, list[Recorded]] = {}
    for run in history.runs:
        if run.role == "trial":
            runs.setdefault(run.trial, []).append(run)
    for trial in history.trials:
        of_it = runs.pop(trial.number, [])
        if len(of_it) > 1 or (not of_it and trial.state in _KEPT):
            yield f"trial {trial.number}, {trial.state}, is {len(of_it)} runs in MLflow"
        for run in of_it:
            if run.status not in _STATUS.get(trial.state, {"RUNNING"}) or run.state != trial.state:
                yield f"trial {trial.number} is {trial.state}, its run {run.status} and said to be {run.state}"
    for number, of_it in runs.items():
        yield f"{len(of_it)} runs of trial {number}, which is not there"


def no_run_left_running(history: History) -> Iterator[str]:
    """Whoever died, somebody has ended what he had begun."""
    for run in history.runs:
        if run.status not in ("FINISHED", "FAILED", "KILLED"):
            yield f"the {run.role} run {run.id} of trial {run.trial}, network {run.network}, is left {run.status}"


def each_point_once(history: History) -> Iterator[str]:
    """No point of a metric is lost and none there twice; values are those of the storage, bit for bit."""
    trials = {trial.number: trial for trial in history.trials}
    for run in history.runs:
        where = f"the {run.role} run {run.id} of trial {run.trial}"
        for name, steps in run.points.items():
            if len(set(steps)) != len(steps):
                yield f"{where} has points of {name} twice: {sorted(steps)}"
        epochs = sorted(run.points.get(_CURVE, ()))
        trial = trials.get(-1 if run.trial is None else run.trial)
        if epochs != list(range(1, len(epochs) + 1)):
            yield f"{where} has a gap: {epochs}"
        elif run.role == "trial" and trial is not None and trial.state in _KEPT:
            wanted = history.epochs if trial.state == "COMPLETE" else max(trial.epochs, default=0)
            if len(epochs) != wanted:
                yield f"{where} has {len(epochs)} epochs of {wanted}"
            if trial.state == "COMPLETE" and run.objective != trial.value:
                yield f"{where} says {run.objective!r} where Optuna has {trial.value!r}"


def one_study_with_its_comparison(history: History) -> Iterator[str]:
    """The study is one run, with the value of each complete trial; the comparison at the end was made."""
    studies = [run for run in history.runs if run.role == "study"]
    if len(studies) != 1:
        yield f"the study is {len(studies)} runs"
    complete = sorted(trial.number for trial in history.trials if trial.state == "COMPLETE")
    for run in studies:
        told = sorted(run.points.get("objective", ()))
        if told != complete:
            yield f"the study's run has the values of {told}, complete are {complete}"
        if run.status != "FINISHED":
            yield f"the study's run ended as {run.status}"
    ended = {str(run.network) for run in history.runs if run.role == "final" and run.status == "FINISHED"}
    for network in sorted({"plain", "default", "tuned"} - ended):
        yield f"no run of the network {network!r} of the comparison has finished"


def workers_end_in_order(history: History) -> Iterator[str]:
    """A worker says in a line what was the matter, and nothing of Python's."""
    for code, count in Counter(history.codes).items():
        if code not in _ENDS:
            yield f"{count} workers ended with {code}"
    for text in history.said:
        if "Traceback (most recent call last)" in text:
            yield f"a worker said: {text[text.index('Traceback') :][-1500:]}"


Rule = Callable[[History], Iterator[str]]
RULES: tuple[Rule, ...] = (
    each_trial_once,
    as_many_as_wanted,
    each_failed_one_tried_again_once,
    told_once_by_one_worker,
    one_run_a_trial,
    no_run_left_running,
    each_point_once,
    one_study_with_its_comparison,
    workers_end_in_order,
)


def read_trials(url: str, name: str) -> list[Trial]:
    """The trials of a study in a database of Optuna's."""
    import optuna

    study = optuna.load_study(study_name=name, storage=url)
    return [
        Trial(
            number=trial.number,
            state=trial.state.name,
            params=tuple(sorted(trial.params.items())),
            value=trial.value if trial.state.name == "COMPLETE" else None,
            retries=tuple(trial.system_attrs.get("retry_history", ())),
            began="folder" in trial.user_attrs,
            epochs=tuple(sorted(trial.intermediate_values)),
        )
        for trial in study.get_trials(deepcopy=False)
    ]


def read_runs(uri: str) -> list[Recorded]:
    """All runs in a database of MLflow's."""
    from analogsim.recipes.tracking import stores

    client = stores.connect(uri)
    experiments = [each.experiment_id for each in client.search_experiments()]
    found: list[Any] = []
    token: str | None = None
    while experiments:
        page = client.search_runs(experiments, max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            break
    return [
        Recorded(
            id=run.info.run_id,
            status=run.info.status,
            role=run.data.tags.get("role", ""),
            trial=int(run.data.tags["optuna.trial.number"]) if "optuna.trial.number" in run.data.tags else None,
            state=run.data.tags.get("optuna.trial.state"),
            network=run.data.tags.get("network"),
            points={
                name: tuple(point.step for point in client.get_metric_history(run.info.run_id, name))
                for name in run.data.metrics
            },
            objective=run.data.metrics.get("objective"),
        )
        for run in found
    ]


def read_history(
    storage: str, tracking: str, name: str, *, wanted: int, epochs: int, logs: Path, codes: Any
) -> History:
    """Read all that a study has left.

    Args:
        storage: Optuna's database.
        tracking: MLflow's.
        name: of the study.
        wanted: trials that were asked for.
        epochs: of each.
        logs: the folder with what each worker said.
        codes: with which they ended.
    """
    said = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(logs.glob("*.log"))]
    return History(wanted, epochs, read_trials(storage, name), read_runs(tracking), said, codes)
