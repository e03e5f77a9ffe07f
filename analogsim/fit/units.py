"""Units of measurement tables: what instruments write, and how it becomes µS and seconds."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogsim.errors import InvalidValueError

FloatArray = NDArray[np.float64]

ASSUMED = {"target": "µS", "measured": "µS", "time": "s"}
"""The columns that have a unit, and which one where none is given."""


@dataclass(frozen=True)
class Unit:
    """A unit of a conductance or of a time.

    Args:
        name: as messages have it.
        factor: how many µS or seconds one of it is; of a resistance, µS at one of it.
        kind: a conductance or a time is proportional to the number, a resistance goes with its reciprocal, and a share
            is one of g_max.
    """

    name: str
    factor: float
    kind: str = "proportional"

    def convert(self, values: FloatArray, g_max: float | None) -> FloatArray:
        """Numbers in this unit as µS or seconds; a resistance without end is no conductance.

        Args:
            values: in this unit.
            g_max: conductance of the largest weight, µS; for shares.

        Raises:
            ValueError: a share without g_max, or a resistance that is not above 0.
        """
        if self.kind == "share":
            if g_max is None:
                raise InvalidValueError("fit_device: % is a share of g_max; say how many µS that is: g_max=25")
            return values * (g_max / 100)
        if self.kind == "proportional":
            return values * self.factor
        wrong = values[values <= 0]
        if len(wrong):
            raise InvalidValueError(f"fit_device: a resistance must be above 0 {self.name}, got {wrong[0]:g}")
        return self.factor / values


def _table(units: Mapping[str, tuple[float, tuple[str, ...]]], kind: str = "proportional") -> dict[str, Unit]:
    found: dict[str, Unit] = {}
    for name, (factor, others) in units.items():
        found |= dict.fromkeys((name, *others), Unit(name, factor, kind))
    return found


_CONDUCTANCE = {
    **_table({"nS": (1e-3, ()), "µS": (1.0, ("uS",)), "mS": (1e3, ()), "S": (1e6, ())}),
    **_table(
        {
            "Ω": (1e6, ("ohm", "Ohm", "OHM", "ohms", "Ohms")),
            "kΩ": (1e3, ("kohm", "kOhm", "kOHM", "Kohm", "KOhm", "KOHM", "kohms", "KΩ")),
            "MΩ": (1.0, ("Mohm", "MOhm", "MOHM", "Mohms")),
            "GΩ": (1e-3, ("Gohm", "GOhm", "GOHM", "Gohms")),
        },
        "reciprocal",
    ),
    **_table({"%": (0.0, ("percent",))}, "share"),
}
_TIME = _table(
    {
        "ns": (1e-9, ()),
        "µs": (1e-6, ("us",)),
        "ms": (1e-3, ("msec",)),
        "s": (1.0, ("S", "sec", "second", "seconds")),
        "min": (60.0, ("minute", "minutes")),
        "h": (3600.0, ("H", "hr", "hrs", "hour", "hours")),
        "d": (86400.0, ("D", "day", "days")),
    }
)
UNITS = {"target": _CONDUCTANCE, "measured": _CONDUCTANCE, "time": _TIME}
"""The units of each column, by every way in which they are written."""


def unit_of(column: str, text: Any) -> Unit:
    """The unit of a column by what people and instruments write.

    Raises:
        ValueError: there is no such unit.
    """
    known = UNITS[column]
    # Two signs look like micro, two like ohm; the forms with letters of their own are the ones that are known.
    name = unicodedata.normalize("NFKC", text).strip().replace("μ", "µ") if isinstance(text, str) else text
    if not isinstance(name, str) or name not in known:
        names = ", ".join(dict.fromkeys(unit.name for unit in known.values()))
        told = "; milliohm is no resistance of a memory cell: write MΩ or Mohm for megaohm"
        slip = told if isinstance(name, str) and name in ("mohm", "mOhm", "mΩ") else ""
        raise InvalidValueError(f"fit_device: unknown unit {text!r} of {column}; give one of {names}{slip}")
    return known[name]
