"""Plain text: tables, names with parameters such as ``gaussian(std=0.05)``, names nearly written."""

from __future__ import annotations

import ast
import difflib
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from analogsim.errors import InvalidValueError

_CALL = re.compile(r"\s*([A-Za-z][\w-]*)\s*(\(.*\))?\s*", re.DOTALL)


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: int = 1) -> str:
    """Columns in line, separated by two spaces; the columns from number ``right`` on are aligned right."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def join(line: Sequence[str]) -> str:
        cells = (
            text.rjust(width) if column >= right else text.ljust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join([join(lines[0]), "  ".join("-" * width for width in widths), *map(join, lines[1:])])


def in_short(value: object, most: int = 200) -> str:
    """A value as errors show it: what is longer than ``most`` letters, and numbers too long to be written, in short."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits, which Python does not write
        return f"a number of about {int(math.log10(2) * int(value).bit_length()) + 1} digits"  # type: ignore[call-overload]
    except Exception:
        return f"something of type {type(value).__name__}, whose repr fails"
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-most // 4 :]}"


def nearest(name: str, known: Iterable[str], cutoff: float = 0.4) -> str:
    """The end of an error about a name that is not known: ``"; did you mean 'pcm'?"``, or nothing.

    Args:
        name: what was asked for; small and capital letters count as the same.
        known: the names that there are.
        cutoff: how much alike two names must be, from 0 to 1.
    """
    spelled = {word.lower(): word for word in known}
    near = difflib.get_close_matches(name.lower(), list(spelled), n=1, cutoff=cutoff)
    return f"; did you mean {spelled[near[0]]!r}?" if near else ""


def named_call(text: str, what: str, example: str) -> tuple[str, dict[str, Any]]:
    """The name and the parameters of ``"median(n_startup_trials=5)"``.

    Args:
        text: a name, or a name with parameters in parentheses.
        what: what is named so, for error messages.
        example: a parameter with its value, for error messages.

    Raises:
        ValueError: it is written in another way.
    """
    match = _CALL.fullmatch(text)
    if match is None:
        raise InvalidValueError(
            f"{what}: cannot read {text!r}; write a name, or a name with parameters such as ({example})"
        )
    name, arguments = match.groups()
    return name, arguments_of(arguments, text, what, example) if arguments else {}


def arguments_of(text: str, whole: str, what: str, example: str) -> dict[str, Any]:
    """The values of ``(std=0.05, law='constant')``, which stands in `whole`.

    Raises:
        ValueError: it cannot be read, a value has no name or a name two values, or a value is not a plain one.
    """
    try:
        call = ast.parse(f"_{text}", mode="eval").body
    except (SyntaxError, ValueError):
        raise InvalidValueError(f"{what}: cannot read the parameters {text} in {whole!r}; write ({example})") from None
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)) or call.args:
        raise InvalidValueError(f"{what}: parameters in {whole!r} need their names, such as {example}")
    values: dict[str, Any] = {}
    for word in call.keywords:
        if word.arg is None or word.arg in values:
            raise InvalidValueError(f"{what}: name each parameter in {whole!r} once, got {text}")
        try:
            values[word.arg] = ast.literal_eval(word.value)
        except (ValueError, TypeError):
            raise InvalidValueError(
                f"{what}: the value of {word.arg} in {whole!r} must be a number, True, False or text in quotes, got "
                f"{ast.unparse(word.value)}"
            ) from None
    return values
