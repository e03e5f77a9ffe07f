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

import analogsim
from analogsim.errors import InvalidTypeError, InvalidValueError, NonFiniteError
from analogsim.evaluation import Metric
from analogsim.evaluation.report import Report
from analogsim.evaluation.sampling.rounds import SamplesPerChip
from analogsim.integrations.metric_names import drifted, score_name
from analogsim.integrations.report_scores import clean_scores
from analogsim.recipes.config.hardware import array_of
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import to_mapping
from analogsim.recipes.tasks.answering import check_answers
from analogsim.recipes.tasks.data_sets import Splits
from analogsim.recipes.tasks.networks import Model, make_network
from analogsim.recipes.tasks.weights import load_into, read_weights
from analogsim.recipes.training.checkpoint import load_checkpoint, load_weights, save_checkpoint
from analogsim.recipes.training.methods import method_of
from analogsim.recipes.training.processes import ALONE, Group
from analogsim.recipes.training.ranges import TwinRanges, calibration_batches
from analogsim.recipes.training.setup import check_network, compensation_of, torch_device
from analogsim.recipes.training.state import RandomStates, check_options, name_of, without_password
from analogsim.recipes.training.step import Stepper, first_noisy, noise_schedule
from analogsim.training import Loss, Step, plain_step
from analogsim.utils.batches import Inputs, answer, call, moved, split

# A mean loss so many times that of guessing tells that training diverged.
_DIVERGED = 1000.0


@dataclass(frozen=True)
class Progress:
    """What is told after each step: the place in training."""

    epoch: int
    batch: int
    batches: int


