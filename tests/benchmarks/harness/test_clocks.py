"""A clock that jumps is seen by Python and by SQLite, in the process that goes by it and in no other one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness.clocks import Clocks, build

CODE = """
import datetime, os, sqlite3, time
from benchmarks.harness.clocks import Clocks
clocks = Clocks(2)
began, steady = time.time(), time.monotonic()
def off():
    sql = sqlite3.connect(":memory:").execute("select strftime('%s', CURRENT_TIMESTAMP)").fetchone()[0]
    return [round(now - began) for now in (time.time(), datetime.datetime.now().timestamp(), int(sql) + 0.5)]
if os.fork() == 0:
    clocks.go_by(1)
    before = off()
    clocks.jump(0, 50)
    clocks.jump(1, -3600)
    back = off()
    clocks.jump(1, 7200)
    print(before, back, off(), flush=True)
    os._exit(0)
os.wait()
print(off(), time.monotonic() - steady < 60)
"""


def test_a_jump(tmp_path: Path) -> None:
    library = build(tmp_path) if sys.platform == "linux" else None
    if library is None:
        pytest.skip("needs Linux and a C compiler")
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE],
        cwd=root,
        env={"LD_PRELOAD": str(library), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    words = [int(word) for word in done.stdout.replace("True", "").translate(str.maketrans("[],", "   ")).split()]
    expected = [0] * 3 + [-3600] * 3 + [7200] * 3 + [0] * 3
    assert all(abs(one - other) <= 2 for one, other in zip(words, expected, strict=True)), done.stdout
    assert done.stdout.endswith("True\n")


def test_without_the_library_there_is_no_such_clock() -> None:
    with pytest.raises(ValueError, match="storm_seconds"):
        Clocks(1).go_by(0)


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build(tmp_path) is None
