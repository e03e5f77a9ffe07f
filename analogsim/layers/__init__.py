"""Analog layers: each subclasses the digital one and shares its Parameters."""

from analogsim.layers.attention import AnalogMultiheadAttention, AnalogTransformerEncoderLayer
from analogsim.layers.bilinear import AnalogBilinear
from analogsim.layers.conv import (
    AnalogConv1d,
    AnalogConv2d,
    AnalogConv3d,
    AnalogConvTranspose1d,
    AnalogConvTranspose2d,
    AnalogConvTranspose3d,
)
from analogsim.layers.embedding import AnalogEmbedding, AnalogEmbeddingBag
from analogsim.layers.linear import AnalogLinear
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import AnalogLayer, AnalogModule, matrices_of
from analogsim.layers.recurrent import (
    AnalogGRU,
    AnalogGRUCell,
    AnalogLSTM,
    AnalogLSTMCell,
    AnalogRNN,
    AnalogRNNCell,
)
from analogsim.layers.registry import analog_type, register_layer, register_routed
from analogsim.layers.slot import Slot

__all__ = [
    "AnalogBilinear",
    "AnalogConv1d",
    "AnalogConv2d",
    "AnalogConv3d",
    "AnalogConvTranspose1d",
    "AnalogConvTranspose2d",
    "AnalogConvTranspose3d",
    "AnalogEmbedding",
    "AnalogEmbeddingBag",
    "AnalogGRU",
    "AnalogGRUCell",
    "AnalogLSTM",
    "AnalogLSTMCell",
    "AnalogLayer",
    "AnalogLinear",
    "AnalogMatrix",
    "AnalogModule",
    "AnalogMultiheadAttention",
    "AnalogRNN",
    "AnalogRNNCell",
    "AnalogTransformerEncoderLayer",
    "Slot",
    "analog_type",
    "matrices_of",
    "register_layer",
    "register_routed",
]
