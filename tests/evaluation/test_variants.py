from __future__ import annotations

import torch
from torch import nn

import analogsim
from analogsim import Crossbar, Gaussian
from analogsim.evaluation.variants import build_variant
from analogsim.layers.module import matrices_of

MODEL = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
CALIBRATED = Crossbar(adc_bits=6, input_range="calibrated", output_bound="calibrated")


def test_layers_are_as_they_were_with_the_very_ranges() -> None:
    analog = analogsim.convert(MODEL, {"0": "pcm", "2": "gaussian"}, crossbar={"2": CALIBRATED})
    analogsim.calibrate(analog, [torch.randn(20, 4)])
    states = {matrix.analog.name: matrix.analog for matrix in matrices_of(analog)}
    twin = build_variant(analogsim.to_digital(analog), states)
    for name in ("0", "2"):
        mine, theirs = twin.get_submodule(name).analog, states[name]
        assert (mine.device, mine.crossbar) == (theirs.device, theirs.crossbar)
        assert mine.input_range is theirs.input_range
        assert mine.output_bound is theirs.output_bound
    assert twin[0].weight is MODEL[0].weight


def test_only_some_layers_and_other_hardware() -> None:
    analog = analogsim.convert(MODEL, "pcm")
    states = {matrix.analog.name: matrix.analog for matrix in matrices_of(analog)}
    (only,) = matrices_of(build_variant(analogsim.to_digital(analog), {"2": states["2"]}))
    assert only.analog.name == "2"
    device = analogsim.as_device_model(Gaussian(0.5))
    changed = build_variant(analogsim.to_digital(analog), states, dict.fromkeys(states, (device, CALIBRATED)))
    assert {matrix.analog.device for matrix in matrices_of(changed)} == {device}
    assert all(matrix.analog.crossbar == CALIBRATED for matrix in matrices_of(changed))


def test_on_fewer_crossbars_the_largest_of_the_ranges_counts() -> None:
    """Where a cut is switched off, one block takes in the inputs of all."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 5))
    crossbar = Crossbar(rows=4, dac_bits=8, adc_bits=8, input_range="calibrated", output_bound="calibrated")
    analog = analogsim.convert(model, "pcm", crossbar=crossbar)
    analogsim.calibrate(analog, [torch.randn(64, 12)])
    states = {matrix.analog.name: matrix.analog for matrix in matrices_of(analog)}
    whole = build_variant(model, states, {"0": (states["0"].device, crossbar.replace(rows=None))})
    assert whole[0].analog.input_range == states["0"].input_range.max()
    assert whole[0].analog.output_bound == states["0"].output_bound.max()
    same = build_variant(model, states)
    assert same[0].analog.input_range is states["0"].input_range
    report = analogsim.ablate(analog, [(torch.randn(8, 12), torch.randint(5, (8,)))], chips=2, times=["1s"])
    assert "cuts into several crossbars" in str(report)
