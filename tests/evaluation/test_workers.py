"""Chips judged by workers: pools of processes and of threads, here with as few processes as will do."""

from __future__ import annotations

import importlib.util
import io
import multiprocessing
import os
import pickle
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import analogsim
from analogsim.errors import BypassedError, NonFiniteError, WorkerError
from analogsim.evaluation import Chunked, Metric, workers
from analogsim.evaluation.workers import judge_task

HERE = str(Path(__file__).resolve().parent)
if HERE not in sys.path:  # whence workers import it too
    sys.path.append(HERE)
import cluster_questions as questions  # noqa: E402

needs_cloudpickle = pytest.mark.skipif(
    importlib.util.find_spec("cloudpickle") is None, reason="functions made here travel with cloudpickle only"
)

COURSE: dict[str, Any] = {"times": questions.TIMES, "metric": "cross_entropy"}


class Postman(Executor):
    """Workers of other machines: what they get and give goes through pickle, and no file of ours is theirs."""

    def __init__(self, count: int = 2, *, files: bool = False, late: bool = False) -> None:
        self.sent: list[int] = []
        self.seeds: list[tuple[int, ...]] = []
        self._files = files
        self._late = late
        self._pools = [ThreadPoolExecutor(1) for _ in range(count)]

    def submit(self, function, /, *args, **named):  # type: ignore[no-untyped-def]
        (task,) = args
        self.seeds.append(task.seeds)
        content = pickle.dumps(task)
        self.sent.append(len(content))
        pool = self._pools[len(self.sent) % len(self._pools)]
        return pool.submit(self._deliver, function, content)

    def _deliver(self, function: Any, content: bytes) -> Any:
        task = pickle.loads(content)
        if not self._files:
            for parcel in task.parcels:
                object.__setattr__(parcel, "path", "/no/such/file")
        object.__setattr__(task, "caller", ("elsewhere", 1))
        return pickle.loads(pickle.dumps(function(task)))


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as made:
        yield made


def judged(executor: Any, analog: nn.Module | None = None, **options: Any) -> analogsim.Report:
    options = {**COURSE, "chips": 9, **options}
    return analogsim.evaluate(analog or questions.twin(), questions.batches(), executor=executor, **options)


def same(one: analogsim.Report, other: analogsim.Report) -> None:
    assert one.to_dict() == other.to_dict()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compensation": "column+batch-norm", "calibration": questions.batches()},
        {"compensation": "global+affine@1h+batch-norm", "calibration": questions.batches()},
        {"together": 2},
        {"seed": 40, "metric": "accuracy", "compensation": None},
        pytest.param(
            {"faults": lambda seed: analogsim.draw_faults(questions.twin(), "stuck-at", seed)}, marks=needs_cloudpickle
        ),
    ],
    ids=lambda options: "+".join(options),
)
def test_the_report_is_that_of_one_process_bit_by_bit(options: dict[str, Any]) -> None:
    analog = questions.twin()
    for executor in (ThreadPoolExecutor(3), Postman(), Postman(files=True), Chunked(ThreadPoolExecutor(1), 4)):
        same(judged(executor, analog, **options), judged(None, analog, **options))


@pytest.mark.slow
def test_processes(pool: ProcessPoolExecutor) -> None:
    analog = questions.twin()
    same(judged(pool, analog), judged(None, analog))
    parts = analogsim.ablate(analog, questions.batches(), chips=2, **COURSE, executor=pool)
    assert str(parts) == str(analogsim.ablate(analog, questions.batches(), chips=2, **COURSE))
    layers = analogsim.sensitivity(analog, questions.batches(), chips=2, executor=pool)
    alone = analogsim.sensitivity(analog, questions.batches(), chips=2)
    assert str(layers) == str(alone)
    target = alone.clean
    assert str(layers.keep_digital(target, executor=pool)) == str(alone.keep_digital(target))


def test_the_twin_is_left_alone() -> None:
    analog = questions.twin()
    analogsim.program(analog, seed=42)
    analogsim.drift(analog, "1d")
    analog.eval()
    x = questions.batches()[0][0]
    before = analog(x)
    judged(Postman(), analog)
    assert torch.equal(analog(x), before)


