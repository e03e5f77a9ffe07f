"""What analogsim raises: `AnalogsimError`, by a kind, and the warnings that a caller may want to filter apart.

An error that a user can meet is one of these, says in one line what is wrong, the value given and what to do, and is
besides the built-in error that Python has for its kind, so that ``except ValueError`` takes it. What comes out of
analogsim and is none of them is a bug of ours, but for what the operating system answers (`OSError`) and what code of
the user's own raises. All of them go through pickle, as workers send them.
"""


class AnalogsimError(Exception):
    """What analogsim refuses or cannot do, and says itself; the parent of all errors here."""


class InvalidValueError(AnalogsimError, ValueError):
    """A value that cannot be taken: out of range, an unknown name, parts that do not fit together, a damaged file."""


class InvalidTypeError(AnalogsimError, TypeError):
    """A thing of another kind than is asked for, such as text in place of a number."""


class OperationError(AnalogsimError, RuntimeError):
    """What was asked for cannot be done as things are, whatever the values."""


class MissingKeyError(AnalogsimError, KeyError):
    """A name under which there is nothing."""

    def __str__(self) -> str:  # KeyError puts its message in quotes
        return Exception.__str__(self)


class MissingAttributeError(AnalogsimError, AttributeError):
    """A module has no Parameter of the name that a layer's slot gives."""


class MissingFileError(AnalogsimError, FileNotFoundError):
    """A file or folder that is not there, or not in any of the places where it is looked for."""


class MissingPackageError(AnalogsimError, ImportError):
    """A package, a file of Python or a name in one that cannot be imported."""


class UnreachableError(AnalogsimError, ConnectionError):
    """A server or a database that does not answer, or refuses."""


class NoAnswerError(AnalogsimError, TimeoutError):
    """A program that was started and did not answer in time."""


class InvalidInputError(AnalogsimError, AssertionError):
    """Inputs of attention whose shapes do not fit; torch's own layer asserts the same."""


class UnavailableError(AnalogsimError, OSError):
    """A file or a port that cannot be had, in words that say more than the operating system's."""


class NotProgrammedError(OperationError):
    """An analog layer was asked for a chip's answer, and there is no chip."""


class NotCalibratedError(OperationError):
    """A converter has no range yet."""


class NotRoutedError(OperationError):
    """A forward that takes products by itself did not take the one with the weight that runs analog."""


class BypassedError(NotRoutedError):
    """No analog matrix had a part in what a network answered: the answers are those of the digital one."""


class NonFiniteError(InvalidValueError):
    """What a network answers, or what its answers score, is NaN or infinite."""


class StaleChipError(OperationError):
    """The weights changed after the chip was programmed: its answers are not those of this network."""


class StaleTwinError(OperationError):
    """A layer was taken apart after `convert` (pruning, weight norm): the twin is no longer one of its model."""


class WorkerError(OperationError):
    """Workers that judge chips died, or their executor takes no more tasks."""


class ConversionWarning(UserWarning):
    """A part of the network that could have been meant to run analog stays digital."""


class ChipGradientWarning(UserWarning):
    """A backward came to weights that are on a chip, which no gradient moves."""


class FitWarning(UserWarning):
    """Measurements that cannot tell a parameter of a device, or not well."""
