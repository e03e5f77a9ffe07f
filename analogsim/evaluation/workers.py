"""Chips judged by others: the workers of an executor, or the processes of a group.

A worker has to have the network and the data, once, not with each chip. So what is sent with a task is an address: the
digest of the contents, and a file where this machine (or all that share its disk) find them. A worker that has the
contents already takes those, one that cannot find the file says so, and the task is sent again with the contents in it.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import pickle
import platform
import sys
import sysconfig
import tempfile
import threading
import time
import traceback
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

from analogsim.errors import InvalidTypeError, InvalidValueError, WorkerError
from analogsim.evaluation.course import ChipScores, Course
from analogsim.layers.module import matrices_of
from analogsim.utils.files import write_whole

T = TypeVar("T")

# How long a task should take, seconds: much more than it takes to send it, and little to lose when a worker dies.
_TASK_SECONDS = 2.0
# How often tasks are looked at whose futures nobody can wait for, seconds.
_LOOK_AGAIN = 0.05


class Submits(Protocol):
    """What is asked of an executor: that of `concurrent.futures`, or one that has its ``submit``."""

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Any:
        """Begin a call elsewhere; gives a future, with ``done``, ``result`` and ``cancel``."""


@runtime_checkable
class Ranks(Protocol):
    """Processes that all make this same call, as torchrun starts them, and share the chips."""

    @property
    def rank(self) -> int:
        """Number of this process."""

    @property
    def world(self) -> int:
        """How many there are."""

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in order."""

    def first(self, work: Callable[[], T]) -> T:
        """What comes of something that process 0 alone does."""


@dataclass(frozen=True)
class Chunked:
    """An executor whose tasks are of a fixed number of chips, where starting one is dear: jobs of a batch system.

    Args:
        executor: that takes the tasks.
        chips: of one task. Without this value tasks are made to take about two seconds.
    """

    executor: Submits
    chips: int

    def __post_init__(self) -> None:
        if isinstance(self.chips, bool) or not isinstance(self.chips, int) or self.chips < 1:
            raise InvalidValueError(f"Chunked: chips must be an integer >= 1, got {self.chips!r}")


Executor = Submits | Chunked | Ranks
"""Who judges chips besides this process."""


@dataclass(frozen=True)
class _Parcel:
    """Contents, or where they are.

    Args:
        digest: of the contents.
        path: a file that holds them.
        content: they themselves.
    """

    digest: str
    path: str
    content: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class _Surroundings:
    """What numbers depend on beside what is asked; the same in all processes."""

    threads: int
    dtype: torch.dtype
    precision: str
    deterministic: bool

    @classmethod
    def here(cls) -> _Surroundings:
        return cls(
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
        )

    def put(self) -> None:
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        torch.set_default_dtype(self.dtype)
        torch.set_float32_matmul_precision(self.precision)
        torch.use_deterministic_algorithms(self.deterministic)


@dataclass(frozen=True)
class _Task:
    parcels: tuple[_Parcel, ...]
    seeds: tuple[int, ...]
    together: int
    surroundings: _Surroundings
    caller: tuple[str, int]


@dataclass(frozen=True)
class _Failure:
    """The error of a chip."""

    seed: int
    error: Exception
    trace: str

    def leave(self) -> Exception:
        """The error as it was, with a note of where."""
        self.error.add_note(f"in a worker:\n{self.trace}")
        return self.error


@dataclass(frozen=True)
class _Told:
    """A warning."""

    text: str
    category: type[Warning]
    filename: str
    line: int


@dataclass(frozen=True)
class _Reply:
    worker: str
    seconds: float = 0.0
    scores: tuple[ChipScores, ...] = ()
    failure: _Failure | None = None
    missing: bool = False
    warned: tuple[_Told, ...] = ()


# In a worker

_HERE = threading.local()  # each thread has networks of its own: chips are written into them


