from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from analogsim.errors import UnavailableError
from analogsim.recipes import train as recipe
from analogsim.recipes.config.options import Config
from analogsim.recipes.tracking import stores
from analogsim.recipes.tracking.tracked_run import Run
from analogsim.recipes.train import AWARE, PLAIN, resume_config, train
from analogsim.recipes.training import owner
from analogsim.recipes.training.checkpoint import load_checkpoint
from analogsim.recipes.training.loop import Training

Tiny = Callable[..., Config]


def checkpoint(folder: Path, kind: str) -> dict[str, Any]:
    return load_checkpoint(folder / kind / "checkpoint.pt")


def same(a: Any, b: Any) -> bool:
    """Whether two nested structures hold bitwise the same."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def same_result(a: Path, b: Path) -> bool:
    """Whether two runs ended in the same state and with the same reports."""
    for kind in (PLAIN, AWARE):
        one, two = checkpoint(a, kind), checkpoint(b, kind)
        if not all(same(one[key], two[key]) for key in one.keys() - {"config", "run_id"}):
            return False
        if (a / kind / "report.json").read_text() != (b / kind / "report.json").read_text():
            return False
    return (a / "report.txt").read_text(encoding="utf-8") == (b / "report.txt").read_text(encoding="utf-8")


def stop_once(monkeypatch: pytest.MonkeyPatch, where: str, kind: str) -> None:
    """Ctrl-C at one place of a run; each is a way to lose or to double something."""
    aware = kind == AWARE
    places: dict[str, tuple[Any, str, Callable[..., bool]]] = {
        "within an epoch": (
            recipe._Bar,
            "step",
            lambda bar, at: bar._name == kind and (at.epoch, at.batch) == (1, 1),
        ),
        "after a checkpoint": (
            Training,
            "save",
            lambda training: training.aware == aware and training.epoch == 2,
        ),
        "after the metrics": (
            Run,
            "metrics",
            lambda run, values, step, **_: ("train/noise_scale" in values) == aware and step == 2,
        ),
        "after the report": (
            recipe,
            "_judge",
            lambda training, *_: training.aware == aware,
        ),
    }
    owner, name, here = places[where]
    original, stops = getattr(owner, name), [KeyboardInterrupt]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if stops and here(*args, **kwargs):
            raise stops.pop()
        return result

    monkeypatch.setattr(owner, name, wrapped)


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ("after a checkpoint", PLAIN),
        ("after a checkpoint", AWARE),
        ("within an epoch", PLAIN),
        ("within an epoch", AWARE),
        ("after the metrics", AWARE),
        ("after the report", PLAIN),
        ("after the report", AWARE),
    ],
)
def test_a_run_that_was_stopped_goes_on_to_the_same_numbers(
    store: Any, finished: Any, here: Path, monkeypatch: pytest.MonkeyPatch, where: str, kind: str
) -> None:
    folder = here / "my run"
    with monkeypatch.context() as patch:
        stop_once(patch, where, kind)
        with pytest.raises(KeyboardInterrupt) as stopped:
            train(finished.config, folder, show=False)
    assert stopped.value.__notes__ == [f"go on with: analogsim train --resume '{folder}'"]
    ids = {each: checkpoint(folder, each)["run_id"] for each in (PLAIN, AWARE)}
    assert {store.run(run_id).info.status for run_id in ids.values()} == {"KILLED"}

    torch.manual_seed(99)
    result = train(resume_config(folder), folder, show=False)
    assert same_result(folder, finished.folder)
    assert {each: tracker.run_id for each, tracker in result.trackers.items()} == ids
    for each, run_id in ids.items():
        assert store.run(run_id).info.status == "FINISHED"
        whole = finished.result.trackers[each].run_id
        assert store.every_point(run_id) == finished.store.every_point(whole)


def test_what_was_never_delivered_is_logged_when_the_run_goes_on(
    store: Any, finished: Any, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill while the server was away: the queue of what waits is lost."""
    with monkeypatch.context() as patch:
        stop_once(patch, "after a checkpoint", PLAIN)
        patch.setattr(Run, "metrics", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            train(finished.config, Path("run"), show=False)
    run_id = checkpoint(Path("run"), PLAIN)["run_id"]
    assert store.run(run_id).data.metrics == {}
    train(resume_config(Path("run")), Path("run"), show=False)
    assert [step for step, _ in store.points(run_id, "train/loss")] == [1, 2, 3]


def test_a_finished_run_that_is_resumed_changes_nothing(store: Any, finished: Any, here: Path) -> None:
    folder = here / "run"
    train(finished.config, folder, show=False)
    run_id = checkpoint(folder, AWARE)["run_id"]
    before = store.every_point(run_id)
    train(resume_config(folder), folder, show=False)
    assert same_result(folder, finished.folder)
    assert store.every_point(run_id) == before


def test_a_run_goes_on_without_mlflow_and_then_with_it_again(
    store: Any, tiny: Tiny, here: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("baseline=false", tracking=True)
    folder = here / "run"
    with monkeypatch.context() as patch:
        stop_once(patch, "after a checkpoint", AWARE)
        with pytest.raises(KeyboardInterrupt):
            train(config, folder, show=False)
    run_id = checkpoint(folder, AWARE)["run_id"]
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
        with pytest.raises(ConnectionError, match="--no-tracking"):
            train(resume_config(folder), folder, show=False)
        train(resume_config(folder, tracking=False), folder, show=False)
    assert checkpoint(folder, AWARE)["run_id"] == run_id
    assert [step for step, _ in store.points(run_id, "train/loss")] == [1]
    result = train(resume_config(folder), folder, show=False)
    assert result.trackers[AWARE].run_id == run_id
    assert [step for step, _ in store.points(run_id, "train/loss")] == [1, 2, 3]
    assert store.run(run_id).info.status == "FINISHED"


def test_another_directory_with_another_store_is_told(
    tiny: Tiny, here: Path, migrated: Path, tmp_path_factory: Any
) -> None:
    folder = here / "run"
    config = tiny("baseline=false", "optimization.epochs=1", tracking=True)
    train(config, folder, show=False)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copy(migrated, elsewhere / "mlflow.db")
    with contextlib.chdir(elsewhere), pytest.raises(ValueError, match=r"not found; .* was started in, or with --no-tr"):
        train(resume_config(folder), folder, show=False)


@pytest.fixture
def stopped(tiny: Tiny, tmp_path: Path) -> Path:
    """The folder of a run of one epoch, without MLflow."""
    train(tiny("optimization.epochs=1"), tmp_path / "run", show=False)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=lenet5", "model='mlp', now it is 'lenet5'"),
        ("optimization.epochs=2", "optimization.epochs=1, now it is 2"),
        ("seed=1", "seed=0, now it is 1"),
        ("device=gaussian", "device='pcm', now it is 'gaussian'"),
        ("noise.clip_sigmas=none", "noise.clip_sigmas=2.5, now it is None"),
    ],
)
def test_a_checkpoint_of_other_options_is_refused(tiny: Tiny, stopped: Path, override: str, message: str) -> None:
    config = tiny("optimization.epochs=1", override)
    with pytest.raises(ValueError, match=rf"plain/checkpoint.pt' was trained with {message}; go on with the options"):
        train(config, stopped, show=False)


