import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import pieces
from benchmarks.harness.ladder import small_mlp
from benchmarks.harness.small_tasks import Task

QUICK = ["--seeds", "1", "--chips", "2", "--epochs", "1"]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, few_samples: Any) -> None:
    """Data of 24 samples in the place of those of a task."""
    monkeypatch.setattr(pieces, "batches_of", few_samples)


@pytest.mark.usefixtures("tiny")
def test_what_is_missing_is_measured_and_the_table_has_gains_over_noise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "pieces.json")]
    pieces.main([*QUICK, *out, "--only", "plain,noise,learned"])
    shown = capsys.readouterr().out
    rows = json.loads((tmp_path / "pieces.json").read_text(encoding="utf-8"))["rows"]
    assert [row["piece"] for row in rows] == ["plain", "noise", "learned"]
    assert all(set(row["scores"]) == {"pcm, 1 year", "stuck cells"} for row in rows)
    gain = 100 * (rows[0]["scores"]["stuck cells"]["mean"] - rows[1]["scores"]["stuck cells"]["mean"])
    assert f"{gain:+.2f}" in next(line for line in shown.splitlines() if line.startswith("no noise"))
    pieces.main([*out, "--table"])
    assert capsys.readouterr().out == shown
    pieces.main([*QUICK, *out, "--only", "plain,average"])
    after = json.loads((tmp_path / "pieces.json").read_text(encoding="utf-8"))["rows"]
    assert after[:3] == rows
    assert [row["piece"] for row in after[3:]] == ["average"]
    pieces.main([*QUICK, *out, "--only", "plain,noise,stuck", "--on", "learned"])
    assert "digits, input ranges learned" in capsys.readouterr().out
    last = json.loads((tmp_path / "pieces.json").read_text(encoding="utf-8"))["rows"][4:]
    assert [(row["piece"], row["on"]) for row in last] == [(name, "learned") for name in ("plain", "noise", "stuck")]
    assert last[1]["scores"] == rows[2]["scores"]  # noise with learned ranges, by either name


def test_a_piece_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        pieces.main(["--only", "plain,magic"])
    assert "there is no 'magic'; there are plain, ideal" in capsys.readouterr().err


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", [name for name in pieces.PIECES if name not in ("plain", "learned", "average")])
def test_each_piece_trains(name: str) -> None:
    task = Task("", small_mlp, 1, 0.01)
    model, learned, spent = pieces.train(task, pieces.PIECES[name], 0)
    torch.manual_seed(0)
    first = small_mlp((1, 8, 8), 3)
    assert isinstance(model, nn.Module)
    assert learned is None
    assert spent > 0
    assert not torch.equal(model[1].weight, first[1].weight)
