"""Device models by name: built-in ones, ones registered by the user, and ones from installed packages."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import entry_points
from typing import Any, TypeVar

from analogsim.device import DeviceModel, Effect
from analogsim.utils.text import arguments_of

GROUP = "analogsim.devices"

Part = Effect | DeviceModel
Factory = Callable[..., Part]
F = TypeVar("F", bound=Factory)
DeviceLike = str | Part | Sequence[str | Part]

_factories: dict[str, Factory] = {}
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# A name, parameters in parentheses if any, and the "+" to the next part or the end.
_PART = re.compile(
    r"""\s*([A-Za-z][\w-]*)\s*(\((?:[^()'"]|'[^']*'|"[^"]*"|\([^()]*\))*\))?\s*(\+|$)""",
)


def register(name: str) -> Callable[[F], F]:
    """Register an effect class, or a function that returns a device model, under a name.

    Args:
        name: lower case, words joined by dashes. The registered object is called with keyword arguments only, and
            must work with none.

    Raises:
        ValueError: the name is malformed, or something else has it already.
        TypeError: there is no name, or what is registered cannot be called.

    Example:
        >>> from analogsim import DeviceModel, Gaussian, register
        >>> @register("two-percent")
        ... def two_percent():
        ...     return DeviceModel((Gaussian(0.02),), name="two-percent")
    """
    if not isinstance(name, str):
        raise TypeError(f'register: give a name, as in @register("two-percent"), got {name!r}')
    if not _NAME.fullmatch(name):
        raise ValueError(f"register: a name is lower case with dashes, such as 'pcm-hermes'; got {name!r}")

    def add(factory: F) -> F:
        if not callable(factory):
            raise TypeError(f"register: {name!r} must be an effect class or a function, got {factory!r}")
        known = _factories.get(name)
        if known is not None and known is not factory:
            raise ValueError(f"register: the name {name!r} is taken by {known!r}; choose another one")
        _factories[name] = factory
        return factory

    return add


def available_devices() -> tuple[str, ...]:
    """The names that ``convert(model, device=...)`` takes, those of installed packages included."""
    return tuple(sorted(_factories.keys() | {point.name for point in entry_points(group=GROUP)}))


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.4)
    return f"; did you mean {near[0]!r}?" if near else "."


def _load(name: str) -> None:
    """Register what an installed package offers under a name, if one does."""
    points = {point.value: point for point in entry_points(group=GROUP) if point.name == name}
    if len(points) > 1:
        raise ValueError(
            f"device: several installed packages offer the name {name!r}: {', '.join(sorted(points))}; keep one of them"
        )
    for value, point in points.items():
        try:
            loaded = point.load()
        except Exception as error:
            raise ImportError(
                f"device: {name!r} is offered by an installed package as {value!r}, which fails to load: "
                f"{type(error).__name__}: {error}"
            ) from error
        register(name)(loaded)


def factory(name: str) -> Factory:
    """What is registered under a name.

    Raises:
        ValueError: nobody registered it; the message lists the known names and the nearest match.
        ImportError: an installed package offers it and fails to load.
    """
    if name not in _factories:
        _load(name)
    if name not in _factories:
        known = available_devices()
        raise ValueError(f"device: unknown name {name!r}{_nearest(name, known)} Known: {', '.join(known)}")
    return _factories[name]


def _make(name: str, arguments: dict[str, Any]) -> Part:
    """The effect or device model of that name with those parameters."""
    make = factory(name)
    known = inspect.signature(make).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        for word in arguments.keys() - known.keys():
            has = f"It has {', '.join(known)}" if known else "It has none"
            raise ValueError(f"device: {name!r} has no parameter {word!r}{_nearest(word, known)} {has}")
    part = make(**arguments)
    if not isinstance(part, Part):
        raise TypeError(f"device: {name!r} must make an Effect or a DeviceModel, it made {part!r}")
    return part


def _parse(text: str) -> list[Part]:
    """The parts of ``"quantization(levels=16)+stuck-at"``, or the device model of a file ``"mine.toml"``."""
    if text.endswith(".toml"):
        from analogsim.devicefile import load_device  # which needs the names that are known here

        return [load_device(text)]
    parts: list[Part] = []
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


def _join(parts: Sequence[Part], name: str) -> DeviceModel:
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
    parts: list[Part] = []
    for item in device:
        if not isinstance(item, str | Part):
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
