"""Layers of Hugging Face transformers on a crossbar; imported when a network holds one."""

from torch import nn
from transformers.pytorch_utils import Conv1D

from analogsim.layers.matrix import LinearMatrix
from analogsim.layers.module import AnalogLayer
from analogsim.layers.registry import register_layer
from analogsim.layers.slot import Slot


@register_layer(Conv1D)
class AnalogConv1D(LinearMatrix, AnalogLayer, Conv1D):  # type: ignore[misc]
    """GPT-2's ``Conv1D``, a fully connected layer whose weight is ``(in, out)``; input ``(..., in)``."""

    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        """See `AnalogModule.slots`."""
        return {"": Slot(transposed=True)}

    def extra_repr(self) -> str:
        """The sizes, with device, crossbar and chip."""
        return f"nf={self.nf}, nx={self.nx}, {super().extra_repr()}"

    __repr__ = nn.Module.__repr__  # the digital one tells no more than its sizes
