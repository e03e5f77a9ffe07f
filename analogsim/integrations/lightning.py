"""A `Callback` for Lightning's `Trainer`.

    trainer = lightning.Trainer(callbacks=[HardwareCallback()])

Needs the extra ``frameworks``.
"""

from __future__ import annotations

from typing import Any

from analogsim.chip.compensation import CompensationLike
from analogsim.errors import MissingPackageError
from analogsim.integrations.course import (
    NOISE,
    Course,
    Settings,
    check_optimizers,
    is_on_chip,
    part_noise,
    plain_ranges,
    set_plain_ranges,
)
from analogsim.utils.packages import how_to_install

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise MissingPackageError(
        f"analogsim.integrations.lightning needs lightning: {error}; {how_to_install('frameworks')}"
    ) from error


class HardwareCallback(Callback):
    """Moves the noise of training, clips weights, and has a chip ready whenever the trainer validates or tests.

    In eval mode a twin answers as a chip does, and there is none while weights change: without `analogsim.program` a
    validation ends in a NotProgrammedError. What the module logs in it, ``self.log("accuracy", ...)``, is the score of
    a chip of this age, for `ModelCheckpoint`, for early stopping and for loggers; the noise scale is logged besides, as
    ``noise_scale``. A chip that is there already when `Trainer.validate` or `.test` begins is the one that answers.

    Ranges of converters go into the trainer's checkpoints and come back from them. Learned ones are for the optimizer
    that ``configure_optimizers`` makes: ``Adam([*self.parameters(), *range_parameters(self)])``.

    Args:
        noise: arguments of `analogsim.NoiseSchedule`; ``steps`` is the length of the training unless it is named. None:
            the noise is left to others.
        clip: arguments of `analogsim.ClipSchedule`, such as ``{"end": 2.5, "per": "column"}``; None: no clipping.
        time: age of the chip on which the trainer validates.
        seed: which chip.
        compensation: see `analogsim.drift`.

    Raises:
        TypeError: settings that are no mapping, or a seed that is no integer.
        ValueError: a time before programming, an unknown compensation; in `Trainer.fit`: the module has no analog
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
        self._steps_seen = 0
        self._fits = False
        self._module: LightningModule | None = None
        self._ranges: dict[str, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The schedules, over all steps of the optimizer."""
        self._module, self._fits, self._ranges = pl_module, stage == "fit", {}
        if stage == "fit":
            steps = trainer.estimated_stepping_batches
            self.course.begin(pl_module, int(steps) if 0 <= steps < float("inf") else None)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The ranges of the checkpoint that a training goes on from, before anything is validated with them."""
        set_plain_ranges(pl_module, self._ranges)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Noise of its own for each process; every learned range in an optimizer, or a warning."""
        check_optimizers(
            pl_module, trainer.optimizers, "add range_parameters(twin) to what configure_optimizers gives its optimizer"
        )
        self._steps_seen = trainer.global_step
        part_noise(trainer.global_rank, trainer.world_size)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Once for each step of the optimizer, however many batches it took and however many optimizers there are."""
        if trainer.global_step != self._steps_seen:
            self._steps_seen = trainer.global_step
            self.course.step()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The noise scale, for whatever logger there is."""
        if self.course.scale is not None:
            pl_module.log("noise_scale", self.course.scale)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Always the same chip, with the weights as they are now."""
        if trainer.state.fn == "fit" or not is_on_chip(pl_module):
            self.course.put_on_chip(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The next step changes the weights; no chip holds them then."""
        self.course.take_off_chip(pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The chip, with the ranges of the checkpoint where the weights come from one."""
        set_plain_ranges(pl_module, self._ranges)
        self.on_validation_start(trainer, pl_module)

    on_predict_start = on_test_start
    on_test_end = on_predict_end = on_validation_end

    def state_dict(self) -> dict[str, Any]:
        """For the trainer's checkpoints: plain numbers and text."""
        ranges = {} if self._module is None else plain_ranges(self._module)
        return {**self.course.state_dict(), **({"ranges": ranges} if ranges else {})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Where a resumed training goes on from; a test has only the ranges from it.

        Raises:
            ValueError: the checkpoint is of a training with other schedules.
        """
        self._ranges = state_dict.get("ranges", {})
        if self._fits:
            self.course.load_state_dict({name: state for name, state in state_dict.items() if name != "ranges"})
