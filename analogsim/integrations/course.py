"""What a callback does to a twin on the course of a training, whoever's callback it is."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from analogsim.chip.compensation import CompensationLike, gain_of
from analogsim.chip.lifecycle import as_seed, drift, erase, program
from analogsim.chip.ranges import get_ranges, range_parameters, set_ranges
from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.layers.module import matrices_of
from analogsim.training.schedule import ClipSchedule, NoiseSchedule
from analogsim.utils.times import seconds

Settings = Mapping[str, Any]

NOISE: Settings = {"shape": "linear", "end": 2.0}
"""The schedule of who names none: the device's own errors, twice as large at the end."""


class Course:
    """The noise schedule, the clipping, and the chip on which a trainer validates.

    Args:
        noise: arguments of `analogsim.NoiseSchedule`; ``steps`` is the length of the training unless it is named. None:
            the noise is left to others.
        clip: arguments of `analogsim.ClipSchedule`, such as ``{"end": 2.5, "per": "column"}``; None: weights are not
            clipped.
        time: age of the chip on which the trainer validates.
        seed: which chip: always the same one, so that a curve moves with the weights and not with the chip.
        compensation: see `analogsim.drift`.

    Raises:
        TypeError: settings that are no mapping, or a seed that is no integer.
        ValueError: a time before programming, an unknown compensation. What a schedule refuses it refuses at
            the first step of a training.
    """

    def __init__(
        self,
        noise: Settings | None = NOISE,
        clip: Settings | None = None,
        time: float | str = "1d",
        seed: int = 0,
        compensation: CompensationLike = "global",
    ) -> None:
        for name, given in (("noise", noise), ("clip", clip)):
            if given is not None and not isinstance(given, Mapping):
                raise InvalidTypeError(
                    f"callback: {name} must be a mapping of a schedule's arguments, such as {dict(NOISE)!r}, or None, "
                    f"got {given!r}"
                )
        gain_of(compensation)
        self.noise, self.clip = noise, clip
        self.time, self.seed, self.compensation = seconds(time), as_seed(seed), compensation
        self.schedules: dict[str, NoiseSchedule | ClipSchedule] = {}
        self._put = False

    def begin(self, network: nn.Module, steps: int | None) -> None:
        """Make the schedules, at their first step.

        Args:
            network: a twin, or a module that holds one or several.
            steps: of the optimizer in the whole training; None: the trainer does not know.

        Raises:
            TypeError: an argument that the schedule does not have.
            ValueError: there is no analog layer, a schedule refuses its arguments, or nobody says how long it is.
        """
        self.schedules = {}
        for name, kind, given in (("noise", NoiseSchedule, self.noise), ("clip", ClipSchedule, self.clip)):
            if given is None:
                continue
            if steps is None and "steps" not in given:
                raise InvalidValueError(
                    f"callback: the trainer does not know how many steps it will take, got {name}={dict(given)!r}; "
                    'give the schedule its length, "steps", or the trainer its max_steps'
                )
            try:
                self.schedules[name] = kind(network, **{"steps": max(1, steps or 1), **given})
            except TypeError as error:
                raise InvalidTypeError(f"callback: {name}: {error}; see analogsim.{kind.__name__}") from None

    def step(self) -> None:
        """After a step of the optimizer."""
        for schedule in self.schedules.values():
            schedule.step()

    def at(self, step: int) -> None:
        """Go on from a step that a training is resumed at."""
        for schedule in self.schedules.values():
            schedule.load_state_dict({**schedule.state_dict(), "last_step": step})

    @property
    def scale(self) -> float | None:
        """The scale of the errors that training sees now; None where it is left to others."""
        schedule = self.schedules.get("noise")
        return schedule.get_last_scale() if isinstance(schedule, NoiseSchedule) else None

    def put_on_chip(self, network: nn.Module) -> None:
        """Program the chip with the weights as they are now, and let it age."""
        program(network, self.seed)
        drift(network, self.time, compensation=self.compensation)
        self._put = True

    def take_off_chip(self, network: nn.Module) -> None:
        """No chip, as while weights change, unless it is one that somebody else has put there."""
        if self._put:
            erase(network)
        self._put = False

    def state_dict(self) -> dict[str, Any]:
        """Of the schedules: plain numbers and text."""
        return {name: schedule.state_dict() for name, schedule in self.schedules.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict()`` was taken.

        Raises:
            ValueError: it is of other schedules.
        """
        if set(state) != set(self.schedules):
            told = " and ".join(sorted(state)) or "no schedule"
            own = " and ".join(sorted(self.schedules)) or "none"
            raise InvalidValueError(f"callback: the checkpoint has the state of {told}, and this callback moves {own}")
        for name, schedule in self.schedules.items():
            schedule.load_state_dict(state[name])


def plain_ranges(network: nn.Module) -> dict[str, dict[str, Any]]:
    """The ranges of converters as lists of numbers, as checkpoints and configurations keep them."""
    found = get_ranges(network)
    return {name: {kind: held.tolist() for kind, held in ranges.items()} for name, ranges in found.items()}


def set_plain_ranges(network: nn.Module, ranges: Mapping[str, Mapping[str, Any]]) -> None:
    """Give a twin the ranges that `plain_ranges` took, in the tensors that an optimizer holds."""
    told = {name: {kind: torch.tensor(held) for kind, held in found.items()} for name, found in ranges.items()}
    set_ranges(network, told)


def check_optimizers(network: nn.Module, optimizers: Iterable[torch.optim.Optimizer], how: str) -> None:
    """Warn where input ranges that are to be learned are in no optimizer: they would stay as they are.

    Args:
        network: a twin, or a module that holds one or several; calibrated.
        optimizers: of the trainer.
        how: what to do about it, with this trainer.

    Raises:
        NotCalibratedError: a range to be learned has no start value yet.
    """
    if not any(matrix.analog.crossbar.learns for matrix in matrices_of(network)):
        return
    moved = {id(held) for optimizer in optimizers for group in optimizer.param_groups for held in group["params"]}
    learned = range_parameters(network)
    still = sum(id(held) not in moved for held in learned)
    if still:
        warnings.warn(
            f"callback: {still} of {len(learned)} input ranges that the crossbar learns are in no optimizer and stay "
            f"as calibrated: {how}, or convert with input_range='calibrated'",
            stacklevel=2,
        )


def clear_range_gradients(network: nn.Module) -> None:
    """What ``optimizer.zero_grad()`` does for learned ranges, and ``model.zero_grad()`` does not."""
    for matrix in matrices_of(network):
        if matrix.analog.crossbar.learns and matrix.analog.input_range is not None:
            matrix.analog.input_range.grad = None


def is_on_chip(network: nn.Module) -> bool:
    """Whether every analog layer is programmed."""
    return all(matrix.analog.chip is not None for matrix in matrices_of(network))


def part_noise(rank: int, processes: int) -> None:
    """Let each of several processes draw noise of its own: trainers give all of them one seed.

    Args:
        rank: number of this process.
        processes: how many there are; with one, nothing happens.
    """
    if processes > 1:
        torch.manual_seed((torch.initial_seed() + rank) % 2**63)
