"""What a network is judged by: a score, what it takes of a network, and what people need to read it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, cast, get_args, runtime_checkable

import torch
from torch import Tensor, nn

from analogsim.errors import InvalidTypeError, InvalidValueError, NonFiniteError
from analogsim.evaluation.display import FloatArray
from analogsim.evaluation.scores import (
    F1,
    R2,
    Averaged,
    BitsPerCharacter,
    Mean,
    Perplexity,
    RootMeanSquaredError,
    accuracy,
    cross_entropy,
    guessed_bits,
    guessed_perplexity,
    guessing,
    label_accuracy,
    mean_squared_error,
    own_loss,
)
from analogsim.utils.batches import describe
from analogsim.utils.checks import check_flag

Score = Callable[[Any, Any], Tensor]


@runtime_checkable
class Accumulator(Protocol):
    """What a score adds up in, batch by batch; torchmetrics' metrics are such objects."""

    def update(self, output: Any, target: Any, /) -> Any:
        """Take in a batch: the network's answers and their targets."""

    def compute(self) -> Any:
        """The score of all that was taken in: a number, or a tensor that holds one."""

    def reset(self) -> Any:
        """Forget all that was taken in."""


@runtime_checkable
class Detailed(Protocol):
    """An accumulator that keeps more of a network than its score: the scores of single samples, for example."""

    def details(self) -> FloatArray:
        """What it keeps once its score is computed, an array of one shape for all networks."""


_Reads = Literal["answer", "loss", "output"]

