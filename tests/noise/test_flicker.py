from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from torch import Tensor

from analogsim.noise import FlickerBand, GlobalNoise, KeyedNoise, StreamNoise, flicker, flicker_like
from analogsim.noise.counter_based import PairedNoise, row_keys
from analogsim.noise.philox import key_of
from analogsim.noise.sources import Silence

K = 4  # standard errors
N = 200_000
PCM, CMO = FlickerBand(20.0, 250e-9), FlickerBand(0.0, 1e-6)
SECOND, HOUR, DAY, YEAR = 1.0, 3600.0, 86400.0, 3.15e7
KEY = key_of(("flicker",))
COMMON = 0.003  # how far 2^15 tones, of one turn at a time, may be from the integral, for all cells alike

# Near and far, in the first second and after years.
PAIRS = [
    (0.0, 1e-6),
    (0.0, SECOND),
    (SECOND, SECOND + 1e-3),
    (DAY, DAY + 1e-6),
    (DAY, DAY + 1e-3),
    (DAY, DAY + 1.0),
    (DAY, DAY + 100.0),
    (DAY, DAY + 3600.0),
    (YEAR, YEAR + 1e-5),
    (YEAR, YEAR + 1.0),
    (YEAR, YEAR + DAY),
    (10 * YEAR, 10 * YEAR + 1.0),
]
# No further apart than two readings, where a tone of one turn is not quite what the integral says.
CLOSE = [(DAY, DAY + 5e-7), (DAY, DAY + 2e-7)]
FAR = [(SECOND, HOUR), (SECOND, YEAR), (HOUR, DAY), (DAY, 30 * DAY), (DAY, YEAR), (YEAR, 10 * YEAR)]


def drawn(times: tuple[float, ...], band: FlickerBand = PCM, key: str = "cells", count: int = N) -> Tensor:
    """What a chip's source gives at times, in their order."""
    like = torch.empty(count)
    return torch.stack([flicker_like(KeyedNoise(key).at(t), like, t, band) for t in times])


def integral(band: FlickerBand, t1: float, t2: float) -> float:
    """The correlation that the band implies, by numerical integration over the logarithm of frequency.

    Beyond ten turns between the two times the integral of the cosine is that of a tail, whose first terms are known.
    """
    t1, t2 = sorted((t1, t2))
    low, high, delta = 1 / (t1 + band.t0 + band.t_read), 1 / (2 * band.t_read), t2 - t1
    turn = min(high, max(low, 10.25 / delta))
    value, _ = quad(lambda x: math.cos(2 * math.pi * delta * math.exp(x)), math.log(low), math.log(turn), limit=500)
    rest = 0.0
    for end, sign in ((turn, 1), (high, -1)) if turn < high else ():
        a = 2 * math.pi * delta * end
        rest -= sign * (math.sin(a) / a - math.cos(a) / a**2)
    return (value + rest) / band.width(t2)


@pytest.mark.parametrize(("t1", "t2"), [*PAIRS, *FAR])
def test_correlation_of_two_times_is_that_of_the_band(t1: float, t2: float) -> None:
    wanted = integral(PCM, t1, t2)
    forward, back = drawn((t1, t2)), drawn((t2, t1))
    assert torch.equal(forward.flip(0), back), "the order in which times are asked for changes nothing"
    found = float(torch.corrcoef(forward)[0, 1])
    assert abs(found - wanted) < K * (1 - wanted**2) / math.sqrt(N) + COMMON
    # And of the tones themselves, without the chance of cells; phases are in 2^-8 of a turn.
    (before, after), turn = (flicker.moment(PCM, t) for t in (t1, t2)), 0xFFFFFF
    apart = ((after >> 24) - (before >> 24).astype(np.float64)) * (2 * np.pi / 256)
    assert abs((np.cos(apart) * ((before & turn) == (after & turn))).mean() - wanted) < COMMON


@pytest.mark.parametrize(("t1", "t2"), CLOSE)
def test_two_readings_side_by_side(t1: float, t2: float) -> None:
    found = float(torch.corrcoef(drawn((t1, t2)))[0, 1])
    assert found == pytest.approx(integral(PCM, t1, t2), abs=0.007 + K * 0.1 / math.sqrt(N))


@pytest.mark.parametrize(("t1", "t2"), FAR)
def test_far_times_are_independent_and_not_only_uncorrelated(t1: float, t2: float) -> None:
    """Nor are sizes, which a conductance that stops at zero would show."""
    one, other = drawn((t1, t2))
    for make in (torch.abs, torch.square, lambda z: z.clamp(min=0), torch.sign):
        found = torch.corrcoef(torch.stack((make(one), make(other))))[0, 1]
        assert abs(found) < K / math.sqrt(N) + COMMON


def test_a_second_after_a_day() -> None:
    """The figure that the model's own band implies."""
    assert integral(PCM, DAY, DAY + 1) == pytest.approx(0.346, abs=0.001)
    found = float(torch.corrcoef(drawn((DAY, DAY + 1)))[0, 1])
    assert found == pytest.approx(0.346, abs=K * 0.88 / math.sqrt(N) + COMMON)


@pytest.mark.parametrize(("t1", "t2"), [(1e-3, 1.1e-3), (HOUR, HOUR + 1), (10 * YEAR, 10 * YEAR + 1), (1.0, YEAR)])
def test_correlation_of_a_band_that_begins_with_nothing(t1: float, t2: float) -> None:
    wanted = integral(CMO, t1, t2)
    found = float(torch.corrcoef(drawn((t1, t2), CMO))[0, 1])
    assert abs(found - wanted) < K * (1 - wanted**2) / math.sqrt(N) + COMMON


