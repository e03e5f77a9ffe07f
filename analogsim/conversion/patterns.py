"""Which matrix a pattern means: names of modules to device models and crossbars."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from fnmatch import fnmatchcase
from textwrap import shorten

from torch import nn

from analogsim.crossbar.crossbar import IDEAL, Crossbar, CrossbarLike, as_crossbar
from analogsim.device.model import DeviceModel
from analogsim.device.parse import DeviceLike, as_device_model
from analogsim.layers.candidates import hides_layers, holds_matrix
from analogsim.layers.registry import analog_type
from analogsim.layers.slot import Slot


@dataclass(frozen=True)
class _Place:
    """A matrix that can become analog.

    Args:
        module: has it.
        label: which of the module's it is; empty for the only one.
        slot: where it lies in the module.
        names: all that patterns may call it: the module's names with the label (we call it by the first), and without.
    """

    module: nn.Module
    label: str
    slot: Slot
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.names[0]


def _named(module_names: list[str], label: str) -> tuple[str, ...]:
    if not label:
        return tuple(module_names)
    return (*(f"{name}.{label}" if name else label for name in module_names), *module_names)


def _places(names: dict[nn.Module, list[str]], embeddings: bool) -> list[_Place]:
    """Every matrix of a model that can become analog."""
    places = []
    hidden = _hidden(names)
    for module, all_names in names.items():
        kind = analog_type(module)
        if kind is None or module in hidden or (kind.stored and not embeddings):
            continue
        for label, slot in kind.slots(module).items():
            places.append(_Place(module, label, slot, _named(all_names, label)))
    return places


def _hidden(names: Iterable[nn.Module]) -> set[nn.Module]:
    """Layers whose weights another module may read past them."""
    return {layer for module in names if hides_layers(module) for layer in module.children() if analog_type(layer)}


def _matches(names: Iterable[str], pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


def _resolve(
    device: DeviceLike | MappingType[str, DeviceLike | None],
    places: list[_Place],
    names: dict[nn.Module, list[str]],
) -> tuple[dict[_Place, DeviceModel | None], set[nn.Module]]:
    """The device model of each matrix that a pattern matches, and the modules that stay digital on request."""
    if not isinstance(device, MappingType):
        return dict.fromkeys(places, as_device_model(device)), set()
    if not device:
        raise ValueError("convert: the mapping of patterns to devices is empty")
    models = {pattern: None if choice is None else as_device_model(choice) for pattern, choice in device.items()}
    chosen: dict[_Place, DeviceModel | None] = {}
    meant: set[nn.Module] = set()
    idle = dict.fromkeys(models, "it matches no module")
    effective = {"*"}  # a rest that turns out empty is no mistake

    def take(called: Iterable[str]) -> str | None:
        """The first pattern that matches; and what is to be said of the others."""
        matching = [pattern for pattern in models if _matches(called, pattern)]
        if not matching:
            return None
        first = matching[0]
        effective.update(pattern for pattern in matching if models[pattern] == models[first])
        idle.update(dict.fromkeys(matching[1:], f"the first match wins, and {first!r} comes before it"))
        return first

    for place in places:
        first = take(place.names)
        if first is not None:
            chosen[place] = models[first]
    possible = {place.module for place in places}
    for module, all_names in names.items():
        if module in possible:
            continue
        matching = [pattern for pattern in models if _matches(all_names, pattern)]
        # None also tells that a matrix is meant to stay digital which could not be analog.
        if matching and models[matching[0]] is None and holds_matrix(module):
            take(all_names)
            meant.add(module)
        else:
            idle |= dict.fromkeys(
                set(matching) - effective, f"it matches only modules that cannot be analog, such as {all_names[0]!r}"
            )
    for pattern in models:
        if pattern not in effective:
            near = ", ".join(repr(place.name) for place in places)
            raise ValueError(
                f"convert: the pattern {pattern!r} has no effect: {idle[pattern]}. Layers that can be analog: "
                f"{shorten(near, 200) or 'none'}"
            )
    return chosen, meant


def _crossbars(
    crossbar: CrossbarLike | MappingType[str, CrossbarLike], chosen: dict[_Place, DeviceModel | None]
) -> dict[_Place, Crossbar]:
    """The crossbar of each matrix that becomes analog."""
    analog = [place for place, choice in chosen.items() if choice is not None]
    if not isinstance(crossbar, MappingType):
        return dict.fromkeys(analog, as_crossbar(crossbar))
    kinds = {pattern: as_crossbar(choice) for pattern, choice in crossbar.items()}
    taken: dict[_Place, Crossbar] = {}
    idle = set(kinds) - {"*"}  # a rest that turns out empty is no mistake
    for place in analog:
        matching = [pattern for pattern in kinds if _matches(place.names, pattern)]
        taken[place] = kinds[matching[0]] if matching else IDEAL
        idle -= set(matching[:1])
    if idle:
        raise ValueError(
            f"convert: the crossbar pattern {min(idle)!r} has no effect: it matches no analog layer, or others come "
            "before it"
        )
    return taken
