"""Networks asked batch by batch, and what their answers score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from analogsim.errors import NonFiniteError
from analogsim.evaluation.metrics import Accumulator, Metric, classes_axis
from analogsim.utils.batches import Data, Inputs, answer, call, loss_of
from analogsim.utils.nonfinite import Source, find_source

Ask = Callable[[nn.Module, Inputs], Tensor]
"""What is asked of a network: its answer, or its loss."""

Networks = Callable[[Inputs, Ask], Iterable[Tensor]]
"""Given inputs and how to ask, the answers of one network or of several."""


Find = Callable[[int, Inputs, Ask], tuple[str, Source]]
"""What one of the networks is called, by its place, and where the NaN or infinite values of its answer come from."""


@dataclass(frozen=True)
class Scores:
    """What networks score.

    Args:
        values: of each network.
        samples: number of samples.
        classes: number of classes in the answers; None where they are no class scores.
        masked: whether minus infinity stands in the answers, for classes that are out of the question.
    """

    values: list[float]
    samples: int
    classes: int | None
    masked: bool = False


def ask_alone(network: nn.Module) -> Networks:
    """One network by itself."""
    return lambda inputs, ask: [ask(network, inputs)]


def find_alone(network: nn.Module, title: str) -> Find:
    """Where the NaN and infinite values of one network's answer come from.

    Args:
        network: the one that is asked.
        title: what it is called.
    """
    return lambda place, inputs, ask: (title, find_source(network, inputs, lambda: ask(network, inputs)))


@torch.no_grad()
def score_networks(
    networks: Networks, data: Data, metric: Metric, find: Find | None = None, *, masked: bool | None = None
) -> Scores:
    """The score of each network over all samples.

    Args:
        networks: answer to a batch.
        data: the batches.
        metric: the score.
        find: says which network it is, and where its NaN and infinite values come from.
        masked: whether minus infinity may stand in the answers. None: where it comes from no layer's weights, but from
            what the network does with their answers, as masks do; ``find`` has to be there then.

    Raises:
        NonFiniteError: an answer or a score is NaN or infinite, and the metric does not say that it may be.
        TypeError: see `Metric`, `answer` and `loss_of`.
        ValueError: targets that the metric cannot take.
    """
    sums: list[Accumulator] = []
    samples, classes, seen = 0, None, False
    for number, (inputs, targets) in enumerate(data):
        ask = _asking(metric, targets)
        for place, output in enumerate(networks(inputs, ask)):
            if metric.finite and (output.is_floating_point() or output.is_complex()) and not output.isfinite().all():
                source = None if find is None else find(place, inputs, ask)
                wrong = _what_is_wrong(output, targets, metric, masked, source)
                if wrong:
                    raise NonFiniteError(_refusal(wrong, number, source))
                seen = True
            if place == len(sums):
                sums.append(metric.begin(data.device))
            sums[place].update(output, targets)
            classes = None if output.ndim < 2 else output.shape[classes_axis(output, targets)]
        samples += len(targets)
    return Scores([metric.result(each) for each in sums], samples, classes, seen)


def _what_is_wrong(
    output: Tensor, targets: Tensor, metric: Metric, masked: bool | None, source: tuple[str, Source] | None
) -> str:
    """What an answer holds that it must not; empty where it is a mask."""
    if bool(output.isnan().any()):
        return "NaN"
    if output.is_complex() or bool(output.isposinf().any()):
        return "infinite values"
    if metric.reads == "loss" or output.ndim < 2:
        return "minus infinity"
    if bool(output.isneginf().all(classes_axis(output, targets)).any()):
        return "minus infinity for all classes of a sample"
    if masked is None:
        return "minus infinity" if source is None or source[1].layer else ""
    return "" if masked else "minus infinity where the digital network has none"


def _refusal(wrong: str, number: int, source: tuple[str, Source] | None) -> str:
    title, found = ("a network", None) if source is None else source
    told = "" if found is None else f": {found}"
    return (
        f"evaluate: the answers of {title} to batch {number} hold {wrong}{told}. They would be judged all the same, a "
        "largest class is found in any numbers; analogsim.evaluation.Metric(..., finite=False) lets them through"
    )


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
