"""Errors a caller may want to catch apart."""


class NotProgrammedError(RuntimeError):
    """An analog layer was asked for a chip's answer, and there is no chip."""


class NotCalibratedError(RuntimeError):
    """A converter has no range yet."""


class NotRoutedError(RuntimeError):
    """A forward that takes products by itself did not take the one with the weight that runs analog."""


class BypassedError(NotRoutedError):
    """No analog matrix had a part in what a network answered: the answers are those of the digital one."""


class NonFiniteError(ValueError):
    """What a network answers, or what its answers score, is NaN or infinite."""


class StaleChipError(RuntimeError):
    """The weights changed after the chip was programmed: its answers are not those of this network."""


class StaleTwinError(RuntimeError):
    """A layer was taken apart after `convert` (pruning, weight norm): the twin is no longer one of its model."""


class WorkerError(RuntimeError):
    """Workers that judge chips died, or their executor takes no more tasks."""


class ConversionWarning(UserWarning):
    """A part of the network that could have been meant to run analog stays digital."""


class ChipGradientWarning(UserWarning):
    """A backward came to weights that are on a chip, which no gradient moves."""


class FitWarning(UserWarning):
    """Measurements that cannot tell a parameter of a device, or not well."""
