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
# How people write these, in small letters; "1m" is not among them: some mean a minute by it, others a month.
_NAMES = {
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds"), 1e-9),
    **dict.fromkeys(("us", "µs", "μs", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), _UNITS["s"]),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), _UNITS["min"]),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), _UNITS["h"]),
    **dict.fromkeys(("d", "day", "days"), _UNITS["d"]),
    **dict.fromkeys(("w", "wk", "week", "weeks"), 7 * _UNITS["d"]),
    **dict.fromkeys(("mo", "month", "months"), _UNITS["mo"]),
    **dict.fromkeys(("y", "yr", "yrs", "year", "years"), _UNITS["y"]),
}
_NUMBER = r"[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?|\.[0-9]+(?:e[+-]?[0-9]+)?"
_PART = re.compile(rf"\s*({_NUMBER})\s*([a-zµμ]+)\s*")
_BARE = re.compile(rf"\s*([+-]?(?:{_NUMBER}))\s*([a-zµμ]*)\s*")

DEFAULT_TIMES = ("1s", "1h", "1d", "1mo", "1y")


def seconds(time: float | str) -> float:
    """A time since the end of programming, in seconds.

    Args:
        time: seconds, as a number or as text; or text of numbers with units: ``"1s"``, ``"5min"``, ``"1h"``, ``"1d"``,
            ``"1w"``, ``"1mo"`` (30 days), ``"1y"`` (365 days), ``"10ms"``, in whole words too (``"1 day"``,
            ``"2 weeks"``), and several to be added up (``"1h30min"``). Capitals are no other letters.

    Raises:
        ValueError: the text is not a time, or the time is negative, NaN or infinite (before programming there
            is no chip).

    Example:
        >>> seconds("1d"), seconds("1 week"), seconds("90"), seconds(30)
        (86400.0, 604800.0, 90.0, 30.0)
    """
    value: float
    if isinstance(time, str):
        value = _read(time)
    elif isinstance(time, bool) or not isinstance(time, int | float | np.integer | np.floating):
        raise InvalidTypeError(f'time: give seconds or text such as "1h", got {time!r}')
    else:
        value = float(time) if is_finite(time) else math.inf
    if value > _LONGEST and math.isfinite(value):
        raise InvalidValueError(f"time: must be at most {_LONGEST:g} seconds, older than the universe, got {time!r}")
    if not (math.isfinite(value) and value >= 0):
        raise InvalidValueError(f"time: must be finite and >= 0 seconds after programming, got {in_short(time)}")
    return value


def _read(text: str) -> float:
    """Seconds of a text."""
    small = text.lower()
    single = _BARE.fullmatch(small)
    parts = [single.groups()] if single else _PART.findall(small)
    units = [_NAMES.get(unit) if unit else 1.0 for _, unit in parts]
    if not parts or None in units or (not single and _PART.sub("", small)):
        meant = '; "1m" may be a minute or a month: write 1min or 1mo' if "m" in (unit for _, unit in parts) else ""
        raise InvalidValueError(
            f"time: cannot read {text!r}; give seconds or a number with one of the units {', '.join(_UNITS)}, w, "
            f'for example "1h"{meant}'
        )
    return math.fsum(float(number) * (unit or 0.0) for (number, _), unit in zip(parts, units, strict=True))


def label(time: float) -> str:
    """The shortest text for a time in seconds: the inverse of `seconds` where a unit fits."""
    if math.isinf(time):
        return "ever"
    for unit, size in reversed(_UNITS.items()):
        if time >= size and math.isclose(time / size, round(time / size), rel_tol=1e-9):
            return f"{round(time / size)}{unit}"
    return f"{time:g}s"
