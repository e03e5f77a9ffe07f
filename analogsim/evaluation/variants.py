"""A twin again, with other layers analog or on other hardware."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from analogsim.conversion.analog import convert
from analogsim.crossbar.crossbar import Crossbar
from analogsim.device.model import DeviceModel
from analogsim.layers.module import matrices_of
from analogsim.layers.state import AnalogState

Hardware = tuple[DeviceModel, Crossbar]


def build_variant(
    digital: nn.Module, states: Mapping[str, AnalogState], hardware: Mapping[str, Hardware] | None = None
) -> nn.Module:
    """A network with some layers analog, with the ranges and adapters that they had, and all others digital.

    Args:
        digital: the network.
        states: what is known of the layers that are to be analog, by name.
        hardware: what they are to be on; None: what they were on.
    """
    on = {name: (state.device, state.crossbar) for name, state in states.items()} if hardware is None else hardware
    twin = convert(
        digital,
        {**{name: device for name, (device, _) in on.items()}, "*": None},
        crossbar={name: crossbar for name, (_, crossbar) in on.items()},
        embeddings=True,  # where it is one of these
    )
    for matrix in matrices_of(twin):
        before = states[matrix.analog.name]
        matrix.analog.take_ranges(before)
        matrix.analog.adapter = before.adapter
    return twin
