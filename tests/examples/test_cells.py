"""From measured cells to a network on them, at a small size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import analogsim

pytestmark = pytest.mark.slow


def test_the_device_of_the_cells_is_that_of_the_report(load: Callable[[str], ModuleType], tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="needs the extra recipes")
    example = load("cells")
    report = example.main(["--cells", "8", "--chips", "2", "--out", str(tmp_path)])
    device = analogsim.load_device(tmp_path / "mine.toml")
    assert {type(effect).__name__ for effect in device.effects} >= {"FittedProgramming", "FittedDrift"}
    assert report.device.startswith("mine")
    for picture in ("cells.png", "cells-fit.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
    again = example.main([str(tmp_path / "measurements.csv"), "--chips", "2", "--out", str(tmp_path)])
    assert again == report  # measured ones in the place of those made up: the same file, the same answer
