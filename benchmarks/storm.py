"""A storm over one study: workers die, sleep and come back, clocks jump, disks fill, databases restart.

    python -m benchmarks.storm --storage sqlite --minutes 10 --workers 12 --seed 0
    python -m benchmarks.storm --storage postgresql --minutes 10 --workers 12 --seed 0

The trials are cheap, a second each. What happens is drawn by the seed; to whom it happens depends on the machine too.
When the time is up all workers are killed, and the same command as ever has to bring the study to its end. Then all
that is left, in Optuna's storage, in MLflow and in what the workers said, is held against the rules of a study
(`benchmarks.harness.study_rules`); the exit code is 1 where one is broken.

Workers are forked from one process that has everything imported, so that one is back at once; each runs the program's
own `main`. Linux only. What a machine has not is left out, and said: a full disk needs the right to mount a file system
in memory, clocks that jump a C compiler, PostgreSQL its programs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from analogsim.recipes.cli import main as command
from benchmarks.harness.clocks import LIBRARY, Clocks, build
from benchmarks.harness.postgres import Postgres, free_port, programs
from benchmarks.harness.study_rules import read_history, violations

NAME, EPOCHS = "storm", 3
SETTINGS = (
    *(f"study.name={NAME}", "study.heartbeat=1", "study.sampler=random", "study.chips=1", "study.retries=100000"),
    *("model=mlp", "data.limit=100", "data.batch_size=16", "data.validation=0.3", f"optimization.epochs={EPOCHS}"),
    *("evaluation.chips=1", 'evaluation.times=["1s", "1d"]', "evaluation.validation_chips=1"),
    "search={noise={end={low=0.5, high=8.0}}}",
)
_MORE = 15  # trials that are asked for besides whenever the study has all it wants
_LAST = 5  # and in the calm
_SIZE = 512  # MiB of the disk that fills
_WARM = (
    "optuna.storages",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.artifact.local_artifact_repo",
    "psycopg",
)
_PRELOAD = "LD_PRELOAD"
# How often each thing happens beside the others; what a storage has not is left out.
_WEIGHTS = {"kill": 6, "stop": 2, "sleep": 3, "clock": 3, "disk": 1, "lock": 1, "database": 1, "server": 1}
_OF = {"sqlite": {"lock"}, "postgresql": {"database", "server"}}


@dataclass
class Place:
    """Where all of it lies, and what is beside it.

    Attributes:
        folder: of workers, on the disk that fills.
        logs: with what workers say; elsewhere, so that it is there afterwards.
        storage, tracking, store: Optuna's address, MLflow's as workers have it, and the database behind that.
        postgres: where that is the storage.
        server: MLflow's.
        full: whether the disk can be filled.
    """

    folder: Path
    logs: Path
    storage: str
    tracking: str
    store: str
    postgres: Postgres | None = None
    server: subprocess.Popen[bytes] | None = None
    full: bool = False

    def serve(self) -> None:
        """Start MLflow's server, and wait until it answers."""
        host, port = self.tracking.removeprefix("http://").split(":")
        with (self.logs / "server.txt").open("ab") as said:
            self.server = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlflow", "server", "--host", host, "--port", port, "--workers", "1"),
                    *("--backend-store-uri", self.store),
                    *("--artifacts-destination", str(self.logs.parent / "artifacts")),
                ],
                stdout=said,
                stderr=said,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                start_new_session=True,
            )
        until = time.monotonic() + 120
        while time.monotonic() < until:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.tracking}/health", timeout=5):
                return
            time.sleep(0.3)
        raise RuntimeError(f"MLflow's server does not answer at {self.tracking}")

    def end_server(self) -> None:
        """Kill MLflow's server and its children."""
        if self.server is not None:
            os.killpg(self.server.pid, signal.SIGKILL)
            self.server.wait()
            self.server = None


@dataclass
class Worker:
    """A place for a worker, in which one comes after the other."""

    slot: int
    pid: int | None = None
    wakes: float | None = None
    comes: float = 0.0