Pick = str | int | Callable[[Any], Any]
"""Which of several results: its key or place, or a function of all."""


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
            ``"loss"`` that it works out by itself when it is given labels, or its whole ``"output"`` as it is.
        finite: whether answers and score must be finite, in whatever structure they lie; False for a score that knows
            what to do with NaN and infinite values, or may be so itself.
        transform: of ``(output, target)``: the arguments of the score, as a tuple, or as a mapping of them by name;
            None: these two as they are.
        pick: of what compute() gives, the key or the place of the one number that counts, or a function of it all; None
            where it is one number.

    Raises:
        TypeError: the score is neither, or another argument is of the wrong type.
        ValueError: ``reads`` is none of these.

    Example:
        >>> import torch
        >>> from analogsim.evaluation import Metric
        >>> def top3(output, target):
        ...     return (output.topk(3).indices == target[:, None]).any(1).float()
        >>> Metric("top 3", top3, unit="%", higher_is_better=True, chance=lambda classes: 3 / classes).name
        'top 3'

        Of torchmetrics, for a network that returns logits of two classes, and for a detector::

            Metric("AUROC", BinaryAUROC(), transform=lambda output, target: (output.softmax(1)[:, 1], target))
            Metric("mAP", MeanAveragePrecision(), pick="map")
    """

    name: str
    score: Score | Accumulator
    unit: str = ""
    higher_is_better: bool | None = None
    chance: float | Callable[[int], float] | None = None
    reads: _Reads = "answer"
    finite: bool = True
    transform: Callable[[Any, Any], tuple[Any, ...] | Mapping[str, Any]] | None = None
    pick: Pick | None = None

    def __post_init__(self) -> None:
        if isinstance(self.score, type) or not (isinstance(self.score, Accumulator) or callable(self.score)):
            raise InvalidTypeError(
                f"metric {self.name!r}: the score must be a function of (output, target) or an object with update, "
                f"compute and reset, got {self.score!r}"
            )
        for name in ("name", "unit"):
            if not isinstance(getattr(self, name), str):
                raise InvalidTypeError(f"metric {self.name!r}: {name} must be text, got {getattr(self, name)!r}")
        _check_direction(f"metric {self.name!r}", self.higher_is_better)
        check_flag(self.finite, f"metric {self.name!r}: finite")
        number = isinstance(self.chance, int | float) and not isinstance(self.chance, bool)
        if not (self.chance is None or number or callable(self.chance)):
            raise InvalidTypeError(
                f"metric {self.name!r}: chance must be a number, a function of the number of classes, or None, got "
                f"{self.chance!r}"
            )
        if self.reads not in get_args(_Reads):
            raise InvalidValueError(
                f"metric {self.name!r}: reads must be 'answer', 'loss' or 'output', got {self.reads!r}"
            )
        self._check_ways()
        if self.higher_is_better is None:
            object.__setattr__(self, "higher_is_better", _own_direction(self.score, self.pick))

    def _check_ways(self) -> None:
        """Raise TypeError if transform or pick are nothing that can be used."""
        if not (self.transform is None or callable(self.transform)):
            raise InvalidTypeError(
                f"metric {self.name!r}: transform must be a function of (output, target), got {self.transform!r}"
            )
        if self.pick is not None:
            if isinstance(self.pick, bool) or not (isinstance(self.pick, str | int) or callable(self.pick)):
                raise InvalidTypeError(
                    f"metric {self.name!r}: pick must be a key, a place or a function, got {self.pick!r}"
                )
            if not isinstance(self.score, Accumulator):
                raise InvalidTypeError(
                    f"metric {self.name!r}: pick={self.pick!r} is for what compute() gives; of a function's results "
                    "the mean is taken"
                )

    def begin(self, device: torch.device) -> Accumulator:
        """An empty accumulator, for answers on a torch device."""
        if not isinstance(self.score, Accumulator):
            return Mean(self.scores)
        try:
            own = copy.deepcopy(self.score)
        except Exception as error:
            raise InvalidTypeError(
                f"evaluate: each chip gets a copy of the metric {self.name!r}, and {type(self.score).__name__} cannot "
                f"be copied: {error}"
            ) from error
        own.reset()
        if not isinstance(own, nn.Module):
            return own
        for each in own.modules():
            if hasattr(each, "distributed_available_fn"):  # torchmetrics would add up chips of other processes
                cast(Any, each).distributed_available_fn = _by_itself
        return own.to(device)

    def add(self, accumulator: Accumulator, output: Any, target: Any) -> None:
        """Let an accumulator take in what a network answers to a batch.

        Raises:
            TypeError: the transform gives neither a tuple nor a mapping.
        """
        update: Callable[..., Any] = accumulator.update
        if isinstance(self.score, Accumulator):
            self._hand(update, output, target)
        else:
            update(output, target)

    def scores(self, output: Any, target: Any) -> Tensor:
        """What the score, where it is a function, says of a batch."""
        score: Callable[..., Any] = cast(Any, self.score)
        found: Tensor = self._hand(score, output, target)
        return found

    def _hand(self, taker: Callable[..., Any], output: Any, target: Any) -> Any:
        """What a function gives of answer and target, as the transform turns them."""
        args: Any = (output, target) if self.transform is None else self.transform(output, target)
        if not isinstance(args, tuple | Mapping):
            raise InvalidTypeError(
                f"evaluate: the transform of the metric {self.name!r} must return a tuple of arguments or a mapping of "
                f"keyword arguments, got {describe(args)}"
            )
        try:
            return taker(**args) if isinstance(args, Mapping) else taker(*args)
        except Exception as error:
            given = args.items() if isinstance(args, Mapping) else enumerate(args)
            told = ", ".join(f"{name}: {describe(value)}" for name, value in given)
            error.add_note(f"evaluate: the metric {self.name!r} was given {told}")
            raise

    @property
    def is_average(self) -> bool:
        """Whether it follows from a mean over samples, see `analogsim.evaluation.scores.Averaged`."""
        return not isinstance(self.score, Accumulator) or (isinstance(self.score, Averaged) and self.pick is None)

    def each(self, accumulator: Accumulator, output: Any, target: Any) -> tuple[Tensor, Tensor]:
        """Score and weight of each sample of a batch; of a metric that `is_average`."""
        each = cast(Averaged, accumulator).each
        found: tuple[Tensor, Tensor] = (
            self._hand(each, output, target) if isinstance(self.score, Accumulator) else each(output, target)
        )
        return found

    def result(self, accumulator: Accumulator) -> float:
        """The score in an accumulator as Python's own number.

        Raises:
            TypeError: it is no single number.
            ValueError: there is no result to be picked under this key.
            NonFiniteError: it is NaN or infinite, and need not be.
        """
        value = accumulator.compute()
        if self.pick is not None:
            value = _picked(self.name, value, self.pick)
        try:
            number = float(value)
        except (TypeError, ValueError, RuntimeError):
            keys = _keys(value)
            there = f" with {', '.join(map(repr, keys))}; say which" if keys else "; say which"
            raise InvalidTypeError(
                f"evaluate: the metric {self.name!r} must compute one number, got {type(value).__name__}{there}: "
                f"analogsim.evaluation.Metric({self.name!r}, ..., pick={keys[0] if keys else 'a key or a function'!r})"
            ) from None
        if self.finite and not math.isfinite(number):
            raise NonFiniteError(
                f"evaluate: the metric {self.name!r} makes {number} of answers that are finite, or minus infinity for "
                "classes that are masked, or of data in which nothing counts; if that is meant, say "
                "analogsim.evaluation.Metric(..., finite=False)"
            )
        return number

    def details(self, accumulator: Accumulator) -> FloatArray | None:
        """What an accumulator keeps beside the score; None where that is nothing."""
        return accumulator.details() if isinstance(accumulator, Detailed) else None

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
            raise InvalidValueError(
                f"{action}: it is not known whether a higher {self.name!r} is better; say higher_is_better=True or "
                f"False, or give analogsim.evaluation.Metric({self.name!r}, ..., higher_is_better=...)"
            )
        return replace(self, higher_is_better=better)


def _check_direction(who: str, higher_is_better: object) -> None:
    if higher_is_better is not None and not isinstance(higher_is_better, bool):
        raise InvalidTypeError(f"{who}: higher_is_better must be True, False or None, got {higher_is_better!r}")


def _by_itself() -> bool:
    """Whether other processes have part in a metric."""
    return False


def _own_direction(score: object, pick: Pick | None) -> bool | None:
    """What an object says of its direction, or of that of the part of it that is picked."""
    better = getattr(score, "higher_is_better", None)
    if not isinstance(better, bool) and isinstance(pick, str) and isinstance(score, nn.Module):
        for name, part in score.named_children():  # a MetricCollection, or what is wrapped
            named = name == pick or type(part).__name__ == pick
            better = getattr(part, "higher_is_better", None) if named else better
    return better if isinstance(better, bool) else None


def _keys(value: Any) -> list[Any]:
    """Under which keys or places a result holds numbers; nothing if it is no collection of any."""
    if isinstance(value, Mapping):
        return list(value)
    if isinstance(value, Tensor) or not hasattr(value, "__len__") or isinstance(value, str):
        return list(range(len(value))) if isinstance(value, Tensor) and value.ndim else []
    return list(range(len(value)))


def _picked(name: str, value: Any, pick: Pick) -> Any:
    """One of several results.

    Raises:
        ValueError: it is not there; the message lists what is.
    """
    if callable(pick):
        return pick(value)
    keys = _keys(value)
    if pick not in keys:
        there = f"which has {', '.join(map(repr, keys))}" if keys else "of which nothing can be picked"
        raise InvalidValueError(
            f"evaluate: the metric {name!r} has no result {pick!r}: it computes {describe(value)}, {there}"
        )
    return value[pick]


MetricLike = str | Metric | Score | Accumulator


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", accuracy, unit="%", higher_is_better=True, chance=guessing),
        Metric("cross_entropy", cross_entropy, higher_is_better=False),
        Metric("loss", own_loss, higher_is_better=False, reads="loss"),
        Metric("perplexity", Perplexity(), higher_is_better=False, chance=guessed_perplexity),
        Metric("bits_per_character", BitsPerCharacter(), higher_is_better=False, chance=guessed_bits),
        Metric("mean_squared_error", mean_squared_error, higher_is_better=False),
        Metric("root_mean_squared_error", RootMeanSquaredError(), higher_is_better=False),
        Metric("r2", R2(), higher_is_better=True, chance=0.0),
        Metric("label_accuracy", label_accuracy, unit="%", higher_is_better=True, chance=0.5),
        Metric("f1", F1(), unit="%", higher_is_better=True),
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
        return Metric(type(metric).__name__, metric)
    if callable(metric):
        return Metric(getattr(metric, "__name__", type(metric).__name__), metric)
    if not isinstance(metric, str) or metric not in METRICS:
        raise InvalidValueError(
            f"evaluate: metric must be one of {', '.join(METRICS)} or a function, got {metric!r}; or give an object "
            "with update, compute and reset, or an analogsim.evaluation.Metric"
        )
    return METRICS[metric]


def check_share(score: float, unit: str | None, what: str) -> None:
    """Refuse a target that no share reaches, most of all percent in place of a share.

    Args:
        score: to be reached.
        unit: of the metric; ``"%"`` for shares, which lie between 0 and 1. All else is taken as it is.
        what: it is, for the message.

    Raises:
        ValueError: with the share that was meant, where it can be guessed.
    """
    if unit == "%" and not 0 <= score <= 1:
        meant = f"; did you mean {score / 100:g}?" if 1 < score <= 100 else ""
        raise InvalidValueError(f"{what}: a share lies between 0 and 1, got {score:g}{meant}")
