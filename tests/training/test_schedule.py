from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

import analogsim
from analogsim import ClipSchedule, NoiseSchedule


def twin() -> nn.Module:
    return analogsim.convert(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "pcm")


def scales(analog: nn.Module) -> list[float]:
    return [layer.analog.noise_scale for layer in analog]


SHAPES = {
    "constant": lambda u: 2.0,
    "linear": lambda u: 0.5 + 1.5 * u,
    "cosine": lambda u: 0.5 + 1.5 * (1 - math.cos(math.pi * u)) / 2,
    "exponential": lambda u: 0.5 * 4.0**u,
    "step": lambda u: 0.5 + 1.5 * math.ceil(round(u * 5, 9)) / 5,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_closed_form(shape: str) -> None:
    schedule = NoiseSchedule(twin(), shape, start=0.5, end=2.0, steps=20, stairs=5)  # type: ignore[arg-type]
    for step in range(30):
        assert schedule.scale_at(step) == pytest.approx(SHAPES[shape](min(1.0, step / 20)), rel=1e-12)
    assert schedule.scale_at(20) == pytest.approx(2.0)
    if shape != "constant":
        assert schedule.scale_at(0) == 0.5


def test_falling_schedules() -> None:
    schedule = NoiseSchedule(twin(), "linear", start=1.0, end=0.0, steps=4)
    assert [schedule.scale_at(step) for step in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]


@pytest.mark.parametrize(("steps", "stairs"), [(100, 100), (100, 7), (3, 10), (1, 4)])
def test_stairs_are_exact(steps: int, stairs: int) -> None:
    """In floating point 28/100 * 100 is above 28, and would be a stair too high."""
    schedule = NoiseSchedule(twin(), "step", start=0.0, end=1.0, steps=steps, stairs=stairs)
    for step in range(steps + 2):
        exact = next(n for n in range(stairs + 1) if n * steps >= min(step, steps) * stairs)
        assert schedule.scale_at(step) == exact / stairs


def test_warmup_rises_to_the_shape() -> None:
    plain = NoiseSchedule(twin(), "cosine", start=0.4, end=1.0, steps=10)
    warm = NoiseSchedule(twin(), "cosine", start=0.4, end=1.0, steps=10, warmup=4)
    assert [warm.scale_at(step) for step in range(4)] == [plain.scale_at(step) * step / 4 for step in range(4)]
    assert all(warm.scale_at(step) == plain.scale_at(step) for step in range(4, 15))


def test_jitter_is_bounded_reproducible_and_independent_of_the_order() -> None:
    options = {"start": 1.0, "end": 1.0, "jitter": 0.3}
    schedule = NoiseSchedule(twin(), **options)
    forwards = [schedule.scale_at(step) for step in range(500)]
    torch.manual_seed(1)
    again = NoiseSchedule(twin(), **options)
    assert [again.scale_at(step) for step in reversed(range(500))] == forwards[::-1]
    assert all(0.7 <= scale <= 1.3 for scale in forwards)
    assert len(set(forwards)) == 500
    # Uniform on [0.7, 1.3]: mean 1, standard deviation 0.6/sqrt(12); 5 standard errors.
    assert abs(sum(forwards) / 500 - 1) < 5 * 0.6 / math.sqrt(12 * 500)
    assert min(forwards) < 0.72
    assert max(forwards) > 1.28
    other = NoiseSchedule(twin(), **options, seed=1)
    assert [other.scale_at(step) for step in range(500)] != forwards


def test_it_sets_the_scale_at_once_and_at_every_step() -> None:
    analog = twin()
    schedule = NoiseSchedule(analog, "linear", start=0.0, end=1.0, steps=4)
    seen = []
    for _ in range(6):
        seen.append(schedule.get_last_scale())
        assert scales(analog) == [seen[-1]] * 2
        schedule.step()
    assert seen == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_state_dict_continues_exactly() -> None:
    schedule = NoiseSchedule(twin(), "cosine", start=0.1, end=1.0, steps=9, warmup=3, jitter=0.2, seed=4)
    for _ in range(5):
        schedule.step()
    state = json.loads(json.dumps(schedule.state_dict()))
    analog = twin()
    resumed = NoiseSchedule(analog)
    resumed.load_state_dict(state)
    assert scales(analog) == [schedule.get_last_scale()] * 2
    for _ in range(8):
        schedule.step()
        resumed.step()
        assert resumed.get_last_scale() == schedule.get_last_scale()
        assert scales(analog) == [schedule.get_last_scale()] * 2
    assert repr(resumed) == repr(schedule)
    assert resumed.state_dict() == schedule.state_dict()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shape": "quadratic"}, "shape must be one of constant, linear, cosine, exponential, step, got 'quadratic'"),
        ({"start": -0.1}, "start must be finite and >= 0, got -0.1"),
        ({"end": float("nan")}, "end must be finite"),
        ({"end": float("inf")}, "end must be finite"),
        ({"shape": "exponential"}, "exponential needs start and end > 0, got 0.0 and 1.0"),
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"steps": 2.0}, "steps must be an integer"),
        ({"steps": True}, "steps must be an integer"),
        ({"warmup": -1}, "warmup must be an integer >= 0, got -1"),
        ({"stairs": 0}, "stairs must be an integer >= 1, got 0"),
        ({"jitter": 1.5}, r"jitter must be in \[0, 1\], got 1.5"),
        ({"jitter": "a"}, r"jitter must be in \[0, 1\], got 'a'"),
        ({"end": None}, "end must be finite and >= 0, got None"),
    ],
)
def test_bad_arguments(options: dict[str, object], words: str) -> None:
    analog = twin()
    with pytest.raises(ValueError, match="noise schedule: " + words):
        NoiseSchedule(analog, **options)  # type: ignore[arg-type]
    assert scales(analog) == [1.0, 1.0]


