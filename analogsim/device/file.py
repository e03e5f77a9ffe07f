"""Device models on disk: a small TOML file that a person can read and change."""

from __future__ import annotations

import contextlib
import json
import os
import tomllib
import warnings
from collections.abc import Collection, Iterable, Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from analogsim.device.model import DeviceModel, Effect
from analogsim.device.registry import available_devices, factory
from analogsim.errors import InvalidTypeError, InvalidValueError, MissingFileError
from analogsim.mapping.mapping import Mapping
from analogsim.utils.checks import check_path
from analogsim.utils.digests import CHANGED, is_as_written, seal_text
from analogsim.utils.files import write_whole
from analogsim.utils.text import nearest

_FORMAT = "analogsim-device-1"


def _kinds(parent: type[Effect] = Effect) -> Iterator[type[Effect]]:
    for kind in parent.__subclasses__():
        yield kind
        yield from _kinds(kind)


def _effect_class(name: str) -> type[Effect]:
    """The class of effects of that name."""
    known = {kind.__name__ for kind in _kinds()}
    if name not in known:  # an installed package may hold it
        for device in available_devices():
            with contextlib.suppress(ImportError):  # told to whoever asks for that device
                factory(device)
        known = {kind.__name__ for kind in _kinds()}
    found = [kind for kind in _kinds() if kind.__name__ == name and not name.startswith("_")]
    if not found:
        public = sorted(word for word in known if not word.startswith("_"))
        raise InvalidValueError(
            f"unknown effect {name!r}{nearest(name, public) or '.'} Known: {', '.join(public)}; import the package "
            "that defines another one first"
        )
    built_in = [kind for kind in found if kind.__module__.startswith("analogsim.")]
    return (built_in or found)[-1]


def _toml(value: Any, where: str) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item, where) for item in value) + "]"
    raise InvalidTypeError(
        f"save_device: {where} cannot be written to a file, only numbers, text, True, False and sequences of them; "
        f"got {value!r}"
    )


def _default(spec: Field[Any]) -> Any:
    return spec.default_factory() if spec.default_factory is not MISSING else spec.default


def _lines(values: Any, specs: Iterable[Field[Any]], always: Collection[str]) -> Iterator[str]:
    """A line with its unit for each field that is not at its default, and for those that are always shown."""
    where = type(values).__name__
    for spec in specs:
        value = getattr(values, spec.name)
        if spec.name not in always and value == _default(spec):
            continue
        unit = "µS" if spec.name in ("g_min", "g_max") else spec.metadata.get("unit", "1")
        comment = "" if unit == "1" else f"  # {unit}"
        yield f"{spec.name} = {_toml(value, f'{where}.{spec.name}')}{comment}"


def _document(device: DeviceModel, name: str) -> str:
    head = [
        f'# a device model; use it with analogsim.convert(model, device="{name}")',
        f"format = {_toml(_FORMAT, 'format')}",
    ]
    # Not what a subclass adds, and not what has tables of its own.
    own = sorted(fields(DeviceModel), key=lambda spec: spec.name != "name")
    own = [spec for spec in own if spec.name not in ("effects", "mapping")]
    parts = [
        head + list(_lines(device, own, ("name", "g_min", "g_max"))),
        ["[mapping]", *_lines(device.mapping, fields(Mapping), ("cells",))],
    ]
    for effect in device.effects:
        title = type(effect).__name__
        every = fields(effect)
        lines = _lines(effect, every, [spec.name for spec in every])
        parts.append(["[[effects]]", f"effect = {_toml(title, 'effect')}", *lines])
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def device_text(device: DeviceModel, name: str = "device.toml") -> str:
    """What `save_device` writes, but for the digest at its end; `read_device` reads it.

    Args:
        device: as there.
        name: of the file, which its first line shows.

    Raises:
        TypeError: a parameter cannot be written.
        ValueError: an effect's class would not be found again by its name.
    """
    for effect in device.effects:
        title = type(effect).__name__
        if _effect_class(title) is not type(effect):
            raise InvalidValueError(
                f"save_device: several classes of effects are named {title!r}; give yours another name"
            )
    return _document(device, name)


def read_device(text: str) -> DeviceModel:
    """The device model of what stands in a device file.

    Raises:
        ValueError, TypeError: see `load_device`.
    """
    return _model(tomllib.loads(text))


def save_device(device: DeviceModel, path: str | os.PathLike[str]) -> None:
    """Write a device model to a TOML file, every number to the last digit.

    Args:
        device: any device model whose effects have parameters of numbers, text and sequences of them.
        path: the file, by custom ``*.toml``; written whole or not at all.

    Raises:
        TypeError: it is no device model, or a parameter cannot be written.
        ValueError: an effect's class would not be found again by its name.
        OSError: the file cannot be written.
    """
    if not isinstance(device, DeviceModel):
        raise InvalidTypeError(
            f"save_device: give a device model, such as analogsim.as_device_model('pcm'), got {device!r}"
        )
    check_path(path, "save_device")
    write_whole(path, seal_text(device_text(device, Path(path).name)))


def _made(kind: type[Any], values: dict[str, Any]) -> Any:
    """An effect or a mapping of what stands in the file."""
    known = [spec.name for spec in fields(kind)]
    for word in values:
        if word not in known:
            raise InvalidValueError(
                f"{kind.__name__} has no parameter {word!r}{nearest(word, known) or '.'} "
                f"It has {', '.join(known) or 'none'}"
            )
    return kind(**{word: _tuples(value) for word, value in values.items()})


def _tuples(value: Any) -> Any:
    """TOML's arrays as tuples: device models are hashable."""
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _model(content: dict[str, Any]) -> DeviceModel:
    given = content.pop("format", None)
    if given != _FORMAT:
        raise InvalidValueError(f"this is no device file, which begins with format = {_FORMAT!r}; got {given!r}")
    effects = content.pop("effects", [])
    if not isinstance(effects, list) or not all(isinstance(entry, dict) for entry in effects):
        raise InvalidValueError("effects must be tables, each under a line [[effects]]")
    chain = []
    for place, entry in enumerate(effects, start=1):
        name = entry.pop("effect", None)
        if not name or not isinstance(name, str):
            raise InvalidValueError(f'effect {place} has no name; give it a line such as effect = "Drift"')
        chain.append(_made(_effect_class(name), entry))
    mapping = content.pop("mapping", None)
    if mapping is not None and not isinstance(mapping, dict):
        raise InvalidValueError(f"mapping must be a table under a line [mapping], got {mapping!r}")
    values = content | {"effects": chain} | ({} if mapping is None else {"mapping": _made(Mapping, mapping)})
    model: DeviceModel = _made(DeviceModel, values)
    return model


def load_device(path: str | os.PathLike[str]) -> DeviceModel:
    """The device model that `save_device` wrote, or a person.

    Warns:
        UserWarning: the digest at its end is not of what stands above it; a person changed it, or a disk did.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no device file; an effect or a parameter is unknown (with the nearest name); a value is not
            allowed.
    """
    shown = check_path(path, "load_device")
    if not Path(shown).is_file():
        raise MissingFileError(f"load_device: no file {shown!r}")
    try:
        text = Path(path).read_text(encoding="utf-8")
        model = read_device(text)
    except (ValueError, TypeError) as error:  # also what is no TOML and no text
        raise InvalidValueError(f"load_device: {shown!r}: {error}") from error
    if not is_as_written(text):
        warnings.warn(
            f"load_device: {shown!r} is not as save_device wrote it: {CHANGED}",
            stacklevel=2,
        )
    return model
