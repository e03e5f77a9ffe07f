"""What `prepare` tries, each a value in a table. Every compensation that has a name is one by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from analogsim.chip.compensation import COMPENSATIONS, Compensation, Compensations, Gain
from analogsim.evaluation.preparation.choice import INPUTS, OUTPUTS, Choice, set_from_data
from analogsim.layers.module import matrices_of
from analogsim.layers.state import AnalogState


@dataclass(frozen=True)
class Step:
    """Something that may help.

    Args:
        name: stands in tables.
        kind: of two steps of one kind only one is taken.
        price: of two that come to about the same, the cheaper is taken: 1 for what is set once, 2 for what is measured
            on each chip without data, 3 for data through each chip, 4 for a test of each cell, more for cells, and most
            for what stays digital.
        takes: of the hardware, in a few words.
        change: does it.
        why_not: why there is nothing for it to do in a network, in words; empty if there is.
        first: whether it is tried before others, since it mostly brings most and a short time shall be enough for it.
    """

    name: str
    kind: str
    price: int
    takes: str
    change: Callable[[Choice], Choice]
    why_not: Callable[[nn.Module], str]
    first: bool = False


# What compensations that are known take.
_TAKES = {
    "global": "a digital gain for each layer, measured on each chip at each age",
    "crossbar": "a digital gain for each crossbar, measured on each chip at each age",
    "column": "a digital gain for each column of each crossbar, measured on each chip at each age",
    "batch-norm": "digital statistics; inputs through each chip at each age",
    "ranges": "ranges of converters; inputs through each chip at each age",
    "affine": "a digital multiply-add and two numbers for each output; inputs through each chip at each age",
    "bias": "a digital addition and a number for each output; inputs through each chip at each age",
}
_OF_EACH_CHIP = "inputs through each chip at each age"


def find_steps(copies: int, *, faults: bool, digital: Sequence[tuple[str, ...]] = ()) -> list[Step]:
    """What there is to try, in the order in which it is tried.

    Args:
        copies: how many cells may hold one conductance.
        faults: whether faults are known.
        digital: the names of matrices that may stay digital, in groups of which one is taken.
    """
    searched = [
        Step(
            "percentile",
            "largest weight",
            1,
            "nothing: larger weights saturate",
            lambda choice: replace(choice, percentile=True),
            lambda analog: "every device acts on weights, not on cells" if not _on_cells(analog) else "",
        ),
        _ranging("input-range", INPUTS, "input converters with ranges set once"),
        _ranging("output-bound", OUTPUTS, "output converters with bounds set once"),
    ]
    return [
        *(_compensating(part) for part in COMPENSATIONS.values()),
        *([_around("remap", "lines"), _around("remap-signs", "signs")] if faults else []),
        *(_copying(count) for count in (2, 4, 8, 16) if count <= copies),
        *map(_keeping, digital),
        _calibrating_bounds(),
        *searched,  # which takes longest
    ]


def _states(analog: nn.Module) -> list[AnalogState]:
    return [matrix.analog for matrix in matrices_of(analog)]


def _on_cells(analog: nn.Module) -> bool:
    return any(not state.device.signed for state in _states(analog))


def _ranging(name: str, field: str, takes: str) -> Step:
    def why_not(analog: nn.Module) -> str:
        crossbars = [set_from_data(state.crossbar, [field]) for state in _states(analog)]
        if field == INPUTS:
            found = any(crossbar.needs_range and not crossbar.learns for crossbar in crossbars)
            return "" if found else "no input converter has a range that is left to data"
        return "" if any(crossbar.needs_bound for crossbar in crossbars) else "no output converter has a bound"

    return Step(name, name, 1, takes, lambda choice: replace(choice, ranges=choice.ranges | {field}), why_not)


def _calibrating_bounds() -> Step:
    """What a fixed bound cuts off is the largest loss that no compensation takes back, and the cheapest to mend."""
    searched = _ranging("output-bound", OUTPUTS, "")
    return Step(
        "output-bound-calibrated",
        "output-bound",
        1,
        "output converters with bounds set once",
        lambda choice: replace(choice, calibrated=choice.calibrated | {OUTPUTS}),
        searched.why_not,
        first=True,
    )


def _compensating(part: Compensation) -> Step:
    gain = isinstance(part, Gain)

    def change(choice: Choice) -> Choice:
        kept = [other for other in choice.compensations.parts if other.kind != part.kind]
        return replace(choice, compensations=Compensations((part, *kept) if gain else (*kept, part)))

    def why_not(analog: nn.Module) -> str:
        if gain and not any(state.device.drifts for state in _states(analog)):
            return "the device does not drift"
        if part.name == "crossbar" and all(len(state.layout.rows) == 1 for state in _states(analog)):
            return "every layer lies on one row of crossbars, which the global one is for"
        return part.why_not(analog)

    price = 3 if part.needs_data else 2
    takes = _TAKES.get(part.name, "" if gain else _OF_EACH_CHIP)
    return Step(part.name, part.kind, price, takes, change, why_not, first=part.name == "affine")


def _around(name: str, how: str) -> Step:
    what = "lines of each crossbar exchanged" + (", signs of outputs turned" if how == "signs" else "")
    return Step(
        name,
        "faults",
        4,
        f"a test of each chip; {what}",
        lambda choice: replace(choice, around=how),
        lambda analog: "" if _on_cells(analog) else "every device acts on weights, not on cells",
    )


def _keeping(names: tuple[str, ...]) -> Step:
    told = ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return Step(
        f"digital-{len(names)}",
        "digital",
        20,
        f"{told} digital",
        lambda choice: replace(choice, digital=frozenset(names)),
        lambda _: "",
        first=len(names) == 1,
    )


def _copying(count: int) -> Step:
    def why_not(analog: nn.Module) -> str:
        if not _on_cells(analog):
            return "every device acts on weights, not on cells"
        held = [state.device.laid.copies for state in _states(analog) if not state.device.signed]
        return "it is done already" if min(held) >= count else ""

    return Step(
        f"copies-{count}",
        "copies",
        4 + count,
        f"{count} cells for each conductance",
        lambda choice: replace(choice, copies=count),
        why_not,
    )
