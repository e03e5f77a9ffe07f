"""What is to be written at the end, refused at the start; and folders of a refused command, taken away again."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from analogsim.errors import InvalidValueError, MissingFileError, MissingPackageError, UnavailableError
from analogsim.utils.packages import how_to_install


def check_output(file: str | os.PathLike[str] | None, program: str) -> None:
    """Refuse a file that could not be written, before the work that it is for. Nothing is made or changed.

    Args:
        file: to be written; None for none.
        program: that is to write it, for messages.

    Raises:
        ValueError: it has no name, or is a folder.
        FileNotFoundError: its folder is not there.
        OSError: it may not be written.
    """
    if file is None:
        return
    name = os.fspath(file)
    if not name or "\0" in name:
        raise InvalidValueError(f"{program}: a file to write needs a name, got {name!r}")
    target = Path(os.path.abspath(name))
    if target.is_dir() or name.endswith(os.sep):
        raise InvalidValueError(f"{program}: {name!r} is a folder; give the file in it that is to be written")
    if not target.parent.is_dir():
        raise MissingFileError(f"{program}: there is no folder for {name!r}; make it first")
    place = target if target.exists() else target.parent
    if not os.access(place, os.W_OK):
        raise UnavailableError(
            f"{program}: {name!r} may not be written; give another place, or the right to write there"
        )


def check_figure(file: str | os.PathLike[str] | None, program: str) -> None:
    """Refuse a figure that could not be written: its file, see `check_output`, or a kind that matplotlib does not draw.

    Args:
        file: to be drawn into; a PNG where its name has no ending. None for none.
        program: for messages.

    Raises:
        ValueError: matplotlib draws no such kind here.
        ImportError: there is no matplotlib.
        FileNotFoundError, OSError: see `check_output`.
    """
    check_output(file, program)
    if file is None:
        return
    ending = os.path.splitext(os.fspath(file))[1].removeprefix(".") or "png"
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError(f"{program}: a figure needs matplotlib; {how_to_install('recipes')}") from error
    try:  # what some kinds need besides (LaTeX, Pillow) shows when they are drawn
        Figure(figsize=(0.1, 0.1)).savefig(io.BytesIO(), format=ending)
    except Exception as error:
        told = str(error).partition("\n")[0]
        raise InvalidValueError(
            f"{program}: cannot draw {os.fspath(file)!r}: {told}; name it .png, .svg or .pdf"
        ) from error


def missing_folders(folder: str | os.PathLike[str]) -> list[Path]:
    """The folders that making one would make, itself among them, the innermost first."""
    path = Path(os.path.abspath(folder))
    return [place for place in (path, *path.parents) if not place.exists()]


def remove_empty(folders: Iterable[Path]) -> None:
    """Take folders away again in which there is nothing, for a command that was refused after it had made them."""
    for folder in folders:
        with contextlib.suppress(OSError):  # something is in it, or it is gone
            folder.rmdir()


def keep_result(options: argparse.Namespace, result: object) -> None:
    """Have what a command has found so far written where ``--json`` says, also if an error ends it after this.

    Whoever prints a table calls this besides, before anything is drawn, sent or written that could fail.

    Args:
        options: of the command.
        result: as ``run`` would give it, in place of what was kept before.
    """
    options.known = result


def kept_result(options: argparse.Namespace) -> object:
    """What `keep_result` was given last; None for nothing."""
    return getattr(options, "known", None)


def shows_bars() -> bool:
    """Whether the error stream is a terminal on which a bar can be drawn over itself."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
