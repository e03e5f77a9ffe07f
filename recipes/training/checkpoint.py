"""Checkpoint files: written whole or not at all, read without running what is in them."""

from __future__ import annotations

import os
from pathlib import Path
from textwrap import shorten
from typing import Any

from torch import nn

from analogsim.errors import InvalidValueError, MissingFileError
from analogsim.utils.tensor_files import read_archive, write_archive

_FORMAT = "analogsim-checkpoint-1"


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint that training wrote.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is something else, or damaged.
    """
    if not Path(path).is_file():
        raise MissingFileError(f"checkpoint: no file {os.fspath(path)!r}")
    try:
        content = read_archive(path)
    except Exception as error:
        raise InvalidValueError(
            f"checkpoint: {os.fspath(path)!r} cannot be read, it may be damaged: {shorten(str(error), 150)}"
        ) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise InvalidValueError(f"checkpoint: {os.fspath(path)!r} was not written by analogsim train ({_FORMAT})")
    return content


def load_weights(model: nn.Module, state: dict[str, Any], source: str) -> None:
    """Load a state dict, with an error that a person understands if it is another network's."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InvalidValueError(f"{source} belongs to another architecture: {shorten(str(error), 400)}") from error


def save_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint; a kill leaves the old file or the new one, never half of one.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_archive(path, {"format": _FORMAT, **content})


def copy_checkpoint(source: Path, target: Path) -> bool:
    """Begin another run where `source` stands, if it is there and `target` is not; it belongs to no MLflow run yet."""
    if target.exists() or not source.is_file():
        return False
    save_checkpoint({**load_checkpoint(source), "run_id": None}, target)
    return True
