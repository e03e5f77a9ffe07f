"""Measured conductances: read from a table, brought to µS and seconds, and checked before anything is fitted."""

from __future__ import annotations

import csv
import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogsim.errors import InvalidTypeError, InvalidValueError, MissingFileError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]

COLUMNS = ("target", "time", "measured", "cell")
_CONDUCTANCE = {"nS": 1e-3, "µS": 1.0, "uS": 1.0, "μS": 1.0, "mS": 1e3, "S": 1e6}  # in µS; both signs for micro
_TIME = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
UNITS: dict[str, dict[str, float]] = {"target": _CONDUCTANCE, "measured": _CONDUCTANCE, "time": _TIME}
_ASSUMED = {"target": "µS", "measured": "µS", "time": "s"}
_HEAD = re.compile(r"\s*([A-Za-z]+)\s*(?:[\[(]\s*([^\])]*?)\s*[\])])?\s*")
_MISSING = {"", "nan", "na", "n/a", "none", "null"}
_FINE = 0.9  # share of different values among readings that an instrument of fine steps gives


@dataclass(frozen=True, eq=False)
class Measurements:
    """Readings of cells, one element for each.

    Args:
        target: the conductance that was asked for, µS, ``(readings,)``.
        time: seconds, ``(readings,)``.
        measured: the conductance that was read, µS, ``(readings,)``.
        cell: number of the cell, from 0, ``(readings,)``.
        notes: what was assumed, and what was dropped and why.
    """

    target: FloatArray
    time: FloatArray
    measured: FloatArray
    cell: IntArray
    notes: tuple[str, ...] = ()

    def only(self, keep: BoolArray, *notes: str) -> Measurements:
        """Some of the readings, with the cells numbered anew."""
        _, cell = np.unique(self.cell[keep], return_inverse=True)
        return Measurements(
            self.target[keep], self.time[keep], self.measured[keep], cell.astype(np.intp), self.notes + notes
        )


def _read_csv(path: Path) -> tuple[dict[str, list[str]], list[int]]:
    """The columns of a CSV file as text, and the line each row stands on."""
    if not path.is_file():
        raise MissingFileError(f"fit_device: no file {os.fspath(path)!r}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidValueError(
            f"fit_device: {os.fspath(path)!r} is no text in UTF-8; save it as CSV in UTF-8"
        ) from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and line.lstrip()[0] != "#"]
    if not numbered:
        raise InvalidValueError(f"fit_device: {os.fspath(path)!r} is empty; give a header {','.join(COLUMNS)} and rows")
    separator = max(",;\t", key=numbered[0][1].count)
    rows = list(csv.reader((line for _, line in numbered), delimiter=separator))
    head, body = rows[0], rows[1:]
    for (number, line), row in zip(numbered[1:], body, strict=True):
        if len(row) != len(head):
            raise InvalidValueError(
                f"fit_device: line {number} has {len(row)} values, the header has {len(head)}: {line!r}; give every "
                "row a value for each column, nothing between the separators where one is missing"
            )
    return {name: [row[place] for row in body] for place, name in enumerate(head)}, [n for n, _ in numbered[1:]]


def _columns(data: Any) -> tuple[dict[str, Any], list[int] | None]:
    """Columns by header, and line numbers if there are lines."""
    if isinstance(data, str | os.PathLike):
        return _read_csv(Path(data))
    if not callable(getattr(data, "keys", None)):
        raise InvalidTypeError(
            "fit_device: give a CSV file, a mapping of columns or a pandas frame, with the columns "
            f"{', '.join(COLUMNS)}; got {type(data).__name__}"
        )
    return {str(name): data[name] for name in data.keys()}, None  # noqa: SIM118 - a frame iterates over other things


