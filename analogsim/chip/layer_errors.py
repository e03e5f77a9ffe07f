"""Errors of single layers, with each layer on chips as they could be, all others exact.

The network runs digital. Wherever a matrix takes a product, the same input goes through chips of it on the hardware
that is tried too, and what they answer is compared with the digital answer. So one pass over the inputs measures all
that is tried for all layers, and what one layer loses does not depend on what the others do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from analogsim.chip.compensation import Gain
from analogsim.chip.layer_chip import LayerChip
from analogsim.chip.lifecycle import as_seed
from analogsim.crossbar.crossbar import Crossbar
from analogsim.device.model import DeviceModel
from analogsim.errors import InvalidValueError
from analogsim.layers.matrix import AnalogMatrix, Drawn
from analogsim.layers.module import exactly, matrices_of
from analogsim.layers.state import AnalogState, Uses
from analogsim.utils.batches import call, inputs_of, is_empty, moved
from analogsim.utils.checks import MOST_TURNS, check_sequence, check_whole
from analogsim.utils.tensors import holds_nonfinite
from analogsim.utils.times import seconds

Ages = float | str | Sequence[float | str]

FIRST_SEED = 3_000_000
"""Of the chips on which hardware is chosen; chips of evaluations begin at 0, those of training and studies between."""

_MOST_CELLS = 60_000_000  # of chips that are held at once, a quarter of a gigabyte for each number that a cell has


@dataclass(frozen=True, eq=False)
class Trial:
    """What a matrix could lie on.

    Args:
        device: the device model.
        crossbar: the array.
        input_range: see `AnalogState`.
        output_bound: see `AnalogState`.
    """

    device: DeviceModel
    crossbar: Crossbar
    input_range: Tensor | None
    output_bound: Tensor | None

    @classmethod
    def now(cls, state: AnalogState) -> Trial:
        """What it lies on now."""
        return cls(state.device, state.crossbar, state.input_range, state.output_bound)

    @contextmanager
    def under(self, state: AnalogState) -> Iterator[None]:
        """Let a matrix lie on it for a block."""
        before = Trial.now(state)
        try:
            self.put(state)
            yield
        finally:
            before.put(state)

    def put(self, state: AnalogState) -> None:
        """Let a matrix lie on it. The layout stays, and so must what it is made of."""
        state.device, state.crossbar = self.device, self.crossbar
        state.input_range, state.output_bound = self.input_range, self.output_bound


@dataclass(frozen=True)
class Chips:
    """The chips that something is tried on.

    Args:
        seeds: which ones.
        ages: at which they answer, seconds; the mean over them counts.
        gain: measured then; None for none.
    """

    seeds: Sequence[int]
    ages: Sequence[float]
    gain: Gain | None

    def make(self, matrix: AnalogMatrix, seed: int, age: float) -> LayerChip:
        """A matrix's share of one of them, on what it lies on now."""
        chip = LayerChip.program(matrix, seed)
        chip.set_time(age, self.gain, matrix.analog.known_bound)
        return chip


@dataclass(eq=False)
class _Record:
    """What trials of one matrix answered so far, beside the digital network."""

    matrix: AnalogMatrix
    trials: Sequence[Trial]
    chips: Chips
    squares: Tensor = field(init=False)
    count: int = 0
    total: float = 0.0
    power: float = 0.0

    def __post_init__(self) -> None:
        self.squares = torch.zeros(len(self.trials), len(self.chips.seeds), dtype=torch.float64)
        self._made: dict[tuple[int, int, int, int, float], LayerChip] = {}

    def __call__(self, drawn: Drawn, input: Tensor) -> None:
        """See `analogsim.layers.state.Look`."""
        wanted = _numbers(drawn.clean(input))
        for place, trial in enumerate(self.trials):
            with trial.under(self.matrix.analog):
                for (column, seed), age in itertools.product(enumerate(self.chips.seeds), self.chips.ages):
                    answer = _numbers(drawn.on(self._chip(trial, seed, age), input))
                    self.squares[place, column] += (answer - wanted).square().sum().cpu()
        self.count += wanted.numel()
        self.total += float(wanted.sum())
        self.power += float(wanted.square().sum())

    def _chip(self, trial: Trial, seed: int, age: float) -> LayerChip:
        """A chip; trials that differ in input ranges alone have it in common."""
        key = (id(trial.device), id(trial.crossbar), id(trial.output_bound), seed, age)
        if key not in self._made:
            self._made[key] = self.chips.make(self.matrix, seed, age)
        return self._made[key]

    @property
    def errors(self) -> Tensor:
        """Mean squared error relative to the variance of the digital answers, ``(trials, chips)``."""
        variance = self.power / self.count - (self.total / self.count) ** 2 if self.count else 0.0
        return self.squares / max(self.count * len(self.chips.ages), 1) / (variance or 1.0)


def _numbers(answer: Tensor) -> Tensor:
    return (answer.values() if answer.is_nested else answer).detach().double()


