from __future__ import annotations

import math
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from analogsim.noise import KeyedNoise, philox

K = 5  # standard errors
N = 1_000_000
KEY = philox.key_of(("philox",))
MOMENT = philox.words(KEY, 0, 9, 0, philox.TONES // 2).view(np.uint32)

Draw = Callable[..., philox.Floats]


def tones(key: philox.Key, call: int, count: int, chunk: int | None = None) -> philox.Floats:
    return philox.tones(key, call, count, MOMENT, chunk)


KINDS: dict[str, Draw] = {"uniform": philox.uniform, "normal": philox.normal, "tones": tones}
every_kind = pytest.mark.parametrize("draw", KINDS.values(), ids=KINDS.keys())


def mixed(x: int) -> int:
    """lowbias32, one number after the other."""
    x = (x ^ (x >> 16)) * 0x7FEB352D % 2**32
    x = (x ^ (x >> 15)) * 0x846CA68B % 2**32
    return x ^ (x >> 16)


def law(draw: Draw) -> str:
    return "uniform" if draw is philox.uniform else "norm"


def test_words_are_those_of_numpys_philox() -> None:
    """By its own constructor, whose first block is the one after the counter that it is given."""
    plain = np.random.Philox(key=KEY, counter=np.array((0, 0, 3, 7), dtype=np.uint64)).random_raw(40)
    assert np.array_equal(philox.words(KEY, 7, 3, 0, 40), plain)
    assert np.array_equal(philox.words(KEY, 7, 3, 12, 5), plain[12:17])


def test_numbers_are_what_the_formulas_say_in_float64() -> None:
    """The slow way: one word after the other, in float64."""
    count = 3 * 2**12 + 100
    words = [philox.words(KEY, 2, part, 0, 2 * count).view(np.uint32) for part in range(5)]
    uniform = (words[0][:count] >> 8) / 2**24
    assert np.array_equal(philox.uniform(KEY, 2, count), uniform)

    place = np.arange(count)
    tile, within = place // 2**12, place % 2**12
    pair = tile * 2**11 + within % 2**11
    radius = np.sqrt(-2 * np.log(((words[1][pair] & 0x7FFFFFFF) + 0.5) / 2**31))
    angle = words[2][pair].view(np.int32) * (math.pi / 2**31)
    normal = radius * np.where(within < 2**11, np.cos(angle), np.sin(angle))
    np.testing.assert_allclose(philox.normal(KEY, 2, count), normal, atol=2e-6)

    now = MOMENT[words[4][:count] >> 17]
    bits = np.array([mixed(int(word ^ (state & 0xFFFFFF))) for word, state in zip(words[3], now, strict=False)])
    radius = np.sqrt(-2 * np.log(((bits & 0x7FFFFFFF) + 0.5) / 2**31))
    own = ((bits * 0x9E3779B1 + (words[4][:count].astype(np.int64) << 15)) % 2**32) >> 15
    turn = (now >> 24) / 2**8 + (own + 0.5) / 2**17
    np.testing.assert_allclose(tones(KEY, 2, count), radius * np.cos(2 * math.pi * turn), atol=6e-6)


@every_kind
def test_chunks_threads_and_how_many_are_asked_for_change_no_number(draw: Draw) -> None:
    count = 200_003
    numbers = draw(KEY, 0, count)
    for chunk in (1, 5000, 2**15, 2**20):
        assert np.array_equal(draw(KEY, 0, count, chunk), numbers), chunk
    for fewer in (0, 1, 7, 2047, 2048, 2049, 4096, 4097, 2**16 + 1):
        assert np.array_equal(draw(KEY, 0, fewer), numbers[:fewer]), fewer
    threads, made = torch.get_num_threads(), []
    try:
        torch.set_num_threads(2)
        workers = [threading.Thread(target=lambda: made.append(draw(KEY, 0, count))) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        torch.set_num_threads(threads)
    assert len(made) == 4
    assert all(np.array_equal(one, numbers) for one in made)


def test_dtypes_round_one_stream() -> None:
    for dtype in (torch.float64, torch.bfloat16):
        like = torch.empty(100_000, dtype=dtype)
        assert torch.equal(KeyedNoise("a").normal_like(like), KeyedNoise("a").normal_like(like.float()).to(dtype))


@every_kind
def test_kolmogorov_smirnov(draw: Draw) -> None:
    """Of the law, of neighbours' products, and of what a chi-squared test of equal cells says."""
    numbers = draw(KEY, 1, N)
    assert stats.kstest(numbers, law(draw)).pvalue > 1e-4
    share = stats.norm.cdf(numbers) if law(draw) == "norm" else numbers
    counts = np.bincount((share * 1000).astype(int).clip(max=999), minlength=1000)
    assert stats.chisquare(counts).pvalue > 1e-4


@every_kind
def test_numbers_are_independent_of_their_neighbours_and_of_the_other_half_of_a_tile(draw: Draw) -> None:
    numbers = draw(KEY, 1, N).astype(np.float64)
    numbers = (numbers - numbers.mean()) / numbers.std()
    for lag in (1, 2, 3, 4, 7, 8, 16, 2047, 2048, 2049, 4096, 2**16):
        for values in (numbers, numbers**2):
            centred = values - values.mean()
            correlation = (centred[lag:] * centred[:-lag]).mean() / centred.var()
            assert abs(correlation) < K / math.sqrt(N - lag), lag


@every_kind
def test_every_bit_of_the_key_counts(draw: Draw) -> None:
    """Keys that differ in one bit, the 32 that torch's generator would have taken being the same, and their calls."""
    numbers = draw(KEY, 0, 20_000)
    others = [draw(KEY, 1, 20_000)]
    for bit in range(128):
        key = KEY.copy()
        key[bit // 64] ^= np.uint64(1 << (bit % 64))
        others.append(draw(key, 0, 20_000))
    correlation = np.corrcoef(np.stack((numbers, *others)))
    assert np.abs(correlation - np.eye(130)).max() < 5.5 / math.sqrt(20_000)  # of 8,385 pairs


def test_turns_of_a_tone_have_nothing_in_common() -> None:
    """Not even their size: another turn is another radius and another phase, and the same turn goes on."""
    count = 300_000
    turns = [np.full(philox.TONES, (phase << 24) | turn, dtype=np.uint32) for phase, turn in ((0, 1), (0, 2), (64, 1))]
    first, other, later = (philox.tones(KEY, 0, count, turn).astype(np.float64) for turn in turns)
    for power in (1, 2):
        for sign in (False, True):
            one, two = (np.sign(v) * np.abs(v) ** power if sign else np.abs(v) ** power for v in (first, other))
            assert abs(np.corrcoef(one, two)[0, 1]) < K / math.sqrt(count)
    # A quarter of a turn on, the same cells are at a right angle: R^2 = z(0)^2 + z(1/4)^2, of chi-squared with two.
    assert stats.kstest(first**2 + later**2, "chi2", args=(2,)).pvalue > 1e-4
    assert abs(np.corrcoef(first, later)[0, 1]) < K / math.sqrt(count)


def test_parts_and_calls_do_not_overlap() -> None:
    blocks = [tuple(philox.words(KEY, call, part, 0, 4)) for call in range(20) for part in range(5)]
    assert len(set(blocks)) == len(blocks)


def test_tails() -> None:
    """Beyond 4 and 4.5 standard deviations there are as many as there should be; five standard errors."""
    for draw in (philox.normal, tones):
        beyond = np.abs(np.concatenate([draw(KEY, call, N) for call in range(4)]))
        for level in (3.0, 4.0, 4.5):
            expected = 4 * N * 2 * stats.norm.sf(level)
            assert abs((beyond > level).sum() - expected) < K * math.sqrt(expected)


@pytest.mark.slow
@pytest.mark.parametrize("draw", [philox.normal, tones], ids=["normal", "tones"])
def test_a_hundred_million_numbers(draw: Draw) -> None:
    """Kolmogorov-Smirnov by counts in 4,000 cells of equal share, and tails to 5.5 standard deviations."""
    cells, rounds = 4000, 100
    counts, tails, levels = np.zeros(cells), np.zeros(4), np.array((4.0, 4.5, 5.0, 5.5))
    for call in range(rounds):
        numbers = draw(KEY, call, N)
        counts += np.bincount((stats.norm.cdf(numbers) * cells).astype(int).clip(max=cells - 1), minlength=cells)
        tails += [(np.abs(numbers) > level).sum() for level in levels]
    total = rounds * N
    distance = np.abs(np.cumsum(counts) / total - np.arange(1, cells + 1) / cells).max()
    assert stats.kstwobign.sf(distance * math.sqrt(total)) > 1e-4
    assert stats.chisquare(counts).pvalue > 1e-4
    for found, level in zip(tails, levels, strict=True):
        expected = total * 2 * stats.norm.sf(level)
        assert stats.poisson.cdf(found, expected) > 1e-4
        assert stats.poisson.sf(found - 1, expected) > 1e-4


def test_the_largest_radius_is_finite() -> None:
    """Where all bits are zero, and where they round to one."""
    out = np.empty(2, dtype=np.float32)
    largest, least = philox._radius(np.array((0, 0x7FFFFFFF), dtype=np.int32), out)
    assert largest == pytest.approx(math.sqrt(2 * 32 * math.log(2)))
    assert least == 0
