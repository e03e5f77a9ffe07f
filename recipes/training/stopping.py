"""Signals that end a command: each is heard once, obeyed where nothing is cut in two, and order is made first."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, batch systems before they kill, a terminal that is gone
_LOOKED = 0.05  # seconds from one look at whether a signal that waits, or got lost, can be obeyed to the next
_SOON = 0.25  # seconds; what takes longer to end says so
_PATIENCE = 2.0  # seconds for which a step of a library is left alone; one that waits for so long is ended in the midst
_AT_ONCE = 0.5  # seconds; signals that come closer are one: a key that was hit hard, a launcher that passes them on
_GIVEN_UP = 1.0  # seconds for which a person who does not want to wait is left to wait by what Python cannot end
_TOLD = (
    b"\nanalogsim: stopping; what was begun is put in order first (Ctrl-C again waits for less)\n",
    b"\nanalogsim: stopping; what was begun is put in order first (Ctrl-C once more leaves it as it is)\n",
)

# Modules, and all below them, whose steps are done or not begun: databases and their clients, which log what ends them
# in the midst, or are left with half of it; files; and what of ours has several steps that belong together. What these
# call of ours and is not among them (the training of a trial, which Optuna calls) is ended anywhere.
_WHOLE = (
    *("sqlalchemy", "alembic", "sqlite3", "psycopg", "psycopg2", "pymysql", "optuna", "mlflow", "logging", "weakref"),
    *("analogsim.utils.files", "analogsim.recipes.tracking", "analogsim.recipes.training.owner", __name__),
    *(f"analogsim.recipes.study.{name}" for name in ("beginning", "folder", "lease", "outcome", "runs", "trials")),
    "analogsim.recipes.study.shared_database",
)
_SQL = ("sqlalchemy", "sqlite3", "psycopg", "psycopg2", "pymysql")  # these are left in the midst only where they wait
_OURS = ("analogsim", "devices", "recipes")
_BETWEEN = ("__enter__", "__exit__")  # of whatever `with`: what was begun is not known yet, or not ended yet
_NEVER = ("__del__", "_finalize_fairy")  # what is raised in these goes nowhere, or into a log (SQLAlchemy's pool)


class Stopped(KeyboardInterrupt):
    """A signal came that ends the command.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class _Listening:
    """What was heard in a block of `ended_in_order`.

    Python's handler runs in the main thread, between two of its instructions, and notes the signal; it raises if that
    is a place to end at. A thread beside it hears at once, also while the main thread is in a library's code, says so,
    and has the handler run again until it has ended the block.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.deferred = 0
        self.before: dict[int, Any] = {}
        self._since, self._latest = 0.0, -math.inf
        self._came = self._presses = self._nudges = self._told = 0
        self._given_up = math.inf
        self._raised: weakref.ref[Stopped] | None = None
        self._gone = self._left = False
        self._look: tuple[int, int] | None = None
        self._main, self._process = threading.get_ident(), os.getpid()
        self._ear, self._mouth = socket.socketpair()
        self._mouth.setblocking(False)
        self._fd = signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        # Begun here: in a handler, locks that beginning takes may be those that the signal found taken.
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals."""
        self._note(number)
        if self._left or self._gone:
            return
        if self._further > 1:  # a person who does not want to wait any more
            self._gone = True
            raise KeyboardInterrupt
        if self.underway or self.deferred or frame is None:
            return
        stack = list(_outwards(frame))
        look = (id(frame), frame.f_lasti)
        waits, self._look = look == self._look, look
        where = _in_a_step(stack)
        if where is None:
            raise self.stopped()
        impatient = self._further > 0 or time.monotonic() - self._since > _PATIENCE
        if impatient and where not in _NEVER and (waits or not _is_of(where, _SQL)):
            raise self.stopped()
        self._end_after(stack)

    def _end_after(self, stack: Sequence[FrameType]) -> None:
        """Have whoever called the step that is underway end, at his next line."""
        caller = next((index for index, _ in enumerate(stack) if _in_a_step(stack[index:]) is None), None)
        if caller is None or sys.gettrace() not in (None, _look_at_nothing):  # or there is a debugger
            return

        def end(frame: FrameType, event: str, value: object) -> None:
            frame.f_trace = None
            sys.settrace(None)
            if not (self._left or self._gone or self.underway or self.deferred):
                raise self.stopped()

        stack[caller].f_trace = end
        sys.settrace(_look_at_nothing)

    def stopped(self) -> Stopped:
        """What is raised for the signal that was heard."""
        assert self.number is not None
        error = Stopped(self.number)
        self._raised = weakref.ref(error)
        return error

    @property
    def underway(self) -> bool:
        """Whether somebody has what was raised: Python drops it in some callbacks."""
        return self._raised is not None and self._raised() is not None

    @property
    def lost(self) -> bool:
        """Whether a signal was heard that nothing was raised for, as there was no place for it."""
        return self.number is not None and self._raised is None and not self._gone

    @property
    def _further(self) -> int:
        """How often Ctrl-C was pressed after the first signal."""
        return self._presses - (self.number == signal.SIGINT)

    def _note(self, number: int) -> None:
        if self.number is None:
            self._since, self.number = time.monotonic(), number

    def _watch(self) -> None:
        while True:
            self._ear.settimeout(None if self.number is None else _LOOKED)
            heard = b""
            with contextlib.suppress(TimeoutError):
                heard = self._ear.recv(64)
            for number in heard:
                self._count(number)
            passed = 0.0 if self.number is None else time.monotonic() - self._since
            self._tell(2 if self._came > 1 else int(passed > _SOON))
            if 0 in heard:
                return
            if passed > self._given_up:
                os._exit(128 + signal.SIGINT)
            wanted = self._further > 1 or not (self.underway or self.deferred)
            if wanted and self.number is not None and not heard and not self._gone:
                # The handler had its time, and may not have run: where the main thread began to wait just then.
                self._nudge(self.number)

    def _tell(self, tell: int) -> None:
        """Say that the end takes time (1), or will not be hurried for ever (2), unless as much was said."""
        if tell > self._told:
            self._told = tell
            with contextlib.suppress(OSError):
                os.write(sys.__stderr__.fileno() if sys.__stderr__ is not None else 2, _TOLD[tell - 1])

    def _count(self, number: int) -> None:
        """Take note of a signal that came, unless it was sent from here."""
        if number == 0 or signal.getsignal(number) != self.hear:  # or somebody else listens within the block
            return
        if number == self.number and self._nudges:
            self._nudges -= 1
            return
        now = time.monotonic()
        again = self.number is not None and now - self._latest < _AT_ONCE
        self._note(number)
        if again:
            return
        self._latest = now
        self._came += 1
        if number == signal.SIGINT:
            self._presses += 1
            if self._further > 1:
                self._given_up = min(self._given_up, time.monotonic() - self._since + _GIVEN_UP)

    def _nudge(self, number: int) -> None:
        """Have the handler run again."""
        self._nudges += 1
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(self._main, number)
        else:
            signal.raise_signal(number)

    def leave(self) -> None:
        """Nothing is heard any more."""
        self._left = True
        if os.getpid() == self._process:  # a child that was forked has no watcher
            self._mouth.setblocking(True)
            self._mouth.send(b"\0")
            self._watcher.join()  # first: what it sends now would be for whoever listened before
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if sys.gettrace() is _look_at_nothing:
            sys.settrace(None)
        signal.set_wakeup_fd(self._fd)
        self._ear.close()
        self._mouth.close()


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _look_at_nothing(frame: FrameType, event: str, value: object) -> None:
    """A function for `sys.settrace`, which wants one if any frame is to be looked at."""


