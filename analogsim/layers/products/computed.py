"""Weights that a forward computes before it takes a product with them: standardised, masked, quantised, binarised."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from analogsim.errors import InvalidTypeError, OperationError
from analogsim.layers.products.calls import CONVOLUTIONS, TRANSPOSED, named_call
from analogsim.layers.products.contractions import PARSERS, Contraction, contraction_of
from analogsim.layers.products.taken import Roles, fits, outputs_first
from analogsim.layers.products.views import View, follow
from analogsim.layers.slot import Slot
from analogsim.utils.torch_private import own_parameters

V = TypeVar("V")


class Notes(Generic[V]):
    """What is known of tensors, by their identity; they are held on to, so that no other gets the address of one."""

    def __init__(self) -> None:
        self._entries: list[tuple[Tensor, V]] = []
        self._places: dict[int, int] = {}

    def __setitem__(self, tensor: Tensor, known: V) -> None:
        if not torch.compiler.is_compiling():  # where tensors have no address
            self._places[id(tensor)] = len(self._entries)
        self._entries.append((tensor, known))

    def get(self, tensor: Any) -> V | None:
        """What is known of one; None of others."""
        if not isinstance(tensor, Tensor):
            return None
        if torch.compiler.is_compiling():
            for known, value in reversed(self._entries):
                if known is tensor:
                    return value
            return None
        place = self._places.get(id(tensor))
        return None if place is None else self._entries[place][1]


@dataclass(frozen=True)
class Computed:
    """A product with a weight that a forward computed.

    Args:
        sources: which Parameters it comes from, by name.
        operand: the weight as the call has it.
        matrix: the same as ``(out, ...)``.
        contraction: the product, where it is no convolution.
        place: which of its factors is the weight.
        transposed: whether it is a transposed convolution.
        groups: of a convolution.
    """

    sources: frozenset[str]
    operand: Tensor
    matrix: Tensor
    contraction: Contraction | None = None
    place: int = 0
    transposed: bool = False
    groups: int = 1


class Computations:
    """Follows what a forward computes from the Parameters of a module and nothing else.

    Args:
        module: its Parameters and buffers, and those of the modules in it, are no inputs.
        beside: names of tensors that are its mere attributes; None: it is asked, which not every compiler follows.
    """

    def __init__(self, module: nn.Module, beside: tuple[str, ...] | None = None) -> None:
        self._known: Notes[frozenset[str]] = Notes()
        others = vars(module).values() if beside is None else [getattr(module, name) for name in beside]
        for tensor in (*module.parameters(), *module.buffers(), *others):
            if isinstance(tensor, Tensor):
                self._known[tensor] = frozenset()
        for name, parameter in own_parameters(module).items():
            if parameter is not None:
                self._known[parameter] = frozenset({name})

    def note(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """What a function answered."""
        taken: frozenset[str] = frozenset()
        for tensor in _tensors((*args, *kwargs.values())):
            sources = self._known.get(tensor)
            if sources is None:  # it comes from an input
                return
            taken = taken.union(sources)
        for tensor in _tensors(result if isinstance(result, tuple | list) else (result,)):
            self._known[tensor] = taken

    def holds(self, tensor: Tensor) -> bool:
        """Whether one is a Parameter or a buffer, or computed from nothing else."""
        return self._known.get(tensor) is not None

    def product(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Computed | None:
        """A call as a product of an input with what was computed; None of others."""
        if func in CONVOLUTIONS:
            call = named_call(func, args, kwargs)
            sources = self._known.get(call["weight"])
            if not sources or self._known.get(call["input"]) is not None:
                return None
            transposed, groups = func in TRANSPOSED, call.get("groups", 1)
            slot = Slot(transposed=transposed, groups=groups)
            matrix = slot.turned(call["weight"]) if transposed else call["weight"]
            return Computed(sources, call["weight"], matrix, transposed=transposed, groups=groups)
        contraction = contraction_of(func, args, kwargs) if func in PARSERS else None
        if contraction is None:
            return None
        known = [self._known.get(tensor) for tensor, _ in contraction.operands]
        for place, sources in enumerate(known):
            if sources and all(other is None for at, other in enumerate(known) if at != place):
                operand, matrix = contraction.operands[place][0], outputs_first(contraction, place)
                return None if matrix is None else Computed(sources, operand, matrix, contraction, place)
        return None


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += [part for part in value if isinstance(part, Tensor)]
    return found


@dataclass(frozen=True)
class ComputedSlot(Slot):
    """A matrix that the forward of a module computes from a Parameter."""

    computed: ClassVar[bool] = True

    def matrix(self, module: nn.Module) -> Tensor:
        """See `Slot.matrix`: found by running the forward up to the product, on an input that is made up."""
        found = find_computed(module, self.weight)
        if found is None:
            raise OperationError(
                f"the forward of {type(module).__name__} computes no weight of its {self.weight!r} now"
            )
        return found.matrix

    def view(self, shape: Any) -> View | None:
        """See `Slot.view`: nowhere."""
        return None

    def put(self, module: nn.Module, matrix: Tensor, bias: Tensor | None = None) -> None:
        """See `Slot.put`: it cannot be."""
        raise InvalidTypeError(f"the weight that {type(module).__name__} computes in its forward cannot be written")


@dataclass(frozen=True)
class RewrittenSlot(Slot):
    """A matrix in a Parameter that the forward of its module writes into first, such as a mask's zeros."""

    def settled(self, module: nn.Module) -> Tensor:
        """See `Slot.settled`: after the forward was run on an input that is made up; the Parameter is put back."""
        parameter = own_parameters(module)[self.weight]
        if parameter is None:
            raise OperationError(f"{type(module).__name__} has no {self.weight!r} any more")
        before = parameter.detach().clone()
        find_computed(module, self.weight)
        after = self.matrix(module).detach().clone()
        if not torch.equal(before, parameter):
            with torch.no_grad():
                parameter.copy_(before)
        return after


