"""A network of your own: a perceptron for measured numbers. It asks by name for what the data tell."""

from __future__ import annotations

from torch import nn


def build(shape: tuple[int, ...], classes: int, hidden: int = 32) -> nn.Module:
    """Two hidden layers.

    Args:
        shape: of one sample, ``(features,)``.
        classes: how many.
        hidden: units of each hidden layer.
    """
    (features,) = shape
    return nn.Sequential(
        nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, classes)
    )
