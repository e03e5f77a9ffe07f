"""Which matrix a pattern means: names or types of modules to device models and crossbars."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from fnmatch import fnmatchcase
from textwrap import shorten
from typing import cast

from torch import nn

from analogsim.crossbar.crossbar import IDEAL, Crossbar, CrossbarLike, as_crossbar
from analogsim.device.model import DeviceModel
from analogsim.device.parse import DeviceLike, as_device_model
from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.layers.candidates import hides_layers, holds_matrix
from analogsim.layers.module import checked_slots
from analogsim.layers.registry import analog_type, failed_offer, replaced_type
from analogsim.layers.slot import Slot
from analogsim.utils.copying import describe
from analogsim.utils.modules import title_of


@dataclass(frozen=True)
class Candidate:
    """A matrix that can become analog, or all of a module whose analog layer cannot be had.

    Args:
        module: has it.
        label: which of the module's it is; empty for the only one.
        slot: where it lies in the module.
        names: all that patterns may call it: the module's names with the label (we call it by the first), and without.
        failure: why the analog layer cannot be had: of no account to a module that stays digital.
    """

    module: nn.Module
    label: str
    slot: Slot
    names: tuple[str, ...]
    failure: Exception | None = None

    @property
    def name(self) -> str:
        """What we call it."""
        return self.names[0]


def _named(module_names: list[str], label: str) -> tuple[str, ...]:
    if not label:
        return tuple(module_names)
    return (*(f"{name}.{label}" if name else label for name in module_names), *module_names)


def find_candidates(names: dict[nn.Module, list[str]], embeddings: bool) -> list[Candidate]:
    """Every matrix of a model that can become analog.

    Args:
        names: the model's modules, each with all its names.
        embeddings: whether tables that are looked up are among them.
    """
    candidates = []
    hidden = find_hidden(names)
    for module, all_names in names.items():
        kind = analog_type(module)
        failure = failed_offer(module) if kind is None else None
        if failure is None:
            failure = _bypassed(module, all_names[0], embeddings)
        if failure is not None and module not in hidden:
            candidates.append(Candidate(module, "", Slot(), tuple(all_names), failure))
        if kind is None or module in hidden or (kind.stored and not embeddings):
            continue
        for label, slot in checked_slots(kind, module).items():
            slot.check(module)
            candidates.append(Candidate(module, label, slot, _named(all_names, label)))
    return candidates


def _bypassed(module: nn.Module, name: str, embeddings: bool) -> Exception | None:
    """Why a layer whose forward was replaced cannot run analog; None if it was not."""
    kind = replaced_type(module)
    if kind is None or (kind.stored and not embeddings) or not kind.slots(module):
        return None
    return InvalidTypeError(
        f"convert: the forward of {title_of(name)} was replaced by {describe(vars(module)['forward'])}, which does not "
        f"end in that of {type(module).__name__}: its product would run digital. Make a subclass with this forward in "
        "its place, let it call the forward that it replaces, or map the layer to None"
    )


def find_hidden(names: Iterable[nn.Module]) -> set[nn.Module]:
    """Layers whose weights another module may read past them."""
    return {layer for module in names if hides_layers(module) for layer in module.children() if analog_type(layer)}


Pattern = str | type[nn.Module]
"""What says which modules are meant: a glob pattern on their names, or a type, subclasses included."""


Devices = (
    MappingType[str, DeviceLike | None]
    | MappingType[type[nn.Module], DeviceLike | None]
    | MappingType[Pattern, DeviceLike | None]
)
"""Device models by pattern; None for digital. The keys of a mapping are of one type to a checker of types."""

Crossbars = (
    MappingType[str, CrossbarLike] | MappingType[type[nn.Module], CrossbarLike] | MappingType[Pattern, CrossbarLike]
)
"""Crossbars by pattern."""

Owner = nn.Module | nn.Parameter
"""What a pattern may match: a module, or a Parameter that is in none."""


def _check_pattern(pattern: object) -> None:
    if not isinstance(pattern, str) and not (isinstance(pattern, type) and issubclass(pattern, nn.Module)):
        raise InvalidTypeError(
            f"convert: a pattern is text that names modules, such as 'layer4.*', or a type of modules, such as "
            f"nn.Conv2d; got {pattern!r}"
        )


def _title(pattern: Pattern) -> str:
    return repr(pattern) if isinstance(pattern, str) else f"{pattern.__module__}.{pattern.__qualname__}"


def _matches(module: Owner, names: Iterable[str], pattern: Pattern) -> bool:
    if isinstance(pattern, str):
        return any(fnmatchcase(name, pattern) for name in names)
    return isinstance(module, pattern)


class _Patterns:
    """Patterns with their device models, and what is to be said of each that has no effect."""

    def __init__(self, devices: Devices) -> None:
        for key in devices:
            _check_pattern(key)
        self.models: dict[Pattern, DeviceModel | None] = {
            key: None if choice is None else as_device_model(choice) for key, choice in devices.items()
        }
        self._idle: dict[Pattern, str] = dict.fromkeys(self.models, "it matches no module")
        self._effective: set[Pattern] = {"*"}  # a rest that turns out empty is no mistake

    def matching(self, module: Owner, names: Iterable[str]) -> list[Pattern]:
        """The patterns that a module of these names matches; the first wins."""
        return [pattern for pattern in self.models if _matches(module, names, pattern)]

    def take(self, module: Owner, names: Iterable[str]) -> Pattern | None:
        """The first pattern that matches, which has an effect then, and with it others that ask for the same."""
        matching = self.matching(module, names)
        if not matching:
            return None
        first = matching[0]
        self._effective.update(pattern for pattern in matching if self.models[pattern] == self.models[first])
        self._idle.update(dict.fromkeys(matching[1:], f"the first match wins, and {_title(first)} comes before it"))
        return first

    def asks_for_digital(self, module: Owner, names: Iterable[str]) -> bool:
        """Whether the first pattern that matches is mapped to None."""
        matching = self.matching(module, names)
        return bool(matching) and self.models[matching[0]] is None

    def pass_over(self, module: Owner, names: list[str]) -> None:
        """Note that a module of these names cannot be analog."""
        inside = (
            "; the layers in them go by patterns such as 'name.*'"
            if isinstance(module, nn.Module) and any(True for _ in module.children())
            else ""
        )
        why = f"it matches only modules that cannot be analog, such as {names[0]!r} ({type(module).__name__}){inside}"
        self._idle |= dict.fromkeys(set(self.matching(module, names)) - self._effective, why)

    def check(self, candidates: list[Candidate]) -> None:
        """Raise ValueError if one has no effect."""
        idle = next((pattern for pattern in self.models if pattern not in self._effective), None)
        if idle is not None:
            near = ", ".join(repr(candidate.name) for candidate in candidates)
            raise InvalidValueError(
                f"convert: the pattern {_title(idle)} has no effect: {self._idle[idle]}. Layers that can be analog: "
                f"{shorten(near, 200) or 'none'}"
            )


def choose_devices(
    device: DeviceLike | Devices,
    candidates: list[Candidate],
    names: dict[nn.Module, list[str]],
    outside: MappingType[str, nn.Module | nn.Parameter] | None = None,
) -> tuple[dict[Candidate, DeviceModel | None], set[nn.Module | nn.Parameter]]:
    """The device model of each candidate that a pattern matches, and what stays digital on request.

    Args:
        device: for all, or by pattern.
        candidates: the matrices.
        names: the model's modules.
        outside: modules and Parameters that are not registered, by where they are.

    Raises:
        ValueError: there is no pattern, one has no effect, or a device model cannot be made.
        TypeError: something else than a device model was given, or something else than a pattern.
    """
    if not isinstance(device, MappingType):
        return dict.fromkeys(candidates, as_device_model(device)), set()
    if not device:
        raise InvalidValueError("convert: the mapping of patterns to devices is empty")
    patterns = _Patterns(device)
    taken = {candidate: patterns.take(candidate.module, candidate.names) for candidate in candidates}
    possible = {candidate.module for candidate in candidates}
    meant: set[nn.Module | nn.Parameter] = set()
    others: list[tuple[Owner, list[str]]] = [*names.items()]
    others += [(found, [path]) for path, found in (outside or {}).items()]
    for module, all_names in others:
        if module in possible:
            continue
        # None also tells that a matrix is meant to stay digital which could not be analog.
        if patterns.asks_for_digital(module, all_names) and (
            module not in names or holds_matrix(cast(nn.Module, module))
        ):
            patterns.take(module, all_names)
            meant.add(module)
        else:
            patterns.pass_over(module, all_names)
    patterns.check(candidates)
    return {candidate: patterns.models[first] for candidate, first in taken.items() if first is not None}, meant


def choose_crossbars(crossbar: CrossbarLike | Crossbars, analog: list[Candidate]) -> dict[Candidate, Crossbar]:
    """The crossbar of each matrix that becomes analog.

    Raises:
        ValueError: a pattern has no effect, or a crossbar cannot be made.
        TypeError: something else than a crossbar was given, or something else than a pattern.
    """
    if not isinstance(crossbar, MappingType):
        return dict.fromkeys(analog, as_crossbar(crossbar))
    for pattern in crossbar:
        _check_pattern(pattern)
    kinds: dict[Pattern, Crossbar] = {pattern: as_crossbar(choice) for pattern, choice in crossbar.items()}
    taken: dict[Candidate, Crossbar] = {}
    idle = dict.fromkeys(pattern for pattern in kinds if pattern != "*")  # a rest that turns out empty is no mistake
    for candidate in analog:
        matching = [pattern for pattern in kinds if _matches(candidate.module, candidate.names, pattern)]
        taken[candidate] = kinds[matching[0]] if matching else IDEAL
        for pattern in matching[:1]:
            idle.pop(pattern, None)
    if idle:
        raise InvalidValueError(
            f"convert: the crossbar pattern {_title(next(iter(idle)))} has no effect: it matches no analog layer, or "
            "others come before it"
        )
    return taken