def test_what_does_not_touch_the_weights_may_change(tiny: Tiny, stopped: Path) -> None:
    before = checkpoint(stopped, AWARE)["model"]
    result = train(tiny("optimization.epochs=1", "evaluation.chips=3"), stopped, show=False)
    assert len(result.reports[AWARE].values) == 3
    assert same(checkpoint(stopped, AWARE)["model"], before)


def test_a_checkpoint_of_before_there_were_several_processes_is_gone_on_with(stopped: Path) -> None:
    path = stopped / AWARE / "checkpoint.pt"
    whole = load_checkpoint(path)
    torch.save({key: value for key, value in whole.items() if key != "random_of_others"}, path)
    train(resume_config(stopped), stopped, show=False)
    assert same(load_checkpoint(path), whole)


def test_checkpoints_that_were_mixed_up_are_refused(stopped: Path) -> None:
    shutil.copy(stopped / PLAIN / "checkpoint.pt", stopped / AWARE / "checkpoint.pt")
    with pytest.raises(ValueError, match=r"hardware-aware/checkpoint.pt' is of the other network"):
        train(resume_config(stopped), stopped, show=False)


def test_a_folder_that_is_no_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is no run of analogsim train: there is no config.toml"):
        resume_config(tmp_path)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "analogsim", "train", *arguments]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills with SIGKILL")
