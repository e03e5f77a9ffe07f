"""Products that a forward takes by itself, led through crossbars."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from analogsim.layers.matrix import AnalogMatrix

_PRODUCTS = (
    functional.linear,
    functional.conv1d,
    functional.conv2d,
    functional.conv3d,
)


class Routing(TorchFunctionMode):
    """Within the block, products with the weights of analog matrices are those of their crossbars.

    Args:
        matrices: those to look for.

    Attributes:
        used: those that were found.
    """

    def __init__(self, matrices: Iterable[AnalogMatrix]) -> None:
        super().__init__()
        self._weights = [(matrix.matrix, matrix) for matrix in matrices if not matrix.computed]
        self.used: list[AnalogMatrix] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Let a product with a weight we know go through its matrix; all else is as it is."""
        kwargs = kwargs or {}
        if func in _PRODUCTS:
            weight = args[1] if len(args) > 1 else kwargs.get("weight")
            for known, matrix in self._weights:
                if weight is known:
                    self.used.append(matrix)
                    return _through(matrix, func, args, kwargs)
        return func(*args, **kwargs)


def _through(
    matrix: AnalogMatrix, func: Callable[..., Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Tensor:
    """A call's product on the crossbars, with the call's own stride, padding, ... and bias."""
    rest = {name: value for name, value in kwargs.items() if name not in ("input", "weight", "bias")}
    input = args[0] if args else kwargs["input"]
    bias: Tensor | None = args[2] if len(args) > 2 else kwargs.get("bias")
    own = matrix.bias
    if func is functional.linear or not isinstance(matrix, nn.Module):
        output = matrix.draw()(input)
    else:
        # An attribute of the instance comes before the method of its class.
        matrix.__dict__["product"] = lambda input, weight, bias: func(input, weight, bias, *args[3:], **rest)
        try:
            output = matrix.draw()(input)
        finally:
            del matrix.__dict__["product"]
    if bias is own:
        return output
    difference = -own if bias is None else bias if own is None else bias - own  # added digitally
    return output + matrix.per_output(difference).to(output.dtype)
