"""The walk: digital network -> analog twin over the very same Parameters."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable
from collections.abc import Mapping as MappingType

from torch import nn
from torch.nn.parameter import is_lazy

from analogsim.conversion.patterns import Candidate, choose_crossbars, choose_devices, find_candidates, find_hidden
from analogsim.crossbar.crossbar import IDEAL, Crossbar, CrossbarLike
from analogsim.device.model import DeviceModel
from analogsim.device.parse import DeviceLike
from analogsim.errors import ConversionWarning
from analogsim.layers.candidates import holds_matrix, unplaced, weight_rules, why_digital
from analogsim.layers.module import AnalogLayer, AnalogModule
from analogsim.layers.registry import analog_type, failed_offer
from analogsim.layers.slot import still
from analogsim.layers.state import AnalogState
from analogsim.utils.modules import M, copy_tree, names_of
from analogsim.utils.times import seconds


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
    span = _read_times(train_times)
    names = names_of(model)
    _check_modules(names)
    candidates = find_candidates(names, embeddings)
    chosen, meant = choose_devices(device, candidates, names)
    devices = {candidate: choice for candidate, choice in chosen.items() if choice is not None}
    if not devices:
        kinds = ", ".join(sorted({type(module).__name__ for module in names}))
        raise ValueError(
            f"convert: nothing in {type(model).__name__} can run analog (or all of it is mapped to None); its modules "
            f"are: {kinds}. See analogsim.register_layer"
        )
    _check_offers(devices)
    crossbars = choose_crossbars(crossbar, list(devices))
    states: dict[nn.Module, dict[str, AnalogState]] = {}
    for candidate, choice in devices.items():
        state = _make_state(candidate, choice, crossbars[candidate], span)
        states.setdefault(candidate.module, {})[candidate.label] = state
    _warn_digital(_find_unasked(names, {candidate.module for candidate in chosen} | meant, states, embeddings))
    twin = copy_tree(model, _make_layers(names, states))
    _close_fast_paths(twin)
    return twin


def _read_times(train_times: tuple[float | str, float | str] | None) -> tuple[float, float] | None:
    """The two in seconds."""
    if train_times is None:
        return None
    span = [seconds(t) for t in train_times]
    if len(span) != 2 or not 0 < span[0] <= span[1]:
        raise ValueError(f"convert: train_times must be two times, 0 < first <= second, got {train_times!r}")
    return span[0], span[1]


def _check_modules(names: dict[nn.Module, list[str]]) -> None:
    """Refuse modules that have no weights yet, or are analog already."""
    for module, (name, *_) in names.items():
        if any(is_lazy(parameter) for parameter in module.parameters(recurse=False)):
            raise ValueError(f"convert: {name!r} has no weights yet; run a batch through the lazy module first")
        if isinstance(module, AnalogModule):
            raise ValueError(f"convert: {name!r} is analog already; convert analogsim.to_digital(model) instead")  # noqa: TRY004


def _check_offers(candidates: Iterable[Candidate]) -> None:
    """Raise why the analog layer of one cannot be had."""
    for candidate in candidates:
        if candidate.failure is not None:
            raise candidate.failure


def _make_layers(
    names: dict[nn.Module, list[str]], states: dict[nn.Module, dict[str, AnalogState]]
) -> dict[nn.Module, nn.Module]:
    """The analog layers that take the places of modules."""
    replaced: dict[nn.Module, nn.Module] = {}
    for module in names:
        kind = analog_type(module)
        failure = failed_offer(module) if kind is None else None
        if failure is not None and any(below in states for below in module.modules()):
            raise failure
        # One with matrices in the modules below hands their weights on by itself, and must not go past them.
        if kind is not None and (module in states or _hands_on(kind, module, states)):
            analog = kind.__new__(kind)
            analog.attach(states.get(module, {}), module)
            replaced[module] = analog
    return replaced


def _hands_on(kind: type[AnalogModule], module: nn.Module, states: dict[nn.Module, dict[str, AnalogState]]) -> bool:
    return not issubclass(kind, AnalogLayer) and any(below in states for below in module.modules())


def _make_state(
    candidate: Candidate, device: DeviceModel, array: Crossbar, span: tuple[float, float] | None
) -> AnalogState:
    weight, _ = still(candidate.module, candidate.slot)
    if not weight.isfinite().all():
        raise ValueError(f"convert: the weight of layer {candidate.name!r} holds NaN or infinite values")
    array.check(device)
    times = _train_times(device) if span is None else span
    for t in times:
        device.check_time(t)
    layout = array.layout(weight.shape, candidate.slot.groups, device.laid)
    return AnalogState(candidate.name, device, times, weight.shape, layout, array)


def _find_unasked(
    names: dict[nn.Module, list[str]],
    asked: set[nn.Module],
    states: dict[nn.Module, dict[str, AnalogState]],
    embeddings: bool,
) -> dict[str, tuple[str, str]]:
    """The modules with matrices that stay digital without having been asked to: type, and why."""
    rows = {}
    inside = set().union(*(weight_rules(module) for module in asked))
    hidden = find_hidden(names)
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
