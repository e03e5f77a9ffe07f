"""Signals that end a command are heard once, wherever they land."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from analogsim.recipes.training.stopping import Stopped, deferred, ended_in_order

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are those of POSIX")


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_ends_the_block(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as told, ended_in_order():  # noqa: PT012 - where the signal lands is the test
        send(number)
        time.sleep(5)
    assert told.value.number == number
    assert signal.getsignal(number) == before


def test_more_of_them_do_not_disturb_what_is_put_in_order() -> None:
    done = []
    with pytest.raises(Stopped) as told, ended_in_order():  # noqa: PT012 - where the signal lands is the test
        try:
            send(signal.SIGTERM)
            time.sleep(5)
        finally:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                send(number)
                time.sleep(0.01)
            done.append(1)
    assert done == [1]
    assert told.value.number == signal.SIGTERM


def test_the_third_ctrl_c_does() -> None:
    with pytest.raises(KeyboardInterrupt) as told, ended_in_order():  # noqa: PT012 - where the signal lands is the test
        try:
            send(signal.SIGINT)
            time.sleep(5)
        finally:
            send(signal.SIGINT)
            time.sleep(0.01)
            send(signal.SIGINT)
            time.sleep(5)
    assert not isinstance(told.value, Stopped)


def test_one_that_python_drops_comes_again() -> None:
    class Callback:
        def __del__(self) -> None:  # what is raised in here goes nowhere
            send()
            time.sleep(0.01)

    dropped: list[str] = []
    went_on: list[int] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda one: dropped.append(type(one.exc_value).__name__)
    try:
        with pytest.raises(Stopped), ended_in_order():  # noqa: PT012 - where the signal lands is the test
            held = Callback()
            del held
            went_on.append(1)  # what was raised went nowhere, and nothing is said of it
            until = time.monotonic() + 5
            while time.monotonic() < until:
                time.sleep(0.01)
    finally:
        sys.unraisablehook = before
    assert went_on == [1]
    assert dropped == []


def test_steps_that_belong_together() -> None:
    done = []
    with pytest.raises(Stopped), ended_in_order():  # noqa: PT012 - where the signal lands is the test
        with deferred(), deferred():
            send()
            time.sleep(0.01)
            done.append(1)
        done.append(2)
    assert done == [1]
    with deferred():  # nobody listens
        done.append(3)
    assert done == [1, 3]


def test_what_is_ignored_stays_so() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_in_order():
            send(signal.SIGHUP)
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_hear_nothing() -> None:
    seen = []

    def work() -> None:
        with ended_in_order(), deferred():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_second_one_is_told() -> None:
    code = (
        "import os, signal, time\nfrom analogsim.recipes.training.stopping import ended_in_order\n"
        "with ended_in_order():\n  try: os.kill(os.getpid(), 15); time.sleep(5)\n"
        "  finally: os.kill(os.getpid(), 15); time.sleep(0.01)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "analogsim: stopping; what was begun is put in order first" in done.stderr
