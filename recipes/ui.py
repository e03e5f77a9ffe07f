"""Look at the runs: serve MLflow's pages for the store that all commands here log to.

    analogsim ui

One worker and none of MLflow's job processes, on 127.0.0.1 only; everything ends with this process.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NoReturn

from analogsim.errors import InvalidValueError, MissingPackageError, NoAnswerError, OperationError, UnavailableError
from analogsim.recipes.config.arguments import Program
from analogsim.recipes.tracking import links, run_views, stores
from analogsim.utils.packages import how_to_install

_HOST = "127.0.0.1"
_PATIENCE = 180.0  # seconds; MLflow takes about ten to start, on a busy machine many more
_GRACE = 10.0  # seconds between asking to stop and killing
_SETTINGS = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONSAFEPATH": "1",  # a file in the working directory must not stand in for a module of MLflow
}


@dataclass
class Server:
    """MLflow's server while it runs."""

    uri: str
    port: int
    _process: subprocess.Popen[str]
    _said: deque[str] = field(default_factory=lambda: deque(maxlen=50))
    _up: bool = False

    @property
    def address(self) -> str:
        """Where it answers."""
        return links.ui_address(self.uri, self.port)

    @property
    def experiments(self) -> dict[str, str]:
        """The pages of the experiments that were used last, by their names; the page at `address` lists no runs.

        None of them while the database is busy.
        """
        asked = {"max_results": 10, "order_by": ["last_update_time DESC"], "view_type": "ACTIVE_ONLY"}
        try:
            _, text = _ask(self.port, "POST", "/api/2.0/mlflow/experiments/search", json.dumps(asked))
            found = json.loads(text)
        except (OSError, http.client.HTTPException, ValueError):
            return {}
        return {
            each["name"]: run_views.listed(
                self.uri, each["experiment_id"], {tag["key"] for tag in each.get("tags", ())}, self.port
            )
            for each in found.get("experiments", ())
            if each["name"] != "Default"  # MLflow's own, where nothing of ours is
        }

    def wait(self) -> NoReturn:
        """Wait for Ctrl-C.

        Raises:
            RuntimeError: the server ended by itself.
        """
        self._process.wait()
        raise OperationError(f"MLflow has ended by itself: {self._last_words()}")

    def _listen(self) -> None:
        """Keep what it says while it starts, for when it fails; pass on what it says later: that is trouble."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.append(line)
            if self._up:
                sys.stderr.write(line)

    def _start(self, listening: threading.Thread) -> None:
        until = time.monotonic() + _PATIENCE
        while not _answers(self.port):
            if self._process.poll() is not None:
                listening.join()
                raise OperationError(f"MLflow did not start: {self._last_words()}")
            if time.monotonic() > until:
                raise NoAnswerError(f"MLflow did not answer within {_PATIENCE:g} s: {self._last_words()}")
            time.sleep(0.2)
        self._up = True

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._said if line.strip()]
        return f"exit code {self._process.poll()}; it said: {' | '.join(lines[-5:]) or 'nothing'}"


def check(store: str, port: int) -> int:
    """Whatever ``serve`` refuses before anything starts; gives the port, a free one for 0."""
    if stores.is_http(store):
        raise InvalidValueError(f"the MLflow store {stores.shown(store)} is a server already: open it in the browser")
    stores.check_exists(store)
    if importlib.util.find_spec("mlflow") is None:
        raise MissingPackageError(f"analogsim ui needs mlflow: {how_to_install('recipes')}")
    return _free(port)


@contextlib.contextmanager
def serve(uri: str | None = None, port: int = links.PORT) -> Iterator[Server]:
    """Serve a database; the server answers when the block begins, and is gone when it ends.

    SIGTERM and SIGHUP end the block as well, by SystemExit, where it is in the main thread.

    Args:
        uri: tracking URI; see ``stores.tracking_uri``.
        port: of 127.0.0.1; 0 takes a free one.

    Raises:
        FileNotFoundError: there is no such database.
        ValueError: the store is a server, or the port is none.
        OSError: the port is taken.
        RuntimeError: MLflow did not start; with what it said.
        TimeoutError: it does not answer.
    """
    store = stores.tracking_uri(uri)
    port = check(store, port)
    with stores.alone(store):  # a database that is just being made is not to be migrated by two
        pass
    with (
        _signals_raise(),
        subprocess.Popen(
            _command(store, port),
            env={**os.environ, **_SETTINGS, "MLFLOW_BACKEND_STORE_URI": store},  # not for all to see in the command
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for us: we stop the whole group
        ) as process,
    ):
        server = Server(store, port, process)
        listening = threading.Thread(target=server._listen, daemon=True)
        try:
            listening.start()
            server._start(listening)
            yield server
        finally:
            server._up = False
            _stop(process)
            listening.join()


def _command(store: str, port: int) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "ui", "--host", _HOST, "--port", str(port), "--workers", "1"]
    command += ["--uvicorn-opts", "--log-level warning"]
    folder = stores.artifact_folder(store)
    return command if folder is None else [*command, "--artifacts-destination", folder.as_uri()]


def _free(port: int) -> int:
    """The port, or a free one for 0."""
    if not 0 <= port <= 65535:
        raise InvalidValueError(f"port: wanted 0 (any that is free) to 65535, got {port}")
    try:
        return _bound(port)
    except PermissionError as error:
        raise UnavailableError(f"port {port} is not for everyone: give one above 1023, or --port 0") from error
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        other = next(each for each in [*range(port + 1, min(port + 20, 65536)), 0] if _is_free(each))
        there = f"; MLflow answers at http://{_HOST}:{port}, perhaps yours" if _answers(port) else ""
        raise UnavailableError(f"port {port} is taken{there}; give another: --port {other}") from error


def _bound(port: int) -> int:
    with socket.socket() as probe:
        if os.name == "posix":  # as servers do: connections that have just ended do not count
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((_HOST, port))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    try:
        return bool(_bound(port))
    except OSError:
        return False


def _answers(port: int) -> bool:
    """Whether it is MLflow that listens, and is ready."""
    try:
        status, text = _ask(port, "GET", "/health")
    except (OSError, http.client.HTTPException):
        return False
    return status == 200 and text == b"OK"


def _ask(port: int, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
    # not urllib: a proxy that is set for the outside has no say here
    connection = http.client.HTTPConnection(_HOST, port, timeout=10)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Let the signals that would end us without a word run the clean-up first."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        # under nohup SIGHUP is ignored, and stays so
        before = {
            number: signal.signal(number, leave) for number in numbers if signal.getsignal(number) != signal.SIG_IGN
        }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(process: subprocess.Popen[str]) -> None:
    """Stop the server and whatever it started; a second Ctrl-C does not wait."""
    try:
        _tell(process, "SIGTERM")
        process.wait(_GRACE)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        pass
    finally:
        _tell(process, "SIGKILL")


def _tell(process: subprocess.Popen[str], name: str) -> None:
    if not hasattr(os, "killpg"):
        process.terminate()
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all of them are gone
        os.killpg(process.pid, getattr(signal, name))


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.description = "Serve MLflow's pages for the runs of all commands here, on this machine only, until Ctrl-C."
    parser.add_argument("--port", type=int, default=links.PORT, help="where; 0 takes a free one; default: %(default)s")
    parser.add_argument("--uri", help="MLflow store; default: MLFLOW_TRACKING_URI, else mlflow.db here")
    parser.add_argument("--open", action="store_true", help="open the browser when it answers")


def _run_command(options: argparse.Namespace) -> None:
    store = stores.tracking_uri(options.uri)
    if stores.is_http(store):
        print(f"{links.ui_address(store)}\nthis is a server of MLflow already: there is nothing to start")
        if options.open:
            links.open_page(links.experiments_link(store))
        return
    port = check(store, options.port)
    if not options.quiet:
        print(f"MLflow starts on {stores.shown(store)}; this takes some seconds", file=sys.stderr)
    with serve(store, port) as server:
        print(f"{server.address} answers; Ctrl-C stops it", flush=True)
        for name, page in server.experiments.items():
            print(f"runs of {name!r}: {page}", flush=True)
        if options.open:
            links.open_page(next(iter(server.experiments.values()), links.experiments_link(server.uri, server.port)))
        server.wait()


PROGRAM = Program(
    "ui",
    "look at all runs in the browser",
    _declare,
    _run_command,
    examples=("ui --open", "ui --uri sqlite:///elsewhere/mlflow.db --port 0"),
)
