"""A study in MLflow: the study is a run, each trial a run below it.

What MLflow holds is a copy: every trial's measurements lie in its folder first. What the server did not take while it
was away, and what a worker that died could not tell, is sent from there later, by any worker that has the folder. A
trial is known to be in MLflow by its attribute ``logged``, the state in which MLflow holds it.
"""

from __future__ import annotations

import contextlib
import json
import math
import shlex
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analogsim.evaluation.report import Report
from analogsim.recipes.config.options import Config, StudyConfig
from analogsim.recipes.config.stored import from_stored
from analogsim.recipes.config.toml import dump_toml, flatten
from analogsim.recipes.config.trial_config import training_config
from analogsim.recipes.study import figures
from analogsim.recipes.study.criterion import Criterion
from analogsim.recipes.study.folder import study_folder
from analogsim.recipes.study.lease import Lease, LostLease
from analogsim.recipes.study.optuna_private import storage_of
from analogsim.recipes.study.outcome import (
    CHECKPOINT,
    FOLDER,
    LOGGED,
    OUTCOME,
    RUN,
    SENT,
    Outcome,
    can_be_sent,
    folder_of,
    in_optuna,
    outcome_of,
    unsent,
)
from analogsim.recipes.study.page_views import study_links, view_tags
from analogsim.recipes.study.storages import storage_url
from analogsim.recipes.study.trials import identity
from analogsim.recipes.tasks.data_sets import Splits
from analogsim.recipes.tasks.networks import Model
from analogsim.recipes.tracking import stores
from analogsim.recipes.tracking.environment import environment_tags
from analogsim.recipes.tracking.log_report import log_report, parameters
from analogsim.recipes.tracking.run_views import list_scores
from analogsim.recipes.tracking.tracked_run import Run
from analogsim.recipes.tracking.tracker import NoRun, Status, Tracker
from analogsim.recipes.training.checkpoint import load_checkpoint
from analogsim.recipes.training.loop import Training
from analogsim.recipes.training.setup import report_times
from analogsim.utils.digests import sealed
from analogsim.utils.files import write_whole
from analogsim.utils.times import label, seconds

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

PARENT = "analogsim:run"
_AT_ONCE = 1000  # MLflow's limit for the metrics of a log_batch
_DASHBOARD = "http://127.0.0.1:8080"  # where optuna-dashboard serves, unless it is told otherwise
_NUMBER, _PARENT_TAG = "optuna.trial.number", "mlflow.parentRunId"
# Pruned is no failure: the run was stopped on purpose.
_ENDS: dict[str, Status] = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "STOPPED": "KILLED", "FAIL": "FAILED"}


