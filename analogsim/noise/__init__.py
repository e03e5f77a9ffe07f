"""The one door for randomness, and what stands behind it."""

from analogsim.noise.flicker import FlickerBand
from analogsim.noise.sources import (
    GlobalNoise,
    KeyedNoise,
    Noise,
    Scale,
    StreamNoise,
    TrainingNoise,
    flicker_like,
    is_silent,
    noise_is_compiled,
    use_compiled_noise,
)

__all__ = [
    "FlickerBand",
    "GlobalNoise",
    "KeyedNoise",
    "Noise",
    "Scale",
    "StreamNoise",
    "TrainingNoise",
    "flicker_like",
    "is_silent",
    "noise_is_compiled",
    "use_compiled_noise",
]
