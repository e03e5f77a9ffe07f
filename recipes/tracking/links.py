"""Addresses of MLflow's pages, the command that serves them, and the browser that opens them."""

from __future__ import annotations

import json
import shlex
import socket
import webbrowser
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import quote, urlsplit

from analogsim.errors import InvalidValueError, UnreachableError
from analogsim.recipes.tracking import stores
from analogsim.recipes.tracking.mlflow_private import MODEL_TRAINING

PORT = 5000  # where `analogsim ui` serves a database, unless it is told otherwise


class Stored(Protocol):
    """What a run's pages are named by."""

    @property
    def run_id(self) -> str:
        """Of the run."""
        ...

    @property
    def experiment_id(self) -> str:
        """Of its experiment."""
        ...

    @property
    def uri(self) -> str:
        """Of the store that holds it."""
        ...


def ui_address(uri: str, port: int = PORT) -> str:
    """Where the store is looked at: a server at itself, a database through ``analogsim ui``."""
    return stores.shown(uri).rstrip("/") if stores.is_http(uri) else f"http://127.0.0.1:{port}"


def ui_command(uri: str, port: int = PORT) -> str:
    """The command that serves a database, with the options that it needs here; empty for a server."""
    if stores.is_http(uri):
        return ""
    command = ["analogsim", "ui"]
    if uri != stores.tracking_uri(None):
        command += ["--uri", stores.shown(uri)]
    if port != PORT:
        command += ["--port", str(port)]
    return shlex.join(command)


def experiment_link(uri: str, experiment_id: str, port: int = PORT, view: str = "") -> str:
    """The page that lists the runs of an experiment; the bare page of an experiment shows something else.

    Args:
        uri: of the store.
        experiment_id: of the experiment.
        port: where ``analogsim ui`` serves a database.
        view: the key of a view that the experiment keeps, see `page_views.as_tag`; an unknown one is an error there.
    """
    shared = f"&viewStateShareKey={quote(view, safe='')}" if view else ""
    return f"{ui_address(uri, port)}/#/experiments/{experiment_id}/runs?{MODEL_TRAINING}{shared}"


def experiments_link(uri: str, port: int = PORT) -> str:
    """The page that lists the experiments of a store."""
    return f"{ui_address(uri, port)}/#/experiments?{MODEL_TRAINING}"


def run_link(run: Stored, port: int = PORT) -> str:
    """The page of a run."""
    return f"{ui_address(run.uri, port)}/#/experiments/{run.experiment_id}/runs/{run.run_id}?{MODEL_TRAINING}"


def compare_link(runs: Sequence[Stored], port: int = PORT) -> str:
    """MLflow's own page that compares `runs`, which have to be in one store; see `side_by_side` for one with curves."""
    check_one_store(runs)
    ids = [run.run_id for run in runs]
    experiments = list(dict.fromkeys(run.experiment_id for run in runs))
    chosen, among = (quote(json.dumps(each, separators=(",", ":")), safe="") for each in (ids, experiments))
    return f"{ui_address(runs[0].uri, port)}/#/compare-runs?runs={chosen}&experiments={among}&{MODEL_TRAINING}"


def check_one_store(runs: Sequence[Stored]) -> None:
    """Refuse runs that have no page in common.

    Raises:
        ValueError: they are in several stores, or there are none.
    """
    shown = sorted({stores.shown(run.uri) for run in runs})
    if len(shown) != 1:
        raise InvalidValueError(f"wanted runs of one store to compare, got {len(runs)} runs in {shown}")


def open_page(link: str) -> None:
    """Open an address of MLflow in the browser.

    Raises:
        ConnectionError: nothing answers there.
    """
    parts = urlsplit(link)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError as error:
        raise UnreachableError(
            f"nothing answers at {parts.scheme}://{host}:{port} ({error.strerror or error}): start the server first, "
            "in another terminal: analogsim ui"
        ) from error
    webbrowser.open(link)
