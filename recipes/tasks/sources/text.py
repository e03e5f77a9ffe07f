"""Text as characters, ``text:FILE``: the next one is to be told from those before it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from analogsim.errors import InvalidValueError
from analogsim.recipes.tasks.sources.options import check_whole, existing, path_and_options
from analogsim.recipes.tasks.sources.parts import DataWarning, Parts

_PARTS = (("train", 0, 18), ("validation", 18, 19), ("test", 19, 20))  # from, to, in twentieths of the text


def read(path: str) -> Parts:
    """Windows of a text: inputs are the numbers of ``context`` characters, targets those of the characters after each.

    The vocabulary is all characters of the file in the order of their code points. The first 90 % of the text are the
    train part, the next 5 % validation, the last 5 % test; no window crosses from one to another. Windows of
    validation and test follow one another, so that each character is asked for once; those of the train part begin
    every ``stride`` characters, in an order that the loader draws. The last characters of a part, fewer than a window,
    are left out. Ends of lines are one character, whatever the system that wrote them.

    Args:
        path: the file, with options in parentheses if any: ``context=64`` characters; ``stride``, default the context;
            ``encoding="utf-8"``.

    Raises:
        ValueError: the text is too short, not of that encoding, or no text.
        FileNotFoundError: there is no such file.

    Warns:
        DataWarning: characters that the train part lacks.
    """
    place, options = path_and_options(path, "text", _read)
    return _read(place, **options)


def _read(place: Path, *, context: Any = 64, stride: Any = None, encoding: Any = "utf-8") -> Parts:
    check_whole("text", "context", context, 1)
    stride = context if stride is None else check_whole("text", "stride", stride, 1)
    text = _text(existing(place, "text", folder=False), encoding)
    characters = "".join(sorted(set(text)))
    parts = {part: text[len(text) * first // 20 : len(text) * last // 20] for part, first, last in _PARTS}
    shortest = min(map(len, parts.values()))
    if shortest <= context:
        raise InvalidValueError(
            f"text:{place}: has {len(text)} characters, too few: a part has {shortest}, and a window of "
            f"context={context} takes {context + 1}; give {20 * (context + 1)} or more, or a smaller context"
        )
    if len(characters) < 2:
        raise InvalidValueError(f"text:{place}: has one character only, {characters!r}; there is nothing to tell")
    unseen = sorted(set(characters) - set(parts["train"]))
    if unseen:
        shown = "".join(unseen[:20])
        warnings.warn(
            f"text:{place}: {len(unseen)} characters are in validation or test only, so that they cannot be learned: "
            f"{shown!r}",
            DataWarning,
            stacklevel=3,
        )
    number = {character: at for at, character in enumerate(characters)}
    sets = {
        part: _windows(torch.tensor([number[one] for one in piece]), context, stride if part == "train" else context)
        for part, piece in parts.items()
    }
    facts = {
        "shape": (context,),
        "vocabulary": len(characters),
        "classes": len(characters),
        "outputs": len(characters),
        "characters": characters,
        "context": context,
        "scaled": True,
    }
    return Parts(sets["train"], sets["validation"], sets["test"], "language-modelling", facts)


def _text(place: Path, encoding: str) -> str:
    try:
        # A mark of the byte order at the head is none of the text.
        text = place.read_text(encoding="utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        raise InvalidValueError(
            f"text:{place}: is not {encoding} at byte {error.start}; say the right encoding, such as "
            "text:FILE(encoding='latin-1'), or convert it"
        ) from error
    except (LookupError, TypeError) as error:
        raise InvalidValueError(
            f"text: encoding must be one that Python knows, such as 'utf-8', got {encoding!r}"
        ) from error
    if "\0" in text:
        raise InvalidValueError(
            f"text:{place}: has bytes of zero, so it is no text in {encoding}; UTF-16? say encoding='utf-16'"
        )
    return text


def _windows(numbers: Tensor, context: int, stride: int) -> TensorDataset:
    """Views of the text, so that windows that overlap take no memory."""
    windows = numbers.unfold(0, context + 1, stride)
    return TensorDataset(windows[:, :-1], windows[:, 1:])
