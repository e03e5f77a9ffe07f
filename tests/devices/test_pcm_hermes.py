"""The 64-core chip's PCM against the published formulas, written here once more in numpy, to the last digit."""

import numpy as np
import pytest
import torch

from analogsim import Cells, seconds
from analogsim.devices import HermesDrift, HermesProgramming, HermesReadNoise, pcm_hermes
from analogsim.noise import KeyedNoise

X = np.concatenate(([0.0, 1e-8, 1e-5, 1e-3, 0.0944, 0.0946, 0.159, 0.161, 0.303, 0.305, 0.31], np.linspace(0, 1, 301)))
KINDS = {1: (10.35, 200.0), 2: (20.7, 300.0)}
T_READ = 512e-9
LOG_X = np.log(np.maximum(X, 1e-7))


def sigma(kind):
    if kind == 1:
        return 0.15782 + 2.32444 * X - 2.16311 * X**2 + 0.68842 * X**3
    return 0.16603 + 4.71806 * X - 8.48101 * X**2 + 4.68961 * X**3


def exponent(kind):
    mu = np.where(X < 0.0945, np.clip(-0.0387 * LOG_X - 0.0182, 0.0720, 0.13), -0.0436 * X**2 - 0.0126 * X + 0.0736)
    if kind == 1:
        low = np.clip(-0.0120 * LOG_X - 0.0023, 0.0124, 0.04)
        return mu, np.where(X < 0.3039, low, -0.0165 * X**2 + 0.0116 * X + 0.0104)
    low = np.clip(-0.0117 * LOG_X - 0.0057, 0.0091, 0.04)
    return mu, np.where(X < 0.3055, low, -0.0118 * X**2 + 0.0093 * X + 0.0073)


def q(kind):
    if kind == 1:
        low = np.clip(-0.0078 * LOG_X + 0.0038, 0.0179, 0.04)
        return np.where(X < 0.1591, low, 0.0664 * X**3 - 0.1352 * X**2 + 0.0768 * X + 0.0088)
    low = np.clip(-0.0117 * LOG_X - 0.0069, 0.015, 0.04)
    return np.where(X < 0.16, low, 0.0069 * X**3 - 0.0280 * X**2 + 0.0211 * X + 0.0123)


class Always:
    """A noise that draws one number for ever, so that a formula can be compared to the last digit."""

    def __init__(self, xi):
        self.xi = xi

    def normal_like(self, like, std=1.0):
        return torch.full_like(like, self.xi * std)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("xi", [-9.0, -1.0, 0.0, 1.0, 3.0])
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_formulas_to_the_last_digit(kind, xi, factor):
    # Traps: coefficients applied unscaled to another range; two digits of a polynomial swapped.
    g_max, t0 = KINDS[kind]
    target = torch.tensor(factor * g_max * X)[None]
    device = pcm_hermes(cells_per_conductance=kind, g_max=factor * g_max)
    cells = Cells(target, 0.0, device.g_max, programmed=target)
    programming, drift, read = device.effects
    want = np.maximum(0, factor * (g_max * X + sigma(kind) * xi))
    np.testing.assert_allclose(programming.program(target, cells, Always(xi))[0], want, rtol=1e-10)
    drawn = drift.draw(cells, Always(xi))
    mu, s = exponent(kind)
    np.testing.assert_allclose(drawn["nu"][0], np.abs(mu + s * xi), rtol=1e-10, atol=1e-15)
    for t in map(seconds, ("1s", "1d", "1y")):
        aged = factor * g_max * X * ((t + t0) / t0) ** -np.abs(mu + s * xi)
        np.testing.assert_allclose(drift.age(target, t, cells, drawn)[0], aged, rtol=1e-10)
        noise = q(kind) * np.sqrt(np.log((t + t0 + T_READ) / (2 * T_READ))) * xi
        want = factor * g_max / 2 * X * np.maximum(0, 1 + noise)
        np.testing.assert_allclose(read.read(target / 2, t, cells, Always(xi))[0], want, rtol=1e-10)


def test_beyond_the_range_the_read_noise_stays_that_of_its_end():
    programmed = torch.tensor([[20.7, 25.0, 60.0]], dtype=torch.float64)
    cells = Cells(programmed.clamp(max=20.7), 0.0, 20.7, programmed=programmed)
    read = HermesReadNoise().read(programmed, 60.0, cells, Always(1.0))
    relative = (read / programmed)[0]
    torch.testing.assert_close(relative, relative[:1].expand(3))


def test_default_ranges_and_times():
    assert (pcm_hermes().g_max, pcm_hermes(cells_per_conductance=1).g_max) == (20.7, 10.35)
    assert [effect.t0 for effect in pcm_hermes().effects[1:]] == [300.0, 300.0]
    assert [effect.t0 for effect in pcm_hermes(cells_per_conductance=1).effects[1:]] == [200.0, 200.0]
    assert HermesReadNoise().t_read == T_READ


def test_two_cells_err_less_relative_to_the_range_and_both_conductances_of_a_pair_err():
    errors = {}
    for kind in KINDS:
        device = pcm_hermes(cells_per_conductance=kind)
        written = device.program(torch.full((100, 100), 0.5), KeyedNoise("pair"))
        errors[kind] = float((device.to_weight(written.programmed, written) - 0.5).std())
        assert (written.programmed[1] > 0).any()
    assert errors[2] < errors[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pcm_hermes(cells_per_conductance=3), "HermesProgramming: cells_per_conductance must be <= 2, got 3"),
        (lambda: HermesProgramming(cells_per_conductance=0), "cells_per_conductance must be >= 1, got 0"),
        (lambda: HermesDrift(t0=0), "HermesDrift: t0 must be > 0, got 0"),
        (lambda: HermesReadNoise(t_read=301.0), "HermesReadNoise: t_read must be <= t0, got t_read=301.0 and t0=300.0"),
        (lambda: pcm_hermes(g_max=-1), "g_max=-1"),
    ],
)
def test_illegal_parameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()
