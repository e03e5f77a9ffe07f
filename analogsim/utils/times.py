"""Times since the end of programming: seconds, or text such as ``"1h"``."""

from __future__ import annotations

import math
import re

import numpy as np

from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.utils.checks import is_finite
from analogsim.utils.text import in_short

# A month is 30 days and a year 365, as in the drift curves of the literature.
_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "mo": 30 * 86400.0, "y": 365 * 86400.0}
_LONGEST = 1e18
_TIME = re.compile(r"\s*([0-9.eE+-]+?)\s*(s|min|h|d|mo|y)\s*")

DEFAULT_TIMES = ("1s", "1h", "1d", "1mo", "1y")


def seconds(time: float | str) -> float:
    """A time since the end of programming, in seconds.

    Args:
        time: seconds, or a number with a unit: ``"1s"``, ``"5min"``, ``"1h"``, ``"1d"``, ``"1mo"`` (30 days),
            ``"1y"`` (365 days).

    Raises:
        ValueError: the text is not a time, or the time is negative, NaN or infinite (before programming there
            is no chip).

    Example:
        >>> seconds("1d"), seconds(30)
        (86400.0, 30.0)
    """
    value: float
    if isinstance(time, str):
        match = _TIME.fullmatch(time)
        try:
            value = float(match.group(1)) * _UNITS[match.group(2)] if match else math.nan
        except ValueError:
            value = math.nan
        if math.isnan(value):
            raise InvalidValueError(
                f"time: cannot read {time!r}; give seconds or a number with one of the units {', '.join(_UNITS)}, "
                'for example "1h"'
            )
    elif isinstance(time, bool) or not isinstance(time, int | float | np.integer | np.floating):
        raise InvalidTypeError(f'time: give seconds or text such as "1h", got {time!r}')
    else:
        value = float(time) if is_finite(time) else math.inf
    if value > _LONGEST and math.isfinite(value):
        raise InvalidValueError(f"time: must be at most {_LONGEST:g} seconds, older than the universe, got {time!r}")
    if not (math.isfinite(value) and value >= 0):
        raise InvalidValueError(f"time: must be finite and >= 0 seconds after programming, got {in_short(time)}")
    return value


def label(time: float) -> str:
    """The shortest text for a time in seconds: the inverse of `seconds` where a unit fits."""
    if math.isinf(time):
        return "ever"
    for unit, size in reversed(_UNITS.items()):
        if time >= size and math.isclose(time / size, round(time / size), rel_tol=1e-9):
            return f"{round(time / size)}{unit}"
    return f"{time:g}s"
