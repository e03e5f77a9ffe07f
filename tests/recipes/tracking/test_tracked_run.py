from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analogsim.recipes.tracking import tracked_run
from analogsim.recipes.tracking.tracked_run import Run
from analogsim.recipes.tracking.tracker import NoRun

pytest.importorskip("mlflow", reason="needs analogsim-torch[recipes]")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No metrics wait for others, so that each call can be seen in the store."""
    monkeypatch.setattr(tracked_run, "_LATEST", 0.0)


@pytest.fixture
def run(here: Path) -> Run:
    return Run.start(experiment="exp", name="first", params={"a": 1, "train.lr": 0.1})


class Flaky:
    """A client that fails on demand: before it does what it is asked, or after it has done it."""

    def __init__(self, run: Run) -> None:
        self.client = run._client
        self.state = "up"
        self.tried: list[str] = []
        self.error: Callable[[], Exception] = lambda: ConnectionError("the server is away")

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.tried.append(name)
            if self.state == "down":
                raise self.error()
            result = getattr(self.client, name)(*args, **kwargs)
            if self.state == "answer lost":
                raise self.error()
            return result

        return call


@pytest.fixture
def flaky(run: Run, monkeypatch: pytest.MonkeyPatch) -> Flaky:
    client = Flaky(run)
    monkeypatch.setattr(run, "_client", client)
    return client


def client(run: Run) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=run.uri)


def history(run: Run, name: str) -> list[tuple[int, float]]:
    points = client(run).get_metric_history(run.run_id, name)  # in no order that MLflow promises
    return sorted((point.step, point.value) for point in points)


def artifact(run: Run, path: str) -> Path:
    return Path(client(run).download_artifacts(run.run_id, path))


def figure() -> Any:
    from matplotlib.figure import Figure

    drawn = Figure()
    drawn.subplots().plot([0, 1], [0, 1])
    return drawn


def log_everything(run: Run, folder: Path) -> None:
    (folder / "weights.bin").write_bytes(b"\x00\x01")
    run.metrics({"loss": 0.5, "accuracy/clean": 0.9}, step=1)
    run.curve("accuracy/drift", [1, 3600.0, 86400], [0.9, 0.8, 0.7])
    run.figure(figure(), "plots/drift.png")
    run.table({"chip": np.arange(3), "accuracy": torch.tensor([0.5, 0.25, float("nan")])}, "tables/chips.json")
    run.text("µ = 3\n", "notes.txt")
    run.artifact(folder / "weights.bin", "model")
    run.metrics({"loss": 0.25}, step=2)


def check_everything(run: Run) -> None:
    from mlflow import MlflowClient

    assert history(run, "loss") == [(1, 0.5), (2, 0.25)]
    assert history(run, "accuracy/clean") == [(1, 0.9)]
    assert history(run, "accuracy/drift") == [(1, 0.9), (3600, 0.8), (86400, 0.7)]
    assert artifact(run, "plots/drift.png").read_bytes().startswith(b"\x89PNG")
    assert artifact(run, "notes.txt").read_text(encoding="utf-8") == "µ = 3\n"
    assert artifact(run, "model/weights.bin").read_bytes() == b"\x00\x01"
    table = MlflowClient(tracking_uri=run.uri).load_table(run.experiment_id, "tables/chips.json", [run.run_id])
    assert list(table["chip"]) == [0, 1, 2]
    assert list(table["accuracy"])[:2] == [0.5, 0.25]
    assert np.isnan(list(table["accuracy"])[2])


def test_what_is_logged_is_read_back(run: Run, tmp_path: Path) -> None:
    log_everything(run, tmp_path)
    run.end()
    found = client(run).get_run(run.run_id)
    assert found.data.params == {"a": "1", "train.lr": "0.1"}
    assert found.info.run_name == "first"
    assert found.info.status == "FINISHED"
    check_everything(run)


def test_artifacts_lie_beside_the_database_wherever_the_process_goes(
    run: Run, here: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    run.text("x", "note.txt")
    run.end()
    assert (here / "mlartifacts" / run.run_id / "artifacts" / "note.txt").read_text() == "x"
    assert list(Path.cwd().iterdir()) == []


def test_a_folder_is_copied(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "chip"
    folder.mkdir()
    (folder / "state.txt").write_text("g")
    run.artifact(folder)
    assert artifact(run, "chip/state.txt").read_text() == "g"
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*nothing"):
        run.artifact(tmp_path / "nothing")


def test_a_second_table_takes_the_place_of_the_first(run: Run) -> None:
    for rows in ([1, 2], [3]):
        run.table({"x": rows}, "t.json")
    assert json.loads(artifact(run, "t.json").read_text()) == {"columns": ["x"], "data": [[3]]}
    tags = client(run).get_run(run.run_id).data.tags
    assert json.loads(tags["mlflow.loggedArtifacts"]) == [{"path": "t.json", "type": "table"}]


def test_a_figure_is_kept_as_it_is_when_logged(run: Run, flaky: Flaky) -> None:
    flaky.state = "down"
    drawn = figure()
    with pytest.warns(RuntimeWarning, match="failed"):
        run.figure(drawn, "a.svg")
    drawn.clear()
    flaky.state = "up"
    run.end()
    assert b"<path" in artifact(run, "a.svg").read_bytes()


def test_many_parameters_and_points_are_logged_in_parts(here: Path) -> None:
    params = {f"p{i}": i for i in range(250)}
    run = Run.start(experiment="exp", name="n", params=params, tags={f"t{i}": str(i) for i in range(120)})
    run.curve("drift", list(range(2500)), [float(i) for i in range(2500)])
    found = client(run).get_run(run.run_id)
    assert len(found.data.params) == 250
    assert found.data.tags["t119"] == "119"
    assert found.data.metrics["drift"] == 2499.0


def test_a_long_parameter_is_cut_with_a_mark_and_kept_whole(here: Path) -> None:
    long = "x" * 7000
    run = Run.start(experiment="exp", name="n", params={"arch.layers": long, "short": "y"})
    value = client(run).get_run(run.run_id).data.params["arch.layers"]
    assert len(value) == 6000
    assert value.endswith("x…")
    assert artifact(run, "params/arch.layers.txt").read_text() == long
    assert [entry.path for entry in client(run).list_artifacts(run.run_id, "params")] == ["params/arch.layers.txt"]
    again = Run.start(experiment="exp", name="n", run_id=run.run_id, params={"arch.layers": long})
    assert not any(tag.startswith("resumed.") for tag in client(again).get_run(run.run_id).data.tags)


def test_a_resumed_run_goes_on_in_the_same_run(run: Run) -> None:
    run.metrics({"loss": 0.5}, 1)
    run.end("KILLED")
    again = Run.start(
        experiment="other", name="other", run_id=run.run_id, params={"a": 2, "train.lr": 0.1, "new": None}
    )
    assert (again.run_id, again.experiment_id) == (run.run_id, run.experiment_id)
    found = client(run).get_run(run.run_id)
    assert found.info.status == "RUNNING"
    assert found.info.run_name == "first"
    assert found.data.params == {"a": "1", "train.lr": "0.1", "new": "None"}
    resumed = {key: value for key, value in found.data.tags.items() if key.startswith("resumed.")}
    assert resumed == {"resumed.a": "2"}
    again.metrics({"loss": 0.25}, 2)
    again.end()
    assert history(run, "loss") == [(1, 0.5), (2, 0.25)]
    assert client(run).get_run(run.run_id).info.status == "FINISHED"

    Run.start(experiment="exp", name="first", run_id=run.run_id, params={"a": 1})
    assert client(run).get_run(run.run_id).data.tags["resumed.a"] == "1"


def test_a_run_that_cannot_be_resumed_is_named(run: Run) -> None:
    with pytest.raises(ValueError, match=r"Run with id=0{32} not found"):
        Run.start(experiment="exp", name="n", run_id="0" * 32, params={})
    client(run).delete_run(run.run_id)
    with pytest.raises(ValueError, match=f"run {run.run_id} is deleted"):
        Run.start(experiment="exp", name="n", run_id=run.run_id, params={})


def test_experiments_are_found_again_and_a_deleted_one_is_refused(run: Run) -> None:
    again = Run.start(experiment="exp", name="second", params={})
    assert again.experiment_id == run.experiment_id
    client(run).delete_experiment(run.experiment_id)
    with pytest.raises(ValueError, match=f"'exp' in sqlite.* is deleted.*--experiment-id {run.experiment_id}"):
        Run.start(experiment="exp", name="third", params={})


@pytest.mark.parametrize("name", ["a@b", "", "/a", "a//b", "../a", "a" * 251, "a\n", "."])
def test_a_name_that_mlflow_does_not_take_is_refused(run: Run, name: str) -> None:
    with pytest.raises(ValueError, match=r"metric .*: wanted a name"):
        run.metrics({"fine": 1.0, name: 1.0}, step=0)
    with pytest.raises(ValueError, match=r"parameter or tag .*: wanted a name"):
        Run.start(experiment="exp", name="n", params={name: 1})
    assert client(run).get_run(run.run_id).data.metrics == {}


def test_what_cannot_be_logged_is_refused(run: Run) -> None:
    with pytest.raises(ValueError, match=r"different whole seconds, got 1 values"):
        run.curve("c", [1, 2], [0.5])
    with pytest.raises(ValueError, match=r"different whole seconds"):
        run.curve("c", [0.1, 0.2], [0.5, 0.6])
    with pytest.raises(ValueError, match=r"columns of one length, got \{'a': 1, 'b': 2\}"):
        run.table({"a": [1], "b": [1, 2]}, "t.json")
    with pytest.raises(ValueError, match=r"wanted a \.json path"):
        run.table({"a": [1]}, "t.csv")
    with pytest.raises(ValueError, match=r"such as plot\.png"):
        run.figure(figure(), "plot")
    for path in ("", "/etc/x", "../x", "a//b", "a\\b"):
        with pytest.raises(ValueError, match="wanted a relative path"):
            run.text("x", path)
    with pytest.raises(ValueError, match="ends as one of FINISHED, FAILED, KILLED, got 'DONE'"):
        run.end("DONE")  # type: ignore[arg-type]


@pytest.mark.parametrize("state", ["down", "answer lost"])
def test_a_failure_in_the_middle_loses_nothing_and_doubles_nothing(
    run: Run, flaky: Flaky, tmp_path: Path, state: str
) -> None:
    flaky.state = state
    with pytest.warns(RuntimeWarning, match="the server is away.*training goes on") as caught:
        log_everything(run, tmp_path)
    assert len(caught) == 1
    flaky.state = "up"
    run.metrics({"late": 0.125}, step=3)
    check_everything(run)
    assert history(run, "late") == [(3, 0.125)]
    flaky.state = state
    with pytest.warns(RuntimeWarning, match="training goes on"):  # a second outage is news again
        run.text("late", "late.txt")
    flaky.state = "up"
    run.end()
    assert artifact(run, "late.txt").read_text() == "late"
    assert client(run).get_run(run.run_id).info.status == "FINISHED"
    check_everything(run)
    assert not list(tmp_path.glob("*.jsonl"))


def test_the_order_is_kept(run: Run, flaky: Flaky) -> None:
    flaky.state = "down"
    with pytest.warns(RuntimeWarning, match="failed"):
        run.metrics({"x": 1.0}, 1)
    run.text("a", "a.txt")
    run.metrics({"x": 2.0}, 2)
    flaky.state = "up"
    flaky.tried.clear()
    run.end()
    assert flaky.tried == ["log_batch", "log_artifact", "log_batch", "set_terminated"]


def test_what_is_never_delivered_is_written_to_a_file(run: Run, flaky: Flaky, here: Path) -> None:
    flaky.state = "down"
    with pytest.warns(RuntimeWarning, match="failed"):
        run.metrics({"loss": 0.5, "nan": float("nan")}, 3)
    run.text("x", "note.txt")
    path = here / f"mlflow-undelivered-{run.run_id}.jsonl"
    with pytest.warns(RuntimeWarning, match=f"2 metrics are kept in {path}; not delivered: note.txt, status"):
        run.end()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["key"], row["value"], row["step"]) for row in rows] == [("loss", 0.5, 3), ("nan", "nan", 3)]
    assert {row["run_id"] for row in rows} == {run.run_id}
    assert abs(rows[0]["timestamp"] / 1000 - time.time()) < 60
    run.end()  # and says nothing a second time


def test_a_file_that_cannot_be_written_does_not_stop_the_training(run: Run, flaky: Flaky, here: Path) -> None:
    (here / f"mlflow-undelivered-{run.run_id}.jsonl").mkdir()
    flaky.state = "down"
    with pytest.warns(RuntimeWarning, match="failed"):
        run.metrics({"loss": 0.5}, 3)
    with pytest.warns(RuntimeWarning, match="1 metrics are lost, because .* cannot be written"):
        run.end()


def test_a_call_that_is_refused_does_not_hold_up_the_others(run: Run, flaky: Flaky, here: Path) -> None:
    from mlflow.exceptions import MlflowException

    flaky.error = lambda: MlflowException.invalid_parameter_value("not this one")
    flaky.state = "down"
    with pytest.warns(RuntimeWarning, match="MLflow does not take metrics: not this one"):
        run.metrics({"x": 1.0}, 1)
    flaky.state = "up"
    run.metrics({"x": 2.0}, 2)
    assert history(run, "x") == [(2, 2.0)]
    with pytest.warns(RuntimeWarning, match="1 metrics are kept in"):
        run.end()
    assert client(run).get_run(run.run_id).info.status == "FINISHED"
    assert len((here / f"mlflow-undelivered-{run.run_id}.jsonl").read_text().splitlines()) == 1


def test_a_store_that_hangs_is_not_asked_at_every_call(run: Run, flaky: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracked_run, "_PATIENCE", 0.1)

    def slow() -> Exception:
        time.sleep(0.2)
        return TimeoutError("timed out")

    flaky.error = slow
    flaky.state = "down"
    with pytest.warns(RuntimeWarning, match="timed out"):
        run.metrics({"x": 0.0}, 0)
    for step in range(1, 5):
        run.metrics({"x": 0.0}, step)
    assert flaky.tried == ["log_batch"]
    flaky.state = "up"
    run.end()
    assert [step for step, _ in history(run, "x")] == [0, 1, 2, 3, 4]


def test_an_error_in_the_program_is_not_swallowed(run: Run, flaky: Flaky) -> None:
    flaky.error = lambda: ZeroDivisionError("a bug")
    flaky.state = "down"
    with pytest.raises(ZeroDivisionError, match="a bug"):
        run.metrics({"x": 0.0}, 0)


def test_nothing_is_logged_after_the_end(run: Run) -> None:
    run.end()
    with pytest.raises(RuntimeError, match=r"has ended: metrics must be logged before end\(\)"):
        run.metrics({"x": 1.0}, 0)


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, "FINISHED"), (RuntimeError("boom"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
def test_leaving_the_block_ends_the_run(run: Run, error: BaseException | None, status: str) -> None:
    def block() -> None:
        with run as entered:
            assert entered is run
            if error is not None:
                raise error

    if error is None:
        block()
    else:
        with pytest.raises(type(error)):
            block()
    found = client(run).get_run(run.run_id).info
    assert found.status == status
    assert found.end_time >= found.start_time


def test_the_first_end_counts(run: Run) -> None:
    with run:
        run.end("KILLED")
    assert client(run).get_run(run.run_id).info.status == "KILLED"


def test_runs_in_threads_do_not_mix(here: Path) -> None:
    failed: list[BaseException] = []
    runs: dict[int, Run] = {}

    def work(number: int) -> None:
        try:
            with Run.start(experiment="threads", name=f"run {number}", params={"n": number}) as run:
                runs[number] = run
                for step in range(5):
                    run.metrics({"x": 10.0 * number + step}, step)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert len({run.experiment_id for run in runs.values()}) == 1
    for number, run in runs.items():
        assert history(run, "x") == [(step, 10.0 * number + step) for step in range(5)]


def test_tracking_switched_off_takes_every_call(here: Path, tmp_path: Path) -> None:
    tracker = tracked_run.start(False, experiment="exp", name="n", params={"a@": 1})
    assert isinstance(tracker, NoRun)
    with tracker as run:
        run.metrics({"a": 1.0}, 0)
        run.curve("a", [1], [1.0])
        run.figure(figure(), "a.png")
        run.table({"a": [1]}, "a.json")
        run.text("a", "a.txt")
        run.artifact(tmp_path / "nothing")
        run.tags({"a@": "1"})
    assert tracker.delivered
    assert (tracker.run_id, tracker.experiment_id, tracker.links()) == ("", "", "")
    on = tracked_run.start(True, experiment="exp", name="n", params={})
    assert isinstance(on, Run)


def test_links_open_this_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    link = f"http://127.0.0.1:5000/#/experiments/{run.experiment_id}/runs/{run.run_id}?workflowType=machine_learning"
    assert run.links() == f"analogsim ui\n{link}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///other.db")
    assert run.links() == f"analogsim ui --uri {run.uri}\n{link}"
    run.uri = "http://server:5000"
    assert run.links() == f"http://server:5000/#/{link.partition('#/')[2]}"


@pytest.mark.parametrize("status", ["FINISHED", "KILLED", "FAILED"])
def test_a_run_that_has_ended_is_reopened(run: Run, status: Any) -> None:
    run.metrics({"x": 1.0}, 1)
    run.end(status)
    again = Run.start(experiment="exp", name="first", run_id=run.run_id, params={"a": 1, "train.lr": 0.1})
    again.metrics({"x": 1.0}, 1)
    again.metrics({"x": 2.0}, 2)
    assert client(run).get_run(run.run_id).info.status == "RUNNING"
    again.end()
    assert client(run).get_run(run.run_id).info.status == "FINISHED"
    assert history(run, "x") == [(1, 1.0), (2, 2.0)]


def test_a_run_below_another(run: Run) -> None:
    child = Run.start(experiment="exp", name="child", parent_run_id=run.run_id, params={})
    found = client(run).search_runs([run.experiment_id], f"tags.mlflow.parentRunId = '{run.run_id}'")
    assert [each.info.run_id for each in found] == [child.run_id]
    assert "mlflow.parentRunId" not in client(run).get_run(run.run_id).data.tags


def test_tags_are_set_later_and_wait_like_all_else(run: Run, flaky: Flaky) -> None:
    run.tags({"state": "RUNNING", "kept": "yes"})
    flaky.state = "down"
    with pytest.warns(RuntimeWarning, match="failed"):
        run.tags({"state": "PRUNED", "why": "x" * 7000})
    assert client(run).get_run(run.run_id).data.tags["state"] == "RUNNING"
    flaky.state = "up"
    run.end()
    tags = client(run).get_run(run.run_id).data.tags
    assert (tags["state"], tags["kept"], tags["why"][-2:]) == ("PRUNED", "yes", "x…")
    with pytest.raises(ValueError, match=r"tag 'a@b': wanted a name"):
        run.tags({"a@b": "1"})


def test_whether_all_is_delivered(run: Run, flaky: Flaky) -> None:
    run.metrics({"x": 1.0}, 1)
    assert run.delivered
    flaky.state = "down"
    with pytest.warns(RuntimeWarning, match="failed"):
        run.metrics({"x": 2.0}, 2)
    assert not run.delivered
    flaky.state = "up"
    run.end()
    assert run.delivered


def test_a_refused_call_is_never_delivered(run: Run, flaky: Flaky) -> None:
    from mlflow.exceptions import MlflowException

    flaky.error = lambda: MlflowException.invalid_parameter_value("not this one")
    flaky.state = "down"
    with pytest.warns(RuntimeWarning, match="does not take"):
        run.metrics({"x": 1.0}, 1)
    assert not run.delivered


def test_who_publishes_again_needs_no_file(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.start(experiment="exp", name="n", params={}, keep_undelivered=False)
    run.metrics({"x": 1.0}, 1)
    flaky = Flaky(run)
    monkeypatch.setattr(run, "_client", flaky)
    flaky.state = "answer lost"
    with pytest.warns(RuntimeWarning, match="failed"):
        run.metrics({"x": 2.0}, 2)
    flaky.state = "down"
    run.end("KILLED")  # warnings are errors here
    assert not run.delivered
    assert not list(here.glob("mlflow-undelivered*"))
    again = Run.start(experiment="exp", name="n", run_id=run.run_id, params={}, keep_undelivered=False)
    for step in (1, 2, 3):
        again.metrics({"x": float(step)}, step)
    again.end()
    assert again.delivered
    assert history(run, "x") == [(1, 1.0), (2, 2.0), (3, 3.0)]


@pytest.mark.slow
def test_a_new_database_is_made_by_the_first_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a folder, 100% new"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with Run.start(experiment="exp", name="n", params={}) as run:
        run.text("x", "x.txt")
    assert artifact(run, "x.txt").read_text() == "x"
    assert sorted(path.name for path in folder.iterdir()) == ["mlartifacts", "mlflow.db"]


@contextlib.contextmanager
def locked(database: Path, seconds: float) -> Iterator[None]:
    """The database is held by another process; the block begins when it is."""
    code = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None); "
        "c.execute('BEGIN EXCLUSIVE'); print('held', flush=True); time.sleep(float(sys.argv[2])); c.execute('ROLLBACK')"
    )
    command = [sys.executable, "-c", code, str(database), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield


def test_a_locked_database_is_waited_for_at_the_start(here: Path) -> None:
    uri = f"sqlite:///{here}/mlflow.db"
    with locked(here / "mlflow.db", 1.5), pytest.raises(ConnectionError, match=r"cannot reach .*database is locked"):
        Run.start(experiment="exp", name="n", uri=f"{uri}?timeout=0.1", params={})
    with locked(here / "mlflow.db", 1.0), Run.start(experiment="exp", name="n", params={}) as run:
        run.metrics({"x": 1.0}, 1)
    assert history(run, "x") == [(1, 1.0)]
    assert len(client(run).search_runs([run.experiment_id])) == 1


@pytest.mark.slow
def test_a_database_that_is_locked_for_long_loses_and_doubles_nothing(
    here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    database = here / "mlflow.db"
    with locked(database, 12):
        run = Run.start(experiment="exp", name="n", params={"a": 1})
    with locked(database, 12):  # MLflow waits for twenty seconds in a session
        run.metrics({"x": 1.0}, 1)
    with locked(database, 24):
        with pytest.warns(RuntimeWarning, match="database is locked"):
            run.metrics({"x": 2.0}, 2)
        run.tags({"state": "late"})
    run.end()
    assert run.delivered
    assert history(run, "x") == [(1, 1.0), (2, 2.0)]
    assert len(client(run).search_runs([run.experiment_id])) == 1
    assert "Traceback" not in capfd.readouterr().err  # MLflow's own, beside our warning


@pytest.mark.slow
def test_processes_that_start_at_once_make_one_new_database(alone: Path) -> None:
    code = (
        "import sys; from analogsim.recipes.tracking.tracked_run import Run\n"
        "with Run.start(experiment='exp', name=sys.argv[1], params={}) as run: run.metrics({'x': 1.0}, 0)"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(number)], stderr=subprocess.PIPE) for number in range(3)
    ]
    told = [process.communicate()[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], told
    from mlflow import MlflowClient

    found = MlflowClient(tracking_uri=f"sqlite:///{alone}/mlflow.db").search_runs(["1"])
    assert sorted(run.info.run_name for run in found) == ["0", "1", "2"]


def answer(url: str, seconds: float = 90) -> bytes:
    until = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                return bytes(reply.read())
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if time.monotonic() > until:
                raise
            time.sleep(0.3)


@pytest.fixture
def server(run: Run, here: Path, closed_port: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The command that `links` prints, on a free port."""
    run.text("hello", "notes/a.txt")
    program, *command = shlex.split(run.links().splitlines()[0])
    assert program == "analogsim"
    process = subprocess.Popen([sys.executable, "-m", program, *command, "--port", str(closed_port)])
    try:
        answer(f"http://127.0.0.1:{closed_port}/health")
        yield f"http://127.0.0.1:{closed_port}", process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(30)


