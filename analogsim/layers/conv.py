"""Convolutions on a crossbar: every position of the kernel is one matrix-vector product."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from analogsim.layers.base import AnalogLayer, register_layer
from analogsim.layers.matrix import Slot, largest_magnitude


class _AnalogConv(AnalogLayer):
    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        """See `AnalogModule.slots`."""
        return {"": Slot(groups=cast(nn.Conv2d, module).groups)}

    def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `AnalogMatrix.product`."""
        # torch's own method knows every padding mode; it is the documented place to hand in another weight.
        return cast(Tensor, cast(nn.Conv2d, self)._conv_forward(input, weight, bias))

    def partial(self, input: Tensor, rows: Tensor, start: int, end: int) -> Tensor:
        """See `AnalogMatrix.partial`: a convolution over the channels that these rows belong to."""
        kernel = self.analog.shape[2:]
        size = kernel.numel()
        first, last = start // size, -(-end // size)
        weight = functional.pad(rows, (start - first * size, last * size - end)).view(-1, last - first, *kernel)
        axis = input.ndim - len(kernel) - 1
        groups = cast(nn.Conv2d, self).groups
        if groups == 1:
            return self.product(input.narrow(axis, first, last - first), weight, None)
        grouped = input.reshape(*input.shape[:axis], groups, -1, *input.shape[axis + 1 :])
        return self.product(grouped.narrow(axis + 1, first, last - first).flatten(axis, axis + 1), weight, None)

    def per_output(self, values: Tensor) -> Tensor:
        """See `AnalogMatrix.per_output`."""
        return values.view(-1, *(1,) * (len(self.analog.shape) - 2))

    def per_vector(self, input: Tensor) -> Tensor:
        """See `AnalogMatrix.per_vector`."""
        return largest_magnitude(input, tuple(range(1 - len(self.analog.shape), 0)))


@register_layer(nn.Conv1d)
class AnalogConv1d(_AnalogConv, nn.Conv1d):
    """``nn.Conv1d`` with its kernel ``(out, in/groups, k)`` on a crossbar; input ``(batch, in, length)``."""


@register_layer(nn.Conv2d)
class AnalogConv2d(_AnalogConv, nn.Conv2d):
    """``nn.Conv2d`` with its kernel ``(out, in/groups, kh, kw)`` on a crossbar; input ``(batch, in, h, w)``."""


@register_layer(nn.Conv3d)
class AnalogConv3d(_AnalogConv, nn.Conv3d):
    """``nn.Conv3d`` with its kernel ``(out, in/groups, kd, kh, kw)`` on a crossbar; input ``(batch, in, d, h, w)``."""
