from __future__ import annotations

import pytest
import torch
from torch import nn

import analogsim
from analogsim.chip.clean import CleanWeights, as_trained, on_clean_weights
from analogsim.chip.lifecycle import without_errors
from analogsim.layers.module import drawn_in_eval, matrices_of


@pytest.mark.parametrize("bias_rows", [0, 2])
def test_the_twin_answers_as_its_digital_network(bias_rows: int) -> None:
    """Whatever the device, the converters and the chip, which are there again afterwards."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(2), nn.LSTM(9, 5, batch_first=True)).double()
    device = analogsim.DeviceModel(
        (analogsim.Drift(), analogsim.ReadNoise(std=0.1)), mapping=analogsim.Mapping("pair", bias_rows=bias_rows)
    )
    analog = analogsim.convert(model, device, crossbar="standard(input_range=1.0)").eval()
    x = torch.randn(3, 2, 5, 5).double()
    analogsim.program(analog)
    chips = [matrix.analog.chip for matrix in matrices_of(analog)]
    with on_clean_weights(analog):
        torch.testing.assert_close(analog(x)[0], model(x)[0])
        assert all(isinstance(matrix.analog.chip, CleanWeights) for matrix in matrices_of(analog))
    assert [matrix.analog.chip for matrix in matrices_of(analog)] == chips
    assert all(matrix.analog.crossbar.converts for matrix in matrices_of(analog))


def test_fresh_draws_and_adapters_are_left_out() -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(4, 3).double(), torch.randn(5, 4).double()
    analog = analogsim.convert(model, "pcm").eval()
    analogsim.add_adapters(analog)
    with torch.no_grad():
        analog.analog.adapter.offset += 1.0
    with drawn_in_eval(analog, lambda state: 1.0):
        with on_clean_weights(analog):
            torch.testing.assert_close(analog(x), model(x))
        assert (analog(x) - model(x)).abs().min() > 0.3


def test_it_has_no_converters() -> None:
    analog = analogsim.convert(nn.Linear(2, 2), "pcm")
    with pytest.raises(RuntimeError, match="converters"):
        CleanWeights(analog.analog).array_for(analog.weight)


@pytest.mark.parametrize("learned", [True, False])
def test_as_trained_is_behind_converters_whose_ranges_were_learned(learned: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    x = torch.randn(20, 6)
    analog = analogsim.convert(
        model, "pcm", crossbar=f"standard(input_range='{'learned' if learned else 'calibrated'}')"
    )
    analogsim.calibrate(analog, [x / 4])  # which cuts off
    analog.train()
    with as_trained(analog):
        found = analog(x)
    assert analog.training
    with without_errors(analog):
        behind = analog(x)
    assert not torch.allclose(behind, model(x), atol=0.05)
    assert torch.equal(found, behind) if learned else torch.allclose(found, model(x), atol=1e-6)
