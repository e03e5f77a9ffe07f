"""Scores of answers against targets: functions of a batch, and what adds up over all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.utils.batches import describe, sample_counts

IGNORED = -100
"""The target that does not count, as torch's losses and Hugging Face's collators have it."""


@runtime_checkable
class Averaged(Protocol):
    """An accumulator whose score follows from a weighted mean over samples, so that some samples tell of all of them.

    Such metrics can be estimated from part of the data (``samples_per_chip`` of `analogsim.evaluate`).
    """

    def each(self, output: Any, target: Any, /) -> tuple[Tensor, Tensor]:
        """Score and weight of each sample, ``(samples,)`` both; one of each where only a batch's mean is known."""

    def of_mean(self, mean: float, /) -> float:
        """The score that follows from the weighted mean."""


class Mean:
    """The mean of a score over all samples, whatever the batches.

    Args:
        score: of ``(output, target)``: one score per sample, or their mean.
    """

    def __init__(self, score: Callable[[Any, Any], Tensor]) -> None:
        self._score = score
        self.reset()

    def update(self, output: Any, target: Any, /) -> None:
        """See `Accumulator`.

        Samples without any target that counts (all of them `IGNORED`), for which the score is NaN, are left out.

        Raises:
            TypeError: the score is neither one per sample nor their mean.
        """
        values, left, samples = self._scored(output, target)
        if left is not None:
            values, samples = values[left], int(left.sum())
        if samples:
            self._total += float(values.mean()) * samples
            self._samples += samples

    def _scored(self, output: Any, target: Any) -> tuple[Tensor, Tensor | None, int]:
        """Scores, of which samples they count (None: of all), and how many samples there are."""
        score: Any = self._score(output, target)
        counts = sample_counts(target) or sample_counts(output) or (1,)
        _check_score(score, counts)
        values, samples = score.double(), len(score) if score.ndim else counts[0]
        numbered = isinstance(target, Tensor) and not (target.is_floating_point() or target.is_complex())
        if not (values.ndim and numbered and values.isnan().any()):
            return values, None, samples
        left = ~(values.flatten(1).isnan().all(1) if values.ndim > 1 else values.isnan())
        left |= _counted(target).any(1)
        return values, left, samples

    def each(self, output: Any, target: Any, /) -> tuple[Tensor, Tensor]:
        """See `Averaged`. Samples that do not count weigh nothing."""
        values, left, samples = self._scored(output, target)
        if not values.ndim:
            return values[None], values.new_tensor([samples])
        values = values.flatten(1).mean(1) if values.ndim > 1 else values
        if left is None:
            return values, torch.ones_like(values)
        return values.where(left, 0), left.double()

    def of_mean(self, mean: float, /) -> float:
        """See `Averaged`."""
        return mean

    def compute(self) -> float:
        """See `Accumulator`.

        Raises:
            ValueError: nothing that counts was taken in.
        """
        if not self._samples:
            raise InvalidValueError(f"evaluate: no sample to score: none was given, or all targets are {IGNORED}")
        return self._total / self._samples

    def reset(self) -> None:
        """See `Accumulator`."""
        self._total, self._samples = 0.0, 0


def _check_score(score: Any, counts: tuple[int, ...]) -> None:
    """Raise TypeError unless this is one score for each of so many samples, or their mean."""
    if not isinstance(score, Tensor) or score.is_complex() or (score.ndim and len(score) not in counts):
        kind = "complex " if isinstance(score, Tensor) and score.is_complex() else ""
        raise InvalidTypeError(
            "evaluate: the metric must return a tensor with one score per sample, or their mean, got "
            f"{kind}{tuple(score.shape) if isinstance(score, Tensor) else score!r} for {counts[0]} samples"
        )


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Share of right answers in each sample: whether the largest output is the target's.

    Args:
        output: ``(batch, classes, ...)``, or with the classes behind: ``(batch, ..., classes)``.
        target: class numbers ``(batch, ...)``; `IGNORED` ones do not count, and a sample of nothing else has NaN.

    Raises:
        TypeError: targets that are no integers, or complex outputs.
        ValueError: other shapes, or a target that is no class.
    """
    axis = checked_axis(output, target, "accuracy")
    return _per_sample(output.argmax(axis) == target, target)


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of each sample, with outputs taken as logits; shapes and errors as in `accuracy`."""
    output = output.movedim(checked_axis(output, target, "cross_entropy"), 1)
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


