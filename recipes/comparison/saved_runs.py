"""Runs to look at again: found in MLflow or in folders, each with its report if it has one."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analogsim.errors import InvalidValueError, MissingFileError
from analogsim.evaluation.metrics import METRICS
from analogsim.evaluation.report import Report
from analogsim.integrations.metric_names import BETTER, metric_name
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.stored import from_stored
from analogsim.recipes.config.toml import flatten, load_mapping
from analogsim.recipes.tracking import stores
from analogsim.recipes.tracking.log_report import of_hardware
from analogsim.recipes.tracking.run_names import run_name
from analogsim.recipes.training.checkpoint import load_checkpoint

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_REPORT = "report.json"
_LOOKED_AT = 1000  # runs, for one that says how its metric is read
_OTHERWISE = "or name another with --uri or MLFLOW_TRACKING_URI"


@dataclass(frozen=True)
class SavedRun:
    """A run as it was left.

    Attributes:
        name: of the run, or of its folder and network.
        report: over chips and times; None where the run did not get so far.
        params: as MLflow holds them, also those of a folder.
        metrics: the last value of each.
        status: MLflow's, or how far the training of a folder got.
        run_id: in MLflow; empty where it is not known there.
        experiment_id: of the run; empty where it was not looked up in MLflow, or is not there.
        uri: the store that holds it, or is said to.
        folder: where it was found, if in a folder.
    """

    name: str
    report: Report | None
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    status: str
    run_id: str = ""
    experiment_id: str = ""
    uri: str = ""
    folder: Path | None = None

    @property
    def where(self) -> str:
        """A short text that no other run has: the beginning of its id, or its folder."""
        return self.run_id[:8] or str(self.folder)


class Store:
    """An MLflow store to read from; opened when it is first asked.

    Raises (every method):
        ConnectionError: the store cannot be reached.
        FileNotFoundError: there is no such database.
        ValueError: what was asked for is not in it, is deleted, or not the only one.
    """

    def __init__(self, uri: str | None) -> None:
        self.uri = stores.tracking_uri(uri)
        self._opened: MlflowClient | None = None

    @property
    def _client(self) -> MlflowClient:
        if self._opened is None:
            stores.check_exists(self.uri)
            with stores.explained(self.uri, _OTHERWISE):
                self._opened = stores.connect(self.uri)
        return self._opened

    def named(self, word: str) -> SavedRun:
        """The run of that name, or whose id is or begins so."""
        client = self._client
        with stores.explained(self.uri, _OTHERWISE):
            found = self._search(f"attributes.run_name = {_quoted(word)}") if word else []
            if not found and re.fullmatch(r"[0-9a-f]{4,32}", word.lower()):
                found = self._search(f"attributes.run_id LIKE '{word.lower()}%'")
            active = [run for run in found if run.info.lifecycle_stage == "active"]
            if len(active) == 1:
                return self._saved(client, active[0])
            if active:
                listed = ", ".join(f"{run.info.run_id[:8]} ({run.info.run_name})" for run in active[:8])
                more = ", ..." if len(active) > 8 else ""
                raise InvalidValueError(
                    f"{word!r} stands for {len(active)} runs: give the id of one, from {listed}{more}"
                )
            if found:
                raise InvalidValueError(f"run {word!r} is deleted: restore it in the MLflow UI, or leave it out")
            known = [run.info.run_name for run in client.search_runs(self._experiments(), max_results=1000)]
        raise InvalidValueError(
            f"no run {word!r} in {stores.shown(self.uri)}, and no such folder; give the name of a run, its id or the "
            f"first four letters of it or more, or a folder of analogsim train{nearest(word, known)}"
        )

    def of_experiment(
        self, name: str, *, filter: str = "", order: str | None = None, limit: int = 10
    ) -> tuple[list[SavedRun], bool]:
        """The runs of an experiment, newest first or by a metric, and whether there are more than `limit`.

        Args:
            name: of the experiment.
            filter: MLflow's filter string, such as ``params.model = 'lenet5'``.
            order: A metric, the best first: the highest, but of a score whose runs are the better the lower it is the
                lowest. ``"train/loss asc"`` gives the lowest first, ``"... desc"`` the highest.
            limit: So many at most.
        """
        client = self._client
        with stores.explained(self.uri, _OTHERWISE):
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                known = sorted(each.name for each in client.search_experiments())
                raise InvalidValueError(
                    f"no experiment {name!r} in {stores.shown(self.uri)}; there are {', '.join(map(repr, known))}"
                    + nearest(name, known)
                )
            if experiment.lifecycle_stage == "deleted":
                raise InvalidValueError(
                    f"the experiment {name!r} in {stores.shown(self.uri)} is deleted: bring it back with "
                    f"`mlflow experiments restore --experiment-id {experiment.experiment_id}`"
                )
            metric, direction = _order(order)
            by = "attributes.start_time DESC"
            if metric is not None:
                by = f"metrics.`{metric}` {direction or self._best_first(experiment.experiment_id, metric)}"
            found = client.search_runs([experiment.experiment_id], filter, max_results=limit + 1, order_by=[by])
            if not found:
                raise InvalidValueError(
                    f"the experiment {name!r} in {stores.shown(self.uri)} has no runs"
                    + (f" for which {filter}" if filter else "; make some: analogsim train")
                )
            if metric is not None:
                _check_known(metric, found)
            return [self._saved(client, run) for run in found[:limit]], len(found) > limit

    def _best_first(self, experiment: str, metric: str) -> str:
        """The order of a score that begins with the best run: its name may tell, or the tags of runs judged by it."""
        parts = metric.split("/")
        if len(parts) != 3:  # no score of a network, such as train/loss
            return "DESC"
        known = METRICS.get(parts[1])
        if known is not None:
            return "ASC" if known.higher_is_better is False else "DESC"
        lower = self._client.search_runs([experiment], f"tags.`{BETTER}` = 'lower'", max_results=_LOOKED_AT)
        return "ASC" if parts[1] in {metric_name(run.data.tags.get("metric", "")) for run in lower} else "DESC"

    def locate(self, run: SavedRun) -> SavedRun:
        """A run of a folder with its place in this store, and what MLflow knows of it besides."""
        client = self._client
        with stores.explained(self.uri, _OTHERWISE):
            found = client.get_run(run.run_id)
        if found.info.lifecycle_stage == "deleted":
            raise InvalidValueError(f"run {run.run_id} is deleted")
        return replace(
            run,
            params={**run.params, **found.data.params},
            metrics={**run.metrics, **found.data.metrics},
            experiment_id=found.info.experiment_id,
            uri=self.uri,
        )

    def _experiments(self) -> list[str]:
        from mlflow.entities import ViewType

        found = _pages(lambda token: self._client.search_experiments(ViewType.ALL, page_token=token))
        return [str(each.experiment_id) for each in found]

    def _search(self, filter: str) -> list[Run]:
        from mlflow.entities import ViewType

        ids = self._experiments()
        return list(_pages(lambda token: self._client.search_runs(ids, filter, ViewType.ALL, page_token=token)))

    def _saved(self, client: MlflowClient, run: Run) -> SavedRun:
        report = None
        if any(entry.path == _REPORT for entry in client.list_artifacts(run.info.run_id)):
            with tempfile.TemporaryDirectory() as scratch:
                path = Path(client.download_artifacts(run.info.run_id, _REPORT, scratch))
                report = read_report(path, f"run {run.info.run_name!r} ({run.info.run_id})")
        return SavedRun(
            name=run.info.run_name or run.info.run_id[:8],
            report=report,
            params=dict(run.data.params),
            metrics=dict(run.data.metrics),
            status=run.info.status,
            run_id=run.info.run_id,
            experiment_id=str(run.info.experiment_id),
            uri=self.uri,
        )


def _pages(ask: Any) -> Iterator[Any]:
    token = None
    while True:
        page = ask(token)
        yield from page
        token = page.token
        if not token:
            return


def _quoted(text: str) -> str:
    mark = '"' if "'" in text else "'"
    if mark in text:
        raise InvalidValueError(f"run {text!r}: MLflow cannot search for a name with both kinds of quotes; give its id")
    return f"{mark}{text}{mark}"


def _order(text: str | None) -> tuple[str | None, str]:
    if text is None:
        return None, ""
    match = re.fullmatch(r"\s*([^`]+?)(?:\s+(asc|desc))?\s*", text, re.IGNORECASE)
    if match is None:
        raise InvalidValueError(f"order: wanted the name of a metric, such as 'test/accuracy/drifted_1d', got {text!r}")
    return match[1], (match[2] or "").upper()


def _check_known(metric: str, runs: Sequence[Run]) -> None:
    """Refuse to order runs by a metric that the first of them has not, and so none."""
    if metric not in runs[0].data.metrics:
        names = sorted({name for run in runs for name in run.data.metrics})
        raise InvalidValueError(
            f"order: none of the runs has a metric {metric!r}"
            + (nearest(metric, names) or f"; there are {', '.join(names) or 'none'}")
        )


def nearest(word: str, known: Sequence[str]) -> str:
    """The end of an error: the known name that comes nearest, if one does."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def read_report(path: Path, what: str) -> Report:
    """A report that `Report.to_dict` was written of.

    Raises:
        ValueError: the file is something else, or damaged.
    """
    try:
        report = Report.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidValueError(f"{what}: its {_REPORT} is no report of analogsim, or damaged: {error}") from error
    return report


