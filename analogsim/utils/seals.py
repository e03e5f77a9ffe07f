"""Digests kept in what they are of: a bit that flipped in a file since it was written is noticed before it is used.

Plain values for JSON carry theirs as one more entry, text in lines as a comment at its end. What was written before
there were digests has none, and is taken as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "sha256"
"""The entry of a mapping that holds its digest."""

CHANGED = "changed by hand (then take out its last line, the digest), or damaged"
"""What to say of text that is not as it was written."""

_LINE = "# sha256 of what stands above: "


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values, as JSON holds them, and the digest of them."""
    return {**content, SEAL: _digest_of(content)}


def unsealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The values that `sealed` was given; those without a digest are taken as they are.

    Raises:
        ValueError: they are others than those that were written.
    """
    plain = dict(content)
    seal = plain.pop(SEAL, None)
    if SEAL in content and seal != _digest_of(plain):
        raise ValueError(
            f"what it holds is not what was written: damaged, or changed by hand (if so, take out its {SEAL!r} entry)"
        )
    return plain


def _digest_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def seal_text(text: str) -> str:
    """Text in lines, and the digest of it as one more line, a comment of TOML."""
    return f"{text}{_LINE}{_digest_of_text(text)}\n"


def is_as_written(text: str) -> bool:
    """Whether text is what `seal_text` was given; also where it bears no digest."""
    content, mark, seal = text.rpartition(_LINE)
    return not mark or seal.strip() == _digest_of_text(content)


def _digest_of_text(text: str) -> str:
    return hashlib.sha256(text.replace("\r\n", "\n").encode()).hexdigest()  # some editors and systems write other ends
