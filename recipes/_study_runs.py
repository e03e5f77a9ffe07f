"""A study in MLflow: the study is a run, each trial a run below it.

What MLflow holds is a copy: every trial's measurements lie in its folder first. What the server did not take while it
was away, and what a worker that died could not tell, is sent from there later, by any worker that has the folder.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analogsim.recipes import _study_figures, _tracking
from analogsim.recipes._checkpoint import load_checkpoint
from analogsim.recipes._config import dump_toml, flatten, from_mapping
from analogsim.recipes._environment import environment_tags
from analogsim.recipes._options import Config, StudyConfig
from analogsim.recipes._reporting import log_report, parameters
from analogsim.recipes._study import Lease
from analogsim.recipes._tracking import NoRun, Run, Status, Tracker
from analogsim.recipes._training import Training, load_data
from analogsim.report import Report

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

PARENT = "analogsim:run"
_UNSENT = "analogsim:unsent:"
# Pruned is no failure: the run was stopped on purpose.
_ENDS: dict[str, Status] = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "STOPPED": "KILLED", "FAIL": "FAILED"}


def trial_folder(folder: Path, number: int) -> Path:
    """Where a trial's checkpoint and report lie."""
    return folder / f"trial-{number:04d}"


@dataclass
class Outcome:
    """How a trial went, as far as MLflow is to know.

    Attributes:
        number: of the trial.
        folder: where its checkpoint and report lie.
        run_id: of its MLflow run; None where none could be made.
        state: COMPLETE, PRUNED, STOPPED (by Ctrl-C) or FAIL.
        why: it was pruned.
        metrics: of the whole trial.
    """

    number: int
    folder: str
    run_id: str | None = None
    state: str = "FAIL"
    why: str = ""
    metrics: dict[str, float] = field(default_factory=dict)


