"""What targets stand for: classes, numbers, several labels; told by their type and values."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analogsim.errors import InvalidValueError
from analogsim.recipes.tasks.sources.parts import DataWarning, class_order, first_few

Array = np.ndarray[Any, Any]

TASKS = ("classification", "regression", "multi-label")


@dataclass(frozen=True)
class Targets:
    """Targets of each part, as the task wants them.

    Attributes:
        task: "classification", "regression" or "multi-label".
        parts: int64 ``(N,)`` for classes, float32 else.
        facts: ``outputs`` of a network; of classes also ``classes`` and ``class_names``.
    """

    task: str
    parts: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def read_targets(arrays: Mapping[str, Array], *, task: str | None = None, classes: int | None = None) -> Targets:
    """Tell what targets stand for, by those of the train part.

    * Text: classes by name. Whole numbers, true and false: classes. From 0 on without large gaps (half of the
      numbers up to the largest occur) they are class numbers as they are; others, such as 1 to 10, or -1 and 1, are
      numbered in their order, and a warning says so.
    * A matrix of zeros and ones: several labels a sample; where each row of all parts holds just one 1, classes.
    * Floats: numbers to come near to; but if they are all whole, and are the numbers 0, 1, ... without a gap or just
      -1 and 1, each twice as often as not, classes, and a warning says so. A matrix: several outputs.

    Args:
        arrays: of each part, by the name it is called by in messages; the first one is the train part.
        task: what it is, where that is known.
        classes: labels are the class numbers 0 to classes - 1 as they are.

    Raises:
        ValueError: targets that are not finite, are no vector or matrix, or do not go with the task; whole numbers
            of which it cannot be told whether they are classes; a label of another part that the train part lacks.

    Warns:
        DataWarning: labels are not what they look like at first.
    """
    arrays = {name: _plain(name, array) for name, array in arrays.items()}
    first = next(iter(arrays.values()))
    for name, array in arrays.items():
        if array.shape[1:] != first.shape[1:]:
            raise InvalidValueError(
                f"{name} has targets of shape {array.shape[1:]}, {next(iter(arrays))} of {first.shape[1:]}; make them "
                "the same"
            )
    if classes is not None and task not in (None, "classification"):
        raise InvalidValueError(f"classes={classes} goes with task='classification', got {task!r}")
    task = task or ("classification" if classes is not None else _task_of(arrays))
    if task == "regression":
        return _numbers(arrays)
    if task == "multi-label":
        return _labels(arrays)
    if first.ndim == 2:
        arrays = {name: _of_one_hot(name, array) for name, array in arrays.items()}
    return _classes(arrays, classes)


def _plain(name: str, array: Array) -> Array:
    """Numbers or text, without an axis of size 1 at the end where they are no floats, or an error."""
    if array.ndim not in (1, 2) or 0 in array.shape:
        raise InvalidValueError(
            f"{name} has the shape {array.shape}; targets are (samples,) or (samples, outputs), with at least one of "
            "each"
        )
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if array.dtype.kind not in "biufU":
        raise InvalidValueError(f"{name} has the type {array.dtype}; targets are whole numbers, floats, bools or text")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidValueError(
            f"{name} has {int((~np.isfinite(array)).sum())} values that are NaN or infinite; mend them"
        )
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 and array.dtype.kind != "f" else array


def _task_of(arrays: Mapping[str, Array]) -> str:
    name, first = next(iter(arrays.items()))
    if first.ndim == 2:
        if first.dtype.kind == "U":
            raise InvalidValueError(f"{name} is a matrix of text; give one label a sample")
        if first.shape[1] > 1 and all(np.isin(array, (0, 1)).all() for array in arrays.values()):
            return "classification" if all(map(_is_one_hot, arrays.values())) else "multi-label"
        if first.dtype.kind == "f":
            return "regression"
        raise InvalidValueError(
            f"{name} is a matrix of whole numbers, but not of zeros and ones; say task='regression' if they are "
            "numbers, or give one class a sample"
        )
    if first.dtype.kind in "bU":
        return "classification"
    values = np.unique(first)
    if first.dtype.kind == "f":
        if not _are_float_classes(arrays):
            return "regression"
        if values[0] == 0:  # of other ones `_numbered` tells
            _warn(f"{name} holds floats that are just {_listed(values)}: taken as classes; task='regression' if not")
    elif len(values) > max(2, len(first) // 2):
        raise InvalidValueError(
            f"{name} has {len(values)} distinct whole numbers in {len(first)} samples; say task='classification' or "
            "task='regression'"
        )
    return "classification"


def _are_float_classes(arrays: Mapping[str, Array]) -> bool:
    first = next(iter(arrays.values()))
    values = np.unique(first)
    counted = np.array_equal(values, np.arange(len(values)))
    signs = np.array_equal(values, (-1, 1))
    if not (counted or signs) or not 1 < len(values) <= max(2, len(first) // 2):
        return False
    return all(bool(np.isin(array, values).all()) for array in arrays.values())


def _is_one_hot(array: Array) -> bool:
    return bool(((array == 0) | (array == 1)).all() and (array.sum(1) == 1).all())


def _of_one_hot(name: str, array: Array) -> Array:
    if array.shape[1] == 1:
        return array.reshape(-1)
    if not _is_one_hot(array):
        raise InvalidValueError(
            f"{name} has the shape {array.shape}, and not one 1 in each row; give one class a sample"
        )
    numbers: Array = np.argmax(array, axis=1)
    return numbers


def _numbers(arrays: Mapping[str, Array]) -> Targets:
    parts = {}
    for name, array in arrays.items():
        if array.dtype.kind == "U":
            raise InvalidValueError(f"{name} is text; task='regression' is for numbers")
        parts[name] = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
        if not parts[name].isfinite().all():
            raise InvalidValueError(f"{name} has values beyond what float32 holds; scale them")
    first = next(iter(arrays.values()))
    return Targets("regression", parts, {"outputs": first.shape[1] if first.ndim == 2 else 1})


def _labels(arrays: Mapping[str, Array]) -> Targets:
    parts = {}
    for name, array in arrays.items():
        if array.ndim != 2 or array.dtype.kind == "U" or not np.isin(array, (0, 1)).all():
            raise InvalidValueError(
                f"{name} must be a matrix (samples, labels) of zeros and ones for task='multi-label'"
            )
        parts[name] = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
    return Targets("multi-label", parts, {"outputs": next(iter(arrays.values())).shape[1]})


def _classes(arrays: Mapping[str, Array], classes: int | None) -> Targets:
    name, first = next(iter(arrays.items()))
    _check_whole_numbers(arrays)
    values = np.unique(first)
    if classes is None and len(values) < 2:
        raise InvalidValueError(f"{name} has one class only, {values[0]}; a network needs two to tell apart")
    if first.dtype.kind == "U":
        names = class_order([str(value) for value in values])
        values = np.array(names)
    elif classes is None:
        values = _numbered(name, values)
        names = [str(int(value)) for value in values]
    else:
        values = np.arange(classes)
        names = [str(value) for value in values]
    number = {value: at for at, value in enumerate(values.tolist())}
    parts = {}
    for other, array in arrays.items():
        unknown = sorted(set(np.unique(array).tolist()) - number.keys())
        if unknown:
            known = f"the classes 0 to {classes - 1}" if classes is not None else f"those of {name}"
            raise InvalidValueError(
                f"{other} has the label {first_few(list(map(repr, unknown)))}, which is none of {known}"
            )
        found, back = np.unique(array, return_inverse=True)
        numbers = np.array([number[value] for value in found.tolist()], dtype=np.int64)
        parts[other] = torch.from_numpy(numbers[back.reshape(-1)])
    return Targets(
        "classification", parts, {"classes": len(values), "outputs": len(values), "class_names": tuple(names)}
    )


def _check_whole_numbers(arrays: Mapping[str, Array]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind == "f" and (array != np.floor(array)).any():
            raise InvalidValueError(f"{name} has classes that are no whole numbers, such as {array[array % 1 != 0][0]}")


def _numbered(name: str, values: Array) -> Array:
    """The label of each class number."""
    values = values.astype(np.int64)
    least, most = int(values[0]), int(values[-1])
    if least == 0 and 2 * len(values) > most:
        return np.arange(most + 1)
    _warn(
        f"{name} has the labels {_listed(values)}: taken as the classes 0 to {len(values) - 1} in their order; "
        "classes=N takes labels as the class numbers 0 to N-1 as they are, task='regression' as numbers"
    )
    return values


def _listed(values: Sequence[Any] | Array) -> str:
    return first_few([f"{value:g}" for value in values], 4)


def _warn(text: str) -> None:
    warnings.warn(f"npz: {text}", DataWarning, stacklevel=2)
