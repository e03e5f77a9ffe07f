"""The array that a network of a configuration runs on."""

from __future__ import annotations

from analogsim.crossbar import Crossbar, as_crossbar
from analogsim.recipes.config.options import Config
from analogsim.utils.text import named_call


def array_of(config: Config, *, aware: bool) -> Crossbar:
    """The crossbar of a network: as it is said, with input ranges that training learns where nothing is said of them.

    A range that is learned fits the values that matter, so that the converter's steps are finer and its noise weighs
    less; dynamic ranges follow the largest value of each vector. Plain training learns none.

    Args:
        config: says the crossbar, and whether ranges are learned.
        aware: whether the network is trained for the hardware.
    """
    array = as_crossbar(config.crossbar)
    if not (aware and config.calibration.learn_ranges and array.dac_bits is not None):
        return array
    _, said = named_call(config.crossbar, "crossbar", "adc_bits=6")
    return array if "input_range" in said else array.replace(input_range="learned")
