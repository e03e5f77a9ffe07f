"""Device models: chains of effects over a conductance range, by their names and in files."""

from analogsim.device.model import STUCK_OFF, STUCK_ON, Cells, DeviceModel, Effect, State, Written, held_by
from analogsim.device.parameters import checked, param
from analogsim.device.parse import DeviceLike, as_device_model
from analogsim.device.registry import available_devices, register
from analogsim.mapping import Layout as Layout  # here too, where packages of devices look for them
from analogsim.mapping import Mapping as Mapping
from analogsim.noise import Noise as Noise

__all__ = [
    "STUCK_OFF",
    "STUCK_ON",
    "Cells",
    "DeviceLike",
    "DeviceModel",
    "Effect",
    "State",
    "Written",
    "as_device_model",
    "available_devices",
    "checked",
    "held_by",
    "param",
    "register",
]
