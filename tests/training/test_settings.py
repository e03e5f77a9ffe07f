from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import (
    Cells,
    Crossbar,
    DeviceModel,
    Drift,
    Effect,
    Gaussian,
    Mapping,
    ReadNoise,
    State,
    set_noise_scale,
    set_recompute,
    set_train_times,
)
from analogsim.draws.noisy_weight import draw_cells
from analogsim.layers.module import matrices_of
from analogsim.noise.sources import GlobalNoise

PAIR = Mapping("pair")


def twin(*layers: nn.Module, device: object = "pcm") -> nn.Module:
    return analogsim.convert(nn.Sequential(*layers), device)


# --- the scale ------------------------------------------------------------------------------------------------------


def test_set_noise_scale() -> None:
    analog = analogsim.convert(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "pcm")
    set_noise_scale(analog, 0.25)
    assert [layer.analog.noise_scale for layer in analog] == [0.25, 0.25]
    for bad in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="set_noise_scale: the scale must be finite and >= 0"):
            set_noise_scale(analog, bad)
    with pytest.raises(ValueError, match="no analog layer"):
        set_noise_scale(nn.Linear(2, 2), 1)


@pytest.mark.parametrize("crossbar", ["ideal", Crossbar(dac_bits=16, output_bound=1e4)], ids=["ideal", "converters"])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_errors_have_the_variance_of_the_device_times_the_square_of_the_scale(scale: float, crossbar: object) -> None:
    """Programming, drift and read noise together: variances over many forwards, against those at scale 1."""
    chain = (Gaussian(0.05), Drift(0.05, 0.03), ReadNoise(0.05))
    analog = analogsim.convert(nn.Linear(6, 4, bias=False), DeviceModel(chain, mapping=PAIR), crossbar=crossbar)
    x, clean = torch.randn(6), analog.weight.detach()

    def errors(scale: float) -> torch.Tensor:
        torch.manual_seed(3)  # the same draws of the device: what is left of the tolerance is rounding
        set_noise_scale(analog, scale)
        with torch.no_grad():
            return torch.stack([analog(x) - clean @ x for _ in range(400)])

    torch.testing.assert_close(errors(scale).var(0), scale**2 * errors(1.0).var(0), rtol=0.05, atol=0)


def test_noise_on_weights_has_its_size_at_half_the_scale() -> None:
    layer = nn.Linear(200, 200, bias=False)
    analog = analogsim.convert(layer, Gaussian(0.1))
    set_noise_scale(analog, 0.5)
    with torch.no_grad():
        error = (analog(torch.eye(200)).t() - layer.weight) / layer.weight.abs().amax(1, keepdim=True)
    assert float(error.var()) == pytest.approx(0.05**2, rel=4.5 * (2 / error.numel()) ** 0.5)
    assert float(error.mean()) == pytest.approx(0, abs=4.5 * 0.05 / error.numel() ** 0.5)


