"""What `prepare` found, as a value and in a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from analogsim.chip.compensation import Compensations
from analogsim.chip.lifecycle import Faults
from analogsim.chip.ranges import get_ranges
from analogsim.crossbar.crossbar import Crossbar
from analogsim.device.model import DeviceModel
from analogsim.evaluation.display import frame
from analogsim.evaluation.preparation.choice import DIGITAL
from analogsim.layers.module import matrices_of
from analogsim.mapping.mapping import Mapping as WeightMapping
from analogsim.utils.text import table
from analogsim.utils.times import label

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class TriedStep:
    """One thing that was tried, or why it was not.

    Args:
        name: of it.
        takes: of the hardware, in words.
        alone: the error with it alone; None where it was not measured.
        spread: standard error of what it changes alone, over chips; None likewise.
        kept: whether it is kept.
        added: where it is kept, the error with it and all kept before it.
        why: why it was not tried, or not kept, in words.
    """

    name: str
    takes: str
    alone: float | None = None
    spread: float | None = None
    kept: bool = False
    added: float | None = None
    why: str = ""


@dataclass(frozen=True, eq=False)
class Prepared:
    """What `prepare` found; ``str()`` is a table.

    Args:
        analog: the twin that was given, on the hardware that was found: mapping, crossbars, ranges.
        compensation: for ``evaluate(prepared.analog, loader, compensation=prepared.compensation, calibration=inputs)``.
        faults: for its ``faults=``: known ones, with weights laid around them if that is kept; None for none.
        steps: what was tried, what each brought.
        before: the error at first.
        after: with all that is kept.
        criterion: what the error is.
        times: the ages that chips were judged at, seconds.
        chips: how many chips.
        samples: how many inputs were held out to judge by.
        cells: at first, and now.
        seconds: that it took.
    """

    analog: nn.Module
    compensation: Compensations
    faults: Faults | Callable[[int], Faults | None] | None
    steps: tuple[TriedStep, ...]
    before: float
    after: float
    criterion: str
    times: tuple[float, ...]
    chips: int
    samples: int
    cells: tuple[int, int]
    seconds: float

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of what is kept, in the order in which it was added."""
        return tuple(step.name for step in sorted(self._kept, key=lambda step: -(step.added or 0.0)))

    @property
    def _kept(self) -> list[TriedStep]:
        return [step for step in self.steps if step.kept]

    @property
    def devices(self) -> dict[str, DeviceModel]:
        """What each layer lies on: ``convert(model, prepared.devices, crossbar=prepared.crossbars)`` makes it again.

        What stays digital lies on a device of that name, which has no error; None in its place says the same.
        """
        return {matrix.analog.name: matrix.analog.device for matrix in matrices_of(self.analog)}

    @property
    def digital(self) -> tuple[str, ...]:
        """The names of what stays digital."""
        return tuple(matrix.analog.name for matrix in matrices_of(self.analog) if matrix.analog.device == DIGITAL)

    @property
    def crossbars(self) -> dict[str, Crossbar]:
        """The array of each layer."""
        return {matrix.analog.name: matrix.analog.crossbar for matrix in matrices_of(self.analog)}

    @property
    def mapping(self) -> dict[str, WeightMapping]:
        """How the weights of each layer are laid on cells."""
        return {name: device.laid for name, device in self.devices.items()}

    @property
    def ranges(self) -> dict[str, dict[str, Tensor]]:
        """The ranges of converters, for `set_ranges`."""
        return get_ranges(self.analog)

    def __str__(self) -> str:
        def number(value: float | None) -> str:
            return "-" if value is None else f"{value:.4g}"

        head = ("step", "alone", "gained", "±", "kept", "with those before", "")
        body = [
            (
                step.name,
                number(step.alone),
                "-" if step.alone is None or not self.before else f"{1 - step.alone / self.before:.0%}",
                "-" if step.spread is None or not self.before else f"{step.spread / self.before:.0%}",
                "yes" if step.kept else "",
                number(step.added),
                step.why or (step.takes if step.kept else ""),
            )
            for step in self.steps
        ]
        lines = table(head[:-1], [row[:-1] for row in body]).splitlines()
        told = [*lines[:2], *(f"{line}  {row[-1]}".rstrip() for line, row in zip(lines[2:], body, strict=True))]
        told[0] = told[0].rstrip()
        ages = ", ".join(map(label, self.times))
        first, now = self.cells
        cells = f"{now:,} cells" if first == now else f"{now:,} cells, {first:,} before"
        return "\n".join(
            [
                f"{self.criterion}: {self.before:.4g} before, {self.after:.4g} after (mean over {self.chips} chips at "
                f"{ages}, {self.samples} inputs held out, {self.seconds:.1f} s)",
                "",
                *told,
                "",
                f"kept: {', '.join(self.kept) or 'nothing'}; compensation {self.compensation.text!r}; {cells}",
            ]
        )

    def to_frame(self) -> DataFrame:
        """A pandas frame, a row for each step.

        Raises:
            ImportError: pandas is missing.
        """
        return frame([vars(step) for step in self.steps])

    def to_dict(self) -> Mapping[str, Any]:
        """As JSON holds it: figures and names, without the twin."""
        return {
            "criterion": self.criterion,
            "before": self.before,
            "after": self.after,
            "compensation": self.compensation.text,
            "kept": list(self.kept),
            "times": list(self.times),
            "chips": self.chips,
            "samples": self.samples,
            "cells": list(self.cells),
            "digital": list(self.digital),
            "seconds": self.seconds,
            "steps": [vars(step) for step in self.steps],
            "devices": {name: device.name for name, device in self.devices.items()},
            "crossbars": {name: repr(crossbar) for name, crossbar in self.crossbars.items()},
            "ranges": {
                name: {kind: value.tolist() for kind, value in found.items()} for name, found in self.ranges.items()
            },
        }
