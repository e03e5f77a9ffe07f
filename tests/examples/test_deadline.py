"""What helps a trained network today, at a small size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.slow


def test_the_network_is_judged_before_and_after(
    load: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn", reason="needs the extra recipes")
    short = ["--chips", "2", "--seconds", "2", "--steps", "5"]
    reports = load("deadline").main([*short, "--out", str(tmp_path / "deadline.png")])
    assert list(reports) == ["as it is", "prepared", "with adapters"]
    assert len({report.digital for report in reports.values()}) == 1  # adapters are no part of the digital network
    out = capsys.readouterr().out
    assert "without drift compensation" in out
    assert "held out" in out
    assert (tmp_path / "deadline.png").read_bytes().startswith(b"\x89PNG")
