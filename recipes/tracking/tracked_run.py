"""One MLflow run, as recipes use it: explicit, no global state, and never the reason why a training dies.

``start`` gives a ``Run``, or, with tracking switched off, a ``NoRun`` that takes the same calls and does nothing.
Starting fails at once, and says why, where there is no store. After that a failing store only delays: what could
not be logged waits in order, is tried again at the next call and at ``end``, and metrics that cannot be delivered
even then are written to a file.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import os
import posixpath
import re
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from analogsim.errors import InvalidValueError, MissingFileError, OperationError
from analogsim.recipes.tracking import links, stores
from analogsim.recipes.tracking.kept_model import KeptModel
from analogsim.recipes.tracking.mlflow_private import LOGGED_ARTIFACTS
from analogsim.recipes.tracking.tracker import NoRun, Status, Tracker

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.entities import Run as MlflowRun

    from analogsim.recipes.tracking.used_data import UsedData


MARK = "analogsim.mark"
"""The tag by which a run is found of which nobody noted the id."""

_LONGEST = 6000  # MLflow's limit for a parameter; that for a tag is larger
_METRICS_AT_ONCE, _PARAMS_AT_ONCE = 1000, 100  # MLflow's limits for one log_batch
_SHARE = 0.01  # of the time may go into sending metrics; those that come faster are sent together
_LATEST = 10.0  # seconds that metrics wait at most, as long as others come
_PATIENCE = 1.0  # seconds; a store that hangs longer than that before it fails gets a tenth of the time at most


@dataclass(frozen=True)
class _Call:
    """Something to be delivered; sending it twice has to be the same as once."""

    what: str
    send: Callable[[], object]
    metrics: Sequence[Metric] = ()
    extra: bool = False  # older versions of MLflow have nothing of the kind


class Run(Tracker):
    """One MLflow run, made by ``Run.start``; several threads may use it."""

    def __init__(
        self, client: MlflowClient, uri: str, experiment_id: str, run_id: str, *, keep_undelivered: bool = True
    ) -> None:
        self.run_id = run_id
        self.experiment_id = experiment_id
        self.uri = uri
        self._client = client
        self._keep = keep_undelivered
        self._lock = threading.RLock()
        self._waiting: deque[_Call] = deque()
        self._refused: list[_Call] = []
        self._held: dict[tuple[str, int, str], int] = {}
        self._params: Mapping[str, str] = {}
        self._model: KeptModel | None = None
        self._warned = self._ended = False
        self._not_before = self._metrics_due = 0.0

    @classmethod
    def start(
        cls,
        *,
        experiment: str,
        name: str,
        uri: str | None = None,
        run_id: str | None = None,
        mark: str | None = None,
        again: bool = False,
        parent_run_id: str | None = None,
        params: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        keep_undelivered: bool = True,
    ) -> Run:
        """Start a run, or reopen one to resume it.

        A reopened run does not take a point of a metric that it holds already: what a kill may have kept from it can
        simply be logged again.

        Args:
            experiment: Name of the experiment; made if there is none.
            name: Name of the run; a reopened run keeps its own, and stays in its experiment.
            uri: Tracking URI; see ``stores.tracking_uri``.
            run_id: The run to reopen. Parameters cannot change: those that differ become tags
                ``resumed.<name>``.
            mark: A text that no other run has, kept as a tag: by it a run is found of which nobody noted the id.
            again: A run of that mark may be there, of a process that was killed; then it is reopened.
            parent_run_id: A run of the same experiment under which MLflow's UI shows this one.
            params: Parameters; a value longer than MLflow takes ends in ``…`` and is kept whole as an artifact.
            tags: Tags.
            keep_undelivered: Write metrics that the store did not take by the end to a file, and warn. False is for
                who asks ``delivered`` after the end and logs everything again.

        Raises:
            ConnectionError: The store cannot be reached or opened.
            ValueError: A name that MLflow does not allow, a deleted experiment or run, or no such run.
        """
        full = {key: str(value) for key, value in params.items()}
        short = {key: _cut(value) for key, value in full.items()}
        labels = _labels(tags or {}, parent_run_id)
        for key in [*short, *labels]:
            check_name("parameter or tag", key)
        store = stores.tracking_uri(uri)
        with stores.explained(store):
            client = stores.connect(store)
            if run_id is None:
                place = stores.experiment_id(client, experiment, store)
                run_id, found = _made_or_marked(client, place, name, mark, labels, again=again)
            else:
                found = _reopened(client, run_id)
            run = cls(client, store, found.info.experiment_id, found.info.run_id, keep_undelivered=keep_undelivered)
            if run_id is not None:
                run._take_note(found.data.metrics)
            changed, new = _told_apart(short, found)
            run._params = short
            labels |= {f"resumed.{key}": short[key] for key in changed}
            run._introduce({key: short[key] for key in new}, labels)
        paths = {key: f"params/{key}.txt" for key in new} | {key: f"params/resumed.{key}.txt" for key in changed}
        for key in full:
            if full[key] != short[key] and key in paths:
                run.text(full[key], paths[key])
        return run

    def _take_note(self, metrics: Iterable[str]) -> None:
        """Remember the points of metrics that the store holds, and when they were logged (ms)."""
        held = (self._client.get_metric_history(self.run_id, name) for name in metrics)
        self._held = {_point(m.key, m.step, m.value): m.timestamp for history in held for m in history}

    def _introduce(self, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Tell MLflow what the run is of; where that fails, so has the run."""
        try:
            self._describe(params, tags)
        except BaseException:
            with contextlib.suppress(*stores.errors()):
                self._client.set_terminated(self.run_id, "FAILED")
            raise

    def _describe(self, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        values = [Param(key, value) for key, value in params.items()]
        labels = [RunTag(key, value) for key, value in tags.items()]
        for first in range(0, max(len(values), len(labels)), _PARAMS_AT_ONCE):
            part = slice(first, first + _PARAMS_AT_ONCE)
            self._client.log_batch(self.run_id, params=values[part], tags=labels[part], synchronous=True)

    def metrics(self, values: Mapping[str, float], step: int, *, on: UsedData | None = None) -> None:
        """See `Tracker`."""
        self._log([(name, value, step) for name, value in values.items()], on)

    def curve(self, name: str, seconds: Sequence[float], values: Sequence[float]) -> None:
        """See `Tracker`."""
        steps = [round(float(second)) for second in seconds]
        if len(steps) != len(values) or len(set(steps)) != len(steps):
            raise InvalidValueError(
                f"curve {name!r}: wanted one value for each of several different whole seconds, "
                f"got {len(values)} values for the seconds {list(seconds)}"
            )
        self._log([(name, value, step) for step, value in zip(steps, values, strict=True)])

    def _log(self, points: Sequence[tuple[str, float, int]], on: UsedData | None = None) -> None:
        from mlflow.entities import Metric

        for name, _, _ in points:
            check_name("metric", name)
        # MLflow keeps one of equal (name, value, time, step): with the time fixed now, a retry doubles nothing
        now = _milliseconds()
        held = self._held
        if on is None:
            new = [point for point in points if _point(point[0], point[2], point[1]) not in held]
            batch = [Metric(name, float(value), now, step) for name, value, step in new]
        else:  # what the run holds may not be told of the model yet: the same again, of which one is kept
            of = {"dataset_name": on.name, "dataset_digest": on.digest}
            batch = [
                Metric(name, float(value), held.get(_point(name, step, value), now), step, **of)
                for name, value, step in points
            ]
        for first in range(0, len(batch), _METRICS_AT_ONCE):
            part = batch[first : first + _METRICS_AT_ONCE]
            self._deliver(_Call("metrics", functools.partial(self._send_metrics, part), part))

    def _send_metrics(self, batch: Sequence[Metric]) -> None:
        model = self._model.id if self._model is not None else ""
        told = [_of_model(metric, model) if model and metric.dataset_name else metric for metric in batch]
        self._client.log_batch(self.run_id, metrics=told, synchronous=True)

    def inputs(self, data: Sequence[UsedData]) -> None:
        """See `Tracker`."""
        self._deliver(
            _Call("data", lambda: self._client.log_inputs(self.run_id, [each.as_input() for each in data]), extra=True)
        )

    def model(self, name: str, checkpoint: str | os.PathLike[str], step: int) -> None:
        """See `Tracker`."""
        local = Path(checkpoint).absolute()
        if not local.is_file():
            raise MissingFileError(f"no file {str(local)!r} to keep as a model")
        self._model = kept = KeptModel(
            name, local, run_id=self.run_id, experiment_id=self.experiment_id, params=self._params, step=step
        )
        self._deliver(_Call("the model", lambda: kept.send(self._client), extra=True))

    def figure(self, figure: Figure, path: str) -> None:
        """See `Tracker`."""
        kind = posixpath.splitext(path)[1].removeprefix(".")
        if not kind:
            raise InvalidValueError(f"figure {path!r}: wanted a suffix that names the format, such as {path}.png")
        picture = io.BytesIO()  # drawn now: the caller may close or change the figure before it is delivered
        figure.savefig(picture, format=kind)
        self._store(picture.getvalue(), path)

    def table(self, columns: Mapping[str, Sequence[Any]], path: str) -> None:
        """See `Tracker`."""
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) != 1 or not path.endswith(".json"):
            raise InvalidValueError(f"table {path!r}: wanted a .json path and columns of one length, got {lengths}")
        rows = [[_plain(cell) for cell in row] for row in zip(*columns.values(), strict=True)]
        # the format of MlflowClient.log_table, which appends: a retry would double the rows
        self._store(json.dumps({"columns": list(columns), "data": rows}, default=str).encode(), path)
        self._deliver(_Call(path, lambda: self._announce({"path": path, "type": "table"})))

    def _announce(self, table: dict[str, str]) -> None:
        """Add to the tag by which MLflow's UI knows which artifacts are tables."""
        listed = json.loads(self._client.get_run(self.run_id).data.tags.get(LOGGED_ARTIFACTS, "[]"))
        if table not in listed:
            self._client.set_tag(self.run_id, LOGGED_ARTIFACTS, json.dumps([*listed, table]))

    def text(self, text: str, path: str) -> None:
        """See `Tracker`."""
        self._store(text.encode(), path)

    def _store(self, content: bytes, path: str) -> None:
        _check_path(path)
        folder, name = posixpath.split(path)

        def send() -> None:
            with tempfile.TemporaryDirectory() as scratch:
                Path(scratch, name).write_bytes(content)
                self._client.log_artifact(self.run_id, str(Path(scratch, name)), folder or None)

        self._deliver(_Call(path, send))

    def artifact(self, local_path: str | os.PathLike[str], folder: str | None = None) -> None:
        """See `Tracker`."""
        local = Path(local_path).absolute()
        if not local.exists():
            raise MissingFileError(f"no file or folder {str(local)!r} to keep as an artifact")
        if folder is not None:
            _check_path(folder)
        self._deliver(_Call(str(local), lambda: self._client.log_artifact(self.run_id, str(local), folder)))

    def tags(self, values: Mapping[str, str]) -> None:
        """See `Tracker`."""
        for name in values:
            check_name("tag", name)
        labels = {name: _cut(str(value)) for name, value in values.items()}
        self._deliver(_Call("tags", lambda: self._describe({}, labels)))

    @property
    def delivered(self) -> bool:
        """See `Tracker`."""
        with self._lock:
            return not self._waiting and not self._refused

    def end(self, status: Status = "FINISHED") -> None:
        """See `Tracker`."""
        if status not in get_args(Status):
            raise InvalidValueError(f"a run ends as one of {', '.join(get_args(Status))}, got {status!r}")
        now = _milliseconds()
        with self._lock:
            if self._ended:
                return
            self._not_before = 0.0
            try:
                self._deliver(_Call("status", lambda: self._client.set_terminated(self.run_id, status, now)))
            except Exception:
                self._ended = True
                self._keep_undelivered()
                raise
            self._ended = True  # not where it was interrupted: then it can be ended again
            self._keep_undelivered()

    def _deliver(self, call: _Call) -> None:
        """Send what waits, then `call`, in order; what the store does not take now waits for next time."""
        with self._lock:
            if self._ended:
                raise OperationError(f"run {self.run_id} has ended: {call.what} must be logged before end()")
            began = time.monotonic()
            if call.metrics and began < self._metrics_due:
                self._join(call)
                return
            self._waiting.append(call)
            while self._waiting and began >= self._not_before:
                try:
                    self._waiting[0].send()
                except _failures() as error:
                    if self._waiting[0].extra and _is_unknown(error):  # the run is complete without it
                        _warn(f"this MLflow has no place for {self._waiting.popleft().what}: {stores.brief(error)}")
                        continue
                    if _is_final(error):  # trying again would only hold up what comes behind it
                        refused = self._waiting.popleft()
                        self._refused.append(refused)
                        _warn(f"MLflow does not take {refused.what}: {stores.brief(error)}")
                        continue
                    now = time.monotonic()
                    if now - began > _PATIENCE:
                        self._not_before = now + 10 * (now - began)
                    if not self._warned:
                        self._warned = True
                        _warn(
                            f"MLflow at {stores.shown(self.uri)} failed: {stores.brief(error)}. The training goes on; "
                            "what is logged waits, and is delivered when the store answers again"
                        )
                    return
                self._waiting.popleft()
            self._warned = self._warned and bool(self._waiting)
            now = time.monotonic()
            self._metrics_due = now + min(_LATEST, (now - began) / _SHARE)

    def _join(self, call: _Call) -> None:
        """Let metrics wait, in one batch with those that wait already: the store takes many in the time of one."""
        batch = list(call.metrics)
        if self._waiting and 0 < len(self._waiting[-1].metrics) <= _METRICS_AT_ONCE - len(batch):
            batch = [*self._waiting.pop().metrics, *batch]
        self._waiting.append(_Call("metrics", functools.partial(self._send_metrics, batch), batch))

    def _keep_undelivered(self) -> None:
        lost = [*self._refused, *self._waiting]
        if not self._keep or not lost:
            return
        message = f"MLflow at {stores.shown(self.uri)} did not take all of run {self.run_id}"
        lines = [self._line(metric) for call in lost for metric in call.metrics]
        if lines:
            path = Path.cwd() / f"mlflow-undelivered-{self.run_id}.jsonl"
            try:
                with path.open("a", encoding="utf-8") as file:
                    file.writelines(lines)
                message += f"; {len(lines)} metrics are kept in {path}"
            except OSError as error:
                message += f"; {len(lines)} metrics are lost, because {path} cannot be written: {error}"
        others = dict.fromkeys(call.what for call in lost if not call.metrics)
        _warn(message + (f"; not delivered: {', '.join(others)}" if others else ""))

    def _line(self, metric: Metric) -> str:
        value = metric.value if math.isfinite(metric.value) else str(metric.value)  # JSON has no NaN
        row = {"key": metric.key, "value": value, "timestamp": metric.timestamp, "step": metric.step}
        return json.dumps({"run_id": self.run_id, **row}) + "\n"

    def links(self) -> str:
        """See `Tracker`."""
        command = links.ui_command(self.uri)
        return "\n".join([*([command] if command else []), links.run_link(self)])


