"""The registry from digital types to analog ones."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar, cast

from torch import nn

from analogsim.errors import InvalidTypeError, InvalidValueError, MissingPackageError
from analogsim.layers.foreign.experts import Experts, is_experts
from analogsim.layers.forwards import ends_in_base, lenders, reads_own
from analogsim.layers.module import AnalogLayer, AnalogModule, Extended
from analogsim.layers.products.discovery import Discovery
from analogsim.layers.routing import Borrowing, Found, Handing, Routed, RoutedLayer, discovered
from analogsim.layers.slot import Slot
from analogsim.utils.copying import ends_in_own_forward

A = TypeVar("A", bound=type[AnalogModule])


analog_types: dict[type[nn.Module], type[AnalogModule]] = {}


GROUP = "analogsim.layers"

# Types of packages that we do not import, and our modules that know them.
_FOREIGN = {
    "transformers.pytorch_utils.Conv1D": "analogsim.layers.foreign.huggingface",
    "torch_geometric.nn.dense.linear.Linear": "analogsim.layers.foreign.geometric",
}


def register_layer(digital: type[nn.Module]) -> Callable[[A], A]:
    """Register an analog class for a digital type, and for its subclasses without a ``forward`` of their own.

    A package that is installed need not be imported for it: an entry point of the group ``analogsim.layers`` has the
    digital type's path as its name (``my_package.nets.MyConv``, where it is defined), and as its value the analog class
    or the module that registers it. It is loaded when a network holds such a type;
    that it fails to load is an error only for a layer that would become analog.

    Args:
        digital: the type that `convert` replaces; an `AnalogLayer` needs a Parameter ``weight`` of shape
            ``(out, ...)``.

    Raises:
        TypeError: the analog class is not a subclass of both `AnalogLayer` (or another `AnalogModule`) and ``digital``.
        ValueError: another analog class has the digital type already.

    Example:
        A type with one matrix says how its product is taken; one with several says where they lie, and takes the
        products in its forward. They are linear unless their slots say otherwise.

        >>> import torch
        >>> from functools import partial
        >>> from analogsim.layers import AnalogLayer, AnalogModule, Slot, register_layer
        >>> class Turned(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.kernel = torch.nn.Parameter(torch.randn(4, 3))  # (in, out)
        ...     def forward(self, input):
        ...         return input @ self.kernel
        >>> @register_layer(Turned)
        ... class AnalogTurned(AnalogLayer, Turned):
        ...     bias = None
        ...     @classmethod
        ...     def slots(cls, module):
        ...         return {"": Slot("kernel", None, transposed=True)}
        ...     def product(self, input, weight, bias):
        ...         return torch.nn.functional.linear(input, weight, bias)
        >>> class Gated(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.value = torch.nn.Parameter(torch.randn(3, 4))
        ...         self.gate = torch.nn.Parameter(torch.randn(3, 4))
        ...     def forward(self, input):
        ...         return (input @ self.value.t()) * (input @ self.gate.t()).sigmoid()
        >>> @register_layer(Gated)
        ... class AnalogGated(AnalogModule, Gated):
        ...     @classmethod
        ...     def slots(cls, module):
        ...         return {name: Slot(name, None) for name in ("value", "gate")}
        ...     def forward(self, input):
        ...         return self.draw_of("value")(input) * self.draw_of("gate")(input).sigmoid()
        >>> from torch.nn.functional import conv2d
        >>> class Separable(torch.nn.Module):
        ...     def __init__(self, channels, stride):
        ...         super().__init__()
        ...         self.options = {"stride": stride, "padding": 1, "groups": channels}
        ...         self.depthwise = torch.nn.Parameter(torch.randn(channels, 1, 3, 3))
        ...         self.pointwise = torch.nn.Parameter(torch.randn(2 * channels, channels, 1, 1))
        ...         self.bias = torch.nn.Parameter(torch.zeros(2 * channels))
        ...     def forward(self, input):
        ...         return conv2d(conv2d(input, self.depthwise, None, **self.options).relu(), self.pointwise, self.bias)
        >>> @register_layer(Separable)
        ... class AnalogSeparable(AnalogModule, Separable):
        ...     @classmethod
        ...     def slots(cls, module):
        ...         own = partial(conv2d, **module.options)
        ...         return {
        ...             "depthwise": Slot("depthwise", None, groups=module.options["groups"], product=own),
        ...             "pointwise": Slot("pointwise", "bias", product=conv2d),
        ...         }
        ...     def forward(self, input):
        ...         return self.draw_of("pointwise")(self.draw_of("depthwise")(input).relu())
    """

    def add(analog: A) -> A:
        if not (issubclass(analog, AnalogModule) and issubclass(analog, digital)):
            raise InvalidTypeError(
                f"register_layer: {analog.__name__} must subclass AnalogLayer and {digital.__name__}"
            )
        if any(known is analog and kind is not digital for kind, known in analog_types.items()):
            raise InvalidValueError(f"register_layer: {analog.__name__} stands for another type already; subclass it")
        if analog_types.get(digital, analog) is not analog:
            raise InvalidValueError(
                f"register_layer: {digital.__name__} already becomes {analog_types[digital].__name__}"
            )
        analog.stands_for = digital
        analog_types[digital] = analog
        return analog

    return add


def register_routed(digital: type[nn.Module], weights: Mapping[str, str | Slot | None] | None = None) -> None:
    """Let `convert` follow a type whose forward takes products with weights by itself.

    Products are ``functional.linear``, convolutions, ``matmul``, ``einsum`` and the like, with a weight, a part or
    another form of it (transposed, cast, reshaped).

    Args:
        digital: the type.
        weights: its own Parameters that are such weights, ``(out, in, ...)``, each with the name of its bias (or None),
            or a `Slot` for one with groups, one ``(in, out)`` or of a transposed convolution, or one of many in a
            Parameter; default: none, only those of the layers in it.

    Raises:
        ValueError: the type has an analog class already.

    Example:
        >>> import torch, analogsim
        >>> class Gate(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.kernel = torch.nn.Parameter(torch.randn(3, 4))
        ...     def forward(self, input):
        ...         return torch.nn.functional.linear(input, self.kernel).sigmoid()
        >>> analogsim.register_routed(Gate, {"kernel": None})
        >>> print(analogsim.convert(Gate(), "pcm"))
        AnalogGate(device=pcm, no chip)
    """
    known = {name: told if isinstance(told, Slot) else Slot(name, told) for name, told in (weights or {}).items()}
    register_layer(digital)(_derived((Routed, digital), digital, {"slots": classmethod(lambda cls, module: known)}))


_subclasses: dict[type[nn.Module], type[AnalogModule]] = {}


def _derived(
    bases: tuple[type[nn.Module], ...], digital: type[nn.Module], more: dict[str, Any] | None = None
) -> type[AnalogModule]:
    """The analog class of a digital type, made of it and others. It can be pickled where the digital type can."""
    if more or digital not in _subclasses:
        body = {"stands_for": digital, "__module__": digital.__module__, "__doc__": bases[0].__doc__}
        body |= {"__reduce_ex__": lambda self, protocol: (_rebuild, (digital,), self.__getstate__())}
        made = cast("type[AnalogModule]", type(f"Analog{digital.__name__}", bases, body | (more or {})))
        if more:
            return made
        _subclasses[digital] = made
    return _subclasses[digital]


def _rebuild(digital: type[nn.Module]) -> AnalogModule:
    """An empty analog module for a digital type, to unpickle into."""
    kind = _class_for(digital)
    if kind is None:
        raise InvalidTypeError(f"{digital.__name__} has no analog layer here; register it before loading")
    return kind.__new__(kind)


_found_types: dict[type[nn.Module], type[AnalogModule]] = {}


def _found_type(digital: type[nn.Module]) -> type[AnalogModule]:
    """The analog class of a type whose products examples show."""
    if digital not in _found_types:
        again = {"__reduce_ex__": lambda self, protocol: (_rebuild_found, (digital,), self.__getstate__())}
        _found_types[digital] = _derived((Found, digital), digital, again)
    return _found_types[digital]


def _rebuild_found(digital: type[nn.Module]) -> AnalogModule:
    """As `_rebuild`."""
    kind = _found_type(digital)
    return kind.__new__(kind)


def discover(model: nn.Module, forward: Callable[[], object]) -> None:
    """Learn from a forward in which products modules of unregistered types take their bare Parameters.

    Args:
        model: the network.
        forward: runs it on an example.
    """
    unknown = {module: _bare_parameters(module) for module in model.modules() if _is_unknown(module)}
    search = Discovery(model, {module: names for module, names in unknown.items() if names})
    search.run(forward)
    for module, slots in search.found.items():
        discovered[module] = slots


def _is_unknown(module: nn.Module) -> bool:
    """Whether nobody says of a module what its own Parameters are."""
    if module in discovered:
        return True
    known = _lookup(module)
    borrows = isinstance(known, type) and issubclass(known, Borrowing)
    return borrows or (known is None and "forward" not in vars(module))


def _bare_parameters(module: nn.Module) -> list[str]:
    named = module.named_parameters(recurse=False)
    return [name for name, parameter in named if parameter.ndim > 1 and parameter.is_floating_point()]


def analog_type(module: nn.Module) -> type[AnalogModule] | None:
    """The analog class for a digital module.

    None for one without, with another ``forward`` put in its place (see `replaced_type`), or with a `failed_offer`.
    """
    found = _lookup(module)
    return found if isinstance(found, type) else None


def replaced_type(module: nn.Module) -> type[AnalogModule] | None:
    """The analog class that a module would have, had its forward not been replaced by one that does not end in it."""
    if "forward" not in vars(module) or ends_in_own_forward(module):
        return None
    try:
        return _class_for(type(module))
    except _FAILURES:
        return None


def failed_offer(module: nn.Module) -> Exception | None:
    """Why the analog layer that installed packages offer for a digital module cannot be had.

    None where nothing is offered, or all is well. Whoever wants the module analog raises it.
    """
    found = _lookup(module)
    return found if isinstance(found, Exception) else None


def _lookup(module: nn.Module) -> type[AnalogModule] | Exception | None:
    if "forward" in vars(module) and not ends_in_own_forward(module):
        return None
    if module in discovered:
        return _found_type(type(module))
    try:
        found = _class_for(type(module))
    except _FAILURES as error:
        return error
    return found if found is None or _fits(found, module) else None


def _fits(kind: type[AnalogModule], module: nn.Module) -> bool:
    """Whether an analog class that nobody wrote, but for what forwards of the type do, is one for a module."""
    if issubclass(kind, Handing):
        weights = {slot.weight for slot in kind.slots(module).values()}
        return bool(weights) and weights <= reads_own(type(module))
    return not issubclass(kind, Borrowing) or _borrows(module)


def _borrows(module: nn.Module) -> bool:
    """Whether a module that reads weights of others reads those of layers: a table's are seldom part of a product."""
    read = [getattr(module, name, module) if name else module for name in lenders(type(module))]
    kinds = [analog_type(lender) if isinstance(lender, nn.Module) and lender is not module else None for lender in read]
    return any(lender is module for lender in read) or any(kind is not None and not kind.stored for kind in kinds)


@functools.cache
def _offers() -> dict[str, dict[str, EntryPoint]]:
    """Analog layers that nobody imported yet: by the path of the digital type, and where to find them."""
    found = {name: {value: EntryPoint(name, value, GROUP)} for name, value in _FOREIGN.items()}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, {})[point.value] = point
    return found


_FAILURES = (ImportError, TypeError, ValueError)

_failures: dict[type[nn.Module], Exception] = {}


def _load(kind: type[nn.Module], offers: dict[str, EntryPoint]) -> None:
    """Register what is offered for a type.

    Raises:
        ValueError: there are several offers.
        ImportError, TypeError, ValueError: the offer cannot be loaded, or is none.
    """
    name = f"{kind.__module__}.{kind.__qualname__}"
    if len(offers) > 1:
        raise InvalidValueError(
            f"convert: several installed packages offer an analog layer for {name}: {', '.join(sorted(offers))}; keep "
            "one of them"
        )
    ((value, point),) = offers.items()
    try:
        loaded = point.load()
    except Exception as error:
        raise MissingPackageError(
            f"convert: the analog layer of {name} is offered by an installed package as {value!r}, which fails to "
            f"load: {type(error).__name__}: {error}; mapped to None the layer stays digital"
        ) from error
    if kind not in analog_types and isinstance(loaded, type):
        try:
            register_layer(kind)(cast(Any, loaded))
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"convert: the analog layer of {name} is offered by an installed package as {value!r}: {error}"
            ) from error
    if kind not in analog_types:
        raise InvalidTypeError(
            f"convert: {value!r} is offered by an installed package as the analog layer of {name}, and registers none "
            f"for it; it must be a class that subclasses AnalogLayer and {kind.__name__}, or a module with "
            f"@register_layer({kind.__name__})"
        )


def _known(kind: type[nn.Module]) -> type[AnalogModule] | None:
    """The analog class of just this type: registered, or offered by an installed package."""
    offers = _offers().get(f"{kind.__module__}.{kind.__qualname__}")
    # Of several the one that happens to be imported must not win.
    if offers is not None and (kind not in analog_types or len(offers) > 1):
        if kind not in _failures:  # a second try may take long as well
            try:
                _load(kind, offers)
            except _FAILURES as error:
                _failures[kind] = error.with_traceback(None)
        if (known := _failures.get(kind)) is not None:  # a copy, since what is raised holds on to networks
            raise type(known)(*known.args) from known.__cause__
    return analog_types.get(kind)


def _class_for(kind: type[nn.Module]) -> type[AnalogModule] | None:
    if issubclass(kind, AnalogModule):
        return None
    for base in kind.__mro__:
        known = _known(base)
        if known is None:
            continue
        if base is kind:
            return known
        if kind.forward is cast(Any, base).forward:
            return _derived((known, kind), kind)
        if issubclass(known, AnalogLayer):
            return _derived((RoutedLayer, known, kind), kind)
        if ends_in_base(kind, base):
            return _derived((Extended, kind, known), kind)
        return _derived((Handing, known, kind), kind)
    if is_experts(kind):
        return _derived((Experts, kind), kind)
    return _derived((Borrowing, kind), kind) if lenders(kind) else None
