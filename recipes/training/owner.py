"""A run's folder belongs to one process at a time; if that dies, to the next one that asks."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from analogsim.errors import UnavailableError
from analogsim.recipes.training.stopping import pause
from analogsim.utils.files import lock_file

MARK = ".run"
"""The file in a run's folder that says who owns it; it goes when the owner leaves in order."""

_BEAT = 3.0  # seconds between the signs of life of an owner
_SILENT = 4  # of them after which one on another machine is dead
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}
_LOCK = threading.Lock()
_HELD: set[str] = set()


@dataclass(frozen=True)
class Owned:
    """A folder that is ours.

    Attributes:
        key: a text of this folder's own, by which what is made for it elsewhere, as runs in MLflow, is found again.
        again: whether an owner before us died, who may have made something.
    """

    key: str
    again: bool


@contextlib.contextmanager
def owned(folder: Path, tell: Callable[[str], None] = lambda line: None, *, beat: float = _BEAT) -> Iterator[Owned]:
    """Own a folder for a block.

    A lock of the system holds it, which goes with the process, whatever ends that. For other machines, where folders
    are shared by a system whose locks do not reach so far, the owner gives signs of life besides, which whoever asks
    watches by its own clock for a while; then that one is dead.

    Args:
        folder: it is there.
        tell: told that an owner on another machine is waited for.
        beat: seconds between signs of life.

    Raises:
        UnavailableError: it is owned: by which process, on which machine.
        OSError: nothing can be written there.
    """
    place = os.path.realpath(folder)
    with _LOCK:
        if place in _HELD:
            raise UnavailableError(f"train: this process is at work in {str(folder)!r} already; give each call its own")
        _HELD.add(place)
    try:
        with _opened(folder / MARK, folder) as (file, certain):
            before = file.read()
            said = _said(before)
            if before and not (certain and said.get("host") == _host()):
                _watch(file, before, folder, tell, beat)
            key = said.get("key")
            mine = {"host": _host(), "pid": os.getpid(), "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
            mine["key"] = key if isinstance(key, str) else uuid.uuid4().hex
            left = threading.Event()
            _write(file, mine, 0)
            beating = threading.Thread(target=_renew, args=(file, mine, left, beat), daemon=True)
            beating.start()
            try:
                yield Owned(str(mine["key"]), isinstance(key, str))
            finally:
                left.set()
                beating.join()
                with contextlib.suppress(OSError):  # as long as it is locked; Windows removes no file that is open
                    os.unlink(folder / MARK)
    finally:
        with _LOCK:
            _HELD.discard(place)


@contextlib.contextmanager
def _opened(path: Path, folder: Path) -> Iterator[tuple[BinaryIO, bool]]:
    """The mark, open and locked, and whether the lock says for certain that no process of this machine has it."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)
        with contextlib.closing(file):
            try:
                locked, certain = lock_file(file), True
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                locked, certain = True, False
            if not locked:
                file.seek(0)
                raise UnavailableError(_told(folder, _said(file.read())))
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    file.seek(0)
                    yield file, certain
                    return
        # its owner left just now, and took it away: the next one is another file


def _said(content: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        found = json.loads(content)
        if isinstance(found, dict):
            return found
    return {}  # its owner died before it was written


def _told(folder: Path, said: dict[str, Any]) -> str:
    who = f"process {said.get('pid', '?')} on {said.get('host', '?')}, at work in it since {said.get('since', '?')}"
    return f"train: {str(folder)!r} belongs to {who}; wait for it or stop it, then go on"


def _host() -> str:
    return socket.gethostname()


def _watch(file: BinaryIO, seen: bytes, folder: Path, tell: Callable[[str], None], beat: float) -> None:
    """Wait until an owner on another machine must have given a sign of life.

    Raises:
        UnavailableError: it has.
    """
    said = _said(seen)
    tell(f"{str(folder)!r} was left by process {said.get('pid', '?')} on {said.get('host', '?')}: is it still alive?")
    until = time.monotonic() + _SILENT * beat
    while time.monotonic() < until:
        pause(beat / 3)
        file.seek(0)
        if file.read() != seen:
            raise UnavailableError(_told(folder, said))


def _write(file: BinaryIO, mine: dict[str, Any], beats: int) -> None:
    text = json.dumps({**mine, "beats": beats}).encode()
    file.seek(0)
    file.write(text)
    file.truncate(len(text))


def _renew(file: BinaryIO, mine: dict[str, Any], left: threading.Event, beat: float) -> None:
    beats = 0
    while not left.wait(beat):
        beats += 1
        with contextlib.suppress(OSError):  # of a folder that is away; the next one comes
            _write(file, mine, beats)
