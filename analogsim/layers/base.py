"""Modules with matrices on crossbars, and the registry from digital to analog types."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, ClassVar, Self, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from analogsim.errors import NotRoutedError
from analogsim.layers.matrix import AnalogMatrix, AnalogState, Drawn, Part, Slot, still
from analogsim.layers.route import Routing


class AnalogModule(nn.Module):
    """A module that stands for a digital one, with one matrix or several on crossbars.

    Subclasses also derive from the digital module. They say in `slots` where its matrices lie, and in ``forward`` take
    the products with `draw_of`, one draw of each matrix for each forward.

    Attributes:
        matrices: those that are analog, by label.
    """

    stands_for: ClassVar[type[nn.Module]]
    stored: ClassVar[bool] = False  # a table that is looked up: analog only on request
    analog_only: ClassVar[tuple[str, ...]] = ("matrices",)  # attributes that the digital module does not have
    matrices: Mapping[str, AnalogMatrix]

    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        """The matrices of a digital module by label."""
        raise NotImplementedError(f"{cls.__name__} must implement slots(module)")

    def attach(self, states: dict[str, AnalogState], module: nn.Module) -> None:
        """Take over what is known of the analog ones among the matrices of a digital module."""
        slots = self.slots(module)
        self.__dict__["matrices"] = {label: Part(self, slots[label], state) for label, state in states.items()}

    def draw_of(self, label: str) -> Drawn | Clean:
        """What one forward finds in a matrix: a draw, or the clean weights where it stays digital."""
        if label in self.matrices:
            return self.matrices[label].draw()
        return Clean(self, self.slots(self)[label])

    def train(self, mode: bool = True) -> Self:
        """As in torch; a programmed chip is compared with the weights again at the next eval forward."""
        for matrix in self.matrices.values():
            if matrix.analog.chip is not None:
                matrix.analog.chip.suspect()
        return super().train(mode)

    def extra_repr(self) -> str:
        """The digital module's own, with device, crossbar and chip."""
        told: dict[str, None] = {}
        for matrix in self.matrices.values():
            state = matrix.analog
            chip = "no chip" if state.chip is None else state.chip.describe()
            crossbar = str(state.crossbar)
            told[f"device={state.device.name}, {crossbar + ', ' if crossbar != 'ideal' else ''}{chip}"] = None
        return ", ".join(part for part in (super().extra_repr(), *told) if part)


class Clean:
    """The exact products of a matrix that stays digital, in the form of a `Drawn`.

    Args:
        module: has the matrix.
        slot: says where.
    """

    def __init__(self, module: nn.Module, slot: Slot) -> None:
        self.plain: tuple[Tensor, Tensor | None] = slot.matrix(module), slot.bias_of(module)

    def __call__(self, input: Tensor) -> Tensor:
        """The product ``(..., out)`` with an input ``(..., in)``."""
        return nn.functional.linear(input, *self.plain)


class AnalogLayer(AnalogMatrix, AnalogModule):
    """A layer with one matrix, whose products run on crossbars.

    Subclasses also derive from the digital layer and implement `product`. Their weight is a Parameter ``weight`` of
    shape ``(out, ...)``, unless `slots` says otherwise.
    """

    weight: Tensor
    analog_only = ("analog", "_slot")

    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        """See `AnalogModule.slots`; the label of the one matrix is empty."""
        return {"": Slot()}

    def attach(self, states: dict[str, AnalogState], module: nn.Module) -> None:
        """See `AnalogModule.attach`."""
        self.__dict__["analog"] = states[""]
        self.__dict__["_slot"] = self.slots(module)[""]

    @property
    def matrices(self) -> Mapping[str, AnalogMatrix]:  # type: ignore[override]
        """Itself."""
        return {"": self} if "analog" in self.__dict__ else {}

    @property
    def matrix(self) -> Tensor:
        """See `AnalogMatrix.matrix`."""
        return cast(Slot, self._slot).matrix(self)

    def still(self) -> tuple[Tensor, Tensor | None]:
        """See `AnalogMatrix.still`."""
        return still(self, cast(Slot, self._slot))

    @property
    def device(self) -> torch.device:
        """See `AnalogMatrix.device`."""
        return cast(Slot, self._slot).parameters(self)[0].device

    @property
    def computed(self) -> bool:
        """See `AnalogMatrix.computed`."""
        return cast(Slot, self._slot).weight not in self._parameters

    def put(self, matrix: Tensor) -> None:
        """See `AnalogMatrix.put`."""
        cast(Slot, self._slot).put(self, matrix)

    def forward(self, input: Tensor) -> Tensor:
        """The layer's answer: fresh noise in training, the programmed chip in eval."""
        return self.draw()(input)


