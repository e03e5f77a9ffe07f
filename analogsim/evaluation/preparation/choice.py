"""What is done for a twin, as a value, and the twin put on the hardware that it asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn

from analogsim.chip.calibration import calibrate
from analogsim.chip.compensation import Compensations
from analogsim.chip.layer_errors import Trial
from analogsim.chip.percentile_search import search_percentile
from analogsim.chip.range_search import search_ranges
from analogsim.crossbar.crossbar import IDEAL, Crossbar
from analogsim.device.model import DeviceModel, Effect
from analogsim.device.parse import with_mapping
from analogsim.layers.module import matrices_of

INPUTS, OUTPUTS = "input_range", "output_bound"


@dataclass(frozen=True)
class Exact(Effect):
    """No error at all: the weight is a digital number."""

    signed: ClassVar[bool] = True
    cellwise: ClassVar[bool] = True


DIGITAL = DeviceModel((Exact(),), name="digital")
"""What a matrix lies on that stays digital."""


@dataclass(frozen=True)
class Choice:
    """What is done.

    Args:
        compensations: on each chip.
        copies: how many cells hold one conductance; None: as many as do.
        percentile: whether the largest weights are searched for.
        ranges: of `INPUTS` and `OUTPUTS`, the ranges of converters that are set from data and searched for.
        calibrated: those that are set from data alone, which takes no longer than a forward or two.
        digital: the names of matrices that stay digital.
        around: whether weights are laid around known faults; ``"signs"``: with their signs turned too.
    """

    compensations: Compensations
    copies: int | None = None
    percentile: bool = False
    ranges: frozenset[str] = frozenset()
    calibrated: frozenset[str] = frozenset()
    digital: frozenset[str] = frozenset()
    around: str = ""

    @property
    def hardware(self) -> Choice:
        """What of it the twin is changed by."""
        return replace(self, compensations=Compensations(), around="")


def set_from_data(crossbar: Crossbar, kinds: Iterable[str]) -> Crossbar:
    """A crossbar whose ranges of these kinds are set from data, where it has converters that take one.

    Ranges that are learned or fixed numbers stay, but for the bound of outputs, whose fixed number is a default.
    """
    if (
        INPUTS in kinds
        and crossbar.input_range == "dynamic"
        and (crossbar.dac_bits is not None or crossbar.output_noise)
    ):
        crossbar = crossbar.replace(input_range="calibrated")
    if OUTPUTS in kinds and crossbar.output_bound is not None:
        crossbar = crossbar.replace(output_bound="calibrated")
    return crossbar


class Bench:
    """A twin on the hardware of choices, each of which is made once.

    Args:
        analog: the twin.
        inputs: what searches see.
        ages: of the chips in searches, seconds.
    """

    def __init__(self, analog: nn.Module, inputs: Iterable[Any], ages: Sequence[float]) -> None:
        self._states = [matrix.analog for matrix in matrices_of(analog)]
        self._analog, self._inputs, self._ages = analog, inputs, ages
        self._first = [Trial.now(state) for state in self._states]
        self._chips = [state.chip for state in self._states]
        self._made: dict[Choice, list[Trial]] = {}

    def is_made(self, choice: Choice) -> bool:
        """Whether the hardware of a choice is there, and nothing has to be searched for."""
        return choice.hardware in self._made or not (choice.percentile or choice.ranges)

    def restore(self) -> None:
        """On the hardware that it was on; chips are gone."""
        self._put(self._first)

    def undo(self) -> None:
        """As it was, with the chip that it had."""
        self.restore()
        for state, chip in zip(self._states, self._chips, strict=True):
            state.chip = chip

    def put(self, choice: Choice) -> None:
        """Let the twin lie on the hardware of a choice; chips are gone.

        Raises:
            ValueError: it cannot lie there.
        """
        key = choice.hardware
        if key not in self._made:
            self._make(choice)
            self._made[key] = [Trial.now(state) for state in self._states]
        self._put(self._made[key])

    def _put(self, lying: list[Trial]) -> None:
        for state, held in zip(self._states, lying, strict=True):
            state.put_on(held.device, held.crossbar)
            held.put(state)

    def _make(self, choice: Choice) -> None:
        self.restore()
        for state in self._states:
            if state.name in choice.digital:
                state.put_on(DIGITAL, IDEAL)
                continue
            device = state.device
            if choice.copies is not None and not device.signed:
                device = with_mapping(device, copies=choice.copies)
            state.put_on(device, set_from_data(state.crossbar, choice.ranges | choice.calibrated))
        self._set_ranges(choice)
        if choice.percentile:
            search_percentile(self._analog, self._inputs, time=self._ages)
            self._set_ranges(choice)  # for what is read of the new largest weights

    def _set_ranges(self, choice: Choice) -> None:
        if choice.ranges:
            search_ranges(self._analog, self._inputs, time=self._ages)
        elif choice.calibrated:
            calibrate(self._analog, self._inputs, keep_learned=True)
