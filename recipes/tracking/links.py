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


def experiment_link(uri: str, experiment_id: str, port: int = PORT) -> str:
    """The page that lists the runs of an experiment; the bare page of an experiment shows something else."""
    return f"{ui_address(uri, port)}/#/experiments/{experiment_id}/runs"


def run_link(run: Stored, port: int = PORT) -> str:
    """The page of a run."""
    return f"{experiment_link(run.uri, run.experiment_id, port)}/{run.run_id}"


def compare_link(runs: Sequence[Stored], port: int = PORT) -> str:
    """The page that compares `runs`, which have to be in one store."""
    shown = sorted({stores.shown(run.uri) for run in runs})
    if len(shown) != 1:
        raise InvalidValueError(f"wanted runs of one store to compare, got {len(runs)} runs in {shown}")
    ids = [run.run_id for run in runs]
    experiments = list(dict.fromkeys(run.experiment_id for run in runs))
    chosen, among = (quote(json.dumps(each, separators=(",", ":")), safe="") for each in (ids, experiments))
    return f"{ui_address(runs[0].uri, port)}/#/compare-runs?runs={chosen}&experiments={among}"


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
