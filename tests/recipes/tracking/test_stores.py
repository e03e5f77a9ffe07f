from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from analogsim.recipes.tracking import mlflow_private, stores
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


def test_passwords_are_told_to_nobody() -> None:
    for text, told in (
        ("http://me:pw@host:5", "http://me:***@host:5"),
        ("postgresql://me:p@s/w@host/db", "postgresql://me:***@host/db"),
        ("no 'postgresql+psycopg://me:pw@h/db' at x@y", "no 'postgresql+psycopg://me:***@h/db' at x@y"),
        ("postgresql://h/db?user=me&password=pw&x=1", "postgresql://h/db?user=me&password=***&x=1"),
    ):
        assert stores.shown(text) == told
        assert stores.shown(told) == told
    for text in ("http://host:5000/a@b", "sqlite:////a/b@c.db", "postgresql://me@host/db", "http://host:5 x@y"):
        assert stores.shown(text) == text
    assert stores.brief(ValueError("could not parse postgres://me:pw@h")) == "could not parse postgres://me:***@h"


def test_a_password_that_is_not_kept_comes_from_the_environment(
    here: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(stores.PASSWORD, raising=False)
    kept = f"http://me:***@127.0.0.1:{closed_port}"
    assert stores.tracking_uri(kept) == kept
    with pytest.raises(ValueError, match=r"the password of .* is kept nowhere; set MLFLOW_TRACKING_PASSWORD to it"):
        Run.start(experiment="exp", name="n", uri=kept, params={})
    monkeypatch.setenv(stores.PASSWORD, "p@ss")
    assert stores.tracking_uri(kept) == kept.replace("***", "p%40ss")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:other@elsewhere")
    assert stores.tracking_uri(kept) == kept.replace("***", "p%40ss")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", kept.replace("***", "pw"))
    assert stores.tracking_uri(kept) == kept.replace("***", "pw")


def test_nothing_is_waited_for(here: Path, closed_port: int) -> None:
    (here / "folder").mkdir()
    began = time.monotonic()
    for uri, told in (
        ("sqlite:///folder", "'.*folder' is a folder; name a file in it"),
        (f"postgresql://me:pw@127.0.0.1:{closed_port}/db", "refused"),
        (f"mysql+pymysql://127.0.0.1:{closed_port}/db", "refused"),
    ):
        with pytest.raises(ConnectionError, match=f"cannot reach the MLflow store .*{told}"):
            Run.start(experiment="exp", name="n", uri=uri, params={})
    assert time.monotonic() - began < 10


@pytest.mark.skipif(os.name != "posix", reason="killed as on POSIX")
def test_a_kill_while_a_database_is_made_leaves_none(alone: Path, migrated: Path) -> None:
    """The next one makes it, and takes away what was begun."""
    code = (
        "import os\nfrom analogsim.recipes.tracking import mlflow_private, stores\n"
        "def half(file):\n    file.write_bytes(b'half'); os.kill(os.getpid(), 9)\n"
        "mlflow_private.make_database = half\nstores.connect(stores.tracking_uri(None))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=120, check=False)
    assert done.returncode == -9
    assert not (alone / "mlflow.db").exists()
    (left,) = alone.iterdir()
    assert left.name.endswith(".part")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow_private, "make_database", lambda file: shutil.copyfile(migrated, file))
        with Run.start(experiment="exp", name="n", params={}):
            pass
    assert {each.name for each in alone.iterdir()} == {"mlflow.db"}


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="killed as on POSIX")
def test_kills_at_any_moment_of_it(alone: Path) -> None:
    """Those that come while MLflow is imported count too; the last one is let through."""
    code = (
        "from analogsim.recipes.tracking import stores\nprint(end='.', flush=True)\n"
        "stores.connect(stores.tracking_uri(None))\n"
    )
    # In a process of its own: MLflow keeps what it opened, also of a file that is gone.
    run = (
        "from analogsim.recipes.tracking.tracked_run import Run\n"
        "with Run.start(experiment='exp', name='n', params={}):\n    pass\n"
    )
    draw = random.Random(0)
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.read(1)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(0.5, 8))
        process.kill()
        process.wait()
        process.stdout.close()
        if (alone / "mlflow.db").exists():
            subprocess.run([sys.executable, "-c", run], check=True)
            (alone / "mlflow.db").unlink()
    subprocess.run([sys.executable, "-c", run], check=True)
    assert {each.name for each in alone.iterdir()} == {"mlflow.db"}


def with_artifact(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run in the database of a folder, with a text; its id."""
    monkeypatch.chdir(place)
    with Run.start(experiment="exp", name="n", params={}) as run:
        run.text("first", "a.txt")
    return run.run_id


def text_of(run_id: str, place: Path) -> str:
    from mlflow import MlflowClient

    found = MlflowClient(tracking_uri=f"sqlite:///{place}/mlflow.db").download_artifacts(run_id, "a.txt")
    return Path(found).read_text()


def test_a_database_that_was_moved_finds_its_artifacts(
    alone: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And new ones go beside it, not to where it was."""
    before, after = alone / "old 100%_", alone / "new"
    before.mkdir()
    shutil.copy(migrated, before / "mlflow.db")
    run_id = with_artifact(before, monkeypatch)
    monkeypatch.chdir(alone)
    before.rename(after)
    with pytest.warns(
        UserWarning, match=r"the MLflow database '.*new/mlflow.db' was moved: artifacts that it knew in "
    ):
        stores.connect(f"sqlite:///{after}/mlflow.db")
    assert text_of(run_id, after) == "first"
    again = with_artifact(after, monkeypatch)
    assert text_of(again, after) == "first"
    assert not before.exists()


def test_a_copy_keeps_its_own_artifacts(alone: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = alone / "old", alone / "copy"
    before.mkdir()
    shutil.copy(migrated, before / "mlflow.db")
    run_id = with_artifact(before, monkeypatch)
    shutil.copytree(before, after)
    (before / "mlartifacts" / run_id / "artifacts" / "a.txt").write_text("changed since")
    with pytest.warns(UserWarning, match="was moved"):
        stores.connect(f"sqlite:///{after}/mlflow.db")
    assert text_of(run_id, after) == "first"
    assert text_of(run_id, before) == "changed since"
    (alone / "link").symlink_to(after)
    stores.connect(f"sqlite:///{alone}/link/mlflow.db")


def test_the_database_of_a_study_is_refused_and_left_as_it_was(alone: Path) -> None:
    optuna = pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")
    uri = f"sqlite:///{alone}/optuna.db"
    optuna.create_study(storage=uri)
    before = (alone / "optuna.db").read_bytes()
    with pytest.raises(
        OSError, match=r"tracking.uri: .*optuna.db is the database of Optuna's studies; MLflow needs one"
    ):
        Run.start(experiment="e", name="n", uri=uri, params={})
    assert (alone / "optuna.db").read_bytes() == before
