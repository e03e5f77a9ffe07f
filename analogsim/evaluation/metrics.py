"""What a network is judged by: a score, how it adds up over batches, and what people need to read it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from analogsim.errors import NonFiniteError

Score = Callable[[Tensor, Tensor], Tensor]

IGNORED = -100
"""The target that does not count, as torch's losses and Hugging Face's collators have it."""


@runtime_checkable
class Accumulator(Protocol):
    """What a score adds up in, batch by batch; torchmetrics' metrics are such objects."""

    def update(self, output: Tensor, target: Tensor, /) -> Any:
        """Take in a batch: the network's answers and their targets."""

    def compute(self) -> Any:
        """The score of all that was taken in: a number, or a tensor that holds one."""

    def reset(self) -> Any:
        """Forget all that was taken in."""


class Mean:
    """The mean of a score over all samples, whatever the batches.

    Args:
        score: of ``(output, target)``: one score per sample, or their mean.
    """

    def __init__(self, score: Score) -> None:
        self._score = score
        self.reset()

    def update(self, output: Tensor, target: Tensor, /) -> None:
        """See `Accumulator`.

        Samples without any target that counts (all of them `IGNORED`), for which the score is NaN, are left out.

        Raises:
            TypeError: the score is neither one per sample nor their mean.
        """
        score: Any = self._score(output, target)
        if not isinstance(score, Tensor) or score.is_complex() or (score.ndim and len(score) != len(target)):
            kind = "complex " if isinstance(score, Tensor) and score.is_complex() else ""
            raise TypeError(
                "evaluate: the metric must return a tensor with one score per sample, or their mean, got "
                f"{kind}{tuple(score.shape) if isinstance(score, Tensor) else score!r} for {len(target)} samples"
            )
        values, samples = score.double(), len(target)
        if values.ndim and values.isnan().any() and not (target.is_floating_point() or target.is_complex()):
            left = ~(values.flatten(1).isnan().all(1) if values.ndim > 1 else values.isnan())
            left |= _counted(target).any(1)
            values, samples = values[left], int(left.sum())
        if samples:
            self._total += float(values.mean()) * samples
            self._samples += samples

    def compute(self) -> float:
        """See `Accumulator`.

        Raises:
            ValueError: nothing that counts was taken in.
        """
        if not self._samples:
            raise ValueError(f"evaluate: no sample to score: none was given, or all targets are {IGNORED}")
        return self._total / self._samples

    def reset(self) -> None:
        """See `Accumulator`."""
        self._total, self._samples = 0.0, 0


_Reads = Literal["answer", "loss"]