def judge_task(task: _Task) -> _Reply:
    """Judge the chips of a task, in a worker; errors are told, not raised."""
    here = platform.node(), os.getpid()
    worker = f"{here[0]}/{here[1]}/{threading.get_ident()}"
    if here == task.caller:  # a thread of the process that asks: all is as there
        return replace(_judge(task), worker=worker)
    before = _Surroundings.here()
    with _recorded() as warned:
        try:
            task.surroundings.put()
            reply = _judge(task)
        finally:
            before.put()
    return replace(reply, worker=worker, warned=tuple(warned))


def _judge(task: _Task) -> _Reply:
    try:
        course = _course_of(task.parcels)
    except Exception as error:
        wrong = InvalidTypeError(
            f"evaluate: a worker on {platform.node()} cannot unpack the network and its data: {type(error).__name__}: "
            f"{error}; what they are made of has to be importable there"
        )
        return _Reply("", failure=_Failure(task.seeds[0], wrong, traceback.format_exc()))
    if course is None:
        return _Reply("", missing=True)
    begun = time.perf_counter()
    scores, failure = _as_far_as_it_goes(course, task.seeds, task.together)
    return _Reply("", time.perf_counter() - begun, tuple(scores), failure)


def _as_far_as_it_goes(course: Course, seeds: Sequence[int], together: int) -> tuple[list[ChipScores], _Failure | None]:
    """The scores of chips up to the first that fails."""
    scores: list[ChipScores] = []
    for start in range(0, len(seeds), together):
        group = seeds[start : start + together]
        try:
            scores += course.judge(group, together=together > 1)
        except Exception as error:
            return scores, _Failure(group[0], _that_can_be_sent(error), traceback.format_exc())
    return scores, None


def _that_can_be_sent(error: Exception) -> Exception:
    """An error, or one that says the same where it does not survive the way."""
    with suppress(Exception):  # as its constructor and its contents will have it
        copy = pickle.loads(pickle.dumps(error))
        if type(copy) is type(error) and str(copy) == str(error):
            return error
    return RuntimeError(f"{type(error).__name__}: {error}")  # not one of ours: so is what it stands for


def _course_of(parcels: tuple[_Parcel, ...]) -> Course | None:
    """The course that parcels hold; None where one of them is not here."""
    known: OrderedDict[str, Any] = _HERE.__dict__.setdefault("known", OrderedDict())
    found = []
    for parcel in parcels:
        if parcel.digest not in known:
            content = parcel.content if parcel.content is not None else _fetched(parcel)
            if content is None:
                return None
            known[parcel.digest] = torch.load(io.BytesIO(content), weights_only=False)
        known.move_to_end(parcel.digest)
        found.append(known[parcel.digest])
    while len(known) > len(parcels):
        known.popitem(last=False)
    data: Mapping[str, Any] = found[0]
    course: Course = found[1]
    return replace(course, data=data["data"], calibration=replace(course.calibration, loader=data["calibration"]))


def _fetched(parcel: _Parcel) -> bytes | None:
    try:
        content = Path(parcel.path).read_bytes()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == parcel.digest else None


_RECORDING = threading.Lock()
_RECORDS: dict[int, list[_Told]] = {}
_BEFORE: list[warnings.catch_warnings[Any]] = []


@contextmanager
def _recorded() -> Iterator[list[_Told]]:
    """The warnings of this thread, told to nobody else. Python's own means would take those of other threads too."""

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object, **__: object
    ) -> None:
        told = _Told(str(message), category, filename, lineno)
        _RECORDS.get(threading.get_ident(), []).append(told)

    warned: list[_Told] = []
    with _RECORDING:
        if not _RECORDS:
            _BEFORE.append(warnings.catch_warnings())
            _BEFORE[-1].__enter__()
            warnings.simplefilter("always")
            warnings.showwarning = show
        _RECORDS[threading.get_ident()] = warned
    try:
        yield warned
    finally:
        with _RECORDING:
            del _RECORDS[threading.get_ident()]
            if not _RECORDS:
                _BEFORE.pop().__exit__(None, None, None)


# Where the work is handed out


