"""Typed configuration: nested frozen dataclasses, read from TOML, changed by the command line, written back.

A recipe describes its options once, as dataclass fields::

    @dataclass(frozen=True)
    class Train:
        epochs: int = option(10, "passes over the training data", ge=1)
        lr: float = option(1e-3, "learning rate", gt=0)

    @dataclass(frozen=True)
    class Config:
        train: Train = section(Train, "how the weights are learned")

and gets ``load_toml(Config, "run.toml", ["train.epochs=5"])``, ``dump_toml`` and the text of ``--help``.

An option is a ``bool``, ``int``, ``float``, ``str``, ``Literal``, a tuple of these (a list in TOML), or a
union of them. TOML has no null: where an option allows ``None``, the string ``"none"`` means ``None``.
"""

from __future__ import annotations

import copy
import difflib
import json
import math
import operator
import os
import tomllib
import types
import typing
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

T = TypeVar("T")

_NONE = "none"
_BOUNDS = {
    "ge": (">=", operator.ge),
    "gt": (">", operator.gt),
    "le": ("<=", operator.le),
    "lt": ("<", operator.lt),
}


def option(
    default: Any,
    help: str,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: Sequence[Any] | None = None,
    unit: str | None = None,
) -> Any:
    """Declare one option of a configuration dataclass.

    Args:
        default: Its value where nothing is given; an immutable one.
        help: One sentence for ``--help``.
        ge: Smallest value allowed; of a tuple, of each element (so for the next four).
        gt: Value it must lie above.
        le: Largest value allowed.
        lt: Value it must lie below.
        choices: The only values allowed.
        unit: Unit of the number, for ``--help``.
    """
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    given: dict[str, Any] = {name: bound for name, bound in bounds.items() if bound is not None}
    return field(default=default, metadata={**given, "help": help, "choices": choices, "unit": unit})


def section(cls: Callable[[], Any], help: str = "") -> Any:
    """Declare a nested configuration dataclass, whose defaults are those of its own options."""
    return field(default_factory=cls, metadata={"help": help})


def from_mapping(cls: type[T], mapping: Mapping[str, Any], source: str = "configuration") -> T:
    """Build `cls` from a nested mapping; options that are not in it keep their defaults.

    Args:
        cls: The configuration dataclass.
        mapping: Option names to values, as ``tomllib`` gives them.
        source: Where the mapping came from, for error messages.

    Raises:
        ValueError: An unknown option, a wrong type or a value out of range: which option, and what is wanted.
    """
    return typing.cast(T, _Reader(source, tuple(name for name, _, _ in _options(cls))).build(cls, mapping, ""))


def to_mapping(config: Any) -> dict[str, Any]:
    """Give the nested plain dict of `config`, with lists for tuples, as TOML can hold it.

    ``None`` is left out, save where the default is something else: leaving it out would bring the default
    back, so there it is ``"none"``.
    """
    pairs = ((part, getattr(config, part.name)) for part in fields(config))
    return {part.name: _plain(value) for part, value in pairs if value is not None or _default(part) is not None}


def flatten(config: Any) -> dict[str, Any]:
    """Give every option of `config` under its dotted name, ``None`` and tuples as they are."""
    flat: dict[str, Any] = {}
    for part in fields(config):
        value = getattr(config, part.name)
        if is_dataclass(value):
            flat |= {f"{part.name}.{name}": inner for name, inner in flatten(value).items()}
        else:
            flat[part.name] = value
    return flat


def load_toml(cls: type[T], path: str | os.PathLike[str] | None, overrides: Sequence[str] = ()) -> T:
    """Read `cls` from a TOML file (``None``: all defaults), then apply overrides like ``"train.epochs=5"``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not TOML (with the line), or holds what `cls` refuses.
    """
    source = "defaults" if path is None else os.fspath(path)
    mapping: dict[str, Any] = {}
    if path is not None:
        try:
            # utf-8-sig: some editors put a byte-order mark in front, which tomllib refuses
            mapping = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"no configuration file {source!r} (in {Path.cwd()}); give the path of a TOML file"
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{source}: not a TOML file in UTF-8: {error}") from error
    return from_mapping(cls, apply_overrides(mapping, overrides, cls), source)


