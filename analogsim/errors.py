"""Errors a caller may want to catch apart."""


class NotProgrammedError(RuntimeError):
    """An analog layer was asked for a chip's answer, and there is no chip."""


class NotCalibratedError(RuntimeError):
    """A converter has no range yet."""


class NotRoutedError(RuntimeError):
    """A forward that takes products by itself did not take the one with the weight that runs analog."""


class StaleChipError(RuntimeError):
    """The weights changed after the chip was programmed: its answers are not those of this network."""


class ConversionWarning(UserWarning):
    """A part of the network that could have been meant to run analog stays digital."""


class FitWarning(UserWarning):
    """Measurements that cannot tell a parameter of a device, or not well."""
