"""How many samples and chips each measurement of a judgement gets, so that all of them fit into the time there is."""

from __future__ import annotations

from dataclasses import dataclass

from analogsim.recipes.judge.clock import Clock

_LEAST_SAMPLES = 16
_MOST_LAYERS = 40
_SPENT = 0.75  # of the budget is planned; the rest is for what costs more than the network as it is


@dataclass(frozen=True)
class Sizes:
    """The size of every kind of measurement.

    Args:
        samples: of test and of validation data each, at most.
        final: chips on test data, as the network is and with what is recommended.
        tried: chips on which remedies are tried.
        layers: chips for each layer.
        parts: chips for each non-ideality.
        groups: how many layers or groups of them are measured.
    """

    samples: int
    final: int
    tried: int
    layers: int
    parts: int
    groups: int


def plan(clock: Clock, *, times: int, remedies: int, layers: int, available: int) -> Sizes:
    """The sizes for a budget.

    With few seconds for each visit of a chip the samples become fewer, down to 16, as far as that saves time, and there
    are two chips; with many there are more of them.

    Args:
        clock: the budget, and what a visit costs.
        times: at which a chip is visited on test data.
        remedies: that are tried.
        layers: of the network.
        available: samples that there are.
    """
    budget = _SPENT * max(clock.left, 0.0)
    groups = min(layers, 12)
    # Two final measurements, every remedy and a dozen combinations of them, groups of layers, non-idealities.
    visits = 2 * 3 * times + 3 * (remedies + 12) + 3 * groups + 3 * 9
    # Where writing a chip takes longer than asking it, fewer samples would hardly save any time.
    worth = int(clock.fixed / clock.per_sample) if clock.per_sample else 0
    samples = min(max(clock.samples_for(budget / visits), worth, _LEAST_SAMPLES), available)
    if clock.estimate(samples, visits) > budget or samples < available:
        chips = 3 if clock.estimate(samples, visits) <= 1.2 * budget else 2
        return Sizes(samples, 3, chips, chips, chips, groups)
    more = budget / max(clock.estimate(available, visits), 1e-9)
    return Sizes(
        samples=available,
        final=_between(3 * more, 3, 25),
        tried=_between(3 * more, 3, 10),
        layers=_between(3 * more, 3, 8),
        parts=_between(3 * more, 3, 10),
        groups=_between(groups * more, groups, min(layers, _MOST_LAYERS)),
    )


def _between(value: float, least: int, most: int) -> int:
    return int(min(max(value, least), most))
