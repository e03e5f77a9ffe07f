from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from analogsim.recipes import ui
from analogsim.recipes.cli import main
from analogsim.recipes.tracking.tracked_run import Run

pytest.importorskip("mlflow", reason="needs analogsim-torch[recipes]")
posix = pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups")

# Starts a process of its own, as MLflow does, says something, and answers like MLflow.
FAKE = """
import http.server, json, os, signal, subprocess, sys
port, notes = int(sys.argv[1]), sys.argv[2]
stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-SE", "-c", stubborn], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
child.stdout.readline()
kept = {name: os.environ.get(name) for name in sys.argv[3].split()}
open(notes, "w").write(json.dumps({"child": child.pid, "environment": kept}))
def end(*_):
    print("goodbye", flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
print("noise of the start", flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(b"OK")
    def do_POST(self):
        print("trouble later", flush=True)
        listed = [{"name": "Default", "experiment_id": "0"}, {"name": "exp", "experiment_id": "7"}]
        self.answer(json.dumps({"experiments": listed}).encode())
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
WATCHED = "MLFLOW_BACKEND_STORE_URI MLFLOW_SERVER_ENABLE_JOB_EXECUTION MLFLOW_DISABLE_TELEMETRY PYTHONSAFEPATH"


@pytest.fixture
def database(alone: Path) -> str:
    (alone / "mlflow.db").touch()
    return f"sqlite:///{alone}/mlflow.db"


@pytest.fixture
def fake(database: str, alone: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Something that starts fast in MLflow's place; gives the file with its notes."""
    notes = alone / "notes.json"
    monkeypatch.setattr(
        ui, "_command", lambda _, port: [sys.executable, "-SE", "-c", FAKE, str(port), str(notes), WATCHED]
    )
    return notes