def test_layers_in_one_place_share_one_scalar_which_is_written_into() -> None:
    analog = twin(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    analog[2].to("meta")
    set_noise_scale(analog, 0.25)
    first, second, third = (layer.analog.compiled_scale for layer in analog)
    assert first is second
    assert first is not third
    assert (first.device.type, third.device.type) == ("cpu", "meta")
    assert float(first) == 0.25
    assert not first.requires_grad
    set_noise_scale(analog, 0.75)
    assert analog[0].analog.compiled_scale is analog[1].analog.compiled_scale is first  # a graph holds it
    assert analog[2].analog.compiled_scale is third
    assert float(first) == 0.75
    assert [layer.analog.noise_scale for layer in analog] == [0.75] * 3


def test_a_scale_of_zero_has_no_scalar_and_comes_back_with_one() -> None:
    analog = twin(nn.Linear(2, 2), nn.Linear(2, 2))
    set_noise_scale(analog, 0.5)
    set_noise_scale(analog, 0)
    assert [(layer.analog.noise_scale, layer.analog.compiled_scale) for layer in analog] == [(0.0, None)] * 2
    set_noise_scale(analog, 1)
    assert analog[0].analog.compiled_scale is analog[1].analog.compiled_scale
    assert float(analog[0].analog.compiled_scale) == 1


def test_layers_that_moved_get_a_scalar_where_they_are() -> None:
    analog = twin(nn.Linear(2, 2), nn.Linear(2, 2))
    set_noise_scale(analog, 0.5)
    analog[1].to("meta")
    set_noise_scale(analog, 0.5)
    assert [layer.analog.compiled_scale.device.type for layer in analog] == ["cpu", "meta"]


def test_a_scale_set_in_inference_mode_serves_training() -> None:
    analog = twin(nn.Linear(2, 2))
    with torch.inference_mode():
        set_noise_scale(analog, 0.5)
    assert not analog[0].analog.compiled_scale.is_inference()
    set_noise_scale(analog, 0.25)
    assert float(analog[0].analog.compiled_scale) == 0.25


def test_a_refused_scale_changes_nothing() -> None:
    analog = twin(nn.Linear(2, 2))
    set_noise_scale(analog, 0.5)
    for bad in (-1e-9, float("nan"), float("inf"), "much"):
        with pytest.raises(ValueError, match=r"set_noise_scale: the scale must be finite|could not convert"):
            set_noise_scale(analog, bad)  # type: ignore[arg-type]
    assert analog[0].analog.noise_scale == 0.5
    assert float(analog[0].analog.compiled_scale) == 0.5


# --- draws made again -----------------------------------------------------------------------------------------------


def test_every_matrix_makes_its_draws_again_or_none() -> None:
    analog = twin(nn.Linear(2, 2), nn.LSTM(2, 2))
    states = [matrix.analog for matrix in matrices_of(analog)]
    assert len(states) == 3
    assert not any(state.recompute for state in states)
    set_recompute(analog)
    assert all(state.recompute for state in states)
    set_recompute(analog, False)
    assert not any(state.recompute for state in states)
    for bad in (None, 0, "yes"):
        with pytest.raises(TypeError, match="set_recompute: must be True or False, got"):
            set_recompute(analog, bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no analog layer"):
        set_recompute(nn.Linear(2, 2))


# --- the ages -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clock(Effect):
    """A cell that holds the time it is read at."""

    def age(self, g: Tensor, t: float | Tensor, cells: Cells, drawn: State) -> Tensor:
        return g + t


def ages(times: Sequence[float | str], count: int) -> Tensor:
    """The ages that so many training forwards see."""
    analog = analogsim.convert(nn.Linear(2, 1), DeviceModel((Clock(),), g_max=1.0, mapping=PAIR))
    set_train_times(analog, times)
    state = analog.analog
    weight = torch.zeros(1, 2)
    drawn = [
        draw_cells(weight, state.device, state.train_times, state.layout, state.crossbar, GlobalNoise()).g.flatten()[0]
        for _ in range(count)
    ]
    return torch.stack(drawn).double()


def test_two_times_are_a_range_up_to_ten_years() -> None:
    torch.manual_seed(0)
    seen = ages(("1s", "10y"), 2000).log()
    width = math.log(analogsim.seconds("10y"))
    # Uniform: mean and variance within 4.5 standard errors.
    assert abs(seen.mean() / width - 0.5) < 4.5 * (1 / 12 / 2000) ** 0.5
    assert abs(seen.var() / width**2 - 1 / 12) < 4.5 * (1 / 180 / 2000) ** 0.5
    assert seen.min() >= 0
    assert seen.max() <= width * (1 + 1e-6)


@pytest.mark.parametrize("given", [["1d"], (86400.0,), ("1d", "1d")])
def test_one_time_is_the_age_of_all(given: Sequence[float | str]) -> None:
    torch.testing.assert_close(ages(given, 3), torch.full((3,), 86400.0, dtype=torch.float64))


def test_of_several_times_each_is_drawn_as_often() -> None:
    torch.manual_seed(0)
    given = ["10y", "1s", "1h"]  # in any order
    seen = ages(given, 3000)
    for time in given:
        share = float((seen - analogsim.seconds(time)).abs().lt(1e-3 * analogsim.seconds(time)).double().mean())
        assert abs(share - 1 / 3) < 4.5 * (2 / 9 / 3000) ** 0.5


@pytest.mark.parametrize(
    ("times", "told"),
    [
        ((), "times must be a sequence"),
        ("1d", "times must be a sequence"),
        (3.0, "times must be a sequence"),
        ((0, "1d"), "times must be > 0"),
        (("1d", "1s"), "from the earlier to the later"),
        (("1s", "soon"), "cannot read 'soon'"),
        (("1s", "1y"), "is valid from"),
    ],
)
def test_bad_times_change_nothing(times: object, told: str) -> None:
    analog = analogsim.convert(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), {"0": "pcm", "1": "reram-wan2022"})
    before = [layer.analog.train_times for layer in analog]
    with pytest.raises(ValueError, match=told):
        set_train_times(analog, times)  # type: ignore[arg-type]
    assert [layer.analog.train_times for layer in analog] == before


def test_ages_hold_for_draws_that_are_made_again() -> None:
    analog = analogsim.convert(nn.Linear(6, 4), "pcm")
    set_train_times(analog, ("1s", "1d", "10y"))
    set_recompute(analog)
    x = torch.randn(5, 6, requires_grad=True)
    analog.train()(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
