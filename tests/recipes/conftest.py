"""What the tests of recipes share: a working directory with a database that is ready, and a run that is finished."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from analogsim.evaluation.report import Report
from analogsim.recipes.cli import main
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import load_toml
from analogsim.recipes.tracking import stores
from analogsim.recipes.tracking.tracked_run import Run
from analogsim.recipes.train import Result, train


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables: making them takes seconds, copying the file does not."""
    pytest.importorskip("mlflow", reason="needs analogsim-torch[recipes]")
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    stores.connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, and no settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name in ("http_proxy", "HTTP_PROXY"):  # what listens on 127.0.0.1 is asked directly
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def here(migrated: Path, alone: Path) -> Path:
    """A working directory of its own, with a database that is ready."""
    shutil.copy(migrated, alone / "mlflow.db")
    return alone


@pytest.fixture
def closed_port() -> int:
    """A port of 127.0.0.1 where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def settings() -> list[str]:
    """Settings with which a run takes a fraction of a second, and is better than guessing."""
    return [
        "model=mlp",
        "data.limit=200",
        "data.batch_size=16",
        "optimization.epochs=3",
        "optimization.lr=0.02",
        "noise.jitter=0.1",
        "evaluation.chips=2",
        'evaluation.times=["1s", "1d"]',
        "evaluation.validation_chips=1",
    ]


@pytest.fixture(scope="session")
def tiny(settings: list[str]) -> Callable[..., Config]:
    """Call it with settings that change those above; ``tracking`` is off unless it is asked for."""

    def config(*overrides: str, tracking: bool = False) -> Config:
        return load_toml(Config, None, [*settings, f"tracking.enabled={str(tracking).lower()}", *overrides])

    return config


class Store:
    """What the database in a directory holds."""

    def __init__(self, place: Path) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=f"sqlite:///{place}/mlflow.db")

    def run(self, run_id: str) -> Any:
        return self.client.get_run(run_id)

    def points(self, run_id: str, name: str) -> list[tuple[int, float]]:
        history = self.client.get_metric_history(run_id, name)  # in no order that MLflow promises
        return sorted((point.step, point.value) for point in history)

    def every_point(self, run_id: str) -> dict[str, list[tuple[int, float]]]:
        return {name: self.points(run_id, name) for name in self.run(run_id).data.metrics}

    def artifact(self, run_id: str, path: str) -> Path:
        return Path(self.client.download_artifacts(run_id, path))


@pytest.fixture
def store(here: Path) -> Store:
    """The store of a working directory of its own."""
    return Store(here)


@dataclass(frozen=True)
class Finished:
    """A run from start to end, and the git commit of the directory it was started in."""

    place: Path
    config: Config
    result: Result
    commit: str | None

    @property
    def folder(self) -> Path:
        return self.place / self.result.folder

    @property
    def store(self) -> Store:
        return Store(self.place)


@pytest.fixture(scope="session")
def finished(migrated: Path, tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A tracked run in a working directory under git."""
    place = tmp_path_factory.mktemp("finished")
    shutil.copy(migrated, place / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GIT_")]:
            patch.delenv(name)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(place)
        config = tiny(tracking=True)
        commit = _commit(place) if shutil.which("git") else None
        return Finished(place, config, train(config, show=False), commit)


def _commit(place: Path) -> str:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *who, *arguments], cwd=place, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    (place / "notes.txt").write_text("1")
    git("init")
    git("add", "notes.txt")
    git("commit", "-m", "first")
    return git("rev-parse", "HEAD")


@pytest.fixture
def fail(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Call it with a command line that is wrong; gives the one line that is told."""

    def call(*arguments: str) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        out, err = capsys.readouterr()
        assert out == ""
        (line,) = err.splitlines()
        assert line.startswith("analogsim: error: ")
        return line.removeprefix("analogsim: error: ")

    return call


@pytest.fixture
def log(here: Path) -> Callable[..., str]:
    """Call it with a name and a report to have a run in the store; gives its id."""

    def run(name: str, made: Report | None, *, experiment: str = "exp", end: Any = "FINISHED", **params: Any) -> str:
        with Run.start(experiment=experiment, name=name, params=params) as tracker:
            tracker.metrics({"train/loss": 0.5, "validation/accuracy/clean": 0.75}, 1)
            if made is not None:
                tracker.metrics({"test/accuracy/drifted_1y": float(made.mean[-1])}, 1)
                tracker.text(json.dumps(made.to_dict()), "report.json")
            tracker.end(end)
        return tracker.run_id

    return run


@pytest.fixture
def stopped(settings: list[str], alone: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Path]:
    """A run without tracking that has ended, and nothing on the screen."""
    main(["train", *settings, "optimization.epochs=1", "--no-tracking", "--quiet"])
    capsys.readouterr()
    (folder,) = Path("runs").iterdir()
    yield folder
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
