"""Products that a forward takes by itself, led through crossbars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from analogsim.errors import NotRoutedError
from analogsim.layers.matrix import AnalogMatrix, Drawn
from analogsim.layers.module import AnalogModule, matrices_in
from analogsim.layers.slot import Slot
from analogsim.utils.torch_private import unfolded

PRODUCTS = (
    functional.linear,
    functional.conv1d,
    functional.conv2d,
    functional.conv3d,
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)

LOOKUPS = (functional.embedding, functional.embedding_bag)

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

    Args:
        matrices: those to look for.

    Attributes:
        used: those that were found.
    """

    def __init__(self, matrices: Iterable[AnalogMatrix]) -> None:
        super().__init__()
        self._weights = [(matrix.own_weight, matrix) for matrix in matrices]
        self._draws: dict[int, Drawn] = {}
        self.used: list[AnalogMatrix] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Let a product with a weight we know go through its matrix; all else is as it is."""
        kwargs = kwargs or {}
        if func is functional.multi_head_attention_forward:
            with self:
                return unfolded(func)(*args, **kwargs)
        if func in PRODUCTS or func in LOOKUPS:
            weight = args[1] if len(args) > 1 else kwargs.get("weight")
            for place, (known, matrix) in enumerate(self._weights):
                # A table may be tied to the matrix of an output layer.
                if weight is known and getattr(matrix, "stored", False) == (func in LOOKUPS):
                    self.used.append(matrix)
                    if func in LOOKUPS:
                        return _looked_up(matrix, args, kwargs)
                    if place not in self._draws:  # a forward that takes several products meets one array
                        self._draws[place] = matrix.draw()
                    return _through(matrix, self._draws[place], func, args, kwargs)
        return func(*args, **kwargs)


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

    For modules that hand weights to ``functional.linear`` or a convolution by themselves: their own, or those of the
    layers in them.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The digital forward with its products routed."""
        own = list(self.matrices.values())
        inner = [matrix for matrix in matrices_in(self) if matrix not in own]
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


class Borrowing(Routed):
    """A module that reads the weights of the layers in it, and has no matrices of its own."""

    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        """See `AnalogModule.slots`: none."""
        return {}