def start(enabled: bool, **kwargs: Any) -> Tracker:
    """Start a run with the arguments of ``Run.start``, or a ``NoRun`` where tracking is not enabled."""
    return Run.start(**kwargs) if enabled else NoRun()


def _labels(tags: Mapping[str, str], parent_run_id: str | None) -> dict[str, str]:
    """The tags of a run, as short as MLflow takes them, and the one that puts it under another."""
    parent = {"mlflow.parentRunId": parent_run_id} if parent_run_id else {}
    return {key: _cut(str(value)) for key, value in {**tags, **parent}.items()}


def _made_or_marked(
    client: MlflowClient, experiment_id: str, name: str, mark: str | None, labels: Mapping[str, str], *, again: bool
) -> tuple[str | None, MlflowRun]:
    """A new run, or the one of that mark with its id, reopened, if one may be there and is.

    A new one has its tags from the first moment on: by them it is found, whoever dies before its id is noted.
    """
    if mark is not None and again:
        found = client.search_runs([experiment_id], f"tags.`{MARK}` = '{mark}'", max_results=1)
        if found:
            return str(found[0].info.run_id), _reopened(client, found[0].info.run_id)
    tags = {**labels} if mark is None else {**labels, MARK: mark}
    return None, client.create_run(experiment_id, run_name=name, tags=tags)


