"""PCM against the published formulas, written here once more in numpy: within 5 standard errors everywhere."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from analogsim import Cells, Mapping, seconds
from analogsim.devices import (
    PCMDrift,
    PCMDriftCrossSim,
    PCMProgramming,
    PCMProgrammingCrossSim,
    PCMReadNoise,
    pcm,
)
from analogsim.noise import KeyedNoise

CELLS = 10_000
K = 5  # standard errors
X = np.concatenate(([0.0, 1e-4, 1e-3, 1e-2], np.linspace(0.05, 1, 20)))
TIMES = ("1s", "1h", "1d", "1mo", "1y")
G_MAX, T0, T_READ = 25.0, 20.0, 250e-9

# A standard normal number as a fine grid with weights: exact moments of anything that is a function of one.
Z = np.linspace(-9, 9, 4_001)
WEIGHTS = np.exp(-(Z**2) / 2) / np.exp(-(Z**2) / 2).sum()


@dataclass
class Moments:
    """Raw moments 1 to 4 of a random variable."""

    raw: np.ndarray

    @classmethod
    def of(cls, values):
        """Of values given as a function of Z, along the last axis."""
        return cls(np.stack([values**n @ WEIGHTS for n in (1, 2, 3, 4)]))

    def __mul__(self, independent):
        return Moments(self.raw * independent.raw)

    def agree_with(self, sample):
        """Whether mean and standard deviation of ``(..., cells)`` are what they should be, within K errors."""
        m1, m2, m3, m4 = self.raw
        variance = np.maximum(m2 - m1**2, 0)
        fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
        sample = sample.double().numpy()
        n = sample.shape[-1]
        rounding = 1e-6 * np.abs(m1) + 1e-12
        mean_error = np.sqrt(variance / n)
        np.testing.assert_array_less(np.abs(sample.mean(-1) - m1), K * mean_error + rounding)
        std = np.sqrt(variance)
        std_error = np.sqrt(np.maximum(fourth - variance**2, 0) / n) / (2 * np.maximum(std, 1e-12))
        np.testing.assert_array_less(np.abs(sample.std(-1) - std), K * std_error + rounding)


# The formulas, as functions of x (a last axis is added) and of the normal number xi.


def conductance(x, xi):
    x = np.asarray(x)[..., None]
    sigma = 0.26348 + 1.9650 * x - 1.1731 * x**2
    return np.maximum(0, G_MAX * x + sigma * xi)


def exponent(x, xi=Z):
    log_x = np.log(np.maximum(np.asarray(x)[..., None], 1e-7))
    mu = np.clip(-0.0155 * log_x + 0.0244, 0.049, 0.100)
    s = np.clip(-0.0125 * log_x - 0.0059, 0.008, 0.045)
    return np.abs(mu + s * xi)


def read_factor(x_programmed, t, xi=Z):
    """What read noise makes of a conductance, relative to it."""
    q = np.minimum(0.0088 / np.maximum(np.asarray(x_programmed)[..., None] ** 0.65, 1e-3), 0.2)
    return np.maximum(0, 1 + q * np.sqrt(np.log((t + T0 + T_READ) / (2 * T_READ))) * xi)


def programmed(x):
    return Moments.of(conductance(x, Z))


class Always:
    """A noise that draws one number for ever, so that a formula can be compared to the last digit."""

    def __init__(self, xi):
        self.xi = xi

    def normal_like(self, like, std=1.0):
        return torch.full_like(like, self.xi * std)


@pytest.mark.parametrize("xi", [-9.0, -1.0, 0.0, 1.0, 3.0])
@pytest.mark.parametrize("t", TIMES)
def test_formulas_to_the_last_digit(xi, t):
    # Traps: two digits of a polynomial swapped, which moments of a sample are too coarse to tell.
    x = np.concatenate((X, np.linspace(0, 1, 501)))
    target = torch.tensor(G_MAX * x)[:, None]
    cells = Cells(target, 0.0, G_MAX, programmed=target)
    noise = Always(xi)
    np.testing.assert_allclose(PCMProgramming().program(target, cells, noise), conductance(x, xi), rtol=1e-12)
    drawn = PCMDrift().draw(cells, noise)
    np.testing.assert_allclose(drawn["nu"], exponent(x, xi), rtol=1e-12)
    time = seconds(t)
    aged = G_MAX * x[:, None] * ((time + T0) / T0) ** -exponent(x, xi)
    np.testing.assert_allclose(PCMDrift().age(target, time, cells, drawn), aged, rtol=1e-12)
    read = PCMReadNoise().read(target / 2, time, cells, noise)
    np.testing.assert_allclose(read, G_MAX / 2 * x[:, None] * read_factor(x, time, xi), rtol=1e-10)


@pytest.fixture(scope="module")
def device():
    return pcm().replace(mapping=Mapping("pair", "tensor"))


@pytest.fixture(scope="module")
def written(device):
    """A row of cells for each x; the second cell of every pair stands for zero."""
    weight = torch.tensor(X, dtype=torch.float64)[:, None].expand(-1, CELLS)
    return device.program(weight, KeyedNoise("pcm"))


def test_the_grid_is_laid_on_the_whole_range(written):
    positive, negative = written.cells.target
    np.testing.assert_allclose(positive[:, 0], G_MAX * X)
    assert not negative.any()


def test_programming(written):
    positive, negative = written.programmed
    programmed(X).agree_with(positive)
    programmed(0.0).agree_with(negative.flatten())


def test_drift_exponents(written):
    positive, negative = written.drawn[1]["nu"]
    Moments.of(exponent(X)).agree_with(positive)
    Moments.of(exponent(0.0)).agree_with(negative.flatten())


@pytest.mark.parametrize("t", TIMES)
def test_conductance_after(t, device, written):
    ratio = (seconds(t) + T0) / T0
    positive, negative = device.age(written, seconds(t))
    (programmed(X) * Moments.of(ratio ** -exponent(X))).agree_with(positive)
    (programmed(0.0) * Moments.of(ratio ** -exponent(0.0))).agree_with(negative.flatten())


@pytest.mark.parametrize("t", TIMES)
def test_every_cell_follows_its_own_power_law(t, device, written):
    ratio = (seconds(t) + T0) / T0
    aged = device.age(written, seconds(t))
    torch.testing.assert_close(aged, written.programmed * ratio ** -written.drawn[1]["nu"])


@pytest.mark.parametrize("t", TIMES)
def test_read_noise(t):
    # Half the programmed conductance is left: the size Q is of the programmed one, the noise of what is left.
    g_prog = torch.tensor(G_MAX * X)[:, None].expand(-1, CELLS)
    cells = Cells(torch.zeros_like(g_prog), 0.0, G_MAX, programmed=g_prog)
    read = PCMReadNoise().read(g_prog / 2, seconds(t), cells, KeyedNoise("read", t))
    half = G_MAX * X[:, None] / 2
    Moments.of(half * read_factor(X, seconds(t))).agree_with(read)
    assert not read[0].any(), "a cell that conducts nothing has no read noise"


def test_read_noise_grows_with_time():
    q = 0.0088  # at x = 1
    expected = {t: q * np.sqrt(np.log((seconds(t) + T0 + T_READ) / (2 * T_READ))) for t in ("1s", "1y")}
    assert expected == pytest.approx({"1s": 0.0369, "1y": 0.0496}, abs=1e-4)


def test_read_noise_is_one_draw_per_time(device, written):
    first, again, later = (device.read(written, 3600.0, KeyedNoise("chip", t)) for t in ("1h", "1h", "1h+"))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)


@pytest.mark.parametrize("g_max", [12.5, 50.0])
def test_errors_scale_with_the_range(g_max):
    # Trap: coefficients in µS, fitted at 25 µS, applied unscaled to another range.
    weight = torch.linspace(-1, 1, 4000).view(4, 1000)
    one, other = (pcm(g_max=top).program(weight, KeyedNoise("scale")) for top in (25.0, g_max))
    torch.testing.assert_close(other.programmed, one.programmed * (g_max / 25))
    torch.testing.assert_close(other.drawn[1]["nu"], one.drawn[1]["nu"])
    read = [
        device.to_weight(device.read(written, 1e5, KeyedNoise("read")), written)
        for device, written in ((pcm(), one), (pcm(g_max=g_max), other))
    ]
    torch.testing.assert_close(*read)


def test_both_cells_of_a_pair_have_their_own_error_and_exponent(device):
    # Traps: one random number for a tensor; a pair collapsed to one signed weight before drift.
    weight = torch.full((200, 200), 0.5)
    weight[0, 0] = 1.0
    written = device.program(weight, KeyedNoise("pair"))
    error, nu = written.programmed - written.cells.target, written.drawn[1]["nu"]
    for values in (error, nu):
        positive, negative = values.flatten(1)[:, 1:]
        assert abs(np.corrcoef(positive, negative)[0, 1]) < K / np.sqrt(positive.numel())
        neighbours = np.corrcoef(positive[:-1], positive[1:])[0, 1]
        assert abs(neighbours) < K / np.sqrt(positive.numel())
    assert abs(np.corrcoef(error[0].flatten()[1:], nu[0].flatten()[1:])[0, 1]) < K / np.sqrt(weight.numel())


@pytest.mark.parametrize("t", [0.0, 3.15e7])
def test_the_cell_that_stands_for_zero_keeps_a_residue(t, device):
    written = device.program(torch.ones(200, 200), KeyedNoise("zero"))
    _, negative = device.age(written, t)
    # max(0, 0.26348 xi): half of the cells are above zero, with the mean of a half normal number.
    share = (negative > 0).double().mean()
    assert abs(share - 0.5) < K * 0.5 / np.sqrt(negative.numel())
    (programmed(0.0) * Moments.of(((t + T0) / T0) ** -exponent(0.0))).agree_with(negative.flatten())


def test_zero_weights_err_as_much_as_the_zero_cells_of_others(device):
    written = device.program(torch.zeros(300, 300), KeyedNoise("zeros"))
    programmed(0.0).agree_with(written.programmed.flatten())


@pytest.fixture(scope="module")
def gaussian_weights(device):
    weight = torch.randn(512, 512, generator=torch.Generator().manual_seed(0)).clamp_(-2.5, 2.5)
    return weight, device.program(weight, KeyedNoise("table"))


@pytest.mark.parametrize(
    ("t", "gain", "raw", "after"),
    [
        ("1s", 0.99, 3.9, 3.9),
        ("1h", 0.770, 9.7, 4.5),
        ("1d", 0.660, 13.9, 5.2),
        ("1mo", 0.560, 17.7, 6.0),
        ("1y", 0.497, 20.2, 6.7),
    ],
)
def test_error_of_gaussian_weights(t, gain, raw, after, device, gaussian_weights):
    """The table of root-mean-square errors relative to the largest weight, in per cent."""
    weight, written = gaussian_weights
    now = device.to_weight(device.read(written, seconds(t), KeyedNoise("table", t)), written)
    largest = weight.abs().max()
    # The gain of the table is the regression of the drifted weights on the clean ones, <w, w_t>/<w, w>, which the
    # drifted weights are then divided by. (Least squares the other way, <w, w_t>/<w_t, w_t>, leaves 0.1 less.)
    best = (weight * now).sum() / weight.square().sum()
    assert float(best) == pytest.approx(gain, abs=0.003)
    assert 100 * float((now - weight).square().mean().sqrt() / largest) == pytest.approx(raw, abs=0.1)
    assert 100 * float((now / best - weight).square().mean().sqrt() / largest) == pytest.approx(after, abs=0.15)


def test_without_spread_one_gain_removes_the_drift_and_with_it_it_does_not():
    # Trap: one exponent for all cells cancels against the best gain, and proves nothing.
    weight = torch.ones(100, 100)
    left = {}
    for spread in (0.0, 1.0):
        device = pcm().replace(effects=(PCMDrift(spread=spread),))
        written = device.program(weight, KeyedNoise("spread"))
        now = device.to_weight(device.age(written, 3.15e7), written)
        left[spread] = float(now.std() / now.mean())
    assert left[0.0] < 1e-5
    assert left[1.0] > 0.05


def test_factors_switch_the_parts_off():
    weight = torch.linspace(-1, 1, 100).view(10, 10)
    device = pcm().replace(effects=(PCMProgramming(scale=0.0), PCMDrift(scale=0.0), PCMReadNoise(scale=0.0)))
    written = device.program(weight, KeyedNoise("off"))
    read = device.read(written, 3.15e7, KeyedNoise("off"))
    torch.testing.assert_close(device.to_weight(read, written), weight)


def test_factors_scale_the_parts():
    target = torch.full((1, 100_000), 20.0)
    cells = Cells(target, 0.0, G_MAX, programmed=target)
    for effect in (PCMProgramming(), PCMReadNoise()):
        method = effect.program if isinstance(effect, PCMProgramming) else None
        errors = []
        for scaled in (effect, effect.replace(scale=2.0)):
            noise = KeyedNoise("scale")
            g = scaled.program(target, cells, noise) if method else scaled.read(target, 60.0, cells, noise)
            errors.append(g - target)
        torch.testing.assert_close(errors[1], 2 * errors[0], rtol=1e-4, atol=1e-4)
    nu, twice, narrow = (
        effect.draw(cells, KeyedNoise("scale"))["nu"]
        for effect in (PCMDrift(), PCMDrift(scale=2.0), PCMDrift(spread=0.0))
    )
    torch.testing.assert_close(twice, 2 * nu)
    torch.testing.assert_close(narrow, torch.full_like(nu, 0.049))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PCMProgramming(scale=-1), "PCMProgramming: scale must be >= 0, got -1"),
        (lambda: PCMDrift(t0=0), "PCMDrift: t0 must be > 0, got 0"),
        (lambda: PCMReadNoise(t_read=0.0), "PCMReadNoise: t_read must be > 0, got 0.0"),
        (lambda: PCMReadNoise(t0=1e-9), "PCMReadNoise: t_read must be <= t0, got t_read=2.5e-07 and t0=1e-09"),
        (lambda: pcm(g_max=-1), "g_max=-1"),
        (lambda: pcm(g_max=float("nan")), "g_max=nan"),
    ],
)
def test_illegal_parameters(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# The second fit


def test_the_second_fit_to_the_last_digit():
    g = np.linspace(0, 25, 251)
    target = torch.tensor(g)[None]
    cells = Cells(target, 0.0, G_MAX, programmed=target)
    sigma = -0.00178767 * g**2 + 0.07585724 * g + 0.28638599
    mu = np.maximum(-0.0045 * g + 0.08, np.minimum(0.06, np.maximum(-0.00169 * g + 0.0825, 0.055)))
    for xi in (-3.0, 1.0):
        programmed = PCMProgrammingCrossSim().program(target, cells, Always(xi))[0]
        np.testing.assert_allclose(programmed, np.maximum(0, g + sigma * xi), rtol=1e-12)
        nu = PCMDriftCrossSim().draw(cells, Always(xi))["nu"][0]
        np.testing.assert_allclose(nu, mu + xi / (8 * g + 30.032), rtol=1e-12)
    assert (PCMDriftCrossSim().draw(cells, Always(-3.0))["nu"] < 0).any(), "an exponent may be negative"


def test_both_fits_of_the_same_measurements_are_near_each_other():
    target = torch.tensor([[25.0]])
    cells = Cells(target, 0.0, G_MAX)
    one, other = (float(effect.sigma(cells)) for effect in (PCMProgramming(), PCMProgrammingCrossSim()))
    assert (one, other) == (pytest.approx(1.055, abs=2e-3), pytest.approx(1.065, abs=2e-3))


def test_a_fit_is_chosen_by_name():
    assert pcm().effects[:2] == (PCMProgramming(), PCMDrift())
    assert pcm(fit="crosssim").effects == (PCMProgrammingCrossSim(), PCMDriftCrossSim(), PCMReadNoise())
    with pytest.raises(ValueError, match="pcm: fit must be one of 'joshi', 'crosssim', got 'other'"):
        pcm(fit="other")


def test_the_second_fit_does_not_scale():
    assert pcm(fit="crosssim", g_max=20.0).g_max == 20.0
    for effect in (PCMProgrammingCrossSim(), PCMDriftCrossSim()):
        with pytest.raises(
            ValueError, match=f"{type(effect).__name__}: the formula holds from 0 to 25 µS, got g_min=0"
        ):
            pcm().replace(effects=(effect,), g_max=26.0)
