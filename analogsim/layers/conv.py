"""Convolutions on a crossbar: every position of the kernel is one matrix-vector product."""

from typing import cast

from torch import Tensor, nn

from analogsim.layers.base import AnalogLayer, register_layer


class _AnalogConv(AnalogLayer):
    def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `AnalogLayer.product`."""
        # torch's own method knows every padding mode; it is the documented place to hand in another weight.
        return cast(Tensor, cast(nn.Conv2d, self)._conv_forward(input, weight, bias))


@register_layer(nn.Conv1d)
class AnalogConv1d(_AnalogConv, nn.Conv1d):
    """``nn.Conv1d`` with its kernel ``(out, in/groups, k)`` on a crossbar; input ``(batch, in, length)``."""


@register_layer(nn.Conv2d)
class AnalogConv2d(_AnalogConv, nn.Conv2d):
    """``nn.Conv2d`` with its kernel ``(out, in/groups, kh, kw)`` on a crossbar; input ``(batch, in, h, w)``."""


@register_layer(nn.Conv3d)
class AnalogConv3d(_AnalogConv, nn.Conv3d):
    """``nn.Conv3d`` with its kernel ``(out, in/groups, kd, kh, kw)`` on a crossbar; input ``(batch, in, d, h, w)``."""
