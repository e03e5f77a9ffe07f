"""Reading one configuration dataclass from plain values: types, bounds, choices, and what to say of a wrong one."""

from __future__ import annotations

import abc
import difflib
import math
import operator
import tomllib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Any, Literal, Self, Union

from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.utils.checks import is_finite
from analogsim.utils.text import in_short
from analogsim.utils.times import label

NONE = "none"
BOUNDS = {
    "ge": (">=", operator.ge),
    "gt": (">", operator.gt),
    "le": ("<=", operator.le),
    "lt": ("<", operator.lt),
}


class Table(abc.ABC):
    """The type of an option that is a table of its own making: it reads itself from plain values, and writes itself."""

    @classmethod
    @abc.abstractmethod
    def from_plain(cls, value: Mapping[str, Any]) -> Self:
        """Read it; a ValueError says what is wrong, starting with the dotted name below this option."""

    @abc.abstractmethod
    def to_plain(self) -> dict[str, Any]:
        """The nested dict that `from_plain` reads as an equal one."""


@dataclass(frozen=True)
class Reader:
    """Reads values from one source; `names` are all dotted options there, to guess what a wrong one meant."""

    source: str
    names: tuple[str, ...]

    def build(self, cls: Any, mapping: object, prefix: str) -> Any:
        """The dataclass `cls` from a mapping of its options."""
        if not isinstance(mapping, Mapping):
            raise self.wrong(prefix.rstrip("."), mapping, "a table of options")
        hints = typing.get_type_hints(cls)
        parts = {part.name: part for part in fields(cls)}
        for key in mapping:
            if key not in parts:
                raise self.unknown(f"{prefix}{key}", [prefix + name for name in parts])
        values = {}
        for name, part in parts.items():
            if name in mapping:
                values[name] = self.checked(part, hints[name], mapping[name], prefix + name)
            elif default_of(part) is MISSING:
                raise InvalidValueError(f"{self.source}: {prefix}{name} is missing; wanted {type_name(hints[name])}")
        try:
            return cls(**values)
        except ValueError as error:  # from its __post_init__, which does not know where it is read from
            where = prefix[:-1] + ": " if prefix else ""
            raise InvalidValueError(f"{self.source}: {where}{error}") from error

    def checked(self, part: Field[Any], hint: Any, value: Any, name: str) -> Any:
        """The value of one option, within its bounds and choices."""
        result = self.read(hint, _as_times(value) if part.metadata.get("time") else value, name)
        choices = part.metadata.get("choices")
        for item in result if isinstance(result, tuple) else (result,):
            for bound, (sign, holds) in BOUNDS.items():
                limit = part.metadata.get(bound)
                if limit is not None and isinstance(item, (int, float)) and not holds(item, limit):
                    share = limit == 1 and bound in ("le", "lt") and 1 < item <= 100
                    raise self.wrong(name, item, f"a value {sign} {limit}", f"{item / 100:g}" if share else None)
            if choices and item is not None and item not in choices:
                raise self.wrong(name, item, f"one of {', '.join(map(repr, choices))}")
        return result

    def read(self, hint: Any, value: Any, name: str) -> Any:
        """A value of the type `hint`, which may be a union."""
        kinds = members_of(hint)
        if types.NoneType in kinds:
            if value is None or value == NONE:
                return None
            kinds.remove(types.NoneType)
        if len(kinds) == 1:
            return self.read_one(kinds[0], value, name)
        # the exact type first, so that 3 stays an int in `float | int`
        for kind in sorted(kinds, key=lambda kind: kind is not type(value)):
            try:
                return self.read_one(kind, value, name)
            except ValueError:
                continue
        raise self.wrong(name, value, type_name(hint))

    def read_one(self, kind: Any, value: Any, name: str) -> Any:
        """A value of a type that is no union."""
        if is_table(kind):
            return self._read_table(kind, value, name)
        if is_dataclass(kind):
            return self.build(kind, value, f"{name}.")
        if typing.get_origin(kind) is tuple:
            return self._read_tuple(kind, value, name)
        if kind is float:
            return self._read_float(value, name)
        if typing.get_origin(kind) is Literal:
            fits = (type(value), value) in [(type(allowed), allowed) for allowed in typing.get_args(kind)]
        elif kind in (bool, int, str):
            fits = type(value) is kind  # not isinstance: True would pass for an int
        else:
            raise InvalidTypeError(
                f"{name}: an option cannot be of type {type_name(kind)}; see analogsim.recipes.config.toml"
            )
        if not fits:
            raise self.wrong(name, value, type_name(kind))
        return value

    def _read_table(self, kind: type[Table], value: Any, name: str) -> Table:
        if isinstance(value, kind):
            return value
        if not isinstance(value, Mapping):
            raise self.wrong(name, value, "a table")
        try:
            return kind.from_plain(value)
        except ValueError as error:
            raise InvalidValueError(f"{self.source}: {name}.{error}") from error

    def _read_tuple(self, kind: Any, value: Any, name: str) -> tuple[Any, ...]:
        inner = typing.get_args(kind)
        if isinstance(value, (list, tuple)):
            each = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
            if len(each) == len(value):
                numbered = enumerate(zip(each, value, strict=True))
                return tuple(self.read(sub, item, f"{name}[{i}]") for i, (sub, item) in numbered)
        raise self.wrong(name, value, type_name(kind))

    def _read_float(self, value: Any, name: str) -> float:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise self.wrong(name, value, type_name(float))
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not abs(number) < math.inf:
            raise self.wrong(name, value, "a finite number")
        return number

    def override(self, part: Field[Any], hint: Any, text: str, name: str) -> Any:
        """The value of one option from text: TOML, else a bare string, or several with commas between them."""
        errors = []
        listed = any(typing.get_origin(kind) is tuple for kind in members_of(hint))
        # Shells take the quotes out of ["1s", "1h"] (those of Unix where none stand around it, and older PowerShells).
        items = text.strip().removeprefix("[").removesuffix("]") if text.strip()[-1:] == "]" else text
        bare = listed and not set(items) & set("[]\"'")
        several = [[self.plain(item.strip()) for item in items.split(",")]] if bare else []
        for candidate in (self.plain(text), text, *several):
            try:
                return self.checked(part, hint, candidate, name)
            except ValueError as error:
                errors.append(error)
        raise errors[0]

    def plain(self, text: str) -> Any:
        """A TOML value from text, else the text itself."""
        try:
            parsed = tomllib.loads(f"value = {text}")
        except tomllib.TOMLDecodeError:
            return text
        return parsed["value"] if len(parsed) == 1 else text  # more: a line break smuggled in a second key

    def wrong(self, name: str, value: object, wanted: str, meant: str | None = None) -> ValueError:
        """The error for a value that is not what is wanted, with what was meant if that can be guessed."""
        guess = "" if meant is None else f"; did you mean {meant}?"
        return InvalidValueError(
            f"{self.source}: {name}: wanted {wanted}, got {in_short(value)} ({type(value).__name__}){guess}"
        )

    def unknown(self, name: str, here: Iterable[str]) -> ValueError:
        """The error for an option that is not among those `here`, with the nearest one."""
        near = difflib.get_close_matches(name, [*here, *self.names], n=1, cutoff=0.7)
        # `epochs` for `train.epochs`: the right option in the wrong place
        near += [other for other in self.names if other.rpartition(".")[2] == name.rpartition(".")[2]]
        guess = f"did you mean {near[0]!r}? " if near else ""
        return InvalidValueError(f"{self.source}: no option {name!r}; {guess}known here: {', '.join(here)}")


