"""Training one network, plain or hardware-aware, in a way that can be killed at any moment and continued exactly."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

import analogsim
from analogsim.chip.ranges import Ranges, get_ranges, set_ranges
from analogsim.crossbar import as_crossbar
from analogsim.evaluation.report import Report
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import flatten, from_mapping, to_mapping
from analogsim.recipes.tasks import data_sets, networks
from analogsim.recipes.tasks.data_sets import Splits
from analogsim.recipes.tracking.metric_names import drifted
from analogsim.recipes.training.checkpoint import load_checkpoint, load_weights, save_checkpoint
from analogsim.recipes.training.processes import ALONE, Group
from analogsim.recipes.training.ranges import calibrate, calibration_batches, needs_ranges
from analogsim.recipes.training.setup import torch_device

_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
# What may be another one when a run is continued: nothing of it touches the weights.
_FREE = ("out", "run_on", "baseline", "data.folder", "data.download", "evaluation.", "tracking.")
# A mean loss so many times that of guessing tells that training diverged.
_DIVERGED = 1000.0


@dataclass(frozen=True)
class Progress:
    """What is told after each step: the place in training."""

    epoch: int
    batch: int
    batches: int


class DivergedError(ValueError):
    """Training diverged: the loss is NaN, infinite, or far above that of guessing."""


class Training:
    """One network in training.

    The state after each epoch is a checkpoint: weights, ranges of converters, optimizer, both schedules and every
    random state. Continued from there, training goes through the very same numbers as without the interruption (on the
    same machine and the same number of threads).

    Ranges that the crossbar leaves to calibration are set before the first step and again after each epoch, on training
    data, as a chip of these weights would get them. Learned ones are so only at first: then the optimizer moves them,
    without weight decay, where training sees them; plain training does not, and there they are calibrated.

    Several processes train one network: each takes its share of every batch, under noise of its own, and all take the
    same step, along the mean gradient. Without noise that is what one process computes, but for rounding, and for
    batch norm: on GPUs it is taken over the whole batch, on the CPU, where torch has no such thing, over each share,
    and its running statistics are those of process 0.

    Args:
        config: what to do.
        data: the data.
        aware: with the noise of ``config.noise``, or plain.
        path: the checkpoint file; an existing one is continued. Only process 0 reads and writes it.
        group: the processes that train together; each makes a Training.

    Attributes:
        group: the processes that train together.
        model: the digital network.
        analog: its twin on ``config.device``, on which it is judged.
        epoch: epochs that are done.
        history: the metrics of each of them.
        run_id: of the MLflow run, kept with the checkpoint.
    """

    def __init__(self, config: Config, data: Splits, *, aware: bool, path: Path, group: Group = ALONE) -> None:
        self.config = config
        self.path = path
        self.aware = aware
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self.run_id: str | None = None
        self.group = group
        self._device = group.place(lambda: torch_device(config.run_on))
        self.model = group.each(
            lambda: networks.build(config.model, data.shape, data.classes, seed=config.seed).to(self._device)
        )
        self.model = group.synchronized(self.model)
        self.analog = analogsim.convert(self.model, config.device, crossbar=config.crossbar)
        self._net: nn.Module = self.model
        self._schedule: analogsim.NoiseSchedule | None = None
        # From the seed alone, so that plain and hardware-aware training see the same batches.
        self._shuffle = torch.Generator().manual_seed(config.seed)
        self._classes = data.classes
        self._samples = len(data.train)
        self._loader = data_sets.batches(group.shares(data.train), config.data.batch_size, generator=self._shuffle)
        self._validation = data.validation
        self._calibration = calibration_batches(config, data)
        rule = config.optimization
        steps = rule.epochs * len(self._loader)
        self._twins = [self.analog]
        if aware:
            noise = config.noise
            device = noise.device or config.device
            self._net = analogsim.convert(self.model, device, crossbar=config.crossbar)
            self._twins.append(self._net)
            self._schedule = analogsim.NoiseSchedule(
                self._net,
                noise.shape,
                start=noise.start,
                end=noise.end,
                steps=max(1, round(noise.ramp * steps)),
                warmup=round(noise.warmup * steps),
                jitter=noise.jitter,
                seed=config.seed,
            )
        self._clip = config.noise.clip_sigmas if aware else None
        # Global random state at the start of the next epoch.
        seed = group.seed(config.seed)
        self._random = {"cpu": torch.Generator().manual_seed(seed).get_state()}
        if self._device.type == "cuda":
            self._random["cuda"] = torch.Generator(self._device).manual_seed(seed).get_state()
        content = group.first(lambda: load_checkpoint(path) if path.exists() else None)
        if content is not None:
            group.each(lambda: self._check_options(content))
        self._learned: list[Tensor] = []
        self._begin_ranges([] if content is None else content.get("ranges", []))
        self._optimizer = _OPTIMIZERS[rule.optimizer](
            self.model.parameters(), lr=rule.lr, weight_decay=rule.weight_decay
        )
        if self._learned:
            self._optimizer.add_param_group({"params": self._learned, "weight_decay": 0.0})
        self._lr_schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, steps)
        if content is not None:
            group.each(lambda: self._restore(content))

    @property
    def done(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self.config.optimization.epochs

    def set_random_state(self) -> None:
        """Set torch's global random state to where this network's training stands; call before its first epoch."""
        torch.set_rng_state(self._random["cpu"])
        if self._device.type == "cuda" and "cuda" in self._random:
            torch.cuda.set_rng_state(self._random["cuda"], self._device)

    def run_epoch(self, on_step: Callable[[Progress], None]) -> dict[str, float]:
        """One pass over the training data, the metrics after it, and a checkpoint.

        Raises:
            DivergedError: the checkpoint is still the one of the epoch before.
        """
        # Anew in each epoch: after its first step torch rearranges the gradients, and their sums round differently. So
        # an epoch that begins after an interruption is as any other.
        net = self.group.wrap(self._net.train())
        total = torch.zeros((), device=self._device)
        for batch, (inputs, targets) in enumerate(self._loader):
            self._optimizer.zero_grad()
            loss = functional.cross_entropy(net(inputs.to(self._device)), targets.to(self._device))
            weight = self._weight(batch)
            loss.backward(torch.full_like(loss, weight))  # type: ignore[no-untyped-call]
            self.group.average_gradients(self._learned)
            self._optimizer.step()
            self._lr_schedule.step()
            if self._schedule is not None:
                self._schedule.step()
            if self._clip is not None:
                analogsim.clip_weights(self.analog, self._clip)
            total.add_(loss.detach(), alpha=weight)
            on_step(Progress(self.epoch, batch, len(self._loader)))
        self.group.same(self.model.buffers())
        mean = self.group.mean(total).item() / len(self._loader)
        self.group.each(lambda: self._check_loss(mean))
        metrics: dict[str, float] = {
            "train/loss": mean,
            "train/lr": float(self._lr_schedule.get_last_lr()[0]),
        }
        if self._schedule is not None:
            metrics["train/noise_scale"] = self._schedule.get_last_scale()
        try:
            self._set_ranges()
        except ValueError as error:  # a layer that is silent or without bounds
            raise self._diverged(f"after epoch {self.epoch + 1}, {error}") from error
        metrics |= self._validate()
        self.epoch += 1
        self.history.append(metrics)
        self._random["cpu"] = torch.get_rng_state()
        if self._device.type == "cuda":
            self._random["cuda"] = torch.cuda.get_rng_state(self._device)
        self.save()
        return metrics

    def _weight(self, batch: int) -> float:
        size = self.config.data.batch_size
        return self.group.weight(min(size, self._samples - batch * size))

    def _check_loss(self, loss: float) -> None:
        if loss <= _DIVERGED * math.log(max(2, self._classes)):  # so neither NaN nor infinite
            return
        raise self._diverged(
            f"the mean loss of epoch {self.epoch + 1} of {self.config.optimization.epochs} is {loss:g}"
        )

    def _diverged(self, why: str) -> DivergedError:
        rule, noise = self.config.optimization, self.config.noise
        return DivergedError(
            f"training diverged: {why}; try a smaller optimization.lr (now {rule.lr:g})"
            + (f" or less noise (noise.end, now {noise.end:g})" if self.aware else "")
            + f". {os.fspath(self.path)!r} is still the checkpoint after epoch {self.epoch}"
        )

    def _begin_ranges(self, stored: Sequence[Ranges]) -> None:
        """Ranges as they were left, or the first ones; learned ones are at hand for the optimizer then."""
        if any(stored):
            for twin, ranges in zip(self._twins, stored, strict=True):
                set_ranges(twin, ranges)
        else:
            self._set_ranges()
        if self.aware and as_crossbar(self.config.crossbar).learns:
            self._learned = analogsim.range_parameters(self._net)

    def _set_ranges(self) -> None:
        """Set the ranges that come from data, the same ones in all processes; learned ones stay once they are."""
        if not needs_ranges(self.config.crossbar):
            return
        learned = get_ranges(self._net) if self._learned else None

        def calibrated() -> list[Ranges]:
            for twin in self._twins:
                calibrate(twin, self.config, self._calibration, learned=learned)
            return [get_ranges(twin) for twin in self._twins]

        for twin, ranges in zip(self._twins, self.group.first(calibrated), strict=True):
            set_ranges(twin, ranges)

    def judge(
        self, part: TensorDataset, *, chips: int, times: Sequence[str], seed: int = 0, progress: bool = False
    ) -> Report:
        """The network's report on a part of the data; see `analogsim.evaluate`."""
        rule = self.config.evaluation
        return self.group.evaluate(
            self.analog,
            data_sets.batches(part, rule.batch_size),
            chips=chips,
            times=times,
            compensation=rule.compensation,
            calibration=self._calibration,
            seed=seed,
            progress=progress,
        )

    def _validate(self) -> dict[str, float]:
        rule = self.config.evaluation
        # Chips far away from those of the final evaluation: no network is chosen by the chips it is judged on.
        report = self.judge(
            self._validation, chips=rule.validation_chips, times=(rule.validation_time,), seed=1_000_000
        )
        return {
            "validation/accuracy/clean": report.clean,
            f"validation/accuracy/{drifted(report.labels[0])}": float(report.mean[0]),
        }

    def save(self) -> None:
        """Write the checkpoint, with the random states of all processes."""
        mine, *others = self.group.gather(self._random)
        content = {
            "config": to_mapping(self.config),
            "aware": self.aware,
            "epoch": self.epoch,
            "history": self.history,
            "run_id": self.run_id,
            "model": self.model.state_dict(),
            "ranges": [get_ranges(twin) for twin in self._twins],  # of the one that is judged first
            "optimizer": self._optimizer.state_dict(),
            "lr_schedule": self._lr_schedule.state_dict(),
            "noise_schedule": None if self._schedule is None else self._schedule.state_dict(),
            "random": {**mine, "shuffle": self._shuffle.get_state()},
            "random_of_others": others,
        }
        self.group.first(lambda: save_checkpoint(content, self.path))

    def _restore(self, content: dict[str, Any]) -> None:
        load_weights(self.model, content["model"], self._name)
        if self._learned and not any(content.get("ranges", [])):
            raise ValueError(
                f"{self._name} lacks the ranges that its crossbar learns: it was written before they were trained; "
                "start anew in another folder"
            )
        self._optimizer.load_state_dict(content["optimizer"])
        self._lr_schedule.load_state_dict(content["lr_schedule"])
        if self._schedule is not None:
            self._schedule.load_state_dict(content["noise_schedule"])
        self._shuffle.set_state(content["random"].pop("shuffle"))
        states = [content["random"], *content.get("random_of_others", [])]
        if len(states) != self.group.world:
            warnings.warn(
                f"the checkpoint is of a training in {len(states)} process(es), now there are {self.group.world}: it "
                "goes on, but not to the very same numbers",
                stacklevel=2,
            )
        if self.group.rank < len(states):
            self._random |= states[self.group.rank]
        self.epoch, self.history, self.run_id = content["epoch"], content["history"], content["run_id"]

    @property
    def _name(self) -> str:
        return f"checkpoint {os.fspath(self.path)!r}"

    def _check_options(self, content: dict[str, Any]) -> None:
        name = self._name
        if content["aware"] != self.aware:
            raise ValueError(f"{name} is of the other network: hardware-aware and plain were mixed up")
        before, now = flatten(from_mapping(Config, content["config"], source=name)), flatten(self.config)
        for key in before:
            if before[key] != now[key] and not key.startswith(_FREE):
                raise ValueError(
                    f"{name} was trained with {key}={before[key]!r}, now it is {now[key]!r}; go on with the options "
                    "it was started with, or start anew in another folder"
                )
