"""Digests of values: the same contents, the same digest, in any process; other contents, another one.

Some are kept in what they are of, so that a bit that flipped in a file is noticed before it is used: plain values for
JSON carry theirs as one more entry (`sealed`), text in lines as a comment at its end (`seal_text`). What was written
before there were digests has none, and is taken as it is.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analogsim.errors import InvalidValueError

SEAL = "sha256"
"""The entry of a mapping that holds its digest."""

CHANGED = "changed by hand (then take out its last line, the digest), or damaged"
"""What to say of text that is not as it was written."""

_LINE = "# sha256 of what stands above: "

_PLAIN = (type(None), bool, int, float, complex, str, bytes, Enum, torch.dtype, torch.device)


def digest(value: object) -> str:
    """SHA-256 of a value's contents, as 64 hexadecimal digits.

    Tensors and arrays count by type, shape and every bit; containers by what they hold (mappings and sets in no order);
    functions by their name, their code, their defaults and what they hold on to, but not by the global names they read,
    and those of this package by their name; classes by their name; other objects by what they would be pickled as. What
    cannot be, such as a lock, counts by its type.

    Args:
        value: anything; it is not changed.
    """
    return _Digests().of(value).hex()


class _Digests:
    """Digests of the parts of one value, each made once."""

    def __init__(self) -> None:
        # What is looked at is held on to, so that no address is used twice; None where it is not through yet.
        self._known: dict[int, tuple[object, bytes | None]] = {}

    def of(self, value: object) -> bytes:
        if isinstance(value, _PLAIN):
            return _hash(type(value).__qualname__, repr(value))
        if id(value) in self._known:
            return self._known[id(value)][1] or _hash("what it is part of")
        self._known[id(value)] = value, None
        found = self._contents(value)
        self._known[id(value)] = value, found
        return found

    def _contents(self, value: Any) -> bytes:
        for kind, read in _READ:
            if isinstance(value, kind):
                return read(self, value)
        return self._object(value)

    def _all(self, kind: object, values: Iterable[object]) -> bytes:
        return _hash(f"{kind}", *(self.of(each) for each in values))

    def _tensor(self, value: Tensor) -> bytes:
        plain = value.detach()
        plain = plain.dequantize() if plain.is_quantized else plain
        plain = plain.to_dense() if plain.layout is not torch.strided else plain
        flat = plain.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        content: Any = flat.view(torch.uint8).numpy() if flat.numel() else b""
        return _hash("tensor", str(value.dtype), str(tuple(value.shape)), memoryview(content))

    def _array(self, value: np.ndarray[Any, Any] | np.generic) -> bytes:
        array = np.ascontiguousarray(value)
        if array.dtype.hasobject:
            return self._all("array", (str(array.dtype), array.shape, array.tolist()))
        return _hash("array", str(array.dtype), str(np.shape(value)), array.tobytes())

    def _mapping(self, value: Mapping[Any, Any]) -> bytes:
        entries = sorted(self.of(key) + self.of(entry) for key, entry in value.items())
        return _hash(_name(type(value)), *entries)

    def _set(self, value: Iterable[object]) -> bytes:
        return _hash("set", *sorted(self.of(each) for each in value))

    def _sequence(self, value: Iterable[object]) -> bytes:
        return self._all(_name(type(value)), value)

    def _named(self, value: Any) -> bytes:
        return _hash("name", _name(value))

    def _function(self, value: FunctionType) -> bytes:
        if value.__module__.partition(".")[0] == "analogsim":
            return self._named(value)
        cells = [self._cell(cell) for cell in value.__closure__ or ()]
        rest = (value.__code__, value.__defaults__, value.__kwdefaults__, cells)
        return self._all(f"function {_name(value)}", rest)

    @staticmethod
    def _cell(cell: Any) -> object:
        try:
            return cell.cell_contents
        except ValueError:  # not filled yet
            return None

    def _code(self, value: CodeType) -> bytes:
        return self._all("code", (value.co_code, value.co_names, value.co_consts))

    def _method(self, value: MethodType) -> bytes:
        return self._all("method", (value.__func__, value.__self__))

    def _partial(self, value: functools.partial[Any]) -> bytes:
        return self._all("partial", (value.func, value.args, value.keywords))

    def _object(self, value: Any) -> bytes:
        try:
            parts = value.__reduce_ex__(4)
        except Exception:  # whatever the object has to say to that
            return _hash("object", _name(type(value)))
        if isinstance(parts, str):
            return _hash("object", parts)
        listed = [list(part) if isinstance(part, Iterator) else part for part in parts]
        return self._all(f"object {_name(type(value))}", listed)


_READ: tuple[tuple[Any, Callable[[_Digests, Any], bytes]], ...] = (
    (Tensor, _Digests._tensor),
    (np.ndarray | np.generic, _Digests._array),
    (Mapping, _Digests._mapping),
    (set | frozenset, _Digests._set),
    (tuple | list, _Digests._sequence),
    (FunctionType, _Digests._function),
    (MethodType, _Digests._method),
    (type | BuiltinFunctionType | ModuleType, _Digests._named),
    (CodeType, _Digests._code),
    (functools.partial, _Digests._partial),
)


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', getattr(value, '__name__', ''))}"


def _hash(*parts: str | bytes | memoryview) -> bytes:
    whole = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        whole.update(f"{len(content)}:".encode())
        whole.update(content)
    return whole.digest()


def without_addresses(text: str) -> str:
    """A ``repr`` without the places in memory that stand in it, which are others in each process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


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
        raise InvalidValueError(
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
