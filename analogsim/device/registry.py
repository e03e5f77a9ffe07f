"""Device models by name: built-in ones, ones registered by the user, and ones from installed packages."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TypeVar

from analogsim.device.model import DeviceModel, Effect
from analogsim.errors import InvalidTypeError, InvalidValueError, MissingPackageError
from analogsim.utils.text import nearest

GROUP = "analogsim.devices"

DevicePart = Effect | DeviceModel
"""What a chain is joined of."""

Factory = Callable[..., DevicePart]
F = TypeVar("F", bound=Factory)

factories: dict[str, Factory] = {}
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


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
        raise InvalidTypeError(f'register: give a name, as in @register("two-percent"), got {name!r}')
    if not _NAME.fullmatch(name):
        raise InvalidValueError(f"register: a name is lower case with dashes, such as 'pcm-hermes'; got {name!r}")

    def add(factory: F) -> F:
        if not callable(factory):
            raise InvalidTypeError(f"register: {name!r} must be an effect class or a function, got {factory!r}")
        known = factories.get(name)
        if known is not None and known is not factory:
            raise InvalidValueError(f"register: the name {name!r} is taken by {known!r}; choose another one")
        factories[name] = factory
        return factory

    return add


def available_devices() -> tuple[str, ...]:
    """The names that ``convert(model, device=...)`` takes, those of installed packages included."""
    return tuple(sorted(factories.keys() | {point.name for point in entry_points(group=GROUP)}))


def _load(name: str) -> None:
    """Register what an installed package offers under a name, if one does."""
    points = {point.value: point for point in entry_points(group=GROUP) if point.name == name}
    if len(points) > 1:
        raise InvalidValueError(
            f"device: several installed packages offer the name {name!r}: {', '.join(sorted(points))}; keep one of them"
        )
    for value, point in points.items():
        try:
            loaded = point.load()
        except Exception as error:
            raise MissingPackageError(
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
    if name not in factories:
        _load(name)
    if name not in factories:
        known = available_devices()
        raise InvalidValueError(f"device: unknown name {name!r}{nearest(name, known) or '.'} Known: {', '.join(known)}")
    return factories[name]
