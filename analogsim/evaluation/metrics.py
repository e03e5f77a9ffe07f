"""Scores of a network's answers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Metric = Callable[[Tensor, Tensor], Tensor]

IGNORED = -100
"""The target that does not count, as torch's losses and Hugging Face's collators have it."""


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Share of right answers in each sample: whether the largest output is the target's.

    Args:
        output: ``(batch, classes, ...)``, or with the classes behind: ``(batch, ..., classes)``.
        target: class numbers ``(batch, ...)``; `IGNORED` ones do not count.
    """
    axis = classes_axis(output, target)
    if output.ndim < 2 or output.shape[axis] < 2 or (axis == -1 and target.shape != output.shape[:-1]):
        raise ValueError(
            "accuracy: needs outputs (batch, classes, ...) of two or more classes and class numbers (batch, ...), got "
            f"{tuple(output.shape)} and {tuple(target.shape)}; give evaluate(metric=...) a function for anything else"
        )
    return _per_sample(output.argmax(axis) == target, target)


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of each sample, with outputs taken as logits; shapes as in `accuracy`."""
    output = output.movedim(classes_axis(output, target), 1)
    losses = nn.functional.cross_entropy(output.float(), target, reduction="none", ignore_index=IGNORED)
    return _per_sample(losses, target)


def own_loss(output: Tensor, target: Tensor) -> Tensor:
    """The loss that the network works out by itself when it is given labels, as those of Hugging Face do."""
    raise TypeError("the metric 'loss' asks the network itself")


def classes_axis(output: Tensor, target: Tensor) -> int:
    """The axis of the classes: the second, or the last where the target has all others."""
    return 1 if target.shape == output.shape[:1] + output.shape[2:] else -1


def _per_sample(values: Tensor, target: Tensor) -> Tensor:
    counted = (target != IGNORED).flatten(1).float() if target.ndim > 1 else torch.ones_like(target[:, None]).float()
    return (values.reshape(counted.shape) * counted).sum(1) / counted.sum(1).clamp(min=1)


_METRICS: dict[str, Metric] = {"accuracy": accuracy, "cross_entropy": cross_entropy, "loss": own_loss}


def as_metric(metric: str | Metric) -> tuple[str, Metric]:
    """A metric's name and function.

    Raises:
        ValueError: a name that is none.
    """
    if callable(metric):
        return getattr(metric, "__name__", type(metric).__name__), metric
    if metric not in _METRICS:
        raise ValueError(f"evaluate: metric must be one of {', '.join(_METRICS)} or a function, got {metric!r}")
    return metric, _METRICS[metric]