@dataclass(frozen=True)
class Metric:
    """A score of a network's answers, for `evaluate`, `ablate` and `sensitivity`.

    Args:
        name: stands in reports.
        score: a function of ``(output, target)`` that returns one score per sample, or their mean, of which the mean
            over all samples is taken; or, for what is no mean over samples (F1, AUROC, perplexity), an object with
            ``update(output, target)``, ``compute()`` and ``reset()``, as those of torchmetrics: each network and chip
            gets a copy of it, and it is left alone itself.
        unit: of the values; ``"%"`` for shares, which tables then show times 100.
        higher_is_better: whether the network with the higher score is the better one; None if that is not known.
        chance: the score of guessing: a number, or a function of the number of classes; None where there is none.
        reads: what of a network is scored: its ``"answer"`` (what it returns, or the ``logits`` in it), or the
            ``"loss"`` that it works out by itself when it is given labels.
        finite: whether answers and score must be finite; False for a score that knows what to do with NaN and infinite
            values, or may be so itself.

    Raises:
        TypeError: the score is neither, or another argument is of the wrong type.
        ValueError: ``reads`` is neither.

    Example:
        >>> import torch
        >>> from analogsim.evaluation import Metric
        >>> def top3(output, target):
        ...     return (output.topk(3).indices == target[:, None]).any(1).float()
        >>> Metric("top 3", top3, unit="%", higher_is_better=True, chance=lambda classes: 3 / classes).name
        'top 3'
    """

    name: str
    score: Score | Accumulator
    unit: str = ""
    higher_is_better: bool | None = None
    chance: float | Callable[[int], float] | None = None
    reads: _Reads = "answer"
    finite: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.score, type) or not (isinstance(self.score, Accumulator) or callable(self.score)):
            raise TypeError(
                f"metric {self.name!r}: the score must be a function of (output, target) or an object with update, "
                f"compute and reset, got {self.score!r}"
            )
        for name in ("name", "unit"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"metric {self.name!r}: {name} must be text, got {getattr(self, name)!r}")
        _check_direction(f"metric {self.name!r}", self.higher_is_better)
        number = isinstance(self.chance, int | float) and not isinstance(self.chance, bool)
        if not (self.chance is None or number or callable(self.chance)):
            raise TypeError(
                f"metric {self.name!r}: chance must be a number, a function of the number of classes, or None, got "
                f"{self.chance!r}"
            )
        if self.reads not in get_args(_Reads):
            raise ValueError(f"metric {self.name!r}: reads must be 'answer' or 'loss', got {self.reads!r}")

    def begin(self, device: torch.device) -> Accumulator:
        """An empty accumulator, for answers on a torch device."""
        if not isinstance(self.score, Accumulator):
            return Mean(self.score)
        own = copy.deepcopy(self.score)
        own.reset()
        return own.to(device) if isinstance(own, nn.Module) else own

    def result(self, accumulator: Accumulator) -> float:
        """The score in an accumulator as Python's own number.

        Raises:
            TypeError: it is no single number.
            NonFiniteError: it is NaN or infinite, and need not be.
        """
        value = accumulator.compute()
        try:
            number = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                f"evaluate: the metric {self.name!r} must compute one number, got {type(value).__name__}; give a "
                "Metric whose compute() picks one"
            ) from None
        if self.finite and not math.isfinite(number):
            raise NonFiniteError(
                f"evaluate: the metric {self.name!r} makes {number} of answers that are finite, or minus infinity for "
                "classes that are masked; if that is meant, say analogsim.evaluation.Metric(..., finite=False)"
            )
        return number

    def by_chance(self, classes: int | None) -> float | None:
        """The score of guessing among so many classes; None where there is none."""
        if callable(self.chance):
            return self.chance(classes) if classes else None
        return self.chance

    def directed(self, higher_is_better: bool | None, action: str) -> Metric:
        """The metric with a direction, for what has to know which network is the better one.

        Args:
            higher_is_better: as the user says; None: as the metric has it.
            action: who asks, for the message.

        Raises:
            ValueError: nobody says.
            TypeError: what the user says is neither True nor False.
        """
        _check_direction(action, higher_is_better)
        better = self.higher_is_better if higher_is_better is None else higher_is_better
        if better is None:
            raise ValueError(
                f"{action}: it is not known whether a higher {self.name!r} is better; say higher_is_better=True or "
                f"False, or give analogsim.evaluation.Metric({self.name!r}, ..., higher_is_better=...)"
            )
        return replace(self, higher_is_better=better)


def _check_direction(who: str, higher_is_better: object) -> None:
    if higher_is_better is not None and not isinstance(higher_is_better, bool):
        raise TypeError(f"{who}: higher_is_better must be True, False or None, got {higher_is_better!r}")


MetricLike = str | Metric | Score | Accumulator


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Share of right answers in each sample: whether the largest output is the target's.

    Args:
        output: ``(batch, classes, ...)``, or with the classes behind: ``(batch, ..., classes)``.
        target: class numbers ``(batch, ...)``; `IGNORED` ones do not count, and a sample of nothing else has NaN.

    Raises:
        TypeError: targets that are no integers, or complex outputs.
        ValueError: other shapes, or a target that is no class.
    """
    axis = _checked_axis(output, target, "accuracy")
    return _per_sample(output.argmax(axis) == target, target)


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of each sample, with outputs taken as logits; shapes and errors as in `accuracy`."""
    output = output.movedim(_checked_axis(output, target, "cross_entropy"), 1)
    losses = nn.functional.cross_entropy(output.float(), target.long(), reduction="none", ignore_index=IGNORED)
    return _per_sample(losses, target)


