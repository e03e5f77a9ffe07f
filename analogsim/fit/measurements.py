"""Measured conductances: read from a table, brought to µS and seconds, and checked before anything is fitted."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogsim.errors import InvalidValueError
from analogsim.fit.tables import MISSING, numbers_of, read_table
from analogsim.fit.units import ASSUMED, UNITS, unit_of

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]
BoolArray = NDArray[np.bool_]

COLUMNS = ("target", "time", "measured", "cell")
_HEAD = re.compile(r"\s*([A-Za-z]+)\s*(?:[\[(]\s*([^\])]*?)\s*[\])]|/\s*(\S.*?))?\s*")
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


def _named(columns: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str], list[str]]:
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
        unit = match and (match.group(2) or match.group(3))
        if unit:
            units[name] = unit
    missing = [name for name in COLUMNS if name not in found]
    if missing:
        raise InvalidValueError(
            f"fit_device: there is no column {', '.join(map(repr, missing))}; the columns must be named "
            f"{', '.join(COLUMNS)}, as in 'target [µS],time [s],measured [µS],cell'; got {', '.join(columns) or 'none'}"
        )
    return found, units, other


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
        known = np.asarray([value.lower() not in MISSING for value in array.tolist()], dtype=bool)
    names, cell = np.unique(array, return_inverse=True)
    return cell.astype(np.intp), known, names


def _units(stated: dict[str, str], given: Mapping[str, str] | None) -> dict[str, str]:
    """The unit of each column that has one: by its header, or by argument, which must not say otherwise."""
    for name, unit in (given or {}).items():
        if name not in UNITS:
            raise InvalidValueError(f"fit_device: units has {name!r}; it takes {', '.join(UNITS)}")
        if unit_of(name, unit) != unit_of(name, stated.get(name, unit)):
            raise InvalidValueError(
                f"fit_device: {name} is in {stated[name]} by its header and in {unit} by units; give one of them"
            )
    return stated | dict(given or {})


def _assumptions(units: dict[str, str], other: list[str]) -> tuple[str, ...]:
    """Notes on columns without a unit, and on headers that are no column of ours."""
    assumed = [f"{name} in {ASSUMED[name]}" for name in UNITS if name not in units]
    notes = (f"no unit given, assumed: {', '.join(assumed)}",) if assumed else ()
    return (*notes, f"columns not used: {', '.join(other)}") if other else notes


def _check_lengths(columns: Mapping[str, NDArray[Any]]) -> None:
    """Refuse columns that make no table, or an empty one."""
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InvalidValueError(f"fit_device: the columns have different lengths: {lengths}")
    if not any(lengths.values()):
        raise InvalidValueError("fit_device: there are no rows; give one row for each reading")


def read(data: Any, units: Mapping[str, str] | None = None, g_max: float | None = None) -> Measurements:
    """Measurements as they stand in a table, in µS and seconds, without the rows that say nothing.

    Args:
        data: see `analogsim.fit_device`, as for what follows.
        units: of its columns.
        g_max: conductance of the largest weight, µS, of which shares are.

    Raises:
        ValueError: there is no such table, or no readings in it; see `analogsim.fit_device`.
    """
    source = read_table(data, COLUMNS)
    found, stated, other = _named(source.columns)
    known = _units(stated, units)
    numbers, notes = {}, source.notes
    for name in UNITS:
        values, told = numbers_of(name, found[name], source)
        numbers[name] = unit_of(name, known.get(name, ASSUMED[name])).convert(values, g_max)
        notes += told
    cell, has_cell, names = _numbered(found["cell"])
    _check_lengths({**numbers, "cell": cell})
    whole = has_cell & np.logical_and.reduce([np.isfinite(values) for values in numbers.values()])
    _check_swapped(numbers, cell, whole)
    _check_values(numbers, cell, names, whole)
    everything = Measurements(
        numbers["target"], numbers["time"], numbers["measured"], cell, notes + _assumptions(known, other)
    )
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
        if ratio > 0 and 1 / 8 < ratio * unit_of("measured", unit).factor < 8:
            raise InvalidValueError(
                f"{told}; if measured is in {unit}, say units={{'measured': '{unit}'}} or 'measured [{unit}]' in the "
                "header; if the target is wrong, correct its unit"
            )
    raise InvalidValueError(f"{told}; give both in one unit")