@pytest.mark.slow
def test_the_printed_command_serves_this_run_and_its_end_is_survived(
    run: Run, server: tuple[str, subprocess.Popen[bytes]], here: Path
) -> None:
    uri, process = server
    found = json.loads(answer(f"{uri}/api/2.0/mlflow/runs/get?run_id={run.run_id}"))["run"]
    assert found["info"]["experiment_id"] == run.experiment_id
    assert b"<html" in answer(f"{uri}/")
    assert answer(f"{uri}/get-artifact?path=notes/a.txt&run_uuid={run.run_id}") == b"hello"

    remote = Run.start(experiment="remote", name="n", uri=uri, params={"a": 1})
    remote.metrics({"x": 1.0, "nan": float("nan")}, 1)
    remote.text("far", "far.txt")
    assert history(remote, "x") == [(1, 1.0)]
    assert artifact(remote, "far.txt").read_text() == "far"
    assert (
        remote.links()
        == f"{uri}/#/experiments/{remote.experiment_id}/runs/{remote.run_id}?workflowType=machine_learning"
    )

    stop(process)
    began = time.monotonic()
    with pytest.warns(RuntimeWarning, match="training goes on"):
        remote.metrics({"x": 2.0}, 2)
    with pytest.warns(RuntimeWarning, match="1 metrics are kept in .*not delivered: status"):
        remote.end()
    assert time.monotonic() - began < 30


