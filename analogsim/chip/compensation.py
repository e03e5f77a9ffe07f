"""Corrections after reading, made only from what a real chip can measure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from analogsim.chip.batch_norm import gather_statistics, has_batch_norm, own_statistics
from analogsim.chip.calibration import calibrate
from analogsim.chip.outputs import Match, aged, kept_corrections, match_outputs
from analogsim.chip.ranges import ranges_as_they_are
from analogsim.crossbar.gains import Rule, column_gains, crossbar_gains, layer_gain
from analogsim.errors import InvalidValueError
from analogsim.layers.module import matrices_of
from analogsim.mapping.layout import Layout
from analogsim.utils.batches import Inputs, inputs_of, is_empty, moved
from analogsim.utils.tensors import holds_nonfinite
from analogsim.utils.times import seconds


class Compensation(ABC):
    """A correction of a chip, under a name; either a `Gain` or an `Adjustment`.

    Compensations and their names are joined by ``+``: ``"column+batch-norm"``, ``"column" + Offset()``.

    Args:
        name: stands in reports.
    """

    name: str
    needs_data: ClassVar[bool]
    """Whether data have to go through the chip for it."""

    @property
    def kind(self) -> str:
        """What it corrects: of one kind a chip takes one. By default there is no other of its kind."""
        return self.name

    def why_not(self, analog: nn.Module) -> str:
        """Why there is nothing for it to do in a network, in words; empty if there is."""
        return ""

    def measured_at(self, t: str) -> Compensation:
        """The same, measured when the chip is ``t`` old and used at every age; its name is ``"name@t"``.

        Raises:
            ValueError: it is measured at the age that the chip has.
        """
        raise InvalidValueError(
            f"compensation: {self.name!r} is made anew at each age, and cannot be measured at {t!r} for all of them"
        )

    def __add__(self, other: CompensationLike) -> Compensations:
        return as_compensations(self) + other

    def __radd__(self, other: CompensationLike) -> Compensations:
        return as_compensations(other) + self


@dataclass(frozen=True)
class Gain(Compensation):
    """Digital gains on what comes out of a layer, measured right after programming and again when the chip drifts.

    Args:
        name: see `Compensation`.
        rule: the gains, from the sums over columns measured then, those measured now (each ``(out, row blocks)``) and
            the layer's blocks: a scalar, or ``(out, row blocks)``.
    """

    name: str
    rule: Rule
    needs_data: ClassVar[bool] = False

    @property
    def kind(self) -> str:
        """See `Compensation.kind`."""
        return "gain"

    def gains(self, reference: Tensor, now: Tensor, layout: Layout) -> Tensor:
        """What the rule says.

        Raises:
            ValueError: the rule gives no gains for this layer, or some that are NaN or infinite.
        """
        found = self.rule(reference, now, layout)
        if not isinstance(found, Tensor) or found.shape not in ((), reference.shape):
            raise InvalidValueError(
                f"compensation {self.name!r}: its rule must give a scalar tensor or one of {tuple(reference.shape)}, "
                f"got {tuple(found.shape) if isinstance(found, Tensor) else found!r}"
            )
        # Of a device whose cells are infinite the gains are too; that is not the rule's fault.
        if not found.isfinite().all() and reference.isfinite().all() and now.isfinite().all():
            wrong = int((~found.isfinite()).sum())
            raise InvalidValueError(
                f"compensation {self.name!r}: its rule gives NaN or infinite gains, {wrong} of {found.numel()}, as "
                "where it divides by what a column of zeros reads"
            )
        return found


@dataclass(frozen=True)
class CalibrationData:
    """What an adjustment is made of.

    Args:
        digital: the network without hardware, in eval mode; its modules have the names of the twin's.
        loader: as the user gave it, see `calibrate`; None where no adjustment needs data.
        place: the torch device of the network.
    """

    digital: nn.Module
    loader: Iterable[Any] | None
    place: torch.device

    def inputs(self) -> Iterator[Inputs]:
        """The batches of inputs, where the network is; to be asked as often as needed.

        Raises:
            ValueError: there are none, one has no samples, or is NaN or infinite.
        """
        for number, batch in enumerate(inputs_of(self.loader or ())):
            if is_empty(batch):
                raise InvalidValueError(f"compensation: batch {number} of the calibration data holds no samples")
            if holds_nonfinite(batch, masks=True):
                raise InvalidValueError(
                    f"compensation: batch {number} of the calibration data holds NaN or infinite values"
                )
            yield moved(batch, self.place)


Renew = Callable[[], None]


class Adjustment(Compensation):
    """A correction that is made on the chip as it is, anew after each drift, and undone before the next.

    Subclasses say `name` and `on_chip`, and ``needs_data = False`` if they are made without any. An offset of the whole
    network's outputs, for example::

        class MeanOutput(Adjustment):
            name = "mean-output"

            @contextmanager
            def on_chip(self, analog, data):
                shift = 0.0
                hook = analog.register_forward_hook(lambda module, inputs, output: output + shift)

                def renew():
                    nonlocal shift
                    shift = 0.0
                    errors = [data.digital(inputs) - analog(inputs) for inputs in data.inputs()]
                    shift = torch.cat(errors).mean(0)

                try:
                    yield renew
                finally:
                    hook.remove()
    """

    needs_data: ClassVar[bool] = True
    early: ClassVar[int] = 0
    """Those with a higher number come first, wherever they are written: what all others measure through."""

    @abstractmethod
    def on_chip(self, analog: nn.Module, data: CalibrationData) -> AbstractContextManager[Renew]:
        """A block for one chip of one age, which gives a function that makes the correction.

        After the block the twin is as before it, whatever happened. The function is called without autograd, when those
        before it have been made.

        Args:
            analog: the twin, programmed, in eval mode.
            data: what to measure with.
        """


@dataclass(frozen=True)
class BatchNormStatistics(Adjustment):
    """Means and variances of batch norm, estimated again on the chip as it is: see `gather_statistics`."""

    name = "batch-norm"

    def why_not(self, analog: nn.Module) -> str:
        """See `Compensation`."""
        return "" if has_batch_norm(analog) else "the network has no batch norm"

    @contextmanager
    def on_chip(self, analog: nn.Module, data: CalibrationData) -> Iterator[Renew]:
        """See `Adjustment`."""
        with own_statistics(analog):
            yield lambda: gather_statistics(analog, data.inputs())


@dataclass(frozen=True)
class CalibratedRanges(Adjustment):
    """Calibrated ranges of converters, set again on the chip as it is; learned ones stay: see `calibrate`."""

    early: ClassVar[int] = 2
    name = "ranges"

    def why_not(self, analog: nn.Module) -> str:
        """See `Compensation`."""
        if any(matrix.analog.crossbar.calibrates for matrix in matrices_of(analog)):
            return ""
        return (
            "no crossbar leaves a range to calibration; give "
            'Crossbar(input_range="calibrated") or output_bound="calibrated"'
        )

    @contextmanager
    def on_chip(self, analog: nn.Module, data: CalibrationData) -> Iterator[Renew]:
        """See `Adjustment`."""
        restore = ranges_as_they_are(analog)
        try:
            yield lambda: calibrate(analog, data.loader or (), keep_learned=True)
        finally:
            restore()


@dataclass(frozen=True)
class MatchedOutputs(Adjustment):
    """A digital scale and offset for each output, as in the digital network: see `calibrate_outputs`.

    It is made before batch norm is estimated again, since the digital network has its own statistics.

    Args:
        name: see `Compensation`.
        match: see `calibrate_outputs`.
        at: the age at which it is measured, to be used at every age; None: measured at each.
    """

    name: str
    match: Match
    at: str | None = None
    early: ClassVar[int] = 1

    @property
    def kind(self) -> str:
        """See `Compensation.kind`."""
        return "outputs"

    def __post_init__(self) -> None:
        if self.at is not None:
            seconds(self.at)

    def measured_at(self, t: str) -> MatchedOutputs:
        """See `Compensation.measured_at`."""
        return replace(self, name=f"{self.name}@{t}", at=t)

    @contextmanager
    def on_chip(self, analog: nn.Module, data: CalibrationData) -> Iterator[Renew]:
        """See `Adjustment`."""

        def renew() -> None:
            with nullcontext() if self.at is None else aged(analog, self.at):
                match_outputs(analog, data.inputs, self.match)

        with kept_corrections(analog):
            yield renew


COMPENSATIONS: dict[str, Compensation] = {
    each.name: each
    for each in (
        Gain("global", layer_gain),
        Gain("crossbar", crossbar_gains),
        Gain("column", column_gains),
        BatchNormStatistics(),
        CalibratedRanges(),
        MatchedOutputs("affine", "moments"),
        MatchedOutputs("bias", "bias"),
    )
}
"""Those that have a name. Others are given as values; what is put in here has a name everywhere."""


@dataclass(frozen=True)
class Compensations:
    """All that is corrected on a chip.

    Args:
        parts: of distinct names, one gain at most.

    Raises:
        ValueError: several gains or other two of a kind, one compensation twice, or one without a name.
    """

    parts: tuple[Compensation, ...] = ()

    def __post_init__(self) -> None:
        for part in self.parts:
            name = getattr(part, "name", None)
            if not isinstance(name, str) or not name or "+" in name:
                raise InvalidValueError(
                    f"compensation: {part!r} needs a name to stand in reports, text without '+'; its name is {name!r}"
                )
        if len(set(self.names)) < len(self.parts):
            raise InvalidValueError(f"{_what_there_is(self.text)}; the same name stands there twice")
        kinds = [part.kind for part in self.parts]
        several = next((kind for kind in kinds if kinds.count(kind) > 1), None)
        if several is not None:
            raise InvalidValueError(f"{_what_there_is(self.text)}; two of them are of one kind, {several}")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parts, as they are written."""
        return tuple(part.name for part in self.parts)

    @property
    def text(self) -> str | None:
        """The names joined by ``+``; None for nothing."""
        return "+".join(self.names) or None

    @property
    def gain(self) -> Gain | None:
        """What is measured when the chip drifts."""
        return next((part for part in self.parts if isinstance(part, Gain)), None)

    @property
    def adjustments(self) -> tuple[Adjustment, ...]:
        """What is made on the chip afterwards, in the order in which it is made."""
        found = [part for part in self.parts if isinstance(part, Adjustment)]
        return tuple(sorted(found, key=lambda part: -part.early))

    @property
    def needs_data(self) -> bool:
        """Whether data have to go through the chip for any of them."""
        return any(part.needs_data for part in self.parts)

    def check(self, analog: nn.Module, action: str) -> None:
        """Raise ValueError, in the name of an action, unless each of them has something to do in a network."""
        for part in self.parts:
            if reason := part.why_not(analog):
                raise InvalidValueError(f"{action}: compensation {self.text!r}: {reason}")

    def fitting(self, analog: nn.Module) -> Compensations:
        """Those that have something to do in a network."""
        return Compensations(tuple(part for part in self.parts if not part.why_not(analog)))

    def without_gain(self) -> Compensations:
        """All but the gain."""
        return Compensations(tuple(part for part in self.parts if not isinstance(part, Gain)))

    def __add__(self, other: CompensationLike) -> Compensations:
        return Compensations((*self.parts, *as_compensations(other).parts))

    def __radd__(self, other: CompensationLike) -> Compensations:
        return as_compensations(other) + self