def test_other_errors() -> None:
    with pytest.raises(ValueError, match="no analog layer"):
        NoiseSchedule(nn.Linear(2, 2))
    schedule = NoiseSchedule(twin())
    with pytest.raises(ValueError, match="a step must be >= 0, got -1"):
        schedule.scale_at(-1)
    for state in ({}, {**schedule.state_dict(), "gamma": 1}):
        with pytest.raises(ValueError, match="the state needs the keys"):
            schedule.load_state_dict(state)
    with pytest.raises(TypeError):
        NoiseSchedule(twin(), "linear", 0.0)  # type: ignore[misc]


def square(u: float) -> float:
    return u**2


def test_a_shape_of_ones_own() -> None:
    schedule = NoiseSchedule(twin(), square, start=0.5, end=2.0, steps=20, warmup=2)
    for step in range(2, 30):
        u = min(1.0, step / 20)
        assert schedule.scale_at(step) == 0.5 + 1.5 * u**2
    assert schedule.scale_at(1) == (0.5 + 1.5 * 0.05**2) / 2
    assert repr(schedule).startswith("NoiseSchedule(shape='<square>', start=0.5")
    falling = NoiseSchedule(twin(), lambda u: torch.tensor(u), start=1.0, end=0.0, steps=4)
    assert [falling.scale_at(step) for step in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]


def test_the_state_of_a_shape_of_ones_own_is_text_and_is_checked() -> None:
    schedule = NoiseSchedule(twin(), square, steps=9)
    for _ in range(5):
        schedule.step()
    state = json.loads(json.dumps(schedule.state_dict()))
    assert state["shape"] == "<square>"
    again = NoiseSchedule(twin(), square)
    again.load_state_dict(state)
    assert again.get_last_scale() == schedule.get_last_scale() == (5 / 9) ** 2
    with pytest.raises(ValueError, match=r"has the shape <square>, and this .* constant; make it with the callable of"):
        NoiseSchedule(twin()).load_state_dict(state)
    with pytest.raises(ValueError, match="has the shape <square>, and this schedule was made with <lambda>"):
        NoiseSchedule(twin(), lambda u: u).load_state_dict(state)
    linear = NoiseSchedule(twin(), "linear").state_dict()
    with pytest.raises(ValueError, match=r"made with <square>; make it with NoiseSchedule.*shape='linear'"):
        again.load_state_dict(linear)

    def linear_(u: float) -> float:
        return 1 - u

    linear_.__name__ = "linear"  # is not taken for the built-in one
    mine = NoiseSchedule(twin(), linear_)
    assert mine.scale_at(0) == 1.0
    with pytest.raises(ValueError, match="has the shape linear, and this schedule was made with <linear>"):
        mine.load_state_dict(linear)


@pytest.mark.parametrize("result", [float("nan"), float("inf"), "0.5", None, True, torch.ones(2)], ids=repr)
def test_a_shape_that_gives_no_number(result: object) -> None:
    analog = twin()
    with pytest.raises(ValueError, match=r"the shape <lambda> must give a finite number for every u in .0, 1., got"):
        NoiseSchedule(analog, lambda u: result)  # type: ignore[arg-type,return-value]
    assert scales(analog) == [1.0, 1.0]


def test_a_shape_that_is_wrong_at_the_end_or_negative() -> None:
    with pytest.raises(ValueError, match=r"the shape <lambda> must give a finite number .* got nan for 1"):
        NoiseSchedule(twin(), lambda u: float("nan") if u == 1 else u)
    with pytest.raises(ValueError, match="<lambda> gives -1 for 1, which makes a negative scale of start=0 and end=1"):
        NoiseSchedule(twin(), lambda u: -u)
    NoiseSchedule(twin(), lambda u: -u, start=2.0, end=3.0)


