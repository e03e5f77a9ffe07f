"""What is done for a network on a chip, as a value: hardware, compensations, ranges, layers that stay digital."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import nn

import analogsim
from analogsim.chip.compensation import Compensations, as_compensations
from analogsim.chip.faults import Faults, draw_faults, remap
from analogsim.chip.layer_errors import Trial
from analogsim.conversion.digital import to_digital
from analogsim.crossbar.crossbar import Crossbar
from analogsim.device.model import DeviceModel, Effect
from analogsim.devices import Gaussian
from analogsim.errors import InvalidValueError
from analogsim.evaluation.variants import build_variant
from analogsim.layers.module import matrices_of
from analogsim.layers.state import AnalogState
from analogsim.utils.batches import samples_in

PERCENTILE = 99.99
"""Of the magnitudes that a calibrated range holds, where nothing else is said: see `analogsim.calibrate`."""

RANGES, LARGEST = "ranges", "largest weight"
"""What can be searched for: `analogsim.search_ranges`, `analogsim.search_percentile`."""


@dataclass(frozen=True)
class Variant:
    """What is done, beginning with nothing.

    Args:
        remedies: the names of what was done, in that order; empty for the network as it is.
        compensation: names joined by ``+``; None for none.
        mapping: fields of `analogsim.Mapping` that are set on every device.
        crossbar: fields of `analogsim.Crossbar` that are set on every layer's.
        percentile: of the magnitudes that a calibrated range holds.
        digital: the layers that stay digital.
        laid_around: whether weights are laid around cells known to be stuck.
        searched: what is searched for, layer by layer, by the error of outputs: `RANGES`, `LARGEST`.
    """

    remedies: tuple[str, ...] = ()
    compensation: str | None = "global"
    mapping: tuple[tuple[str, Any], ...] = ()
    crossbar: tuple[tuple[str, Any], ...] = ()
    percentile: float = PERCENTILE
    digital: tuple[str, ...] = ()
    laid_around: bool = False
    searched: tuple[str, ...] = ()

    def with_mapping(self, **changes: Any) -> Variant:
        """Other fields of the mapping."""
        return replace(self, mapping=tuple({**dict(self.mapping), **changes}.items()))

    def with_crossbar(self, **changes: Any) -> Variant:
        """Other fields of the crossbar."""
        return replace(self, crossbar=tuple({**dict(self.crossbar), **changes}.items()))

    def with_search(self, what: str) -> Variant:
        """More that is searched for."""
        return replace(self, searched=tuple(sorted({*self.searched, what})))

    def with_digital(self, layers: Collection[str]) -> Variant:
        """More layers digital."""
        return replace(self, digital=(*self.digital, *(name for name in layers if name not in self.digital)))

    @property
    def effect(self) -> Variant:
        """What is done, by whatever names: the same for all that come to the same."""
        return replace(self, remedies=(), digital=tuple(sorted(self.digital)))

    @property
    def key(self) -> str:
        """What is not as in the beginning, in words of a file."""
        start = Variant()
        changed = (
            (spec.name, getattr(self, spec.name))
            for spec in fields(self)
            if spec.name != "remedies" and getattr(self, spec.name) != getattr(start, spec.name)
        )
        return ", ".join(f"{name}={value!r}" for name, value in changed)

    @property
    def name(self) -> str:
        """The remedies joined by ``+``."""
        return "+".join(self.remedies) or "as it is"


@dataclass(frozen=True)
class Subject:
    """The network that is judged, ready to be put on other hardware.

    Args:
        analog: its twin as it is.
        calibration: inputs that ranges and statistics are set by; empty where there are none.
        device: how the user named the device, for the code that is shown.
        crossbar: the same of the crossbar.
    """

    analog: nn.Module
    calibration: list[Any]
    device: Any
    crossbar: Any
    digital: nn.Module = field(init=False)
    states: Mapping[str, AnalogState] = field(init=False)
    _found: dict[Variant, list[Trial]] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digital", to_digital(self.analog).eval())
        object.__setattr__(self, "states", {matrix.analog.name: matrix.analog for matrix in matrices_of(self.analog)})

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of all layers that run analog."""
        return tuple(self.states)

    @property
    def inputs(self) -> int:
        """How many samples the calibration has; a batch whose samples nobody can count stands for one."""
        count = 0
        for batch in self.calibration:
            try:
                count += samples_in(batch, None)
            except ValueError:
                count += 1
        return count

    def effects(self) -> list[Effect]:
        """What is not ideal in any of the devices."""
        return [effect for state in self.states.values() for effect in state.device.effects]

    def stuck(self) -> list[Effect]:
        """Those that make cells stick."""
        return [effect for effect in dict.fromkeys(self.effects()) if type(effect).held is not Effect.held]

    def hardware(self, variant: Variant, name: str) -> tuple[DeviceModel, Crossbar]:
        """What a layer lies on."""
        device, crossbar = self.states[name].device, self.states[name].crossbar
        if variant.mapping:
            device = device.replace(mapping=replace(device.laid, **dict(variant.mapping)))
        if variant.laid_around:  # the faults are given then, and not drawn with the rest
            rest = tuple(effect for effect in device.effects if type(effect).held is Effect.held)
            device = device.replace(effects=rest or (Gaussian(std=0.0),), mapping=device.laid)
        return device, crossbar.replace(**dict(variant.crossbar))

    def twin(self, variant: Variant) -> nn.Module:
        """The network with what is done.

        Raises:
            ValueError: it cannot be done, or nothing is left analog.
        """
        left = [name for name in self.layers if name not in variant.digital]
        if not left:
            raise InvalidValueError("judge: every layer would be digital")
        twin = build_variant(
            self.digital,
            {name: self.states[name] for name in left},
            {name: self.hardware(variant, name) for name in left},
        )
        if variant.mapping or variant.crossbar or not _ranged(twin):
            set_ranges_again(twin, self.calibration, variant.percentile)
        if variant.searched:
            self._search(twin, variant)
        return twin

    def is_found(self, variant: Variant) -> bool:
        """Whether nothing of it has to be searched for any more."""
        return not variant.searched or _hardware_of(variant) in self._found

    def _search(self, twin: nn.Module, variant: Variant) -> None:
        """Put a twin on what is best for each of its layers, which is searched for once."""
        states, key = [matrix.analog for matrix in matrices_of(twin)], _hardware_of(variant)
        if key not in self._found:
            for search in _searches(variant):
                search(twin, self.calibration)
            self._found[key] = [Trial.now(state) for state in states]
        for state, held in zip(states, self._found[key], strict=True):
            state.put_on(held.device, held.crossbar)
            held.put(state)

    def compensation(self, variant: Variant, twin: nn.Module) -> Compensations:
        """What is compensated on its chips: of all that is asked for, what has something to do."""
        return as_compensations(variant.compensation).fitting(twin)

    def faults(self, variant: Variant, twin: nn.Module) -> LaidAround | None:
        """The faults of a chip by its seed, laid around; None where they are not."""
        if not variant.laid_around:
            return None
        (effect,) = self.stuck()
        return LaidAround(twin, effect)

    def code(self, variant: Variant) -> str:
        """It in Python, for ``model``, ``test`` and ``calibration``."""
        lines = [
            f"analog = analogsim.convert(model, {self._device_code(variant)}, crossbar={self._crossbar_code(variant)})"
        ]
        crossbars = [self.hardware(variant, name)[1] for name in self.layers if name not in variant.digital]
        if any(crossbar.needs_range or crossbar.needs_bound for crossbar in crossbars):
            percentile = "" if variant.percentile == PERCENTILE else f", percentile={variant.percentile:g}"
            lines.append(f"analogsim.calibrate(analog, calibration{percentile})")
        lines += [f"analogsim.{search.__name__}(analog, calibration)" for search in _searches(variant)]
        more = ""
        if as_compensations(variant.compensation).needs_data or len(lines) > 1:
            lines.insert(0, "# calibration: a loader of inputs, without use of labels: some of the training data")
        if as_compensations(variant.compensation).needs_data:
            more = ", calibration=calibration"
        if variant.laid_around:
            (effect,) = self.stuck()
            lines.insert(0, f"stuck = {_effect_code(effect)}")
            more += ", faults=lambda seed: analogsim.remap(analog, analogsim.draw_faults(analog, stuck, seed))"
        lines.append(f"print(analogsim.evaluate(analog, test, compensation={variant.compensation!r}{more}))")
        return "\n".join(lines)

    def _device_code(self, variant: Variant) -> str:
        plain = self._changed_device_code(variant)
        if not variant.digital:
            return plain
        kept = ", ".join(f"{name!r}: None" for name in variant.digital)
        mapped = isinstance(self.device, Mapping) and plain == repr(self.device)
        rest = f"**{plain}" if mapped else f'"*": {plain}'
        return f"{{{kept}, {rest}}}"

    def _changed_device_code(self, variant: Variant) -> str:
        """The device, as the user named it as far as that goes."""
        devices = [self.hardware(variant, name)[0] for name in self.layers if name not in variant.digital]
        device = devices[0]
        if not (variant.mapping or variant.laid_around):
            return repr(self.device) if isinstance(self.device, str | Mapping) else _prefixed(repr(device))
        if not isinstance(self.device, str) or any(other != device for other in devices):
            return _prefixed(repr(device))
        changes = [f"mapping={_mapping_code(device.laid)}"]
        if variant.laid_around:
            effects = "".join(f"{_effect_code(effect)}, " for effect in device.effects)
            changes.insert(0, f"effects=({effects.rstrip()})")
        return f"analogsim.as_device_model({self.device!r}).replace({', '.join(changes)})"

    def _crossbar_code(self, variant: Variant) -> str:
        plain = repr(self.crossbar) if isinstance(self.crossbar, str) else _prefixed(repr(self.crossbar))
        if not variant.crossbar:
            return plain
        changes = ", ".join(f"{name}={value!r}" for name, value in variant.crossbar)
        return f"analogsim.as_crossbar({plain}).replace({changes})"