def judge_elsewhere(
    executor: Submits | Chunked, course: Course, seeds: Sequence[int], together: int, place: Path | None
) -> Iterator[list[ChipScores]]:
    """The scores of chips, judged by the workers of an executor, as they come.

    Args:
        executor: hands out the tasks.
        course: what chips go through.
        seeds: the chips.
        together: how many at once.
        place: a folder for what all workers need; None for a temporary one.

    Raises:
        TypeError: the network, the data or another part cannot be sent.
        WorkerError: workers died, or the executor takes no task; what came before is given first.
        Exception: what a chip raised, that of the first of them as in one process.
    """
    taker = getattr(executor, "executor", executor)
    if isinstance(taker, type) or not callable(getattr(taker, "submit", None)):
        got = f"the class {taker.__name__}; make one of it" if isinstance(taker, type) else type(taker).__name__
        raise InvalidTypeError(f"evaluate: executor must have a submit, as those of concurrent.futures do, got {got}")
    parts = _packed(course)
    with _folder(place) as folder:
        parcels = []
        for content in parts:
            parcel = _Parcel(hashlib.sha256(content).hexdigest(), "")
            file = folder / parcel.digest
            write_whole(file, content)
            parcels.append(replace(parcel, path=str(file)))
        yield from _Dispatch(executor, parcels, parts, seeds, together).replies()


@contextmanager
def _folder(place: Path | None) -> Iterator[Path]:
    """A folder that goes afterwards; if it is there, somebody was killed who should have taken it away."""
    if place is None:
        with tempfile.TemporaryDirectory(prefix="analogsim-") as made:
            yield Path(made)
        return
    place.mkdir(mode=0o700, exist_ok=True)
    try:
        yield place
    finally:
        for file in place.iterdir():
            file.unlink()
        place.rmdir()


