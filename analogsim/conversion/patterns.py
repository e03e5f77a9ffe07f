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
from analogsim.layers.registry import analog_type, failed_offer
from analogsim.layers.slot import Slot


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
        if failure is not None and module not in hidden:
            candidates.append(Candidate(module, "", Slot(), tuple(all_names), failure))
        if kind is None or module in hidden or (kind.stored and not embeddings):
            continue
        for label, slot in kind.slots(module).items():
            slot.check(module)
            candidates.append(Candidate(module, label, slot, _named(all_names, label)))
    return candidates


def find_hidden(names: Iterable[nn.Module]) -> set[nn.Module]:
    """Layers whose weights another module may read past them."""
    return {layer for module in names if hides_layers(module) for layer in module.children() if analog_type(layer)}


def _matches(names: Iterable[str], pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


class _Patterns:
    """Patterns with their device models, and what is to be said of each that has no effect."""

    def __init__(self, devices: MappingType[str, DeviceLike | None]) -> None:
        self.models = {key: None if choice is None else as_device_model(choice) for key, choice in devices.items()}
        self._idle = dict.fromkeys(self.models, "it matches no module")
        self._effective = {"*"}  # a rest that turns out empty is no mistake

    def matching(self, names: Iterable[str]) -> list[str]:
        """The patterns that one of these names matches; the first wins."""
        return [pattern for pattern in self.models if _matches(names, pattern)]

    def take(self, names: Iterable[str]) -> str | None:
        """The first pattern that matches, which has an effect then, and with it others that ask for the same."""
        matching = self.matching(names)
        if not matching:
            return None
        first = matching[0]
        self._effective.update(pattern for pattern in matching if self.models[pattern] == self.models[first])
        self._idle.update(dict.fromkeys(matching[1:], f"the first match wins, and {first!r} comes before it"))
        return first

    def asks_for_digital(self, names: Iterable[str]) -> bool:
        """Whether the first pattern that matches is mapped to None."""
        matching = self.matching(names)
        return bool(matching) and self.models[matching[0]] is None

    def pass_over(self, names: list[str]) -> None:
        """Note that a module of these names cannot be analog."""
        why = f"it matches only modules that cannot be analog, such as {names[0]!r}"
        self._idle |= dict.fromkeys(set(self.matching(names)) - self._effective, why)

    def check(self, candidates: list[Candidate]) -> None:
        """Raise ValueError if one has no effect."""
        idle = next((pattern for pattern in self.models if pattern not in self._effective), None)
        if idle is not None:
            near = ", ".join(repr(candidate.name) for candidate in candidates)
            raise ValueError(
                f"convert: the pattern {idle!r} has no effect: {self._idle[idle]}. Layers that can be analog: "
                f"{shorten(near, 200) or 'none'}"
            )


def choose_devices(
    device: DeviceLike | MappingType[str, DeviceLike | None],
    candidates: list[Candidate],
    names: dict[nn.Module, list[str]],
) -> tuple[dict[Candidate, DeviceModel | None], set[nn.Module]]:
    """The device model of each candidate that a pattern matches, and the modules that stay digital on request.

    Raises:
        ValueError: there is no pattern, one has no effect, or a device model cannot be made.
        TypeError: something else than a device model was given.
    """
    if not isinstance(device, MappingType):
        return dict.fromkeys(candidates, as_device_model(device)), set()
    if not device:
        raise ValueError("convert: the mapping of patterns to devices is empty")
    patterns = _Patterns(device)
    taken = {candidate: patterns.take(candidate.names) for candidate in candidates}
    possible = {candidate.module for candidate in candidates}
    meant: set[nn.Module] = set()
    for module, all_names in names.items():
        if module in possible:
            continue
        # None also tells that a matrix is meant to stay digital which could not be analog.
        if patterns.asks_for_digital(all_names) and holds_matrix(module):
            patterns.take(all_names)
            meant.add(module)
        else:
            patterns.pass_over(all_names)
    patterns.check(candidates)
    return {candidate: patterns.models[first] for candidate, first in taken.items() if first is not None}, meant


def choose_crossbars(
    crossbar: CrossbarLike | MappingType[str, CrossbarLike], analog: list[Candidate]
) -> dict[Candidate, Crossbar]:
    """The crossbar of each matrix that becomes analog.

    Raises:
        ValueError: a pattern has no effect, or a crossbar cannot be made.
        TypeError: something else than a crossbar was given.
    """
    if not isinstance(crossbar, MappingType):
        return dict.fromkeys(analog, as_crossbar(crossbar))
    kinds = {pattern: as_crossbar(choice) for pattern, choice in crossbar.items()}
    taken: dict[Candidate, Crossbar] = {}
    idle = set(kinds) - {"*"}  # a rest that turns out empty is no mistake
    for candidate in analog:
        matching = [pattern for pattern in kinds if _matches(candidate.names, pattern)]
        taken[candidate] = kinds[matching[0]] if matching else IDEAL
        idle -= set(matching[:1])
    if idle:
        raise ValueError(
            f"convert: the crossbar pattern {min(idle)!r} has no effect: it matches no analog layer, or others come "
            "before it"
        )
    return taken
