from __future__ import annotations

import pytest

from benchmarks import outputs
from benchmarks.harness.small_tasks import TASKS


def test_networks_are_those_of_the_small_tasks() -> None:
    assert outputs.NETWORKS["digits-mlp"] == TASKS["digits"]
    assert outputs.NETWORKS["narrow-cnn"] == TASKS["fashion"]
    sizes = [sum(p.numel() for p in task.model((1, 28, 28), 10).parameters()) for task in outputs.NETWORKS.values()]
    assert sizes[2] == 61_706  # LeNet-5


def test_a_table_for_each_chip(capsys: pytest.CaptureFixture[str]) -> None:
    outputs.main(["digits-mlp", "--chips", "2", "--epochs", "1", "--inputs", "8", "--limit", "200"])
    shown = capsys.readouterr().out
    assert all(words in shown for words in ("pcm after 1y", "moments, measured at 1h", "stuck-at", "8 inputs"))
