"""Device models by name: built-in ones, ones registered by the user, and ones from installed packages."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from analogsim.device import DeviceModel, Effect

GROUP = "analogsim.devices"

Factory = Callable[..., Effect | DeviceModel]
F = TypeVar("F", bound=Factory)
DeviceLike = str | Effect | DeviceModel | Sequence[Effect]

_factories: dict[str, Factory] = {}
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def register(name: str) -> Callable[[F], F]:
    """Register an effect class, or a function that returns a device model, under a name.

    Args:
        name: lower case, words joined by dashes. The registered object is called with keyword arguments only, and
            must work with none.

    Raises:
        ValueError: the name is malformed, or something else has it already.

    Example:
        >>> from analogsim import DeviceModel, Gaussian, register
        >>> @register("two-percent")
        ... def two_percent():
        ...     return DeviceModel((Gaussian(0.02),), name="two-percent")
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"register: a name is lower case with dashes, such as 'pcm-hermes'; got {name!r}")

    def add(factory: F) -> F:
        known = _factories.get(name)
        if known is not None and known is not factory:
            raise ValueError(f"register: the name {name!r} is taken by {known!r}; choose another one")
        _factories[name] = factory
        return factory

    return add


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def available_devices() -> tuple[str, ...]:
    """The names that ``convert(model, device=...)`` takes, those of installed packages included."""
    return tuple(sorted(_factories.keys() | _installed().keys()))


def factory(name: str) -> Factory:
    """What is registered under a name.

    Raises:
        ValueError: nobody registered it; the message lists the known names and the nearest match.
    """
    if name not in _factories:
        point = _installed().get(name)
        if point is None:
            known = available_devices()
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"device: unknown name {name!r}{hint} Known: {', '.join(known)}")
        register(name)(point.load())
    return _factories[name]


def _join(parts: list[Effect | DeviceModel], name: str) -> DeviceModel:
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


def _parse(text: str) -> DeviceModel:
    # Names may carry dashes, which Python would read as minus.
    source = re.sub(r"(?<=[a-z0-9])-(?=[a-z])", "_", text.strip())
    error = ValueError(
        f"device: cannot read {text!r}; write a name, a name with parameters such as 'gaussian(std=0.05)', or several "
        "joined by '+'"
    )
    try:
        tree = ast.parse(source, mode="eval").body
    except SyntaxError:
        raise error from None
    nodes: list[ast.expr] = []
    while isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Add):
        nodes.insert(0, tree.right)
        tree = tree.left
    nodes.insert(0, tree)
    parts: list[Effect | DeviceModel] = []
    for node in nodes:
        arguments: dict[str, Any] = {}
        if isinstance(node, ast.Call):
            if node.args:
                raise ValueError(f"device: parameters in {text!r} need their names, such as std=0.05")
            try:
                arguments = {str(word.arg): ast.literal_eval(word.value) for word in node.keywords}
            except ValueError:
                raise error from None
            node = node.func
        if not isinstance(node, ast.Name):
            raise error
        name = node.id.replace("_", "-")
        try:
            parts.append(factory(name)(**arguments))
        except TypeError as problem:
            raise ValueError(f"device: {text!r}: {problem}") from None
    return _join(parts, text.replace(" ", ""))


def as_device_model(device: DeviceLike) -> DeviceModel:
    """The device model that a name, an effect, a list of effects or a device model stands for.

    Args:
        device: ``"pcm"``; ``"gaussian(std=0.05)"``; ``"quantization(levels=16)+stuck-at(p_off=0.09)"``; an `Effect`; a
            list of them in physical order; a `DeviceModel`.

    Raises:
        ValueError: an unknown name (with the nearest one) or parameter.
        TypeError: something else was given.

    Example:
        >>> as_device_model("gaussian(std=0.02)").effects
        (Gaussian(std=0.02, law='constant', distribution='normal'),)
    """
    if isinstance(device, DeviceModel):
        return device
    if isinstance(device, Effect):
        return DeviceModel((device,))
    if isinstance(device, str):
        return _parse(device)
    if isinstance(device, list | tuple):
        return DeviceModel(tuple(device))
    raise TypeError(f"device: give a name, an effect, a list of effects or a device model, got {device!r}")
