"""Devices and crossbars as plain values, for configurations of others that are kept as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any

from torch import nn

from analogsim.conversion.patterns import Crossbars, Devices
from analogsim.crossbar.crossbar import IDEAL, Crossbar, CrossbarLike, as_crossbar
from analogsim.crossbar.wires import Wires
from analogsim.device.file import device_text, read_device
from analogsim.device.model import DeviceModel
from analogsim.device.parse import DeviceLike, as_device_model
from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.layers.module import AnalogModule, matrices_of

Plain = Any
"""Text, or nested mappings and lists of text and numbers, as JSON holds them."""
_PATTERNS = "patterns"  # in the place of one device or crossbar: those of layers
_FIELDS = {spec.name for spec in fields(Crossbar)}


def plain_device(device: DeviceLike | Devices) -> Plain:
    """What `analogsim.convert` takes for a device, as text, or as ``{"patterns": [[pattern, text or None], ...]}``.

    What is plain already stays as it is.

    Raises:
        TypeError: patterns that are types, or parameters that cannot be written.
        ValueError: an unknown device.
    """
    return _plain(device, _device)


def read_plain_device(plain: Plain) -> DeviceLike | Devices:
    """What `plain_device` was given."""
    found: DeviceLike | Devices = _read(plain, lambda text: read_device(text) if "\n" in text else text)
    return found


def plain_crossbar(crossbar: CrossbarLike | Crossbars) -> Plain:
    """What `analogsim.convert` takes for a crossbar: a name, its fields, or ``{"patterns": [[pattern, either], ...]}``.

    What is plain already stays as it is.

    Raises:
        TypeError: patterns that are types, or no crossbar.
        ValueError: an unknown crossbar.
    """
    return _plain(crossbar, _crossbar)


def read_plain_crossbar(plain: Plain) -> CrossbarLike | Crossbars:
    """What `plain_crossbar` was given.

    Raises:
        ValueError: a field that a crossbar does not have, or a value that it cannot have.
    """
    found: CrossbarLike | Crossbars = _read(plain, _read_crossbar)
    return found


def plain_hardware(analog: nn.Module) -> dict[str, Any]:
    """The hardware of a twin, layer by layer: ``device``, ``crossbar`` and ``embeddings`` as plain values.

    Layers that are not analog are said to stay digital. Where all have one crossbar, it is said once.

    Args:
        analog: the twin.
    """
    states = [matrix.analog for matrix in matrices_of(analog)]
    device: dict[str, Any] = {state.name: state.device for state in states}
    crossbars: dict[str, Any] = {state.name: _crossbar(state.crossbar) for state in states}
    first = next(iter(crossbars.values()))
    one = all(found == first for found in crossbars.values())
    stored = any(isinstance(module, AnalogModule) and module.stored for module in analog.modules())
    return {
        "device": _plain({**device, "*": None}, _device),
        "crossbar": first if one else _plain(crossbars, _crossbar),
        "embeddings": stored,
    }


def _plain(given: Any, single: Callable[[Any], Any]) -> Any:
    if not isinstance(given, Mapping) or (single is _crossbar and given and set(given) <= _FIELDS):
        return single(given)
    if set(given) == {_PATTERNS} and isinstance(given[_PATTERNS], list):
        given = dict(given[_PATTERNS])
    odd = [pattern for pattern in given if not isinstance(pattern, str)]
    if odd:
        raise InvalidTypeError(
            f"hardware as text: a pattern must be text, got {odd[0]!r}; write it as a pattern of names"
        )
    # Pairs, since the first match wins, and JSON's writers may sort what has names.
    return {_PATTERNS: [[pattern, None if one is None else single(one)] for pattern, one in given.items()]}


def _read(plain: Any, single: Callable[[Any], Any]) -> Any:
    if isinstance(plain, Mapping) and set(plain) == {_PATTERNS}:
        return {pattern: None if one is None else single(one) for pattern, one in plain[_PATTERNS]}
    return single(plain)


def _device(device: DeviceLike) -> str:
    """A name with its parameters where that says all of it, else the text of a device file."""
    model = as_device_model(read_device(device) if isinstance(device, str) and "\n" in device else device)
    if isinstance(device, str) and "\n" not in device and not device.endswith(".toml"):
        return device
    return model.name if _is_known_as(model.name, model) else device_text(model)


def _is_known_as(name: str, model: DeviceModel) -> bool:
    try:
        return as_device_model(name) == model
    except (ValueError, TypeError):
        return False


def _crossbar(crossbar: CrossbarLike | dict[str, Any]) -> Plain:
    array = _read_crossbar(crossbar) if isinstance(crossbar, dict) else as_crossbar(crossbar)
    if isinstance(crossbar, str):
        return crossbar
    held = {spec.name: getattr(array, spec.name) for spec in fields(Crossbar)}
    changed = {name: value for name, value in held.items() if value != getattr(IDEAL, name)}
    return {name: asdict(value) if isinstance(value, Wires) else value for name, value in changed.items()} or "ideal"


def _read_crossbar(plain: Any) -> Crossbar:
    if isinstance(plain, str):
        return as_crossbar(plain)
    wires = plain.get("wire_resistance")
    try:
        if isinstance(wires, Mapping):
            return Crossbar(**{**plain, "wire_resistance": Wires(**wires)})
        return Crossbar(**plain)
    except TypeError as error:
        raise InvalidValueError(f"hardware as text: crossbar: {error}; got {plain!r}") from None
