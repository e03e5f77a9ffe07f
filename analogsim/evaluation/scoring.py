"""Networks asked batch by batch, and what their answers score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from analogsim.errors import InvalidTypeError, InvalidValueError, NonFiniteError
from analogsim.evaluation.display import FloatArray
from analogsim.evaluation.metrics import Accumulator, Metric
from analogsim.evaluation.scores import classes_axis
from analogsim.utils.batches import Inputs, answer, call, describe, loss_of, samples_in
from analogsim.utils.nonfinite import Source, find_source
from analogsim.utils.tensors import numbers_in

Ask = Callable[[nn.Module, Inputs], Any]
"""What is asked of a network: its answer, its loss, or all that it returns."""

Networks = Callable[[Inputs, Ask], Iterable[Any]]
"""Given inputs and how to ask, the answers of one network or of several."""


Find = Callable[[int, Inputs, Ask], tuple[str, Source]]
"""What one of the networks is called, by its place, and where the NaN or infinite values of its answer come from."""


class Batches(Protocol):
    """What networks are asked: `Data`, or part of it."""

    device: torch.device

    def __iter__(self) -> Iterator[tuple[Inputs, Any]]:
        """Inputs and targets, batch by batch."""


@dataclass(frozen=True)
class Scores:
    """What networks score.

    Args:
        values: of each network.
        samples: number of samples.
        classes: number of classes in the answers; None where they are no class scores.
        masked: whether minus infinity stands in the answers, for classes that are out of the question.
        details: what the metric keeps of each network beside its score, see `analogsim.evaluation.metrics.Detailed`;
            empty where it keeps nothing.
    """

    values: list[float]
    samples: int
    classes: int | None
    masked: bool = False
    details: tuple[FloatArray, ...] = ()


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
    networks: Networks, data: Batches, metric: Metric, find: Find | None = None, *, masked: bool | None = None
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
        ValueError: targets that the metric cannot take, or answers to some of the samples only.
    """
    sums: list[Accumulator] = []
    samples, classes, seen = 0, None, False
    for number, (inputs, targets) in enumerate(data):
        ask = _asking(metric, targets)
        for place, output in enumerate(networks(inputs, ask)):
            _check_count(output, targets, number)
            if metric.finite and not all(bool(part.isfinite().all()) for part in numbers_in(output)):
                source = None if find is None else find(place, inputs, ask)
                wrong = _what_is_wrong(output, targets, metric, masked, source)
                if wrong:
                    raise NonFiniteError(_refusal(wrong, number, source))
                seen = True
            if place == len(sums):
                sums.append(metric.begin(data.device))
            metric.add(sums[place], output, targets)
            classes = _classes(output, targets)
        samples += samples_in(inputs, targets)
    values = [metric.result(each) for each in sums]
    kept = [metric.details(each) for each in sums]
    return Scores(values, samples, classes, seen, tuple(each for each in kept if each is not None))


def _classes(output: Any, targets: Any) -> int | None:
    """The number of classes that an answer scores, if it does so."""
    if not (isinstance(output, Tensor) and isinstance(targets, Tensor)) or output.ndim < 2:
        return None
    return output.shape[classes_axis(output, targets)]


def _check_count(output: Any, targets: Any, number: int) -> None:
    """Raise ValueError if texts or mappings, one for each sample, are not as many as targets of the same kind."""
    both = isinstance(output, tuple | list) and isinstance(targets, tuple | list) and len(output) != len(targets)
    if both and all(isinstance(each, str | Mapping) for each in (*output, *targets)):
        raise InvalidValueError(
            f"evaluate: the network answers to batch {number} with {describe(output)}, and its target is "
            f"{describe(targets)}; it must answer to every sample"
        )


def _what_is_wrong(
    output: Any, targets: Any, metric: Metric, masked: bool | None, source: tuple[str, Source] | None
) -> str:
    """What an answer holds that it must not; empty where it is a mask."""
    parts = list(numbers_in(output))
    if any(bool(part.isnan().any()) for part in parts):
        return "NaN"
    if any(part.is_complex() or bool(part.isposinf().any()) for part in parts):
        return "infinite values"
    if isinstance(output, Tensor):
        if metric.reads == "loss" or output.ndim < 2:
            return "minus infinity"
        axis = classes_axis(output, targets) if isinstance(targets, Tensor) else 1
        if bool(output.isneginf().all(axis).any()):
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


def _asking(metric: Metric, targets: Any) -> Ask:
    if metric.reads == "loss":
        return lambda model, inputs: loss_of(call(model, _with_labels(inputs, targets)))
    if metric.reads == "output":
        return call
    return lambda model, inputs: answer(call(model, inputs))


def _with_labels(inputs: Inputs, target: Any) -> Inputs:
    if not isinstance(inputs, Mapping):
        raise InvalidTypeError(
            "evaluate: the metric 'loss' hands labels to the network by name; give batches that are mappings with "
            f"'labels', got a pair of {type(inputs).__name__} and target"
        )
    return {**inputs, "labels": target}
