"""The walk: digital network -> analog twin over the very same Parameters, and back."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from fnmatch import fnmatchcase
from textwrap import shorten
from typing import Literal, cast

from torch import nn
from torch.nn.parameter import is_lazy

from analogsim.crossbar.crossbar import IDEAL, Crossbar, CrossbarLike, as_crossbar
from analogsim.device.model import DeviceModel
from analogsim.device.parse import DeviceLike, as_device_model
from analogsim.errors import ConversionWarning
from analogsim.layers.candidates import hides_layers, holds_matrix, unplaced, weight_rules, why_digital
from analogsim.layers.module import AnalogLayer, AnalogModule, chips_of, matrices_of
from analogsim.layers.registry import analog_type
from analogsim.layers.slot import Slot, still
from analogsim.layers.state import AnalogState
from analogsim.utils.modules import M, copy_tree, names_of, own_copy
from analogsim.utils.times import seconds


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
    """A subclass of torch's encoder layer may end in torch's forward, which goes past the layers below in eval."""
    closed = set()
    for module in twin.modules():
        if not isinstance(module, nn.TransformerEncoderLayer) or isinstance(module, AnalogModule):
            continue
        if any(isinstance(below, AnalogModule) for below in module.modules()):
            module.activation_relu_or_gelu = 0  # torch's own mark for "no fused kernel for this activation"
            closed.add(module)
    for module in twin.modules():
        if isinstance(module, nn.TransformerEncoder) and closed.intersection(module.layers):
            module.use_nested_tensor = False  # only the fused kernel takes them


def convert(
    model: M,
    device: DeviceLike | MappingType[str, DeviceLike | None],
    *,
    crossbar: CrossbarLike | MappingType[str, CrossbarLike] = IDEAL,
    train_times: tuple[float | str, float | str] | None = None,
    embeddings: bool = False,
) -> M:
    """The analog twin of a network: a new module tree over the very same Parameters and buffers.

    ``model`` stays as it is and keeps giving the clean answer; an optimizer over its parameters trains both. State
    dicts have the same keys.

    Args:
        model: any module. Layers become analog by their type, see the table in the documentation of networks and what
            `register_layer` added; subclasses too, unless their ``forward`` hides the product with the weight.
        device: a name, an `Effect`, a list of effects, a `DeviceModel`; or a mapping of glob patterns on module names
            to any of these, the first match wins, None keeps a layer digital (and says of one that cannot be analog
            that this is meant): ``{"fc": None, "layer4.*": "pcm", "*": "gaussian"}``. The matrices of a module with
            several go by its name and one of their own: ``"encoder.self_attn.q_proj"``, ``"lstm.weight_hh_l0"``.
        crossbar: the array that weights are laid on, its converters and wires: a `Crossbar`, or a name such as
            ``"standard"`` or ``"standard(adc_bits=6)"``; or a mapping of glob patterns to them, where what matches none
            is ideal. Default: ideal, and as large as needed.
        train_times: where drift times are drawn in training, log-uniform between the two. Default: one second to one
            year, or as far as the device's formulas go.
        embeddings: whether tables that are looked up (`nn.Embedding`, `nn.EmbeddingBag`) are stored on crossbars too.

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
        if isinstance(module, AnalogModule):
            raise ValueError(f"convert: {name!r} is analog already; convert analogsim.to_digital(model) instead")  # noqa: TRY004
    places = _places(names, embeddings)
    chosen, meant = _resolve(device, places, names)
    if not any(chosen.values()):
        kinds = ", ".join(sorted({type(module).__name__ for module in names}))
        raise ValueError(
            f"convert: nothing in {type(model).__name__} can run analog (or all of it is mapped to None); its modules "
            f"are: {kinds}. See analogsim.register_layer"
        )
    crossbars = _crossbars(crossbar, chosen)
    states: dict[nn.Module, dict[str, AnalogState]] = {}
    for place, choice in chosen.items():
        if choice is not None:
            state = _state(place, choice, crossbars[place], None if span is None else (span[0], span[1]))
            states.setdefault(place.module, {})[place.label] = state
    _warn_digital(_unasked(names, {place.module for place in chosen} | meant, states, embeddings))
    replaced: dict[nn.Module, nn.Module] = {}
    for module in names:
        kind = analog_type(module)
        # One with matrices in the modules below hands their weights on by itself, and must not go past them.
        if kind is not None and (module in states or _hands_on(kind, module, states)):
            analog = kind.__new__(kind)
            analog.attach(states.get(module, {}), module)
            replaced[module] = analog
    twin = copy_tree(model, replaced)
    _close_fast_paths(twin)
    return twin