def check_tensors(output: Any, target: Any, name: str) -> None:
    """Raise TypeError, in the name of a metric, unless both are tensors."""
    if not (isinstance(output, Tensor) and isinstance(target, Tensor)):
        raise InvalidTypeError(
            f"{name}: needs tensors, got {describe(output)} and, as target, {describe(target)}; give "
            "evaluate(metric=...) a function, or an analogsim.evaluation.Metric with a transform"
        )


def checked_axis(output: Tensor, target: Tensor, name: str) -> int:
    """The axis of the classes, if these are class scores and class numbers.

    Args:
        output: the answers.
        target: their targets.
        name: of the metric, for messages.
    """
    other = "; give evaluate(metric=...) a function for anything else"
    check_tensors(output, target, name)
    axis = classes_axis(output, target)
    if output.ndim < 2 or output.shape[axis] < 2 or (axis == -1 and target.shape != output.shape[:-1]):
        raise InvalidValueError(
            f"{name}: needs outputs (batch, classes, ...) of two or more classes and class numbers (batch, ...), got "
            f"{tuple(output.shape)} and {tuple(target.shape)}{other}"
        )
    if output.is_complex():
        raise InvalidTypeError(f"{name}: of complex outputs none is the largest{other}")
    if target.is_floating_point() or target.is_complex() or target.dtype is torch.bool:
        raise InvalidTypeError(f"{name}: targets must be class numbers, integers, got {target.dtype}{other}")
    wide = target.long()
    if bool((((wide < 0) & (wide != IGNORED)) | (wide >= output.shape[axis])).any()):
        raise InvalidValueError(
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


# --- language models -------------------------------------------------------------------------------------------------


class Perplexity:
    """The exponential of the mean cross-entropy over all tokens that count, of whatever sample and batch.

    Outputs are logits of the token that stands in the target, shapes as in `accuracy`: where the network is asked for
    the next token, the targets are the inputs moved by one. Networks that move labels by themselves (Hugging Face's
    language models) say their loss: ``metric="loss"``, whose mean is over batches.
    """

    name = "perplexity"
    _total: float
    _tokens: int

    def __init__(self) -> None:
        self.reset()

    def update(self, output: Tensor, target: Tensor, /) -> None:
        """See `Accumulator`; errors as in `accuracy`."""
        self._total += float(self._losses(output, target).double().sum())
        self._tokens += int(_counted(target).sum())

    def _losses(self, output: Tensor, target: Tensor) -> Tensor:
        """The cross-entropy of each token, 0 of those that do not count."""
        logits = output.movedim(checked_axis(output, target, self.name), 1)
        return nn.functional.cross_entropy(logits.float(), target.long(), reduction="none", ignore_index=IGNORED)

    def each(self, output: Tensor, target: Tensor, /) -> tuple[Tensor, Tensor]:
        """See `Averaged`: a sample weighs as many tokens as count in it."""
        tokens = _counted(target).sum(1).double()
        total = self._losses(output, target).double().reshape(len(target), -1).sum(1)
        return total / tokens.clamp_min(1), tokens

    def of_mean(self, mean: float, /) -> float:
        """See `Averaged`."""
        return _exponential(mean)

    def compute(self) -> float:
        """See `Accumulator`."""
        return _exponential(self.mean())

    def mean(self) -> float:
        """The mean cross-entropy, in nats.

        Raises:
            ValueError: nothing that counts was taken in.
        """
        if not self._tokens:
            raise InvalidValueError(f"{self.name}: no token to score: none was given, or all targets are {IGNORED}")
        return self._total / self._tokens

    def reset(self) -> None:
        """See `Accumulator`."""
        self._total, self._tokens = 0.0, 0


class BitsPerCharacter(Perplexity):
    """The mean cross-entropy over all tokens that count, in bits; where a token is a character."""

    name = "bits_per_character"

    def of_mean(self, mean: float, /) -> float:
        """See `Averaged`."""
        return mean / math.log(2)

    def compute(self) -> float:
        """See `Accumulator`."""
        return self.mean() / math.log(2)


def _exponential(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def guessed_perplexity(classes: int) -> float:
    """The perplexity of one who guesses."""
    return float(classes)


def guessed_bits(classes: int) -> float:
    """The bits that a guess leaves."""
    return math.log2(classes)


# --- regression ------------------------------------------------------------------------------------------------------


def mean_squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Mean of ``(output - target)^2`` in each sample.

    Args:
        output: ``(batch, ...)``.
        target: of the same shape, but for axes of one at the end; complex numbers count by their magnitude.

    Raises:
        TypeError: something else than tensors.
        ValueError: other shapes, which would be stretched to each other, or targets that are NaN or infinite.
    """
    squares = _errors(output, target, "mean_squared_error")[0].square()
    return (squares.sum(2) if squares.ndim == 3 else squares).mean(1)  # real and imaginary parts are one error


class RootMeanSquaredError(Mean):
    """The root of the mean squared error over all samples; shapes and errors as in `mean_squared_error`."""

    def __init__(self) -> None:
        super().__init__(mean_squared_error)

    def of_mean(self, mean: float, /) -> float:
        """See `Averaged`; an estimate below 0 counts as 0."""
        return math.sqrt(max(mean, 0.0))

    def compute(self) -> float:
        """See `Accumulator`."""
        return math.sqrt(super().compute())


class R2:
    """The coefficient of determination: 1 - (squared errors) / (squared deviations of targets from their mean).

    Of each output its own over all samples, and their mean. 0 is what one reaches who always says the mean of the
    targets. Sums are joined as by Chan, Golub, LeVeque: Algorithms for computing the sample variance, The American
    Statistician 37, 1983.
    """

    _samples: int
    _mean: Tensor
    _spread: Tensor
    _wrong: Tensor

    def __init__(self) -> None:
        self.reset()

    def update(self, output: Tensor, target: Tensor, /) -> None:
        """See `Accumulator`; shapes and errors as in `mean_squared_error`."""
        wrong, targets = (part.reshape(len(part), -1) for part in _errors(output, target, "r2"))
        count, mean = len(targets), targets.mean(0)
        if self._samples and mean.shape != self._mean.shape:
            raise InvalidValueError(
                f"r2: outputs of {len(mean)} numbers after some of {len(self._mean)}; all must be alike"
            )
        apart, total = mean - self._mean, self._samples + count
        self._spread = self._spread + (targets - mean).square().sum(0) + apart.square() * self._samples * count / total
        self._mean = self._mean + apart * count / total
        self._wrong = self._wrong + wrong.square().sum(0)
        self._samples = total

    def compute(self) -> float:
        """See `Accumulator`.

        Raises:
            ValueError: fewer than two samples, or targets that are all the same in an output.
        """
        if self._samples < 2:
            raise InvalidValueError(f"r2: needs two samples or more, got {self._samples}")
        same = (self._spread <= 1e-24 * self._samples * self._mean.square()).nonzero().flatten()
        if len(same):
            raise InvalidValueError(
                f"r2: the targets of output {int(same[0])} are the same in all {self._samples} samples, so that there "
                "is nothing to explain; take 'mean_squared_error'"
            )
        return float((1 - self._wrong / self._spread).mean())

    def reset(self) -> None:
        """See `Accumulator`."""
        self._samples = 0
        self._mean = self._spread = self._wrong = torch.zeros((), dtype=torch.float64)


def _errors(output: Any, target: Any, name: str) -> tuple[Tensor, Tensor]:
    """What answers miss targets by, and the targets, both in double precision on the CPU.

    They are ``(batch, numbers)``, of complex numbers ``(batch, numbers, 2)``.

    Args:
        output: the answers.
        target: their targets.
        name: of the metric, for messages.
    """
    check_tensors(output, target, name)
    shapes = [tuple(part.shape) for part in (output, target)]
    short, long = sorted(shapes, key=len)
    if long[: len(short)] != short or any(side != 1 for side in long[len(short) :]):
        raise InvalidValueError(
            f"{name}: outputs and targets must have one shape, got {shapes[0]} and {shapes[1]}, which would be "
            "stretched to each other"
        )
    if not target.isfinite().all():
        raise InvalidValueError(f"{name}: the targets of this batch hold NaN or infinite values")
    kind = torch.complex128 if output.is_complex() or target.is_complex() else torch.float64
    wide = target.to("cpu", kind).reshape(len(target), -1)
    wrong = output.to("cpu", kind).reshape(len(target), -1) - wide
    if kind is torch.complex128:
        wrong, wide = torch.view_as_real(wrong), torch.view_as_real(wide)
    return wrong, wide


# --- several labels --------------------------------------------------------------------------------------------------


def label_accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Share of labels that are said rightly in each sample: an output above 0 (a logit) says that a label is there.

    Args:
        output: logits ``(batch, labels)``, more axes behind if there are.
        target: 0 and 1, of the same shape.

    Raises:
        TypeError: something else than tensors.
        ValueError: other shapes, or other targets than 0 and 1.
    """
    said, there = _labels(output, target, "label_accuracy")
    return (said == there).flatten(1).double().mean(1)


class F1:
    """The harmonic mean of precision and recall of each class over all samples, and their mean over classes (macro).

    Targets are class numbers (shapes as in `accuracy`, the largest output counts), or 0 and 1 in the shape of the
    outputs (several labels, an output above 0 counts). A class that is neither in targets nor answers is left out, a
    label counts as 0, as torchmetrics and scikit-learn have both.
    """

    _counts: Tensor
    _several: bool

    def __init__(self) -> None:
        self.reset()

    def update(self, output: Tensor, target: Tensor, /) -> None:
        """See `Accumulator`; errors as in `accuracy` and `label_accuracy`."""
        check_tensors(output, target, "f1")
        self._several = output.shape == target.shape
        if self._several:
            said, there = (part.movedim(1, -1).flatten(0, -2) for part in _labels(output, target, "f1"))
        else:
            axis = checked_axis(output, target, "f1")
            counted, classes = target.long() != IGNORED, output.shape[axis]
            chosen = output.argmax(axis)[counted]
            said, there = (
                nn.functional.one_hot(part.long(), classes).bool() for part in (chosen, target.long()[counted])
            )
        hits, found, true = ((part.sum(0).double().cpu()) for part in (said & there, said, there))
        counts = torch.stack((hits, found + true))
        if self._counts.numel() and self._counts.shape != counts.shape:
            raise InvalidValueError(
                f"f1: answers of {counts.shape[1]} classes after some of {self._counts.shape[1]}; all must be alike"
            )
        self._counts = self._counts + counts if self._counts.numel() else counts

    def compute(self) -> float:
        """See `Accumulator`.

        Raises:
            ValueError: no class is in targets or answers.
        """
        hits, both = self._counts
        met = both > 0
        if not met.any():
            raise InvalidValueError("f1: no class is in the targets or the answers, so that there is nothing to score")
        scores = 2 * hits[met] / both[met]
        return float(scores.sum() / len(met) if self._several else scores.mean())

    def reset(self) -> None:
        """See `Accumulator`."""
        self._counts = torch.zeros(2, 0, dtype=torch.float64)
        self._several = False


def _labels(output: Any, target: Any, name: str) -> tuple[Tensor, Tensor]:
    """Which labels an answer says are there, and which are."""
    check_tensors(output, target, name)
    if output.is_complex():
        raise InvalidTypeError(f"{name}: complex outputs are neither above nor below 0")
    if output.shape != target.shape or output.ndim < 2:
        raise InvalidValueError(
            f"{name}: outputs and targets must have one shape (batch, labels, ...), got {tuple(output.shape)} and "
            f"{tuple(target.shape)}"
        )
    if bool(((target != 0) & (target != 1)).any()):
        raise InvalidValueError(
            f"{name}: targets must be 0 or 1 for each label, got some from {float(target.min()):g} to "
            f"{float(target.max()):g}"
        )
    return output > 0, target != 0