@pytest.fixture
def pressed() -> Iterator[Callable[[float], None]]:
    """Call it to have Ctrl-C pressed after some seconds."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timers: list[threading.Timer] = []

    def press(seconds: float) -> None:
        timers.append(threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)))
        timers[-1].start()

    yield press
    for timer in timers:
        timer.cancel()
    signal.signal(signal.SIGINT, before)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").is_dir() else True


def gone(pid: int) -> bool:
    until = time.monotonic() + 5
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    return not alive(pid)


def status(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse().status
    connection.close()
    return answer


@posix
def test_it_answers_in_the_block_and_is_gone_after_it(
    fake: Path, database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # has no say on this machine
    monkeypatch.setattr(ui, "_GRACE", 0.2)
    with ui.serve(port=0) as server:
        assert server.address == f"http://127.0.0.1:{server.port}"
        assert server.port > 0
        assert status(server.port, "/health") == 200
        assert server.experiments == {"exp": f"{server.address}/#/experiments/7/runs?workflowType=machine_learning"}
        told = json.loads(fake.read_text())
        assert alive(told["child"])
        monkeypatch.setattr(ui, "_ask", lambda *_: (500, b"<html>busy</html>"))
        assert server.experiments == {}
        said, until = "", time.monotonic() + 20
        while not said.endswith("\n") and time.monotonic() < until:  # a thread passes it on
            time.sleep(0.01)
            said += capsys.readouterr().err
    assert server._process.returncode is not None
    assert gone(told["child"])  # although it does not care for SIGTERM
    assert told["environment"] == dict(zip(WATCHED.split(), (database, "false", "true", "1"), strict=True))
    assert said + capsys.readouterr().err == "trouble later\n"  # of the start and of the end nothing
    assert "goodbye\n" in server._said


def test_the_server_is_small_and_for_this_machine_only(database: str, alone: Path) -> None:
    words = " ".join(ui._command(database, 5001))
    assert "-m mlflow ui --host 127.0.0.1 --port 5001 --workers 1" in words
    assert f"--artifacts-destination {(alone / 'mlartifacts').as_uri()}" in words
    assert "secret" not in " ".join(ui._command("postgresql://me:secret@host/mlflow", 5001))


@pytest.mark.parametrize("code", ["import sys; sys.exit('it broke')", "print('one\\n\\ntwo'); raise SystemExit(3)"])
def test_what_it_says_when_it_does_not_start_is_told(database: str, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(ui, "_command", lambda *_: [sys.executable, "-SE", "-c", code])
    expected = "exit code 1; it said: it broke" if "broke" in code else r"exit code 3; it said: one \| two"
    with pytest.raises(RuntimeError, match=f"MLflow did not start: {expected}"), ui.serve(port=0):
        pass


@posix
def test_one_that_never_answers_is_given_up(fake: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ui, "_PATIENCE", 1.0)
    monkeypatch.setattr(ui, "_GRACE", 0.2)
    monkeypatch.setattr(ui, "_answers", lambda _: False)
    with pytest.raises(TimeoutError, match=r"did not answer within 1 s: .*noise of the start"), ui.serve(port=0):
        pass
    assert gone(json.loads(fake.read_text())["child"])


@posix
def test_one_that_ends_by_itself_is_an_error(fake: Path) -> None:
    def watch() -> None:
        with ui.serve(port=0) as server:
            os.kill(server._process.pid, signal.SIGKILL)
            server.wait()

    with pytest.raises(RuntimeError, match="MLflow has ended by itself: exit code -9"):
        watch()
    assert gone(json.loads(fake.read_text())["child"])


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_all_its_children(fake: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(ui, "_GRACE", 0.2)
    before = signal.getsignal(number)

    def watch() -> None:
        with ui.serve(port=0) as server:
            threading.Timer(0.1, os.kill, (os.getpid(), number)).start()
            server.wait()

    with pytest.raises(SystemExit) as ended:
        watch()
    assert ended.value.code == 128 + number
    assert gone(json.loads(fake.read_text())["child"])
    assert signal.getsignal(number) == before


@posix
def test_ctrl_c_ends_it_without_a_traceback(
    fake: Path,
    closed_port: int,
    pressed: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ui, "_GRACE", 0.2)
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda link: opened.append(link) or pressed(0.1))
    with pytest.raises(SystemExit) as ended:
        main(["ui", "--port", str(closed_port), "--open"])
    assert ended.value.code == 130
    out, err = capsys.readouterr()
    page = f"http://127.0.0.1:{closed_port}/#/experiments/7/runs?workflowType=machine_learning"
    assert out == f"http://127.0.0.1:{closed_port} answers; Ctrl-C stops it\nruns of 'exp': {page}\n"
    assert opened == [page]
    assert err.startswith("MLflow starts on sqlite:///")
    assert err.endswith("stopped\n")
    assert "Traceback" not in err
    assert gone(json.loads(fake.read_text())["child"])


def test_a_port_that_is_taken_names_another(
    fake: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(ui, "_answers", lambda _: False)
        with pytest.raises(OSError, match=rf"port {port} is taken; give another: --port \d+$") as told:
            ui.check("sqlite:///mlflow.db", port)
        other = int(str(told.value).rsplit(" ", 1)[1])
        assert other == 0 or ui.check("sqlite:///mlflow.db", other) == other
        monkeypatch.setattr(ui, "_answers", lambda _: True)
        with pytest.raises(SystemExit):
            main(["ui", "--port", str(port)])
        out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith(
        f"analogsim: error: port {port} is taken; MLflow answers at http://127.0.0.1:{port}, perhaps"
    )
    assert not fake.exists()
    assert ui.check("sqlite:///mlflow.db", port) == port  # as soon as the other has ended
    for wrong in (-1, 65536):
        with pytest.raises(ValueError, match=f"wanted 0 .* to 65535, got {wrong}"):
            ui.check("sqlite:///mlflow.db", wrong)


def test_a_database_that_is_not_there_is_not_made(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ui"])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"analogsim: error: no MLflow database '{alone}/mlflow.db'")
    assert "analogsim train" in err
    assert not list(alone.iterdir())


def test_a_server_is_named_and_nothing_started(
    alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], closed_port: int
) -> None:
    monkeypatch.setattr(ui.subprocess, "Popen", lambda *_, **__: 1 / 0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{closed_port}")
    main(["ui"])
    out = capsys.readouterr().out
    assert out.startswith(f"http://me:***@127.0.0.1:{closed_port}\n")
    assert "nothing to start" in out
    with pytest.raises(ValueError, match="is a server already"), ui.serve():
        pass


@pytest.mark.slow
def test_mlflow_serves_our_runs(
    here: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Run.start(experiment="exp", name="n", params={}) as run:
        run.text("hello", "notes/a.txt")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    Path("json.py").write_text("raise SystemExit('the wrong json')")
    with ui.serve(run.uri, 0) as server:
        assert server.experiments == {
            "exp": f"{server.address}/#/experiments/{run.experiment_id}/runs?workflowType=machine_learning"
        }
        assert status(server.port, "/") == 200
        assert status(server.port, f"/get-artifact?path=notes/a.txt&run_uuid={run.run_id}") == 200
        group = server._process.pid
    if hasattr(os, "killpg"):
        with pytest.raises(ProcessLookupError):
            os.killpg(group, 0)
    assert [path.name for path in Path().iterdir()] == ["json.py"]


@pytest.mark.slow
def test_a_file_that_is_no_database_is_told(alone: Path) -> None:
    (alone / "mlflow.db").write_text("this is no database, " * 100)
    with pytest.raises(RuntimeError, match=r"MLflow did not start: .*file is not a database"), ui.serve(port=0):
        pass
