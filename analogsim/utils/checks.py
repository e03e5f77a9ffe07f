"""Arguments as users give them: flags, numbers, paths, modules, checked in one way and refused in one line."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.utils.text import in_short

MOST = 2**31 - 1
"""Of sizes: what is more is a slip, and would run out of memory."""
MOST_TURNS = 10**7
"""Of whatever is done one after the other, such as chips: what is more would run for ever."""


def check_flag(value: object, what: str) -> bool:
    """A flag: True or False, and no other thing that Python takes for either, such as ``"no"``.

    Args:
        value: as given; numpy's truth values are flags too.
        what: it is, for the message: ``"convert: embeddings"``.

    Raises:
        TypeError: it is neither.

    Example:
        >>> check_flag(True, "convert: embeddings")
        True
    """
    if not isinstance(value, bool | np.bool_):
        raise InvalidTypeError(f"{what} must be True or False, got {in_short(value)}")
    return bool(value)


def check_whole(value: object, what: str, least: int = 0, most: int = MOST) -> int:
    """A whole number from ``least`` to ``most``: Python's, numpy's or a tensor's of one; truth values are none.

    Args:
        value: as given.
        what: it is, for the message: ``"evaluate: chips"``.
        least: the smallest one.
        most: the largest one.

    Raises:
        ValueError: it is none, or smaller or larger.

    Example:
        >>> check_whole(3, "evaluate: chips", 1)
        3
    """
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):  # of a tensor of several, or of fractions
        number = None
    if number is None or number < least:
        raise InvalidValueError(f"{what} must be an integer >= {least}, got {in_short(value)}")
    if number > most:
        raise InvalidValueError(f"{what} must be an integer from {least} to {most}, got {in_short(value)}")
    return number


def check_seed(value: object, what: str, bits: int = 63) -> int:
    """A seed: a whole number of so many bits and a sign; torch's generators take 63.

    Args:
        value: as given.
        what: it is, for the message.
        bits: of the largest one.

    Raises:
        TypeError: it is no whole number.
        ValueError: it has more bits.
    """
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, RuntimeError):
        number = None
    if number is None:
        raise InvalidTypeError(f"{what} must be an integer, got {in_short(value)}")
    if not -(2**bits) <= number < 2**bits:
        raise InvalidValueError(f"{what} must be an integer of at most {bits} bits, got {in_short(value)}")
    return number


def is_finite(value: object) -> bool:
    """Whether a number is finite as a float; no number is not, nor is an integer beyond what floats hold."""
    try:
        return math.isfinite(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return False


def check_module(value: object, what: str) -> nn.Module:
    """A module, and no name, class or anything else.

    Args:
        value: as given.
        what: it is to be, for the message: ``"a twin, which analogsim.convert(model, ...) returns"``.

    Raises:
        TypeError: it is no module.
    """
    if not isinstance(value, nn.Module):
        made = f"the class {value.__name__}" if isinstance(value, type) else in_short(value)
        raise InvalidTypeError(f"give {what}, got {made}")
    return value


def check_path(value: object, what: str) -> str:
    """The path of a file, as text.

    Args:
        value: text or a path, which is not empty.
        what: asks for it, for the message: ``"load_chip"``.

    Raises:
        TypeError: it is neither.
        ValueError: no file has such a name.
    """
    if not isinstance(value, str | os.PathLike):
        raise InvalidTypeError(f"{what}: the path of a file is text or a Path, got {in_short(value)}")
    path = os.fspath(value)
    if not isinstance(path, str) or not path or "\0" in path:
        raise InvalidValueError(f"{what}: no file has the name {path!r}")
    return path


def check_sequence(value: object, what: str, example: str) -> Sequence[Any]:
    """Several things in order, such as times; a text is one thing.

    Args:
        value: a sequence, or an array of one axis.
        what: it is, for the message.
        example: of it, for the message.

    Raises:
        ValueError: it is none, or empty.
    """
    right = isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)
    if not right or not len(value):  # type: ignore[arg-type]
        raise InvalidValueError(f"{what} must be a sequence such as {example}, got {in_short(value)}")
    return value  # type: ignore[return-value]


def as_number(value: object) -> float:
    """What is a number as a float, NaN for all else, so that one comparison refuses it with what is too large or small.

    Args:
        value: a number of Python's or numpy's, or a tensor that holds one; text and truth values are none.

    Example:
        >>> as_number(2), as_number("2"), as_number(None), as_number(True)
        (2.0, nan, nan, nan)
    """
    if isinstance(value, str | bytes | bool):
        return math.nan
    try:
        return float(value)  # type: ignore[arg-type]
    # RuntimeError: a tensor of several numbers; OverflowError: an integer beyond what floats hold
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return math.nan
