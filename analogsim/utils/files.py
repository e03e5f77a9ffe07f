"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_whole(path: str | os.PathLike[str], content: str | bytes | memoryview | Callable[[Path], object]) -> None:
    """Write a file so that whoever looks finds the old one or the new one: after an error, a kill, a loss of power.

    The content goes into a file with a name of its own in the same folder, on to the disk, and takes the place of the
    old one there. So several may write the same file at once, and the last one's stays. As with `open`, a file that is
    there keeps its mode, a new one has what the umask leaves, a link is followed, and what has no content to keep
    (``/dev/stdout``, a pipe) is written directly.

    Args:
        path: the file; its folder is there.
        content: text, which is written as UTF-8 with the ends of line it has; bytes; or a function that writes to a
            file it is given the path of.

    Raises:
        OSError: it cannot be written; the message names ``path``, and the old file is as it was.
    """
    whole = content.encode() if isinstance(content, str) else content
    try:
        if _is_stream(path):
            _fill(Path(path), whole)
        else:
            _replace(Path(os.path.realpath(path)), whole)
    except OSError as error:
        if error.errno is None:  # made by hand: its words are all there is
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def _is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether there is nothing that could be replaced, or that anyone would want replaced."""
    return (os.path.exists(path) and not os.path.isfile(path)) or os.path.abspath(path).startswith(
        ("/dev/std", "/dev/fd/", "/proc/")
    )


def _fill(file: Path, content: bytes | memoryview | Callable[[Path], object]) -> None:
    if callable(content):
        content(file)
    else:
        with file.open("wb") as opened:
            opened.write(content)


def _replace(target: Path, content: bytes | memoryview | Callable[[Path], object]) -> None:
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    draft = target.with_name(f".{target.name[:40]}.{secrets.token_hex(8)}.part")
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))  # the umask takes its part of the mode
    try:
        with contextlib.suppress(FileNotFoundError):
            draft.chmod(target.stat().st_mode & 0o7777)
        _fill(draft, content)
        with draft.open("r+b") as written:
            os.fsync(written.fileno())
        os.replace(draft, target)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """The new name on to the disk, where the system can: Windows and some network drives know no such thing."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def write_figure(path: str | os.PathLike[str], figure: Figure, *, dpi: int = 120) -> None:
    """Write a matplotlib figure whole, in the format that the file's suffix names; PNG, with its suffix, without one.

    Raises:
        ValueError: matplotlib knows no such format.
        OSError: the file cannot be written.
    """
    file = os.fspath(path)
    suffix = os.path.splitext(file)[1]
    picture = io.BytesIO()
    figure.savefig(picture, format=suffix.removeprefix(".") or "png", dpi=dpi)
    write_whole(file if suffix else f"{file}.png", picture.getbuffer())