@dataclass
class Storm:
    """What happens to the workers of a study, drawn by a seed."""

    place: Place
    clocks: Clocks | None
    seed: int
    count: int
    every: float
    wanted: int = _MORE
    happened: Counter[str] = field(default_factory=Counter)
    codes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)
        self._workers = [Worker(slot) for slot in range(self.count)]
        self._later: list[tuple[float, Callable[[], object]]] = []
        self._asked: dict[int, int] = {}
        self.started = 0
        kinds = {"kill", "stop", "sleep"} | _OF["sqlite" if self.place.postgres is None else "postgresql"]
        kinds |= {"disk"} if self.place.full else set()
        kinds |= {"clock"} if self.clocks is not None else set()
        self._kinds = [kind for kind in _WEIGHTS if kind in kinds]

    def blow(self, seconds: float) -> None:
        """Let it happen for a while; then kill all that is alive, and undo what was done."""
        end = time.monotonic() + seconds
        due = time.monotonic() + self.every
        try:
            while (now := time.monotonic()) < end:
                self._tend(now)
                for when, undo in [one for one in self._later if one[0] <= now]:
                    self._later.remove((when, undo))
                    undo()
                if now >= due:
                    self._happen(self._draw.choices(self._kinds, [_WEIGHTS[kind] for kind in self._kinds])[0])
                    due = now + self._draw.expovariate(1 / self.every)
                time.sleep(0.05)
        finally:
            for worker in self._workers:
                if worker.pid is not None:
                    os.kill(worker.pid, signal.SIGKILL)
                    os.waitpid(worker.pid, 0)
            for _, undo in self._later:
                undo()

    def _tend(self, now: float) -> None:
        """Start workers that are due, wake those that slept, and see which have ended."""
        for worker in self._workers:
            if worker.pid is None:
                if now >= worker.comes:
                    worker.pid = self._start(worker.slot)
                continue
            if worker.wakes is not None and now >= worker.wakes:
                worker.wakes = None
                os.kill(worker.pid, signal.SIGCONT)
            ended, status = os.waitpid(worker.pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                self.codes.append(code)
                if code == 0:  # the study had all that this worker was told of
                    self.wanted = max(self.wanted, self._asked[worker.slot] + _MORE)
                worker.pid = worker.wakes = None
                worker.comes = now + self._draw.uniform(0, 3)

    def _start(self, slot: int) -> int:
        self.started += 1
        self._asked[slot] = self.wanted
        pid = os.fork()
        if pid:
            return pid
        code = 99
        try:
            code = self._work(slot)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _work(self, slot: int) -> int:
        """Be a worker: in the process that was forked."""
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        said = os.open(
            self.place.logs / f"worker-{self.started:05d}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644
        )
        os.dup2(said, 1)
        os.dup2(said, 2)
        os.chdir(self.place.folder)
        if self.clocks is not None:
            self.clocks.go_by(slot)
        arguments = ["tune", *SETTINGS, f"study.trials={self.wanted}", "--storage", self.place.storage]
        try:
            command([*arguments, f"tracking.uri={self.place.tracking}"])
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        return 0

    def _happen(self, kind: str) -> None:
        self.happened[kind] += 1
        getattr(self, f"_{kind}")()

    def _alive(self) -> Worker | None:
        alive = [worker for worker in self._workers if worker.pid is not None]
        return self._draw.choice(alive) if alive else None

    def _send(self, number: int) -> Worker | None:
        worker = self._alive()
        if worker is not None and worker.pid is not None:
            os.kill(worker.pid, number)
        return worker

    def _kill(self) -> None:
        self._send(signal.SIGKILL)

    def _stop(self) -> None:
        self._send(self._draw.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))

    def _sleep(self) -> None:
        worker, how_long = self._send(signal.SIGSTOP), self._draw.uniform(2, 12)
        if worker is not None:
            worker.wakes = time.monotonic() + how_long

    def _clock(self) -> None:
        assert self.clocks is not None
        self.clocks.jump(
            self._draw.randrange(self.count), round(self._draw.choice([-1, 1]) * self._draw.uniform(1, 7200))
        )

    def _disk(self) -> None:
        ballast = self.place.folder / "ballast"
        with contextlib.suppress(OSError), ballast.open("ab") as file:
            for piece in (2**20, 2**12):
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), piece)
        self._undo(self._draw.uniform(1, 6), lambda: ballast.unlink(missing_ok=True))

    def _lock(self) -> None:
        """A process of its own locks a database: SQLite's locks are not to be forked."""
        name = self._draw.choice(["optuna.db", "mlflow.db"])
        code = (
            "import sqlite3, sys, time\nd = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)\n"
            "d.execute('BEGIN EXCLUSIVE')\ntime.sleep(float(sys.argv[2]))\n"
        )
        how_long = self._draw.uniform(1, 10)
        locking = subprocess.Popen(
            [sys.executable, "-c", code, str(self.place.folder / name), str(how_long)],
            stderr=subprocess.DEVNULL,
        )
        scope = contextlib.ExitStack()
        scope.callback(locking.wait)
        scope.callback(locking.kill)
        self._undo(how_long + 5, scope.close)

    def _database(self) -> None:
        assert self.place.postgres is not None
        self.place.postgres.stop(self._draw.choice(["fast", "immediate"]))
        time.sleep(self._draw.uniform(0, 5))
        self.place.postgres.start()

    def _server(self) -> None:
        self.place.end_server()
        time.sleep(self._draw.uniform(0, 3))
        self.place.serve()

    def _undo(self, seconds: float, what: Callable[[], object]) -> None:
        self._later.append((time.monotonic() + seconds, what))


