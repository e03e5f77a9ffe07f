"""Real workers of one study, servers beside them, and a count of everything at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna", reason="needs analogsim-torch[recipes]")
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from analogsim.recipes.tracking import stores

NAME = "faults"
EPOCHS = 20
PATIENCE = 300.0  # seconds after which something that has to happen has not: for a machine that is very busy
SETTINGS = [
    f"study.name={NAME}",
    "study.heartbeat=1",
    "model=mlp",
    "data.limit=200",
    "data.batch_size=16",
    "data.validation=0.3",
    f"optimization.epochs={EPOCHS}",
    "evaluation.chips=2",
    'evaluation.times=["1s", "1d"]',
    "evaluation.validation_chips=1",
    "study.chips=2",
    "study.pruner=none",
    "search={noise={end={low=0.5, high=8.0}}, optimization={lr={low=0.001, high=0.02, log=true}}}",
]


class Process:
    """A process in a group of its own, with what it says in two files."""

    def __init__(self, command: list[str], place: Path, said: Path, **environment: str) -> None:
        self.out, self.err = said.with_suffix(".out"), said.with_suffix(".err")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "OPTUNA_", "GIT_"))}
        for proxy in ("http_proxy", "HTTP_PROXY"):  # what listens on 127.0.0.1 is asked directly
            kept.pop(proxy, None)
        with self.out.open("w") as out, self.err.open("w") as err:
            self._process = subprocess.Popen(
                command,
                cwd=place,
                stdout=out,
                stderr=err,
                env={**kept, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true", **environment},
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it and its children, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        self._process.wait(PATIENCE)

    def code(self) -> int:
        """Its exit code, once it has ended by itself."""
        return self._process.wait(PATIENCE)

    @property
    def said(self) -> str:
        return f"{self.out.read_text()}\n{self.err.read_text()}"


@dataclass
class Study:
    """A working directory with a study in it."""

    place: Path
    storage: str = ""
    tracking: str = ""

    def __post_init__(self) -> None:
        self.processes: list[Process] = []
        self.met: set[int] = set()
        self._known: Any = None
        self.storage = self.storage or f"sqlite:///{self.place}/optuna.db"
        self.tracking = self.tracking or f"sqlite:///{self.place}/mlflow.db"

    def worker(self, *settings: str, place: Path | None = None, **surroundings: str) -> Process:
        """Start one more worker, by the command that a person would type, in an environment with these besides.

        It works in `place`, and is told of storage and store by options; or in one of its own, as on another machine,
        and is told by the environment.
        """
        command = [sys.executable, "-m", "analogsim", "tune", *SETTINGS, *settings]
        environment = {**surroundings}
        if place is None:
            command += ["--storage", self.storage, f"tracking.uri={self.tracking}"]
        else:
            environment |= {"OPTUNA_STORAGE": self.storage, "MLFLOW_TRACKING_URI": self.tracking}
        return self._keep(Process(command, place or self.place, self._said("worker"), **environment))

    def server(self, port: int, *options: str) -> Process:
        """Start MLflow's server and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        process = self._keep(
            Process(
                [
                    *command,
                    "--workers",
                    "1",
                    *(options or ["--backend-store-uri", f"sqlite:///{self.place}/server.db"]),
                ],
                self.place,
                self._said("server"),
                MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
            )
        )

        def answers() -> bool:
            with contextlib.suppress(OSError):
                return bool(urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).status == 200)
            return False

        self.until(answers, "the server answers", process)
        return process

    def _said(self, name: str) -> Path:
        return self.place / f"{name}-{len(self.processes)}"

    def _keep(self, process: Process) -> Process:
        self.processes.append(process)
        return process

    def end(self) -> None:
        """Leave no process behind."""
        for process in self.processes:
            if process.running:
                process.kill()

    def until(self, happens: Callable[[], Any], what: str, *alive: Process) -> Any:
        """Wait until something happens; fail if it does not, or if one of the processes it needs has ended."""
        deadline = time.monotonic() + PATIENCE
        while True:
            ended = [process for process in alive if not process.running]
            found = happens()
            if found:
                return found
            told = "\n".join(f"{process.out.name}: {process.said}" for process in self.processes)
            assert not ended, f"waited until {what}, but a process has ended\n{told}"
            assert time.monotonic() < deadline, f"waited until {what}\n{told}"
            time.sleep(0.05)

    def trials(self) -> list[Any]:
        """The trials as they are now; none where there is no study yet."""
        import optuna

        if self._known is None:
            if not _has_study(self.storage):
                return []
            storage = optuna.storages.RDBStorage(self.storage, engine_kwargs={"poolclass": NullPool})
            self._known = optuna.load_study(study_name=NAME, storage=storage)
        return list(self._known.get_trials(deepcopy=False))

    def in_the_middle(self, *workers: Process) -> list[Any]:
        """Wait until each worker is in the middle of a trial, none of an earlier call; these trials."""

        def busy() -> list[Any] | None:
            at_work = [each for each in self.trials() if each.state.name == "RUNNING" and each.number not in self.met]
            far = [trial for trial in at_work if 2 <= len(trial.intermediate_values) < EPOCHS - 5]
            return far if len(far) == len(at_work) == len(workers) else None

        found = list(self.until(busy, f"{len(workers)} worker(s) are in the middle of a trial", *workers))
        self.met |= {trial.number for trial in found}
        return found

    def put_to_sleep(self, worker: Process) -> None:
        """Stop a worker; not while it writes to a database file, which would then be locked as long as it sleeps."""
        with self.locked():
            worker.send(signal.SIGSTOP)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the database files for everybody else."""
        with contextlib.ExitStack() as scope:
            for path in self.place.glob("*.db"):
                database = scope.enter_context(
                    contextlib.closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None))
                )
                database.execute("BEGIN EXCLUSIVE")
            yield

    def in_the_comparison(self, worker: Process, network: str = "plain") -> Path:
        """Wait until the comparison at the end trains a network."""
        final = self.place / "runs" / NAME / "final"
        return Path(
            self.until(
                lambda: next(final.glob(f"{network}-seed0/checkpoint.pt"), None),
                f"the comparison trains {network}",
                worker,
            )
        )

    def client(self) -> Any:
        """A client of MLflow's store."""
        return stores.connect(self.tracking)

    def runs(self) -> list[Any]:
        """All runs in MLflow."""
        client = self.client()
        experiments = [each.experiment_id for each in client.search_experiments()]
        return [run for each in experiments for run in client.search_runs([each], max_results=5000)]

    def count(self, wanted: int, finals: int = 5) -> Count:
        """Count what is in both databases: nothing may be missing and nothing double."""
        found = count(self, wanted, finals)
        print(f"\n{found}")
        return found