def test_metrics_that_come_fast_are_sent_together(run: Run, flaky: Flaky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracked_run, "_LATEST", 3600.0)
    monkeypatch.setattr(tracked_run, "_SHARE", 1e-9)  # however fast the store and slow the machine
    for step in range(1500):
        run.metrics({"a": float(step)}, step=step)
    assert flaky.tried.count("log_batch") == 1  # the first, at once
    assert not run.delivered
    run.text("anything else takes along what waits", "a.txt")
    assert run.delivered
    assert flaky.tried.count("log_batch") == 3  # the store takes a thousand at a time
    run.metrics({"b": 1.0}, step=0)
    run.end()
    history = client(run).get_metric_history(run.run_id, "a")
    assert [(point.step, point.value) for point in sorted(history, key=lambda point: point.step)] == [
        (step, float(step)) for step in range(1500)
    ]
    assert client(run).get_run(run.run_id).data.metrics["b"] == 1.0


def test_metrics_wait_in_proportion_to_what_sending_costs(
    run: Run, flaky: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(tracked_run.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(tracked_run, "_LATEST", 10.0)

    def slow(*_: Any, **__: Any) -> None:
        clock[0] += 0.05

    monkeypatch.setattr(flaky.client, "log_batch", slow)
    for _ in range(1000):  # an epoch each tenth of a second
        run.metrics({"a": 1.0}, step=0)
        clock[0] += 0.1
    spent = 0.05 * flaky.tried.count("log_batch")
    assert 0.005 * 100 < spent < 0.011 * 100


def test_a_run_has_its_tags_from_the_first_moment_on(here: Path, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever dies as it was made leaves one that is found by them."""

    def died(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "_introduce", died)
    with pytest.raises(KeyboardInterrupt):
        Run.start(experiment="exp", name="n", params={}, tags={"role": "trial"}, parent_run_id="p", mark="m")
    (run,) = store.client.search_runs(["1"])
    assert run.data.tags.items() >= {"role": "trial", "mlflow.parentRunId": "p", tracked_run.MARK: "m"}.items()
