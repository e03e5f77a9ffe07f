"""What single layers cost: groups of them first, then the worst groups in halves, as far as there is time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from analogsim.errors import BypassedError
from analogsim.evaluation.operations import analog_macs, macs
from analogsim.recipes.judge.bench import Bench, NoTimeError, Part
from analogsim.recipes.judge.paired import Difference
from analogsim.recipes.judge.variant import Subject, Variant
from analogsim.utils.batches import Inputs


@dataclass(frozen=True)
class Cost:
    """What layers cost with all others digital.

    Args:
        layers: their names.
        loss: against the digital network; 0 without an error where they had no part in the answers.
        idle: whether they had none.
    """

    layers: tuple[str, ...]
    loss: Difference
    idle: bool = False

    @property
    def name(self) -> str:
        """The layer, or the first and the last of several."""
        first, last = (name or "(the model itself)" for name in (self.layers[0], self.layers[-1]))
        return first if len(self.layers) == 1 else f"{first} ... {last} ({len(self.layers)} layers)"


def shares_of(subject: Subject, inputs: Inputs) -> dict[str, float]:
    """The share of the network's multiply-accumulates that each analog layer has, in [0, 1].

    Args:
        subject: the network.
        inputs: an example.
    """
    args = () if isinstance(inputs, Mapping) else inputs if isinstance(inputs, tuple) else (inputs,)
    args = tuple(arg[:1] if isinstance(arg, Tensor) and len(args) == 1 else arg for arg in args)
    named = dict(inputs) if isinstance(inputs, Mapping) else {}
    total = sum(macs(subject.digital, *args, **named).values())
    counted = analog_macs(subject.analog, *args, **named)
    return {name: count / total if total else 0.0 for name, count in counted.items()}


def find_costs(
    bench: Bench, base: Variant, part: Part, chips: int, *, most: int, reserve: float
) -> tuple[list[Cost], bool]:
    """What each layer costs where there is time for all of them, or groups of layers, the worst ones cut finest.

    Args:
        bench: measures.
        base: what is done for the network.
        part: data and chips.
        chips: how many.
        most: measurements.
        reserve: seconds that have to be left.

    Returns:
        The costs in the order of the layers, and whether every one is of a single layer.
    """
    names = bench.subject.layers

    def cost(group: Sequence[str]) -> Cost:
        digital = tuple(name for name in names if name not in group)
        try:
            measured = bench.measure(base.with_digital(digital), part, chips, reserve=reserve)
        except BypassedError:
            return Cost(tuple(group), Difference(0.0, 0.0), idle=True)
        return Cost(tuple(group), measured.loss())

    return _split(names, cost, most)


def _split(names: Sequence[str], cost: Callable[[Sequence[str]], Cost], most: int) -> tuple[list[Cost], bool]:
    count = len(names) if len(names) <= most else max(min(8, most // 2), 2)
    edges = [round(index * len(names) / count) for index in range(count + 1)]
    order = itertools.count()
    heap: list[tuple[float, int, Cost]] = []
    done: list[Cost] = []
    left = most
    try:
        for start, end in itertools.pairwise(edges):
            found = cost(names[start:end])
            left -= 1
            heapq.heappush(heap, (-found.loss.mean, next(order), found))
        while heap and left >= 2:
            _, _, worst = heapq.heappop(heap)
            if len(worst.layers) == 1:
                done.append(worst)
                continue
            middle = (len(worst.layers) + 1) // 2
            try:
                halves = [cost(worst.layers[:middle]), cost(worst.layers[middle:])]
            except NoTimeError:
                done.append(worst)
                raise
            left -= 2
            for half in halves:
                heapq.heappush(heap, (-half.loss.mean, next(order), half))
    except NoTimeError:
        pass
    found_all = [*done, *(entry for _, _, entry in heap)]
    found_all.sort(key=lambda entry: names.index(entry.layers[0]))
    known = sum(len(entry.layers) for entry in found_all)
    return found_all, known == len(names) and all(len(entry.layers) == 1 for entry in found_all)


def by_harm(costs: Sequence[Cost], shares: Mapping[str, float]) -> list[str]:
    """Layers in the order in which they become digital: the largest loss per share of the work first.

    Args:
        costs: of layers or groups; the loss of a group is taken as shared alike by its layers.
        shares: of the work; empty where they are not known, and the largest loss comes first then.
    """
    weights = {}
    for cost in costs:
        for name in cost.layers:
            lost = max(cost.loss.mean, 0.0) / len(cost.layers)
            # A layer that needs hardly any work is not for that reason worth more than what it loses.
            weights[name] = lost / (shares.get(name, 0.0) + 0.01), -shares.get(name, 0.0)
    return sorted(weights, key=lambda name: weights[name], reverse=True)
