import math

import pytest
import torch
from torch import nn

import analogsim
from analogsim import Crossbar
from analogsim.chip.ranges import get_ranges, ranges_as_they_are, set_ranges

OWN = Crossbar(rows=8, dac_bits=6, adc_bits=6, input_range="learned", output_bound="calibrated")
LEARNED = OWN.replace(ranges_per="layer")


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
        ({"2": {"input_range": None}}, "layer '2': input_range must be a number or a tensor of some, got None"),
        ({"2": {"input_range": "wide"}}, "input_range must be a number or a tensor of some, got 'wide'"),
        ({"2": {"input_range": True}}, "input_range must be a number or a tensor of some, got True"),
        ({"2": {"input_range": 1j}}, "input_range must be a number or a tensor of some, got 1j"),
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


def test_ranges_of_blocks_come_and_go_as_they_are(tmp_path):
    analog, other = twin(OWN), twin(OWN)
    analogsim.calibrate(analog, [data()], percentile=90)
    ranges = get_ranges(analog)
    assert [value.shape for value in ranges["0"].values()] == [(2,), (1, 2)]
    set_ranges(other, ranges)
    assert torch.equal(answers(analog), answers(other))
    analogsim.program(analog, seed=2)
    analogsim.save_chip(analog, tmp_path / "chip")
    loaded = twin(OWN)
    analogsim.load_chip(loaded, tmp_path / "chip")
    assert torch.equal(loaded.eval()(data()), analog.eval()(data()))
    assert all(value.requires_grad for value in analogsim.range_parameters(loaded))


def test_one_number_is_one_for_all_blocks():
    """Ranges of older files, which have one a layer: they mean what they meant, in answers and for an optimizer."""
    old, analog = twin(LEARNED), twin(OWN)
    analogsim.calibrate(old, [data()], percentile=90)
    set_ranges(analog, {name: {kind: float(v) for kind, v in kinds.items()} for name, kinds in get_ranges(old).items()})
    assert torch.equal(answers(analog), answers(old))
    assert [value.shape for value in analogsim.range_parameters(analog)] == [(), ()]
    fresh = twin(OWN)
    analogsim.calibrate(fresh, [data()])
    held = analogsim.range_parameters(fresh)
    set_ranges(fresh, get_ranges(old))
    assert all(
        now is was and now.shape == (2,) for now, was in zip(analogsim.range_parameters(fresh), held, strict=True)
    )
    assert torch.equal(answers(fresh), answers(old))
    with pytest.raises(ValueError, match="trains one input_range for all of its blocks; calibrate it"):
        set_ranges(analog, {"0": {"input_range": torch.ones(2)}})


@pytest.mark.parametrize("value", [torch.ones(3), torch.ones(1, 2), torch.ones(1)])
def test_ranges_of_other_blocks_are_refused(value):
    analog = twin(OWN)
    with pytest.raises(ValueError, match=r"layer '0': input_range must be one number or shaped \(2,\), got"):
        set_ranges(analog, {"0": {"input_range": value}})
    with pytest.raises(ValueError, match=r"input_range must be one number, got \(2,\)"):
        set_ranges(twin(LEARNED), {"0": {"input_range": torch.ones(2)}})
    with pytest.raises(ValueError, match=r"must be finite and not 0, got \[1.0, 0.0\]"):
        set_ranges(analog, {"0": {"input_range": torch.tensor([1.0, 0.0])}})