def _as_times(value: Any) -> Any:
    """Numbers of seconds as the text of a time, also in a list; anything else as it is."""
    if isinstance(value, (list, tuple)):
        return [_as_times(item) for item in value]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return label(value) if number and is_finite(value) else value


def every_option(cls: Any, prefix: str = "") -> Iterator[tuple[str, Field[Any], Any]]:
    """Every option below `cls`: dotted name, field and type; sections are entered, not listed."""
    hints = typing.get_type_hints(cls)
    for part in fields(cls):
        sections = [member for member in members_of(hints[part.name]) if is_dataclass(member) and not is_table(member)]
        if sections:
            yield from every_option(sections[0], f"{prefix}{part.name}.")
        else:
            yield prefix + part.name, part, hints[part.name]


def is_table(kind: Any) -> bool:
    """Whether an option of this type reads itself, see `Table`."""
    return isinstance(kind, type) and issubclass(kind, Table)


def members_of(hint: Any) -> list[Any]:
    """The types of a union, or the one type."""
    return list(typing.get_args(hint)) if typing.get_origin(hint) in (Union, types.UnionType) else [hint]


def default_of(part: Field[Any]) -> Any:
    """The value where nothing is given; MISSING where something must be."""
    return part.default if part.default_factory is MISSING else part.default_factory()


def type_name(hint: Any) -> str:
    """A type as a person writes it: ``list[str, ...]``, ``int | none``."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " | ".join(map(type_name, inner))
    if origin is Literal:
        return " | ".join(map(repr, inner))
    if origin is tuple:
        return f"list[{', '.join(map(type_name, inner))}]"
    named = {types.NoneType: NONE, Ellipsis: "..."}
    return named.get(hint) or str(getattr(hint, "__name__", hint))
