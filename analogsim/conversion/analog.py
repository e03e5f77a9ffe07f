"""The walk: digital network -> analog twin over the very same Parameters."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable

from torch import nn

from analogsim.conversion.example import learn_products, try_example, try_layers
from analogsim.conversion.first_forward import watch_first_forward
from analogsim.conversion.patterns import (
    Candidate,
    Crossbars,
    Devices,
    choose_crossbars,
    choose_devices,
    find_candidates,
    find_hidden,
)
from analogsim.conversion.refusals import check_functions, check_model, check_modules, check_twin, check_weight
from analogsim.crossbar.crossbar import IDEAL, Crossbar, CrossbarLike
from analogsim.device.model import DeviceModel
from analogsim.device.parse import DeviceLike
from analogsim.errors import ConversionWarning, InvalidValueError
from analogsim.layers.candidates import UNREGISTERED, holds_matrix, is_matrix, unplaced, weight_rules, why_digital
from analogsim.layers.module import AnalogLayer, AnalogModule, watch_rules
from analogsim.layers.registry import analog_type, failed_offer
from analogsim.layers.slot import still
from analogsim.layers.state import AnalogState, weights_are_fixed
from analogsim.utils.batches import Inputs
from analogsim.utils.checks import check_flag, check_sequence
from analogsim.utils.copying import Contents
from analogsim.utils.modules import M, copy_tree, find_unregistered, names_of, title_of
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
    device: DeviceLike | Devices,
    *,
    crossbar: CrossbarLike | Crossbars = IDEAL,
    train_times: tuple[float | str, float | str] | None = None,
    embeddings: bool = False,
    example: Inputs | None = None,
) -> M:
    """The analog twin of a network: a new module tree over the very same Parameters and buffers.

    ``model`` stays as it is and keeps giving the clean answer; an optimizer over its parameters trains both. State
    dicts have the same keys. What changes how the modules are made (pruning, weight norm, another layer in the place of
    one, hooks that compute) belongs before: the twin is of the network as it is now.

    Functions in the network that hold modules of it (closures, decorated or replaced forwards, ``functools.partial``,
    hooks) are made anew over the modules of the twin; what cannot be is refused.

    Args:
        model: any module. Layers become analog by their type, see the table in the documentation of networks and what
            `register_layer` added; subclasses too, unless their ``forward`` hides the product with the weight.
        device: a name, an `Effect`, a list of effects, a `DeviceModel`; or a mapping of glob patterns on module names
            to any of these, the first match wins, None keeps a layer digital (and says of one that cannot be analog
            that this is meant): ``{"fc": None, "layer4.*": "pcm", "*": "gaussian"}``. The matrices of a module with
            several go by its name and one of their own: ``"encoder.self_attn.q_proj"``, ``"lstm.weight_hh_l0"``. In the
            place of a pattern may stand a type, which means all modules of it and its subclasses (not the layers in
            them): ``{nn.Conv2d: None, "*": "pcm"}``.
        crossbar: the array that weights are laid on, its converters and wires: a `Crossbar`, or a name such as
            ``"standard"`` or ``"standard(adc_bits=6)"``; or a mapping of patterns or types to them, where what matches
            none is ideal. Default: ideal, and as large as needed.
        train_times: where drift times are drawn in training, log-uniform between the two. Default: one second to one
            year, or as far as the device's formulas go.
        embeddings: whether tables that are looked up (`nn.Embedding`, `nn.EmbeddingBag`) are stored on crossbars too.
        example: inputs for one forward of the model and one of the twin, in eval, without noise and converters: a
            tensor, a tuple of arguments, or a mapping of keyword arguments. What fails there, answers otherwise than
            the model, or has no part in the answer is said at once; modes, buffers and random states stay as they are.
            It also shows in which products modules of types that nobody registered take their bare Parameters: these
            run analog too.
            Default: no forward.

    Returns:
        The twin, of the same class, with the same train/eval flags.

    Raises:
        ValueError: nothing can be converted, a pattern has no effect, an unknown device, weights that are NaN,
            infinite, empty or without values, a time that a device has no formula for, a crossbar that cannot hold a
            weight; the example fails in the twin, is answered otherwise, or meets no analog layer.
        NotRoutedError: a layer of a known type has a forward of its own that takes no product with its weight.
        TypeError: ``model`` is not a module, is scripted, exported or wrapped for several devices, or cannot be copied;
            a weight is complex, sparse or made of integers; a function in it runs layers past the twin.

    Warns:
        ConversionWarning: for weights (two or more dimensions) that stay digital without having been asked to, and for
            analog layers without a part in the answer to the example.

    The first forwards of the twin show whether its analog layers have a part in them: that none has is a
    `analogsim.errors.BypassedError`, that some have none in the first forward in training a ConversionWarning, once.
    Calls of parts of the twin are not looked at.

    Example:
        >>> import torch, analogsim
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> analog = analogsim.convert(model, device="pcm")
        >>> analog[0].weight is model[0].weight
        True
    """
    check_model(model)
    check_flag(embeddings, "convert: embeddings")
    span = _read_times(train_times)
    names = names_of(model)
    check_modules(names)
    if example is not None:
        learn_products(model, example)
    candidates = find_candidates(names, embeddings)
    contents = Contents(model)
    outside = find_unregistered(contents, names)
    chosen, meant = choose_devices(device, candidates, names, outside)
    devices = {candidate: choice for candidate, choice in chosen.items() if choice is not None}
    if not devices:
        raise InvalidValueError(_nothing_analog(model, names, chosen, candidates, outside))
    _check_offers(devices)
    crossbars = choose_crossbars(crossbar, list(devices))
    states: dict[nn.Module, dict[str, AnalogState]] = {}
    fixed = weights_are_fixed()
    for candidate, choice in devices.items():
        state = _make_state(candidate, choice, crossbars[candidate], span)
        state.fixed = fixed
        states.setdefault(candidate.module, {})[candidate.label] = state
    check_functions(contents, names, states)
    layers = _make_layers(names, states)
    asked = meant.union(candidate.module for candidate in chosen)
    unasked = _find_unasked(names, asked, states, embeddings)
    _warn_digital(unasked | _name_outside(outside, meant))
    twin = copy_tree(model, layers, contents=contents)
    check_twin(twin, names, layers)
    _close_fast_paths(twin)
    watch_rules(twin)
    try_layers(twin)
    if example is not None:
        _warn_idle(try_example(model, twin, example))
    watch_first_forward(twin)
    return twin


def _nothing_analog(
    model: nn.Module,
    names: dict[nn.Module, list[str]],
    chosen: dict[Candidate, DeviceModel | None],
    candidates: list[Candidate],
    outside: dict[str, nn.Module | nn.Parameter],
) -> str:
    """Why nothing of a network would be analog."""
    start = f"convert: nothing in {type(model).__name__} can run analog"
    if candidates:
        unmatched = [candidate.name for candidate in candidates if candidate not in chosen]
        told = [f"{len(chosen)} of its {len(candidates)} matrices are mapped to None"]
        told += [f"no pattern matches {', '.join(map(repr, unmatched[:5]))}"] if unmatched else []
        return f"{start}: {', '.join(told)}. Map some to a device"
    reasons = [
        f"{title_of(all_names[0])} ({type(module).__name__}): {why_digital(module)}"
        for module, all_names in names.items()
        if holds_matrix(module)
    ]
    reasons += [f"{path!r} ({type(found).__name__}): {UNREGISTERED}" for path, found in outside.items()]
    if reasons:
        more = f"; and {len(reasons) - 5} more" if len(reasons) > 5 else ""
        return f"{start}: {'; '.join(reasons[:5])}{more}"
    kinds = ", ".join(sorted({type(module).__name__ for module in names}))
    return f"{start}; its modules are: {kinds}. See analogsim.register_layer"


def _name_outside(
    outside: dict[str, nn.Module | nn.Parameter], meant: set[nn.Module | nn.Parameter]
) -> dict[str, tuple[str, str]]:
    """What stays digital because torch does not know of it: type, and why."""
    return {
        path: (type(found).__name__, UNREGISTERED)
        for path, found in outside.items()
        if found not in meant and (isinstance(found, nn.Module) or is_matrix(found))
    }


def _warn_idle(names: list[str]) -> None:
    """Say which analog matrices had no part in a forward."""
    if names:
        listed = ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
        warnings.warn(
            f"convert: analog layers without a part in the forward on the example: {listed}. What they would compute "
            "is left out in eval, or runs digital by their weights; analogsim.audit tells which. Map them to None if "
            "this is meant",
            ConversionWarning,
            stacklevel=3,
        )


def _read_times(train_times: tuple[float | str, float | str] | None) -> tuple[float, float] | None:
    """The two in seconds."""
    if train_times is None:
        return None
    span = [seconds(t) for t in check_sequence(train_times, "convert: train_times", '("1s", "1y")')]
    if len(span) != 2 or not 0 < span[0] <= span[1]:
        raise InvalidValueError(f"convert: train_times must be two times, 0 < first <= second, got {train_times!r}")
    return span[0], span[1]


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
    check_weight(candidate.name, weight)
    array.check(device)
    times = _train_times(device) if span is None else span
    for t in times:
        device.check_time(t)
    layout = array.layout(weight.shape, candidate.slot.groups, device.laid)
    return AnalogState(candidate.name, device, times, weight.shape, layout, array)


def _find_unasked(
    names: dict[nn.Module, list[str]],
    asked: set[nn.Module | nn.Parameter],
    states: dict[nn.Module, dict[str, AnalogState]],
    embeddings: bool,
) -> dict[str, tuple[str, str]]:
    """The modules with matrices that stay digital without having been asked to: type, and why."""
    rows = {}
    inside = set().union(*(weight_rules(module) for module in asked if isinstance(module, nn.Module)))
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