def _hands_on(kind: type[AnalogModule], module: nn.Module, states: dict[nn.Module, dict[str, AnalogState]]) -> bool:
    return not issubclass(kind, AnalogLayer) and any(below in states for below in module.modules())


def _state(place: _Place, device: DeviceModel, array: Crossbar, span: tuple[float, float] | None) -> AnalogState:
    weight, _ = still(place.module, place.slot)
    if not weight.isfinite().all():
        raise ValueError(f"convert: the weight of layer {place.name!r} holds NaN or infinite values")
    array.check(device)
    times = _train_times(device) if span is None else span
    for t in times:
        device.check_time(t)
    layout = array.layout(weight.shape, place.slot.groups, device.laid)
    return AnalogState(place.name, device, times, weight.shape, layout, array)


def _unasked(
    names: dict[nn.Module, list[str]],
    asked: set[nn.Module],
    states: dict[nn.Module, dict[str, AnalogState]],
    embeddings: bool,
) -> dict[str, tuple[str, str]]:
    """The modules with matrices that stay digital without having been asked to: type, and why."""
    rows = {}
    inside = set().union(*(weight_rules(module) for module in asked))
    hidden = _hidden(names)
    for module, (name, *_) in names.items():
        kind = analog_type(module)
        if module in inside or (kind is not None and kind.stored and not embeddings):
            continue
        if module not in asked:
            if holds_matrix(module):
                why = "the module around it may read its weight" if module in hidden else why_digital(module)
                rows[name] = type(module).__name__, why
        elif module in states and kind is not None and (others := unplaced(module, kind)):
            rows[name] = type(module).__name__, f"its {', '.join(others)} are no weights of a product it is known for"
    return rows


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
    replaced: dict[nn.Module, nn.Module] = {}
    states = [matrix.analog for matrix in matrices_of(analog)]
    for module in analog.modules():
        if isinstance(module, AnalogModule):
            replaced[module] = module.stands_for.__new__(module.stands_for)
    plain = copy_tree(analog, replaced, shared=states)
    for old, new in replaced.items():
        for name in cast(AnalogModule, old).analog_only:
            new.__dict__.pop(name, None)
    if weights == "clean":
        return plain
    values = {
        matrix: matrix.analog.layout.lift(chip.weight_for(matrix.matrix, matrix.bias)[0], matrix.analog.shape)
        for matrix, chip in chips_of(analog, "to_digital")
    }
    computed = [matrix.analog.name for matrix in values if matrix.computed]
    if computed:
        raise ValueError(
            f"to_digital: the weight of layer {computed[0]!r} is computed from other Parameters (pruning, weight "
            "norm), which would undo the programmed one; make it permanent before convert"
        )
    own = own_copy(plain)
    for module, (name, *_) in names_of(analog).items():
        if not isinstance(module, AnalogModule):
            continue
        target = own.get_submodule(name)
        slots = module.slots(module)
        # Ties are cut on purpose: two arrays that hold one weight hold it with two different errors.
        for entry in {entry for slot in slots.values() for entry in (slot.weight, slot.bias) if entry is not None}:
            tied = getattr(target, entry, None)
            if tied is not None:
                setattr(target, entry, nn.Parameter(tied.detach().clone(), requires_grad=tied.requires_grad))
        for label, matrix in module.matrices.items():
            slots[label].put(target, *values[matrix])
    return own
