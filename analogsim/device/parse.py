"""What people write for a device, read: names, text, lists, files."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

from analogsim.device.file import load_device
from analogsim.device.model import DeviceModel, Effect
from analogsim.device.registry import DevicePart, factory
from analogsim.utils.text import arguments_of, nearest

DeviceLike = str | DevicePart | Sequence[str | DevicePart]


# A name, parameters in parentheses if any, and the "+" to the next part or the end.
_PART = re.compile(
    r"""\s*([A-Za-z][\w-]*)\s*(\((?:[^()'"]|'[^']*'|"[^"]*"|\([^()]*\))*\))?\s*(\+|$)""",
)


def _make(name: str, arguments: dict[str, Any]) -> DevicePart:
    """The effect or device model of that name with those parameters."""
    make = factory(name)
    known = inspect.signature(make).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        for word in arguments.keys() - known.keys():
            has = f"It has {', '.join(known)}" if known else "It has none"
            raise ValueError(f"device: {name!r} has no parameter {word!r}{nearest(word, known) or '.'} {has}")
    part = make(**arguments)
    if not isinstance(part, DevicePart):
        raise TypeError(f"device: {name!r} must make an Effect or a DeviceModel, it made {part!r}")
    return part


def _parse(text: str) -> list[DevicePart]:
    """The parts of ``"quantization(levels=16)+stuck-at"``, or the device model of a file ``"mine.toml"``."""
    if text.endswith(".toml"):
        return [load_device(text)]
    parts: list[DevicePart] = []
    place, more = 0, "+"
    while more:
        match = _PART.match(text, place)
        if match is None:
            raise ValueError(
                f"device: cannot read {text!r}; write a name, a name with parameters such as 'gaussian(std=0.05)', or "
                "several joined by '+'"
            )
        name, arguments, more = match.groups()
        parts.append(_make(name, arguments_of(arguments, text, "device", "std=0.05") if arguments else {}))
        place = match.end()
    return parts


def _join(parts: Sequence[DevicePart], name: str) -> DeviceModel:
    """One chain of several parts; the range and the mapping are those of the device models among them."""
    models = [part for part in parts if isinstance(part, DeviceModel)]
    if len(parts) == 1 and models:
        return models[0]
    effects = tuple(e for part in parts for e in (part.effects if isinstance(part, DeviceModel) else (part,)))
    if not models:
        return DeviceModel(effects, name=name)
    if len({(model.g_min, model.g_max, model.mapping) for model in models}) > 1:
        raise ValueError(f"device: the parts of {name!r} have different conductance ranges or mappings")
    return models[0].replace(effects=effects, name=name)


def _listed(device: Sequence[object]) -> DeviceModel:
    """The chain of a list, in which names and device models may stand among effects."""
    parts: list[DevicePart] = []
    for item in device:
        if not isinstance(item, str | DevicePart):
            raise TypeError(f"device: a list holds effects, device models or names, got {item!r}")
        parts += _parse(item) if isinstance(item, str) else [item]
    return _join(parts, "+".join(part.name if isinstance(part, DeviceModel) else type(part).__name__ for part in parts))


def as_device_model(device: DeviceLike) -> DeviceModel:
    """The device model that a name, an effect, a list of effects or a device model stands for.

    Args:
        device: ``"pcm"``; ``"gaussian(std=0.05)"``; ``"quantization(levels=16)+stuck-at(p_off=0.09)"``;
            ``"mine.toml"``, a file of `analogsim.save_device`; an `Effect`; a `DeviceModel`; a list of any of these in
            physical order. Where device models are among several parts, the range and the mapping are theirs.

    Raises:
        ValueError: an unknown name (with the nearest one) or parameter, a value out of its limits, an empty list, or
            device models that do not go together.
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
        return _join(_parse(device), device.replace(" ", ""))
    if isinstance(device, list | tuple):
        return _listed(device)
    raise TypeError(f"device: give a name, an effect, a list of effects or a device model, got {device!r}")
