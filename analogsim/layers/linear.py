"""Fully connected layers on a crossbar."""

from torch import Tensor, nn
from torch.nn import functional

from analogsim.layers.base import AnalogLayer, largest_magnitude, register_layer


@register_layer(nn.Linear)
class AnalogLinear(AnalogLayer, nn.Linear):
    """``nn.Linear`` whose weight ``(out, in)`` lies on a crossbar; input ``(..., in)``, output ``(..., out)``."""

    def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `AnalogLayer.product`."""
        return functional.linear(input, weight, bias)

    def partial(self, input: Tensor, rows: Tensor, start: int, end: int) -> Tensor:
        """See `AnalogLayer.partial`."""
        return functional.linear(input[..., start:end], rows)

    def per_vector(self, input: Tensor) -> Tensor:
        """See `AnalogLayer.per_vector`."""
        return largest_magnitude(input, (-1,))