class StudyRuns:
    """The MLflow runs of a study.

    Args:
        config: the study's.
        data: what its networks are trained on.
        criterion: what they are judged by.
        model: the network in place of what the settings name, see `Training`.

    Attributes:
        parent: the study's own run, from `open` or `join` on.
        still_ours: called before MLflow is told anything of the comparison at the end; it may raise LostLease.
    """

    def __init__(self, config: StudyConfig, data: Splits, criterion: Criterion, *, model: Model | None = None) -> None:
        self._config = config
        self._data = data
        self._criterion = criterion
        self._model = model
        self._lock = threading.Lock()
        self._enabled = config.tracking.enabled
        self.still_ours: Callable[[], None] = lambda: None
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
        known = study.user_attrs.get(PARENT)
        tags = {"role": "study", "study.id": identity(study)}
        run_id = known
        if known is None:  # or a worker has made it, and died before it could say so
            run_id = next((run.info.run_id for run in self._found(tags)), None)
        values = {key: value for key, value in flatten(config).items() if not key.startswith(("tracking.", "out"))}
        values |= {f"search.{name}": str(part) for name, part in config.search.parts}
        del values["search"], values["study.storage"]  # an address may hold a password
        run = _LeasedRun.start(
            experiment=config.tracking.experiment,
            name=study.study_name,
            uri=config.tracking.uri,
            run_id=run_id,
            # how the search goes may change; what is searched may not, and MLflow's parameters cannot
            params={key: value for key, value in values.items() if known is None or not key.startswith("study.")},
            tags={"study": study.study_name, **tags, **environment_tags()},
            keep_undelivered=False,
        )
        self.parent = self._leased(run)
        if known is None:
            self._add_views(study.study_name)
            study.set_user_attr(PARENT, self.parent.run_id)

    def _add_views(self, name: str) -> None:
        """Views of the study's trials for MLflow's pages, see `study.page_views`."""
        client, parent = stores.connect(self._uri), self.parent
        with stores.explained(self._uri):
            for key, value in view_tags(self._config, self._criterion, name, parent.run_id).items():
                client.set_experiment_tag(parent.experiment_id, key, value)
        if isinstance(parent, Run):
            last = max(map(seconds, report_times(self._config)))
            list_scores(parent, self._criterion.metric.name, [self._criterion.time, label(last)])

    def links(self, study: optuna.Study) -> str:
        """Where to look at the study, and the commands that serve it."""
        url = stores.shown(storage_url(self._config.study.storage))
        number = storage_of(study).get_study_id_from_name(study.study_name)
        page = f"in Optuna   {_DASHBOARD}/dashboard/studies/{number}"
        dashboard = f"optuna-dashboard {shlex.quote(url)} --server wsgiref\n{page}"
        return "\n".join([*([study_links(self.parent)] if isinstance(self.parent, Run) else []), dashboard])

    def _leased(self, run: Run) -> Run:
        assert isinstance(run, _LeasedRun)
        run.still_ours = lambda: self.still_ours()
        return run

    def join(self, study: optuna.Study) -> None:
        """Open the study's own run, unless this process has it open."""
        with self._lock:
            if not self.parent.run_id:
                self.open(study)

    @contextlib.contextmanager
    def trial(self, trial: optuna.Trial, outcome: Outcome, training: Training) -> Iterator[Tracker]:
        """The run of a trial, for the time it takes; what MLflow does not take then is sent later."""
        from optuna.exceptions import UpdateFinishedTrialError

        trial.set_user_attr(FOLDER, outcome.folder)  # first: by it those who find this worker dead know where to look
        tracker: Tracker = NoRun()
        if self._enabled:
            try:
                tracker = self._start(trial.study, outcome, training)
            except ConnectionError as error:
                warnings.warn(f"{error}; trial {outcome.number} is logged later", RuntimeWarning, stacklevel=3)
        try:
            outcome.run_id = tracker.run_id or None
            trial.set_user_attr(RUN, outcome.run_id)
            folder = Path(outcome.folder)
            folder.mkdir(parents=True, exist_ok=True)
            dump_toml(training.config, folder / "config.toml")
            self._history(tracker, training.history)
            yield tracker
        except KeyboardInterrupt:
            outcome.state = "STOPPED"
            raise
        except UpdateFinishedTrialError:  # it was given away: whoever sees that first tells MLflow, from the folder
            with contextlib.suppress(ConnectionError):  # then the end of the study finds it
                self._end_if_running(tracker.run_id)
            tracker = NoRun()
            raise
        finally:
            try:
                self._complete(tracker, outcome)
                if tracker.run_id and tracker.delivered:
                    with contextlib.suppress(UpdateFinishedTrialError):  # given away just now
                        trial.set_user_attr(LOGGED, outcome.state)
            finally:  # last: from then on others may send what MLflow did not take
                write_whole(Path(outcome.folder) / OUTCOME, json.dumps(sealed(asdict(outcome))))

    def final(self, study: optuna.Study, name: str, training: Training, tags: Mapping[str, str]) -> Tracker:
        """The run of a network of the comparison at the end; one that takes nothing where MLflow is away.

        Raises:
            LostLease: another worker makes the comparison now.
        """
        if not self._enabled:
            return NoRun()
        self.still_ours()
        parent = self.parent.run_id
        try:
            known = self._found({_PARENT_TAG: parent, "role": "final"})
            with stores.explained(self._uri):
                for run in known:
                    if run.info.status == "RUNNING":  # its worker died, or sleeps and may still tell it something
                        stores.connect(self._uri).set_terminated(run.info.run_id, "FAILED")
            ended = {run.info.run_id for run in known if run.info.status != "RUNNING"}
            run = _LeasedRun.start(
                experiment=self._config.tracking.experiment,
                name=name,
                uri=self._config.tracking.uri,
                run_id=training.run_id if training.run_id in ended else None,
                parent_run_id=parent,
                params=parameters(training.config, training.analog, tags["training"]),
                tags={"study": study.study_name, "role": "final", **tags, **environment_tags()},
                keep_undelivered=False,
            )
        except ConnectionError as error:
            warnings.warn(str(error), RuntimeWarning, stacklevel=2)
            return _Away()
        return self._leased(run)

    def send_unsent(self, study: optuna.Study, *, wait: bool = True) -> int:
        """Send what MLflow did not take earlier, as far as it lies here; returns how many trials are still unsent.

        One worker at a time does so; without `wait` the others do not wait for it.
        """
        if not self._enabled or not unsent(study):
            return 0
        lease = Lease(study, "analogsim:sending", self._config.study.heartbeat)

        place = self._place(study)

        def here() -> list[FrozenTrial]:
            return [trial for trial in unsent(study) if can_be_sent(trial, place)]

        with lease.held(lambda: not (wait or lease.free()) or not here()) as ours:
            for trial in here() if ours else ():
                try:
                    lease.check()
                    if self._send(study, trial, place):
                        sent = study.user_attrs.get(SENT, {})
                        study.set_user_attr(SENT, {**sent, str(trial.number): trial.state.name})
                except (ConnectionError, LostLease):
                    break
        return len(unsent(study))

    def _place(self, study: optuna.Study) -> Path | None:
        """The study's folder, where trials do not lie any more where their workers noted."""
        if all(folder_of(trial).is_dir() for trial in unsent(study)):
            return None
        with contextlib.suppress(OSError):  # nothing can be written there now
            return study_folder(self._config, study)
        return None

    def end_strays(self, study: optuna.Study) -> bool:
        """End the runs of trials that nobody will end; False where MLflow could not be asked.

        Where an answer was lost, the request was made again and there are two runs of a trial: the one that nobody
        noted is deleted. And who was asleep as his trial was given away made its run, perhaps, when he woke up.
        """
        if not self._enabled:
            return True
        waiting = {trial.number for trial in unsent(study)}
        ended = {
            trial.number: trial
            for trial in study.get_trials(deepcopy=False)
            if trial.state.is_finished() and trial.number not in waiting
        }
        runs: dict[int, list[Any]] = {}
        try:
            for run in self._found({_PARENT_TAG: study.user_attrs[PARENT], "role": "trial"}):
                runs.setdefault(int(run.data.tags[_NUMBER]), []).append(run)
            for number in runs.keys() & ended.keys():
                self._end_those_of(ended[number], runs[number])
        except ConnectionError:
            return False
        return True

    def _end_those_of(self, trial: FrozenTrial, runs: list[Any]) -> None:
        """Of the runs of a trial that has ended leave one, ended."""
        first = next((run for run in runs if run.info.status != "RUNNING"), runs[0])
        noted = next((run for run in runs if run.info.run_id == trial.user_attrs.get(RUN)), first)
        for run in runs:
            if run is not noted and run.info.status == "RUNNING":
                with stores.explained(self._uri):
                    stores.connect(self._uri).delete_run(run.info.run_id)
        if trial.state.name == "FAIL":
            self._end_if_running(noted.info.run_id)

    def _end_if_running(self, run_id: str) -> None:
        """End the run of a trial that failed, unless another has ended it."""
        if not run_id:
            return
        with stores.explained(self._uri):
            client = stores.connect(self._uri)
            if client.get_run(run_id).info.status == "RUNNING":
                client.set_tag(run_id, "optuna.trial.state", "FAIL")
                client.set_terminated(run_id, "FAILED")

    def log_progress(self, study: optuna.Study, *, wait: bool = True) -> bool:
        """Tell the study's own run how far it is: objectives, figures, a table of all trials; False if it could not.

        One worker at a time does so; without `wait` the others leave it to that one.
        """
        if not self._enabled:
            return True
        lease = Lease(study, "analogsim:progress", self._config.study.heartbeat)
        with lease.held(lambda: not (wait or lease.free())) as ours:
            if not ours:
                return False
            try:
                self.open(study)
            except ConnectionError:
                return False
            if not self._send_objectives(study):
                return False
            for path, figure in figures.figures(study, self._criterion.names):
                self.parent.figure(figure, path)
            values = "values" if self._config.study.pareto else "value"
            frame = study.trials_dataframe(attrs=("number", "state", values, "params", "user_attrs", "duration"))
            self.parent.table({str(name): [_cell(cell) for cell in frame[name]] for name in frame}, "trials.json")
            return self.parent.delivered

    def _send_objectives(self, study: optuna.Study) -> bool:
        from mlflow.entities import Metric

        points = []
        for trial in study.get_trials(deepcopy=False):
            if trial.state.name == "COMPLETE" and len(trial.values) == 1 and trial.datetime_complete is not None:
                # MLflow keeps one of points that are the same with their time, whoever sends them, and how often.
                time = trial.datetime_complete.replace(tzinfo=UTC)
                points.append(Metric("objective", trial.values[0], int(1000 * time.timestamp()), trial.number))
        try:
            with stores.explained(self._uri):
                client = stores.connect(self._uri)
                for first in range(0, len(points), _AT_ONCE):
                    client.log_batch(self.parent.run_id, metrics=points[first : first + _AT_ONCE], synchronous=True)
        except ConnectionError:
            return False
        return True

    @property
    def _uri(self) -> str:
        return stores.tracking_uri(self._config.tracking.uri)

    def _found(self, tags: Mapping[str, str]) -> list[Any]:
        """All runs of the experiment that have these tags, the latest first.

        Raises:
            ConnectionError: MLflow cannot be reached.
        """
        with stores.explained(self._uri):
            client = stores.connect(self._uri)
            experiment = stores.experiment_id(client, self._config.tracking.experiment, self._uri)
            wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
            found: list[Any] = []
            token: str | None = None
            while token != "":
                page = client.search_runs([experiment], filter_string=wanted, page_token=token)
                found += page
                token = page.token or ""
            return found

    def _start(self, study: optuna.Study, outcome: Outcome, training: Training) -> Run:
        return Run.start(
            experiment=self._config.tracking.experiment,
            name=f"trial {outcome.number}",
            uri=self._config.tracking.uri,
            run_id=outcome.run_id,
            parent_run_id=study.user_attrs.get(PARENT),
            params=parameters(training.config, training.analog, "hardware-aware"),
            tags={
                "study": study.study_name,
                "role": "trial",
                _NUMBER: str(outcome.number),
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
        tracker.tags({"optuna.trial.state": in_optuna(outcome.state) or ""})
        if outcome.why:
            tracker.tags({"optuna.trial.why": outcome.why})
        if outcome.metrics:
            tracker.metrics(outcome.metrics, step=0)
        for name, below in (("config.toml", None), ("report.json", None), (CHECKPOINT, "checkpoint")):
            if (folder / name).is_file():
                tracker.artifact(folder / name, below)
        if outcome.state == "COMPLETE":
            report = Report.from_dict(json.loads((folder / "report.json").read_text()))
            log_report(report, tracker, step=0, part="search")
        tracker.end(_ENDS[outcome.state])

    def _send(self, study: optuna.Study, trial: FrozenTrial, place: Path | None) -> bool:
        """Send a trial that has ended from its folder; whether MLflow holds it now."""
        outcome, by_itself = outcome_of(trial, place)
        if outcome.run_id is None:
            tags = {_PARENT_TAG: study.user_attrs[PARENT], _NUMBER: str(trial.number)}
            outcome.run_id = next((run.info.run_id for run in self._found(tags)), None)
        path = Path(outcome.folder) / CHECKPOINT
        if path.is_file() and (by_itself or outcome.run_id is None):
            config = self._with_own_code(
                from_stored(Config, load_checkpoint(path)["config"], f"checkpoint {str(path)!r}"), trial
            )
            training = Training(config, self._data, aware=True, path=path, model=self._model)
            tracker = self._start(study, outcome, training)
            self._history(tracker, training.history)
        elif outcome.run_id is not None:
            # Its worker may only be asleep, and in the middle of telling this run something: it is ended, and what was
            # measured goes to the run of the trial that tries it again.
            tracker = Run.start(
                experiment=self._config.tracking.experiment,
                name="",
                uri=self._config.tracking.uri,
                run_id=outcome.run_id,
                params={},
                keep_undelivered=False,
            )
        else:
            return True  # its worker died before there was anything to tell
        self._complete(tracker, outcome)
        return tracker.delivered

    def _with_own_code(self, config: Config, trial: FrozenTrial) -> Config:
        """The training of a trial with the network that this worker was told of: a file's word for it runs nothing."""
        return replace(config, model=training_config(self._config, trial.params).model)


class _LeasedRun(Run):
    """A run that is told of the comparison at the end, which another worker may have taken over meanwhile."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.still_ours: Callable[[], None] = lambda: None

    def end(self, status: Status = "FINISHED") -> None:
        with contextlib.suppress(LostLease):  # then it is the other's to end
            super().end(status)

    def _deliver(self, call: Any) -> None:
        self.still_ours()
        super()._deliver(call)


class _Away(NoRun):
    """In place of a run that could not be made: nothing that is told to it arrives."""

    @property
    def delivered(self) -> bool:
        return False


def _cell(value: Any) -> Any:
    if hasattr(value, "total_seconds"):
        return value.total_seconds()
    return None if isinstance(value, float) and math.isnan(value) else value