@pytest.mark.parametrize("band", [PCM, CMO], ids=["pcm", "cmo"])
@pytest.mark.parametrize("t", [0.0, 1e-6, SECOND, HOUR, DAY, YEAR, 1e10])
def test_numbers_are_normal_at_each_time(band: FlickerBand, t: float) -> None:
    (numbers,) = drawn((t,), band, key=str(t))
    assert stats.kstest(numbers.numpy(), "norm").pvalue > 1e-4
    assert abs(numbers.mean()) < K / math.sqrt(N)
    assert abs(numbers.square().mean() - 1) < K * math.sqrt(2 / N)


def test_frequencies_are_log_uniform_in_the_band_of_each_time() -> None:
    """By what each tone turns in a small step of time: the band widens, and keeps its law."""
    for t in (0.0, SECOND, DAY, YEAR):
        steps, exchanges = flicker._lives(PCM.width(0.0))
        steps = steps.copy()
        for edges, which, later in exchanges:
            steps[which[edges <= PCM.width(t)]] = later[edges <= PCM.width(t)]
        depth = np.log(2.0**56 / steps.astype(np.float64)) / PCM.width(t)
        assert stats.kstest(depth, "uniform").statistic < 1.95 / math.sqrt(flicker.TONES)


def test_tones_keep_their_frequency_as_long_as_the_band_lets_them() -> None:
    """Between two times as many are exchanged as the band grew, and no more."""
    steps, exchanges = flicker._lives(PCM.width(0.0))
    for t1, t2 in ((SECOND, HOUR), (HOUR, DAY), (DAY, YEAR)):
        changed = np.zeros(len(steps), dtype=bool)
        for edges, which, _ in exchanges:
            changed[which[(edges > PCM.width(t1)) & (edges <= PCM.width(t2))]] = True
        wanted = 1 - PCM.width(t1) / PCM.width(t2)
        error = math.sqrt(wanted * (1 - wanted) / len(steps))
        assert abs(changed.mean() - wanted) < K * error


def test_turns_are_counted_exactly_however_late() -> None:
    """Against whole numbers of any size."""
    steps, _ = flicker._lives(2.0)
    begin = flicker.words(KEY, 0, 0, 0, len(steps))
    for t in (0.0, 1e-6, 1.0, 1e-3 + 10 * YEAR, 1e10):
        ticks = math.floor(t * (flicker._PER_READ / 1e-6))
        whole, part = flicker._turned(steps, ticks, begin)
        exact = [int(step) * ticks + int(first) for step, first in zip(steps, begin, strict=True)]
        assert part.tolist() == [value % 2**64 for value in exact]
        assert whole.tolist() == [value >> 64 for value in exact]


def test_cells_keys_and_calls_are_independent_and_one_time_is_one() -> None:
    first, again = drawn((DAY,)), drawn((DAY,))
    assert torch.equal(first, again)
    noise, like = KeyedNoise("cells").at(DAY), torch.empty(N)
    calls = torch.stack([flicker_like(noise, like, DAY, PCM) for _ in range(2)])
    assert torch.equal(calls[:1], first)
    numbers = torch.stack(
        (*calls, *drawn((DAY,), key="other"), noise.normal_like(like), KeyedNoise("cells").normal_like(like))
    )
    assert (torch.corrcoef(numbers) - torch.eye(5)).abs().max() < K / math.sqrt(N)
    for lag in (1, 2, 8, 2048, 2**16):
        for values in (first[0], first[0].square() - 1):
            assert abs((values[lag:] * values[:-lag]).mean() / values.var()) < K / math.sqrt(N - lag)


def test_cells_are_independent_over_time_too() -> None:
    """Neighbours at two near times: a tone's other part is nobody's noise."""
    one, other = drawn((DAY, DAY + 1))
    assert abs((one[1:] * other[:-1]).mean()) < K / math.sqrt(N)
    assert abs((one[::2] * other[1::2]).mean()) < K / math.sqrt(N / 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_shape_dtype_and_time_as_a_tensor(dtype: torch.dtype) -> None:
    like = torch.empty(2, 3, 4, dtype=dtype)
    numbers = flicker_like(KeyedNoise("a"), like, torch.tensor(5.0), PCM)
    assert (numbers.shape, numbers.dtype) == (like.shape, dtype)
    assert torch.equal(numbers, flicker_like(KeyedNoise("a"), like.float(), 5.0, PCM).to(dtype))


def test_branches_of_a_time_remember_and_draw_anew() -> None:
    like = torch.empty(1000)
    branches = [KeyedNoise("chip").at(t).fold("effect", "read") for t in (DAY, DAY + 1e-6)]
    slow = torch.stack([flicker_like(branch, like, DAY, PCM) for branch in branches])
    assert torch.equal(*slow)
    white = torch.stack([branch.normal_like(like) for branch in branches])
    assert abs(torch.corrcoef(white)[0, 1]) < K / math.sqrt(1000)
    assert torch.equal(white[0], KeyedNoise("chip", f"t={DAY!r}", "effect", "read").normal_like(like))


def test_sources_of_a_single_time_give_plain_normal_numbers() -> None:
    """Training draws one normal number a cell, as before; and a source that knows nothing of it works."""
    like = torch.empty(20, 30)
    torch.manual_seed(1)
    numbers = flicker_like(GlobalNoise(), like, DAY, PCM)
    torch.manual_seed(1)
    assert torch.equal(numbers, torch.randn(20, 30))
    assert torch.equal(flicker_like(StreamNoise("a"), like, DAY, PCM), StreamNoise("a").normal_like(like))
    keys = row_keys(20, like.device)
    paired = (PairedNoise(keys, True) for _ in range(2))
    assert torch.equal(flicker_like(next(paired), like, DAY, PCM), next(paired).normal_like(like))
    assert not flicker_like(Silence(), like, DAY, PCM).any()
