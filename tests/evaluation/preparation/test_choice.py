import torch
from torch import nn

import analogsim
from analogsim import Crossbar
from analogsim.chip.compensation import Compensations, as_compensations
from analogsim.evaluation.preparation.choice import INPUTS, OUTPUTS, Bench, Choice, set_from_data
from analogsim.layers import matrices_of

NONE = Choice(Compensations())


def test_hardware_is_what_the_twin_is_changed_by():
    choice = Choice(as_compensations("column"), copies=2, around="signs")
    assert choice.hardware == Choice(Compensations(), copies=2)


def test_which_crossbars_get_ranges_from_data():
    standard = analogsim.as_crossbar("standard")
    assert set_from_data(standard, [INPUTS]) == standard.replace(input_range="calibrated")
    assert set_from_data(standard, [OUTPUTS]) == standard.replace(output_bound="calibrated")
    for stays in (Crossbar(), Crossbar(dac_bits=8, input_range="learned"), Crossbar(dac_bits=8, input_range=2.0)):
        assert set_from_data(stays, [INPUTS, OUTPUTS]) == stays


def test_a_twin_is_put_on_hardware_and_back():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(40, 20)
    analog = analogsim.convert(model, "pcm", crossbar="standard(rows=8, cols=16)")
    states = [matrix.analog for matrix in matrices_of(analog)]
    before = [(state.device, state.crossbar, state.layout, state.cells) for state in states]
    bench = Bench(analog, [x], 86400.0)
    wanted = Choice(Compensations(), copies=2, ranges=frozenset({INPUTS}))
    assert not bench.is_made(wanted)
    assert bench.is_made(NONE)
    bench.put(wanted)
    assert bench.is_made(wanted)
    assert all(state.device.name == "pcm(copies=2)" and state.crossbar.needs_range for state in states)
    assert all(state.cells == 2 * cells for state, (*_, cells) in zip(states, before, strict=True))
    assert len(states[0].layout.cols) > len(before[0][2].cols)
    found = analogsim.get_ranges(analog)
    assert found.keys() == {"0", "2"}
    analogsim.program(analog, 1)
    bench.put(NONE)
    assert [(state.device, state.crossbar, state.layout, state.cells) for state in states] == before
    assert all(state.chip is None for state in states)
    assert not analogsim.get_ranges(analog)
    bench.put(wanted)  # not searched for again
    again = analogsim.get_ranges(analog)
    assert all(again[name][kind] is not found[name][kind] for name in found for kind in found[name])
    assert all(torch.equal(again[name][kind], found[name][kind]) for name in found for kind in found[name])
    with analogsim.programmed(analog, 1, "1d"):
        assert analog(x).shape == (40, 3)
    bench.restore()
    assert [(state.device, state.crossbar) for state in states] == [each[:2] for each in before]
