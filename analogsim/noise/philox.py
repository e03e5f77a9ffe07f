"""Random numbers by place: a number is a function of a key, of which call it is, and of where in the call it stands.

The words are those of Philox4x64-10 (J. Salmon et al., *Parallel Random Numbers: As Easy as 1, 2, 3*, SC 2011), which
mixes a counter of 256 bits with a key of 128. ``numpy`` makes them, at a quarter of the time of integer operations in
torch, and promises that they stay what they are (NEP 19). A block of the counter is four words, in the order

    (which block of four, 0, which part of the call, which call)

so that any stretch of any call can be made alone: how many numbers are made at a time, and on how many threads, changes
none of them. What follows the words is ours, in float32. It is made by numpy too: its logarithm, sine and cosine take
0.4 to 0.6 ns a number where torch's take 1.0 to 1.4. They are within a few units of the last place of the true ones
(tests compare with float64), not the same on every processor: there, and nowhere else, two machines may differ.

Normal numbers are made in pairs by the transform of Box and Muller, Ann. Math. Statist. 29 (1958), the radius from 31
bits and the angle from 32: none is beyond 6.66. What moves on with time (`tones`) goes through the mixer "lowbias32" of
C. Wellons, *Prospecting for Hash Functions* (2018), besides.
"""

from __future__ import annotations

import hashlib
import math
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Key = NDArray[np.uint64]
"""128 bits, as two words."""
Floats = NDArray[np.float32]

TONES = 2**15
"""Among so many `tones` chooses."""

_CHUNK = 2**15  # numbers at a time: what is made on the way stays in a core's cache
_TILE = 2**12  # the first half of so many normal numbers takes the cosines of their pairs, the second the sines
_HALF = _TILE // 2
_WITHIN = 17  # of 32 bits 15 choose a tone, the others are a number's own phase in it
_UNIFORM, _RADIUS, _ANGLE, _TONE_RADIUS, _TONE = range(5)  # parts of a call


class _Workplace(threading.local):
    """What each thread has of its own: a generator, set to a place before each use, and memory that stays warm."""

    def __init__(self) -> None:
        self.generator = np.random.Philox(key=0)
        self.counter = np.zeros(4, dtype=np.uint64)
        self.place = {"counter": self.counter, "key": np.zeros(2, dtype=np.uint64)}
        self.state: Any = {
            "bit_generator": "Philox",
            "state": self.place,
            "buffer": np.zeros(4, dtype=np.uint64),
            "buffer_pos": 4,  # used up: the next word is of the block after the counter's
            "has_uint32": 0,
            "uinteger": 0,
        }
        self.floats = np.empty((2, 0), dtype=np.float32)

    def room(self, count: int) -> Floats:
        """Two rows of numbers to write into."""
        if self.floats.shape[1] < count:
            self.floats = np.empty((2, max(count, 2**12)), dtype=np.float32)
        return self.floats[:, :count]


_own = _Workplace()


def key_of(parts: Sequence[str]) -> Key:
    """128 bits of what a stream is called. Each part has its length in front: ("a", "bc") and ("ab", "c") are two."""
    text = "".join(f"{len(part)}:{part}" for part in parts)
    low, high = struct.unpack("<QQ", hashlib.sha256(text.encode()).digest()[:16])
    return np.array((low, high), dtype=np.uint64)