def test_a_killed_process_goes_on_to_the_same_numbers(store: Any, here: Path, settings: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options = [*settings, "optimization.epochs=15", "--quiet"]
    subprocess.run(command(*options, "--out", "whole"), env=environment, check=True, capture_output=True)

    process = subprocess.Popen(
        command(*options, "--out", "killed"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 120
    epoch = 0
    while epoch < 1:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until
        with contextlib.suppress(FileNotFoundError, ValueError):
            epoch = max((load_checkpoint(path)["epoch"] for path in Path("killed").glob("*/plain/*.pt")), default=0)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (killed,) = Path("killed").iterdir()
    (whole,) = Path("whole").iterdir()
    assert not (killed / "report.txt").exists()
    ids = {kind: checkpoint(killed, kind)["run_id"] for kind in (PLAIN, AWARE)}

    done = subprocess.run(
        command("--resume", str(killed), "--quiet"), env=environment, check=True, capture_output=True, text=True
    )
    assert same_result(killed, whole)
    assert ids[AWARE] in done.stdout
    for kind, run_id in ids.items():
        history = checkpoint(killed, kind)["history"]
        assert store.points(run_id, "train/loss") == [(step, history[step - 1]["train/loss"]) for step in range(1, 16)]
        assert store.run(run_id).info.status == "FINISHED"


def killed_before_its_first_checkpoint(config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """A folder as SIGKILL leaves it when both runs are made and no checkpoint is; their ids."""
    made: list[str] = []

    def killed(training: Training) -> None:
        made.append((folder / owner.MARK).read_text())
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Training, "save", killed)
        patch.setattr(Run, "end", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            train(config, folder, show=False)
    (folder / owner.MARK).write_text(made[0])
    return {run.info.run_id for run in runs()}


def runs() -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{Path.cwd()}/mlflow.db")
    return list(client.search_runs([each.experiment_id for each in client.search_experiments()]))


@pytest.mark.skipif(os.name != "posix", reason="reads a file that is locked")
def test_runs_of_a_process_that_was_killed_are_found_again(
    store: Any, tiny: Tiny, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = here / "run"
    config = tiny("optimization.epochs=1", tracking=True)
    before = killed_before_its_first_checkpoint(config, folder, monkeypatch)
    assert {run.info.status for run in runs()} == {"RUNNING"}
    train(resume_config(folder), folder, show=False)
    assert {run.info.run_id for run in runs()} == before
    assert {run.info.status for run in runs()} == {"FINISHED"}
    assert len(before) == 2
    assert not (folder / owner.MARK).exists()


def test_a_configuration_that_changed_is_refused(stopped_folder: Path) -> None:
    path = stopped_folder / "config.toml"
    text = path.read_text()
    path.write_text(text.replace("chips = 2", "chips = 3"))
    with pytest.raises(ValueError, match=r"config.toml' is not as it was written when the run began: changed by hand"):
        resume_config(stopped_folder)
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    assert resume_config(stopped_folder).evaluation.chips == 3, "as of versions without a digest"


@pytest.fixture
def stopped_folder(tiny: Tiny, tmp_path: Path) -> Path:
    train(tiny("optimization.epochs=1"), tmp_path / "run", show=False)
    return tmp_path / "run"


def test_a_folder_in_which_a_process_is_at_work_is_refused(stopped_folder: Path) -> None:
    before = {path: path.read_bytes() for path in stopped_folder.rglob("*") if path.is_file()}
    with owner.owned(stopped_folder), pytest.raises(UnavailableError, match="at work"):
        train(resume_config(stopped_folder), stopped_folder, show=False)
    assert {path: path.read_bytes() for path in stopped_folder.rglob("*") if path.is_file()} == before


def test_no_password_is_kept(tiny: Tiny, here: Path, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the folder, nor in what MLflow gets of it; the run goes on with that of the environment."""
    real = f"sqlite:///{here}/mlflow.db"
    given = f"{real}?password=hunter2"
    connect = stores.connect
    seen: list[str] = []

    def instead(uri: str) -> Any:
        seen.append(uri)
        return connect(real if not stores.lacks_password(uri) else uri)

    monkeypatch.setattr(stores, "connect", instead)
    config = tiny("optimization.epochs=1", tracking=True)
    config = replace(config, tracking=replace(config.tracking, uri=given))
    train(config, here / "run", show=False)
    kept = [path for path in here.rglob("*") if path.is_file()]
    assert [path for path in kept if b"hunter2" in path.read_bytes()] == []
    assert "password=***" in (here / "run" / "config.toml").read_text()
    assert load_checkpoint(here / "run" / PLAIN / "checkpoint.pt")["config"]["tracking"]["uri"].endswith("=***")
    monkeypatch.delenv(stores.PASSWORD, raising=False)
    with pytest.raises(ValueError, match="is kept nowhere; set MLFLOW_TRACKING_PASSWORD"):
        train(resume_config(here / "run"), here / "run", show=False)
    monkeypatch.setenv(stores.PASSWORD, "hunter2")
    told: list[str] = []
    train(resume_config(here / "run"), here / "run", show=False, tell=told.append)
    assert any("is not kept with the run; it is that of MLFLOW_TRACKING_PASSWORD" in line for line in told)
    assert {uri.rpartition("=")[2] for uri in seen} == {"hunter2", "***"}
