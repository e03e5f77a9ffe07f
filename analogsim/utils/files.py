"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DAY = 86400.0  # seconds


def write_whole(path: str | os.PathLike[str], content: str | bytes | memoryview | Callable[[Path], object]) -> None:
    """Write a file so that whoever looks finds the old one or the new one: after an error, a kill, a loss of power.

    The content goes into a file with a name of its own in the same folder (``.NAME...part``), on to the disk, and takes
    the place of the old one there; what a writer that was killed has left so, the next one takes away. So several may
    write the same file at once, and the last one's stays. As with `open`, a file that is there keeps its mode, a new
    one has what the umask leaves, a link is followed, and what has no content to keep (``/dev/stdout``, a pipe) is
    written directly.

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
    draft = target.with_name(f"{_drafts_of(target)}{_machine()}-{os.getpid()}-{secrets.token_hex(8)}.part")
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
    sync_folder(target.parent)
    _clear(target)


# Of drafts, and of what SQLite keeps beside one that is a database.
_ENDS = (".part", ".part-journal", ".part-wal", ".part-shm")


def _drafts_of(target: Path) -> str:
    """What the names of all drafts of a file begin with."""
    return f".{target.name[:40]}."


@functools.cache
def _machine() -> str:
    """A short name of this machine, of letters that a file's name may have."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _clear(target: Path) -> None:
    """Take away the drafts of a file whose writers were killed.

    Those of this machine whose process is no more; of others, or on systems that cannot tell, what is older than a day,
    by the clock of the file system alone.
    """
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        drafts = [each for each in entries if each.name.startswith(_drafts_of(target)) and each.name.endswith(_ENDS)]
        for draft in drafts:
            machine, _, rest = draft.name.removeprefix(_drafts_of(target)).partition("-")
            number = rest.partition("-")[0]
            known = machine == _machine() and number.isdecimal() and os.name == "posix"
            if _is_gone(int(number)) if known else draft.stat().st_mtime < target.stat().st_mtime - _DAY:
                os.unlink(draft.path)


def _is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Bring the names in a folder on to the disk, where the system can: Windows and some network drives cannot."""
    with contextlib.suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def lock_file(file: BinaryIO) -> bool:
    """Lock a file that is open for writing, until it is closed here or the process dies; children do not inherit it.

    Returns:
        False where another process has locked it.

    Raises:
        OSError: the file system knows no locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows, where a range far behind the end stands for the file
        import msvcrt

        file.seek(2**40)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
        except OSError:
            return False
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


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