def _reopened(client: MlflowClient, run_id: str) -> MlflowRun:
    """A run that is there, said to be running again."""
    found = client.get_run(run_id)
    if found.info.lifecycle_stage == "deleted":
        raise InvalidValueError(f"run {run_id} is deleted: restore it in the MLflow UI, or start a new one")
    client.update_run(run_id, status="RUNNING")
    return found


def _told_apart(params: Mapping[str, str], run: MlflowRun) -> tuple[list[str], list[str]]:
    """The names of the parameters that a run knows by another value, and of those that it does not know."""
    known, old = run.data.params, run.data.tags
    # one that is back at its first value must not keep the tag of an earlier change
    changed = [key for key in params if key in known and (known[key] != params[key] or f"resumed.{key}" in old)]
    return changed, [key for key in params if key not in known]


def _is_final(error: Exception) -> bool:
    refused = getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE"
    return refused or isinstance(error, FileNotFoundError)


def _failures() -> tuple[type[Exception], ...]:
    """What a store may raise for what is told to it; some know not all that MLflow's clients ask."""
    return (*stores.errors(), NotImplementedError)


def _is_unknown(error: Exception) -> bool:
    """Whether a store does not know what is asked for at all."""
    code = getattr(error, "error_code", "")
    return isinstance(error, NotImplementedError) or code in ("ENDPOINT_NOT_FOUND", "NOT_IMPLEMENTED")


