"""Random numbers as a pure function of a key and a place, in plain integer operations.

torch.compile draws normal numbers one by one on a CPU, at 34 ns each. What is here it fuses with whatever uses the
numbers, at about 1 ns (``python -m benchmarks noise``). No generator takes part but for the key: the numbers are the
same on every kind of torch device, up to the rounding of logarithm and sine.

A place goes twice through a 32-bit mixer, each time with half of the key. The mixer is "lowbias32" of C. Wellons,
*Prospecting for Hash Functions* (2018); normal numbers are made in pairs by the transform of Box and Muller, Ann. Math.
Statist. 29 (1958).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from analogsim.errors import InvalidValueError, OperationError

_PLACES = 2**31  # that an int32 counts


def fresh_key(device: torch.device) -> Tensor:
    """A key from torch's global generator of a device, ``(2,)`` of int32."""
    return torch.randint(-(2**31), 2**31, (2,), dtype=torch.int32, device=device)


def _mixed(bits: Tensor) -> Tensor:
    # int32 wraps around, and its shift carries the sign along, which the masks take away.
    bits = (bits ^ ((bits >> 16) & 0xFFFF)) * 0x7FEB352D
    bits = (bits ^ ((bits >> 15) & 0x1FFFF)) * (0x846CA68B - 2**32)
    return bits ^ ((bits >> 16) & 0xFFFF)


def row_keys(rows: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """A key for each row of a matrix, ``(rows, 2)`` of int32, from a generator (None: torch's own of the device)."""
    low, high, shape = -(2**31), 2**31, (rows, 2)
    if generator is None:  # torch.compile knows the other call for fixed shapes only
        return torch.randint(low, high, shape, dtype=torch.int32, device=device)
    return torch.randint(low, high, shape, dtype=torch.int32, device=device, generator=generator)


def place_bits(count: int, key: Tensor) -> Tensor:
    """Bits of an int32 for each of ``count`` places.

    Raises:
        ValueError: there are more places than an int32 counts.
    """
    if count > _PLACES:
        raise InvalidValueError(f"counter: at most {_PLACES} places can be told apart, got {count}")
    places = torch.arange(count, dtype=torch.int32, device=key.device)
    return _mixed(_mixed(places + key[0]) + key[1])


def _fraction(bits: Tensor) -> Tensor:
    """The upper 24 bits as a float32 in [0, 1): all values that it tells apart there evenly."""
    return ((bits >> 8) & 0xFFFFFF).float() * 2**-24


def _polar(bits: Tensor, salt: Tensor) -> tuple[Tensor, Tensor]:
    """Radius and angle of a pair of normal numbers."""
    radius = (-2 * torch.log(_fraction(bits) + 2**-25)).sqrt()
    return radius, _mixed(bits + salt).float() * 1.4629180792671596e-09  # pi / 2**31; math.pi would be a graph's input


def uniform(shape: Sequence[int], key: Tensor) -> Tensor:
    """Numbers in [0, 1), float32."""
    return _fraction(place_bits(math.prod(shape), key)).view(shape)


def normal(shape: Sequence[int], key: Tensor) -> Tensor:
    """Normal numbers of mean 0 and standard deviation 1, float32; none is beyond 5.9."""
    count = math.prod(shape)
    radius, angle = _polar(place_bits((count + 1) // 2, key), key[1])
    # Side by side in halves, not in turn: each half is written in one run.
    return torch.cat((radius * angle.cos(), radius * angle.sin()))[:count].view(shape)


class PairedNoise:
    """One of two independent `Noise` streams that share their work: normal numbers come in pairs, one for each.

    A row of numbers has a key of its own. Compiled code reads it from memory, so that all that is made of a matrix
    stays in one loop over its rows and columns.

    Args:
        keys: `row_keys`, the same ones for both streams.
        second: whether this is the second of the two.
    """

    def __init__(self, keys: Tensor, second: bool) -> None:
        self._keys = keys
        self._second = second
        self._calls = 0

    def _bits(self, like: Tensor, salt: int) -> tuple[Tensor, Tensor]:
        """Bits for each place of ``(..., rows, columns)``, in which only the last two axes may count."""
        rows, columns = like.shape[-2:]
        if rows != len(self._keys) or like.numel() != rows * columns:
            raise InvalidValueError(
                f"an effect that says cellwise = True may draw one number for each cell only, ({len(self._keys)}, "
                f"columns) of them; got the shape {tuple(like.shape)}"
            )
        places = torch.arange(columns, dtype=torch.int32, device=like.device)
        salted = self._keys[:, 1:] ^ salt
        return _mixed(_mixed(places + self._keys[:, :1]) + salted), salted

    def normal_like(self, like: Tensor, std: float = 1.0) -> Tensor:
        """See `Noise`."""
        self._calls += 1
        radius, angle = _polar(*self._bits(like, 4 * self._calls))
        numbers = (radius * (angle.sin() if self._second else angle.cos())).view(like.shape).to(like.dtype)
        return numbers if std == 1 else numbers.mul_(std)

    def uniform_like(self, like: Tensor) -> Tensor:
        """See `Noise`."""
        self._calls += 1
        bits, _ = self._bits(like, 4 * self._calls + 1 + self._second)
        return _fraction(bits).view(like.shape).to(torch.promote_types(like.dtype, torch.float32))

    def fold(self, *key: str) -> PairedNoise:
        """The streams have no branches: every call draws anew."""
        return self


def _normal_numbers(count: int, key: Tensor) -> Tensor:
    return normal((count,), key)


@functools.cache
def compiled_normal() -> Callable[[int, Tensor], Tensor]:
    """`normal` in machine code, for any count and all threads: takes a count and a key.

    Raises:
        RuntimeError: torch cannot compile here.
    """
    compiled = torch.compile(_normal_numbers, fullgraph=True, dynamic=True)
    try:
        compiled(2**20, fresh_key(torch.device("cpu")))  # what it is made for is worth all threads
    except Exception as error:
        raise OperationError(
            "use_compiled_noise: torch.compile failed on this machine; on a CPU it needs a C++ compiler, such as g++. "
            f"Leave the call out, or install one: {error}"
        ) from error
    return compiled
