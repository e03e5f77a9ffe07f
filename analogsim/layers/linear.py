"""Fully connected layers on a crossbar."""

from torch import nn

from analogsim.layers.base import AnalogLayer, register_layer
from analogsim.layers.matrix import LinearMatrix


@register_layer(nn.Linear)
class AnalogLinear(LinearMatrix, AnalogLayer, nn.Linear):
    """``nn.Linear`` whose weight ``(out, in)`` lies on a crossbar; input ``(..., in)``, output ``(..., out)``."""
