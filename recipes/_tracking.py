"""One MLflow run, as the recipes use it: explicit, without global state, and never the reason why a training dies.

``start`` gives a ``Run``, or, with tracking switched off, a ``NoRun`` that takes the same calls and does nothing.
Starting fails at once, and says why, where there is no store. After that a failing store only delays: what could
not be logged waits in order, is tried again at the next call and at ``end``, and metrics that still cannot be
delivered then are written to a file.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import logging
import math
import os
import platform
import posixpath
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, get_args
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]

_LONGEST = 6000  # MLflow's limit for a parameter; its limit for a tag is larger
_METRICS_PER_CALL, _PARAMS_PER_CALL = 1000, 100  # MLflow's limits for one log_batch
_OPENING = threading.Lock()  # the migrations of a new database are not safe in threads


class Tracker(Protocol):
    """What a recipe may ask of tracking; ``Run`` does it, ``NoRun`` ignores it."""

    run_id: str
    experiment_id: str

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log several metrics of one step (an epoch)."""

    def curve(self, name: str, seconds: Sequence[float], values: Sequence[float]) -> None:
        """Log a metric over time after programming: its step is the time in whole seconds."""

    def figure(self, figure: Figure, path: str) -> None:
        """Keep a figure as it is now, as the artifact `path`, whose suffix (``.png``, ``.svg``) is the format."""

    def table(self, columns: Mapping[str, Sequence[Any]], path: str) -> None:
        """Keep columns of equal length as the table `path` (``.json``), in place of an earlier one there."""

    def text(self, text: str, path: str) -> None:
        """Keep a text as the artifact `path`."""

    def artifact(self, local_path: str | os.PathLike[str], folder: str | None = None) -> None:
        """Copy a file, or a folder, into the artifacts, under `folder`."""

    def end(self, status: Status = "FINISHED") -> None:
        """End the run; a second end changes nothing."""

    def links(self) -> str:
        """Say how to look at this run: the command that opens the UI, and the address."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True)
class _Call:
    """Something to be delivered; sending it twice must be the same as once."""

    what: str
    send: Callable[[], object]
    metrics: tuple[dict[str, Any], ...] = ()


class Run:
    """One MLflow run, made by ``Run.start``; safe to use from several threads."""

    def __init__(self, client: MlflowClient, uri: str, experiment_id: str, run_id: str) -> None:
        self.run_id = run_id
        self.experiment_id = experiment_id
        self.uri = uri
        self._client = client
        self._lock = threading.RLock()
        self._waiting: deque[_Call] = deque()
        self._refused: list[_Call] = []
        self._warned = self._ended = False
        self._not_before = 0.0

    @classmethod
    def start(
        cls,
        *,
        experiment: str,
        name: str,
        uri: str | None = None,
        run_id: str | None = None,
        params: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
    ) -> Run:
        """Start a run, or reopen one to resume it.

        Args:
            experiment: Name of the experiment; made if there is none.
            name: Name of the run; a reopened run keeps its own, and stays in its experiment.
            uri: Tracking URI; see ``tracking_uri``.
            run_id: The run to reopen. MLflow's parameters cannot change: those that differ from the first time
                become tags ``resumed.<name>``.
            params: Parameters; a value longer than MLflow takes is cut with a ``…`` and kept as an artifact.
            tags: Tags.

        Raises:
            ConnectionError: The store cannot be reached or opened.
            ValueError: A name that MLflow does not allow, a deleted experiment, or an unknown run.
        """
        full = {key: str(value) for key, value in params.items()}
        for key in [*full, *(tags or {})]:
            _check_name("parameter or tag", key)
        short, labels = ({key: _cut(str(text)) for key, text in each.items()} for each in (full, tags or {}))
        store = tracking_uri(uri)
        with _explained(store):
            client = _connect(store)
            if run_id is None:
                experiment_id = _experiment(client, experiment, store)
                run = cls(
                    client, store, experiment_id, client.create_run(experiment_id, run_name=name).info.run_id
                )
                known: Mapping[str, str] = {}
            else:
                found = client.get_run(run_id)
                if found.info.lifecycle_stage == "deleted":
                    raise ValueError(
                        f"run {run_id} is deleted; `mlflow runs restore --run-id {run_id}` or start anew"
                    )
                client.update_run(run_id, status="RUNNING")
                run = cls(client, store, found.info.experiment_id, run_id)
                known = found.data.params
            changed = {key: value for key, value in short.items() if known.get(key, value) != value}
            labels |= {f"resumed.{key}": value for key, value in changed.items()}
            try:
                run._describe({key: value for key, value in short.items() if key not in known}, labels)
            except BaseException:
                run.end("FAILED")
                raise
        for key, value in full.items():
            if value != short[key] and (key in changed or key not in known):
                run.text(value, f"params/{'resumed.' * (key in changed)}{key}.txt")
        return run

    def _describe(self, params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        labels = [RunTag(key, value) for key, value in tags.items()]
        values = [Param(key, value) for key, value in params.items()]
        for first in range(0, max(len(labels), len(values)), _PARAMS_PER_CALL):
            part = slice(first, first + _PARAMS_PER_CALL)
            self._client.log_batch(self.run_id, params=values[part], tags=labels[part], synchronous=True)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log several metrics of one step (an epoch)."""
        self._log([(name, value, step) for name, value in values.items()])

    def curve(self, name: str, seconds: Sequence[float], values: Sequence[float]) -> None:
        """Log a metric over time after programming: its step is the time in whole seconds."""
        steps = [round(float(second)) for second in seconds]
        if len(steps) != len(values) or len(set(steps)) != len(steps):
            raise ValueError(
                f"curve {name!r}: wanted one value for each of several different whole seconds, got "
                f"{len(values)} values for the seconds {list(seconds)}"
            )
        self._log([(name, value, step) for step, value in zip(steps, values, strict=True)])

    def _log(self, points: Sequence[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        # MLflow stores the same value, step and time once: with the time fixed here, sending again doubles nothing
        now = int(time.time() * 1000)
        for name, _, _ in points:
            _check_name("metric", name)
        rows = [
            {"key": key, "value": float(value), "timestamp": now, "step": step} for key, value, step in points
        ]
        for first in range(0, len(rows), _METRICS_PER_CALL):
            part = rows[first : first + _METRICS_PER_CALL]
            batch = [Metric(**row) for row in part]

            def send(batch: list[Metric] = batch) -> None:
                self._client.log_batch(self.run_id, metrics=batch, synchronous=True)

            self._deliver(_Call("metrics", send, tuple(part)))

    def figure(self, figure: Figure, path: str) -> None:
        """Keep a figure as it is now, as the artifact `path`, whose suffix (``.png``, ``.svg``) is the format."""
        kind = posixpath.splitext(path)[1].removeprefix(".")
        if not kind:
            raise ValueError(
                f"figure {path!r}: wanted a path with a suffix for its format, for example {path}.png"
            )
        picture = io.BytesIO()  # drawn now: the caller may close or change the figure before it is delivered
        figure.savefig(picture, format=kind)
        self._store(picture.getvalue(), path)

    def table(self, columns: Mapping[str, Sequence[Any]], path: str) -> None:
        """Keep columns of equal length as the table `path` (``.json``), in place of an earlier one there."""
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"table {path!r}: wanted columns of one length, got {lengths}")
        if not path.endswith(".json"):
            raise ValueError(f"table {path!r}: wanted a path that ends in .json")
        rows = [[_plain(cell) for cell in row] for row in zip(*columns.values(), strict=True)]
        # the form of MlflowClient.log_table, which adds to a table that is there: sent twice it would double it
        content = json.dumps({"columns": list(columns), "data": rows}, default=str)
        self._store(content.encode(), path)
        self._deliver(_Call(f"table {path}", lambda: self._announce({"path": path, "type": "table"})))

    def _announce(self, entry: dict[str, str]) -> None:
        """List a table in the tag by which MLflow's UI knows its tables."""
        tag = "mlflow.loggedArtifacts"
        listed = json.loads(self._client.get_run(self.run_id).data.tags.get(tag, "[]"))
        if entry not in listed:
            self._client.set_tag(self.run_id, tag, json.dumps([*listed, entry]))

    def text(self, text: str, path: str) -> None:
        """Keep a text as the artifact `path`."""
        self._store(text.encode(), path)

    def _store(self, content: bytes, path: str) -> None:
        _check_path(path)
        folder, name = posixpath.split(path)

        def send() -> None:
            with tempfile.TemporaryDirectory() as scratch:
                local = Path(scratch, name)
                local.write_bytes(content)
                self._client.log_artifact(self.run_id, str(local), folder or None)

        self._deliver(_Call(path, send))

    def artifact(self, local_path: str | os.PathLike[str], folder: str | None = None) -> None:
        """Copy a file, or a folder, into the artifacts, under `folder`."""
        local = Path(local_path).absolute()
        if not local.exists():
            raise FileNotFoundError(f"no file or folder {str(local)!r} to log as an artifact")
        if folder is not None:
            _check_path(folder)
        self._deliver(_Call(str(local), lambda: self._client.log_artifact(self.run_id, str(local), folder)))

    def end(self, status: Status = "FINISHED") -> None:
        """End the run, deliver what waits, and warn about what cannot be; a second end changes nothing."""
        if status not in get_args(Status):
            raise ValueError(f"a run ends as {', '.join(get_args(Status))}, got {status!r}")
        now = int(time.time() * 1000)
        with self._lock:
            if not self._ended:
                self._not_before = 0.0
                try:
                    self._deliver(
                        _Call("status", lambda: self._client.set_terminated(self.run_id, status, now))
                    )
                finally:
                    self._ended = True
                    self._keep_undelivered()

    def _deliver(self, call: _Call) -> None:
        """Send everything that waits, then `call`; what the store does not take now waits for the next time."""
        from mlflow.exceptions import MlflowException  # noqa: F401  (so that _errors finds it)

        with self._lock:
            if self._ended:
                raise RuntimeError(
                    f"run {self.run_id} has ended: {call.what} cannot be logged; log before end()"
                )
            self._waiting.append(call)
            began = time.monotonic()
            if began < self._not_before:
                return
            while self._waiting:
                try:
                    self._waiting[0].send()
                except _errors() as error:
                    if _final(error):
                        self._refused.append(self._waiting.popleft())
                        warnings.warn(f"MLflow does not take {self._refused[-1].what}: {error}", stacklevel=3)
                        continue
                    now = time.monotonic()
                    # a dead store may cost its full timeout: spend at most a tenth of the training on it
                    self._not_before = now + 10 * (now - began)
                    if not self._warned:
                        self._warned = True
                        warnings.warn(
                            f"MLflow at {_shown(self.uri)} does not answer ({_brief(error)}); training goes on, what "
                            "is logged waits and is delivered when it answers again",
                            stacklevel=3,
                        )
                    return
                self._waiting.popleft()
            self._warned = False