def of_folder(path: str | os.PathLike[str]) -> list[SavedRun]:
    """The networks of a folder of ``analogsim train``, or the one whose report or checkpoint lies in it.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a file in it cannot be read.
    """
    folder = Path(path)
    if _is_network(folder):
        return [_network(folder)]
    # plain before hardware-aware, as they were trained
    found = sorted(
        (part for part in folder.iterdir() if _is_network(part)), key=lambda part: (part.name != "plain", part)
    )
    if not found:
        raise MissingFileError(
            f"folder {str(folder)!r}: no {_REPORT} in it, nor in a folder of it; give one that analogsim train made"
        )
    return [_network(part) for part in found]


def _is_network(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (_REPORT, "checkpoint.pt"))


def _network(folder: Path) -> SavedRun:
    """One network's folder: its report, and what its checkpoint tells, or the configuration beside it."""
    whole, place = folder.absolute(), f"folder {str(folder)!r}"
    path = folder / _REPORT
    run = SavedRun(
        name=whole.name,
        report=read_report(path, place) if path.is_file() else None,
        params={},
        metrics={},
        status="FINISHED",
        folder=folder,
    )
    if not (folder / "checkpoint.pt").is_file():
        files = [file for file in (folder / "config.toml", folder.parent / "config.toml") if file.is_file()]
        if not files:
            return run
        config = from_stored(Config, load_mapping(Config, files[0]), str(files[0]))
        return replace(run, name=_name(whole, config), params=_params(config, aware=folder.name != "plain"))
    content = load_checkpoint(folder / "checkpoint.pt")
    config = from_stored(Config, content["config"], f"{place}: its checkpoint")
    return replace(
        run,
        name=_name(whole, config),
        params={
            **_params(config, aware=content["aware"]),
            "training": "hardware-aware" if content["aware"] else "plain",
        },
        metrics=content["history"][-1] if content["history"] else {},
        status=run.status if run.report else f"{content['epoch']} of {config.optimization.epochs} epochs",
        run_id=content["run_id"] or "",
        uri=stores.tracking_uri(config.tracking.uri),
    )


def _name(folder: Path, config: Config) -> str:
    """As in MLflow: what a network is stands in its own folder's name, of which run it is in that of the one above."""
    in_a_run = (folder.parent / "config.toml").is_file()
    return run_name(config, folder.name, folder.parent.name) if in_a_run else folder.name


def _params(config: Config, *, aware: bool) -> dict[str, str]:
    values = {key: value for key, value in flatten(config).items() if not key.startswith(("tracking.", "out"))}
    with contextlib.suppress(ValueError):  # a device that is registered nowhere here: its name has to do
        values |= of_hardware(config, aware=aware)
    return {key: str(value) for key, value in values.items()}
