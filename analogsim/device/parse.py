"""What people write for a device, read: names, text, lists, files."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

from analogsim.device.file import load_device
from analogsim.device.model import DeviceModel, Effect
from analogsim.device.registry import DevicePart, factory
from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.mapping.mapping import Mapping
from analogsim.utils.text import arguments_of, nearest

DeviceLike = str | DevicePart | Sequence[str | DevicePart]


# A name, parameters in parentheses if any, and the "+" to the next part or the end.
_PART = re.compile(
    r"""\s*([A-Za-z][\w-]*)\s*(\((?:[^()'"]|'[^']*'|"[^"]*"|\([^()]*\))*\))?\s*(\+|$)""",
)


# Of the same name in parentheses, a parameter of the device comes first: see `_make`.
_MAPPING = tuple(spec.name for spec in fields(Mapping))

Options = dict[str, Any]
"""Fields of `Mapping` that stand in a text."""


def _make(name: str, arguments: dict[str, Any]) -> tuple[DevicePart, Options]:
    """The effect or device model of that name with those parameters, and what else they say of the mapping."""
    make = factory(name)
    known = inspect.signature(make).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    options: Options = {}
    for word in arguments.keys() - known.keys() if not takes_all else ():
        if word not in _MAPPING:
            has = f"It has {', '.join(known)}" if known else "It has none"
            raise InvalidValueError(
                f"device: {name!r} has no parameter {word!r}{nearest(word, (*known, *_MAPPING)) or '.'} {has}, and all "
                f"have those of the mapping: {', '.join(word for word in _MAPPING if word not in known)}"
            )
        options[word] = arguments[word]
    part = make(**{word: value for word, value in arguments.items() if word not in options})
    if not isinstance(part, DevicePart):
        raise InvalidTypeError(f"device: {name!r} must make an Effect or a DeviceModel, it made {part!r}")
    return part, options


def _parse(text: str) -> tuple[list[DevicePart], list[Options]]:
    """The parts of ``"quantization(levels=16)+stuck-at"``, or the device model of a file ``"mine.toml"``."""
    if text.endswith(".toml"):
        return [load_device(text)], []
    parts: list[DevicePart] = []
    options: list[Options] = []
    place, more = 0, "+"
    while more:
        match = _PART.match(text, place)
        if match is None:
            raise InvalidValueError(
                f"device: cannot read {text!r}; write a name, a name with parameters such as 'gaussian(std=0.05)', or "
                "several joined by '+'"
            )
        name, arguments, more = match.groups()
        part, said = _make(name, arguments_of(arguments, text, "device", "std=0.05") if arguments else {})
        parts.append(part)
        options.append(said)
        place = match.end()
    return parts, options


def _together(options: Iterable[Options], name: str) -> Options:
    """What the parts of a chain say of its mapping."""
    joined: Options = {}
    for said in options:
        for word, value in said.items():
            if joined.setdefault(word, value) != value:
                raise InvalidValueError(
                    f"device: the parts of {name!r} lie on the same cells; give {word} once, got {joined[word]!r} and "
                    f"{value!r}"
                )
    return joined


def _join(parts: Sequence[DevicePart], name: str, options: Options) -> DeviceModel:
    """One chain of several parts; the range and the mapping are those of the device models among them.

    Args:
        parts: of the chain.
        name: of what comes out, unless it is one device model as it is.
        options: fields of the mapping that are to be others.
    """
    models = [part for part in parts if isinstance(part, DeviceModel)]
    if len(parts) == 1 and models:
        return models[0].replace(mapping=_changed(models[0].laid, options), name=name) if options else models[0]
    effects = tuple(e for part in parts for e in (part.effects if isinstance(part, DeviceModel) else (part,)))
    if len({(model.g_min, model.g_max, model.mapping) for model in models}) > 1:
        raise InvalidValueError(f"device: the parts of {name!r} have different conductance ranges or mappings")
    if models:
        return models[0].replace(effects=effects, name=name, mapping=_changed(models[0].laid, options))
    usual = DeviceModel(effects, name=name)
    return usual.replace(mapping=_changed(usual.laid, options)) if options else usual


def _changed(mapping: Mapping, options: Options) -> Mapping:
    """A mapping with other fields. The scale of weights without cells is not that of cells, unless it is said."""
    if mapping.cells == "signed" and options.get("cells", "signed") != "signed":
        mapping = replace(mapping, scale=Mapping.scale)
    return replace(mapping, **options)


def _listed(device: Sequence[object]) -> DeviceModel:
    """The chain of a list, in which names and device models may stand among effects."""
    parts: list[DevicePart] = []
    options: list[Options] = []
    for item in device:
        if not isinstance(item, str | DevicePart):
            raise InvalidTypeError(f"device: a list holds effects, device models or names, got {item!r}")
        found, said = _parse(item) if isinstance(item, str) else ([item], [])
        parts += found
        options += said
    name = "+".join(part.name if isinstance(part, DeviceModel) else type(part).__name__ for part in parts)
    joined = _together(options, name)
    return _join(parts, _with_options(name, joined), joined)


def _with_options(name: str, options: Options) -> str:
    """The name of a device with fields of its mapping, as text says them: those that it names already are replaced."""
    for word in options:
        name = re.sub(rf"(?<=[(,]){word}=[^,()]*(,|(?=\)))", "", name)
    name = name.replace(",)", ")").replace("()", "")
    told = ",".join(f"{word}={value!r}" for word, value in options.items())
    if not told:
        return name
    return f"{name[:-1]},{told})" if name.endswith(")") else f"{name}({told})"


def with_mapping(device: DeviceModel, **options: Any) -> DeviceModel:
    """A device on whose cells weights are laid in another way, and whose name says so.

    Args:
        device: as it is.
        options: fields of `analogsim.Mapping`, such as ``percentile=99.5`` or ``copies=2``.

    Raises:
        ValueError: a value that the mapping or an effect does not take.

    Example:
        >>> with_mapping(as_device_model("pcm"), copies=2).name
        'pcm(copies=2)'
    """
    changes = {word: value for word, value in options.items() if getattr(device.laid, word) != value}
    if not changes:
        return device
    return device.replace(mapping=_changed(device.laid, changes), name=_with_options(device.name, changes))


def as_device_model(device: DeviceLike) -> DeviceModel:
    """The device model that a name, an effect, a list of effects or a device model stands for.

    Args:
        device: ``"pcm"``; ``"gaussian(std=0.05)"``; ``"quantization(levels=16)+stuck-at(p_off=0.09)"``;
            ``"mine.toml"``, a file of `analogsim.save_device`; an `Effect`; a `DeviceModel`; a list of any of these in
            physical order. Where device models are among several parts, the range and the mapping are theirs. The
            fields of `analogsim.Mapping` may stand among the parameters of any part, and are of the whole chain:
            ``"pcm(copies=2)"``, ``"gaussian(std=0.05, cells='pair')+drift"``; what is not said stays as the device has
            it. Where a device has a parameter of that name (``reference`` of ``reram-cmo``), it is that one.

    Raises:
        ValueError: an unknown name (with the nearest one) or parameter, a value out of its limits, a field of the
            mapping with two values, an empty list, or device models that do not go together.
        TypeError: something else was given, or a value of the wrong type.
        ImportError: an installed package offers the name and fails to load.
        FileNotFoundError: there is no such file.

    Example:
        >>> as_device_model("gaussian(std=0.02)").effects
        (Gaussian(std=0.02, law='constant', distribution='normal'),)
    """
    if isinstance(device, DeviceModel):
        return device
    if isinstance(device, Effect):
        return DeviceModel((device,))
    if isinstance(device, str):
        parts, options = _parse(device)
        name = device.replace(" ", "")
        return _join(parts, name, _together(options, name))
    if isinstance(device, list | tuple):
        return _listed(device)
    raise InvalidTypeError(f"device: give a name, an effect, a list of effects or a device model, got {device!r}")