def test_network_and_data_are_sent_once_a_worker() -> None:
    big = [(torch.randn(500, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(500, dtype=torch.long))]
    analog = questions.twin()
    for files, most in ((False, 12), (True, 0)):
        executor = Postman(2, files=files)
        options = {"chips": 60, "times": ("1s",), "metric": "cross_entropy"}
        report = analogsim.evaluate(analog, big, executor=Chunked(executor, 1), **options)
        same(report, analogsim.evaluate(analog, big, **options))
        with_contents = [size for size in executor.sent if size > 10_000]
        assert len(with_contents) <= most
        assert max([size for size in executor.sent if size <= 10_000]) < 3000


def test_tensors_that_share_memory_are_packed_once() -> None:
    x = torch.randn(10_000, 6)
    data = list(zip(x.split(100), torch.zeros(10_000, dtype=torch.long).split(100), strict=True))
    executor = Postman(1)
    analogsim.evaluate(questions.twin(), data, chips=1, times=("1s",), executor=executor)
    assert max(executor.sent) < 1.5 * (x.nbytes + 8 * len(x))


def test_tasks_grow_with_the_time_that_chips_take() -> None:
    executor = Postman(1)
    judged(executor, chips=60)
    sizes = [len(seeds) for seeds in executor.seeds]
    assert sizes[0] == 1
    assert max(sizes) > 5
    fixed = Postman(1)
    judged(Chunked(fixed, 50), chips=120)
    assert {len(seeds) for seeds in fixed.seeds} == {50, 20}
    with pytest.raises(ValueError, match="Chunked: chips must be an integer >= 1, got 0"):
        Chunked(fixed, 0)


@needs_cloudpickle
def test_errors_are_those_of_one_process() -> None:
    bypassed = questions.twin()
    bypassed.forward = nn.Sequential(nn.Flatten(), nn.Linear(6, 4)).forward  # type: ignore[method-assign]
    said = []
    for executor in (None, Postman()):
        with pytest.raises(BypassedError) as error:
            judged(executor, bypassed)
        said.append(str(error.value))

    def broken(seed: int) -> Any:
        if seed >= 3:
            raise KeyError(f"chip {seed}")
        return None

    for executor in (None, Postman(), ThreadPoolExecutor(3)):
        with pytest.raises(KeyError, match="chip 3"):
            judged(executor, faults=broken)
    assert said[0] == said[1]
    wild = Metric("wild", lambda output, target: output[:, 0] * float("nan"))
    for executor in (None, Postman()):
        with pytest.raises(NonFiniteError, match="wild"):
            judged(executor, metric=wild)


@needs_cloudpickle
def test_an_error_that_cannot_travel_says_the_same() -> None:
    analog = questions.twin()

    def peculiar(seed: int) -> Any:
        raise questions.Peculiar("this", "that")

    with pytest.raises(RuntimeError, match="Peculiar: this and that"):
        judged(Postman(), analog, faults=peculiar)


def test_warnings_come_out_here() -> None:
    for executor in (None, Postman(), ThreadPoolExecutor(2)):
        with pytest.warns(UserWarning, match="this score is a joke"):
            judged(executor, metric=questions.told)
    with pytest.raises(UserWarning, match="this score is a joke"):  # as an error where warnings are errors
        judged(Postman(), metric=questions.told)


def test_surroundings_of_a_worker_are_as_before() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        executor = Postman(1)
        judged(executor, chips=2)
    finally:
        torch.set_num_threads(before)
    assert executor._pools[0].submit(torch.get_num_threads).result() >= 1


@needs_cloudpickle
def test_what_cannot_be_sent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"the metric cannot be sent to workers: TypeError: .*lock"):
        judged(Postman(), metric=Metric("held", lambda output, target, lock=lock: output[:, 0]))
    with pytest.raises(TypeError, match=r"the faults cannot be sent to workers"):
        judged(Postman(), faults=lambda seed, lock=lock: None)
    monkeypatch.setattr(workers, "_pickler", lambda: pickle)
    with pytest.raises(TypeError, match=r"the metric cannot be sent .*in place of a lambda.* or install cloudpickle"):
        judged(Postman(), metric=lambda output, target: output[:, 0])
    with pytest.raises(TypeError, match=r"executor must have a submit, .* got int"):
        judged(3)