def settle(place: Place, count: int = 2) -> tuple[int, list[int], float]:
    """Bring the study to its end by the same command as ever; how many trials were wanted, exit codes, seconds."""
    import optuna

    began = time.monotonic()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    trials = optuna.load_study(study_name=NAME, storage=place.storage).get_trials(deepcopy=False)
    wanted = sum(trial.state.name != "FAIL" for trial in trials) + _LAST
    arguments = [*SETTINGS, f"study.trials={wanted}", "--storage", place.storage, f"tracking.uri={place.tracking}"]
    running = []
    for index in range(count):
        with (place.logs / f"last-{index}.log").open("wb") as said:
            running.append(
                subprocess.Popen(
                    [sys.executable, "-m", "analogsim", "tune", *arguments],
                    cwd=place.folder,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                    stdout=said,
                    stderr=said,
                )
            )
    codes = [worker.wait() for worker in running]
    return wanted, codes, time.monotonic() - began


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[bool]:
    """A small disk of its own for a folder, if that may be mounted."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}m", "none", folder], capture_output=True, check=False
    )
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "--lazy", folder], check=False)


@contextlib.contextmanager
def _place(storage: str) -> Iterator[Place]:
    with contextlib.ExitStack() as scope:
        root = Path(scope.enter_context(tempfile.TemporaryDirectory(prefix="analogsim-storm-")))
        root.chmod(0o755)  # for the user who runs PostgreSQL
        folder, logs = root / "study", root / "logs"
        folder.mkdir()
        logs.mkdir()
        full = scope.enter_context(_disk(folder))
        if storage == "sqlite":
            here = f"sqlite:///{folder}/mlflow.db"
            yield Place(folder, logs, f"sqlite:///{folder}/optuna.db", here, here, full=full)
            return
        found = programs()
        if found is None:
            raise SystemExit("benchmarks.storm: needs PostgreSQL's initdb and pg_ctl: apt-get install postgresql")
        (root / "postgres").mkdir()
        made = Postgres(root / "postgres", found)
        scope.callback(made.stop)
        place = Place(
            folder, logs, made.url("optuna"), f"http://127.0.0.1:{free_port()}", made.url("mlflow"), made, full=full
        )
        scope.callback(place.end_server)
        place.serve()
        yield place


def _parser() -> argparse.ArgumentParser:
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.storm",
        description=f"{summary}\n{rest}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--storage", choices=("sqlite", "postgresql"), default="sqlite", help="default: sqlite")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long it blows (default: 10)")
    parser.add_argument("--workers", type=int, default=12, help="at once (default: 12)")
    parser.add_argument("--seed", type=int, default=0, help="of what happens (default: 0)")
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two events, in the mean (default: 2)")
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument(
        "--keep", type=Path, help="copy what the workers said and the databases here, if a rule is broken"
    )
    return parser


def run(options: argparse.Namespace, clocks: Clocks | None) -> dict[str, object]:
    """One storm, and what is against the rules afterwards."""
    with _place(options.storage) as place:
        storm = Storm(place, clocks, options.seed, options.workers, options.every)
        storm.blow(60 * options.minutes)
        wanted, last, took = settle(place)
        history = read_history(
            place.storage, place.store, NAME, wanted=wanted, epochs=EPOCHS, logs=place.logs, codes=[*storm.codes, *last]
        )
        found = violations(history)
        found += [f"settle: a worker in the calm ended with {code}" for code in last if code]
        if found and options.keep is not None:
            shutil.copytree(place.logs, options.keep, dirs_exist_ok=True)
            for database in place.folder.glob("*.db"):
                shutil.copy(database, options.keep)
        return {
            **{name: getattr(options, name) for name in ("storage", "minutes", "workers", "seed", "every")},
            "happened": dict(storm.happened),
            "left out": [name for name, has in (("disk", place.full), ("clock", clocks)) if not has],
            "workers started": storm.started,
            "exit codes": {str(code): count for code, count in sorted(Counter(history.codes).items())},
            "trials": dict(Counter(trial.state for trial in history.trials)),
            "runs": dict(Counter(f"{one.role} {one.status}" for one in history.runs)),
            "points": sum(len(steps) for one in history.runs for steps in one.points.values()),
            "seconds to settle": round(took),
            "violations": found,
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Run a storm; 1 where a rule is broken."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    options = parser.parse_args(arguments)
    for name in ("minutes", "workers", "every"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name}: wanted more than 0, got {getattr(options, name)}")
    if sys.platform != "linux":
        parser.error("workers are forked, stopped and given clocks as Linux does it; this is another system")
    clocks, preloaded = None, Path(os.environ.pop(_PRELOAD, ""))
    if preloaded.name == LIBRARY:
        clocks = Clocks(options.workers)
        shutil.rmtree(preloaded.parent)
    else:
        folder = tempfile.mkdtemp(prefix="analogsim-clock-")
        library = build(Path(folder))
        if library is not None:  # begin again, with it
            again = [sys.executable, "-m", "benchmarks.storm", *arguments]
            os.execve(sys.executable, again, {**os.environ, _PRELOAD: str(library)})
        shutil.rmtree(folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that disk and servers go with it
    os.environ.update(OMP_NUM_THREADS="1", MLFLOW_DISABLE_TELEMETRY="true")
    for name in _WARM:
        importlib.import_module(name)
    result = run(options, clocks)
    text = json.dumps(result, indent=2)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n", encoding="utf-8")
    return 1 if result["violations"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
