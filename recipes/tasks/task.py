"""What a network is to learn from its data: the loss, what it is judged by, and what a batch is.

A task of one's own is a subclass, and goes wherever a task is named: in Python as a value, in settings as
``task="path/file.py:Ordinal"``.

Example:
    >>> import torch
    >>> from analogsim.evaluation import Metric
    >>> from analogsim.recipes.tasks.task import Regression
    >>> class Robust(Regression):
    ...     '''Numbers with outliers among them: the error counts as it is, not squared.'''
    ...
    ...     name = "robust"
    ...     metric = Metric("absolute error", lambda answer, target: (answer - target).abs(), higher_is_better=False)
    ...     also = ()
    ...
    ...     def loss(self, answer, target):
    ...         return torch.nn.functional.l1_loss(*self.alike(answer, target))
    >>> float(Robust().loss(torch.tensor([[1.0], [3.0]]), torch.tensor([1.0, 1.0])))
    1.0
"""

from __future__ import annotations

import copy
import difflib
import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any, Self, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.evaluation import Metric
from analogsim.evaluation.metrics import METRICS, Accumulator, MetricLike, as_metric
from analogsim.recipes.tasks.references import call_factory, is_reference, load_object, named
from analogsim.utils.batches import Inputs, split

_IGNORED = -100  # the target that does not count, as torch's losses have it
_IDS = (torch.int64, torch.int32, torch.int16)


class Task:
    """What a network is to learn. Instances are values: nothing of a run is kept in one.

    Attributes:
        name: stands in messages.
        metric: what networks are judged by, in each epoch, at the end, and in studies.
        also: what is reported beside it at the end.
    """

    name: str = ""
    metric: Metric
    also: tuple[Metric, ...] = ()

    def batch(self, raw: Any) -> tuple[Inputs, Tensor]:
        """Inputs and target of what the loader yields: of a pair or of a mapping with ``"labels"``.

        A task with other targets than a tensor has a ``batch`` of its own.

        Raises:
            TypeError: it is neither, or the target is no tensor.
        """
        inputs, target = split(raw)
        if not isinstance(target, Tensor):
            raise InvalidTypeError(
                f"task {self.name}: the target of a batch must be a tensor, got {type(target).__name__}"
            )
        return inputs, target

    def loss(self, answer: Tensor, target: Tensor) -> Tensor:
        """What training makes small: a scalar, the mean over the samples of a batch.

        Args:
            answer: what the network returns, or the ``logits`` in it.
            target: of the batch.
        """
        raise NotImplementedError(
            f"task {self.name or type(self).__name__}: it has no loss; write loss(answer, target)"
        )

    def facts(self, train: Dataset[Any]) -> dict[str, object]:
        """What the samples tell, for factories of networks that ask for it by name.

        ``shape`` of an input, where all have one; ``vocabulary``, where inputs are numbers of tokens: one more than
        the largest; ``outputs``: how many numbers a network gives for a sample or a place in it, where targets tell.

        Raises:
            ValueError: targets that are not of this task.
        """
        return dict(_seen(train)[0])

    def guess(self, facts: Mapping[str, Any]) -> float | None:
        """The loss of one who guesses, far above which training has diverged; None where that is not known."""
        return None

    def check_answer(self, answer: Any, facts: Mapping[str, Any]) -> None:
        """Whether a network may be trained that gives this answer, as far as it shows without targets.

        Args:
            answer: what the network returns of some samples, or the ``logits`` in it.
            facts: of the data.

        Raises:
            ValueError: not.
        """

    def judged_by(self, metric: Metric) -> Self:
        """The same task with another metric; what it was judged by is reported beside it."""
        other = copy.copy(self)
        other.also = tuple(one for one in (self.metric, *self.also) if one.name != metric.name)
        other.metric = metric
        return other

    def __repr__(self) -> str:
        return f"<task {self.name or type(self).__name__}, by {self.metric.name}>"


