"""A project of two files, as docs/yours.md has it, at a small size."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = ("--model", "network.py:build", "--data", "data.py:load")
SMALL = ("evaluation.chips=2", "tracking.enabled=false")

pytestmark = pytest.mark.slow


def run(folder: Path, *words: str) -> str:
    """What a command prints; it must not fail."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "analogsim", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_train_judge_tune_and_compare(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    for name in ("network.py", "data.py"):
        shutil.copy(ROOT / "examples" / "yours" / name, tmp_path)
    said = run(tmp_path, "train", *CODE, "--epochs", "10", "--quiet", *SMALL)
    assert "task: classification, as the targets look" in said
    (folder,) = (tmp_path / "runs").iterdir()
    checkpoint = folder.relative_to(tmp_path) / "plain" / "checkpoint.pt"
    judged = run(tmp_path, "judge", str(checkpoint), "--trust", "--minutes", "0.2", "--html", "judge.html")
    assert "Verdict" in judged
    assert (tmp_path / "judge.html").read_text(encoding="utf-8").startswith("<!")
    tuned = run(tmp_path, "tune", *CODE, "--trials", "2", "--epochs", "2", "--study", "yours", *SMALL, "study.chips=2")
    assert "study 'yours'" in tuned
    assert "accuracy [%]" in run(tmp_path, "compare", str(folder.relative_to(tmp_path)))
