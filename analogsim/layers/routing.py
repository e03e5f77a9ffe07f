"""Products that a forward takes by itself, led through crossbars."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from analogsim.errors import ConversionWarning, NotRoutedError
from analogsim.layers.matrix import AnalogMatrix, ConvolutionMatrix, Drawn
from analogsim.layers.module import AnalogModule, matrices_in
from analogsim.layers.products.calls import CONVOLUTIONS, TRANSPOSED, named_call
from analogsim.layers.products.computed import Computations, Computed, Notes, placed
from analogsim.layers.products.contractions import PARSERS, contraction_of
from analogsim.layers.products.taken import contract, convolution, layout_of
from analogsim.layers.products.views import View, follow
from analogsim.layers.slot import Slot
from analogsim.layers.state import AnalogState
from analogsim.utils.torch_private import unfolded

PRODUCTS = (functional.linear, *CONVOLUTIONS)

LOOKUPS = (functional.embedding, functional.embedding_bag)

_PRODUCT_NAMES = {func.__name__ for func in (*PARSERS, *CONVOLUTIONS)}

Taken = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@contextmanager
def product_as(matrix: AnalogMatrix, taken: Taken, told: str | None = None) -> Iterator[None]:
    """Within the block, a matrix's product is another one: with a stride, padding, ... that a call brings along.

    Args:
        matrix: the matrix.
        taken: its product.
        told: which one it is, so that the inputs that it takes are remembered; None where nobody knows, and it is asked
            in each call.
    """
    own = matrix.__dict__.get("product")
    if told is not None and not torch.compiler.is_compiling():
        taken.__dict__["told"] = told
    # An attribute of the instance comes before the method of its class.
    matrix.__dict__["product"] = taken
    try:
        yield
    finally:
        if own is None:
            del matrix.product
        else:
            matrix.__dict__["product"] = own


class Routing(TorchFunctionMode):
    """Within the block, products with the weights of analog matrices are those of their crossbars.

    A weight is known by its identity. What a forward makes of it without changing its numbers (transposed, a slice,
    cast, ...) is followed, and a product with it runs on the rows and columns that it has.

    Args:
        matrices: those to look for.
        computing: the module whose forward computes some of them from its Parameters; None where none are.

    Attributes:
        used: those that were found.
    """

    def __init__(self, matrices: Iterable[AnalogMatrix], computing: nn.Module | None = None) -> None:
        super().__init__()
        matrices = list(matrices)
        self._computed = [matrix for matrix in matrices if matrix.analog.slot.computed and matrix.holder is computing]
        self._computations: Computations | None = None
        if computing is not None and self._computed:
            self._computations = Computations(computing, self._computed[0].analog.beside)
        self._weights = [(_whole(matrix), matrix) for matrix in matrices if not matrix.analog.slot.computed]
        self._sources = _sources([matrix for _, matrix in self._weights])
        self._known: Notes[tuple[_Source, View]] = Notes()
        for source in self._sources:
            self._known[source.tensor] = source, View.of(source.tensor.shape)
        self._draws: dict[int, Drawn] = {}
        self._draws_of_computed: list[tuple[Tensor, Drawn]] = []
        self._met: list[tuple[_Source, View, str]] = []
        self.paused = 0
        self.used: list[AnalogMatrix] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Let a product with a weight we know go through its matrix; all else is as it is."""
        named = dict(kwargs or {})
        if self.paused:
            return func(*args, **named)
        if func is functional.multi_head_attention_forward:
            with self:
                return unfolded(func)(*args, **named)
        if func in CONVOLUTIONS or func in PARSERS or func in LOOKUPS:
            taken = self._product(func, args, named)
            if taken is not None:
                return taken
        result = func(*args, **named)
        self._follow(func, args, named, result)
        if self._computations is not None:
            self._computations.note(args, named, result)
        return result

    def _product(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The answer of a crossbar to a call; None where it takes none of its weights."""
        taken = self._as_it_is(func, args, kwargs)
        if taken is None and func not in LOOKUPS:
            taken = self._taken(func, args, kwargs)
        if taken is None and self._computations is not None:
            product = self._computations.product(func, args, kwargs)
            if product is not None:
                taken = self._with_computed(product, func, args, kwargs)
        return taken

    def _with_computed(
        self, product: Computed, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """The answer to a product with a weight that the forward computed."""
        for matrix in self._computed:
            slot = matrix.analog.slot
            if slot.weight in product.sources and product.matrix.shape == matrix.analog.shape:
                break
        else:
            return None
        self.used.append(matrix)
        drawn = self._draw_of_computed(matrix, product)
        if product.contraction is not None:
            layout = layout_of(product.contraction, product.place)
            view = View.of(product.operand.shape)
            layouts = [] if layout is None else [layout]
            return contract(product.contraction, product.place, view, False, layouts, lambda place: drawn)
        if isinstance(matrix, ConvolutionMatrix):
            return _through(matrix, drawn, func, args, kwargs)
        own = Slot(transposed=product.transposed, groups=product.groups)
        layout = own.view(product.operand.shape)
        source = _Source(product.operand, (), () if layout is None else (layout,))
        return _convolved(source, View.of(product.operand.shape), func, named_call(func, args, kwargs), lambda _: drawn)

    def _draw_of_computed(self, matrix: AnalogMatrix, product: Computed) -> Drawn:
        """The draw of a matrix with weights that were just computed, one for all products with the same."""
        for operand, drawn in self._draws_of_computed:
            if operand is product.operand and drawn.owner is matrix:
                return drawn
        drawn = Drawn(matrix, product.matrix)
        self._draws_of_computed.append((product.operand, drawn))
        return drawn

    @contextmanager
    def following(self) -> Iterator[None]:
        """The block itself."""
        matrices = [*self._computed, *(matrix for _, matrix in self._weights)]
        for matrix in matrices:
            matrix.__dict__["routings"] = (*matrix.routings, self)
        try:
            with self:
                yield
        finally:
            for matrix in matrices:
                matrix.__dict__["routings"] = tuple(other for other in matrix.routings if other is not self)

    def met(self, matrix: AnalogMatrix, products: bool = False) -> list[str]:
        """What else took a weight: functions, or only those that are products, by their names."""
        if not self._met or matrix in self._computed:
            return []
        place = [own for _, own in self._weights].index(matrix)
        names = [name for source, view, name in self._met if source.has(place, view)]
        return [name for name in dict.fromkeys(names) if not products or name in _PRODUCT_NAMES]

    def _as_it_is(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The answer to a product with a weight as its layer has it, in the layer's own way; None of another call."""
        if func not in PRODUCTS and func not in LOOKUPS:
            return None
        weight = args[1] if len(args) > 1 else kwargs.get("weight")
        if weight is None:
            return None
        for place, (known, matrix) in enumerate(self._weights):
            # A table may be tied to the matrix of an output layer.
            if weight is known and getattr(matrix, "stored", False) == (func in LOOKUPS):
                if func is functional.linear and len(matrix.analog.shape) > 2:
                    continue
                if matrix.analog.slot.transposed != (func in TRANSPOSED) and func not in LOOKUPS:
                    continue
                if func in LOOKUPS:
                    self.used.append(matrix)
                    return _looked_up(matrix, args, kwargs)
                return _through(matrix, self._draw(place), func, args, kwargs)
        return None

    def _draw(self, place: int) -> Drawn:
        """The draw of a matrix; a forward that takes several products meets one array."""
        matrix = self._weights[place][1]
        self.used.append(matrix)
        if place not in self._draws:
            self._draws[place] = matrix.draw()
        return self._draws[place]

    def _follow(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Note what a function made of weights."""
        first = self._known.get(args[0]) if args else None
        found = None if first is None else follow(func, first[1], args, kwargs, result)
        if first is not None and found is not None:
            for tensor, held in found:
                self._known[tensor] = first[0], held
        elif isinstance(result, Tensor) and not torch.compiler.is_compiling():
            self._met += [(*known, func.__name__) for known in map(self._known.get, args) if known is not None]

    def _taken(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """The answer to a product with what is made of a weight; None of another call."""
        if func in CONVOLUTIONS:
            call = named_call(func, args, kwargs)
            known = self._known.get(call["weight"])
            return None if known is None else _convolved(*known, func, call, self._draws_of(*known))
        contraction = contraction_of(func, args, kwargs)
        if contraction is None:
            return None
        for place, (tensor, _) in enumerate(contraction.operands):
            known = self._known.get(tensor)
            if known is not None:
                source, view = known
                cast = tensor.dtype != source.tensor.dtype
                taken = contract(contraction, place, view, cast, source.layouts, self._draws_of(source, view))
                if taken is not None:
                    return taken
        return None

    def _draws_of(self, source: _Source, view: View) -> Callable[[int], Drawn]:
        def draw(matrix: int) -> Drawn:
            drawn = self._draw(source.places[matrix])
            return drawn.cut() if view.cut else drawn

        return draw


@dataclass(frozen=True)
class _Source:
    """A weight, and the matrices that lie in it.

    Args:
        tensor: the weight.
        places: which of the matrices are in it.
        layouts: where.
    """

    tensor: Tensor
    places: tuple[int, ...]
    layouts: tuple[View, ...]

    def has(self, place: int, view: View) -> bool:
        """Whether a view of the weight may hold elements of a matrix."""
        if place not in self.places:
            return False
        first, last = self.layouts[self.places.index(place)].reach
        return view.reach[0] <= last and first <= view.reach[1]


def _whole(matrix: AnalogMatrix) -> Tensor | None:
    """A weight that is a matrix as a whole; None of one that holds several, which a forward takes parts of."""
    return None if matrix.analog.slot.part is not None else matrix.own_weight


@lru_cache(maxsize=4096)
def _kept_layout(slot: Slot, shape: torch.Size) -> View | None:
    return slot.view(shape)


def _sources(matrices: Sequence[AnalogMatrix]) -> list[_Source]:
    """The weights in which matrices lie that products are taken with."""
    found: list[tuple[Tensor, list[int], list[View]]] = []
    for place, matrix in enumerate(matrices):
        slot = matrix.analog.slot
        weight = getattr(matrix.holder, slot.weight)
        view = slot.view(weight.shape) if torch.compiler.is_compiling() else _kept_layout(slot, weight.shape)
        if view is None or getattr(matrix, "stored", False):
            continue
        for known, places, views in found:
            if known is weight:
                places.append(place)
                views.append(view)
                break
        else:
            found.append((weight, [place], [view]))
    return [_Source(weight, tuple(places), tuple(views)) for weight, places, views in found]


def _convolved(
    source: _Source, view: View, func: Callable[..., Any], call: dict[str, Any], draw: Callable[[int], Drawn]
) -> Tensor | None:
    """A convolution with a view of a weight."""
    rest = {name: value for name, value in call.items() if name not in ("input", "weight", "bias")}
    transposed, cast = func in TRANSPOSED, call["weight"].dtype != source.tensor.dtype
    convolve, groups = partial(func, bias=None, **rest), call.get("groups", 1)
    output = convolution(convolve, call["input"], view, groups, transposed, cast, source.layouts, draw)
    bias: Tensor | None = call.get("bias")
    if output is None or bias is None:
        return output
    return output + bias.view(-1, *(1,) * (call["weight"].ndim - 2)).to(output.dtype)


def _looked_up(matrix: AnalogMatrix, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A call's lookup in the table on the crossbars."""
    rest = {name: value for name, value in kwargs.items() if name not in ("input", "weight")}
    return cast(Any, matrix).looked_up(args[0] if args else kwargs["input"], *args[2:], **rest)


def _through(
    matrix: AnalogMatrix, drawn: Drawn, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Tensor:
    """A call's product on the crossbars, with the call's own stride, padding, ... and bias."""
    rest = {name: value for name, value in kwargs.items() if name not in ("input", "weight", "bias")}
    input = args[0] if args else kwargs["input"]
    bias: Tensor | None = args[2] if len(args) > 2 else kwargs.get("bias")
    own = matrix.bias
    if func is functional.linear:
        output = drawn(input)
    else:
        slot = matrix.analog.slot

        def taken(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            stored = slot.turned(weight) if slot.transposed else weight
            return cast(Tensor, func(input, stored, bias, *args[3:], **rest))

        told = None if torch.compiler.is_compiling() else repr((func.__name__, args[3:], rest))
        with product_as(matrix, taken, told):
            output = drawn(input)
    difference = _difference(bias, own)
    return output if difference is None else output + matrix.per_output(difference).to(output.dtype)


def _difference(bias: Tensor | None, own: Tensor | None) -> Tensor | None:
    """What is added digitally where a call brings another bias than the one that a product has by itself."""
    if bias is own:
        return None
    if own is None:
        return bias
    return -own if bias is None else bias - own


class Routed(AnalogModule):
    """Runs the forward of the digital type; what takes a weight of an analog matrix there goes through its crossbars.

    For modules that take products with weights by themselves: their own, or those of the layers in them.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The digital forward with its products routed."""
        own = list(self.matrices.values())
        inner = [matrix for matrix in matrices_in(self) if matrix not in own]
        # What parametrizations compute is known by its identity, and computed once.
        computed = any(matrix.computed for matrix in (*own, *inner))
        with parametrize.cached() if computed else nullcontext():
            routing = Routing([*own, *inner], self)
            with routing.following():
                output = self.digital_forward(*args, **kwargs)
        self._check_used(routing, own)
        if not torch.compiler.is_compiling():
            _warn_digital(list(dict.fromkeys(routing.used)), routing, self.stands_for)
        return output

    def digital_forward(self, *args: Any, **kwargs: Any) -> Any:
        """The forward whose products are followed."""
        return self.stands_for.forward(self, *args, **kwargs)

    def _check_used(self, routing: Routing, own: list[AnalogMatrix]) -> None:
        """Raise NotRoutedError where a weight was in no product, unless it is one of many that inputs choose from."""
        used = [matrix.analog.slot.weight for matrix in routing.used if matrix.holder is self]
        for matrix in own:
            if matrix in routing.used:
                continue
            slot, met = matrix.analog.slot, routing.met(matrix)
            if slot.index is not None and (slot.weight in used or not met):
                continue
            went = f"; it went into {', '.join(met)}" if met else ""
            raise NotRoutedError(
                f"layer {matrix.analog.title!r}: the forward of {self.stands_for.__name__} did not take its weight "
                "in a product that can be followed (functional.linear, a convolution, matmul, einsum, ..., of the "
                f"weight or a part of it){went}. Its product cannot run "
                "analog: map the layer to None, or give its type an analog layer (analogsim.register_layer)"
            )


def _warn_digital(matrices: list[AnalogMatrix], routing: Routing, kind: type[nn.Module]) -> None:
    for matrix in matrices:
        others = routing.met(matrix, products=True)
        if others:
            warnings.warn(
                f"layer {matrix.analog.title!r}: the forward of {kind.__name__} takes its weight in another product "
                f"too ({', '.join(others)}), which is no product with rows and columns of crossbars and stays digital",
                ConversionWarning,
                stacklevel=4,
            )


class Borrowing(Routed):
    """A module that reads the weights of the layers in it, and has no matrices of its own."""

    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        """See `AnalogModule.slots`: none."""
        return {}


class RoutedLayer(Routed):
    """A layer of a known type with a forward of its own, which may also compute the weight there."""

    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        """See `AnalogModule.slots`: where the layer's own forward has them."""
        if isinstance(module, cls):
            return {label: matrix.analog.slot for label, matrix in module.matrices.items()}
        return {label: placed(module, slot) for label, slot in super().slots(module).items()}


class Handing(Routed):
    """A subclass of a type with several matrices whose own forward takes the products with their weights by itself."""


class Found(Routed):
    """A module of a type that nobody registered, whose products a forward on an example showed."""

    analog_only = ("matrices", "placed")

    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        """See `AnalogModule.slots`."""
        placed: dict[str, Slot] | None = module.__dict__.get("placed")
        return discovered[module] if placed is None else placed

    def attach(self, states: dict[str, AnalogState], module: nn.Module) -> None:
        """See `AnalogModule.attach`."""
        self.__dict__["placed"] = discovered[module]
        super().attach(states, module)


discovered: WeakKeyDictionary[nn.Module, dict[str, Slot]] = WeakKeyDictionary()
"""Where the matrices of modules lie that forwards on examples showed."""
