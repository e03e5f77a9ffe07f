"""A `TrainerCallback` for the `Trainer` of transformers.

    Trainer(model=analog, callbacks=[HardwareCallback()], ...)

Needs ``pip install "analogsim-torch[frameworks]"``.
"""

from __future__ import annotations

from typing import Any

from analogsim.chip.compensation import CompensationLike
from analogsim.errors import MissingPackageError
from analogsim.integrations.course import NOISE, Course, Settings, part_noise

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise MissingPackageError(
        f'analogsim.integrations.transformers needs transformers: {error}; pip install "analogsim-torch[frameworks]"'
    ) from error


class HardwareCallback(TrainerCallback):
    """Moves the noise of training, clips weights, and has a chip ready whenever the trainer evaluates in training.

    In eval mode a twin answers as a chip does, and there is none while weights change: without `analogsim.program` the
    trainer's evaluation ends in a NotProgrammedError. What ``compute_metrics`` gives is the score of a chip of this
    age, for ``metric_for_best_model``, for early stopping and for what ``report_to`` names. For an evaluation by hand:
    ``with analogsim.programmed(analog, seed=0, t="1d"): trainer.evaluate()``.

    Args:
        noise: arguments of `analogsim.NoiseSchedule`; ``steps`` is the length of the training unless it is named. None:
            the noise is left to others.
        clip: arguments of `analogsim.ClipSchedule`, such as ``{"end": 2.5, "per": "column"}``; None: no clipping.
        time: age of the chip on which the trainer evaluates.
        seed: which chip.
        compensation: see `analogsim.drift`.

    Raises:
        TypeError: settings that are no mapping, or a seed that is no integer.
        ValueError: a time before programming, an unknown compensation; in `Trainer.train`: the model has no analog
            layer, or a schedule refuses its arguments.
    """

    def __init__(
        self,
        *,
        noise: Settings | None = NOISE,
        clip: Settings | None = None,
        time: float | str = "1d",
        seed: int = 0,
        compensation: CompensationLike = "global",
    ) -> None:
        self.course = Course(noise, clip, time, seed, compensation)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """The schedules, at the step that a resumed training goes on from; noise of its own for each process."""
        self.course.begin(others["model"], state.max_steps)
        self.course.at(state.global_step)
        part_noise(args.process_index, args.world_size)
        if args.eval_on_start:
            self.course.put_on_chip(others["model"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any) -> None:
        """After each step of the optimizer, however many batches it took."""
        self.course.step()
        if control.should_evaluate:
            self.course.put_on_chip(others["model"])

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: Any
    ) -> None:
        """The chip that the evaluation after an epoch finds: always the same one, with the weights as they are now."""
        if control.should_evaluate:
            self.course.put_on_chip(others["model"])

    def on_evaluate(self, *_: Any, **others: Any) -> None:
        """The next step changes the weights; no chip holds them then."""
        self.course.take_off_chip(others["model"])

    def on_train_end(self, *_: Any, **others: Any) -> None:
        """The trainer may have loaded its best weights, which are on no chip."""
        self.course.take_off_chip(others["model"])
