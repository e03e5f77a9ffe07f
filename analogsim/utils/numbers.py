"""Numbers as users give them."""

from __future__ import annotations

import math


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
    except (TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor of several numbers
        return math.nan