def _in_a_step(stack: Sequence[FrameType]) -> str | None:
    """What a thread is in the midst of, from its innermost frame on: a module or a function; None where it may end."""
    for frame in stack:
        if frame.f_code.co_name in _NEVER:
            return frame.f_code.co_name
    for frame in stack:
        name = str(frame.f_globals.get("__name__", ""))
        if frame.f_code is pause.__code__:
            return None
        if _is_of(name, _WHOLE):
            return name
        if frame.f_code.co_name in _BETWEEN:
            return frame.f_code.co_name
        if _is_of(name, _OURS):
            return None
    return None


def _is_of(name: str, modules: Sequence[str]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


_listening: list[_Listening] = []


@functools.cache
def _let_children_be() -> None:
    """Have processes that are forked within a block end as their own program says, and not be heard here."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    while _listening:
        here = _listening.pop()
        signal.set_wakeup_fd(-1)
        for number, handler in here.before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP end a block by `Stopped`, so that checkpoints are whole and runs are ended.

    It is raised where nothing is cut in two: not within a step of a database, of MLflow or of what writes files
    (`_WHOLE`), nor within `deferred`, but right after it, or in the midst of a step that has waited for two seconds.
    What takes longer is told in a line at once. A second Ctrl-C waits for no step. While what was raised is on its way,
    and whatever is done for it, more signals interrupt nothing; only the third Ctrl-C does, and ends the process a
    second later if nothing else has; those that come within half a second count once. A signal that comes while Python
    calls what must not fail (some callbacks), which drops it, comes again. Signals that are ignored (nohup, jobs in the
    background) stay so. In another thread than the main one, which alone may listen, nothing changes.

    Raises:
        Stopped: a signal came; also after a block that had no place for it and has ended meanwhile.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _let_children_be()
    here = _Listening()
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    here.before |= {number: signal.getsignal(number) for number in numbers}
    here.before = {number: handler for number, handler in here.before.items() if handler != signal.SIG_IGN}
    _listening.append(here)
    report = sys.unraisablehook
    sys.unraisablehook = lambda one: None if one.exc_type is Stopped else report(one)  # it comes again: nothing to tell
    try:
        for number in here.before:
            signal.signal(number, here.hear)
        yield
    finally:
        here.leave()
        sys.unraisablehook = report
        if here in _listening:
            _listening.remove(here)
    if here.lost:
        raise here.stopped()


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Let no signal come between the steps of a block of `ended_in_order`; what came meanwhile ends it afterwards."""
    here = _here()
    if here is None:
        yield
        return
    here.deferred += 1
    try:
        yield
    finally:
        here.deferred -= 1
        if not here.deferred and here.number is not None and not here.underway:
            raise here.stopped()


def pause(seconds: float) -> None:
    """Wait in the midst of steps that belong together; a signal ends that at once, as any other waiting."""
    time.sleep(seconds)


def ending() -> bool:
    """Whether a signal has come, so that nobody should wait for what may take long."""
    here = _listening[-1] if _listening else None
    return here is not None and here.number is not None


def _here() -> _Listening | None:
    return _listening[-1] if _listening and threading.current_thread() is threading.main_thread() else None
