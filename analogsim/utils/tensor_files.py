"""Tensors in files without code: written whole or not at all, checked by their digest, read with one line of error.

Files of safetensors keep the SHA-256 of all that they hold among their metadata. Archives of torch (zip files) keep
that of all bytes before it in the comment at their end, which other readers pass over; it is checked before anything is
unpickled. Files without a digest are of before there were any: of archives the check sums of the parts are looked at.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from analogsim.errors import InvalidValueError, MissingFileError, UnavailableError
from analogsim.utils.checks import check_path
from analogsim.utils.digests import SEAL
from analogsim.utils.files import write_whole

_MARK = b"analogsim sha256 "
_EMPTY = 64 * "0"
_COMMENT = len(_MARK) + len(_EMPTY)
_LENGTH = 8  # bytes at the beginning of a file of safetensors that say how long its head is


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str], action: str
) -> None:
    """Write tensors and what is said of them.

    Args:
        path: the file.
        tensors: by their keys.
        metadata: text beside them.
        action: in whose name errors are raised.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    check_path(path, action)

    def fill(draft: Path) -> None:
        save_file(dict(tensors), draft, metadata={**metadata, SEAL: _EMPTY})
        _seal(draft)

    try:
        write_whole(path, fill)
    except (OSError, SafetensorError) as error:
        raise UnavailableError(f"{action}: cannot write {os.fspath(path)!r}: {error}") from error


def read_tensors(path: str | os.PathLike[str], action: str, other: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and what is said of them.

    Args:
        path: the file.
        action: in whose name errors are raised.
        other: what is said of a file that cannot be read, such as ``"is not a chip"``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of another kind, or damaged.
    """
    if not Path(check_path(path, action)).is_file():
        raise MissingFileError(f"{action}: no file {os.fspath(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dict
            about = dict(file.metadata() or {})
    except SafetensorError as error:
        raise InvalidValueError(f"{action}: {os.fspath(path)!r} {other} or is damaged: {error}") from error
    seal = about.pop(SEAL, None)
    if seal is not None and seal != _digest_of(path):
        raise InvalidValueError(f"{action}: {os.fspath(path)!r} is damaged: what it holds is not what was written")
    return tensors, about


def _digest_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 over what a file of safetensors says of its tensors, but for its digest, and over every bit of them."""
    with Path(path).open("rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(_LENGTH), "little")))
        head.get("__metadata__", {}).pop(SEAL, None)
        return _digest_of_rest(file, sys.maxsize, json.dumps(head, sort_keys=True).encode())


def _seal(path: Path) -> None:
    """Put the digest of a file in the place that was kept for it."""
    digest = _digest_of(path)
    with path.open("r+b") as file:
        head = file.read(int.from_bytes(file.read(_LENGTH), "little"))
        file.seek(_LENGTH + head.index(f'"{SEAL}":"{_EMPTY}"'.encode()) + len(f'"{SEAL}":"'))
        file.write(digest.encode())


def _digest_of_rest(file: BinaryIO, length: int, start: bytes = b"") -> str:
    """SHA-256 of so many bytes of a file from where it stands, with something before them."""
    whole = hashlib.sha256(start)
    while length > 0 and (part := file.read(min(length, 1 << 20))):
        whole.update(part)
        length -= len(part)
    return whole.hexdigest()


def write_archive(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write tensors, plain values and containers of them as torch does, with the digest of all of it.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    whole = io.BytesIO()  # torch's own writing says nothing of a disk that is full
    torch.save(dict(content), whole)
    # The archive's last two bytes say how long the comment behind it is.
    before = whole.getvalue()[:-2] + _COMMENT.to_bytes(2, "little")
    write_whole(path, before + _MARK + hashlib.sha256(before).hexdigest().encode())


def read_archive(path: str | os.PathLike[str]) -> Any:
    """Read what `write_archive` or `torch.save` wrote, on the CPU, if it is tensors, plain values and containers alone.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is damaged.
        Exception: what torch has to say of a file of another kind.
    """
    with Path(path).open("rb") as file:
        length = file.seek(0, os.SEEK_END)
        file.seek(max(0, length - _COMMENT))
        comment = file.read()
        file.seek(0)
        if comment.startswith(_MARK):
            if comment[len(_MARK) :] != _digest_of_rest(file, length - _COMMENT).encode():
                raise InvalidValueError("it is damaged: what it holds is not what was written")
        else:
            _check_parts(file)
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)


def _check_parts(file: BinaryIO) -> None:
    """Refuse a zip archive with a part that is not as its check sum says, which torch does not look at."""
    if file.read(2) != b"PK":
        return
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, NotImplementedError, RuntimeError, EOFError) as error:
        raise InvalidValueError(f"it is damaged or cut off: {error}") from error
    if damaged is not None:
        raise InvalidValueError(f"it is damaged: {damaged} is not what was written")
