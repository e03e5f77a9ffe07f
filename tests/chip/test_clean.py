from __future__ import annotations

import pytest
import torch
from torch import nn

import analogsim
from analogsim.chip.clean import as_trained
from analogsim.chip.lifecycle import without_errors


@pytest.mark.parametrize("learned", [True, False])
def test_as_trained_is_behind_converters_whose_ranges_were_learned(learned: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.randn(20, 6)
    analog = analogsim.convert(
        model, "pcm", crossbar=f"standard(input_range='{'learned' if learned else 'calibrated'}')"
    )
    analogsim.calibrate(analog, [x / 4])  # which cuts off
    analogsim.add_adapters(analog)
    analog.train()
    with as_trained(analog):
        found = analog(x)
    assert analog.training
    with without_errors(analog):
        behind = analog(x)
    assert not torch.allclose(behind, model(x), atol=0.05)
    assert torch.equal(found, behind) if learned else torch.allclose(found, model(x), atol=1e-6)
    with torch.no_grad():
        for layer in (analog[0], analog[2]):
            layer.analog.adapter.offset += 1.0
    with as_trained(analog):
        assert torch.equal(analog(x), found)  # adapters were not trained with it
