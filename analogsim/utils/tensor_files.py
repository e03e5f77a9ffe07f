"""Tensors in files of safetensors, which hold no code: written whole or not at all, and read with one line of error."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from analogsim.errors import InvalidValueError, MissingFileError, UnavailableError
from analogsim.utils.files import write_whole


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
    try:
        write_whole(path, lambda draft: save_file(dict(tensors), draft, metadata=dict(metadata)))
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
    if not Path(path).is_file():
        raise MissingFileError(f"{action}: no file {os.fspath(path)!r}")
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118 - no dict
    except SafetensorError as error:
        raise InvalidValueError(f"{action}: {os.fspath(path)!r} {other} or is damaged: {error}") from error
