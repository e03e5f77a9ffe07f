"""The walk: digital network -> analog twin over the very same Parameters, and back."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping as MappingType
from fnmatch import fnmatchcase
from textwrap import shorten
from typing import Literal, cast

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from analogsim.chip import layer_chips
from analogsim.crossbar import IDEAL, Crossbar, CrossbarLike, as_crossbar
from analogsim.device import DeviceModel
from analogsim.errors import ConversionWarning
from analogsim.layers.base import (
    AnalogLayer,
    AnalogState,
    analog_layers,
    analog_type,
    digital_type,
    holds_matrix,
    why_digital,
)
from analogsim.registry import DeviceLike, as_device_model
from analogsim.times import seconds
from analogsim.tree import M, copy_tree, names_of, own_copy


def _resolve(
    device: DeviceLike | MappingType[str, DeviceLike | None], names: dict[nn.Module, list[str]]
) -> dict[nn.Module, DeviceModel | None]:
    """The device model of each module that a pattern matches (None: stays digital on request)."""
    if not isinstance(device, MappingType):
        return dict.fromkeys((module for module in names if analog_type(module) is not None), as_device_model(device))
    if not device:
        raise ValueError("convert: the mapping of patterns to devices is empty")
    models = {pattern: None if choice is None else as_device_model(choice) for pattern, choice in device.items()}
    chosen: dict[nn.Module, DeviceModel | None] = {}
    idle = dict.fromkeys(models, "it matches no module")
    effective = {"*"}  # a rest that turns out empty is no mistake
    for module, all_names in names.items():
        matching = [pattern for pattern in models if any(fnmatchcase(name, pattern) for name in all_names)]
        if not matching:
            continue
        first = matching[0]
        # None also tells that a matrix is meant to stay digital which could not be analog.
        if analog_type(module) is not None or (models[first] is None and holds_matrix(module)):
            chosen[module] = models[first]
            effective |= {pattern for pattern in matching if models[pattern] == models[first]}
            idle |= dict.fromkeys(matching[1:], f"the first match wins, and {first!r} comes before it")
        else:
            idle |= dict.fromkeys(matching, f"it matches only modules that cannot be analog, such as {all_names[0]!r}")
    for pattern in models:
        if pattern not in effective:
            near = ", ".join(repr(every[0]) for module, every in names.items() if analog_type(module) is not None)
            raise ValueError(
                f"convert: the pattern {pattern!r} has no effect: {idle[pattern]}. Layers that can be analog: "
                f"{shorten(near, 200) or 'none'}"
            )
    return chosen


def _crossbars(
    crossbar: CrossbarLike | MappingType[str, CrossbarLike],
    chosen: dict[nn.Module, DeviceModel | None],
    names: dict[nn.Module, list[str]],
) -> dict[nn.Module, Crossbar]:
    """The crossbar of each module that becomes analog."""
    analog = [module for module, choice in chosen.items() if choice is not None]
    if not isinstance(crossbar, MappingType):
        return dict.fromkeys(analog, as_crossbar(crossbar))
    kinds = {pattern: as_crossbar(choice) for pattern, choice in crossbar.items()}
    taken: dict[nn.Module, Crossbar] = {}
    idle = set(kinds) - {"*"}  # a rest that turns out empty is no mistake
    for module in analog:
        matching = [pattern for pattern in kinds if any(fnmatchcase(name, pattern) for name in names[module])]
        taken[module] = kinds[matching[0]] if matching else IDEAL
        idle -= set(matching[:1])
    if idle:
        raise ValueError(
            f"convert: the crossbar pattern {min(idle)!r} has no effect: it matches no analog layer, or others come "
            "before it"
        )
    return taken


def _warn_digital(rows: dict[str, tuple[str, str]]) -> None:
    if not rows:
        return
    kinds = Counter(f"{kind} ({why})" for kind, why in rows.values())
    listed = "; ".join(f"{count} x {what}" for what, count in kinds.items())
    first = ", ".join(repr(name) for name in list(rows)[:5]) + (", ..." if len(rows) > 5 else "")
    warnings.warn(
        f"convert: weights that stay digital: {listed}: {first}. Map them to None to say that this is meant; see "
        "analogsim.summary",
        ConversionWarning,
        stacklevel=3,
    )


def _train_times(device: DeviceModel) -> tuple[float, float]:
    """One second to one year, as far as the device's formulas go."""
    first, last = device.times
    return max(seconds("1s"), first), min(seconds("1y"), last)


def _close_fast_paths(twin: nn.Module) -> None:
    """In eval torch's encoder layer may hand its weights to a fused kernel, past the layers that hold them."""
    for module in twin.modules():
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0  # torch's own mark for "no fused kernel for this activation"


