"""Folders that belong to one study."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from pathlib import Path

from analogsim.utils.files import write_whole

_OWNER = ".study"


def owned_folder(parent: Path, name: str, owner: str) -> Path:
    """The folder `name` in `parent` that belongs to `owner`: made, found again, or ``name-2``, ``name-3``, ...

    Several processes may ask at once. The folder appears with its owner's mark in it, so that none of them can take
    it for somebody else's.

    Raises:
        OSError: it cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for ending in itertools.chain([""], (f"-{count}" for count in itertools.count(2))):
        folder = parent / f"{name}{ending}"
        if not folder.exists():
            draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
            try:
                draft.chmod(0o755)  # mkdtemp makes it for the owner alone
                write_whole(draft / _OWNER, owner)
                with contextlib.suppress(OSError):  # another process was faster
                    os.rename(draft, folder)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        mark = folder / _OWNER
        if mark.is_file() and mark.read_text() == owner:
            return folder
    raise AssertionError("unreachable")
