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

_PLACES = 2**31  # that an int32 counts


def fresh_key(device: torch.device) -> Tensor:
    """A key from torch's global generator of a device, ``(2,)`` of int32."""
    return torch.randint(-(2**31), 2**31, (2,), dtype=torch.int32, device=device)


def _mixed(bits: Tensor) -> Tensor:
    # int32 wraps around, and its shift carries the sign along, which the masks take away.
    bits = (bits ^ ((bits >> 16) & 0xFFFF)) * 0x7FEB352D
    bits = (bits ^ ((bits >> 15) & 0x1FFFF)) * (0x846CA68B - 2**32)
    return bits ^ ((bits >> 16) & 0xFFFF)


def _bits(count: int, key: Tensor) -> Tensor:
    if count > _PLACES:
        raise ValueError(f"counter: at most {_PLACES} places can be told apart, got {count}")
    places = torch.arange(count, dtype=torch.int32, device=key.device)
    return _mixed(_mixed(places + key[0]) + key[1])


def _fraction(bits: Tensor) -> Tensor:
    """The upper 24 bits as a float32 in [0, 1): all values that it tells apart there evenly."""
    return ((bits >> 8) & 0xFFFFFF).float() * 2**-24


def uniform(shape: Sequence[int], key: Tensor) -> Tensor:
    """Numbers in [0, 1), float32."""
    return _fraction(_bits(math.prod(shape), key)).view(shape)


def normal(shape: Sequence[int], key: Tensor) -> Tensor:
    """Normal numbers of mean 0 and standard deviation 1, float32; none is beyond 5.9."""
    count = math.prod(shape)
    bits = _bits((count + 1) // 2, key)
    radius = (-2 * torch.log(_fraction(bits) + 2**-25)).sqrt()
    angle = _mixed(bits + key[1]).float() * 1.4629180792671596e-09  # pi / 2**31; math.pi would be an input of the graph
    # Side by side in halves, not in turn: each half is written in one run.
    return torch.cat((radius * angle.cos(), radius * angle.sin()))[:count].view(shape)


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
        raise RuntimeError(
            "use_compiled_noise: torch.compile failed on this machine; on a CPU it needs a C++ compiler, such as g++. "
            f"Leave the call out, or install one: {error}"
        ) from error
    return compiled
