"""What is known of an analog matrix: its name for messages, its ranges."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn

import analogsim
from analogsim import Crossbar, DeviceModel, Gaussian
from analogsim.chip.stacked_chips import _StackedChip
from analogsim.inspection.carrying import _StandIn
from analogsim.layers import Slot
from analogsim.layers.module import matrices_of
from analogsim.layers.state import AnalogState, MatrixChip, Uses, held_array


def state_of(**crossbar: Any) -> AnalogState:
    layer: Any = analogsim.convert(nn.Sequential(nn.Linear(3, 2)), "pcm", crossbar=Crossbar(**crossbar))[0]
    state: AnalogState = layer.analog
    return state


def test_names() -> None:
    assert state_of().title == "0"
    alone: Any = analogsim.convert(nn.Linear(3, 2), "pcm")
    assert alone.analog.title == "(the model itself)"


@pytest.mark.parametrize(
    ("crossbar", "wanted"),
    [
        ({}, (None, None)),
        ({"dac_bits": 8}, (None, None)),
        ({"dac_bits": 8, "input_range": 2.0}, (2.0, None)),
        ({"adc_bits": 8}, (None, 12.0)),
        ({"output_bound": 3.0, "input_range": 1.5}, (1.5, 3.0)),
        ({"input_range": "calibrated"}, (None, None)),
    ],
)
def test_ranges_that_need_no_calibration(crossbar: dict[str, Any], wanted: tuple[Any, Any]) -> None:
    assert state_of(**crossbar).ranges == wanted


@pytest.mark.parametrize("kind", ["calibrated", "learned"])
def test_ranges_from_calibration(kind: str) -> None:
    """Missing ones are an error, but not while they are looked for; a step past zero of a learned one is none."""
    state = state_of(dac_bits=8, adc_bits=8, input_range=kind, output_bound="calibrated")
    with pytest.raises(analogsim.NotCalibratedError, match="layer '0' has converters without a range: call"):
        _ = state.ranges
    state.observe = lambda what, values: None
    assert state.ranges == (None, None)
    state.observe, state.input_range, state.output_bound = None, torch.tensor(-2.0), torch.tensor(5.0)
    assert state.ranges == (2.0, 5.0)


def test_where_a_matrix_lies_is_known_and_kept() -> None:
    model = nn.MultiheadAttention(4, 2)
    analog: Any = analogsim.convert(model, "pcm")
    for twin in (analog, copy.deepcopy(analog), pickle.loads(pickle.dumps(analog))):
        slots = [matrix.analog.slot for matrix in twin.matrices.values()]
        assert slots == [Slot("in_proj_weight", "in_proj_bias", rows=(start, start + 4)) for start in (0, 4, 8)]


def test_a_chip_without_converters_and_what_stands_in_for_it_say_so() -> None:
    layer: Any = analogsim.convert(nn.Sequential(nn.Linear(3, 2)), "pcm")[0]
    analogsim.program(layer)
    chips: list[MatrixChip] = [layer.analog.chip, _StackedChip("0"), _StandIn(layer, layer.analog.chip)]
    for chip in chips:
        with pytest.raises(RuntimeError, match="a chip whose crossbar has no converters was asked what they see"):
            chip.array_for(layer.weight)
    with pytest.raises(RuntimeError, match="no converters"):
        held_array(None)


def test_uses_count_from_a_moment_on() -> None:
    analog = analogsim.convert(nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3)), "pcm")
    analog(torch.randn(2, 6))
    uses = Uses([matrix.analog for matrix in matrices_of(analog)])
    assert uses.none
    analog[1](torch.randn(2, 4))
    assert not uses.none
    assert [state.name for state in uses.idle] == ["0"]


def test_nothing_is_left_to_work_out_while_a_compiler_traces() -> None:
    """What a device model works out once stands behind a lock, which torch.compile cannot trace in Python 3.11."""
    device = DeviceModel((Gaussian(0.05),))
    analogsim.convert(nn.Linear(3, 2), device)
    assert {"_stages", "drifts", "moves", "additive", "cellwise", "levels"} <= set(vars(device))