@dataclass
class Count:
    """What was found."""

    trials: list[Any]
    states: dict[str, int]
    runs: dict[str, list[Any]]
    points: int
    client: Any

    def __str__(self) -> str:
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.states.items()))
        return f"{len(self.trials)} trials ({states}), {sum(map(len, self.runs.values()))} runs, {self.points} points"


def count(study: Study, wanted: int, finals: int) -> Count:
    trials = study.trials()
    states = Counter(trial.state.name for trial in trials)
    assert states["COMPLETE"] + states["PRUNED"] == wanted
    assert set(states) <= {"COMPLETE", "PRUNED", "FAIL"}
    kept = [trial for trial in trials if trial.state.name != "FAIL"]
    assert len({tuple(sorted(trial.params.items())) for trial in kept}) == wanted

    client, found = study.client(), study.runs()
    runs = {role: [run for run in found if run.data.tags.get("role") == role] for role in ("study", "trial", "final")}
    assert sum(map(len, runs.values())) == len(found)
    (parent,) = runs["study"]
    assert parent.info.status == "FINISHED"
    total = 0

    def steps(run: Any) -> dict[str, list[int]]:
        nonlocal total
        found = {
            name: sorted(point.step for point in client.get_metric_history(run.info.run_id, name))
            for name in run.data.metrics
        }
        total += sum(map(len, found.values()))
        for name, each in found.items():
            assert len(each) == len(set(each)), f"{run.info.run_name} has {name} twice: {each}"
        return found

    complete = {trial.number: trial.value for trial in trials if trial.state.name == "COMPLETE"}
    assert steps(parent)["objective"] == sorted(complete)

    numbers = Counter(int(run.data.tags["optuna.trial.number"]) for run in runs["trial"])
    assert set(numbers.values()) == {1}
    assert numbers.keys() == {trial.number for trial in trials if "folder" in trial.user_attrs}
    assert set(numbers) >= {trial.number for trial in kept}
    for run in runs["trial"]:
        trial = trials[int(run.data.tags["optuna.trial.number"])]
        state, of_run = trial.state.name, steps(run)
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["optuna.trial.state"] == state
        assert run.info.status in {"COMPLETE": ["FINISHED"], "PRUNED": ["KILLED"], "FAIL": ["FAILED", "KILLED"]}[state]
        epochs = of_run.get("validation/accuracy/drifted_1d", [])
        assert epochs == list(range(1, len(epochs) + 1))
        assert all(each == epochs for name, each in of_run.items() if name.startswith(("train/", "validation/")))
        if state == "COMPLETE":
            assert len(epochs) == EPOCHS
            assert run.data.metrics["objective"] == trial.value
            assert of_run["search/accuracy/drift"] == [1, 86400]
        elif state == "PRUNED":
            assert epochs == sorted(trial.intermediate_values)
        else:
            assert any(trial.number in other.system_attrs.get("retry_history", ()) for other in kept)
    ended = [run for run in runs["final"] if run.info.status == "FINISHED"]
    assert {run.info.status for run in runs["final"] if run not in ended} <= {"FAILED"}
    networks = Counter(run.data.tags["network"] for run in ended)
    assert set(networks.values()) == {1}
    assert len(networks) == finals
    for run in runs["final"]:
        epochs = steps(run).get("train/loss", [])
        assert epochs == list(range(1, len(epochs) + 1))
        assert len(epochs) == EPOCHS or run not in ended
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    return Count(trials, dict(states), runs, total, client)


def _has_study(url: str) -> bool:
    if url.startswith("sqlite") and not Path(url.removeprefix("sqlite:///")).is_file():
        return False  # to ask would make it
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            return bool(connection.execute(text(f"SELECT 1 FROM studies WHERE study_name = '{NAME}'")).all())
    except DBAPIError:  # no tables yet
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
