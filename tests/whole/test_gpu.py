"""What only a GPU can show: moves between devices, wires there, CUDA graphs, no waiting."""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness.gpu_checks import CHECKS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("check", CHECKS)
def test_on_the_card(check: str) -> None:
    CHECKS[check](torch.device("cuda"))
