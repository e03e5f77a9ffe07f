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
import json
import os
import textwrap
import tomllib
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from analogsim.errors import InvalidValueError, MissingFileError
from analogsim.recipes.config.reader import BOUNDS, NONE, Reader, Table, default_of, every_option, is_table, type_name
from analogsim.utils.digests import CHANGED, is_as_written, seal_text
from analogsim.utils.files import write_whole

T = TypeVar("T")


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
    time: bool = False,
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
        time: Whether it is a time, or several, of which a bare number is one in seconds; kept as text, as ``"1h"``.
    """
    bounds = {"ge": ge, "gt": gt, "le": le, "lt": lt}
    given: dict[str, Any] = {name: bound for name, bound in bounds.items() if bound is not None}
    return field(default=default, metadata={**given, "help": help, "choices": choices, "unit": unit, "time": time})


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
    return typing.cast(T, Reader(source, tuple(name for name, _, _ in every_option(cls))).build(cls, mapping, ""))


def to_mapping(config: Any) -> dict[str, Any]:
    """Give the nested plain dict of `config`, with lists for tuples, as TOML can hold it.

    ``None`` is left out, save where the default is something else: leaving it out would bring the default
    back, so there it is ``"none"``.
    """
    pairs = ((part, getattr(config, part.name)) for part in fields(config))
    return {part.name: _plain(value) for part, value in pairs if value is not None or default_of(part) is not None}


def flatten(config: Any) -> dict[str, Any]:
    """Give every option of `config` under its dotted name, ``None`` and tuples as they are."""
    flat: dict[str, Any] = {}
    for part in fields(config):
        value = getattr(config, part.name)
        if is_dataclass(value) and not isinstance(value, Table):
            flat |= {f"{part.name}.{name}": inner for name, inner in flatten(value).items()}
        else:
            flat[part.name] = value
    return flat


def load_toml(cls: type[T], path: str | os.PathLike[str] | None, overrides: Sequence[str] = ()) -> T:
    """Read `cls` from a TOML file (``None``: all defaults), then apply overrides like ``"train.epochs=5"``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not TOML (with the line), or holds what `cls` refuses.

    Warns:
        UserWarning: The file was written by `dump_toml` and is another one now, by hand or by damage.
    """
    return from_mapping(cls, load_mapping(cls, path, overrides), _source(path))


def load_mapping(cls: type[Any], path: str | os.PathLike[str] | None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Only what a TOML file and overrides say, without the defaults of `cls`; raises and warns as `load_toml` does."""
    source = _source(path)
    mapping: dict[str, Any] = {}
    if path is not None:
        try:
            # utf-8-sig: some editors put a byte-order mark in front, which tomllib refuses
            text = Path(path).read_text(encoding="utf-8-sig")
            mapping = tomllib.loads(text)
        except FileNotFoundError as error:
            raise MissingFileError(
                f"no configuration file {source!r} (in {Path.cwd()}); give the path of a TOML file"
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidValueError(f"{source}: not a TOML file in UTF-8: {error}") from error
        except ValueError as error:  # of a path that holds a null byte
            raise InvalidValueError(f"no configuration file {source!r}: {error}") from error
        if not is_as_written(text):
            warnings.warn(f"{source} is not as it was written: {CHANGED}", stacklevel=2)
    return apply_overrides(mapping, overrides, cls)


def _source(path: str | os.PathLike[str] | None) -> str:
    return "defaults" if path is None else os.fspath(path)


def apply_overrides(mapping: Mapping[str, Any], overrides: Sequence[str], cls: type[Any]) -> dict[str, Any]:
    """Return `mapping` with overrides of the form ``name=value`` applied, later ones winning.

    The right-hand side is a TOML value (``5``, ``true``, ``["1s", "1d"]``). Where it is not TOML, or not what
    the option takes, it is a bare string (``device=pcm``), or several with commas between them (``times=1s,1d``).
    ``none`` is ``None`` where the option allows it.

    Raises:
        ValueError: No ``=``, an unknown option, or a value it does not take.
    """
    known = {name: (part, hint) for name, part, hint in every_option(cls)}
    result = copy.deepcopy(dict(mapping))
    for override in overrides:
        name, equals, text = (part.strip() for part in override.partition("="))
        reader = Reader(f"override {override!r}", tuple(known))
        if not equals or not name:
            raise InvalidValueError(f"{reader.source}: wanted name=value, for example {next(iter(known), 'name')}=...")
        table = next((key for key, (_, hint) in known.items() if is_table(hint) and name.startswith(f"{key}.")), None)
        if table is not None:
            part, _ = known[table]
            current = result.get(table, default_of(part))
            result[table] = current.to_plain() if isinstance(current, Table) else current
            _put(result[table], name.removeprefix(f"{table}."), reader.plain(text), reader)
            continue
        if name not in known:
            inside = [other for other in known if other.startswith(f"{name}.")]
            if inside:
                raise InvalidValueError(f"{reader.source}: {name} is a section; set one of {', '.join(inside)}")
            raise reader.unknown(name, known)
        _put(result, name, reader.override(*known[name], text, name), reader)
    return result


def _put(mapping: dict[str, Any], name: str, value: Any, reader: Reader) -> None:
    *parents, leaf = name.split(".")
    for parent in parents:
        mapping = mapping.setdefault(parent, {})
        if not isinstance(mapping, dict):
            raise reader.wrong(parent, mapping, "a table of options")
    mapping[leaf] = value


def dump_toml(config: Any, path: str | os.PathLike[str]) -> None:
    """Write `config` as TOML that ``load_toml`` reads back as an equal one; the file appears whole or not.

    Raises:
        ValueError: `config` holds a value that would not be read back (such as an infinity).
    """
    target = Path(path)
    text = "\n".join(_lines(to_mapping(config), ())).strip() + "\n"
    again = from_mapping(type(config), tomllib.loads(text), f"{target} (not written)")
    if again != config:
        raise InvalidValueError(
            f"{target}: would be read back as {again!r}, not {config!r}; use from_mapping to build it"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, seal_text(text))


def describe(cls: type[Any], width: int | None = None) -> str:
    """Describe every option of `cls`: name, type, help, default, unit, range or choices.

    Args:
        cls: the configuration.
        width: of the terminal; where a line would be longer, what is said of an option stands under its name.
    """
    rows = []
    for name, part, hint in every_option(cls):
        if is_table(hint):
            continue  # has a description of its own
        about, default = part.metadata, default_of(part)
        facts = ["required" if default is MISSING else f"default {_toml(_plain(default))}"]
        facts += [about["unit"]] if about.get("unit") else []
        facts += [f"{sign} {about[bound]}" for bound, (sign, _) in BOUNDS.items() if bound in about]
        facts += ["one of " + ", ".join(map(str, about["choices"]))] if about.get("choices") else []
        rows.append((name, type_name(hint), f"{about.get('help', '')} ({'; '.join(facts)})".lstrip()))
    wide = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    lines = [f"{name:<{wide[0]}}  {kind:<{wide[1]}}  {text}" for name, kind, text in rows]
    if width is None or all(len(line) <= width for line in lines):
        return "\n".join(lines)
    indent = "    "
    told = textwrap.TextWrapper(width, initial_indent=indent, subsequent_indent=indent, break_long_words=False)
    return "\n".join(f"{name}  ({kind})\n{told.fill(text)}" for name, kind, text in rows)


def _plain(value: Any) -> Any:
    if isinstance(value, Table):
        return value.to_plain()
    if is_dataclass(value):
        return to_mapping(value)
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return NONE if value is None else value


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
