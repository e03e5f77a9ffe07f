"""Two tasks on which ways to train and to repair are compared in minutes: digits, and a part of Fashion-MNIST."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from analogsim.recipes.tasks.data_sets import load
from benchmarks.harness.ladder import narrow, small_mlp

TESTED = 2000
"""Samples in a batch of the test."""


@dataclass(frozen=True)
class Task:
    """What is trained.

    Args:
        data: its name.
        model: makes the network, of the shape of an image and the number of classes.
        epochs: passes.
        lr: of Adam, at first.
        limit: samples for training and validation; None: all.
        batch: samples of a step.
    """

    data: str
    model: Callable[[Any, int], nn.Module]
    epochs: int
    lr: float
    limit: int | None = None
    batch: int = 64


TASKS = {
    "digits": Task("digits", small_mlp, 40, 5e-3),
    "fashion": Task("fashion-mnist", narrow, 5, 7e-3, 30_000),
}


def batches_of(task: Task) -> tuple[Callable[[torch.Generator], Any], list[tuple[Tensor, Tensor]], Any]:
    """Shuffled batches of an epoch, the batches of the test, and what is known of the data."""
    data = load(task.data, limit=task.limit)
    shuffled = partial(data.batches, data.train, task.batch)
    return lambda generator: shuffled(generator=generator), list(data.batches(data.test, TESTED)), data.facts