def _hardware_of(variant: Variant) -> Variant:
    return replace(variant.effect, compensation=None)


def _searches(variant: Variant) -> list[Callable[..., Any]]:
    """What searches, in order: ranges again after the largest weights, of which they are multiples."""
    ranges = [analogsim.search_ranges] if RANGES in variant.searched else []
    return [*ranges, analogsim.search_percentile, *ranges] if LARGEST in variant.searched else [*ranges]


@dataclass(frozen=True, eq=False)
class LaidAround:
    """The faults of a chip by its seed, with weights laid around them; a value, so that workers can have it.

    Args:
        twin: the network.
        effect: that makes cells stick.
    """

    twin: nn.Module
    effect: Effect

    def __call__(self, seed: int) -> Faults:
        """Those of one chip."""
        return remap(self.twin, draw_faults(self.twin, self.effect, seed))


def _ranged(twin: nn.Module) -> bool:
    """Whether every range that comes from calibration is there."""
    states = [matrix.analog for matrix in matrices_of(twin)]
    return all(
        (state.input_range is not None or not state.crossbar.needs_range)
        and (state.output_bound is not None or not state.crossbar.needs_bound)
        for state in states
    )


@torch.no_grad()
def set_ranges_again(twin: nn.Module, calibration: list[Any], percentile: float) -> None:
    """Calibrate a twin where a crossbar asks for it; learned ranges that are there stay.

    Raises:
        ValueError: it asks for it, and there is no data.
    """
    crossbars = [matrix.analog.crossbar for matrix in matrices_of(twin)]
    if not any(crossbar.needs_range or crossbar.needs_bound for crossbar in crossbars):
        return
    if not calibration:
        raise InvalidValueError("judge: ranges of converters come from data: give calibration=, a loader of inputs")
    analogsim.calibrate(twin, calibration, percentile=percentile, keep_learned=True)


def _prefixed(text: str) -> str:
    return "analogsim." + text


def _effect_code(effect: Effect) -> str:
    return f"analogsim.devices.{effect!r}"


def _mapping_code(mapping: Any) -> str:
    """A mapping with the fields that are not as by default."""
    told = [
        f"{spec.name}={getattr(mapping, spec.name)!r}"
        for spec in fields(mapping)
        if getattr(mapping, spec.name) != spec.default
    ]
    return f"analogsim.Mapping({', '.join(told)})"
