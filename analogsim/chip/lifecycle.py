"""A chip: weights written once into cells, followed through time, saved and loaded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from analogsim.chip.compensation import CompensationLike, gain_of
from analogsim.chip.layer_chip import LayerChip, MeasuredGain, layer_chips
from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import exactly, matrices_of
from analogsim.utils.checks import check_seed
from analogsim.utils.modules import in_eval
from analogsim.utils.times import seconds


def as_seed(seed: object) -> int:
    """The seed as Python's own integer; TypeError for what is no whole number, ValueError for one of too many bits."""
    return check_seed(seed, "seed:", bits=1024)  # a part of a key, which has room for many


Faults = Mapping[str, Tensor]


def program(analog: nn.Module, seed: int = 0, *, faults: Faults | None = None) -> None:
    """Write the weights into one chip: every draw that is fixed for a cell's life happens here, once.

    Weights that change afterwards make the chip stale, and its next answer an error. Only writes through ``.data``, as
    ``weight.data.mul_(2)``, leave torch no trace: they are noticed when the mode changes next (``train()``,
    ``eval()``), not before, since comparing all values in each forward would cost as much as the product. Write under
    ``torch.no_grad()`` instead.

    The same seed is the same chip whatever the batch, the order of layers, the process or the torch device. The
    Parameters are not touched. The chip is 0 seconds old afterwards; a chip that was there is gone.

    Args:
        analog: the twin from `convert`.
        seed: which chip.
        faults: for layers by name, a map of the cells known to be stuck (measured ones, or `draw_faults`), besides
            those that effects draw: ``(cells, out (+ reference columns), ...)`` with 0 for a cell that works, 1 for one
            stuck at ``g_min`` and 2 for one stuck at ``g_max``; or with the conductance (µS) of stuck cells, shorts and
            opens among them, and NaN for those that work. The working cells of a pair, its copies among them, take up
            what the stuck ones cannot.

    Raises:
        ValueError: a weight is NaN or infinite, ``analog`` has no analog layer, or the faults are no map of its layers.
            The old chip stays then.

    Warns:
        UserWarning: the twin has adapters that `fine_tune` trained on another chip.
    """
    number = as_seed(seed)
    layers = matrices_of(analog)
    if faults is not None and not isinstance(faults, Mapping):
        raise InvalidTypeError(f"program: faults must be a mapping from layers to maps of their cells, got {faults!r}")
    known = dict(faults or {})
    chips = [LayerChip.program(layer, number, known.pop(layer.analog.name, None)) for layer in layers]
    if known:
        names = ", ".join(repr(layer.analog.name) for layer in layers)
        raise InvalidValueError(f"program: faults of {min(known)!r}, which is no analog layer; there are {names}")
    for layer, chip in zip(layers, chips, strict=True):
        layer.analog.chip = chip
    others = {layer.analog.adapter.seed for layer in layers if layer.analog.adapter is not None} - {None, number}
    if others:
        warnings.warn(
            f"program: the adapters of this twin were trained on chip {others.pop()}, and this is chip {number}; "
            "analogsim.remove_adapters(analog) takes them off, analogsim.fine_tune(analog, inputs) trains them on it",
            stacklevel=2,
        )


def drift(analog: nn.Module, t: float | str, *, compensation: CompensationLike = "global") -> None:
    """Let the programmed chip be ``t`` old. The same chip, the same ``t``, the same answer, in any order of times.

    Args:
        analog: the twin, programmed.
        t: time since programming: seconds, or ``"1s"``, ``"1h"``, ``"1d"``, ``"1mo"``, ``"1y"``. What
            `calibrate_outputs` has set stays as it was measured; call it again for what the chip is now.
        compensation: measured digital gains that undo the mean decay: one ``"global"`` gain per layer, one for each
            ``"crossbar"`` or for each ``"column"`` of one, or an `analogsim.chip.Gain` of one's own; None: none. A
            device that does not change with time is left alone.

    Raises:
        NotProgrammedError: there is no chip.
        StaleChipError: the weights changed since.
        ValueError: a time before programming or one that a device has no model for, or an unknown compensation. The
            chip stays at the age it had.
    """
    gain = gain_of(compensation)
    time = seconds(t)
    done: list[tuple[AnalogMatrix, LayerChip, float, MeasuredGain | None]] = []
    try:
        for layer, chip in layer_chips(analog, "drift"):
            chip.weight_for(*layer.still())  # there, if it has moved
            before = (layer, chip, chip.time, chip.compensation)
            chip.set_time(time, gain, layer.analog.known_bound)
            done.append(before)
    except Exception:
        for layer, chip, old_time, old_compensation in done:
            chip.set_time(old_time, old_compensation, layer.analog.known_bound)
        raise


def erase(analog: nn.Module) -> None:
    """Back to no chip. Nothing happens to a twin without one."""
    for layer in matrices_of(analog):
        layer.analog.chip = None


@contextmanager
def without_errors(analog: nn.Module) -> Iterator[nn.Module]:
    """For a block, in eval mode: a twin with its converters, their ranges and steps, and no error of devices or wires.

    What the network is that a crossbar's converters were trained into. Its chip, if it has one, is not asked.

    Args:
        analog: the twin; its modes are as before afterwards.
    """
    with exactly(analog, converters=True, adapters=True):
        yield analog


@contextmanager
def programmed(
    analog: nn.Module,
    seed: int = 0,
    t: float | str = 0.0,
    *,
    compensation: CompensationLike = "global",
    faults: Faults | None = None,
) -> Iterator[nn.Module]:
    """Program and drift a chip for a block, in eval mode; chip and modes are as before afterwards.

    Args:
        analog: the twin.
        seed: which chip, see `program`.
        t: its age, see `drift`.
        compensation: see `drift`.
        faults: see `program`.

    Example:
        >>> import torch, analogsim
        >>> analog = analogsim.convert(torch.nn.Linear(4, 2), device="pcm")
        >>> with analogsim.programmed(analog, seed=3, t="1y"):
        ...     tuple(analog(torch.ones(1, 4)).shape)
        (1, 2)
    """
    layers = matrices_of(analog)
    chips = [layer.analog.chip for layer in layers]
    try:
        program(analog, seed, faults=faults)
        drift(analog, t, compensation=compensation)
        with in_eval(analog):
            yield analog
    finally:
        for layer, chip in zip(layers, chips, strict=True):
            layer.analog.chip = chip
        for chip in chips:
            if chip is not None:
                chip.suspect()