@pytest.mark.parametrize("steps", [97, 1000, 99_991])
def test_stairs_are_those_of_whole_numbers(steps: int) -> None:
    for stairs in (1, 3, 7, 100, steps):
        schedule = NoiseSchedule(twin(), "step", start=0.1, end=0.7, steps=steps, stairs=stairs)
        for step in range(0, steps + 1, max(1, steps // 997)):
            exact = 0.1 + (0.7 - 0.1) * -(-step * stairs // steps) / stairs
            assert schedule.scale_at(step) == exact


# --- the limit of weights -------------------------------------------------------------------------------------------


def test_the_limit_moves_and_weights_follow_it() -> None:
    torch.manual_seed(0)
    model = nn.Linear(60, 5)
    analog = analogsim.convert(model, "pcm")
    old = model.weight.detach().clone()
    schedule = ClipSchedule(analog, "linear", start=2.0, end=1.0, steps=4, per="column")
    wanted = old.clone()
    for step in range(6):
        assert schedule.get_last_sigmas() == schedule.sigmas_at(step) == max(1.0, 2.0 - step / 4)
        limit = schedule.sigmas_at(step) * wanted.square().mean(1, keepdim=True).sqrt()
        wanted = wanted.clamp(-limit, limit)
        torch.testing.assert_close(model.weight.detach(), wanted)
        schedule.step()
    assert not torch.equal(model.weight, old)


def test_a_clip_schedule_goes_on_from_its_state() -> None:
    analog = analogsim.convert(nn.Linear(60, 5), "pcm")
    schedule = ClipSchedule(analog, "cosine", start=3.0, end=1.5, steps=10)
    for _ in range(3):
        schedule.step()
    state = json.loads(json.dumps(schedule.state_dict()))
    other = ClipSchedule(analogsim.convert(nn.Linear(60, 5), "pcm"))
    other.load_state_dict(state)
    assert other.get_last_sigmas() == schedule.get_last_sigmas() == schedule.sigmas_at(3)
    assert "start=3.0, end=1.5, steps=10, per='layer'" in repr(other)
    with pytest.raises(ValueError, match="clip schedule: the state needs the keys"):
        other.load_state_dict(NoiseSchedule(twin()).state_dict())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"end": 0.0}, "clip schedule: end must be finite and > 0, got 0.0"),
        ({"start": "4"}, "clip schedule: start must be finite and > 0, got '4'"),
        ({"start": float("inf")}, "clip schedule: start must be finite and > 0"),
        ({"per": "tensor"}, "per must be one of layer, column"),
        ({"steps": 0}, "clip schedule: steps must be an integer >= 1"),
        ({"shape": "round"}, "clip schedule: shape must be one of constant"),
        ({"shape": lambda u: -u, "start": 1.0, "end": 3.0}, "gives -1 for 1, which makes a negative limit"),
    ],
)
def test_bad_clip_schedules(changes: dict[str, object], told: str) -> None:
    analog = twin()
    before = analog[0].weight.detach().clone()
    with pytest.raises(ValueError, match=told):
        ClipSchedule(analog, **changes)  # type: ignore[arg-type]
    assert torch.equal(analog[0].weight, before)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("end", math.nan),
        ("end", math.inf),
        ("start", -1.0),
        ("start", "1"),
        ("steps", 0),
        ("steps", 2.5),
        ("warmup", -1),
        ("stairs", True),
        ("jitter", 1.5),
        ("seed", None),
        ("shape", "linea2"),
        ("shape", ["linear"]),
        ("last_step", -3),
        ("last_step", 0.5),
        ("last_step", None),
    ],
)
def test_a_state_is_looked_at_as_arguments_are(name: str, value: object) -> None:
    schedule = NoiseSchedule(twin(), "linear", end=2.0, steps=4)
    schedule.step()
    before = schedule.state_dict()
    with pytest.raises(ValueError, match=f"^noise schedule: .*{'shape' if name == 'shape' else name}"):
        schedule.load_state_dict({**before, name: value})
    assert schedule.state_dict() == before
    assert schedule.get_last_scale() == 0.5


@pytest.mark.parametrize(("name", "value"), [("start", 0.0), ("end", math.inf), ("per", "row"), ("last_step", "1")])
def test_so_is_that_of_clipping(name: str, value: object) -> None:
    schedule = ClipSchedule(twin(), "linear", steps=4)
    with pytest.raises(ValueError, match=f"^clip schedule: {name} must be "):
        schedule.load_state_dict({**schedule.state_dict(), name: value})
