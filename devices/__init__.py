"""Device models: one file per effect and per technology, each with its source.

Importing this package registers every built-in device model by its name.
"""

if __name__ == "devices":  # a bare checkout on the path would hide a second copy of every class
    raise ImportError("import analogsim.devices, not devices")

from analogsim.devices.drift import Drift
from analogsim.devices.fitted import FittedDrift, FittedProgramming, FittedReadNoise, FittedSlowNoise
from analogsim.devices.gaussian import Gaussian
from analogsim.devices.pcm import (
    PCMDrift,
    PCMDriftCrossSim,
    PCMProgramming,
    PCMProgrammingCrossSim,
    PCMReadNoise,
    pcm,
)
from analogsim.devices.pcm_hermes import HermesDrift, HermesProgramming, HermesReadNoise, pcm_hermes
from analogsim.devices.programming import ProgrammingNoise
from analogsim.devices.quantization import Quantization
from analogsim.devices.read_noise import ReadNoise
from analogsim.devices.relaxation import Relaxation
from analogsim.devices.reram_cmo import CMOProgramming, CMOReadNoise, CMORelaxation, reram_cmo
from analogsim.devices.reram_milo import MiloProgramming, reram_milo
from analogsim.devices.reram_wan2022 import WanProgramming, WanProgrammingCrossSim, WanRelaxation, reram_wan2022
from analogsim.devices.sonos import SonosProgramming, SonosReadNoise, SonosRetention, sonos
from analogsim.devices.stuck_at import StuckAt
from analogsim.devices.temperature import equivalent_age

__all__ = [
    "CMOProgramming",
    "CMOReadNoise",
    "CMORelaxation",
    "Drift",
    "FittedDrift",
    "FittedProgramming",
    "FittedReadNoise",
    "FittedSlowNoise",
    "Gaussian",
    "HermesDrift",
    "HermesProgramming",
    "HermesReadNoise",
    "MiloProgramming",
    "PCMDrift",
    "PCMDriftCrossSim",
    "PCMProgramming",
    "PCMProgrammingCrossSim",
    "PCMReadNoise",
    "ProgrammingNoise",
    "Quantization",
    "ReadNoise",
    "Relaxation",
    "SonosProgramming",
    "SonosReadNoise",
    "SonosRetention",
    "StuckAt",
    "WanProgramming",
    "WanProgrammingCrossSim",
    "WanRelaxation",
    "equivalent_age",
    "pcm",
    "pcm_hermes",
    "reram_cmo",
    "reram_milo",
    "reram_wan2022",
    "sonos",
]
