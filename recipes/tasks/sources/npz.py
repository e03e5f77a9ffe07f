"""Arrays of one file, ``npz:FILE``: ``x_train, y_train, x_test, y_test``, and ``x_val, y_val`` if wanted."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from analogsim.errors import InvalidValueError
from analogsim.recipes.tasks.sources.options import check_choice, check_whole, existing, path_and_options
from analogsim.recipes.tasks.sources.parts import DataWarning, Parts, first_few
from analogsim.recipes.tasks.sources.targets import TASKS, Array, read_targets

_VALIDATION = ("val", "valid", "validation", "dev")
# What the arrays of each part may be called, in small letters; that with images and labels is MedMNIST's.
_NAMES = {
    part: tuple(
        tuple(
            name
            for called in parts
            for name in (
                f"{letter}_{called}",
                f"{called}_{letter}",
                f"{called}_{word}",
                *((letter,) * (part == "train")),
            )
        )
        for letter, word in (("x", "images"), ("y", "labels"))
    )
    for part, parts in {"train": ("train",), "validation": _VALIDATION, "test": ("test",)}.items()
}
_CHANNELS = (1, 2, 3, 4)  # of an image, as its axes are told by


def read(path: str, task: str | None = None) -> Parts:
    """Arrays of an npz file, compressed or not.

    Inputs, by type and axes:

    * bytes (uint8) ``(N, H, W)``: images of one channel. ``(N, C, H, W)`` or ``(N, H, W, C)``: the axis of 1 to 4 is
      the channels; where both or none are, ``layout`` has to say. ``(N, F)``: features, as float32.
    * floats and other whole numbers: four axes as bytes, any other as they are, float32; standing for images, three
      axes need ``layout="HW"``.
    * whole numbers ``(N, L)`` with targets that are whole numbers of the same shape, or with ``tokens=True``: int64, to
      be looked up in a vocabulary.

    Targets: see `targets.read_targets`.

    Args:
        path: the file, with options in parentheses if any: ``task="regression"`` (classification, multi-label),
            ``layout="HWC"`` (CHW, HW), ``classes=10``, ``tokens=True``.
        task: what the targets are for, where that was said elsewhere; the option comes first.

    Raises:
        ValueError: the file is no npz, damaged, lacks an array or holds objects; arrays that do not go together, are
            not finite or cannot be told apart.
        FileNotFoundError: there is no such file.

    Warns:
        DataWarning: arrays of no part were left out.
    """
    place, options = path_and_options(path, "npz", _read)
    return _read(place, **({"task": task} if task in TASKS else {}) | options)


def _read(place: Path, *, task: Any = None, layout: Any = None, classes: Any = None, tokens: Any = False) -> Parts:
    _check_options(task, layout, classes, tokens)
    parts = _parts(place, _arrays(existing(place, "npz", folder=False)))
    if all(_is_labelled_text(*part) for part in parts.values()) and task is None:
        return _token_parts(parts)
    try:
        inputs = _inputs({name: x for name, (x, _) in parts.items()}, layout, tokens)
        targets = read_targets({_called(name, "y"): y for name, (_, y) in parts.items()}, task=task, classes=classes)
    except ValueError as error:
        raise InvalidValueError(f"npz:{place}: {error}") from error
    sets = {name: TensorDataset(x, targets.parts[_called(name, "y")]) for name, x in inputs.items()}
    facts = {"shape": tuple(inputs["train"].shape[1:]), **targets.facts}
    if tokens:
        facts |= {"vocabulary": 1 + max(int(x.max()) for x in inputs.values()), "scaled": True}
    labels = targets.parts[_called("train", "y")] if targets.task == "classification" else None
    return Parts(sets["train"], sets.get("validation"), sets.get("test"), targets.task, facts, labels)


def _check_options(task: Any, layout: Any, classes: Any, tokens: Any) -> None:
    if task is not None:
        check_choice("npz", "task", task, TASKS)
    if layout is not None:
        check_choice("npz", "layout", layout, ("HWC", "CHW", "HW"))
    if classes is not None:
        check_whole("npz", "classes", classes, 2)
    if tokens is not True and tokens is not False:
        raise InvalidValueError(f"npz: tokens must be True or False, got {tokens!r}")


def _called(part: str, letter: str) -> str:
    return f"{letter}_{'val' if part == 'validation' else part}"


def _arrays(place: Path) -> dict[str, Array]:
    """The arrays of a file by their names in small letters."""
    try:
        with place.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if not hasattr(content, "files"):
                raise InvalidValueError(
                    "it is one array, not several; save them by numpy.savez(FILE, x_train=..., ...)"
                )
            if len({name.lower() for name in content.files}) < len(content.files):
                raise InvalidValueError("names differ in capital letters alone; give each array a name of its own")
            return {name.lower(): content[name] for name in content.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError) as error:
        why = " ".join(str(error).split())
        if "pickle" in why:
            why = (
                "it is no npz file, or holds Python objects, which are never read as they can run code; save plain "
                "arrays of numbers or text, by numpy.savez"
            )
        raise InvalidValueError(f"npz:{place}: cannot be read: {why}") from error


def _parts(place: Path, arrays: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
    """Inputs and targets of the parts that there are.

    Warns:
        DataWarning: there are arrays of no part.
    """
    parts, taken = {}, set()
    held = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"
    for part, (inputs, targets) in _NAMES.items():
        x, y = (next((name for name in names if name in arrays), None) for names in (inputs, targets))
        if x is None and y is None and part != "train":
            continue
        if x is None or y is None:
            lacking = (inputs if x is None else targets)[0]
            raise InvalidValueError(
                f"npz:{place}: there is no {lacking}; it holds {held}. Needed are x_train and y_train; x_test, y_test "
                "and x_val, y_val are taken where they are"
            )
        if not 0 < _samples(arrays[x]) == _samples(arrays[y]):
            raise InvalidValueError(
                f"npz:{place}: {x} {arrays[x].shape} and {y} {arrays[y].shape} must have as many samples, one or more"
            )
        parts[part] = (arrays[x], arrays[y])
        taken |= {x, y}
    _tell_left(place, arrays, taken)
    return parts


def _tell_left(place: Path, arrays: Iterable[str], taken: Container[str]) -> None:
    names = [name for name in arrays if name not in taken]
    if names:
        told = f"npz:{place}: left out, as they are called as no part: {first_few(names)}"
        warnings.warn(told, DataWarning, stacklevel=5)


def _samples(array: Array) -> int:
    return len(array) if array.ndim else 0


def _inputs(arrays: Mapping[str, Array], layout: str | None, tokens: bool) -> dict[str, Tensor]:
    first = arrays["train"]
    for part, array in arrays.items():
        name = _called(part, "x")
        if array.dtype.kind not in "biuf":
            raise InvalidValueError(f"{name} has the type {array.dtype}; inputs are numbers")
        if array.shape[1:] != first.shape[1:] or array.ndim < 2 or 0 in array.shape:
            raise InvalidValueError(
                f"{name} has samples of shape {array.shape[1:]}, x_train of {first.shape[1:]}; they must be the same, "
                "with one value or more"
            )
        if (array.dtype == np.uint8) != (first.dtype == np.uint8):
            raise InvalidValueError(
                f"{name} is {array.dtype}, x_train {first.dtype}: bytes in one only; are they on one scale?"
            )
    if tokens:
        return {part: _tokens(_called(part, "x"), array) for part, array in arrays.items()}
    order = _order(first, layout)
    return {part: _tensor(_called(part, "x"), array, order) for part, array in arrays.items()}


def _order(array: Array, layout: str | None) -> str | None:
    """How the axes of images lie, "HW", "CHW" or "HWC"; None: they are no images."""
    if layout is not None:
        if array.ndim != 1 + len(layout):
            raise InvalidValueError(f"x_train has the shape {array.shape}, which does not go with layout={layout!r}")
        return layout
    if array.ndim == 3 and array.dtype == np.uint8:
        return "HW"
    if array.ndim != 4:
        return None
    before, behind = array.shape[1] in _CHANNELS, array.shape[3] in _CHANNELS
    if before == behind:
        raise InvalidValueError(
            f"x_train has the shape {array.shape}, in which the channels cannot be told; say layout='HWC' or "
            "layout='CHW'"
        )
    return "CHW" if before else "HWC"


def _tensor(name: str, array: Array, order: str | None) -> Tensor:
    """Images ``(N, C, H, W)``, uint8 as they are; all else float32."""
    if order == "HW":
        array = array[:, None]
    elif order == "HWC":
        array = array.transpose(0, 3, 1, 2)
    if array.dtype == np.uint8 and order is not None:
        return torch.from_numpy(np.ascontiguousarray(array))
    with np.errstate(over="ignore"):  # what float32 cannot hold is found below
        values = np.ascontiguousarray(array, dtype=np.float32)
    wrong = ~np.isfinite(values)
    if wrong.any():
        place = tuple(int(at) for at in np.argwhere(wrong)[0])
        raise InvalidValueError(
            f"{name} has {int(wrong.sum())} values that are NaN, infinite or beyond float32, the first at {place}; "
            "mend or leave out these samples"
        )
    return torch.from_numpy(values)


def _tokens(name: str, array: Array) -> Tensor:
    if array.dtype.kind not in "iu" or array.min() < 0:
        raise InvalidValueError(f"{name} must hold whole numbers from 0 on for tokens=True, got {array.dtype}")
    return torch.from_numpy(array.astype(np.int64))


def _is_labelled_text(x: Array, y: Array) -> bool:
    """Whether each place of a sequence has a target: whole numbers of one shape."""
    return x.dtype.kind in "iu" and x.dtype != np.uint8 and y.dtype.kind in "iu" and x.ndim == 2 and x.shape == y.shape


def _token_parts(parts: Mapping[str, tuple[Array, Array]]) -> Parts:
    """Sequences with a target at each place; targets of -100 do not count."""
    sets = {}
    for part, (x, y) in parts.items():
        wrong = (y < 0) & (y != -100)
        if wrong.any():
            raise InvalidValueError(
                f"npz: {_called(part, 'y')} has {y[wrong][0]}; targets are >= 0, or -100 where none counts"
            )
        sets[part] = TensorDataset(_tokens(_called(part, "x"), x), torch.from_numpy(y.astype(np.int64)))
    vocabulary = 1 + max(int(x.max()) for x, _ in parts.values())
    classes = 1 + max(int(y.max()) for _, y in parts.values())
    facts = {
        "shape": (sets["train"].tensors[0].shape[1],),
        "vocabulary": vocabulary,
        "classes": classes,
        "scaled": True,
    }
    return Parts(sets["train"], sets.get("validation"), sets.get("test"), "language-modelling", facts)
