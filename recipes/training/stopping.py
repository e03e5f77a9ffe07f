"""Signals that end a command: each is heard once, whatever it interrupts, and order is made before it is obeyed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import weakref
from collections.abc import Iterator
from types import FrameType

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Ctrl-C, batch systems before they kill, a terminal that is gone
_LOOKED = 0.25  # seconds from one look at whether an interruption got lost to the next
_TOLD = b"\nanalogsim: stopping; what was begun is put in order first (Ctrl-C once more leaves it as it is)\n"


class Stopped(KeyboardInterrupt):
    """A signal came that ends the command.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class _Listening:
    """What was heard in a block of `ended_in_order`."""

    def __init__(self) -> None:
        self._raised: weakref.ref[Stopped] | None = None
        self._again = 0
        self._number: int | None = None
        self._heard, self._left = threading.Event(), threading.Event()
        self._main = threading.get_ident()
        self.deferred = 0
        self.waiting: int | None = None
        # Begun here: in a handler, locks that beginning takes may be those that the signal found taken.
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def hear(self, number: int, _: FrameType | None) -> None:
        """The handler of the signals."""
        underway = self.waiting is not None or (self._raised is not None and self._raised() is not None)
        if not underway:
            if not self.deferred:
                raise self.stopped(number)
            self.waiting = number
            return
        if number == signal.SIGINT:
            self._again += 1
            if self._again == 2:  # a person who does not want to wait any more
                raise KeyboardInterrupt
        with contextlib.suppress(OSError):
            os.write(sys.__stderr__.fileno() if sys.__stderr__ is not None else 2, _TOLD)

    def stopped(self, number: int) -> Stopped:
        """What is raised for a signal; where it is lost on its way, the signal comes again."""
        error = Stopped(number)
        self._raised = weakref.ref(error)
        if self._number is None:
            self._number = number
            self._heard.set()
        return error

    def _watch(self) -> None:
        """Send a signal again as long as nobody has what was raised for it: Python drops it in some callbacks."""
        self._heard.wait()
        while not self._left.wait(_LOOKED):
            if self._number is not None and self._raised is not None and self._raised() is None:
                if hasattr(signal, "pthread_kill"):
                    signal.pthread_kill(self._main, self._number)
                else:
                    signal.raise_signal(self._number)

    def leave(self) -> None:
        """Nothing is heard any more."""
        self._left.set()
        self._heard.set()
        self._watcher.join()


_listening: list[_Listening] = []


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP end a block by `Stopped`, so that checkpoints are whole and runs are ended.

    While that is on its way, and whatever is done for it, more signals interrupt nothing; only the third Ctrl-C does. A
    signal that comes while Python calls what must not fail (``__del__``, some callbacks), which drops it, comes again.
    Signals that are ignored (nohup, jobs in the background) stay so. In another thread than the main one, which alone
    may listen, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    here = _Listening()
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {
        number: signal.signal(number, here.hear) for number in numbers if signal.getsignal(number) != signal.SIG_IGN
    }
    _listening.append(here)
    report = sys.unraisablehook
    sys.unraisablehook = lambda one: None if one.exc_type is Stopped else report(one)  # it comes again: nothing to tell
    try:
        yield
    finally:
        sys.unraisablehook = report
        _listening.remove(here)
        here.leave()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Let no signal come between the steps of a block of `ended_in_order`; what came meanwhile ends it afterwards."""
    here = _listening[-1] if _listening and threading.current_thread() is threading.main_thread() else None
    if here is None:
        yield
        return
    here.deferred += 1
    try:
        yield
    finally:
        here.deferred -= 1
        number = here.waiting
        if not here.deferred and number is not None:
            here.waiting = None
            raise here.stopped(number)
