"""What people write for a source: a path, with options in parentheses behind it."""

from __future__ import annotations

import ast
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analogsim.errors import InvalidValueError, MissingFileError
from analogsim.utils.text import arguments_of, nearest


def path_and_options(text: str, scheme: str, reader: Callable[..., Any]) -> tuple[Path, dict[str, Any]]:
    """The path and the options of ``"recordings(mels=40, frames=64)"``.

    What exists under the whole text is a path, whatever its name. Else the options are the longest end that reads as
    parentheses with named values in them, so that brackets, spaces and colons may stand in the path itself.

    Args:
        text: what stands behind ``"audio:"``.
        scheme: the source, for error messages.
        reader: its keyword-only parameters are the options that there are.

    Raises:
        ValueError: no path, an option that is not known or given twice, or a value that is no plain one.
    """
    if not text.strip():
        raise InvalidValueError(f"{scheme}: the path is missing; write {scheme}:PATH")
    path = Path(text).expanduser()
    if os.path.lexists(path) or not text.rstrip().endswith(")"):
        return path, {}
    text = text.rstrip()
    for place in (place for place, letter in enumerate(text) if letter == "("):
        if _is_options(text[place:]):
            values = arguments_of(text[place:], text, scheme, "limit=10")
            if not text[:place].strip():
                raise InvalidValueError(f"{scheme}: the path is missing in {text!r}; write {scheme}:PATH{text[place:]}")
            _check_known(values, scheme, reader)
            return Path(text[:place].rstrip()).expanduser(), values
    return path, {}


def _is_options(text: str) -> bool:
    """Whether a text is parentheses with names and values in them; whether the values will do is another question."""
    try:
        call = ast.parse(f"_{text}", mode="eval").body
    except (SyntaxError, ValueError):
        return False
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args and bool(call.keywords)


def _check_known(values: dict[str, Any], scheme: str, reader: Callable[..., Any]) -> None:
    parameters = inspect.signature(reader).parameters.values()
    known = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY]
    for name in values:
        if name not in known:
            raise InvalidValueError(
                f"{scheme}: there is no option {name!r}{nearest(name, known)}; there are {', '.join(known)}"
            )


def check_whole(scheme: str, name: str, value: object, least: int) -> int:
    """An option that is a whole number of at least `least`.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidValueError(f"{scheme}: {name} must be a whole number >= {least}, got {value!r}")
    return value


def check_positive(scheme: str, name: str, value: object) -> float:
    """An option that is a finite number above 0.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise InvalidValueError(f"{scheme}: {name} must be a number above 0, got {value!r}")
    return float(value)


def check_choice(scheme: str, name: str, value: object, choices: tuple[str, ...]) -> str:
    """An option that is one of a few words.

    Raises:
        ValueError: it is not.
    """
    if value not in choices:
        raise InvalidValueError(f"{scheme}: {name} must be {' or '.join(map(repr, choices))}, got {value!r}")
    return str(value)


def existing(path: Path, scheme: str, *, folder: bool) -> Path:
    """The path, if there is a folder, or a file, under it.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: there is the other kind; of an archive, that it is to be unpacked.
    """
    if not path.exists():
        near = nearest(path.name, (one.name for one in path.parent.iterdir()), 0.7) if path.parent.is_dir() else ""
        raise MissingFileError(f"{scheme}:{path}: there is no such {'folder' if folder else 'file'}{near}")
    if folder and not path.is_dir():
        packed = path.name.lower().endswith((".tar", ".tgz", ".gz", ".bz2", ".xz", ".zip", ".7z", ".rar", ".zst"))
        what = "an archive; unpack it, and give the folder" if packed else "a file; give the folder that holds the data"
        raise InvalidValueError(f"{scheme}:{path}: is {what}")
    if not folder and not path.is_file():
        raise InvalidValueError(f"{scheme}:{path}: is a folder; give one file")
    return path
