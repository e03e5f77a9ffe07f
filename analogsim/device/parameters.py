"""Parameters of effects: default, unit, and the values they may take."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import field
from typing import Any

import numpy as np

from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.utils.checks import MOST, check_flag, is_finite
from analogsim.utils.text import in_short


def param(
    default: Any,
    unit: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    choices: Sequence[str] | None = None,
    words: Sequence[str] | None = None,
) -> Any:
    """A parameter of an effect: its default, its unit ("1" if dimensionless), and the values it may take.

    ``choices`` is all that a text may be; ``words`` are what may stand for a number.
    """
    limits = {"ge": ge, "gt": gt, "le": le, "choices": choices, "words": words}
    return field(default=default, metadata={"unit": unit, **limits})


def checked(owner: str, name: str, value: Any, default: Any, rules: Any) -> Any:
    """The value if it is legal, as Python's own type, so that equal effects also have equal reprs."""
    where = f"{owner}: {name}"
    if isinstance(value, np.generic):
        value = value.item()
    if rules.get("choices") is not None:
        if value not in rules["choices"]:
            raise InvalidValueError(f"{where} must be one of {', '.join(rules['choices'])}, got {value!r}")
        return value
    words = rules.get("words") or ()
    if isinstance(value, str) and value in words:
        return value
    if isinstance(default, bool):
        return check_flag(value, where)
    return _number(where, value, int if isinstance(default, int) else float, words, rules)


def _number(where: str, value: Any, kind: type, words: Sequence[str], rules: Any) -> Any:
    """The value if it is a number within the limits, as an ``int`` or a ``float``."""
    wanted = int if kind is int else int | float
    if isinstance(value, bool) or not isinstance(value, wanted):
        told = " or ".join(("an integer" if kind is int else "a number", *map(repr, words)))
        raise InvalidTypeError(f"{where} must be {told}, got {value!r}")
    if not is_finite(value):
        raise InvalidValueError(f"{where} must be finite, got {in_short(value)}")
    if kind is int and not -MOST <= value <= MOST:
        raise InvalidValueError(f"{where} must be an integer of at most {MOST}, got {value!r}")
    for rule, symbol, holds in (("ge", ">=", operator.ge), ("gt", ">", operator.gt), ("le", "<=", operator.le)):
        limit = rules.get(rule)
        if limit is not None and not holds(value, limit):
            raise InvalidValueError(f"{where} must be {symbol} {limit:g}, got {value!r}")
    return kind(value)
