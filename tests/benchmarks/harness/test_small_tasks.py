from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.harness.small_tasks import TASKS, batches_of


@pytest.mark.parametrize("name", TASKS)
def test_tasks_have_their_data(name: str) -> None:
    try:
        epoch, test, facts = batches_of(replace(TASKS[name], limit=100))
    except FileNotFoundError as missing:
        pytest.skip(f"no data: {missing}")
    inputs, targets = next(iter(epoch(torch.Generator())))
    model = TASKS[name].model(facts["shape"], facts["classes"])
    assert model(inputs).shape == (len(targets), 10)
    assert len(test[0][1]) >= 100
