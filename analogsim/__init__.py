"""analogsim: what is left of a PyTorch network on analog in-memory hardware, and training that survives it."""

from analogsim import devices as devices
from analogsim.chip import drift, erase, program, programmed
from analogsim.chipfile import load_chip, save_chip
from analogsim.clipping import clip_weights
from analogsim.convert import convert, to_digital
from analogsim.device import Cells, DeviceModel, Effect, param
from analogsim.devices import Drift, Gaussian, Quantization, ReadNoise, StuckAt
from analogsim.errors import ConversionWarning, NotProgrammedError, StaleChipError
from analogsim.evaluate import evaluate
from analogsim.layers import AnalogLayer, register_layer
from analogsim.mapping import Mapping
from analogsim.registry import as_device_model, available_devices, register
from analogsim.report import Report
from analogsim.schedule import NoiseSchedule, set_noise_scale
from analogsim.summary import summary
from analogsim.times import seconds

__version__ = "0.1.0"

__all__ = [
    "AnalogLayer",
    "Cells",
    "ConversionWarning",
    "DeviceModel",
    "Drift",
    "Effect",
    "Gaussian",
    "Mapping",
    "NoiseSchedule",
    "NotProgrammedError",
    "Quantization",
    "ReadNoise",
    "Report",
    "StaleChipError",
    "StuckAt",
    "as_device_model",
    "available_devices",
    "clip_weights",
    "convert",
    "drift",
    "erase",
    "evaluate",
    "load_chip",
    "param",
    "program",
    "programmed",
    "register",
    "register_layer",
    "save_chip",
    "seconds",
    "set_noise_scale",
    "summary",
    "to_digital",
]
