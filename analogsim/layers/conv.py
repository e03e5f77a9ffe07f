"""Convolutions on a crossbar: every position of the kernel is one matrix-vector product."""

from functools import partial
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional

from analogsim.layers.matrix import ConvolutionMatrix
from analogsim.layers.module import AnalogLayer
from analogsim.layers.registry import register_layer
from analogsim.layers.routing import product_as
from analogsim.layers.slot import Slot
from analogsim.utils.torch_private import convolve, output_padding


class _AnalogConv(ConvolutionMatrix, AnalogLayer):
    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        """See `AnalogModule.slots`."""
        return {"": Slot(groups=cast(nn.Conv2d, module).groups)}

    def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `AnalogMatrix.product`."""
        return convolve(self, input, weight, bias)


@register_layer(nn.Conv1d)
class AnalogConv1d(_AnalogConv, nn.Conv1d):
    """``nn.Conv1d`` with its kernel ``(out, in/groups, k)`` on a crossbar; input ``(batch, in, length)``."""


@register_layer(nn.Conv2d)
class AnalogConv2d(_AnalogConv, nn.Conv2d):
    """``nn.Conv2d`` with its kernel ``(out, in/groups, kh, kw)`` on a crossbar; input ``(batch, in, h, w)``."""


@register_layer(nn.Conv3d)
class AnalogConv3d(_AnalogConv, nn.Conv3d):
    """``nn.Conv3d`` with its kernel ``(out, in/groups, kd, kh, kw)`` on a crossbar; input ``(batch, in, d, h, w)``."""


class _AnalogConvTranspose(_AnalogConv):
    """A transposed convolution is a convolution over its input spread out with zeros between.

    So it is mapped as one: the Parameter ``(in, out/groups, ...)`` as the matrix ``(out, in/groups, ...)``, one column
    of the crossbar for each output channel, one row for each input channel and position of the kernel. Every position
    of the output is one matrix-vector product and one conversion per column; the rows that meet zeros are not driven,
    so that they add neither current nor read noise.
    """

    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        """See `AnalogModule.slots`."""
        return {"": Slot(transposed=True, groups=cast(nn.ConvTranspose2d, module).groups)}

    def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `AnalogMatrix.product`."""
        return self._spread(input, weight, bias, cast(Any, self).output_padding)

    def _spread(
        self, input: Tensor, weight: Tensor, bias: Tensor | None, output_padding: tuple[int, ...] | list[int]
    ) -> Tensor:
        layer, turned = cast(nn.ConvTranspose2d, self), self.analog.slot.turned(weight)
        transposed = _TRANSPOSED[weight.ndim - 2]
        where = (layer.stride, layer.padding, output_padding, layer.groups, layer.dilation)
        return cast(Tensor, transposed(input, turned, bias, *where))

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """The layer's answer, of a certain size if one is wanted; see `AnalogLayer.forward`."""
        if output_size is None:
            return super().forward(input)
        padding = output_padding(self, input, output_size, len(self.analog.shape) - 2)
        spread = partial(self._spread, output_padding=padding)
        with product_as(self, spread, f"output_padding={padding}"):
            return super().forward(input)


_TRANSPOSED: dict[int, Any] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


@register_layer(nn.ConvTranspose1d)
class AnalogConvTranspose1d(_AnalogConvTranspose, nn.ConvTranspose1d):
    """``nn.ConvTranspose1d`` with its kernel on a crossbar; input ``(batch, in, length)``.

    Mapped as the convolution over the input with ``stride - 1`` zeros between its values that it is: a matrix
    ``(out, in/groups, k)``, one column per output channel.
    """


@register_layer(nn.ConvTranspose2d)
class AnalogConvTranspose2d(_AnalogConvTranspose, nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` with its kernel on a crossbar; input ``(batch, in, h, w)``.

    Mapped as the convolution over the input with ``stride - 1`` zeros between its values that it is: a matrix
    ``(out, in/groups, kh, kw)``, one column per output channel.
    """


@register_layer(nn.ConvTranspose3d)
class AnalogConvTranspose3d(_AnalogConvTranspose, nn.ConvTranspose3d):
    """``nn.ConvTranspose3d`` with its kernel on a crossbar; input ``(batch, in, d, h, w)``.

    Mapped as the convolution over the input with ``stride - 1`` zeros between its values that it is: a matrix
    ``(out, in/groups, kd, kh, kw)``, one column per output channel.
    """
