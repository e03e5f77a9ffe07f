"""Data as a user's own code gives them: two or three parts, in one of several forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, default_collate

from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.recipes.tasks.loaders import Collate
from analogsim.recipes.tasks.task import Task

PARTS = ("train", "validation", "test")
_OTHER_NAMES = {"val": "validation", "valid": "validation", "dev": "validation"}


@dataclass
class Found:
    """What was found, before shares are taken.

    Attributes:
        parts: by their names; None for one that is to be taken from the train part.
        task: what is to be learned; None if nobody says.
        facts: what is known.
        labels: classes of the train part; None if they are to be looked for.
        collate: makes a batch of a list of samples.
        scale: whether inputs are to be standardised.
        notes: what was decided, for people.
    """

    parts: dict[str, Any]
    task: Task | str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    labels: Tensor | None = None
    collate: Collate | None = None
    scale: bool = False
    notes: list[str] = field(default_factory=list)


def taken_from(given: Any, called: str) -> Found:
    """What is in an answer of two or three parts, in a tuple or a dict.

    Args:
        given: the answer.
        called: what gave it, for errors.

    Raises:
        TypeError, ValueError: it is something else, or a part is.
    """
    extra: dict[str, Any] = {}
    if isinstance(given, Mapping):
        parts = {_OTHER_NAMES.get(str(key), str(key)): value for key, value in given.items()}
        extra = {key: parts.pop(key) for key in ("task", "facts", "collate") if key in parts}
        if not {"train", "test"} <= parts.keys() <= set(PARTS):
            raise InvalidValueError(
                f"data: {called} gave a dict of {', '.join(map(repr, given)) or 'nothing'}; wanted 'train', 'test' "
                "and, if there are any, 'validation', 'task', 'facts', 'collate'"
            )
    elif isinstance(given, tuple | list) and len(given) in (2, 3):
        parts = dict(zip(PARTS if len(given) == 3 else ("train", "test"), given, strict=True))
    else:
        got = f"{len(given)} of them" if isinstance(given, tuple | list) else type(given).__name__
        raise InvalidTypeError(
            f"data: {called} must give train and test parts, with validation between them if there is any, in a tuple "
            f"or a dict, got {got}"
        )
    found = Found(dict.fromkeys(PARTS), extra.get("task"), extra.get("facts") or {})
    for which, part in parts.items():
        found.parts[which] = _part(part, which, called, found)
    found.collate = extra.get("collate", found.collate)
    return found


def _part(part: Any, which: str, called: str, found: Found) -> Any:
    """One part as a data set."""
    if part is None and which == "validation":
        return None
    if isinstance(part, DataLoader):
        part = _of_loader(part, found)
    if isinstance(part, tuple | list) and len(part) == 2 and all(isinstance(one, Tensor | np.ndarray) for one in part):
        part = _of_pair(part, f"the {which} part of {called}")
    if isinstance(part, IterableDataset) or not (hasattr(part, "__getitem__") and hasattr(part, "__len__")):
        raise InvalidTypeError(
            f"data: the {which} part of {called} must be a data set with __len__ and __getitem__, a DataLoader of one, "
            f"or a pair of tensors, got {type(part).__name__}"
        )
    if not len(part):
        raise InvalidValueError(f"data: the {which} part of {called} is empty; give at least one sample")
    return part


def _of_loader(loader: DataLoader[Any], found: Found) -> Any:
    if loader.collate_fn is not default_collate and loader.batch_size is not None:
        found.collate = loader.collate_fn
    note = "data: of the loaders the data sets are taken; data.batch_size and seed say how they are read"
    if note not in found.notes:
        found.notes.append(note)
    return loader.dataset


def _of_pair(pair: Any, what: str) -> TensorDataset:
    try:
        inputs, targets = (torch.as_tensor(one) for one in pair)
    except TypeError as error:  # an array of text or of objects
        raise InvalidTypeError(f"data: {what} makes no tensors: {error}") from error
    if not inputs.ndim or inputs.shape[:1] != targets.shape[:1]:
        raise InvalidValueError(
            f"data: {what} has inputs of shape {tuple(inputs.shape)} and targets of shape {tuple(targets.shape)}; "
            "wanted as many of one as of the other"
        )
    return TensorDataset(inputs, targets)