class Routed(AnalogModule):
    """Runs the forward of the digital type; what takes a weight of an analog matrix there goes through its crossbars.

    For modules that hand weights to ``functional.linear`` or a convolution by themselves: their own, or those of the
    layers in them.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The digital forward with its products routed."""
        own = list(self.matrices.values())
        inner = [matrix for matrix in _matrices_in(self) if matrix not in own]
        # What parametrizations compute is known by its identity, and computed once.
        computed = any(matrix.computed for matrix in (*own, *inner))
        with parametrize.cached() if computed else nullcontext():
            routing = Routing([*own, *inner])
            with routing:
                output = self.stands_for.forward(self, *args, **kwargs)
        for matrix in own:
            if matrix not in routing.used:
                raise NotRoutedError(
                    f"layer {matrix.analog.title!r}: the forward of {self.stands_for.__name__} did not take its weight "
                    "as it is in functional.linear or a convolution, so that its product cannot run analog; map the "
                    "layer to None, or give its type an analog layer (analogsim.register_layer)"
                )
        return output


A = TypeVar("A", bound=type[AnalogModule])

_analog_types: dict[type[nn.Module], type[AnalogModule]] = {}

# Types of packages that we do not import, and our modules that know them.
_ADAPTERS = {
    "transformers.pytorch_utils.Conv1D": "analogsim.layers.huggingface",
    "torchvision.models.swin_transformer.ShiftedWindowAttention": "analogsim.layers.swin",
    "torchvision.models.swin_transformer.ShiftedWindowAttentionV2": "analogsim.layers.swin",
}


def register_layer(digital: type[nn.Module]) -> Callable[[A], A]:
    """Register an analog class for a digital type, and for its subclasses without a ``forward`` of their own.

    Args:
        digital: the type that `convert` replaces; an `AnalogLayer` needs a Parameter ``weight`` of shape
            ``(out, ...)``.

    Raises:
        TypeError: the analog class is not a subclass of both `AnalogLayer` (or another `AnalogModule`) and ``digital``.
        ValueError: another analog class has the digital type already.

    Example:
        A type with one matrix says how its product is taken; one with several says where they lie, and takes the
        products in its forward.

        >>> import torch
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
    """

    def add(analog: A) -> A:
        if not (issubclass(analog, AnalogModule) and issubclass(analog, digital)):
            raise TypeError(f"register_layer: {analog.__name__} must subclass AnalogLayer and {digital.__name__}")
        if any(known is analog and kind is not digital for kind, known in _analog_types.items()):
            raise ValueError(f"register_layer: {analog.__name__} stands for another type already; subclass it")
        if _analog_types.get(digital, analog) is not analog:
            raise ValueError(f"register_layer: {digital.__name__} already becomes {_analog_types[digital].__name__}")
        analog.stands_for = digital
        _analog_types[digital] = analog
        return analog

    return add


