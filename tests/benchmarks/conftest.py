"""Benchmarks come with the checkout only, and are imported from its root."""

from pathlib import Path

import pytest
from torch import nn

ROOT = Path(__file__).parents[2]

if not (ROOT / "benchmarks").is_dir():
    collect_ignore_glob = ["test_*.py", "harness/test_*.py"]


@pytest.fixture(autouse=True)
def _checkout_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def tiny():
    """A network of two layers as a case of the benchmarks."""
    from benchmarks.harness.networks import Case

    return Case("tiny", (5,), 4, lambda _: nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 10)))
