"""What the relaxations of all technologies share: variances that add up, one number per cell, a mean."""

import math

import numpy as np
import pytest
import torch

from analogsim import Cells
from analogsim.devices import Relaxation, SonosRetention, WanRelaxation, reram_wan2022, sonos
from analogsim.noise import KeyedNoise

K = 5  # standard errors
DAY = 86400.0
N = 200_000
DEVICES = {"reram-wan2022": (reram_wan2022(), WanRelaxation()), "sonos": (sonos(), SonosRetention())}


@pytest.fixture(params=DEVICES)
def kind(request):
    return DEVICES[request.param]


def midway(device, cells=N):
    """Written cells at half of the range, where nothing is clipped."""
    target = torch.full((1, cells), device.g_max / 2, dtype=torch.float64)
    return Cells(target, device.g_min, device.g_max, programmed=target)


def test_the_variance_is_linear_between_the_measured_times(kind):
    device, effect = kind
    cells = midway(device, 1)
    variances = [float(spread.square().squeeze()) for spread in effect.spreads(cells)]
    clock = [float(effect.clock(torch.tensor(t, dtype=torch.float64))) for t in np.linspace(1, effect.times[1], 200)]
    growth = [
        float(effect.growth(torch.tensor(t, dtype=torch.float64), cells).squeeze())
        for t in np.linspace(1, effect.times[1], 200)
    ]
    np.testing.assert_allclose(growth, np.interp(clock, effect.knots, variances) - variances[0], rtol=1e-9)


def test_the_growth_is_never_negative(kind):
    device, effect = kind
    target = torch.linspace(device.g_min, device.g_max, 2001, dtype=torch.float64)[None]
    cells = Cells(target, device.g_min, device.g_max)
    for t in (0.0, 1.0, 3600.0, DAY, 1.7 * DAY, effect.times[1]):
        assert (effect.growth(torch.tensor(t, dtype=torch.float64), cells) >= 0).all()


def test_programming_error_and_relaxation_add_up_to_the_published_spread(kind):
    device, effect = kind
    weight = torch.full((400, 500), 0.5, dtype=torch.float64)
    weight[0] = 1.0
    written = device.program(weight, KeyedNoise("relaxation"))
    at_end = device.age(written, effect.times[1])[0, 1:].flatten()
    target = written.cells.target[0, 1:].flatten()
    want = effect.spreads(Cells(target[:1], device.g_min, device.g_max))[-1]
    error = at_end - target
    shift = effect.shift(effect.times[1], Cells(target[:1], device.g_min, device.g_max))
    mean = 0.0 if shift is None else float(shift)  # of sonos, whose published mean moves
    assert abs(error.mean() - mean) < K * want / math.sqrt(error.numel())
    assert abs(error.std() - want) < K * want / math.sqrt(2 * error.numel())


def test_a_cell_is_itself_at_every_time(kind):
    # Trap: each time point redraws every cell, so that no chip can be followed.
    device, effect = kind
    cells = midway(device)
    drawn = effect.draw(cells, KeyedNoise("cell"))
    early, late = (effect.age(cells.programmed, t, cells, drawn) - cells.programmed for t in (3600.0, effect.times[1]))
    assert np.corrcoef(early.flatten(), late.flatten())[0, 1] == pytest.approx(1.0)
    assert late.std() > 1.05 * early.std()


def test_relaxation_is_independent_of_the_programming_error(kind):
    device, _ = kind
    written = device.program(torch.full((300, 300), 0.5), KeyedNoise("independent"))
    programming = (written.programmed - written.cells.target)[0].flatten()
    relaxation = written.drawn[1]["xi"][0].flatten()
    assert abs(np.corrcoef(programming, relaxation)[0, 1]) < K / math.sqrt(programming.numel())


def test_time_may_be_a_tensor_for_each_chip(kind):
    device, effect = kind
    cells = midway(device, 50)
    drawn = effect.draw(cells, KeyedNoise("chips"))
    times = (0.0, 60.0, DAY)
    together = effect.age(cells.programmed.expand(3, 1, 50), torch.tensor(times).view(3, 1, 1), cells, drawn)
    for t, aged in zip(times, together, strict=True):
        torch.testing.assert_close(aged, effect.age(cells.programmed, t, cells, drawn))


def test_scale_scales_the_growth(kind):
    device, effect = kind
    cells = midway(device, 50)
    drawn = effect.draw(cells, KeyedNoise("scale"))
    one, half, none = (
        effect.replace(scale=scale).age(cells.programmed, DAY, cells, drawn) - cells.programmed for scale in (1, 0.5, 0)
    )
    torch.testing.assert_close(half, one / 2)
    assert not none.any()


def test_the_base_says_what_to_override():
    cells = Cells(torch.ones(2, 3), 0.0, 1.0)
    with pytest.raises(NotImplementedError, match="Relaxation does not say how time counts"):
        Relaxation().age(cells.target, 1.0, cells, {"xi": cells.target})
    with pytest.raises(NotImplementedError, match="Relaxation does not say how large its spread is"):
        Relaxation().spreads(cells)


def test_weights_are_those_of_linear_interpolation(kind):
    _, effect = kind
    for t in (0.0, 1.0, 60.0, 0.7 * DAY, DAY, 1.3 * DAY, effect.times[1]):
        weights = effect.weights(t)
        at = float(effect.clock(torch.tensor(t, dtype=torch.float64)))
        assert sum(weights) == pytest.approx(1)
        assert np.dot(weights, effect.knots) == pytest.approx(max(at, effect.knots[0]))
        assert sum(weight > 0 for weight in weights) <= 2
        tensors = effect.weights(torch.tensor(t, dtype=torch.float64))
        np.testing.assert_allclose([float(weight) for weight in tensors], weights, atol=1e-12)
