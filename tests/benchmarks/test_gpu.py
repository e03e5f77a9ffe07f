"""The command for a card, dry: every step on the CPU, as tiny as it can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu
from benchmarks.__main__ import main


@pytest.mark.slow
@pytest.mark.parametrize("name", gpu.STEPS)
def test_each_step_finds_its_rows(name: str) -> None:
    rows = list(gpu.STEPS[name].run(torch.device("cpu"), gpu.DRY))
    assert rows
    if name.startswith(("train", "compiled")):
        assert [row["method"] for row in rows] == list(gpu.METHODS)
        assert all(row["ratio"]["median"] > 0 for row in rows)
    assert all(row.get("passed", True) for row in rows)


@pytest.mark.slow
def test_the_dry_run_writes_what_its_processes_find(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    assert main(["gpu", "--dry", "--out", str(out), "--steps", "chips"]) == 0
    step = json.loads(out.read_text())["steps"]["chips"]
    assert (step["status"], len(step["rows"])) == ("done", 1)
    told = capsys.readouterr().out
    assert main(["gpu", "--table", str(out)]) == 0
    assert capsys.readouterr().out.strip() in told


def test_its_steps_fit_into_eight_minutes() -> None:
    assert sum(step.limit for step in gpu.STEPS.values()) <= 480


def test_what_a_step_found_before_its_end_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A step that is ended by its limit, one that fails, and one whose check did not pass."""
    found: dict[str, dict[str, Any]] = {
        "train resnet18": {"status": "ended after 30 s", "seconds": 30.0, "rows": [_row("plain"), _row("pcm")]},
        "chip": {"status": "failed with 1", "seconds": 2.0, "rows": [], "told": "RuntimeError: no card any more"},
    }
    monkeypatch.setattr(gpu, "_called", lambda name, **_: found[name])
    assert gpu.run(tmp_path / "gpu.json", dry=True, names=["train resnet18"]) == 0
    assert gpu.run(tmp_path / "gpu.json", dry=True, names=list(found)) == 1
    told = capsys.readouterr().out
    assert "RuntimeError: no card any more" in told
    assert "1.50x" in told
    assert json.loads((tmp_path / "gpu.json").read_text())["steps"] == found
    found["checks"] = {"status": "done", "seconds": 1.0, "rows": [{"check": "wires", "passed": False, "told": "E: 1"}]}
    assert gpu.run(tmp_path / "gpu.json", dry=True, names=["checks"]) == 1


def _row(method: str) -> dict[str, Any]:
    spread = {"median": 1.5, "low": 1.0, "high": 2.0, "least": 1.0}
    told = {"network": "resnet18", "method": method, "batch": 2, "compiled": False, "peak_bytes": 2**31}
    return {**told, "weights": 10, "seconds": spread, "ratio": spread, "floor_ratio": 1.0}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_card_the_dry_run_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["gpu"])
    assert "--dry takes the same steps on the CPU" in capsys.readouterr().err


def test_a_row_that_is_cut_in_two_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(command: list[str], *, timeout: float, **_: object) -> None:
        output = b'a library says\nrow {"check": "wires", "passed": true}\nrow {"check": "no'
        raise gpu.subprocess.TimeoutExpired(command, timeout, output)

    monkeypatch.setattr(gpu.subprocess, "run", ended)
    step = gpu._called("checks", dry=True, limit=3)
    assert (step["status"], step["rows"]) == ("ended after 3 s", [{"check": "wires", "passed": True}])