def test_a_module_that_nobody_would_find_is_sent_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cloudpickle", reason="needs analogsim-torch[cluster]")
    file = tmp_path / "lonely_nets.py"
    file.write_text("from torch import nn\nclass Lonely(nn.Linear):\n    pass\n")
    spec = importlib.util.spec_from_file_location("lonely_nets", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lonely_nets", module)
    spec.loader.exec_module(module)
    assert module in workers.modules_of_nowhere()
    assert not {torch, analogsim, np, pytest, questions} & set(workers.modules_of_nowhere())
    layer = module.Lonely(6, 4)
    content = workers.dumped(layer)
    monkeypatch.delitem(sys.modules, "lonely_nets")
    found = torch.load(io.BytesIO(content), weights_only=False)
    assert torch.equal(found.weight, layer.weight)


def test_what_a_worker_cannot_import_is_told() -> None:
    class Lost(Executor):
        def submit(self, function, /, *args, **named):  # type: ignore[no-untyped-def]
            done: Future[Any] = Future()
            task = args[0]
            object.__setattr__(task, "caller", ("elsewhere", 1))
            for parcel in task.parcels:
                object.__setattr__(parcel, "content", b"not a network")
            done.set_result(function(task))
            return done

    with pytest.raises(TypeError, match=r"cannot unpack the network and its data: .*has to be importable there"):
        judged(Lost())


def test_an_executor_that_takes_nothing(tmp_path: Path) -> None:
    closed = ThreadPoolExecutor(1)
    closed.shutdown()
    with pytest.raises(WorkerError, match=r"take no more tasks \(RuntimeError.*give journal= to keep them"):
        judged(closed)
    with pytest.raises(WorkerError, match=r"are kept in '.*chips.jsonl'; the same call goes on with the rest"):
        judged(closed, journal=tmp_path / "chips.jsonl")
    assert [file.name for file in tmp_path.iterdir()] == ["chips.jsonl"]


class Gives(Executor):
    """An executor that is not what it should be."""

    def __init__(self, give: Any) -> None:
        self.give = give
        self.before: Any = None

    def submit(self, function: Any, /, *args: Any, **_: Any) -> Any:
        return self.give(self, function(*args))


def done(value: Any) -> Any:
    future: Any = Future()
    future.set_result(value)
    return future


def first_again(executor: Gives, reply: Any) -> Any:
    executor.before = executor.before or reply
    return done(executor.before)


def test_an_executor_that_is_none() -> None:
    with pytest.raises(TypeError, match="got the class ThreadPoolExecutor; make one of it"):
        judged(ThreadPoolExecutor)
    with pytest.raises(TypeError, match="must give a future, with done and result, and that of Gives gave _Reply"):
        judged(Gives(lambda _, reply: reply))
    with pytest.raises(WorkerError, match=r"a future of Gives holds NoneType in place .* give journal= to keep them"):
        judged(Gives(lambda _, reply: done(None)))
    # Futures that are done already come in no order.
    with pytest.raises(WorkerError, match=r"holds the answer of another task: chips \(0,\), not \([1-9],\)"):
        judged(Gives(first_again))


@pytest.mark.slow
def test_a_worker_that_dies_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "chips.jsonl"
    analog = questions.twin()
    for kind in ("spawn", "fork"):
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(kind)) as made:
            judged(made, analog, chips=5, journal=path)
            made.submit(os._exit, 9)
            with pytest.raises(WorkerError, match=r"the workers are gone .*BrokenProcessPool.*the same call goes on"):
                judged(made, analog, chips=300, journal=path)
    same(judged(None, analog, chips=20, journal=path), judged(None, analog, chips=20))


def test_jobs_that_are_no_futures_of_pythons() -> None:
    class Job:
        def __init__(self, task: Any) -> None:
            self.task, self.looks = task, 0

        def done(self) -> bool:
            self.looks += 1
            return self.looks > 1

        def result(self) -> Any:
            return judge_task(self.task)

    class Jobs:
        def submit(self, function: Any, task: Any) -> Job:
            return Job(task)

    same(judged(Jobs()), judged(None))


def test_ranks_share_the_chips(tmp_path: Path) -> None:
    """Two processes, here two threads that meet."""
    meeting, told = threading.Barrier(2), [None, None]

    class Rank:
        world = 2

        def __init__(self, rank: int) -> None:
            self.rank = rank

        def gather(self, value: Any) -> list[Any]:
            told[self.rank] = value
            meeting.wait()
            both = list(told)
            meeting.wait()
            return both

        def first(self, work: Any) -> Any:
            return self.gather(work() if self.rank == 0 else None)[0]

    def both(work: Any) -> list[Any]:
        with ThreadPoolExecutor(2) as threads:
            return list(threads.map(lambda rank: work(Rank(rank)), range(2)))

    twins = [questions.twin() for _ in range(2)]  # here: their seed is that of the process, and threads share it
    alone = judged(None)
    for report in both(lambda rank: judged(rank, twins[rank.rank])):
        same(report, alone)
    path = tmp_path / "chips.jsonl"
    judged(None, chips=4, journal=path)
    for report in both(lambda rank: judged(rank, twins[rank.rank], journal=path)):
        np.testing.assert_array_equal(report.values, alone.values)
    assert path.read_text().count('"chip"') == 9

    def faults(seed: int) -> None:
        raise KeyError(f"chip {seed}")

    def failing(rank: Rank) -> str:
        with pytest.raises(KeyError) as error:
            judged(rank, twins[rank.rank], faults=faults)
        return str(error.value)

    assert both(failing) == ["'chip 0'"] * 2