def register_routed(digital: type[nn.Module], weights: Mapping[str, str | None] | None = None) -> None:
    """Let `convert` follow a type whose forward hands weights to ``functional.linear`` or a convolution by itself.

    Args:
        digital: the type.
        weights: its own Parameters that are such weights, ``(out, in)``, each with the name of its bias (or None);
            default: none, only those of the layers in it.

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
    known = {name: Slot(name, bias) for name, bias in (weights or {}).items()}
    register_layer(digital)(_derived((Routed,), digital, {"slots": classmethod(lambda cls, module: known)}))


_subclasses: dict[type[nn.Module], type[AnalogModule]] = {}


def _derived(
    bases: tuple[type[AnalogModule], ...], digital: type[nn.Module], more: dict[str, Any] | None = None
) -> type[AnalogModule]:
    """The analog class of a digital type, made of others. It can be pickled where the digital type can."""
    if more or digital not in _subclasses:
        body = {"stands_for": digital, "__module__": digital.__module__, "__doc__": bases[0].__doc__}
        body |= {"__reduce_ex__": lambda self, protocol: (_rebuild, (digital,), self.__getstate__())}
        _subclasses[digital] = type(f"Analog{digital.__name__}", (*bases, digital), body | (more or {}))
    return _subclasses[digital]


def _rebuild(digital: type[nn.Module]) -> AnalogModule:
    """An empty analog module for a digital type, to unpickle into."""
    kind = _class_for(digital)
    if kind is None:
        raise TypeError(f"{digital.__name__} has no analog layer here; register it before loading")
    return kind.__new__(kind)


def analog_type(module: nn.Module) -> type[AnalogModule] | None:
    """The analog class for a digital module; None for one without, or with a ``forward`` put in its place."""
    return None if "forward" in vars(module) else _class_for(type(module))


def _class_for(kind: type[nn.Module]) -> type[AnalogModule] | None:
    if issubclass(kind, AnalogModule):
        return None
    adapter = _ADAPTERS.get(f"{kind.__module__}.{kind.__qualname__}")
    if adapter is not None:
        importlib.import_module(adapter)
    if kind in _analog_types:
        return _analog_types[kind]
    for base in kind.__mro__[1:]:
        known = _analog_types.get(base)
        if known is None:
            continue
        if kind.forward is cast(Any, base).forward:
            return _derived((known,), kind)
        return _derived((Routed, known), kind) if issubclass(known, AnalogLayer) else None
    return None


def is_matrix(parameter: Tensor) -> bool:
    """Whether a Parameter could be the weight of a product: not what is added to, or scales, each sample alike."""
    if parameter.ndim < 2 or parameter.shape[1:].numel() < 2:
        return False
    return parameter.ndim == 2 or len(parameter) > 1


def holds_matrix(module: nn.Module) -> bool:
    """Whether a module has Parameters of its own that could be meant for a crossbar."""
    element_wise = isinstance(module, nn.LayerNorm | nn.RMSNorm)
    return not element_wise and any(map(is_matrix, module.parameters(recurse=False)))


def hides_layers(module: nn.Module) -> bool:
    """Whether a module may read the weights of the layers in it by itself, as the type that it derives from does."""
    if isinstance(module, AnalogModule) or analog_type(module) is not None:
        return False
    known = [_analog_types[kind] for kind in type(module).__mro__ if kind in _analog_types]
    return any(not issubclass(kind, AnalogLayer) and kind.slots(module) for kind in known)


def unplaced(module: nn.Module, kind: type[AnalogModule]) -> list[str]:
    """Parameters of a module that could be matrices, and belong to none of those that its analog class knows of."""
    placed = {tensor for slot in kind.slots(module).values() for tensor in slot.parameters(module)}
    return [
        name
        for name, parameter in module.named_parameters(recurse=False)
        if is_matrix(parameter) and parameter not in placed
    ]


def weight_rules(module: nn.Module) -> set[nn.Module]:
    """The modules from which torch's parametrizations compute a module's weights."""
    return set(getattr(module, "parametrizations", nn.Module()).modules())


def asked_digital(module: nn.Module) -> bool:
    """Whether a digital module could have become analog without more ado."""
    kind = analog_type(module)
    return kind is not None and not kind.stored


def why_digital(module: nn.Module) -> str:
    """Why a module with Parameters of its own stays digital when nobody asked for it."""
    kind = analog_type(module)
    if kind is not None:
        if kind.stored:
            return "a table that is looked up (convert(..., embeddings=True))"
        if not kind.slots(module):  # its products are those of the layers in it
            return f"its {', '.join(unplaced(module, kind))} are no weights of a product it is known for"
        return "no pattern matches it"
    if not holds_matrix(module):
        return "element-wise, no matrix"
    if "forward" in vars(module):
        return "its forward was replaced, which may compute something else"
    base = next((kind.__name__ for kind in type(module).__mro__[1:] if kind in _analog_types), None)
    if base is not None:
        return f"a subclass of {base}, which may compute something else (register_layer)"
    return f"bare Parameters, no analog layer for {type(module).__name__} (register_layer, register_routed)"


def _matrices_in(model: nn.Module) -> list[AnalogMatrix]:
    modules = [module for module in model.modules() if isinstance(module, AnalogModule)]
    return [matrix for module in modules for matrix in module.matrices.values()]


def matrices_of(model: nn.Module) -> list[AnalogMatrix]:
    """The analog matrices of a twin, each once.

    Raises:
        ValueError: there are none; the model is not what `convert` returned.
    """
    matrices = _matrices_in(model)
    if not matrices:
        raise ValueError(
            f"{type(model).__name__} has no analog layer: give the twin that analogsim.convert(model, ...) returned"
        )
    return matrices
