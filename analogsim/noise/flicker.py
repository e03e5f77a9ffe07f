r"""1/f noise that remembers: numbers that two times of one chip share as much as their distance allows.

Noise with the power density 1/f over a band of frequencies has the variance :math:`\ln(f_{high} / f_{low})`. After a
time t no frequency below about 1/t has had the time to show, and none above half the rate of reading is seen:

.. math:: f_{high} = \frac{1}{2 t_{read}}, \qquad f_{low}(t) = \frac{1}{t + t_0 + t_{read}}

which is where the logarithm of time in the published sizes comes from. It implies the correlation as well:

.. math:: \rho(t_1, t_2) = \frac{1}{\ln(f_{high} / f_{low}(t_2))} \int_{f_{low}(t_1)}^{f_{high}}
    \frac{\cos(2 \pi f (t_2 - t_1))}{f} df, \qquad t_1 \le t_2

0.35 for two readings of phase-change memory a second apart after a day, 0.1 for a thousand seconds, nothing for a day.

A sum of enough fluctuators for each cell would take a hundred numbers a cell. Here each cell has one, a tone with a
frequency of its own, log-uniform over the band; its amplitude (Rayleigh) and its phase (uniform) hold for one turn and
are drawn anew for the next. So at any time the numbers are exactly normal, two times further apart than a turn of the
slowest tone have nothing to do with each other, and over cells near ones are correlated as above: one turn instead of
endlessly many takes 0.02 from the integral, less than 0.001 of the correlation, and at most 0.16, or 0.006, where times
are no further apart than :math:`2 t_{read}`. As the band widens with t, a cell's tone is exchanged, by chance and as
seldom as can be, for one at the lower end (:math:`P = 1 - L(t_1)/L(t_2)` between two times, with L the width of the
band), so that frequencies are log-uniform in the band of each time.

Departure: what a single cell does is turns of a sine, of one frequency, and not the walk of many fluctuators; it is the
sum over cells, which a network takes, that has the spectrum. The more faithful trace of n tones a cell would cost n
times as much: one takes 8.4 ns a cell, a plain normal number 3.7 (one thread, AMD EPYC).

The frequencies are 2^15 that all cells share (`philox.tones`), which moves correlations by 0.001. Turns are
counted in integers that wrap around, without rounding: after ten years of a tone of 2 MHz they are still the same on
every machine.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analogsim.noise.philox import TONES, key_of, words

_ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio
_KEY = key_of(("flicker", "tones"))
_NARROW = (
    2.0  # the least width of a band, where a formula leaves less: in the first dozen readings of a device without t0
)
_WIDEST = 45.0  # of a band in which exchanges are worked out; with readings of 1 µs after two million years
_PRIMES = (3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)  # an exchange each; one tone in a million has more
_PER_READ = 128  # steps of time in one t_read; a tone of the highest frequency turns by 2^-8 in each


_Exchange = tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.uint64]]


@dataclass(frozen=True)
class FlickerBand:
    """The frequencies of 1/f noise.

    Args:
        t0: seconds between programming and the first reading, at least 0.
        t_read: seconds that one reading takes.
    """

    t0: float
    t_read: float

    def width(self, t: float) -> float:
        """The natural logarithm of highest over lowest frequency, ``t`` seconds after the first reading."""
        return math.log((t + self.t0 + self.t_read) / (2 * self.t_read))


def _spread(which: NDArray[np.int32], prime: int) -> NDArray[np.float64]:
    """Numbers in (0, 1], one for each tone, evenly spread: multiples of an irrational, as H. Weyl has them (1916)."""
    part: NDArray[np.float64] = np.modf((which + 0.5) * math.sqrt(prime))[0]
    return 1.0 - part


def _steps(depth: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Turns in a step of time, in units of 2^-64, of tones at a depth below the top of the band."""
    # Rounded to what float32 holds, so that the last places of exp, which machines disagree on, do not count.
    relative = np.exp(-depth).astype(np.float32).astype(np.float64)
    return np.rint(relative * (2.0**63 / _PER_READ)).astype(np.uint64)


@functools.lru_cache(maxsize=4)
def _lives(start: float) -> tuple[NDArray[np.uint64], list[_Exchange]]:
    """Of a band of a width at first: the steps of its tones, and how they are exchanged as it widens.

    Returns:
        The first steps, and for the first, second, ... exchange: the widths at which it happens, in ascending order,
        which tones it happens to, and their steps from then on.
    """
    edge = np.full(TONES, start)
    which = np.arange(TONES, dtype=np.int32)
    exchanges: list[_Exchange] = []
    for prime in _PRIMES:
        # A tone is uniform over the width w; its chance to be still there at the width v is w / v.
        edge[which] /= _spread(which, prime)
        which = which[edge[which] <= _WIDEST]
        order = which[np.argsort(edge[which])]
        exchanges.append((edge[order], order, _steps(edge[order])))
    return _steps(_spread(np.arange(TONES, dtype=np.int32), 2) * start), exchanges


def _turned(steps: NDArray[np.uint64], time: int, begin: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], ...]:
    """``steps * time + begin`` in 128 bits, the upper and the lower half: whole turns, and parts of one in 2^-64."""
    half, mask = np.uint64(32), np.uint64(2**32 - 1)
    high, low = np.uint64(time >> 32), np.uint64(time & (2**32 - 1))
    products = [(steps & mask) * low, (steps >> half) * low, (steps & mask) * high, (steps >> half) * high]
    middle = (products[0] >> half) + (products[1] & mask) + (products[2] & mask)
    whole = products[3] + (products[1] >> half) + (products[2] >> half) + (middle >> half)
    part = steps * np.uint64(time) + begin
    return whole + (part < begin), part


@functools.lru_cache(maxsize=64)
def moment(band: FlickerBand, t: float) -> NDArray[np.uint32]:
    """Where each tone of a band is at a time, as `philox.tones` takes it; read-only."""
    steps, exchanges = _lives(max(band.width(0.0), _NARROW))
    steps, width = steps.copy(), max(band.width(t), _NARROW)
    begin = words(_KEY, 0, 1, 0, TONES)
    for edges, which, later in exchanges:
        now = np.searchsorted(edges, width, side="right")
        if not now:
            break
        steps[which[:now]] = later[:now]
        begin[which[:now]] *= _ODD  # another phase, and other turns
    whole, part = _turned(steps, math.floor(t * (_PER_READ / band.t_read)) % 2**64, begin)
    turn = (whole + begin) * _ODD
    turn ^= turn >> np.uint64(32)
    turn *= _ODD
    found: NDArray[np.uint32] = ((part >> np.uint64(56) << np.uint64(24)) | (turn >> np.uint64(40))).astype(np.uint32)
    found.flags.writeable = False
    return found
