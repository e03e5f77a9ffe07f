"""Benchmarks come with the checkout only, and are imported from its root."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
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


@pytest.fixture
def few_samples() -> Callable[[object], tuple[Callable[[torch.Generator], Any], Any, dict[str, Any]]]:
    """What `benchmarks.harness.small_tasks.batches_of` gives, of 24 samples."""
    torch.manual_seed(0)
    batches = [(torch.randn(8, 1, 8, 8), torch.arange(8) % 3) for _ in range(3)]
    return lambda task: (lambda generator: batches, batches, {"shape": (1, 8, 8), "classes": 3})
