import math

import pytest
import torch

from analogsim import Cells, DeviceModel, Drift
from analogsim.noise import KeyedNoise

K = 5  # standard errors
TIMES = (0.0, 1.0, 3600.0, 86400.0, 3.15e7)


def cells(*shape, g=25.0):
    target = torch.full(shape, g, dtype=torch.float64)
    return Cells(target, 0.0, 25.0, programmed=target)


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize(("nu", "t0"), [(0.05, 20.0), (0.1, 1.0), (0.0, 20.0)])
def test_power_law(t, nu, t0):
    drift, of = Drift(nu=nu, nu_std=0.0, t0=t0), cells(2, 3, 4, g=10.0)
    aged = drift.age(of.target, t, of, drift.draw(of, KeyedNoise("drift")))
    torch.testing.assert_close(aged, torch.full_like(aged, 10.0 * ((t + t0) / t0) ** -nu))


def test_exponents_are_normal_and_each_cells_own():
    of = cells(2, 300, 300)
    nu = Drift(nu=0.05, nu_std=0.02).draw(of, KeyedNoise("drift"))["nu"]
    n = nu.numel()
    assert abs(nu.mean() - 0.05) < K * 0.02 / math.sqrt(n)
    assert abs(nu.std() - 0.02) < K * 0.02 / math.sqrt(2 * n)
    assert abs(((nu - 0.05) / 0.02).pow(3).mean()) < K * math.sqrt(15 / n)
    for one, other in ((nu[0], nu[1]), (nu[:, :-1], nu[:, 1:])):
        correlation = torch.corrcoef(torch.stack((one.flatten(), other.flatten())))[0, 1]
        assert abs(correlation) < K / math.sqrt(one.numel())


def test_a_chip_keeps_its_exponents():
    # Trap: each time point redraws every cell, so that no chip can be followed.
    device = DeviceModel((Drift(nu_std=0.03),))
    written = device.program(torch.ones(50, 50), KeyedNoise("drift"))
    nu = [-torch.log(device.age(written, t)[0] / written.programmed[0]) / math.log1p(t / 20.0) for t in (1e3, 1e7, 1e3)]
    torch.testing.assert_close(nu[0], nu[1], rtol=1e-3, atol=1e-5)
    assert torch.equal(nu[0], nu[2])


def test_a_negative_exponent_grows():
    drift, of = Drift(nu=0.0, nu_std=0.05), cells(1, 1000)
    drawn = drift.draw(of, KeyedNoise("drift"))
    aged = drift.age(of.target, 1e6, of, drawn)
    assert torch.equal(aged > of.target, drawn["nu"] < 0)
    assert (aged > of.target).any()


def test_what_is_zero_stays_zero():
    drift, of = Drift(), cells(2, 3, g=0.0)
    assert not drift.age(of.target, 1e6, of, drift.draw(of, KeyedNoise("drift"))).any()


def test_a_time_for_each_chip():
    drift, of = Drift(nu_std=0.02), cells(2, 5, 4)
    drawn = drift.draw(of, KeyedNoise("drift"))
    g = of.target.expand(len(TIMES), 2, 5, 4)
    together = drift.age(g, torch.tensor(TIMES, dtype=torch.float64).view(-1, 1, 1, 1), of, drawn)
    for t, aged in zip(TIMES, together, strict=True):
        torch.testing.assert_close(aged, drift.age(of.target, t, of, drawn))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"nu": -0.1}, "Drift: nu must be >= 0, got -0.1"),
        ({"nu_std": -1}, "Drift: nu_std must be >= 0, got -1"),
        ({"t0": 0}, "Drift: t0 must be > 0, got 0"),
        ({"t0": math.inf}, "Drift: t0 must be finite, got inf"),
    ],
)
def test_illegal_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        Drift(**parameters)
