"""Tags for the characters of a text: which letters were capitals, told from the text in small letters.

analogsim train --model lstm-tagger --data analogsim.recipes.tasks.tagging:capitals --folder tiny-shakespeare.txt
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import TensorDataset

from analogsim.errors import InvalidValueError

CONTEXT = 64
_PARTS = {"train": (0, 18), "validation": (18, 19), "test": (19, 20)}  # from, to, in twentieths of the text


def capitals(folder: str | None = None) -> dict[str, Any]:
    """Windows of 64 characters in small letters, and for each letter whether it was a capital; all else is not judged.

    The first 90 % of the text are the train part, the next 5 % validation, the last 5 % test.

    Args:
        folder: the text file, UTF-8 (``data.folder``).

    Raises:
        ValueError: no file is named, or its text is too short.
        FileNotFoundError: there is none.
    """
    if folder is None:
        raise InvalidValueError("capitals: name a text file with --folder")
    text = Path(folder).read_text(encoding="utf-8")
    small = [letter.lower()[:1] for letter in text]
    if len(small) < 20 * CONTEXT:
        raise InvalidValueError(f"capitals: {folder} has {len(small)} characters; give {20 * CONTEXT} or more")
    numbers = {letter: number for number, letter in enumerate(sorted(set(small)))}
    inputs = torch.tensor([numbers[letter] for letter in small])
    targets = torch.tensor([int(letter.isupper()) if letter.isalpha() else -100 for letter in text])
    parts: dict[str, Any] = {"task": "classification"}
    for part, (first, last) in _PARTS.items():
        begin = len(small) * first // 20
        end = begin + (len(small) * last // 20 - begin) // CONTEXT * CONTEXT
        parts[part] = TensorDataset(*(values[begin:end].view(-1, CONTEXT) for values in (inputs, targets)))
    return {**parts, "facts": {"vocabulary": len(numbers), "class_names": ("small", "capital"), "classes": 2}}