def words(key: Key, call: int, part: int, first: int, count: int) -> NDArray[np.uint64]:
    """Words of a part of a call, from the place ``first`` on, which is a multiple of four."""
    own = _own
    own.counter[:] = (first // 4, 0, part, call)
    own.place["key"] = key
    own.generator.state = own.state
    drawn: NDArray[np.uint64] = own.generator.random_raw(count)
    return drawn


def _bits(key: Key, call: int, part: int, first: int, count: int) -> NDArray[np.int32]:
    """Pieces of 32 bits, two of a word, the lower half first; ``first`` is a multiple of eight. Ours to write into."""
    # Halves by address: on a machine that writes numbers the other way round, numpy turns them before.
    raw = words(key, call, part, first // 2, (count + 1) // 2)
    return raw.astype("<u8", copy=False).view("<i4")[:count]


def _chunks(count: int, chunk: int | None) -> Iterator[tuple[int, int]]:
    step = _CHUNK if chunk is None else math.ceil(chunk / _TILE) * _TILE
    for first in range(0, count, step):
        yield first, min(step, count - first)


def _scaled(bits: NDArray[Any], factor: float, out: Floats) -> Floats:
    """``bits * factor``, rounded once and then in float32."""
    np.copyto(out, bits, casting="unsafe")
    out *= np.float32(factor)
    return out


def _radius(bits: NDArray[np.int32], out: Floats) -> Floats:
    """Radii of pairs of normal numbers, sqrt(-2 ln v); v is told apart best near 0, as the largest radii need it."""
    bits &= 0x7FFFFFFF
    _scaled(bits, 2**-31, out)
    out += np.float32(2**-32)
    np.log(out, out=out)
    out *= np.float32(-2)
    return np.sqrt(out, out=out)


def uniform(key: Key, call: int, count: int, chunk: int | None = None) -> Floats:
    """Numbers in [0, 1): multiples of 2^-24, all alike.

    Args:
        key: of the stream.
        call: which of its calls.
        count: so many.
        chunk: how many at a time; changes no number.
    """
    out = np.empty(count, dtype=np.float32)
    for first, size in _chunks(count, chunk):
        bits = _bits(key, call, _UNIFORM, first, size).view("<u4")
        bits >>= 8
        _scaled(bits.view("<i4"), 2**-24, out[first : first + size])
    return out


def normal(key: Key, call: int, count: int, chunk: int | None = None) -> Floats:
    """Numbers of mean 0 and standard deviation 1; see `uniform`."""
    out = np.empty(count, dtype=np.float32)
    for first, size in _chunks(count, chunk):
        whole, rest = divmod(size, _TILE)
        pairs = whole * _HALF + min(rest, _HALF)
        radius, angle = _own.room(pairs)
        _radius(_bits(key, call, _RADIUS, first // 2, pairs), radius)
        _scaled(_bits(key, call, _ANGLE, first // 2, pairs), math.pi / 2**31, angle)
        full, end = whole * _HALF, first + whole * _TILE
        tiles = out[first:end].reshape(whole, 2, _HALF)
        tail = (out[end : end + min(rest, _HALF)], out[end + _HALF : first + size])
        for half, function in enumerate((np.cos, np.sin)):
            for place, begin in ((tiles[:, half], 0), (tail[half], full)):
                if place.size:
                    of = slice(begin, begin + place.size)
                    function(angle[of].reshape(place.shape), out=place)
                    place *= radius[of].reshape(place.shape)
    return out


def _mixed(bits: NDArray[np.uint32], other: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Each of 2^32 numbers as another one, in place; of ``other`` only that it is as long counts."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        np.right_shift(bits, shift, out=other)
        bits ^= other
        bits *= np.uint32(factor)
    np.right_shift(bits, 16, out=other)
    bits ^= other
    return bits


def tones(key: Key, call: int, count: int, moment: NDArray[np.uint32], chunk: int | None = None) -> Floats:
    r"""Normal numbers that are tones at one moment: :math:`R \cos 2\pi(w + \theta_j)`.

    Each number is of one of many tones j by chance, for ever. R, a radius as that of normal numbers, and w, uniform,
    are its own as long as the turn lasts in which its tone is; of another turn they are others, without any relation to
    those. At each moment the numbers are normal, of mean 0 and standard deviation 1, and independent of one another.

    Args:
        key: of the stream.
        call: which of its calls.
        count: so many.
        moment: of each of the `TONES` where it is: the upper 8 bits are its phase, in 2^-8 of a turn, the lower 24 say
            which turn it is in.
        chunk: how many at a time; changes no number.
    """
    out = np.empty(count, dtype=np.float32)
    for first, size in _chunks(count, chunk):
        radius, angle = _own.room(size)
        own = _bits(key, call, _TONE, first, size).view("<u4")
        now = moment.take(own >> _WITHIN, mode="clip")
        bits = _bits(key, call, _TONE_RADIUS, first, size).view("<u4")
        _scaled(now >> 24, 2 * math.pi / 2**8, angle)
        now &= 0xFFFFFF
        bits ^= now
        _mixed(bits, now)
        # w: what is left of the bits that chose the tone, moved on by what belongs to the turn.
        np.multiply(bits, np.uint32(0x9E3779B1), out=now)
        now += own << (32 - _WITHIN)
        now >>= 32 - _WITHIN
        turned = _scaled(now.view("<i4"), 2 * math.pi * 2.0**-_WITHIN, out[first : first + size])
        turned += angle
        turned += np.float32(math.pi * 2.0**-_WITHIN)  # or some would be at a quarter turn, with a cosine of zero
        np.cos(turned, out=turned)
        turned *= _radius(bits.view("<i4"), radius)
    return out