def convert(
    model: M,
    device: DeviceLike | MappingType[str, DeviceLike | None],
    *,
    crossbar: CrossbarLike | MappingType[str, CrossbarLike] = IDEAL,
    train_times: tuple[float | str, float | str] | None = None,
) -> M:
    """The analog twin of a network: a new module tree over the very same Parameters and buffers.

    ``model`` stays as it is and keeps giving the clean answer; an optimizer over its parameters trains both. State
    dicts have the same keys.

    Args:
        model: any module. `nn.Linear` and `nn.Conv1d/2d/3d` (exact types, and what `register_layer` added) become
            analog.
        device: a name, an `Effect`, a list of effects, a `DeviceModel`; or a mapping of glob patterns on module names
            to any of these, the first match wins, None keeps a layer digital (and says of one that cannot be analog
            that this is meant): ``{"fc": None, "layer4.*": "pcm", "*": "gaussian"}``.
        crossbar: the array that weights are laid on, its converters and wires: a `Crossbar`, or a name such as
            ``"standard"`` or ``"standard(adc_bits=6)"``; or a mapping of glob patterns to them, where what matches none
            is ideal. Default: ideal, and as large as needed.
        train_times: where drift times are drawn in training, log-uniform between the two. Default: one second to one
            year, or as far as the device's formulas go.

    Returns:
        The twin, of the same class, with the same train/eval flags.

    Raises:
        ValueError: nothing can be converted, a pattern has no effect, an unknown device, NaN or infinite weights, a
            time that a device has no formula for, a crossbar that cannot hold a weight.
        TypeError: ``model`` is not a module, or cannot be copied.

    Warns:
        ConversionWarning: once, for weights (two or more dimensions) that stay digital without having been asked to.

    Example:
        >>> import torch, analogsim
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> analog = analogsim.convert(model, device="pcm")
        >>> analog[0].weight is model[0].weight
        True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"convert: model must be a torch module, got {type(model).__name__}")
    span = None if train_times is None else [seconds(t) for t in train_times]
    if span is not None and (len(span) != 2 or not 0 < span[0] <= span[1]):
        raise ValueError(f"convert: train_times must be two times, 0 < first <= second, got {train_times!r}")
    names = names_of(model)
    for module, (name, *_) in names.items():
        if any(is_lazy(parameter) for parameter in module.parameters(recurse=False)):
            raise ValueError(f"convert: {name!r} has no weights yet; run a batch through the lazy module first")
        if isinstance(module, AnalogLayer):
            raise ValueError(f"convert: {name!r} is analog already; convert analogsim.to_digital(model) instead")  # noqa: TRY004
    chosen = _resolve(device, names)
    if not any(chosen.values()):
        kinds = ", ".join(sorted({type(module).__name__ for module in names}))
        raise ValueError(
            f"convert: nothing in {type(model).__name__} can run analog (or all of it is mapped to None); its modules "
            f"are: {kinds}. See analogsim.register_layer"
        )
    replaced: dict[nn.Module, nn.Module] = {}
    crossbars = _crossbars(crossbar, chosen, names)
    for module, choice in chosen.items():
        kind = analog_type(module)
        if choice is None or kind is None:
            continue
        weight = cast(Tensor, module.weight)
        if not weight.isfinite().all():
            raise ValueError(f"convert: the weight of layer {names[module][0]!r} holds NaN or infinite values")
        analog = kind.__new__(kind)
        array = crossbars[module]
        array.check(choice)
        layout = array.layout(weight.shape, getattr(module, "groups", 1), choice.laid)
        times = _train_times(choice) if span is None else (span[0], span[1])
        for t in times:
            choice.check_time(t)
        analog.__dict__["analog"] = AnalogState(names[module][0], choice, times, layout, array)
        replaced[module] = analog
    digital = {
        all_names[0]: (type(module).__name__, why_digital(module))
        for module, all_names in names.items()
        if module not in chosen and holds_matrix(module)
    }
    _warn_digital(digital)
    twin = copy_tree(model, replaced)
    _close_fast_paths(twin)
    return twin


def to_digital(analog: M, weights: Literal["clean", "programmed"] = "clean") -> M:
    """A plain network again.

    Args:
        analog: the twin.
        weights: ``"clean"``: over the very same Parameters. ``"programmed"``: with its own Parameters, which hold what
            the chip's weights are worth at its present time, drift compensation included; white read noise, which
            differs from use to use, is not in it, nor are converters.

    Raises:
        NotProgrammedError, StaleChipError: programmed weights were asked for, and there is no valid chip.
    """
    if weights not in ("clean", "programmed"):
        raise ValueError(f'to_digital: weights must be "clean" or "programmed", got {weights!r}')
    layers = analog_layers(analog)
    replaced: dict[nn.Module, nn.Module] = {}
    for layer in layers:
        kind = digital_type(layer)
        replaced[layer] = kind.__new__(kind)
    plain = copy_tree(analog, replaced, shared=[layer.analog for layer in layers])
    for new in replaced.values():
        del new.__dict__["analog"]
    if weights == "clean":
        return plain
    chips = layer_chips(analog, "to_digital")
    values = {
        layer: chip.layout.lift(chip.weight_for(layer.weight, layer.bias)[0], layer.weight.shape)
        for layer, chip in chips
    }
    computed = [layer.analog.name for layer in values if not isinstance(layer.weight, nn.Parameter)]
    if computed:
        raise ValueError(
            f"to_digital: the weight of layer {computed[0]!r} is computed from other Parameters (pruning, weight "
            "norm), which would undo the programmed one; make it permanent before convert"
        )
    own = own_copy(plain)
    # Ties are cut on purpose: two arrays that hold one weight hold it with two different errors.
    paths = names_of(analog)
    for layer, (weight, bias) in values.items():
        target = own.get_submodule(paths[layer][0])
        target.weight = nn.Parameter(weight.detach().clone(), requires_grad=layer.weight.requires_grad)
        if bias is not None and layer.bias is not None:
            target.bias = nn.Parameter(bias.detach().clone(), requires_grad=layer.bias.requires_grad)
    return own
