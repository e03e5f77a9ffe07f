"""Fully connected layers on a crossbar."""

from torch import nn

from analogsim.layers.matrix import LinearMatrix
from analogsim.layers.module import AnalogLayer
from analogsim.layers.registry import register_layer


@register_layer(nn.Linear)
class AnalogLinear(LinearMatrix, AnalogLayer, nn.Linear):
    """``nn.Linear`` whose weight ``(out, in)`` lies on a crossbar; input ``(..., in)``, output ``(..., out)``."""