class Classification(Task):
    """One class for each sample, or for each place in it: logits ``(N, classes, ...)``, or with the classes behind.

    Attributes:
        counted: the fact that says how many classes there are.
    """

    name = "classification"
    metric = METRICS["accuracy"]
    counted = "classes"

    def loss(self, answer: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy; targets of -100 do not count."""
        if answer.ndim > 2 and target.shape != answer.shape[:1] + answer.shape[2:]:  # the classes stand behind
            answer = answer.movedim(-1, 1)
        return functional.cross_entropy(answer, target.long())

    def facts(self, train: Dataset[Any]) -> dict[str, object]:
        """See `Task.facts`; with ``classes``, one more than the largest target."""
        facts, targets = _seen(train)
        if targets is None:
            return facts
        if targets.dtype not in (*_IDS, torch.uint8, torch.int8):
            raise InvalidValueError(
                f"task {self.name}: targets must be class numbers, integers, got {targets.dtype}; say task=regression "
                "for numbers, or task=multi-label for several labels of 0 and 1"
            )
        if targets.shape[1:] == (1,) and self.counted == "classes":  # a sequence may be of one place
            raise InvalidValueError(
                f"task {self.name}: targets must be one class number for each sample, (N,), got "
                f"{tuple(targets.shape)}; take the last axis away"
            )
        counted = targets[targets.long() != _IGNORED]
        if not len(counted) or int(counted.min()) < 0:
            low = "none that counts" if not len(counted) else f"one of {int(counted.min())}"
            raise InvalidValueError(
                f"task {self.name}: targets must be class numbers from 0 on, or {_IGNORED} for what does not count, "
                f"got {low}"
            )
        classes = int(counted.max()) + 1
        return {**facts, "classes": classes, "outputs": classes}

    def check_answer(self, answer: Any, facts: Mapping[str, Any]) -> None:
        """See `Task.check_answer`: there is a logit for each class, in the second axis or the last."""
        classes = facts.get(self.counted)
        own = type(self).loss not in (Classification.loss, LanguageModelling.loss)  # which may take other answers
        if own or classes is None or not isinstance(answer, Tensor):
            return
        if answer.ndim < 2 or max(answer.shape[1], answer.shape[-1]) < classes:
            raise InvalidValueError(
                f"task {self.name}: the network answers {tuple(answer.shape)} to {len(answer) if answer.ndim else 1} "
                f"samples, and the data have {classes} classes; let it give a logit for each"
            )

    def guess(self, facts: Mapping[str, Any]) -> float | None:
        """That of equal chances."""
        classes = facts.get(self.counted)
        return None if classes is None else math.log(max(2, classes))


class LanguageModelling(Classification):
    """The next token at each place: ids ``(N, T)`` in, logits ``(N, T, vocabulary)`` out."""

    name = "language-modelling"
    metric = METRICS["perplexity"]
    counted = "vocabulary"
    also = (METRICS["bits_per_character"],)

    def loss(self, answer: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of the next token; targets of -100 do not count."""
        if answer.ndim > 2 and answer.shape[:-1] == target.shape:  # also where there are as many tokens as places
            answer = answer.movedim(-1, 1)
        return functional.cross_entropy(answer, target.long())

    def facts(self, train: Dataset[Any]) -> dict[str, object]:
        """See `Task.facts`; with ``vocabulary``, over inputs and targets."""
        facts = super().facts(train)
        known = [value for key in ("vocabulary", "classes") if isinstance(value := facts.pop(key, None), int)]
        return {**facts, "vocabulary": max(known), "outputs": max(known)} if known else facts


class Regression(Task):
    """Numbers: outputs ``(N, ...)`` for targets of the same shape; ``(N, 1)`` goes with ``(N,)``."""

    name = "regression"
    metric = METRICS["root_mean_squared_error"]
    also = (METRICS["r2"],)

    def alike(self, answer: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both in the shape of the target, which takes the type of the answer.

        Raises:
            ValueError: shapes that differ by more than an axis of one at the end, which torch would stretch.
        """
        if answer.shape != target.shape and (answer.shape == (*target.shape, 1) or (*answer.shape, 1) == target.shape):
            answer = answer.reshape(target.shape)
        if answer.shape != target.shape:
            raise InvalidValueError(
                f"task {self.name}: outputs of shape {tuple(answer.shape)} for targets of shape {tuple(target.shape)}; "
                "let the network give a number for each number of the target"
            )
        return answer, target.to(answer.dtype)

    def loss(self, answer: Tensor, target: Tensor) -> Tensor:
        """The mean squared error."""
        return functional.mse_loss(*self.alike(answer, target))

    def facts(self, train: Dataset[Any]) -> dict[str, object]:
        """See `Task.facts`; with ``target_variance``."""
        facts, targets = _seen(train)
        if targets is None:
            return facts
        if targets.is_complex() or not bool(targets.isfinite().all()):
            raise InvalidValueError(f"task {self.name}: targets must be finite real numbers; some are not")
        variance = float(targets.double().var(0, correction=0).mean())
        return {**facts, "outputs": math.prod(targets.shape[1:]), "target_variance": variance}

    def guess(self, facts: Mapping[str, Any]) -> float | None:
        """That of one who says the mean; at least 1, as a network that starts at random knows nothing of the scale."""
        variance = facts.get("target_variance")
        return None if variance is None else max(1.0, variance)


class MultiLabel(Task):
    """Several labels for each sample: logits ``(N, labels)`` for targets of 0 and 1."""

    name = "multi-label"
    metric = METRICS["f1"]
    also = (METRICS["label_accuracy"],)

    def loss(self, answer: Tensor, target: Tensor) -> Tensor:
        """Binary cross-entropy, the mean over all labels."""
        if answer.shape != target.shape:
            raise InvalidValueError(
                f"task {self.name}: outputs of shape {tuple(answer.shape)} for targets of shape {tuple(target.shape)}; "
                "let the network give a logit for each label"
            )
        return functional.binary_cross_entropy_with_logits(answer, target.to(answer.dtype))

    def facts(self, train: Dataset[Any]) -> dict[str, object]:
        """See `Task.facts`; with ``classes``, the number of labels."""
        facts, targets = _seen(train)
        if targets is None:
            return facts
        if targets.ndim < 2 or not bool(((targets == 0) | (targets == 1)).all()):
            raise InvalidValueError(
                f"task {self.name}: targets must be 0 or 1 for each label, (N, labels), got a shape of "
                f"{tuple(targets.shape)} with values from {float(targets.min()):g} to {float(targets.max()):g}"
            )
        labels = math.prod(targets.shape[1:])
        return {**facts, "classes": labels, "outputs": labels}

    def guess(self, facts: Mapping[str, Any]) -> float | None:
        """That of even chances."""
        return math.log(2)


TASKS: dict[str, Task] = {
    task.name: task for task in (Classification(), Regression(), LanguageModelling(), MultiLabel())
}
"""Those that have a name."""


def as_task(task: str | Task) -> Task:
    """The task that is meant by a name, by a reference such as ``"tasks.py:Ordinal"``, or by a value.

    Raises:
        ValueError: an unknown name, or a reference that leads nowhere.
        TypeError: it leads to something that is no task.
    """
    if isinstance(task, str) and task in TASKS:
        return TASKS[task]
    if isinstance(task, str) and not is_reference(task):
        near = difflib.get_close_matches(task.lower(), TASKS, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InvalidValueError(
            f"task: unknown name {task!r}, known are {', '.join(TASKS)}, and file.py:YourTask for one of your own{hint}"
        )
    found: Any = load_object(task, "task") if isinstance(task, str) else task
    if callable(found) and not isinstance(found, Task):
        found = call_factory(found, "task", {})
    if not isinstance(found, Task) or not isinstance(getattr(found, "metric", None), Metric):
        lacks = "it has no metric, an analogsim.evaluation.Metric" if isinstance(found, Task) else "got " + repr(found)
        raise InvalidTypeError(f"task: {named(task)} must be a subclass of analogsim.recipes.tasks.task.Task; {lacks}")
    return found


def load_metric(metric: MetricLike) -> Metric:
    """The metric that is meant by a name, by a reference such as ``"scores.py:f1"``, or by a value.

    A reference may lead to a `Metric`, to a function of ``(output, target)``, to an object with update, compute and
    reset, such as torchmetrics', or to a class or function that makes one of them and needs nothing for it.

    Raises:
        ValueError: an unknown name, or a reference that leads nowhere.
        TypeError: it leads to something that is no metric.
    """
    if not isinstance(metric, str) or not is_reference(metric):
        if isinstance(metric, str) and metric not in METRICS:
            near = difflib.get_close_matches(metric.lower(), METRICS, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InvalidValueError(
                f"metric: unknown name {metric!r}, known are {', '.join(METRICS)}, and file.py:score for one of your "
                f"own{hint}"
            )
        return as_metric(metric)
    found = load_object(metric, "metric")
    if isinstance(found, type) or (callable(found) and not isinstance(found, Accumulator) and _needs_nothing(found)):
        found = call_factory(found, "metric", {})
    try:
        return as_metric(found)
    except (TypeError, ValueError) as error:
        raise InvalidTypeError(
            f"metric: {metric} must be a function of (output, target), an object with update, compute and reset, or a "
            f"Metric, got {type(found).__name__}"
        ) from error


def _needs_nothing(factory: Any) -> bool:
    """Whether it can be called without an argument, which a score cannot."""
    try:
        inspect.signature(factory).bind()
    except (TypeError, ValueError):
        return False
    return True


def task_for(train: Dataset[Any]) -> Task:
    """The task that samples look like: what their targets are, and whether they are their inputs moved by one place."""
    targets = targets_of(train)
    if targets is None:
        return TASKS["classification"]
    numbers = targets.is_floating_point() or targets.is_complex()
    tokens = _tokens(train)
    if targets.ndim > 1 and bool(((targets == 0) | (targets == 1)).all()):
        if numbers or targets.dtype is torch.bool:
            return TASKS["multi-label"]
        if targets.ndim == 2 and targets.shape[1] > 1 and tokens is None:
            return TASKS["multi-label"]
    if numbers:
        return TASKS["regression"]
    if targets.ndim == 2 and tokens is not None and torch.equal(tokens[1:], targets[0, :-1].to(tokens.dtype)):
        return TASKS["language-modelling"]
    return TASKS["classification"]


def _tokens(train: Dataset[Any]) -> Tensor | None:
    """The ids of the first sample, where its input is a row of them."""
    given, _ = next(_samples(train))
    return given if isinstance(given, Tensor) and _is_ids(given) and given.ndim == 1 else None


def targets_of(data: Dataset[Any]) -> Tensor | None:
    """The targets of all samples, ``(N, ...)``; None where samples are no pairs, or targets differ in shape."""
    return _seen(data)[1]


def _seen(data: Dataset[Any]) -> tuple[dict[str, object], Tensor | None]:
    """What inputs tell, and the targets; every sample is looked at, where the data do not keep targets apart."""
    if isinstance(data, TensorDataset):
        first = data.tensors[0]
        targets = data.tensors[1] if len(data.tensors) == 2 else None
        return _facts({tuple(first.shape[1:])}, int(first.max()) if _is_ids(first) and first.numel() else None), targets
    listed = getattr(data, "targets", None)  # as torchvision's data sets have them, without an image being decoded
    apart = listed is not None and hasattr(listed, "__len__") and len(listed) == len(cast(Any, data))
    rows, shapes, largest = [], set(), -1
    for given, target in _samples(data):
        rows.append(target)
        if isinstance(given, Tensor):
            shapes.add(tuple(given.shape))
            largest = max(largest, int(given.max()) if _is_ids(given) and given.numel() else -1)
        if apart:
            break
    return _facts(shapes, None if largest < 0 else largest), _stacked(list(cast(Any, listed)) if apart else rows)


def _facts(shapes: set[tuple[int, ...]], largest: int | None) -> dict[str, object]:
    shape: dict[str, object] = {"shape": next(iter(shapes))} if len(shapes) == 1 else {}
    return shape if largest is None else {**shape, "vocabulary": largest + 1}


def _is_ids(inputs: Tensor) -> bool:
    return inputs.dtype in _IDS


def _stacked(values: list[Any]) -> Tensor | None:
    try:
        rows = [torch.as_tensor(value) for value in values]
        return torch.stack(rows) if rows else None
    except (TypeError, ValueError, RuntimeError):  # no numbers, or of several shapes
        return None


def _samples(data: Dataset[Any]) -> Iterator[tuple[Any, Any]]:
    """Input and target of each sample; None for what is not to be found."""
    for index in range(len(cast(Any, data))):
        sample = data[index]
        if isinstance(sample, Mapping):
            label = next((sample[key] for key in ("labels", "label") if key in sample), None)
            yield sample.get("input_ids"), label
        elif isinstance(sample, tuple | list) and len(sample) == 2:
            yield sample[0], sample[1]
        else:
            yield None, None