def own_loss(loss: Tensor, target: Tensor) -> Tensor:
    """The loss that the network worked out by itself, as those of Hugging Face do: the mean of its batch."""
    return loss


def guessing(classes: int) -> float:
    """The accuracy of one who guesses."""
    return 1 / classes


def classes_axis(output: Tensor, target: Tensor) -> int:
    """The axis of the classes: the second, or the last where the target has all others."""
    return 1 if target.shape == output.shape[:1] + output.shape[2:] else -1


def _checked_axis(output: Tensor, target: Tensor, name: str) -> int:
    """The axis of the classes, if these are class scores and class numbers.

    Args:
        output: the answers.
        target: their targets.
        name: of the metric, for messages.
    """
    other = "; give evaluate(metric=...) a function for anything else"
    axis = classes_axis(output, target)
    if output.ndim < 2 or output.shape[axis] < 2 or (axis == -1 and target.shape != output.shape[:-1]):
        raise ValueError(
            f"{name}: needs outputs (batch, classes, ...) of two or more classes and class numbers (batch, ...), got "
            f"{tuple(output.shape)} and {tuple(target.shape)}{other}"
        )
    if output.is_complex():
        raise TypeError(f"{name}: of complex outputs none is the largest{other}")
    if target.is_floating_point() or target.is_complex() or target.dtype is torch.bool:
        raise TypeError(f"{name}: targets must be class numbers, integers, got {target.dtype}{other}")
    wide = target.long()
    if bool((((wide < 0) & (wide != IGNORED)) | (wide >= output.shape[axis])).any()):
        raise ValueError(
            f"{name}: targets must be class numbers from 0 to {output.shape[axis] - 1}, or {IGNORED} for those that do "
            f"not count, got some from {int(wide.min())} to {int(wide.max())}"
        )
    return axis


def _counted(target: Tensor) -> Tensor:
    """Which class numbers count, ``(batch, all others)``."""
    return (target.long() != IGNORED).reshape(len(target), -1)  # a narrow type has another number in the place of -100


def _per_sample(values: Tensor, target: Tensor) -> Tensor:
    """Means over what counts in each sample; NaN where nothing does."""
    counted = _counted(target).float()
    return (values.reshape(counted.shape) * counted).sum(1) / counted.sum(1)


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", accuracy, unit="%", higher_is_better=True, chance=guessing),
        Metric("cross_entropy", cross_entropy, higher_is_better=False),
        Metric("loss", own_loss, higher_is_better=False, reads="loss"),
    )
}
"""Those that have a name. Others are given as values; what is put in here has a name everywhere."""


def as_metric(metric: MetricLike) -> Metric:
    """The metric that is meant by a name, a value, a function, or an object with update, compute and reset.

    A function has its own name, no unit and no direction; an object that of its type, and the direction that it says
    itself (``higher_is_better``, as torchmetrics has it).

    Raises:
        ValueError: a name that is none.
        TypeError: a class in place of an object.
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, Accumulator) and not isinstance(metric, type):
        better = getattr(metric, "higher_is_better", None)
        return Metric(type(metric).__name__, metric, higher_is_better=better if isinstance(better, bool) else None)
    if callable(metric):
        return Metric(getattr(metric, "__name__", type(metric).__name__), metric)
    if not isinstance(metric, str) or metric not in METRICS:
        raise ValueError(
            f"evaluate: metric must be one of {', '.join(METRICS)} or a function, got {metric!r}; or give an object "
            "with update, compute and reset, or an analogsim.evaluation.Metric"
        )
    return METRICS[metric]
