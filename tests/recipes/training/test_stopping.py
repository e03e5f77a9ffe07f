"""Signals that end a command are heard once, wherever they land."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from analogsim.recipes.training import stopping
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


def test_the_third_ctrl_c_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_AT_ONCE", 0.0)
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
    class Held:
        pass

    def callback(_: object) -> None:  # what is raised in here goes nowhere
        send()
        time.sleep(0.01)

    dropped: list[str] = []
    went_on: list[int] = []
    before, sys.unraisablehook = sys.unraisablehook, lambda one: dropped.append(type(one.exc_value).__name__)
    try:
        with pytest.raises(Stopped), ended_in_order():  # noqa: PT012 - where the signal lands is the test
            held = Held()
            watched = weakref.ref(held, callback)
            del held
            went_on.append(1)  # what was raised went nowhere, and nothing is said of it
            until = time.monotonic() + 5
            while time.monotonic() < until:
                time.sleep(0.01)
    finally:
        sys.unraisablehook = before
    assert watched() is None
    assert went_on == [1]
    assert dropped == []


def test_nothing_is_raised_where_python_would_drop_it() -> None:
    class Held:
        def __del__(self) -> None:
            send()
            time.sleep(0.01)
            done.append("whole")

    done: list[str] = []
    with pytest.raises(Stopped), ended_in_order():  # noqa: PT012 - where the signal lands is the test
        held = Held()
        del held
        done.append("too late")
    assert done == ["whole"]


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
        "  finally: time.sleep(0.6); os.kill(os.getpid(), 15); time.sleep(0.1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.count("analogsim: stopping; what was begun is put in order first") == 2


def library(code: str, name: str = "sqlalchemy.pool.made_up") -> dict[str, Any]:
    """What a module of that name would hold."""
    module: dict[str, Any] = {"__name__": name}
    exec(code, module)
    return module


STEP = """
import time
import weakref
from pathlib import Path
from typing import Any
def step(seconds, done):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)
    done.append("whole")
"""


def test_a_step_of_a_database_is_done_or_not_begun() -> None:
    """SQLAlchemy logs what ends it as it resets a connection, with a traceback."""
    step, done = library(STEP)["step"], list[str]()
    with pytest.raises(Stopped), ended_in_order():  # noqa: PT012 - where the signal lands is the test
        threading.Timer(0.1, send).start()
        step(0.4, done)
        time.sleep(5)
        done.append("too late")
    assert done == ["whole"]


def test_one_that_waits_is_ended_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_PATIENCE", 0.2)
    step, done, began = library(STEP, "mlflow.store.made_up")["step"], list[str](), time.monotonic()
    with pytest.raises(Stopped), ended_in_order():  # noqa: PT012 - where the signal lands is the test
        send()
        step(5, done)
    assert done == []
    assert time.monotonic() - began < 2


def test_a_key_that_is_hit_hard_counts_once() -> None:
    """Also what a launcher passes on besides the terminal: three at once do not leave all as it is."""
    done = []
    with pytest.raises(Stopped), ended_in_order():  # noqa: PT012 - where the signal lands is the test
        try:
            send(signal.SIGINT)
            time.sleep(5)
        finally:
            for _ in range(4):
                send(signal.SIGINT)
                time.sleep(0.02)
            time.sleep(0.2)
            done.append(1)
    assert done == [1]


def test_a_second_ctrl_c_waits_for_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_AT_ONCE", 0.0)
    step, done, began = library(STEP)["step"], list[str](), time.monotonic()
    with pytest.raises(Stopped), ended_in_order():  # noqa: PT012 - where the signal lands is the test
        threading.Timer(0.1, send, [signal.SIGINT]).start()
        threading.Timer(0.3, send, [signal.SIGINT]).start()
        step(5, done)
    assert done == []
    assert time.monotonic() - began < 1.5


def test_what_is_called_in_the_midst_of_a_step_may_say_that_it_waits() -> None:
    """As a worker does for a database server that is away, which SQLAlchemy asks for a connection to."""
    call = library("def call(what, *args): what(*args)")["call"]
    began = time.monotonic()
    with pytest.raises(Stopped), ended_in_order():  # noqa: PT012 - where the signal lands is the test
        threading.Timer(0.1, send).start()
        call(stopping.pause, 5)
    assert time.monotonic() - began < 1.5


def test_ours_below_a_step_may_end() -> None:
    """Optuna calls the training of a trial."""
    call, ours = library("def call(what, *args): what(*args)", "optuna.made_up")["call"], library(STEP, "analogsim.x")
    done: list[str] = []
    with pytest.raises(Stopped), ended_in_order():  # noqa: PT012 - where the signal lands is the test
        threading.Timer(0.1, send).start()
        call(ours["step"], 5, done)
    assert done == []


def test_where_there_is_no_place_it_ends_the_block_at_its_end() -> None:
    step, done = library(STEP)["step"], list[str]()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped), ended_in_order():  # noqa: PT012 - where the signal lands is the test
        threading.Timer(0.05, send).start()
        step(0.1, done)
    assert done == ["whole"]
    assert signal.getsignal(signal.SIGTERM) == before
    assert not stopping.ending()


def test_others_know_that_the_end_has_come() -> None:
    seen = [stopping.ending()]
    with pytest.raises(Stopped), ended_in_order():  # noqa: PT012 - where the signal lands is the test
        seen.append(stopping.ending())
        try:
            send()
            time.sleep(5)
        finally:
            seen.append(stopping.ending())
    assert seen == [False, False, True]


def test_who_listens_within_the_block_is_left_alone() -> None:
    heard = []
    with ended_in_order():
        before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
        send()
        time.sleep(0.3)
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_signals_of_a_child_are_its_own() -> None:
    with ended_in_order():
        child = os.fork()
        if not child:
            time.sleep(5)
            os._exit(0)
        time.sleep(0.1)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
        time.sleep(0.2)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM


BUSY = """
import hashlib, os, sys, threading, time
from analogsim.recipes.training.stopping import ended_in_order
with ended_in_order():
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", {rounds})  # no instruction of Python's meanwhile
print("went on", flush=True)
"""


def test_it_is_told_at_once_while_a_library_is_at_work() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BUSY.format(rounds=30_000_000)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        process.stderr.readline()
        assert "stopping; what was begun is put in order first (Ctrl-C again" in process.stderr.readline()
        assert process.poll() is None
        time.sleep(0.6)
        process.send_signal(signal.SIGINT)
        process.stderr.readline()
        assert "Ctrl-C once more leaves it as it is" in process.stderr.readline()
        time.sleep(0.6)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stdout.read() == ""


@pytest.mark.filterwarnings("ignore:Heartbeat of storage:UserWarning")
def test_a_storage_is_left_in_order_wherever_a_signal_lands(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At 30 drawn moments of asking and telling."""
    optuna = pytest.importorskip("optuna")
    from analogsim.recipes.study.storages import open_storage

    storage = open_storage(f"sqlite:///{tmp_path}/optuna.db", heartbeat=60, on_dead=lambda *_: None)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(storage=storage)
    draw = random.Random(0)
    for _ in range(30):
        timer = threading.Timer(draw.uniform(0, 0.02), send)
        with pytest.raises(Stopped), ended_in_order():  # noqa: PT012 - where the signal lands is the test
            timer.start()
            while True:
                trial = study.ask()
                trial.set_user_attr("a", 1)
                study.tell(trial, 1.0)
        timer.join()
    assert [record.getMessage() for record in caplog.records] == []
    with sqlite3.connect(tmp_path / "optuna.db", timeout=0.1) as database:  # nothing holds it
        database.execute("BEGIN EXCLUSIVE")
