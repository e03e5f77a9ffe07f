"""Networks asked batch by batch, and what their answers score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from analogsim.evaluation.metrics import Accumulator, Metric, classes_axis
from analogsim.utils.batches import Data, Inputs, answer, call, loss_of

Ask = Callable[[nn.Module, Inputs], Tensor]
"""What is asked of a network: its answer, or its loss."""

Networks = Callable[[Inputs, Ask], Iterable[Tensor]]
"""Given inputs and how to ask, the answers of one network or of several."""


@dataclass(frozen=True)
class Scores:
    """What networks score.

    Args:
        values: of each network.
        samples: number of samples.
        classes: number of classes in the answers; None where they are no class scores.
    """

    values: list[float]
    samples: int
    classes: int | None


def ask_alone(network: nn.Module) -> Networks:
    """One network by itself."""
    return lambda inputs, ask: [ask(network, inputs)]


@torch.no_grad()
def score_networks(networks: Networks, data: Data, metric: Metric) -> Scores:
    """The score of each network over all samples.

    Raises:
        TypeError: see `Metric`, `answer` and `loss_of`.
    """
    sums: list[Accumulator] = []
    samples, classes = 0, None
    for inputs, targets in data:
        for place, output in enumerate(networks(inputs, _asking(metric, targets))):
            if place == len(sums):
                sums.append(metric.begin(data.device))
            sums[place].update(output, targets)
            classes = None if output.ndim < 2 else output.shape[classes_axis(output, targets)]
        samples += len(targets)
    return Scores([metric.result(each) for each in sums], samples, classes)


def _asking(metric: Metric, targets: Tensor) -> Ask:
    if metric.reads == "loss":
        return lambda model, inputs: loss_of(call(model, _with_labels(inputs, targets)))
    return lambda model, inputs: answer(call(model, inputs))


def _with_labels(inputs: Inputs, target: Tensor) -> Inputs:
    if not isinstance(inputs, Mapping):
        raise TypeError(
            "evaluate: the metric 'loss' hands labels to the network by name; give batches that are mappings with "
            f"'labels', got a pair of {type(inputs).__name__} and target"
        )
    return {**inputs, "labels": target}
