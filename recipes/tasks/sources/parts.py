"""What every source of data gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset


class DataWarning(UserWarning):
    """Data were read in a way that whoever gave them may not expect: files left out, labels renumbered, sound cut.

    Cause: the files are not all as the largest part of them.
    Cure: the message says how they were read; name the reading that is meant (docs/data.md), or leave these files out.
    """


@dataclass(frozen=True)
class Parts:
    """Data as they were found: samples ``(input, target)``, before shares are taken and inputs are standardised.

    Attributes:
        train: what the network learns from.
        validation: to choose between runs; None: a share of `train` is to be taken.
        test: for the reported number only; None: a share of `train` is to be taken.
        task: the name of the task that the targets are for.
        facts: what factories of networks may ask for: ``shape`` of one input, ``classes``, ``class_names``, ...;
            ``scaled`` is True where inputs are not to be standardised.
        labels: the class of each sample of `train`, int64 ``(N,)``, for shares that hold as much of every class; None
            where there are no classes.
    """

    train: Dataset[Any]
    validation: Dataset[Any] | None
    test: Dataset[Any] | None
    task: str
    facts: Mapping[str, Any]
    labels: Tensor | None = None


def first_few(values: Sequence[object], count: int = 3) -> str:
    """``"a, b, c and 4 more"``."""
    shown = ", ".join(map(str, values[:count]))
    return shown if len(values) <= count else f"{shown} and {len(values) - count} more"


def class_order(names: Sequence[str], order: str = "numbers") -> list[str]:
    """Names of classes in their order: as text, and as numbers where all are whole ones (``order="numbers"``)."""
    if order == "numbers" and all(is_whole(name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def is_whole(name: str) -> bool:
    """Whether a name is a whole number as one writes it: ``"7"``, ``"007"``, ``"-1"``."""
    digits = name.removeprefix("-")
    return digits.isascii() and digits.isdigit()