class StudyRuns:
    """The MLflow runs of a study.

    Args:
        config: the study's.

    Attributes:
        parent: the study's own run, from `open` or `join` on.
    """

    def __init__(self, config: StudyConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._enabled = config.tracking.enabled
        self.parent: Tracker = NoRun()

    def opened(self, study: optuna.Study) -> bool:
        """Whether the study has the run it needs."""
        return not self._enabled or PARENT in study.user_attrs

    def open(self, study: optuna.Study) -> None:
        """Reopen the study's own run, or make it.

        Raises:
            ConnectionError, ValueError: MLflow cannot be reached, or has no such run.
        """
        if not self._enabled:
            return
        config = self._config
        run_id = study.user_attrs.get(PARENT)
        values = {key: value for key, value in flatten(config).items() if not key.startswith(("tracking.", "out"))}
        values |= {f"search.{name}": str(part) for name, part in config.search.parts}
        del values["search"]
        self.parent = Run.start(
            experiment=config.tracking.experiment,
            name=study.study_name,
            uri=config.tracking.uri,
            run_id=run_id,
            # how the search goes may change; what is searched may not, and MLflow's parameters cannot
            params={key: value for key, value in values.items() if run_id is None or not key.startswith("study.")},
            tags={"study": study.study_name, "role": "study", **environment_tags()},
            keep_undelivered=False,
        )
        if run_id is None:
            study.set_user_attr(PARENT, self.parent.run_id)

    def join(self, study: optuna.Study) -> None:
        """Open the study's own run, unless this process has it open."""
        with self._lock:
            if not self.parent.run_id:
                self.open(study)

    @contextlib.contextmanager
    def trial(self, study: optuna.Study, outcome: Outcome, training: Training) -> Iterator[Tracker]:
        """The run of a trial, for the time it takes; what MLflow does not take then is sent later."""
        tracker: Tracker = NoRun()
        if self._enabled:
            try:
                tracker = self._start(study, outcome, training)
            except ConnectionError as error:
                warnings.warn(f"{error}; trial {outcome.number} is logged later", RuntimeWarning, stacklevel=3)
        outcome.run_id = tracker.run_id or None
        folder = Path(outcome.folder)
        folder.mkdir(parents=True, exist_ok=True)
        dump_toml(training.config, folder / "config.toml")
        self._history(tracker, training.history)
        try:
            yield tracker
        except KeyboardInterrupt:
            outcome.state = "STOPPED"
            raise
        finally:
            (folder / "trial.json").write_text(json.dumps(asdict(outcome)))
            self._complete(tracker, outcome)
            if "objective" in outcome.metrics:
                self.parent.metrics({"objective": outcome.metrics["objective"]}, step=outcome.number)
            if self._enabled and (outcome.run_id is None or not tracker.delivered):
                study.set_user_attr(f"{_UNSENT}{outcome.number}", asdict(outcome))

    def final(self, study: optuna.Study, name: str, training: Training, tags: Mapping[str, str]) -> Tracker:
        """The run of a network of the comparison at the end; NoRun where MLflow is away."""
        try:
            return _tracking.start(
                self._enabled,
                experiment=self._config.tracking.experiment,
                name=name,
                uri=self._config.tracking.uri,
                run_id=training.run_id or None,
                parent_run_id=self.parent.run_id or None,
                params=parameters(training, tags["training"]),
                tags={"study": study.study_name, "role": "final", **tags, **environment_tags()},
            )
        except ConnectionError as error:
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
            return NoRun()

    def dead(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """End the run of a trial whose worker died."""
        folder, run_id = trial.user_attrs.get("folder", ""), trial.user_attrs.get("run_id")
        if self._enabled and (run_id is not None or Path(folder).is_dir()):
            outcome = Outcome(trial.number, folder, run_id, why="its worker died")
            study.set_user_attr(f"{_UNSENT}{trial.number}", asdict(outcome))

    def send_unsent(self, study: optuna.Study) -> int:
        """Send what MLflow did not take earlier, as far as it lies here; returns how many trials are still unsent."""
        if not self._enabled or not _unsent(study):
            return 0
        with Lease(study, "analogsim:sending", self._config.study.heartbeat).held(lambda: not _unsent(study)) as ours:
            for key, value in _unsent(study).items() if ours else ():
                try:
                    if self._send(study, Outcome(**value)):
                        study.set_user_attr(key, None)
                except ConnectionError:
                    break
        return len(_unsent(study))

    def log_progress(self, study: optuna.Study) -> None:
        """Draw the study so far into its run: figures, and a table of all trials."""
        if not self._enabled:
            return
        for path, figure in _study_figures.figures(study):
            self.parent.figure(figure, path)
        frame = study.trials_dataframe(
            attrs=(
                "number",
                "state",
                "value" if not self._config.study.pareto else "values",
                "params",
                "user_attrs",
                "duration",
            )
        )
        self.parent.table({str(name): [_cell(cell) for cell in frame[name]] for name in frame}, "trials.json")

    def _start(self, study: optuna.Study, outcome: Outcome, training: Training) -> Run:
        return Run.start(
            experiment=self._config.tracking.experiment,
            name=f"trial {outcome.number}",
            uri=self._config.tracking.uri,
            run_id=outcome.run_id,
            parent_run_id=study.user_attrs.get(PARENT),
            params=parameters(training, "hardware-aware"),
            tags={
                "study": study.study_name,
                "role": "trial",
                "optuna.trial.number": str(outcome.number),
                "optuna.trial.state": "RUNNING",
                **environment_tags(),
            },
            keep_undelivered=False,
        )

    def _history(self, tracker: Tracker, history: list[dict[str, float]]) -> None:
        for epoch, metrics in enumerate(history, 1):
            tracker.metrics(metrics, step=epoch)

    def _complete(self, tracker: Tracker, outcome: Outcome) -> None:
        """All that is known at a trial's end, from its folder."""
        folder = Path(outcome.folder)
        tracker.tags({"optuna.trial.state": "FAIL" if outcome.state == "STOPPED" else outcome.state})
        if outcome.why:
            tracker.tags({"optuna.trial.why": outcome.why})
        if outcome.metrics:
            tracker.metrics(outcome.metrics, step=0)
        for name, below in (("config.toml", None), ("report.json", None), ("checkpoint.pt", "checkpoint")):
            if (folder / name).is_file():
                tracker.artifact(folder / name, below)
        if outcome.state == "COMPLETE":
            report = Report.from_dict(json.loads((folder / "report.json").read_text()))
            log_report(report, tracker, step=0, part="search")
        tracker.end(_ENDS[outcome.state])

    def _send(self, study: optuna.Study, outcome: Outcome) -> bool:
        """Send a trial from its folder; False where there is nothing that could be sent from here."""
        path = Path(outcome.folder) / "checkpoint.pt"
        if path.is_file():
            config = from_mapping(Config, load_checkpoint(path)["config"], f"checkpoint {str(path)!r}")
            training = Training(config, load_data(config), aware=True, path=path)
            tracker = self._start(study, outcome, training)
            self._history(tracker, training.history)
        elif outcome.run_id is not None:
            tracker = Run.start(
                experiment=self._config.tracking.experiment,
                name="",
                uri=self._config.tracking.uri,
                run_id=outcome.run_id,
                params={},
                keep_undelivered=False,
            )
        else:
            return False
        self._complete(tracker, outcome)
        return tracker.delivered


def _unsent(study: optuna.Study) -> dict[str, Any]:
    return {key: value for key, value in study.user_attrs.items() if key.startswith(_UNSENT) and value is not None}


def _cell(value: Any) -> Any:
    if hasattr(value, "total_seconds"):
        return value.total_seconds()
    return None if isinstance(value, float) and math.isnan(value) else value
