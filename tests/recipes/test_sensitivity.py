"""Which layers of a run cost most, and which to keep digital."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analogsim.recipes.cli import main
from analogsim.recipes.sensitivity import Found, sensitivity
from analogsim.recipes.tasks import data_sets
from analogsim.recipes.train import PLAIN

QUICK = ["--model", "mlp", "--epochs", "8", "--chips", "2", "--no-tracking", "--quiet", "data.limit=700"]
NOISY = "gaussian(std=0.15)"


@pytest.fixture
def trained(alone: Path) -> Path:
    main(["train", *QUICK, "--device", NOISY])
    (folder,) = Path("runs").iterdir()
    return folder / PLAIN / "checkpoint.pt"


def found(path: Path, **asked: Any) -> Found:
    (result,) = sensitivity(path, **{"times": ("1d",), "chips": 2, **asked}).values()
    return result


def test_the_table_is_that_of_validation_data(trained: Path) -> None:
    result = found(trained)
    assert (result.kept, result.before, result.after) == (None, None, None)
    assert str(result) == str(result.layers)
    data = data_sets.load("digits", limit=700)
    correct = result.layers.clean * len(data.validation)
    assert correct == pytest.approx(round(correct), abs=1e-6)
    assert len(data.validation) != len(data.test)


def test_layers_kept_digital_are_judged_on_other_data_and_chips(trained: Path) -> None:
    target = found(trained).layers.clean - 0.02
    result = found(trained, keep=target)
    kept, before, after = result.kept, result.before, result.after
    assert kept is not None
    assert before is not None
    assert after is not None
    assert kept.steps[-1].mean >= target
    assert after.samples == len(data_sets.load("digits", limit=700).test)
    assert not set(after.seeds) & set(range(2))
    assert after.mean[0] > before.mean[0]
    assert "these digital" in str(result)


def test_ranges_of_the_run_stay(alone: Path) -> None:
    main(["train", *QUICK, "--device", NOISY, "--crossbar", "standard(input_range='learned')"])
    (folder,) = Path("runs").iterdir()
    results = sensitivity(folder, keep=0.5, times=("1d",), chips=1)
    assert len(results) == 2
    for result in results.values():
        assert result.after is not None
        assert result.after.mean[0] > 0.2


def test_on_the_command_line(trained: Path, capsys: pytest.CaptureFixture[str], fail: Callable[..., str]) -> None:
    capsys.readouterr()
    main(["sensitivity", str(trained), "--chips", "2"])
    assert str(found(trained)) in capsys.readouterr().out
    main(["sensitivity", str(trained), "--chips", "1", "--keep", "0.5", "--per", "parameters"])
    assert "these digital" in capsys.readouterr().out
    told = fail("sensitivity", str(trained), "--chips", "1", "--keep", "97")
    assert "keep: a share lies between 0 and 1, got 97; did you mean 0.97?" in told
    assert "sensitivity: no checkpoint at" in fail("sensitivity", "nowhere.pt")
