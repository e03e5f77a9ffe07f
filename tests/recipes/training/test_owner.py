"""A folder has one owner, and is free again when that one died."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from analogsim.errors import UnavailableError
from analogsim.recipes.training import owner
from analogsim.recipes.training.owner import MARK, owned

POSIX = pytest.mark.skipif(os.name != "posix", reason="processes are killed as on POSIX")
CODE = """
import sys, time
from pathlib import Path
from analogsim.recipes.training.owner import owned
with owned(Path(sys.argv[1])) as ours:
    print(ours.key, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that owns the folder, and its key."""
    process = subprocess.Popen([sys.executable, "-c", CODE, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_it_is_free_before_and_after(tmp_path: Path) -> None:
    with owned(tmp_path) as first:
        said = json.loads((tmp_path / MARK).read_text()) if os.name != "posix" else None
        assert said is None or said["pid"] == os.getpid()
        assert not first.again
        with pytest.raises(UnavailableError, match=r"this process is at work in .* already"), owned(tmp_path):
            pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError), owned(tmp_path) as second:
        raise RuntimeError
    assert second.key != first.key
    assert list(tmp_path.iterdir()) == []


@POSIX
def test_another_process_is_named_and_its_death_frees(tmp_path: Path, other: tuple[subprocess.Popen[str], str]) -> None:
    process, key = other
    with (
        pytest.raises(UnavailableError, match=rf"belongs to process {process.pid} on .*, at work in it"),
        owned(tmp_path),
    ):
        pass
    assert (tmp_path / MARK).is_file()
    process.send_signal(signal.SIGKILL)
    process.wait()
    began = time.monotonic()
    with owned(tmp_path) as ours:
        assert (ours.key, ours.again) == (key, True)
    assert time.monotonic() - began < 2, "on this machine the lock tells at once"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"key": 3}'])
def test_a_mark_that_was_being_written(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "_SILENT", 1)
    (tmp_path / MARK).write_bytes(content)
    with owned(tmp_path, beat=0.03) as ours:
        assert not ours.again


def foreign(place: Path, beats: int = 0) -> None:
    """The mark of an owner on another machine, whose lock is not seen here."""
    said = {"host": "elsewhere", "pid": 7, "since": "2026-01-01 00:00:00", "key": "k", "beats": beats}
    with (place / MARK).open("r+b" if (place / MARK).exists() else "wb") as file:
        file.write(json.dumps(said).encode())


def test_one_on_another_machine_that_is_silent_is_dead(tmp_path: Path) -> None:
    foreign(tmp_path)
    told: list[str] = []
    began = time.monotonic()
    with owned(tmp_path, told.append, beat=0.1) as ours:
        assert (ours.key, ours.again) == ("k", True)
        assert time.monotonic() - began >= 0.4
    assert told == [f"{str(tmp_path)!r} was left by process 7 on elsewhere: is it still alive?"]


@POSIX
def test_one_that_gives_signs_of_life_is_not(tmp_path: Path) -> None:
    foreign(tmp_path)
    code = (
        "import sys, time\nfor beats in range(1, 50):\n"
        " f = open(sys.argv[1], 'r+b'); s = f.read(); f.seek(0); f.write(s[:-2] + str(beats % 10).encode() + b'}')\n"
        " f.close(); time.sleep(0.05)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / MARK)])
    try:
        with pytest.raises(UnavailableError, match="belongs to process 7 on elsewhere"), owned(tmp_path, beat=0.3):
            pass
    finally:
        process.kill()
        process.wait()


def test_its_own_signs_of_life(tmp_path: Path) -> None:
    seen: list[bytes] = []

    def look() -> None:
        seen.append(subprocess.run(["cat", str(tmp_path / MARK)], capture_output=True, check=True).stdout)

    if os.name != "posix":
        pytest.skip("needs cat")
    with owned(tmp_path, beat=0.02):
        look()
        time.sleep(0.2)
        look()
    assert json.loads(seen[0])["key"] == json.loads(seen[1])["key"]
    assert json.loads(seen[0])["beats"] < json.loads(seen[1])["beats"]


def test_threads_of_one_process(tmp_path: Path) -> None:
    """All want it at once: one has it at a time."""
    inside, most, refused = [0], [0], [0]

    def work() -> None:
        try:
            with owned(tmp_path):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0.02)
                inside[0] -= 1
        except UnavailableError:
            refused[0] += 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert refused[0] <= 7
