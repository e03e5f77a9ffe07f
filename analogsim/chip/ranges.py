"""Ranges of converters as values: to keep them beside the weights, and to give a twin those of another."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import matrices_of
from analogsim.utils.text import in_short

Ranges = Mapping[str, Mapping[str, Tensor]]
_NEEDS = {"input_range": "needs_range", "output_bound": "needs_bound"}


def get_ranges(analog: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The ranges that `calibrate` has set, and training has changed since.

    They are in no state dict: keep them beside it, and hand them to `set_ranges`.

    Args:
        analog: the twin.

    Returns:
        For each layer with such ranges, by its name: ``"input_range"``, in units of its input, and ``"output_bound"``,
        in units of (input range x largest weight); copies. ``(row blocks,)`` and ``(slices, row blocks)``; scalars
        where there is one of them, or one for all. Empty where nothing is calibrated.
    """
    found: dict[str, dict[str, Tensor]] = {}
    for layer in matrices_of(analog):
        for kind in _NEEDS:
            value = getattr(layer.analog, kind)
            if value is not None:
                found.setdefault(layer.analog.name, {})[kind] = value.detach().clone()
    return found


def ranges_as_they_are(analog: nn.Module) -> Callable[[], None]:
    """A function that gives a twin back the ranges that it has now, the very same tensors."""
    held = [(state, state.input_range, state.output_bound) for state in (layer.analog for layer in matrices_of(analog))]

    def restore() -> None:
        for state, input_range, output_bound in held:
            state.input_range, state.output_bound = input_range, output_bound

    return restore


@torch.no_grad()
def set_ranges(analog: nn.Module, ranges: Ranges) -> None:
    """Set ranges of converters without a calibration.

    What is not named stays. Values are written into the tensors that are there, so that an optimizer that holds them
    (`range_parameters`) goes on with them.

    Args:
        analog: the twin.
        ranges: as `get_ranges` gives them, of a twin of the same network on the same crossbars; a scalar is one for all
            blocks and slices of a layer.

    Raises:
        ValueError: a layer that there is not, a range that its crossbar does not leave to calibration, or a value that
            is no range. All stay as they were then.
    """
    layers = {layer.analog.name: layer for layer in matrices_of(analog)}
    states = {name: layer.analog for name, layer in layers.items()}
    checked: list[tuple[str, str, Tensor]] = []
    if not isinstance(ranges, Mapping):
        raise InvalidTypeError(f"set_ranges: give ranges as get_ranges does, layer by layer, got {in_short(ranges)}")
    for name, given in ranges.items():
        if name not in states:
            known = ", ".join(map(repr, states))
            raise InvalidValueError(f"set_ranges: {name!r} is no analog layer; there are {known}")
        if not isinstance(given, Mapping):
            raise InvalidTypeError(f"set_ranges: layer {name!r}: give ranges by their names, got {in_short(given)}")
        for kind, value in given.items():
            if kind not in _NEEDS:
                raise InvalidValueError(f"set_ranges: layer {name!r}: {kind!r} is none of {', '.join(_NEEDS)}")
            if not getattr(states[name].crossbar, _NEEDS[kind]):
                raise InvalidValueError(
                    f"set_ranges: layer {name!r} has no {kind} to set; its crossbar must leave it to calibration, as "
                    'Crossbar(input_range="calibrated", output_bound="calibrated") does'
                )
            checked.append((name, kind, _checked(value, kind, layers[name])))
    for name, kind, found in checked:
        held = getattr(states[name], kind)
        if held is not None and found.ndim <= held.ndim:
            held.copy_(found)
            continue
        learned = kind == "input_range" and states[name].crossbar.learns
        setattr(states[name], kind, found.requires_grad_(learned))


def _checked(value: Tensor | float, kind: str, layer: AnalogMatrix) -> Tensor:
    """A range as a tensor of its own where the layer is; ValueError for one that is none."""
    state = layer.analog
    found = _numbers(value)
    if found is None:
        raise InvalidValueError(
            f"set_ranges: layer {state.name!r}: {kind} must be a number or a tensor of some, got {value!r}"
        )
    shape = state.range_shape(kind)
    if tuple(found.shape) not in ((), shape):
        wanted = f"one number or shaped {shape}" if shape else "one number"
        raise InvalidValueError(
            f"set_ranges: layer {state.name!r}: {kind} must be {wanted}, got {tuple(found.shape)}; its blocks "
            "and slices are not those that the ranges were made for"
        )
    held = getattr(state, kind)
    if held is not None and held.requires_grad and found.ndim > held.ndim:
        raise InvalidValueError(
            f"set_ranges: layer {state.name!r} trains one {kind} for all of its blocks; calibrate it for one of each "
            "before it is handed to an optimizer (range_parameters)"
        )
    if not found.isfinite().all() or (found == 0).any():
        told = found.tolist()
        raise InvalidValueError(f"set_ranges: layer {state.name!r}: {kind} must be finite and not 0, got {told!r}")
    return found.to(layer.still()[0].device, copy=True)


def _numbers(value: object) -> Tensor | None:
    """Real numbers as a tensor of float32; None where the value holds none."""
    try:
        found = torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError):
        return None
    return None if found.dtype is torch.bool or found.is_complex() else found.to(torch.float32)


def range_parameters(analog: nn.Module) -> list[Tensor]:
    """The input ranges that are learned, to hand to an optimizer beside ``model.parameters()``.

    They belong to the twin and are in no state dict; `save_chip` stores them. ``optimizer.zero_grad()`` clears their
    gradients, ``model.zero_grad()`` does not, nor does clipping of the model's gradients see them. One for each layer:
    ``(row blocks,)``, or a scalar where a layer has one block, or ``ranges_per="layer"``.

    Args:
        analog: the twin, calibrated.

    Raises:
        NotCalibratedError: a range to be learned has no start value yet.
        ValueError: no crossbar of the twin learns its range.
    """
    learned = [layer.analog for layer in matrices_of(analog) if layer.analog.crossbar.learns]
    if not learned:
        raise InvalidValueError(
            'range_parameters: no layer learns its input range; give Crossbar(input_range="learned")'
        )
    parameters = []
    for state in learned:
        _ = state.ranges
        if state.input_range is not None:
            parameters.append(state.input_range)
    return parameters