def _of_model(metric: Metric, model_id: str) -> Metric:
    """The same point, as one of a model's."""
    from mlflow.entities import Metric

    data = {"dataset_name": metric.dataset_name, "dataset_digest": metric.dataset_digest}
    return Metric(metric.key, metric.value, metric.timestamp, metric.step, model_id=model_id, **data)


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=5)  # as a rule the caller of the logging method


def check_name(what: str, name: str) -> None:
    """Refuse a name that MLflow does not take.

    Args:
        what: it names, for the error.
        name: of a parameter, a tag or a metric.

    Raises:
        ValueError: which name, and what is wanted.
    """
    if not re.fullmatch(r"[\w.\-: /]{1,250}", name) or not _is_path(name):
        raise InvalidValueError(
            f"{what} {name!r}: wanted a name of at most 250 letters, digits, _ - . : and spaces, "
            "with single slashes between its parts"
        )


def _check_path(path: str) -> None:
    if not _is_path(path) or "\\" in path:
        raise InvalidValueError(f"artifact {path!r}: wanted a relative path with single slashes, such as plots/a.png")


def _point(name: str, step: int, value: float) -> tuple[str, int, str]:
    return name, step, str(float(value))  # as text, so that NaN equals NaN


def _is_path(name: str) -> bool:
    return posixpath.normpath(name) == name and name != "." and not name.startswith(("/", ".."))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _plain(cell: Any) -> Any:
    value = cell.item() if hasattr(cell, "item") else cell
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _milliseconds() -> int:
    return int(time.time() * 1000)
