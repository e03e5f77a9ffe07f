"""What analogsim raises: `AnalogsimError`, by a kind, and the warnings that a caller may want to filter apart.

An error that a user can meet is one of these, says in one line what is wrong, the value given and what to do, and is
besides the built-in error that Python has for its kind, so that ``except ValueError`` takes it. What comes out of
analogsim and is none of them is a bug of ours, but for what the operating system answers (`OSError`) and what code of
the user's own raises. All of them go through pickle, as workers send them.
"""


class AnalogsimError(Exception):
    """What analogsim refuses or cannot do, and says itself; the parent of all errors here."""


class InvalidValueError(AnalogsimError, ValueError):
    """A value that cannot be taken: out of range, an unknown name, parts that do not fit together, a damaged file.

    Cause: a slip in a value, or a file that is another one than was meant.
    Cure: the message names the value and what it may be; change it there.
    """


class InvalidTypeError(AnalogsimError, TypeError):
    """A thing of another kind than is asked for, such as text in place of a number.

    Cause: most often quotes around a number, a class in place of an object, or a network where its twin belongs.
    Cure: the message says what is asked for.
    """


class OperationError(AnalogsimError, RuntimeError):
    """What was asked for cannot be done as things are, whatever the values.

    Cause: an order of calls that cannot be, or something that torch or this machine does not do.
    Cure: the message says what must be done before.
    """


class MissingKeyError(AnalogsimError, KeyError):
    """A name under which there is nothing.

    Cause: another spelling, or an object that never had it.
    Cure: take one of the names that the message lists.
    """

    def __str__(self) -> str:  # KeyError puts its message in quotes
        return Exception.__str__(self)


class MissingAttributeError(AnalogsimError, AttributeError):
    """A module has no Parameter of the name that a layer's slot gives.

    Cause: a layer registered by `register_layer` for another digital type.
    Cure: give in `slots` the names that `named_parameters` of the digital layer has.
    """


class MissingFileError(AnalogsimError, FileNotFoundError):
    """A file or folder that is not there, or not in any of the places where it is looked for.

    Cause: another working directory, a file that was moved, or an output whose folder is not made yet.
    Cure: look where the message looked; make the folder, or give the path from here.
    """


class MissingPackageError(AnalogsimError, ImportError):
    """A package, a file of Python or a name in one that cannot be imported.

    Cause: an optional part of analogsim is used, or a path to Python code is not as it should be.
    Cure: install what the message says; of code of your own, import it by hand and see what Python says.
    """


class UnreachableError(AnalogsimError, ConnectionError):
    """A server or a database that does not answer, or refuses.

    Cause: it is not started, the address is another one, or it wants a name and a password.
    Cure: start it, or give another address; `--no-tracking` trains without MLflow.
    """


class NoAnswerError(AnalogsimError, TimeoutError):
    """A program that was started and did not answer in time.

    Cause: a busy machine, or a port that another program has.
    Cure: look at the last words of the program, which are in the message; try again, or another `--port`.
    """


class InvalidInputError(AnalogsimError, AssertionError):
    """Inputs of attention whose shapes do not fit; torch's own layer asserts the same.

    Cause: a batch or sequence axis in another place.
    Cure: give the shapes that torch's layer documents, which the message says.
    """


class UnavailableError(AnalogsimError, OSError):
    """A file or a port that cannot be had, in words that say more than the operating system's.

    Cause: a full disk, no right to write, or a port that is taken.
    Cure: give another place or port.
    """


class NotProgrammedError(OperationError):
    """An analog layer was asked for a chip's answer, and there is no chip.

    Cause: `eval()` on a twin, without a chip: its answers would be those of no hardware.
    Cure: call `analogsim.program(analog)` first, or `analogsim.to_digital(analog)` for the clean network.
    """


class NotCalibratedError(OperationError):
    """A converter has no range yet.

    Cause: a crossbar with `input_range="calibrated"` or `output_bound="calibrated"`.
    Cure: call `analogsim.calibrate(analog, loader)`, or give the range a number.
    """


class NotRoutedError(OperationError):
    """A forward that takes products by itself did not take the one with the weight that runs analog.

    Cause: the forward multiplies by another tensor than the weight (a copy, a slice that was kept), or in an
    operation that is not followed.
    Cure: take the product with the weight itself, or register the layer (docs/networks.md).
    """


class BypassedError(NotRoutedError):
    """No analog matrix had a part in what a network answered: the answers are those of the digital one.

    Cause: the network computes with the weights past its layers.
    Cure: `analogsim.audit(analog, inputs)` tells which layers are used, and by what.
    """


class NonFiniteError(InvalidValueError):
    """What a network answers, or what its answers score, is NaN or infinite.

    Cause: weights or inputs that are NaN or infinite, a diverged training, or a score that divides by zero.
    Cure: the message names the first module that made one; look at its inputs.
    """


class StaleChipError(OperationError):
    """The weights changed after the chip was programmed: its answers are not those of this network.

    Cause: an optimizer step, a loaded state dict or an edited weight after `program`.
    Cure: call `analogsim.program(analog)` again.
    """


class StaleTwinError(OperationError):
    """A layer was taken apart after `convert` (pruning, weight norm): the twin is no longer one of its model.

    Cause: pruning, weight norm or another parametrization after `convert`.
    Cure: do it before `convert`, and convert again.
    """


class WorkerError(OperationError):
    """Workers that judge chips died, or their executor takes no more tasks.

    Cause: too little memory, or a batch system that ends workers.
    Cure: take fewer workers; with `journal=` what was judged is kept, and the same call goes on.
    """


class ConversionWarning(UserWarning):
    """A part of the network that could have been meant to run analog stays digital.

    Cause: a layer of a type that is not known, or one that is left out by a pattern.
    Cure: name it in `device={...: None}` if that is meant, else register it (docs/networks.md).
    """


class ChipGradientWarning(UserWarning):
    """A backward came to weights that are on a chip, which no gradient moves.

    Cause: a loss on a programmed chip, whose weights are written and do not move.
    Cure: train without a chip (`analogsim.erase`), or train adapters (`analogsim.fine_tune`).
    """


class FitWarning(UserWarning):
    """Measurements that cannot tell a parameter of a device, or not well.

    Cause: too few cells or readings, or too short a time.
    Cure: look at the interval of the parameter; measure more, or give it by hand.
    """
