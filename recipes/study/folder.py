"""The folder of a study, which belongs to it alone, and the name that both go by."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from analogsim.device.parse import as_device_model
from analogsim.errors import InvalidValueError
from analogsim.recipes.config.options import StudyConfig
from analogsim.recipes.study.trials import identity
from analogsim.recipes.tasks.references import short
from analogsim.utils.files import sync_folder, write_whole

if TYPE_CHECKING:
    import optuna

_OWNER = ".study"


def owned_folder(parent: Path, name: str, owner: str) -> Path:
    """The folder `name` in `parent` that belongs to `owner`: made, found again, or ``name-2``, ``name-3``, ...

    Several processes may ask at once. The folder appears with its owner's mark in it, so that none of them can take
    it for somebody else's.

    Raises:
        OSError: it cannot be made.
        ValueError: a mark is damaged, so that nobody knows whose the folder is.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for ending in itertools.chain([""], (f"-{count}" for count in itertools.count(2))):
        folder = parent / f"{name}{ending}"
        if not folder.exists():
            draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=parent))
            try:
                draft.chmod(0o755)  # mkdtemp makes it for the owner alone
                write_whole(draft / _OWNER, f"{owner} {_digest(owner)}")
                with contextlib.suppress(OSError):  # another process was faster
                    os.rename(draft, folder)
                    sync_folder(parent)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        mark = folder / _OWNER
        if mark.is_file() and _owner_in(mark) == owner:
            return folder
    raise AssertionError("unreachable")


def _owner_in(mark: Path) -> str:
    """Whose a folder is, as its mark says it."""
    text = mark.read_text(encoding="utf-8", errors="replace")
    owner, between, digest = text.partition(" ")
    if between and digest == _digest(owner):
        return owner
    if re.fullmatch("[0-9a-f]{32}", text):  # of a version that wrote no digest
        return text
    raise InvalidValueError(
        f"out: {str(mark)!r}, which says of which study its folder is, is damaged; take the folder out of the way, or "
        "choose another name with --study or another place with --out"
    )


def _digest(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()[:16]


def study_name(config: StudyConfig) -> str:
    """The study's name: as given, else of data, model and device."""
    made = f"{short(config.data.name)}-{short(config.model)}-{as_device_model(config.device).name}"
    return config.study.name or made + ("-pareto" if config.study.pareto else "")


def study_folder(config: StudyConfig, study: optuna.Study) -> Path:
    """The study's folder on this disk, made if there is none; another study's of the same name is left alone.

    Raises:
        OSError: it cannot be made.
    """
    name = study_name(config) if study.study_name.startswith("no-name-") else study.study_name
    safe = "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in name)[:120]
    return owned_folder(writable_place(config), safe, identity(study))


def writable_place(config: StudyConfig) -> Path:
    """The folder that the study's is in; made if there is none, and tried, since nothing can be kept without it."""
    try:
        place = Path(config.out)
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            return place
    except OSError as error:
        raise type(error)(
            f"out: cannot write to the folder {config.out!r}: {error.strerror or error}; give another place with --out"
        ) from error