class _Found(BaseException):
    """Ends a forward whose product was found; no forward catches it."""


class _Search(TorchFunctionMode):
    """Ends a forward at its product with what comes from a Parameter."""

    def __init__(self, module: nn.Module, weight: str) -> None:
        super().__init__()
        self._computations = Computations(module)
        self._views: Notes[View] = Notes()
        self._weight = weight
        own = own_parameters(module)[weight]
        if own is not None:
            self._views[own] = View.of(own.shape)
        self.found: Computed | None = None
        self.view: View | None = None

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        product = self._computations.product(func, args, named)
        if product is not None and self._weight in product.sources:
            self.found, self.view = product, self._views.get(product.operand)
            raise _Found
        result = func(*args, **named)
        self._computations.note(args, named, result)
        view = self._views.get(args[0]) if args else None
        for tensor, held in () if view is None else follow(func, view, args, named, result) or ():
            self._views[tensor] = held
        return result


def find_computed(module: nn.Module, weight: str) -> Computed | None:
    """The first product that the forward of a module takes with what it computes from a Parameter.

    The forward runs in eval, without gradients, on an input of the smallest size, up to that product; modes, buffers,
    attributes and random states are put back.

    Args:
        module: a fully connected layer or a convolution of any kind, or a twin of one.
        weight: the name of the Parameter.

    Returns:
        None where there is no such product, or no input could be made up.
    """
    search = _searched(module, weight)
    return None if search is None else search.found


def _searched(module: nn.Module, weight: str) -> _Search | None:
    forward = getattr(module, "stands_for", type(module)).forward
    for example in examples_of(module):
        search = _Search(module, weight)
        with untouched(module), torch.no_grad(), search:
            try:
                forward(module, example)
            except _Found:
                return search
            except Exception:
                continue
    return None


def examples_of(module: nn.Module) -> Iterator[Tensor]:
    """Inputs of the smallest size that a layer takes."""
    weight = next(module.parameters())
    for size in (getattr(module, name, None) for name in ("in_features", "out_features")):  # some take it the other way
        if isinstance(size, int):
            yield weight.new_ones((1, size))
            yield weight.new_ones((1, 1, size))
    channels, kernel = getattr(module, "in_channels", None), getattr(module, "kernel_size", None)
    if isinstance(channels, int) and isinstance(kernel, tuple):
        dilation = getattr(module, "dilation", (1,) * len(kernel))
        axes = [1 + (width - 1) * step for width, step in zip(kernel, dilation, strict=True)]
        yield weight.new_ones((1, channels, *axes))
        yield weight.new_ones((1, channels, *(16 + axis for axis in axes)))


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Within the block a module is in eval; afterwards modes, buffers, attributes and random state are as before."""
    parts = list(module.modules())
    modes = [part.training for part in parts]
    attributes = [dict(vars(part)) for part in parts]
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    devices = sorted({p.device.index or 0 for p in module.parameters() if p.is_cuda})
    with torch.random.fork_rng(devices):
        for part in parts:
            part.training = False
        try:
            yield
        finally:
            for part, mode, own in zip(parts, modes, attributes, strict=True):
                vars(part).clear()
                vars(part).update(own)
                part.training = mode
            with torch.no_grad():
                for buffer, held in buffers:
                    if buffer.shape != held.shape:
                        buffer.resize_(held.shape)
                    if not torch.equal(buffer, held):
                        buffer.copy_(held)


def placed(module: nn.Module, slot: Slot) -> Slot:
    """Where the matrix of a layer lies whose own forward may compute it.

    Args:
        module: the digital layer.
        slot: where it lies in layers of the type above it.
    """
    parameter = own_parameters(module).get(slot.weight)
    if parameter is None:  # pruned, normed: computed already
        return slot
    before = parameter.detach().clone()
    search = _searched(module, slot.weight)
    if not torch.equal(before, parameter):
        with torch.no_grad():
            parameter.copy_(before)
        return RewrittenSlot(slot.weight, slot.bias, slot.rows, slot.transposed, slot.groups)
    if search is None or search.found is None:
        return slot
    found, view = search.found, search.view
    if view is None:
        return ComputedSlot(slot.weight, slot.bias, None, found.transposed, found.groups)
    turned = replace(slot, transposed=not slot.transposed)
    layouts = [own.view(parameter.shape) for own in (slot, turned)] if slot.groups == 1 else []
    if found.contraction is None or None in layouts or len(layouts) < 2:
        return slot
    own, other = (
        layout is not None and fits(Roles(found.contraction, found.place, view), [layout]) for layout in layouts
    )
    return turned if other and not own else slot
