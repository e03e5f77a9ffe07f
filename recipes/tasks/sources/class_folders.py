"""Files in class folders, in split folders or not: which files there are, of which class, in which part."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from analogsim.errors import InvalidValueError
from analogsim.recipes.tasks.sources.options import check_choice
from analogsim.recipes.tasks.sources.parts import DataWarning, class_order, first_few
from analogsim.utils.text import nearest

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_OF_SYSTEMS = ("thumbs.db", "desktop.ini", "__macosx")  # besides what begins with a dot

_Classes = dict[str, list[Path]]  # the files of each class


@dataclass(frozen=True)
class Kind:
    """A kind of files.

    Attributes:
        scheme: the source, for messages.
        name: of many of them, such as "images".
        endings: of their names, small letters with the dot.
        label_of: the class that a file's name tells, where files lie in no class folder; None: there is no such rule.
    """

    scheme: str
    name: str
    endings: tuple[str, ...]
    label_of: Callable[[Path], str | None] | None = None


@dataclass(frozen=True)
class Listing:
    """The files of each part, sorted by class and name.

    Attributes:
        files: those of "train", and of "validation" and "test" where there are such.
        labels: the class number of each, int64 ``(N,)``.
        classes: the names, in the order of the numbers.
        flat: whether the classes were told by the names of the files.
    """

    files: Mapping[str, Sequence[Path]]
    labels: Mapping[str, Tensor]
    classes: tuple[str, ...]
    flat: bool


def list_files(root: Path, kind: Kind, order: str = "numbers") -> Listing:
    """Find files in class folders.

    Either ``root/class/file``, or ``root/train/class/file`` with ``val`` (``valid``, ``validation``, ``dev``) and
    ``test`` beside it (``training``, ``testing``). A file may lie deeper in its class folder. Links are followed;
    hidden files and those that systems leave behind are passed over. Where there is one folder only and nothing else,
    it is entered: that is how archives unpack.
    A folder by the name of a split that holds files and no folders, beside folders that are no splits, is a class.

    Args:
        root: the folder.
        kind: of files.
        order: of classes whose names are all whole numbers: as "numbers" (2 before 10), or as "text" (10 before 2),
            as torchvision's ImageFolder has them. Others are sorted as text.

    Raises:
        ValueError: no files, no classes or one only, a class without files, a class that the train part lacks, two
            folders for one part, or no folder of the train part.

    Warns:
        DataWarning: files or folders were left out.
    """
    check_choice(kind.scheme, "order", order, ("numbers", "text"))
    skipped: list[Path] = []
    root, folders = _entered(root, kind)
    parts = _parts(root, folders, kind, skipped)
    found = {part: _classes(folder, kind, skipped) for part, folder in parts.items()}
    flat = bool(found) and all(flat for _, flat in found.values())
    files = {part: classes for part, (classes, _) in found.items()}
    names = _checked_names(root, files["train"], kind)
    names = class_order(names, order)
    for part in files:
        _check_part(parts[part], files[part], names, kind)
    if skipped:
        relative = [str(path.relative_to(root)) for path in skipped]
        warnings.warn(
            f"{kind.scheme}:{root}: left out, as they are no {kind.name} of a class: {first_few(relative)}",
            DataWarning,
            stacklevel=4,
        )
    paths = {part: [path for name in names for path in classes.get(name, ())] for part, classes in files.items()}
    numbers = {
        part: torch.tensor([at for at, name in enumerate(names) for _ in classes.get(name, ())], dtype=torch.int64)
        for part, classes in files.items()
    }
    return Listing(paths, numbers, tuple(names), flat)


def _visible(folder: Path) -> tuple[dict[str, Path], list[Path]]:
    """The folders in a folder by name, and the files; sorted, without what is hidden."""
    folders, files = {}, []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name.lower() in _OF_SYSTEMS:
                continue
            if entry.is_dir():
                folders[entry.name] = Path(entry.path)
            else:
                files.append(Path(entry.path))
    return folders, files


def _entered(root: Path, kind: Kind) -> tuple[Path, dict[str, Path]]:
    """The folder that holds more than one folder, and these."""
    folders, files = _visible(root)
    while len(folders) == 1 and not any(_is(kind, file) for file in files) and not _split_of(next(iter(folders))):
        (inner,) = folders.values()
        below, files_below = _visible(inner)
        if not below and kind.label_of is None:
            break  # one class
        root, folders, files = inner, below, files_below
    return root, folders


def _is(kind: Kind, path: Path) -> bool:
    return path.suffix.lower() in kind.endings


def _split_of(name: str) -> str | None:
    return _SPLITS.get(name.lower())


def _parts(root: Path, folders: dict[str, Path], kind: Kind, skipped: list[Path]) -> dict[str, Path]:
    """The folder of each part; ``{"train": root}`` where there are no split folders."""
    only_splits = all(map(_split_of, folders))
    splits = {name: path for name, path in folders.items() if _split_of(name) and (only_splits or _visible(path)[0])}
    if not splits:
        return {"train": root}
    parts: dict[str, Path] = {}
    for name, path in splits.items():
        part = _split_of(name)
        if part in parts:
            raise InvalidValueError(
                f"{kind.scheme}:{root}: {parts[part].name} and {name} are both the {part} part; keep one"
            )
        parts[str(part)] = path
    if "train" not in parts:
        raise InvalidValueError(f"{kind.scheme}:{root}: there is {', '.join(splits)} but no folder train")
    skipped += [path for name, path in folders.items() if name not in splits]
    return {part: parts[part] for part in dict.fromkeys(_SPLITS.values()) if part in parts}


def _classes(folder: Path, kind: Kind, skipped: list[Path]) -> tuple[_Classes, bool]:
    """The files of each class of one part, and whether their names told the class."""
    folders, files = _visible(folder)
    if not folders and kind.label_of is not None:
        classes: _Classes = {}
        for file in files:
            label = kind.label_of(file) if _is(kind, file) else None
            if label is None:
                skipped.append(file)
            else:
                classes.setdefault(label, []).append(file)
        return classes, True
    if not folders and any(_is(kind, file) for file in files):
        raise InvalidValueError(
            f"{kind.scheme}:{folder}: has {kind.name} in no class folder, such as {files[0].name}; "
            f"put those of each class into a folder of its name"
        )
    skipped += files
    place = folder.resolve()
    return {name: _below(path, kind, skipped, (place, *place.parents)) for name, path in folders.items()}, False


def _below(folder: Path, kind: Kind, skipped: list[Path], above: tuple[Path, ...]) -> list[Path]:
    """All files of the kind in a folder and the folders in it; of links that lead back up, nothing."""
    place = folder.resolve()
    if place in above:
        return []
    folders, files = _visible(folder)
    found = [file for file in files if _is(kind, file)]
    skipped += [file for file in files if not _is(kind, file)]
    for inner in folders.values():
        found += _below(inner, kind, skipped, (*above, place))
    return found


def _checked_names(root: Path, train: _Classes, kind: Kind) -> list[str]:
    """The names of the train part's classes."""
    where = f"{kind.scheme}:{root}"
    if not any(train.values()):
        named = f", or files named {{label}}_*{kind.endings[0]}" if kind.label_of else ""
        raise InvalidValueError(
            f"{where}: no {kind.name} found ({', '.join(kind.endings)}); they are looked for in class folders, "
            f"alone or in train, val and test{named}"
        )
    empty = [name for name, files in train.items() if not files]
    if empty:
        raise InvalidValueError(
            f"{where}: no {kind.name} of class {first_few(empty)} to train on; fill the folder, or take it away"
        )
    if len(train) < 2:
        raise InvalidValueError(
            f"{where}: there is one class only, {next(iter(train))!r}; a network needs two to tell apart"
        )
    return list(train)


def _check_part(folder: Path, classes: _Classes, names: Sequence[str], kind: Kind) -> None:
    """Refuse a part without files, or with a class that the train part lacks."""
    unknown = [name for name, files in classes.items() if files and name not in names]
    if unknown:
        raise InvalidValueError(
            f"{kind.scheme}:{folder}: has class {first_few(list(map(repr, unknown)))}, which the train part lacks"
            f"{nearest(unknown[0], names, 0.7)}; it has {first_few(list(names), 5)}"
        )
    if not any(classes.values()):
        raise InvalidValueError(f"{kind.scheme}:{folder}: has no {kind.name}; fill it, or take the folder away")
