"""Device models: one file per effect and per technology, each with its source.

Importing this package registers every built-in device model by its name.
"""

if __name__ == "devices":  # a bare checkout on the path would hide a second copy of every class
    raise ImportError("import analogsim.devices, not devices")

from analogsim.devices.drift import Drift
from analogsim.devices.gaussian import Gaussian
from analogsim.devices.pcm import PCMDrift, PCMProgramming, PCMReadNoise, pcm
from analogsim.devices.quantization import Quantization
from analogsim.devices.read_noise import ReadNoise
from analogsim.devices.stuck_at import StuckAt

__all__ = [
    "Drift",
    "Gaussian",
    "PCMDrift",
    "PCMProgramming",
    "PCMReadNoise",
    "Quantization",
    "ReadNoise",
    "StuckAt",
    "pcm",
]