@torch.no_grad()
def measure_layers(
    analog: nn.Module,
    inputs: Iterable[object],
    trials: Mapping[AnalogMatrix, Sequence[Trial]],
    chips: Chips,
    action: str,
) -> dict[AnalogMatrix, Tensor]:
    """The error of layers on what they could lie on, each with exact inputs.

    Args:
        analog: the twin.
        inputs: batches, which can be read again.
        trials: for each matrix that is tried.
        chips: on which chips.
        action: in whose name errors are raised.

    Returns:
        For each of these matrices that has a part in the answers, mean squared errors of its outputs relative to the
        variance of the digital ones, ``(trials, chips)``.

    Raises:
        BypassedError: no analog layer had a part in the answers.
        ValueError: no inputs, a batch without samples, or some that are NaN or infinite.
    """
    matrices = matrices_of(analog)
    place = matrices[0].still()[0].device
    found: dict[AnalogMatrix, Tensor] = {}
    for group in _groups(trials, chips):
        records = {matrix: _Record(matrix, trials[matrix], chips) for matrix in group}
        uses = Uses([matrix.analog for matrix in matrices])
        with exactly(analog, looks=records):
            for number, batch in enumerate(inputs_of(inputs, action)):
                if is_empty(batch):
                    raise InvalidValueError(f"{action}: batch {number} of the inputs holds no samples")
                if holds_nonfinite(batch, masks=True):
                    raise InvalidValueError(f"{action}: batch {number} of the inputs holds NaN or infinite values")
                call(analog, moved(batch, place))
                uses.check(action)
        found |= {matrix: record.errors for matrix, record in records.items() if record.count}
    return found


def _groups(trials: Mapping[AnalogMatrix, Sequence[Trial]], chips: Chips) -> Iterator[list[AnalogMatrix]]:
    """Matrices whose chips are held at once."""
    group: list[AnalogMatrix] = []
    held = 0
    for matrix, tried in trials.items():
        makes = len({(id(trial.device), id(trial.crossbar), id(trial.output_bound)) for trial in tried})
        cells = max(trial.device.cells_per_weight for trial in tried)
        size = matrix.analog.shape.numel() * cells * makes * len(chips.seeds) * len(chips.ages)
        if group and held + size > _MOST_CELLS:
            yield group
            group, held = [], 0
        group.append(matrix)
        held += size
    if group:
        yield group


def best_trial(errors: Tensor) -> int:
    """The place of the trial with the least error ``(trials, chips)``, where it is better than the first; else 0."""
    place = int(errors.mean(1).nan_to_num(nan=float("inf")).argmin())
    return place if place and is_better(errors[0], errors[place]) else 0


def is_better(before: Tensor, after: Tensor, least: float = 0.01) -> bool:
    """Whether errors of the same chips became smaller: by a part of what they were, and beyond two standard errors.

    Args:
        before: one for each chip.
        after: the same.
        least: the part.
    """
    gained = before - after
    if not bool(after.isfinite().all()):
        return False
    spread = float(gained.std()) / len(gained) ** 0.5 if len(gained) > 1 else 0.0
    return float(gained.mean()) > max(2 * spread, least * float(before.mean()))


_AGES = '("1s", "1y"), or one'


def chips_for(analog: nn.Module, chips: int, time: Ages | None, gain: Gain | None, seed: int, action: str) -> Chips:
    """The chips that hardware is chosen on.

    Args:
        analog: the twin.
        chips: how many.
        time: their ages, see `ages_for`.
        gain: measured then.
        seed: the first of them.
        action: in whose name errors are raised.

    Raises:
        ValueError: no chips, or an age that a device has no formula for.
    """
    first, count = as_seed(seed), check_whole(chips, f"{action}: chips", 1, MOST_TURNS)
    as_seed(first + count - 1)
    return Chips(range(first, first + count), ages_for(analog, time, action), gain)


def ages_for(analog: nn.Module, time: Ages | None, action: str) -> tuple[float, ...]:
    """The ages at which chips are looked at to choose hardware, seconds, the first ones first.

    Args:
        analog: the twin.
        time: one or several; None: a second and a year, or as near to them as the devices' formulas go, since what is
            right for a chip whose currents have decayed lets a fresh one saturate. One age where nothing drifts.
        action: in whose name errors are raised.

    Raises:
        ValueError: no age, or one that a device has no formula for.
    """
    devices = [matrix.analog.device for matrix in matrices_of(analog)]
    if time is None:
        first, last = max(device.times[0] for device in devices), min(device.times[1] for device in devices)
        if first > last:
            ages: tuple[float, ...] = (0.0,)
        else:
            ages = tuple(sorted({min(max(seconds(end), first), last) for end in ("1s", "1y")}))
        ages = ages if any(device.drifts for device in devices) else ages[-1:]
    else:
        asked = [time] if isinstance(time, str | int | float) else list(check_sequence(time, f"{action}: time", _AGES))
        ages = tuple(sorted(map(seconds, asked)))
    for device in devices:
        for age in ages:
            device.check_time(age)
    return ages
