from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from analogsim.recipes.tracking import stores
from analogsim.recipes.tracking.tracked_run import Run

pytest.importorskip("mlflow", reason="needs analogsim-torch[recipes]")


def test_the_store_is_chosen_in_order(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stores.tracking_uri(None) == f"sqlite:///{here}/mlflow.db"
    assert stores.tracking_uri("") == f"sqlite:///{here}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:1")
    assert stores.tracking_uri(None) == "http://server:1"
    assert stores.tracking_uri("sqlite:///sqlite?timeout=3") == f"sqlite:///{here}/sqlite?timeout=3"
    assert stores.tracking_uri("sqlite:////data/x.db") == "sqlite:////data/x.db"
    assert stores.tracking_uri("sqlite:///:memory:") == "sqlite:///:memory:"


def test_an_unreachable_server_is_an_error_at_once(
    here: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"http://someone:secret@127.0.0.1:{closed_port}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    began = time.monotonic()
    with pytest.raises(
        ConnectionError, match=r"cannot reach .*refused.*mlflow server.*tracking\.enabled=false"
    ) as told:
        Run.start(experiment="exp", name="n", params={})
    assert time.monotonic() - began < 5
    assert uri.replace("secret", "***") in str(told.value)
    assert "secret" not in str(told.value)
    with pytest.raises(ConnectionError, match="no host in it"):
        Run.start(experiment="exp", name="n", uri="http://", params={})


@pytest.fixture
def not_mlflow() -> Iterator[tuple[str, list[int]]]:
    """A server that is something else: it answers every request with the same status."""
    status = [404]

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status[0])
            self.end_headers()
            self.wfile.write(b"<html>hello</html>")

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", status
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("status", [200, 404, 401])
def test_a_server_that_is_not_mlflow_is_named(here: Path, not_mlflow: tuple[str, list[int]], status: int) -> None:
    uri, answer = not_mlflow
    answer[0] = status
    with pytest.raises(ConnectionError, match=f"cannot reach the MLflow store {uri}"):
        Run.start(experiment="exp", name="n", uri=uri, params={})


def test_a_database_that_cannot_be_opened_is_named(here: Path) -> None:
    (here / "file").write_text("")
    with pytest.raises(ConnectionError, match=r"cannot reach the MLflow store sqlite.*x\.db"):
        Run.start(experiment="exp", name="n", uri="sqlite:///file/x.db", params={})
    with pytest.raises(ValueError, match=r"mlruns.*sqlite:///"):
        Run.start(experiment="exp", name="n", uri="./mlruns", params={})


def test_a_database_is_opened_with_patience(here: Path) -> None:
    uri = f"sqlite:///{here}/mlflow.db"
    assert stores.connect(uri).tracking_uri == f"{uri}?timeout=60"
    assert stores.connect(f"{uri}?timeout=3").tracking_uri == f"{uri}?timeout=3"
    assert stores.connect(f"{uri}?detect_types=0").tracking_uri == f"{uri}?detect_types=0&timeout=60"


def test_who_only_reads_makes_no_database(alone: Path) -> None:
    uri = stores.tracking_uri(None)
    with pytest.raises(
        FileNotFoundError, match=f"no MLflow database '{alone}/mlflow.db'.*--uri sqlite:///.*analogsim train"
    ):
        stores.check_exists(uri)
    assert not list(alone.iterdir())
    (alone / "mlflow.db").touch()
    stores.check_exists(uri)
    stores.check_exists("http://server")
    with pytest.raises(ValueError, match=f"'mlflow.db': this is a path; write sqlite:///{alone}/mlflow.db"):
        stores.check_exists("mlflow.db")


def test_one_process_at_a_time_opens_a_database(alone: Path) -> None:
    uri = stores.tracking_uri(None)
    order = []

    def second() -> None:
        with stores.alone(uri):
            order.append("second")

    with stores.alone(uri):
        thread = threading.Thread(target=second)
        thread.start()
        with stores.alone(f"sqlite:///{alone}/other.db"):  # another database is not held up
            order.append("other")
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["other", "first", "second"]
    with stores.alone("http://server"), stores.alone("http://server"):
        order.append("server")


def test_a_database_that_is_half_made_is_taken_away(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, path = stores.tracking_uri(None), alone / "mlflow.db"
    monkeypatch.setattr(tempfile, "tempdir", str(alone))

    def stop() -> None:
        with stores.alone(uri):
            path.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert not path.exists()
    path.write_text("whole")
    with pytest.raises(KeyboardInterrupt):
        stop()
    assert [left.name for left in alone.iterdir()] == ["mlflow.db"]  # what was there before is not ours


def test_a_lock_that_cannot_be_had_holds_up_nothing(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(alone / "nowhere"))
    with stores.alone(stores.tracking_uri(None)):
        pass