def _named(columns: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """The four columns, the units in their headers, and the headers that are none of them."""
    found: dict[str, Any] = {}
    units: dict[str, str] = {}
    other = []
    for header, values in columns.items():
        match = _HEAD.fullmatch(header)
        name = match.group(1).lower() if match else ""
        if name not in COLUMNS:
            other.append(header.strip())
            continue
        if name in found:
            raise InvalidValueError(f"fit_device: two columns are named {name!r}; keep one of them")
        found[name] = values
        if match and match.group(2):
            units[name] = match.group(2)
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        raise InvalidValueError(
            f"fit_device: there is no column {', '.join(map(repr, missing))}; the columns must be named "
            f"{', '.join(COLUMNS)}, as in 'target [µS],time [s],measured [µS],cell'; got {', '.join(columns) or 'none'}"
        )
    return found, units, other


def _factor(name: str, unit: str) -> float:
    known = UNITS[name]
    if unit not in known:
        shown = [word for word in known if word != "μS"]
        raise InvalidValueError(f"fit_device: unknown unit {unit!r} of {name}; give one of {', '.join(shown)}")
    return known[unit]


def _numbers(name: str, values: Any, lines: list[int] | None) -> FloatArray:
    """A column as numbers, NaN where a value is missing."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise InvalidValueError(f"fit_device: column {name!r} must have one axis, got shape {array.shape}")
    if array.dtype.kind in "fiu":
        return array.astype(np.float64)
    numbers = np.empty(len(array))
    for place, value in enumerate(array.tolist()):
        if value is None or (isinstance(value, str) and value.strip().lower() in _MISSING):
            numbers[place] = np.nan
            continue
        try:
            numbers[place] = float(value)
        except (TypeError, ValueError):
            where = f"line {lines[place]}" if lines else f"row {place}"
            raise InvalidValueError(
                f"fit_device: {name} must be a number, got {value!r} in {where}; write 1.5 with a point, and nothing "
                "where a value is missing"
            ) from None
    return numbers


def _numbered(values: Any) -> tuple[IntArray, BoolArray, NDArray[Any]]:
    """Cells by number, which readings have one, and the names of the cells."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise InvalidValueError(f"fit_device: column 'cell' must have one axis, got shape {array.shape}")
    if array.dtype.kind == "f":
        known = np.isfinite(array)
    else:
        # 7 and "7" and " 7" are one cell, as a person would say.
        array = np.asarray([str(value).strip() for value in array.tolist()])
        known = np.asarray([value.lower() not in _MISSING for value in array.tolist()], dtype=bool)
    names, cell = np.unique(array, return_inverse=True)
    return cell.astype(np.intp), known, names


def _units(stated: dict[str, str], given: Mapping[str, str] | None) -> dict[str, str]:
    """The unit of each column that has one: by its header, or by argument, which must not say otherwise."""
    for name, unit in (given or {}).items():
        if name not in UNITS:
            raise InvalidValueError(f"fit_device: units has {name!r}; it takes {', '.join(UNITS)}")
        if name in stated and _factor(name, unit) != _factor(name, stated[name]):
            raise InvalidValueError(
                f"fit_device: {name} is in {stated[name]} by its header and in {unit} by units; give one of them"
            )
    return stated | dict(given or {})


def _assumptions(units: dict[str, str], other: list[str]) -> tuple[str, ...]:
    """Notes on columns without a unit, and on headers that are no column of ours."""
    assumed = [f"{name} in {_ASSUMED[name]}" for name in UNITS if name not in units]
    notes = (f"no unit given, assumed: {', '.join(assumed)}",) if assumed else ()
    return (*notes, f"columns not used: {', '.join(other)}") if other else notes


def _check_lengths(columns: Mapping[str, NDArray[Any]]) -> None:
    """Refuse columns that make no table, or an empty one."""
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidValueError(f"fit_device: the columns have different lengths: {lengths}")
    if not any(lengths.values()):
        raise InvalidValueError("fit_device: there are no rows; give one row for each reading")


def read(data: Any, units: Mapping[str, str] | None = None) -> Measurements:
    """Measurements as they stand in a table, in µS and seconds, without the rows that say nothing.

    Raises:
        ValueError: there is no such table, or no readings in it; see `analogsim.fit_device`.
    """
    columns, lines = _columns(data)
    found, stated, other = _named(columns)
    known = _units(stated, units)
    numbers = {
        name: _numbers(name, found[name], lines) * _factor(name, known.get(name, _ASSUMED[name])) for name in UNITS
    }
    cell, has_cell, names = _numbered(found["cell"])
    _check_lengths({**numbers, "cell": cell})
    whole = has_cell & np.logical_and.reduce([np.isfinite(values) for values in numbers.values()])
    _check_swapped(numbers, cell, whole)
    _check_values(numbers, cell, names, whole)
    everything = Measurements(numbers["target"], numbers["time"], numbers["measured"], cell, _assumptions(known, other))
    if not whole.all():
        empty = int((~whole).sum())
        everything = everything.only(whole, f"{empty} of {len(whole)} rows dropped: a value is missing")
    measurements = _without_copies(everything)
    _check_units(measurements)
    return measurements


def _plausible(target: FloatArray, time: FloatArray, measured: FloatArray, cell: IntArray) -> bool:
    """Whether four columns can be what they are called: the traces that a swap of two of them leaves."""
    if (time < 0).any() or (target < 0).any():
        return False
    first = np.full(cell.max() + 1, np.nan)
    first[cell] = target
    cells_with_one_target = 1 - len(np.unique(cell[target != first[cell]])) / len(np.unique(cell))
    # A cell is programmed to one target; what is read has more different values than what was asked for.
    if cells_with_one_target < 0.95 or 4 * len(np.unique(measured)) <= len(np.unique(target)):
        return False
    if len(np.unique(cell)) > 0.8 * len(cell) and 2 * len(np.unique(measured)) <= len(cell):
        return False  # the cell would be new in each row, and the reading one of few
    if len(np.unique(target)) < 3:
        return True
    from scipy.stats import spearmanr

    return bool(spearmanr(target, measured).statistic > 0.3)


def _check_swapped(numbers: dict[str, FloatArray], cell: IntArray, whole: BoolArray) -> None:
    """Tell which two columns seem swapped, if that explains what is odd about them."""
    if whole.sum() < 8:
        return
    names = ("target", "time", "measured", "cell")
    values = {name: numbers[name][whole] for name in UNITS} | {"cell": cell[whole].astype(np.float64)}

    def plausible(order: dict[str, str]) -> bool:
        _, cells = np.unique(values[order["cell"]], return_inverse=True)
        return _plausible(values[order["target"]], values[order["time"]], values[order["measured"]], cells)

    straight = dict(zip(names, names, strict=True))
    if plausible(straight):
        return
    for one, other in itertools.combinations(names, 2):
        if plausible(straight | {one: other, other: one}):
            raise InvalidValueError(
                f"fit_device: the columns {one!r} and {other!r} seem swapped: as they are, {_oddity(values)}; "
                "exchange their headers"
            )


def _oddity(values: dict[str, FloatArray]) -> str:
    cells, cell = np.unique(values["cell"], return_inverse=True)
    first = np.full(len(cells), np.nan)
    first[cell] = values["target"]
    several = len(np.unique(cell[values["target"] != first[cell]]))
    if several:
        return f"{several} of {len(cells)} cells have more than one target"
    if (values["time"] < 0).any() or (values["target"] < 0).any():
        return "a target or a time is negative"
    different = {name: len(np.unique(values[name])) for name in ("target", "measured")}
    return (
        f"there are {different['measured']} different readings of {different['target']} targets in {len(cells)} cells, "
        "and they do not go together"
    )


def _shown(name: Any) -> str:
    return f"{name:g}" if isinstance(name, float) else str(name)


def _check_values(numbers: dict[str, FloatArray], cell: IntArray, names: NDArray[Any], whole: BoolArray) -> None:
    """Refuse what no device does."""
    if not whole.any():
        raise InvalidValueError(
            "fit_device: no row has all four values; give target, time, measured and cell of each reading"
        )
    target, time = numbers["target"], numbers["time"]
    for name, values in (("time", time), ("target", target)):
        if (values[whole] < 0).any():
            place = int(np.flatnonzero(whole & (values < 0))[0])
            raise InvalidValueError(
                f"fit_device: {name} must be >= 0, got {values[place]:g} (cell {_shown(names[cell[place]])}); times "
                "count from programming, targets are conductances of one cell"
            )
    if not target[whole].any():
        raise InvalidValueError("fit_device: every target is 0; give at least one that is above")
    first = np.full(len(names), np.nan)
    first[cell[whole]] = target[whole]
    several = np.flatnonzero(whole & (target != first[cell]))
    if len(several):
        odd = cell[several[0]]
        raise InvalidValueError(
            f"fit_device: cell {_shown(names[odd])} has several targets: "
            f"{', '.join(f'{value:g}' for value in np.unique(target[whole & (cell == odd)])[:4])} µS; give each "
            "programming of a cell its own cell number"
        )


def _without_copies(measurements: Measurements) -> Measurements:
    """Without rows that repeat another one to the last digit, unless the instrument makes equal readings."""
    rows = np.stack((measurements.cell, measurements.time, measurements.measured))
    _, first = np.unique(rows, axis=1, return_index=True)
    copy = np.ones(len(measurements.cell), dtype=bool)
    copy[first] = False
    copy &= measurements.measured != 0  # a cell that is off reads 0 every time
    if not copy.any():
        return measurements
    others = measurements.measured[~copy & (measurements.measured != 0)]
    equal = int(copy.sum())
    if len(np.unique(others)) > _FINE * len(others):  # equal readings are no chance, then
        return measurements.only(~copy, f"{equal} of {len(copy)} rows dropped: copies of another row")
    told = f"{equal} readings are equal to another one of the same cell and time: kept, as the instrument is coarse"
    return replace(measurements, notes=(*measurements.notes, told))


def _check_units(measurements: Measurements) -> None:
    """Refuse readings that are a power of ten from what was asked for."""
    target, measured, time = measurements.target, measurements.measured, measurements.time
    high = target > 0.2 * target.max()
    early = high & (time <= np.quantile(time[high], 0.25))
    ratio = float(np.median(measured[early] / target[early]))
    if 1 / 30 < ratio < 30:
        return
    told = (
        f"fit_device: wrong units? the first readings are {ratio:.3g} times their targets (median), as the columns are "
        "in µS by header, units= or assumption"
    )
    for unit in ("nS", "mS", "S"):
        if ratio > 0 and 1 / 8 < ratio * _CONDUCTANCE[unit] < 8:
            raise InvalidValueError(
                f"{told}; if measured is in {unit}, say units={{'measured': '{unit}'}} or 'measured [{unit}]' in the "
                "header; if the target is wrong, correct its unit"
            )
    raise InvalidValueError(f"{told}; give both in one unit")
