import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import adapters

QUICK = ["--seeds", "1", "--chips", "2", "--samples", "24"]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, few_samples: Any) -> None:
    """Data of 24 samples in the place of those of a task, and two steps in the place of a fine-tuning."""
    monkeypatch.setattr(adapters, "batches_of", few_samples)
    monkeypatch.setitem(adapters.TASKS, "digits", replace(adapters.TASKS["digits"], epochs=1))
    for name, row in adapters.ROWS.items():
        tuned, everyone = ({**how, "steps": 2} if how else how for how in (row.tuned, row.everyone))
        monkeypatch.setitem(adapters.ROWS, name, replace(row, tuned=tuned, everyone=everyone))


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_every_row_is_measured_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["plain", "affine", "rank4", "all-scales", "kept", "ages"]
    out = ["--out", str(tmp_path / "adapters.json"), "--rows", ",".join(names)]
    adapters.main([*QUICK, *out])
    shown = capsys.readouterr().out
    rows = json.loads((tmp_path / "adapters.json").read_text(encoding="utf-8"))["rows"]
    of = {device: [row["row"] for row in rows if row["device"] == device] for device in adapters.AFTER}
    assert of["pcm"] == names
    assert of["stuck-at"] == names[:4]
    assert {tuple(row["scores"]) for row in rows if row["row"] in ("plain", "kept", "ages")} == {
        ("1h", "1d", "1y"),
        ("1s",),
    }
    assert all((row["seconds"] is not None) == (adapters.ROWS[row["row"]].tuned is not None) for row in rows)
    assert "digits, 24 samples, pcm" in shown
    assert "digits, 24 samples, stuck-at" in shown
    adapters.main([*QUICK, *out])
    assert capsys.readouterr().out == shown
    assert json.loads((tmp_path / "adapters.json").read_text(encoding="utf-8"))["rows"] == rows
    adapters.main([*out, "--table"])
    assert capsys.readouterr().out == shown


def test_a_row_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        adapters.main(["--rows", "plain,magic"])
    assert "there is no 'magic'; there are plain, affine" in capsys.readouterr().err
