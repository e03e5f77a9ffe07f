"""Tables of numbers as instruments and spreadsheets write them: files of text, or columns in memory."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analogsim.errors import InvalidTypeError, InvalidValueError, MissingFileError

FloatArray = NDArray[np.float64]

MISSING = {"", "-", "--", "nan", "na", "n/a", "#n/a", "none", "null"}
"""What stands where there is no value, in lower case."""
_OVERFLOW = 9.8e37  # instruments that speak SCPI write 9.9e37 for what is out of range and 9.91e37 for no number
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_DATE = re.compile(r"\d{1,4}[-./]\d{1,2}[-./]\d{1,4}\b.*|\d{1,2}:\d{2}(:\d{2})?.*")


@dataclass(frozen=True)
class Table:
    """Columns by header.

    Args:
        columns: their values, text or numbers.
        lines: the line of a file on which each row stands; None where there is no file.
        notes: what was assumed to read it.
    """

    columns: Mapping[str, Any]
    lines: list[int] | None = None
    notes: tuple[str, ...] = ()

    def where(self, row: int) -> str:
        """The place of a row for messages."""
        return f"row {row}" if self.lines is None else f"line {self.lines[row]}"


def read_table(data: Any, expected: tuple[str, ...]) -> Table:
    """Columns of a CSV file, a mapping of arrays or a frame.

    Args:
        data: any of these; a file in UTF-8, UTF-16 or Windows' code page, separated by commas, semicolons or tabs, with
            decimal points or, unless commas separate, decimal commas.
        expected: the columns, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: it is no table.
        ValueError: the file is empty, or a row has not as many values as the header.
    """
    if isinstance(data, str | os.PathLike):
        return _read_csv(Path(data), expected)
    if not callable(getattr(data, "keys", None)):
        raise InvalidTypeError(
            "fit_device: give a CSV file, a mapping of columns or a pandas frame, with the columns "
            f"{', '.join(expected)}; got {type(data).__name__}"
        )
    return Table({str(name): data[name] for name in data.keys()})  # noqa: SIM118 - a frame iterates over other things


def _no_text(path: Path) -> InvalidValueError:
    return InvalidValueError(f"fit_device: {os.fspath(path)!r} is no text in UTF-8; save it as CSV in UTF-8")


def _text_of(path: Path) -> tuple[str, tuple[str, ...]]:
    """What stands in a file, and in which encoding that was if it is not the usual one."""
    raw = path.read_bytes()
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            return raw.decode("utf-16"), ("the file is in UTF-16",)
        except UnicodeDecodeError as error:
            raise InvalidValueError(
                f"fit_device: {os.fspath(path)!r} is no text in UTF-8; save it as CSV in UTF-8"
            ) from error
    try:
        return raw.decode("utf-8-sig"), ()
    except UnicodeDecodeError:
        pass
    try:
        text = raw.decode("cp1252")
    except UnicodeDecodeError as error:
        raise InvalidValueError(
            f"fit_device: {os.fspath(path)!r} is no text in UTF-8; save it as CSV in UTF-8"
        ) from error
    return text, ("the file is no UTF-8: read in Windows' code page (cp1252)",)


def _read_csv(path: Path, expected: tuple[str, ...]) -> Table:
    if not path.is_file():
        raise MissingFileError(f"fit_device: no file {os.fspath(path)!r}")
    text, notes = _text_of(path)
    if "\0" in text:
        raise _no_text(path)
    lines = text.splitlines()
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and line.lstrip()[0] != "#"]
    if not numbered:
        raise InvalidValueError(
            f"fit_device: {os.fspath(path)!r} is empty; give a header {','.join(expected)} and rows"
        )
    separator = max(",;\t", key=numbered[0][1].count)
    head, *body = csv.reader((line for _, line in numbered), delimiter=separator)
    if len(body) != len(numbered) - 1:
        raise InvalidValueError(
            f"fit_device: a quoted value in {os.fspath(path)!r} goes over several lines; leave quotes out"
        )
    _check_rows(head, body, numbered[1:], separator)
    columns = {name: [row[place] for row in body] for place, name in enumerate(head)}
    return Table(columns, [number for number, _ in numbered[1:]], notes)


def _check_rows(head: list[str], body: list[list[str]], lines: list[tuple[int, str]], separator: str) -> None:
    """Refuse columns of one name, and rows that have not a value for each column."""
    repeated = sorted({name for name in head if head.count(name) > 1})
    if repeated:
        raise InvalidValueError(f"fit_device: two columns are named {repeated[0]!r}; keep one of them")
    for (number, line), row in zip(lines, body, strict=True):
        if len(row) != len(head):
            commas = "; where commas are decimal, separate columns by semicolons" if separator == "," else ""
            raise InvalidValueError(
                f"fit_device: line {number} has {len(row)} values, the header has {len(head)}: {line!r}; give every "
                f"row a value for each column, nothing between the separators where one is missing{commas}"
            )


def numbers_of(name: str, values: Any, table: Table) -> tuple[FloatArray, tuple[str, ...]]:
    """A column as numbers, NaN where a value is missing, and what was assumed to read them.

    Args:
        name: of the column.
        values: of it.
        table: where it stands.

    Raises:
        ValueError: a value is no number.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise InvalidValueError(f"fit_device: column {name!r} must have one axis, got shape {array.shape}")
    if array.dtype.kind in "fiu":
        numbers = array.astype(np.float64)
        return np.where(np.abs(numbers) >= _OVERFLOW, np.nan, numbers), ()
    commas = False
    numbers = np.empty(len(array))
    for row, value in enumerate(array.tolist()):
        text = value.strip() if isinstance(value, str) else value
        if text is None or (isinstance(text, str) and text.lower() in MISSING):
            numbers[row] = np.nan
            continue
        if isinstance(text, str) and _DECIMAL_COMMA.fullmatch(text):
            text, commas = text.replace(",", "."), True
        try:
            numbers[row] = float(text if not isinstance(text, bool) else "no number")
        except (TypeError, ValueError, OverflowError):
            raise InvalidValueError(_no_number(name, value, table.where(row))) from None
    note = (f"{name}: commas are read as decimal points",) if commas else ()
    return np.where(np.abs(numbers) >= _OVERFLOW, np.nan, numbers), note


def _no_number(name: str, value: Any, where: str) -> str:
    told = f"fit_device: {name} must be a number, got {value!r} in {where}; "
    if name == "time" and isinstance(value, str) and _DATE.fullmatch(value.strip()):
        return told + "give the time since the cell was programmed, in seconds or in the unit of the header, not a date"
    return told + "write 1.5 or 1,5, without separators of thousands, and nothing where a value is missing"
