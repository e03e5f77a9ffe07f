"""The one door for randomness, and what stands behind it."""

from analogsim.noise.sources import (
    GlobalNoise,
    KeyedNoise,
    Noise,
    Scale,
    StreamNoise,
    TrainingNoise,
    is_silent,
    noise_is_compiled,
    use_compiled_noise,
)

__all__ = [
    "GlobalNoise",
    "KeyedNoise",
    "Noise",
    "Scale",
    "StreamNoise",
    "TrainingNoise",
    "is_silent",
    "noise_is_compiled",
    "use_compiled_noise",
]
