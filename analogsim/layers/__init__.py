"""Analog layers: each subclasses the digital one and shares its Parameters."""

from analogsim.layers.base import AnalogLayer, AnalogModule, analog_type, matrices_of, register_layer, register_routed
from analogsim.layers.conv import AnalogConv1d, AnalogConv2d, AnalogConv3d
from analogsim.layers.linear import AnalogLinear
from analogsim.layers.matrix import AnalogMatrix, Slot

__all__ = [
    "AnalogConv1d",
    "AnalogConv2d",
    "AnalogConv3d",
    "AnalogLayer",
    "AnalogLinear",
    "AnalogMatrix",
    "AnalogModule",
    "Slot",
    "analog_type",
    "matrices_of",
    "register_layer",
    "register_routed",
]