class DivergedError(InvalidValueError):
    """Training diverged: the loss is NaN, infinite, or far above that of guessing.

    Cause: too large a learning rate, or noise that is too strong from the first step.
    Cure: take a smaller `optimization.lr`, or a longer `noise.ramp`.
    """


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
        data: the data, and their task.
        aware: with the noise of ``config.noise``, or plain.
        path: the checkpoint file; an existing one is continued. Only process 0 reads and writes it.
        group: the processes that train together; each makes a Training.
        step: how each step comes by its gradients, see `analogsim.training.step`; default: as ``config.training`` says
            for the hardware-aware network, plainly for the other.
        model: the network, see `make_network`; default: what ``config.model`` names.

    Attributes:
        task: of the data: loss and metric.
        notes: what was decided on the way, a line each, for people to read.
        group: the processes that train together.
        model: the digital network.
        analog: its twin on ``config.device``, on which it is judged.
        epoch: epochs that are done.
        history: the metrics of each of them.
        run_id: of the MLflow run, kept with the checkpoint.
    """

    def __init__(
        self,
        config: Config,
        data: Splits,
        *,
        aware: bool,
        path: Path,
        group: Group = ALONE,
        step: Step | None = None,
        model: Model | None = None,
    ) -> None:
        self.config = config
        self.task = data.task
        self.notes: list[str] = []
        self.path = path
        self.aware = aware
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self.run_id: str | None = None
        self.group = group
        if step is None:
            step = method_of(config.training.step) if aware else plain_step
        self._method = name_of(step)
        self._device = group.place(lambda: torch_device(config.run_on))
        named = config.model if model is None else model
        self.model = group.each(lambda: make_network(named, data.facts, seed=config.seed).to(self._device))
        self.model = group.synchronized(self.model)
        group.each(lambda: check_network(config, self.model))
        array = array_of(config, aware=aware)
        self.analog = analogsim.convert(self.model, config.device, crossbar=array)
        self._random = RandomStates(config.seed, self._device, group)
        self._data = data
        self._guess = data.task.guess(data.facts)
        self._samples = len(data.train)
        self._loader = data.batches(group.shares(data.train), config.data.batch_size, generator=self._random.shuffle)
        self._calibration = calibration_batches(config, data)
        steps = config.optimization.epochs * len(self._loader)
        self._net: nn.Module = self.model
        twins, schedule = [self.analog], None
        if aware:
            self._net = analogsim.convert(self.model, config.noise.device or config.device, crossbar=array)
            if config.noise.times is not None:
                analogsim.set_train_times(self._net, config.noise.times)
            twins.append(self._net)
            schedule = noise_schedule(config, self._net, steps)
        content = group.first(lambda: load_checkpoint(path) if path.exists() else None)
        if content is not None:
            group.each(lambda: check_options(content, config, aware=aware, method=self._method, source=self._name))
        elif config.weights is not None:
            group.each(self._start_from_weights)
        learns = config.optimization.epochs > 0
        group.each(lambda: check_answers(self.model, named, data, learns=learns))
        self._ranges = TwinRanges(config, array, twins, self._calibration, group)
        self._ranges.begin([] if content is None else content.get("ranges", []), learn=aware)
        self._stepper = Stepper(
            config,
            self.model,
            self._net,
            self._ranges.learned,
            clipped=self.analog if aware else None,
            schedule=schedule,
            steps=steps,
            begin=first_noisy(config, steps) if aware else 0,
            method=step,
            group=group,
        )
        if content is not None:
            group.each(lambda: self._restore(content))

    @property
    def done(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self.config.optimization.epochs

    def set_random_state(self) -> None:
        """Set torch's global random state to where this network's training stands; call before its first epoch."""
        self._random.put()

    def run_epoch(self, on_step: Callable[[Progress], None]) -> dict[str, float]:
        """One pass over the training data, the metrics after it, and a checkpoint.

        Raises:
            DivergedError: the checkpoint is still the one of the epoch before.
        """
        # Anew in each epoch: after its first step torch rearranges the gradients, and their sums round differently. So
        # an epoch that begins after an interruption is as any other.
        noisy = self._stepper.noisy
        net = self._in_training(noisy)
        total = torch.zeros((), device=self._device)
        for batch, raw in enumerate(self._loader):
            inputs, targets = moved(split(raw), self._device)
            if self._stepper.noisy and not noisy:
                noisy = True
                net = self._in_training(noisy)
            total.add_(self._stepper.step(self._loss(net, batch, inputs, targets)))
            on_step(Progress(self.epoch, batch, len(self._loader)))
        self.group.same(self.model.buffers())
        mean = self.group.mean(total).item() / len(self._loader)
        self.group.each(lambda: self._check_loss(mean))
        metrics = {"train/loss": mean, **self._stepper.metrics()}
        try:
            self._ranges.set_again()
        except ValueError as error:  # a layer that is silent or without bounds
            raise self._diverged(f"after epoch {self.epoch + 1}, {error}") from error
        try:
            metrics |= self._validate()
        except NonFiniteError as error:
            raise self._diverged(f"after epoch {self.epoch + 1}, {error}") from error
        self.epoch += 1
        self.history.append(metrics)
        self._random.take()
        self.save()
        return metrics

    def _in_training(self, noisy: bool) -> nn.Module:
        """What the next steps run: the network that has the noise, or the digital one before it is its turn."""
        return self.group.wrap((self._net if noisy else self.model).train())

    def _loss(self, net: nn.Module, batch: int, inputs: Inputs, targets: Tensor) -> Loss:
        """The loss of this process's share, weighted so that the mean over all processes is that of the batch."""
        size = self.config.data.batch_size
        weight = self.group.weight(min(size, self._samples - batch * size))

        def loss() -> Tensor:
            value: Any = self.task.loss(answer(call(net, inputs)), targets)
            if not isinstance(value, Tensor) or value.ndim:
                got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
                raise InvalidTypeError(f"task {self.task.name}: loss must return a scalar tensor, the mean, got {got}")
            return value if weight == 1 else value * weight

        return loss

    def _check_loss(self, loss: float) -> None:
        limit = math.inf if self._guess is None else _DIVERGED * self._guess
        if math.isfinite(loss) and loss <= limit:
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

    def judge(
        self,
        part: Any,
        *,
        chips: int,
        times: Sequence[str],
        seed: int = 0,
        progress: bool = False,
        metric: Metric | None = None,
        precision: float | None = None,
        samples_per_chip: SamplesPerChip = None,
    ) -> Report:
        """The network's report on a part of the data, by the task's metric or another; see `analogsim.evaluate`."""
        rule = self.config.evaluation
        return self.group.evaluate(
            self.analog,
            self._data.batches(part, rule.batch_size),
            chips=chips,
            times=times,
            metric=self.task.metric if metric is None else metric,
            compensation=compensation_of(self.config, self.model),
            calibration=self._calibration,
            seed=seed,
            progress=progress,
            precision=precision,
            samples_per_chip=samples_per_chip,
            clean=None if self.aware else "digital",  # plain training has seen no converters
        )

    def _validate(self) -> dict[str, float]:
        rule = self.config.evaluation
        # Chips far away from those of the final evaluation: no network is chosen by the chips it is judged on.
        with warnings.catch_warnings():  # told with the report at the end, not after each epoch
            warnings.filterwarnings("ignore", "evaluate: output converters saturate", UserWarning)
            report = self.judge(
                self._data.validation, chips=rule.validation_chips, times=(rule.validation_time,), seed=1_000_000
            )
        name = self.task.metric.name
        return {
            **{score_name("validation", name, end): score for end, score in clean_scores(report).items()},
            score_name("validation", name, drifted(report.labels[0])): float(report.mean[0]),
        }

    def save(self) -> None:
        """Write the checkpoint, with the random states of all processes."""
        content = {
            "config": to_mapping(without_password(self.config)),
            "aware": self.aware,
            "step": self._method,
            "epoch": self.epoch,
            "history": self.history,
            "run_id": self.run_id,
            "model": self.model.state_dict(),
            "ranges": self._ranges.now(),
            **self._stepper.state_dict(),
            **self._random.state_dict(),
        }
        self.group.first(lambda: save_checkpoint(content, self.path))

    def _start_from_weights(self) -> None:
        path = str(self.config.weights)
        self.notes += load_into(self.model, read_weights(path), f"weights {path!r}")

    def _restore(self, content: dict[str, Any]) -> None:
        load_weights(self.model, content["model"], self._name)
        if self._ranges.learned and not any(content.get("ranges", [])):
            raise InvalidValueError(
                f"{self._name} lacks the ranges that its crossbar learns: it was written before they were trained; "
                "start anew in another folder"
            )
        self._stepper.load_state_dict(content)
        self._random.load_state_dict(content)
        self.epoch, self.history, self.run_id = content["epoch"], content["history"], content["run_id"]

    @property
    def _name(self) -> str:
        return f"checkpoint {os.fspath(self.path)!r}"