class _Dispatch:
    """Tasks handed out until all chips are judged.

    Args:
        executor: takes them.
        parcels: what workers need, by address.
        contents: it itself.
        seeds: the chips.
        together: how many at once.
    """

    def __init__(
        self,
        executor: Submits | Chunked,
        parcels: Sequence[_Parcel],
        contents: Sequence[bytes],
        seeds: Sequence[int],
        together: int,
    ) -> None:
        fixed = executor if isinstance(executor, Chunked) else None
        self._executor: Submits = executor.executor if isinstance(executor, Chunked) else executor
        self._fixed = None if fixed is None else fixed.chips
        self._parcels = tuple(parcels)
        self._contents = contents
        self._together = together
        self._left = deque(seeds)
        self._again: deque[tuple[int, ...]] = deque()  # chips of workers that did not find the parcels
        self._flying: dict[Any, tuple[int, ...]] = {}
        self._seconds: float | None = None  # of a chip
        self._workers: set[str] = set()
        self._failure: _Failure | None = None
        self._told: dict[str, dict[Any, Any]] = {}

    def replies(self) -> Iterator[list[ChipScores]]:
        try:
            while True:
                self._launch()
                if not self._flying:
                    break
                for future in self._landed():
                    yield from self._taken(future)
        finally:
            for future in self._flying:
                with suppress(Exception):  # one that began cannot be stopped
                    future.cancel()
        if self._failure is not None:
            raise self._failure.leave()

    def _launch(self) -> None:
        """Keep as many tasks on their way as there may be workers, and more, so that none waits."""
        window = max(4, 2 * (os.cpu_count() or 1), 4 * len(self._workers))
        while len(self._flying) < window and (self._again or self._left):
            full = bool(self._again)
            seeds = self._again.popleft() if full else self._next()
            parcels = self._parcels
            if full:
                parcels = tuple(replace(p, content=c) for p, c in zip(parcels, self._contents, strict=True))
            caller = platform.node(), os.getpid()
            task = _Task(parcels, seeds, self._together, _Surroundings.here(), caller)
            try:
                future = self._executor.submit(judge_task, task)
            except Exception as error:
                raise _lost(error) from error
            if not (hasattr(future, "done") and hasattr(future, "result")):
                raise InvalidTypeError(
                    "evaluate: the submit of an executor must give a future, with done and result, and that of "
                    f"{type(self._executor).__name__} gave {type(future).__name__}"
                )
            self._flying[future] = seeds

    def _next(self) -> tuple[int, ...]:
        """The chips of the next task."""
        count = self._together
        if self._fixed is not None:
            count = self._fixed
        elif self._seconds is not None:
            fair = -(-len(self._left) // (2 * max(1, len(self._workers))))
            count = max(count, min(fair, int(_TASK_SECONDS / max(self._seconds, 1e-6))))
            count -= count % self._together
        return tuple(self._left.popleft() for _ in range(min(count, len(self._left))))

    def _landed(self) -> list[Any]:
        """The tasks that are through; waits for one at least."""
        if all(isinstance(future, Future) for future in self._flying):
            return list(wait(self._flying, return_when=FIRST_COMPLETED).done)
        while True:
            done = [future for future in self._flying if future.done()]
            if done:
                return done
            time.sleep(_LOOK_AGAIN)

    def _taken(self, future: Any) -> Iterator[list[ChipScores]]:
        """What a task brought."""
        if future not in self._flying:  # stopped meanwhile, since a chip before it failed
            return
        seeds = self._flying.pop(future)
        try:
            reply: _Reply = future.result()
        except Exception as error:
            for other in [other for other in self._flying if other.done()]:
                with suppress(Exception):  # died like this one
                    yield list(other.result().scores)
            raise _lost(error) from error
        self._check(reply, seeds)
        for told in reply.warned:
            self._tell(told)
        self._workers.add(reply.worker)
        if reply.missing:
            self._again.append(seeds)
            return
        if reply.scores:
            self._seconds = reply.seconds / len(reply.scores)
            yield list(reply.scores)
        if reply.failure is not None:
            self._fail(reply.failure)

    def _check(self, reply: object, seeds: tuple[int, ...]) -> None:
        """Refuse what no worker answers to a task of these chips.

        Raises:
            WorkerError: the executor lost the answer, or gives that of another task.
        """
        who = f"evaluate: a future of {type(self._executor).__name__}"
        if not isinstance(reply, _Reply):
            raise WorkerError(f"{who} holds {type(reply).__name__} in place of what the task answers")
        judged = tuple(chip.seed for chip in reply.scores)
        whole = reply.missing or reply.failure is not None
        if judged != seeds and not (whole and judged == seeds[: len(judged)]):
            raise WorkerError(f"{who} holds the answer of another task: chips {judged}, not {seeds}")

    def _fail(self, failure: _Failure) -> None:
        """Judge only what comes before a chip that failed: one process would have met that first."""
        if self._failure is None or failure.seed < self._failure.seed:
            self._failure = failure
        first = self._failure.seed
        self._left = deque(seed for seed in self._left if seed < first)
        self._again = deque(seeds for seeds in self._again if seeds[0] < first)
        for future, seeds in list(self._flying.items()):
            if seeds[0] > first and future.cancel():
                del self._flying[future]

    def _tell(self, told: _Told) -> None:
        """Warn as the worker would have, here."""
        module = next(
            (name for name, one in list(sys.modules.items()) if getattr(one, "__file__", None) == told.filename),
            told.filename,
        )
        registry = self._told.setdefault(told.filename, {})
        warnings.warn_explicit(told.text, told.category, told.filename, told.line, module, registry)


def _lost(error: Exception) -> WorkerError:
    said = f": {error}" if str(error) else ""
    return WorkerError(f"evaluate: the workers are gone or take no more tasks ({type(error).__name__}{said})")


def _pickler() -> Any:
    """What takes functions and classes of scripts and notebooks too, where it is installed; else Python's own."""
    try:
        return importlib.import_module("cloudpickle")
    except ImportError:
        return pickle


def _packed(course: Course) -> tuple[bytes, bytes]:
    """What workers need, in two parts: the data, which many questions share, and all else.

    Raises:
        TypeError: something in it cannot be pickled; it says what.
    """
    data = {"data": course.data, "calibration": course.calibration.loader}
    rest = replace(course, data=None, calibration=replace(course.calibration, loader=None))  # type: ignore[arg-type]
    states = [matrix.analog for matrix in matrices_of(course.analog)]
    chips = [state.chip for state in states]
    try:
        for state in states:
            state.chip = None  # a worker writes chips of its own
        return dumped(data), dumped(rest)
    except Exception as error:
        named: Mapping[str, object] = {
            **{f"the {name}": value for name, value in data.items()},
            **{f"the {spec.name}": getattr(rest, spec.name) for spec in fields(rest)},
        }
        for name, value in named.items():
            try:
                dumped(value)
            except Exception as reason:
                raise InvalidTypeError(_cannot_be_sent(name, reason)) from error
        raise InvalidTypeError(_cannot_be_sent("the network", error)) from error
    finally:
        for state, chip in zip(states, chips, strict=True):
            state.chip = chip


def dumped(value: object) -> bytes:
    """A value as workers get it."""
    buffer, pickler = io.BytesIO(), _pickler()
    with ExitStack() as stack:
        if pickler is not pickle:
            for module in modules_of_nowhere():
                pickler.register_pickle_by_value(module)
                stack.callback(pickler.unregister_pickle_by_value, module)
        torch.save(value, buffer, pickle_module=pickler)  # tensors that share memory are written once
    return buffer.getvalue()


def modules_of_nowhere() -> list[ModuleType]:
    """Modules that a worker would not find by their name: such as a file that was named on the command line."""
    installed = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
    found = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        top = name.partition(".")[0]
        if isinstance(file, str) and file.endswith(".py") and top != "__main__" and not file.startswith(installed):
            known = sys.modules.get(top)
            specs = (finder.find_spec(top, None) for finder in sys.meta_path if hasattr(finder, "find_spec"))
            spec = next((spec for spec in specs if spec is not None), None)
            if spec is None or not _same_place(spec.origin, getattr(known, "__file__", None)):
                found.append(module)
    return found


def _same_place(origin: str | None, file: str | None) -> bool:
    """Whether a module would come from where it came from; one without a file, a mere folder, would."""
    return origin is None or file is None or os.path.realpath(origin) == os.path.realpath(file)


def _cannot_be_sent(name: str, error: Exception) -> str:
    what = "network" if name == "the analog" else name.removeprefix("the ")
    more = (
        "" if _pickler() is not pickle else ", or install cloudpickle, which takes lambdas and classes of scripts too"
    )
    return (
        f"evaluate: the {what} cannot be sent to workers: {type(error).__name__}: {error}; executors need what can be "
        "pickled: in place of a lambda, a closure or an open file give a function or a class of a module that workers "
        f"can import{more}"
    )


# Processes that all make the same call


def judge_in_ranks(ranks: Ranks, course: Course, seeds: Sequence[int], together: int) -> Iterator[list[ChipScores]]:
    """The scores of chips shared out over processes, the same in all of them, round by round.

    Raises:
        Exception: what a chip raised, that of the first of them, in all processes.
    """
    each, done = together, 0
    while done < len(seeds):
        now = seeds[done : done + each * ranks.world]
        start, stop = (-(-len(now) * (ranks.rank + offset) // ranks.world) for offset in (0, 1))
        begun = time.perf_counter()
        scores, failure = _as_far_as_it_goes(course, now[start:stop], together)
        per_chip = (time.perf_counter() - begun) / max(1, len(scores))
        replies = ranks.gather((scores, failure, per_chip))
        yield [chip for judged, _, _ in replies for chip in judged]
        failures = [failed for _, failed, _ in replies if failed is not None]
        if failures:
            raise min(failures, key=lambda failed: failed.seed).leave()
        done += len(now)
        slowest = max(seconds for _, _, seconds in replies)
        each = max(together, int(_TASK_SECONDS / max(slowest, 1e-6)))