def apply_overrides(mapping: Mapping[str, Any], overrides: Sequence[str], cls: type[Any]) -> dict[str, Any]:
    """Return `mapping` with overrides of the form ``name=value`` applied, later ones winning.

    The right-hand side is a TOML value (``5``, ``true``, ``["1s", "1d"]``). Where it is not TOML, or not what
    the option takes, it is a bare string (``device=pcm``). ``none`` is ``None`` where the option allows it.

    Raises:
        ValueError: No ``=``, an unknown option, or a value it does not take.
    """
    known = {name: (part, hint) for name, part, hint in _options(cls)}
    result = copy.deepcopy(dict(mapping))
    for override in overrides:
        name, equals, text = (part.strip() for part in override.partition("="))
        reader = _Reader(f"override {override!r}", tuple(known))
        if not equals or not name:
            raise ValueError(f"{reader.source}: wanted name=value, for example {next(iter(known), 'name')}=...")
        if name not in known:
            inside = [other for other in known if other.startswith(f"{name}.")]
            if inside:
                raise ValueError(f"{reader.source}: {name} is a section; set one of {', '.join(inside)}")
            raise reader.unknown(name, known)
        node = result
        *parents, leaf = name.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise reader.wrong(parent, node, "a table of options")
        node[leaf] = reader.override(*known[name], text, name)
    return result


def dump_toml(config: Any, path: str | os.PathLike[str]) -> None:
    """Write `config` as TOML that ``load_toml`` reads back as an equal one; the file appears whole or not.

    Raises:
        ValueError: `config` holds a value that would not be read back (such as an infinity).
    """
    target = Path(path)
    text = "\n".join(_lines(to_mapping(config), ())).strip() + "\n"
    again = from_mapping(type(config), tomllib.loads(text), f"{target} (not written)")
    if again != config:
        raise ValueError(f"{target}: would be read back as {again!r}, not {config!r}; use from_mapping to build it")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        draft.write_text(text, encoding="utf-8", newline="\n")
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def describe(cls: type[Any]) -> str:
    """Describe every option of `cls` in one line: name, type, help, default, unit, range or choices."""
    rows = []
    for name, part, hint in _options(cls):
        about, default = part.metadata, _default(part)
        facts = ["required" if default is MISSING else f"default {_toml(_plain(default))}"]
        facts += [about["unit"]] if about.get("unit") else []
        facts += [f"{sign} {about[bound]}" for bound, (sign, _) in _BOUNDS.items() if bound in about]
        facts += ["one of " + ", ".join(map(str, about["choices"]))] if about.get("choices") else []
        rows.append((name, _type_name(hint), f"{about.get('help', '')} ({'; '.join(facts)})".lstrip()))
    wide = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    return "\n".join(f"{name:<{wide[0]}}  {kind:<{wide[1]}}  {text}" for name, kind, text in rows)


