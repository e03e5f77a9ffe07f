"""The recipe of a paper, at a small size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.slow


def test_each_strength_of_the_noise_is_judged_on_the_same_chips(
    load: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn", reason="needs the extra recipes")
    reports = load("paper").main(["--epochs", "3", "--chips", "2", "--out", str(tmp_path / "paper.png")])
    assert next(iter(reports)) == "no noise"
    assert len(reports) == 5
    assert {report.seeds for report in reports.values()} == {(0, 1)}
    assert len({report.clean for report in reports.values()}) > 1
    assert "after 1y" in capsys.readouterr().out
    assert (tmp_path / "paper.png").read_bytes().startswith(b"\x89PNG")
