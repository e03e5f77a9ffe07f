"""What the callbacks of all trainers share."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import nn

import analogsim
from analogsim.integrations.course import (
    Course,
    check_optimizers,
    clear_range_gradients,
    is_on_chip,
    part_noise,
    plain_ranges,
    set_plain_ranges,
)


def twin() -> Any:
    torch.manual_seed(0)
    return analogsim.convert(nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3)), "pcm")


def test_schedule_and_clipping_go_over_all_steps() -> None:
    analog, course = twin(), Course(clip={"start": 3.0, "end": 1.0})
    course.begin(nn.ModuleDict({"held": analog}), 4)
    scales = [course.scale]
    for _ in range(5):
        course.step()
        scales.append(course.scale)
    assert scales == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
    weight = analog[0].weight.detach()
    # What is cut at one standard deviation has a smaller one afterwards; at least half of it is left of normal weights.
    assert weight.abs().max() < 2 * weight.std()
    assert course.schedules["clip"].state_dict()["last_step"] == 5


def test_none_leaves_the_noise_to_others() -> None:
    analog, course = twin(), Course(noise=None)
    analogsim.set_noise_scale(analog, 0.25)
    course.begin(analog, 4)
    course.step()
    assert course.scale is None
    assert analog[0].analog.noise_scale == 0.25
    assert course.state_dict() == {}


def test_a_state_goes_on_elsewhere() -> None:
    first, again = Course(noise={"end": 1.0, "shape": "linear", "steps": 10}), Course()
    first.begin(twin(), None)
    again.begin(twin(), 3)
    for _ in range(4):
        first.step()
    again.load_state_dict(first.state_dict())
    assert again.scale == first.scale == 0.4
    again.at(7)
    assert again.scale == 0.7


def test_the_chip_is_that_of_seed_and_time() -> None:
    analog, x = twin(), torch.ones(2, 6)
    course = Course(time="1mo", seed=3, compensation=None)
    course.put_on_chip(analog)
    with torch.no_grad():
        answer = analog.eval()(x)
    course.take_off_chip(analog)
    assert not is_on_chip(analog)
    with analogsim.programmed(analog, 3, "1mo", compensation=None), torch.no_grad():
        assert torch.equal(analog(x), answer)


def test_a_chip_of_somebody_else_stays() -> None:
    analog, course = twin(), Course()
    analogsim.program(analog)
    course.take_off_chip(analog)
    assert is_on_chip(analog)


def test_processes_draw_noise_of_their_own() -> None:
    drawn = []
    for rank, processes in ((0, 1), (1, 1), (0, 2), (1, 2)):
        torch.manual_seed(5)
        part_noise(rank, processes)
        drawn.append(float(torch.rand(())))
    assert drawn[0] == drawn[1] == drawn[2] != drawn[3]


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"noise": "linear"}, TypeError, r"noise must be a mapping .* or None, got 'linear'"),
        ({"clip": 2.5}, TypeError, "clip must be a mapping"),
        ({"time": "soon"}, ValueError, "soon"),
        ({"seed": 1.5}, TypeError, "seed"),
        ({"compensation": "glob"}, ValueError, "glob"),
    ],
)
def test_settings_are_refused_at_once(settings: dict[str, Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told) as raised:
        Course(**settings)
    assert isinstance(raised.value, analogsim.AnalogsimError)


def test_what_a_schedule_refuses_is_said_when_training_begins() -> None:
    with pytest.raises(TypeError, match=r"callback: noise: .*'ending'; see analogsim.NoiseSchedule"):
        Course(noise={"ending": 2.0}).begin(twin(), 4)
    with pytest.raises(ValueError, match="end must be finite"):
        Course(noise={"end": -2.0}).begin(twin(), 4)
    with pytest.raises(ValueError, match=r"does not know how many steps it will take, got noise=.* max_steps"):
        Course().begin(twin(), None)
    with pytest.raises(ValueError, match="no analog layer"):
        Course().begin(nn.Linear(2, 2), 4)
    course = Course(clip={"end": 2.0})
    course.begin(twin(), 4)
    with pytest.raises(ValueError, match=r"the checkpoint has the state of noise, and this callback moves clip and"):
        course.load_state_dict({"noise": {}})


def test_learned_ranges_that_no_optimizer_holds_are_told_of() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))
    analog = analogsim.convert(model, "pcm", crossbar="standard(input_range='learned')")
    with pytest.raises(analogsim.NotCalibratedError):
        check_optimizers(analog, [], "add them")
    analogsim.calibrate(analog, torch.randn(16, 6))
    first, second = analogsim.range_parameters(analog)
    with pytest.warns(UserWarning, match="1 of 2 input ranges .* in no optimizer and stay as calibrated: add them, or"):
        check_optimizers(analog, [torch.optim.SGD([*model.parameters(), first], lr=0.1)], "add them")
    check_optimizers(analog, [torch.optim.SGD([first], lr=0.1), torch.optim.SGD([second], lr=0.1)], "add them")
    check_optimizers(twin(), [], "nothing is learned there")
    analog.train()(torch.randn(4, 6)).sum().backward()
    assert first.grad is not None
    clear_range_gradients(analog)
    assert first.grad is second.grad is None


def test_plain_ranges_come_back_bit_by_bit_into_the_same_tensors() -> None:
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))
    analog = analogsim.convert(model, "pcm", crossbar="standard(input_range='learned')")
    analogsim.calibrate(analog, torch.randn(16, 6))
    held = analogsim.range_parameters(analog)
    kept, before = json.loads(json.dumps(plain_ranges(analog))), [value.detach().clone() for value in held]
    with torch.no_grad():
        for value in held:
            value.mul_(3)
    set_plain_ranges(analog, kept)
    assert all(map(torch.equal, held, before))
    assert all(a is b for a, b in zip(held, analogsim.range_parameters(analog), strict=True))