CompensationLike = str | Compensation | Compensations | None


def _what_there_is(got: object) -> str:
    gains = ", ".join(name for name, part in COMPENSATIONS.items() if isinstance(part, Gain))
    others = ", ".join(name for name, part in COMPENSATIONS.items() if not isinstance(part, Gain))
    return (
        f"compensation: must be None, or one of {gains}, or one of these (or none) and any of {others} joined by '+', "
        f"got {got!r}; 'affine@1h' is measured at one hour and used at every age; objects of analogsim.chip.Gain and "
        "analogsim.chip.Adjustment may stand in place of names"
    )


def as_compensations(asked: CompensationLike) -> Compensations:
    """What is meant by ``"global"``, ``"column+batch-norm+ranges"``, ``"affine@1h"``, an object, several, or None.

    Raises:
        ValueError: it is something else, or names two kinds of gain.
    """
    if asked is None:
        return Compensations()
    if isinstance(asked, Compensations):
        return asked
    if isinstance(asked, Gain | Adjustment):
        return Compensations((asked,))
    names = [name.partition("@") for name in asked.split("+")] if isinstance(asked, str) else []
    if not names or not all(name in COMPENSATIONS and bool(at) == bool(t) for name, at, t in names):
        raise InvalidValueError(_what_there_is(asked))
    return Compensations(
        tuple(COMPENSATIONS[name].measured_at(t) if t else COMPENSATIONS[name] for name, _, t in names)
    )


def gain_of(compensation: CompensationLike) -> Gain | None:
    """The gain, where nothing more can be done.

    Raises:
        ValueError: it is no compensation, or there is more to it than a gain.
    """
    wanted = as_compensations(compensation)
    if wanted.adjustments:
        why = "needs data that go through the chip" if wanted.needs_data else "is made anew for each use of the chip"
        gains = ", ".join(name for name, part in COMPENSATIONS.items() if isinstance(part, Gain))
        matched = any(isinstance(part, MatchedOutputs) for part in wanted.parts)
        raise InvalidValueError(
            f"compensation: {wanted.text!r} {why}; here give one of {gains} or None, and the rest to analogsim.evaluate"
            + ("; for the outputs of this one chip there is analogsim.calibrate_outputs" * matched)
        )
    return wanted.gain
