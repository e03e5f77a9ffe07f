"""Analog layers: each subclasses the digital one and shares its Parameters."""

from analogsim.layers.base import AnalogLayer, analog_layers, analog_type, register_layer
from analogsim.layers.conv import AnalogConv1d, AnalogConv2d, AnalogConv3d
from analogsim.layers.linear import AnalogLinear

__all__ = [
    "AnalogConv1d",
    "AnalogConv2d",
    "AnalogConv3d",
    "AnalogLayer",
    "AnalogLinear",
    "analog_layers",
    "analog_type",
    "register_layer",
]
