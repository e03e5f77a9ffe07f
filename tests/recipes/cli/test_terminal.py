"""The command line in a real terminal of 80 columns: what is drawn, and what its keys do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

pty = pytest.importorskip("pty", reason="needs a system with pseudo-terminals")

pytestmark = pytest.mark.slow  # processes that import torch


def in_a_terminal(
    arguments: Sequence[str], folder: Path, *, until: str = "", keys: bytes = b"", **environment: str
) -> tuple[int, str]:
    """The exit status of a command in a terminal, and what it shows; ``keys`` are typed once ``until`` shows."""
    import fcntl
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    known = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", "import os, sys; os.setsid(); " + _OWN_TERMINAL, "-m", "analogsim", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env={**known, "TERM": "xterm-256color", **environment},
    )
    os.close(theirs)
    shown, end, typed = b"", time.monotonic() + 240, not keys
    while time.monotonic() < end:
        try:
            part = os.read(ours, 4096)
        except OSError:  # on Linux, how a terminal says that nobody writes to it any more
            break
        if not part:
            break
        shown += part
        if not typed and re.search(until.encode(), shown):
            os.write(ours, keys)
            typed = True
    os.close(ours)
    return process.wait(60), shown.decode()


_OWN_TERMINAL = (
    "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
"""Its session's terminal, so that the keys of the keyboard reach it."""

SMALL = ["train", "--model", "mlp", "--epochs", "2", "--chips", "2", "--no-tracking", "--no-baseline", "data.limit=300"]


def test_nothing_is_wider_than_the_terminal(tmp_path: Path) -> None:
    code, shown = in_a_terminal(SMALL, tmp_path)
    assert code == 0
    # A bar is drawn over itself, in a line of its own.
    bars = [line for line in re.split(r"[\r\n]+", shown) if "|" in line and "%" in line]
    assert len(bars) > 2
    plain = [re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", line) for line in bars]
    assert max(map(len, plain)) <= 80
    assert re.search(r"after 1y +[\d.]+ ± [\d.]+", shown)


def test_without_colour_there_is_no_code_of_any(tmp_path: Path) -> None:
    code, shown = in_a_terminal(SMALL, tmp_path, NO_COLOR="1")
    assert code == 0
    assert not re.search(r"\x1b\[[\d;]*m", shown)


def test_the_interrupt_key_ends_a_training_in_order(tmp_path: Path) -> None:
    endless = [*SMALL[:3], "--epochs", "100000", *SMALL[5:]]
    code, shown = in_a_terminal(endless, tmp_path, until=r"clean=[\d.]+", keys=b"\x03")
    assert code == 130
    assert "Traceback" not in shown
    (told,) = re.findall(r"analogsim train --resume (\S+)", shown)
    assert (tmp_path / told / "hardware-aware" / "checkpoint.pt").exists()
