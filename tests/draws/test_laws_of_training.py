"""What a training forward sees, against the law of the chip that it stands for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar, DeviceModel, Drift, Effect, Gaussian, Mapping, ReadNoise
from analogsim.noise import counter_based
from tests.hardware import LARGE

K = 4.5  # standard errors
PERIPHERY = pytest.mark.parametrize("crossbar", [Crossbar(), LARGE], ids=["ideal", "converters"])
PAIR = Mapping("pair")
YEAR = 365 * 86400.0
DECAY = (1 + YEAR / 20) ** 0.1


# --- read noise and gain --------------------------------------------------------------------------------------------


@PERIPHERY
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_the_gain_amplifies_read_noise_in_training_as_on_a_chip(crossbar: Crossbar, scale: float) -> None:
    """Variance over 20,000 inputs of one draw: (scale gain)^2 sum_j s^2 x_j^2."""
    layer, uses = nn.Linear(8, 3, bias=False), 20_000
    device = DeviceModel((Drift(0.1, 0.0), ReadNoise(0.02)), mapping=PAIR)
    analog = analogsim.convert(layer, device, crossbar=crossbar, train_times=(YEAR, YEAR))
    analogsim.set_noise_scale(analog, scale)
    x = torch.randn(8)
    with torch.no_grad():
        output = analog(x.expand(uses, 8))
    largest = layer.weight.detach().abs().amax(1)
    expected = (scale * DECAY * 0.02 * largest).square() * 2 * x.square().sum()
    assert ((output.var(0) / expected - 1).abs() < K * math.sqrt(2 / uses)).all()
    assert ((output.mean(0) - layer(x)).abs() < K * (expected / uses).sqrt()).all()


@pytest.mark.parametrize(("scale", "gain"), [(0.5, 1 + 0.5 * (DECAY - 1)), (1.0, DECAY), (2.0, DECAY)])
def test_converters_see_no_more_than_the_gain_of_the_device(scale: float, gain: float) -> None:
    """The gain widens the steps of output converters; a scale above 1 widens errors, but asks for no larger gain."""
    layer = nn.Linear(20, 1, bias=False).double()
    with torch.no_grad():
        layer.weight[0, 0] = 1.0
    device = DeviceModel((Drift(0.1, 0.0),), mapping=PAIR)
    crossbar = Crossbar(adc_bits=6, output_bound=2.0, input_range=1.0)
    analog = analogsim.convert(layer, device, crossbar=crossbar, train_times=(YEAR, YEAR))
    analogsim.set_noise_scale(analog, scale)
    x = torch.rand(2000, 20, dtype=torch.float64) * 2 - 1
    step = 2.0 / 31 * gain
    with torch.no_grad():
        codes = (analog(x) / step).squeeze(1)
        wanted = (layer(x) / step).squeeze(1)
    assert codes.round().unique().numel() > 5
    torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-4)
    assert (codes - wanted).abs().max() < 0.5 + 1e-4


# --- times ----------------------------------------------------------------------------------------------------------

SEEN: list[float] = []


@dataclass(frozen=True)
class Clock(Effect):
    """Writes down when it is read."""

    def age(self, g: Tensor, t: Any, cells: Any, drawn: Any) -> Tensor:
        SEEN.append(float(t))
        return g.clone()


def test_times_of_training_are_log_uniform() -> None:
    """Kolmogorov and Smirnov's test of 2,000 logarithms; the seed is fixed, so that p below 1e-3 is a fault."""
    analog = analogsim.convert(nn.Linear(2, 1), DeviceModel((Clock(),), mapping=PAIR), train_times=("1s", "1y"))
    SEEN.clear()
    with torch.no_grad():
        for _ in range(2000):
            analog(torch.ones(2))
    assert len(SEEN) == 2000
    assert 1 <= min(SEEN) < max(SEEN) <= YEAR * (1 + 1e-5)
    logs = torch.tensor(SEEN, dtype=torch.float64).log() / math.log(YEAR)
    assert stats.kstest(logs.numpy(), "uniform").pvalue > 1e-3
    assert abs(float(torch.corrcoef(torch.stack((logs[1:], logs[:-1])))[0, 1])) < K / math.sqrt(2000)


# --- compiled code --------------------------------------------------------------------------------------------------


@PERIPHERY
@pytest.mark.parametrize("chain", [(Gaussian(0.05),), (Gaussian(0.05), Drift())], ids=["written", "drifting"])
def test_compiled_no_gradient_goes_beyond_the_range(crossbar: Crossbar, chain: tuple[Effect, ...]) -> None:
    torch._dynamo.reset()
    layer = nn.Linear(50, 40, bias=False)
    device = DeviceModel(chain, mapping=Mapping("pair", "column", percentile=75.0))
    analog = analogsim.convert(layer, device, crossbar=crossbar)
    torch.compile(analog, backend="eager", fullgraph=True)(torch.eye(50)).sum().backward()
    beyond = layer.weight.detach().abs() > device.largest(layer.weight.detach())
    assert 0.2 < beyond.double().mean() < 0.3
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, torch.where(beyond, 0.0, 1.0))


@dataclass(frozen=True)
class Fading(Effect):
    """Half of every conductance is gone after a year, more and less from cell to cell."""

    cellwise: ClassVar[bool] = True

    def draw(self, cells: Any, noise: Any) -> Any:
        return {"share": noise.normal_like(cells.target, 0.2).add_(0.5)}

    def age(self, g: Tensor, t: Any, cells: Any, drawn: Any) -> Tensor:
        return g * (1 - drawn["share"] * t / YEAR)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Compiled noise without a compiler, in eager code; and the functions that were to be compiled."""
    names: list[str] = []

    def plain(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        names.append(function.__name__)
        return function

    monkeypatch.setattr(torch, "compile", plain)
    counter_based.compiled_normal.cache_clear()
    analogsim.use_compiled_noise()
    yield names
    analogsim.use_compiled_noise(False)
    counter_based.compiled_normal.cache_clear()


@pytest.mark.parametrize(
    "device",
    [
        # Of another range than the one by that name, whose kernel, made by a compiler, others may want to meet.
        pytest.param(analogsim.as_device_model("pcm").replace(g_max=24.0), id="pcm"),
        pytest.param(DeviceModel((Fading(),), mapping=PAIR), id="fading"),
    ],
)
def test_compiled_noise_ages_as_eager_noise_does(device: DeviceModel, kernels: list[str]) -> None:
    """The error of the weights at a second and at a year: means over 20 draws, within 4.5 standard errors."""
    layer = nn.Linear(100, 100, bias=False)
    for crossbar in (Crossbar(), LARGE):
        sizes: dict[tuple[bool, float], Tensor] = {}
        for t in (1.0, YEAR):
            analog = analogsim.convert(layer, device, crossbar=crossbar, train_times=(t, t))
            for compiled in (True, False):
                analogsim.use_compiled_noise(compiled)
                with torch.no_grad():
                    errors = [(analog(torch.eye(100)).t() - layer.weight).std() for _ in range(20)]
                sizes[compiled, t] = torch.stack(errors).double()
            one, other = sizes[True, t], sizes[False, t]
            assert abs(one.mean() - other.mean()) < K * ((one.var() + other.var()) / 20).sqrt() + 1e-6
        assert sizes[True, YEAR].mean() > 1.2 * sizes[True, 1.0].mean()
    assert "kernel" in kernels
