from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from analogsim.evaluation.report import Report
from analogsim.evaluation.sampling.over_chips import Sampled
from analogsim.recipes.cli import main as command
from benchmarks import precision


def report(values: np.ndarray, sampled: Sampled | None = None) -> Report:
    seeds = tuple(range(len(values)))
    return Report(values, (1.0,), 0.9, "accuracy", "pcm", seeds, None, samples=1000, sampled=sampled)


def test_what_all_the_data_take() -> None:
    truth = report(np.array([[0.8], [0.82], [0.84], [0.86]]))
    assert precision.chips_in_full(truth, 0.01) == 26, "(1.96 x 0.0258 / 0.01)^2"


def test_what_is_held() -> None:
    rng = np.random.default_rng(0)
    truth = report(0.8 + 0.01 * rng.normal(size=(400, 1)))
    sampled = Sampled(np.full((400, 1), 1e-4), np.full((400, 1), 50), "auto")
    for shift, expected in ((0.0, 1.0), (0.02, 0.0)):
        answer = report(0.8 + shift + 0.0141 * rng.normal(size=(400, 1)), sampled)
        mean, tail = precision.held(answer, truth, 0.05)
        assert mean == expected
        assert tail == expected
    with pytest.raises(ValueError, match="chips on all the data"):
        _ = precision.Answer(truth, 1.0).samples


def test_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    quick = [
        "data.limit=300",
        "optimization.epochs=1",
        "evaluation.chips=1",
        "baseline=false",
        "--no-tracking",
        "--quiet",
    ]
    command(["train", "model=mlp", "out=runs", *quick])
    (checkpoint,) = tmp_path.glob("runs/*/*/checkpoint.pt")
    command(["evaluate", str(checkpoint), "--chips", "20", "--times", "1d", "--json", "truth.json", "--quiet"])
    assert len(json.loads(Path("truth.json").read_text())) == 1
    capsys.readouterr()
    options = ["--precision", "0.03", "--times", "1d", "--repeats", "2"]
    precision.main([str(checkpoint), *options, "--truth", "truth.json"])
    told = capsys.readouterr().out
    precision.main([str(checkpoint), *options, "--chips", "20"])
    again = capsys.readouterr().out
    for words in ("on all the data: ", "on part of them: ", "20 chips", "after 1d", "held", "2 evaluations"):
        assert words in told
    assert told.splitlines()[:2] == again.splitlines()[:2]