@dataclass(frozen=True)
class _Reader:
    """Reads values from one source; `names` are all dotted options there, to guess what a wrong one meant."""

    source: str
    names: tuple[str, ...]

    def build(self, cls: Any, mapping: object, prefix: str) -> Any:
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
            elif _default(part) is MISSING:
                raise ValueError(f"{self.source}: {prefix}{name} is missing; wanted {_type_name(hints[name])}")
        try:
            return cls(**values)
        except ValueError as error:  # from its __post_init__, which does not know where it is read from
            where = prefix[:-1] + ": " if prefix else ""
            raise ValueError(f"{self.source}: {where}{error}") from error

    def checked(self, part: Field[Any], hint: Any, value: Any, name: str) -> Any:
        result = self.read(hint, value, name)
        choices = part.metadata.get("choices")
        for item in result if isinstance(result, tuple) else (result,):
            for bound, (sign, holds) in _BOUNDS.items():
                limit = part.metadata.get(bound)
                if limit is not None and isinstance(item, (int, float)) and not holds(item, limit):
                    raise self.wrong(name, item, f"a value {sign} {limit}")
            if choices and item is not None and item not in choices:
                raise self.wrong(name, item, f"one of {', '.join(map(repr, choices))}")
        return result

    def read(self, hint: Any, value: Any, name: str) -> Any:
        members = _members(hint)
        if types.NoneType in members:
            if value is None or value == _NONE:
                return None
            members.remove(types.NoneType)
        if len(members) == 1:
            return self.read_one(members[0], value, name)
        # the exact type first, so that 3 stays an int in `float | int`
        for member in sorted(members, key=lambda member: member is not type(value)):
            try:
                return self.read_one(member, value, name)
            except ValueError:
                continue
        raise self.wrong(name, value, _type_name(hint))

    def read_one(self, kind: Any, value: Any, name: str) -> Any:
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        if is_dataclass(kind):
            return self.build(kind, value, f"{name}.")
        if origin is tuple:
            if isinstance(value, (list, tuple)):
                each = inner[:1] * len(value) if inner[-1] is Ellipsis else inner
                if len(each) == len(value):
                    numbered = enumerate(zip(each, value, strict=True))
                    return tuple(self.read(sub, item, f"{name}[{i}]") for i, (sub, item) in numbered)
        elif origin is Literal:
            if (type(value), value) in [(type(allowed), allowed) for allowed in inner]:
                return value
        elif kind is float:
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                if not abs(value) < math.inf:
                    raise self.wrong(name, value, "a finite number")
                return float(value)
        elif kind not in (bool, int, str):
            raise TypeError(f"{name}: an option cannot be of type {_type_name(kind)}; see {__name__}")
        elif type(value) is kind:  # not isinstance: True would pass for an int
            return value
        raise self.wrong(name, value, _type_name(kind))

    def override(self, part: Field[Any], hint: Any, text: str, name: str) -> Any:
        candidates: list[Any] = [text]
        try:
            parsed = tomllib.loads(f"value = {text}")
            if len(parsed) == 1:  # more: a line break in the text smuggled in a second key
                candidates.insert(0, parsed["value"])
        except tomllib.TOMLDecodeError:
            pass
        errors = []
        for candidate in candidates:
            try:
                return self.checked(part, hint, candidate, name)
            except ValueError as error:
                errors.append(error)
        raise errors[0]

    def wrong(self, name: str, value: object, wanted: str) -> ValueError:
        return ValueError(f"{self.source}: {name}: wanted {wanted}, got {value!r} ({type(value).__name__})")

    def unknown(self, name: str, here: Iterable[str]) -> ValueError:
        near = difflib.get_close_matches(name, [*here, *self.names], n=1, cutoff=0.7)
        # `epochs` for `train.epochs`: the right option in the wrong place
        near += [other for other in self.names if other.rpartition(".")[2] == name.rpartition(".")[2]]
        guess = f"did you mean {near[0]!r}? " if near else ""
        return ValueError(f"{self.source}: no option {name!r}; {guess}known here: {', '.join(here)}")


def _options(cls: Any, prefix: str = "") -> Iterator[tuple[str, Field[Any], Any]]:
    """Every option below `cls`: dotted name, field and type; sections are entered, not listed."""
    hints = typing.get_type_hints(cls)
    for part in fields(cls):
        sections = [member for member in _members(hints[part.name]) if is_dataclass(member)]
        if sections:
            yield from _options(sections[0], f"{prefix}{part.name}.")
        else:
            yield prefix + part.name, part, hints[part.name]


def _members(hint: Any) -> list[Any]:
    return list(typing.get_args(hint)) if typing.get_origin(hint) in (Union, types.UnionType) else [hint]


def _default(part: Field[Any]) -> Any:
    return part.default if part.default_factory is MISSING else part.default_factory()


def _type_name(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " | ".join(map(_type_name, inner))
    if origin is Literal:
        return " | ".join(map(repr, inner))
    if origin is tuple:
        return f"list[{', '.join(map(_type_name, inner))}]"
    named = {types.NoneType: _NONE, Ellipsis: "..."}
    return named.get(hint) or str(getattr(hint, "__name__", hint))


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return _NONE if value is None else value


def _lines(mapping: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    if path:
        yield f"\n[{'.'.join(path)}]"
    yield from (f"{key} = {_toml(item)}" for key, item in mapping.items() if not isinstance(item, dict))
    for key, item in mapping.items():  # TOML: the values of a table come before its sub-tables
        if isinstance(item, dict):
            yield from _lines(item, (*path, key))


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but JSON allows a bare DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    return "[" + ", ".join(map(_toml, value)) + "]" if isinstance(value, list) else repr(value)
