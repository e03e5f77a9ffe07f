"""Layers of PyTorch Geometric on a crossbar; imported when a network holds one."""

from torch import nn
from torch_geometric.nn.dense.linear import Linear

from analogsim.layers.matrix import LinearMatrix
from analogsim.layers.module import AnalogLayer
from analogsim.layers.registry import register_layer


@register_layer(Linear)
class AnalogGeometricLinear(LinearMatrix, AnalogLayer, Linear):  # type: ignore[misc]
    """The fully connected layer of PyTorch Geometric's convolutions; input ``(..., in)``.

    One whose number of inputs is still open (``in_channels=-1``) has no weight to convert before its first batch.
    """

    def extra_repr(self) -> str:
        """The sizes, with device, crossbar and chip."""
        return f"{self.in_channels}, {self.out_channels}, bias={self.bias is not None}, {super().extra_repr()}"

    __repr__ = nn.Module.__repr__  # the digital one tells no more than its sizes
