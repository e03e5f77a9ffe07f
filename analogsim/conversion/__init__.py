"""From a digital network to its analog twin over the very same Parameters, and back."""

from analogsim.conversion.analog import convert
from analogsim.conversion.digital import to_digital

__all__ = ["convert", "to_digital"]
