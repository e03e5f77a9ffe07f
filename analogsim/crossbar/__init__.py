"""One crossbar array with its periphery: size, wires, converters, the signal path of a product, measured gains."""

from analogsim.crossbar.crossbar import IDEAL, STANDARD, Crossbar, CrossbarLike, as_crossbar
from analogsim.crossbar.wires import Wires, effective_conductance

__all__ = [
    "IDEAL",
    "STANDARD",
    "Crossbar",
    "CrossbarLike",
    "Wires",
    "as_crossbar",
    "effective_conductance",
]
