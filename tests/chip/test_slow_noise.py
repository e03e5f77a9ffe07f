"""1/f noise of chips, through `program` and `drift` of a network: what two times have in common, and what not.

Chains of nothing but slow noise, without compensation: the errors of the weights are those of the cells' noise alone.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import sici
from torch import Tensor, nn

import analogsim
from analogsim import DeviceModel, Effect, Gaussian, Mapping
from analogsim.devices import FittedSlowNoise
from analogsim.devices.pcm import PCMReadNoise
from analogsim.devices.pcm_hermes import HermesReadNoise
from analogsim.devices.reram_cmo import CMOReadNoise
from analogsim.noise import FlickerBand

K = 4  # standard errors
SIZE = 200  # so many rows and columns
SECOND, DAY, YEAR = 1.0, 86400.0, 3.15e7
GRID = 0.003  # how far the tones may be from the integral

PAIR = Mapping("pair", "tensor")
DEVICES: dict[str, tuple[DeviceModel, FlickerBand]] = {
    "pcm": (DeviceModel((PCMReadNoise(),), mapping=PAIR), FlickerBand(20.0, 250e-9)),
    "pcm-hermes": (DeviceModel((HermesReadNoise(),), g_max=20.7, mapping=PAIR), FlickerBand(300.0, 512e-9)),
    "pcm-hermes, one cell": (
        DeviceModel((HermesReadNoise(t0=200.0, cells_per_conductance=1),), g_max=10.35, mapping=PAIR),
        FlickerBand(200.0, 512e-9),
    ),
    "reram-cmo": (DeviceModel((CMOReadNoise(),), g_min=9.0, g_max=88.2, mapping=PAIR), FlickerBand(0.0, 1e-6)),
    "fitted": (DeviceModel((FittedSlowNoise((0.02,), t0=60.0, t_read=1e-5),), mapping=PAIR), FlickerBand(60.0, 1e-5)),
}
every_device = pytest.mark.parametrize(("device", "band"), DEVICES.values(), ids=DEVICES.keys())


def implied(band: FlickerBand, t1: float, t2: float) -> float:
    """The correlation of two times, t1 < t2, by cosine integrals."""
    low, high = 1 / (t1 + band.t0 + band.t_read), 1 / (2 * band.t_read)
    return (sici(2 * np.pi * high * (t2 - t1))[1] - sici(2 * np.pi * low * (t2 - t1))[1]) / band.width(t2)


def errors(device: DeviceModel, times: tuple[float, ...], seed: int = 0) -> Tensor:
    """Of the weights of a layer, in the middle of the range, at each time in that order: ``(times, weights)``."""
    layer = nn.Linear(SIZE, SIZE, bias=False)
    with torch.no_grad():
        layer.weight.fill_(0.5)
        layer.weight[0] = 1.0
    analog = analogsim.convert(layer, device)
    analogsim.program(analog, seed)
    seen = []
    for t in times:
        analogsim.drift(analog, t, compensation=None)
        now = analogsim.to_digital(analog, weights="programmed").weight
        seen.append((now.detach() - layer.weight.detach())[1:].flatten().double())
    return torch.stack(seen)


def correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack((one, other)))[0, 1])


@every_device
def test_near_times_are_correlated_as_the_band_says_and_far_ones_are_not(
    device: DeviceModel, band: FlickerBand
) -> None:
    times = (SECOND, SECOND + 1e-3, DAY, DAY + 1, DAY + 100, YEAR, YEAR + DAY)
    found, count = errors(device, times), SIZE * (SIZE - 1)
    for (t1, one), (t2, other) in pairwise(zip(times, found, strict=True)):
        wanted = implied(band, t1, t2)
        assert abs(correlation(one, other) - wanted) < K * (1 - wanted**2) / math.sqrt(count) + GRID, (t1, t2)
    for one, other in ((0, 2), (0, 5), (2, 5), (3, 6)):
        assert abs(correlation(found[one], found[other])) < K / math.sqrt(count) + GRID


def test_a_second_after_a_day_about_a_third_is_left() -> None:
    """The number of the issue: 0.35 by the band of phase-change memory."""
    one, other = errors(DEVICES["pcm"][0], (DAY, DAY + 1))
    assert correlation(one, other) == pytest.approx(0.346, abs=K * 0.88 / SIZE + GRID)


@every_device
def test_any_order_of_times_gives_the_same_bits(device: DeviceModel, band: FlickerBand) -> None:
    times = (0.0, SECOND, DAY, DAY + 1, YEAR)
    forward, back = errors(device, times), errors(device, times[::-1]).flip(0)
    assert torch.equal(forward, back)
    assert torch.equal(errors(device, (DAY,)), forward[2:3])
    assert not torch.equal(errors(device, (DAY,), seed=1), forward[2:3])


def test_the_variance_is_the_published_one_at_each_time_and_the_law_normal() -> None:
    """Of a pair at half of the range, whose other cell conducts nothing; in units of the largest weight."""
    times = (0.0, SECOND, 3600.0, DAY, DAY + 1, YEAR)
    found, count = errors(DEVICES["pcm"][0], times), SIZE * (SIZE - 1)
    for t, error in zip(times, found, strict=True):
        published = 0.5 * 0.0088 / 0.5**0.65 * math.sqrt(math.log((t + 20 + 250e-9) / 500e-9))
        assert abs(error.std() / published - 1) < 3 / math.sqrt(2 * count), t
        assert stats.kstest((error / published).numpy(), "norm").pvalue > 1e-3


def test_cells_layers_chips_and_stages_are_independent() -> None:
    device = DEVICES["pcm"][0]
    one, later = errors(device, (DAY, DAY + 1))
    (other,) = errors(device, (DAY + 1,), seed=1)
    count = SIZE * (SIZE - 1)
    for a, b in ((one, other), (later, other), (one[1:], later[:-1]), (one[1:], one[:-1])):
        assert abs(correlation(a, b)) < K / math.sqrt(count)
    layers = nn.Sequential(nn.Linear(SIZE, SIZE, bias=False), nn.Linear(SIZE, SIZE, bias=False))
    with torch.no_grad():
        for layer in layers:
            layer.weight.fill_(0.5)
    analog = analogsim.convert(layers, device)
    with analogsim.programmed(analog, t=DAY, compensation=None):
        first, second = (layer.weight.detach().flatten() for layer in analogsim.to_digital(analog, "programmed"))
    assert abs(correlation(first, second)) < K / SIZE
    # What is written, the other stage of the same cells.
    both = DeviceModel((Gaussian(0.01), PCMReadNoise()), mapping=PAIR)
    (written,), (read,) = errors(DeviceModel((Gaussian(0.01),), mapping=PAIR), (0.0,)), errors(device, (DAY,))
    assert abs(correlation(written, read)) < K / math.sqrt(count)
    (sum_of_both,) = errors(both, (DAY,))
    assert sum_of_both.var() == pytest.approx(float(written.var() + read.var()), rel=0.05)


def test_an_effect_that_draws_normal_numbers_in_read_is_independent_at_any_two_times() -> None:
    """As effects of others do, which know nothing of bands."""

    class Plain(Effect):
        def read(self, g, t, cells, noise):  # type: ignore[no-untyped-def]
            return (g * (1 + 0.05 * noise.normal_like(g))).clamp_(min=0)

    one, other = errors(DeviceModel((Plain(),), mapping=PAIR), (DAY, DAY + 1e-3))
    assert abs(correlation(one, other)) < K / SIZE
    assert one.std() == pytest.approx(0.025, rel=0.02)


def test_the_whole_model_remembers_too() -> None:
    """What `pcm` reads besides its drift is correlated as its read noise alone."""
    device, band = analogsim.as_device_model("pcm").replace(mapping=PAIR), DEVICES["pcm"][1]
    one, other = errors(device, (DAY, DAY + 1))
    fresh = torch.stack(
        [errors(device.replace(effects=(*device.effects[:2], Silent())), (t,))[0] for t in (DAY, DAY + 1)]
    )
    noise, later = one - fresh[0], other - fresh[1]
    wanted = implied(band, DAY, DAY + 1)
    assert correlation(noise, later) == pytest.approx(wanted, abs=K * 0.88 / SIZE + GRID)


class Silent(PCMReadNoise):
    """Reads what is there."""

    def read(self, g, t, cells, noise):  # type: ignore[no-untyped-def]
        return g
