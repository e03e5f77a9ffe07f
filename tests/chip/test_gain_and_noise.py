"""What a digital gain makes of noise, and what noise makes of the measurement that the gain comes from."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar, DeviceModel, Drift, Gaussian, Mapping, ReadNoise
from analogsim.devices import FittedSlowNoise

K = 4.5  # standard errors
LARGE = Crossbar(output_bound=1e9)  # through the signal path, and nothing happens there
PAIR = Mapping("pair")
YEAR = 365 * 86400.0


def weight_at(analog: nn.Module, t: float | str, compensation: str | None) -> Tensor:
    analogsim.drift(analog, t, compensation=compensation)
    return analogsim.to_digital(analog, "programmed").weight.detach()


@pytest.mark.parametrize("crossbar", [Crossbar(), LARGE, LARGE.replace(rows=4)], ids=["ideal", "converters", "cut"])
@pytest.mark.parametrize("compensation", ["global", "column"])
def test_the_gain_amplifies_read_noise(crossbar: Crossbar, compensation: str) -> None:
    """Variance over 20,000 uses: gain^2 sum_j s^2 x_j^2, with s of the two cells of each weight."""
    layer, uses = nn.Linear(8, 3, bias=False), 20_000
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 1, 24).view(3, 8))
        layer.weight[:, ::4] = 1.0  # every block has the same scale
    device = DeviceModel((Drift(0.1, 0.0), ReadNoise(0.05)), mapping=PAIR)
    analog = analogsim.convert(layer, device, crossbar=crossbar).eval()
    analogsim.program(analog, seed=0)
    gain = weight_at(analog, "1y", compensation) / weight_at(analog, "1y", None)
    assert (gain > 2).all()  # (1 + a year / 20 s) ** 0.1 = 4.2, measured on as few as four noisy weights
    x = torch.randn(8)
    with torch.no_grad():
        for kind, factor in ((compensation, gain), (None, torch.ones(3, 8))):
            analogsim.drift(analog, "1y", compensation=kind)
            variance = analog(x.expand(uses, 8)).var(0)
            expected = 2 * 0.05**2 * factor.square() @ x.square()
            assert ((variance / expected - 1).abs() < K * math.sqrt(2 / uses)).all()


def test_gains_are_measured_through_read_noise() -> None:
    """Of chips that differ in nothing else the gain scatters by the noise of its two measurements."""
    layer, chips = nn.Linear(10, 10, bias=False), 400
    nn.init.constant_(layer.weight, 1.0)  # so far from 0 that no reading changes its sign
    device = DeviceModel((Drift(0.02, 0.0), ReadNoise(0.05)), mapping=PAIR)
    analog = analogsim.convert(layer, device)
    found = []
    for seed in range(chips):
        analogsim.program(analog, seed=seed)
        found.append(float((weight_at(analog, "1h", "global") / weight_at(analog, "1h", None)).mean()))
    gains = torch.tensor(found, dtype=torch.float64)
    decay = (1 + 3600 / 20) ** 0.02
    # A sum of 100 weights, with 5 % of noise of each of two cells: now they are smaller, by the decay, and it is not.
    relative = 0.05 * math.sqrt(2 / 100) * math.sqrt(1 + decay**2)
    assert float(gains.std() / (decay * relative)) == pytest.approx(1, abs=K / math.sqrt(2 * chips))
    assert float(gains.mean() / decay) == pytest.approx(1, abs=K * relative / math.sqrt(chips) + relative**2)


def test_a_measurement_is_not_the_noise_of_programming_and_the_same_when_repeated() -> None:
    layer = nn.Linear(10, 10, bias=False)
    analog = analogsim.convert(layer, DeviceModel((Gaussian(0.02), Drift(0.05), ReadNoise(0.05)), mapping=PAIR))
    analogsim.program(analog, seed=0)
    first, other = weight_at(analog, "1h", "global"), weight_at(analog, "1d", "global")
    assert torch.equal(weight_at(analog, "1h", "global"), first)
    assert not torch.equal(first, other)


def test_slow_noise_at_times_far_apart_is_independent() -> None:
    layer = nn.Linear(100, 100, bias=False)
    nn.init.constant_(layer.weight, 1.0)
    analog = analogsim.convert(layer, DeviceModel((FittedSlowNoise((0.05,)),), mapping=PAIR))
    analogsim.program(analog, seed=0)
    errors = torch.stack([(weight_at(analog, t, None) - 1).flatten() for t in (1.0, YEAR)])
    # One cell of each pair stands at zero, and its noise with it.
    assert float(errors.std() / 0.05) == pytest.approx(1, abs=K / math.sqrt(2 * 20_000))
    assert abs(float(torch.corrcoef(errors)[0, 1])) < K / 100
