import math

import pytest
import torch
from torch import nn

import analogsim
from analogsim import Crossbar
from analogsim.chip.ranges import get_ranges, ranges_as_they_are, set_ranges

LEARNED = Crossbar(rows=8, dac_bits=6, adc_bits=6, input_range="learned", output_bound="calibrated")


def twin(crossbar=LEARNED):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3))
    return analogsim.convert(model, "pcm", crossbar=crossbar)


def data(scale=1.0):
    return scale * torch.randn(64, 12, generator=torch.Generator().manual_seed(1))


def answers(analog):
    with analogsim.programmed(analog, seed=3, t="1d"):
        return analog.eval()(data()).detach()


def test_another_twin_with_the_same_ranges_gives_the_same_answers():
    analog, other = twin(), twin()
    analogsim.calibrate(analog, [data()], percentile=90)
    analogsim.calibrate(other, [data(3.0)])
    ranges = get_ranges(analog)
    assert list(ranges) == ["0", "2"]
    assert all(list(kinds) == ["input_range", "output_bound"] for kinds in ranges.values())
    assert not torch.equal(answers(analog), answers(other))
    set_ranges(other, ranges)
    assert torch.equal(answers(analog), answers(other))
    fresh = twin()
    set_ranges(fresh, ranges)
    assert torch.equal(answers(analog), answers(fresh))
    assert [value.requires_grad for value in analogsim.range_parameters(fresh)] == [True, True]
    assert not fresh[0].analog.output_bound.requires_grad


def test_what_is_given_is_a_copy():
    analog = twin()
    analogsim.calibrate(analog, [data()])
    before = analog[0].analog.input_range.item()
    ranges = get_ranges(analog)
    assert not ranges["0"]["input_range"].requires_grad
    ranges["0"]["input_range"].fill_(100.0)
    assert analog[0].analog.input_range.item() == before


def test_an_optimizer_goes_on_with_the_tensors_it_holds():
    analog = twin()
    analogsim.calibrate(analog, [data()])
    learned = analogsim.range_parameters(analog)
    set_ranges(analog, {"2": {"input_range": torch.tensor(0.25)}})
    first, second = analogsim.range_parameters(analog)
    assert first is learned[0]
    assert second is learned[1]
    assert second.item() == 0.25
    assert second.requires_grad
    assert get_ranges(analog)["0"]["input_range"] == learned[0], "what is not named stays"


@pytest.mark.parametrize("crossbar", ["ideal", "standard", "standard(input_range='calibrated')"])
def test_without_a_calibration_there_is_nothing(crossbar):
    assert get_ranges(twin(crossbar)) == {}


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"1": {"input_range": 1.0}}, "'1' is no analog layer; there are '0', '2'"),
        ({"2": {"input_bound": 1.0}}, "layer '2': 'input_bound' is none of input_range, output_bound"),
        ({"2": {"output_bound": 1.0}}, "layer '2' has no output_bound to set; its crossbar must leave it"),
        ({"2": {"input_range": 0.0}}, "layer '2': input_range must be finite and not 0, got 0.0"),
        ({"2": {"input_range": math.nan}}, "input_range must be finite and not 0, got nan"),
    ],
)
def test_what_cannot_be_set_changes_nothing(ranges, message):
    analog = twin(LEARNED.replace(output_bound=8.0))
    analogsim.calibrate(analog, [data()])
    before = get_ranges(analog)
    with pytest.raises(ValueError, match=message):
        set_ranges(analog, {"0": {"input_range": torch.tensor(7.0)}, **ranges})
    assert get_ranges(analog) == before


def test_ranges_come_back_as_the_very_same_tensors():
    analog = analogsim.convert(nn.Linear(4, 3), "pcm", crossbar=Crossbar(dac_bits=6, input_range="learned"))
    analogsim.calibrate(analog, [torch.randn(20, 4)])
    learned = analog.analog.input_range
    restore = ranges_as_they_are(analog)
    analogsim.calibrate(analog, [3 * torch.randn(20, 4)])
    assert analog.analog.input_range is not learned
    restore()
    assert analog.analog.input_range is learned
    assert learned.requires_grad
