"""Remedies: what can be done for a trained network on a chip without training it again, each a value in a table.

Another remedy is one entry more in `REMEDIES`. Compensations that have a name (`analogsim.chip.COMPENSATIONS`) need
none: every one of them is a remedy. All that `analogsim.prepare` tries is among them; the choice is by the score here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from analogsim.chip.compensation import COMPENSATIONS, Compensation, Gain, as_compensations
from analogsim.crossbar.crossbar import Crossbar
from analogsim.errors import InvalidValueError
from analogsim.recipes.judge.variant import LARGEST, PERCENTILE, RANGES, Subject, Variant

DIGITAL = "digital:"
"""Before the names of layers that stay digital, joined by commas."""

_DONE = "it is done already"


@dataclass(frozen=True)
class Remedy:
    """Something that may help.

    Args:
        name: stands in tables and commands.
        kind: of two remedies of one kind only one can be taken.
        price: by which the cheaper of two is found: about 1 for numbers of the digital part, 2 for what is set once
            from data, 3 for what is measured on each chip, 4 and more for cells and energy.
        what: it costs what, in a few words.
        apply: does it.
        why_not: why it cannot be done for a network, or has been, in words; empty if it can.
    """

    name: str
    kind: str
    price: float
    what: str
    apply: Callable[[Variant, Subject], Variant]
    why_not: Callable[[Variant, Subject], str]

    def applied(self, variant: Variant, subject: Subject) -> Variant:
        """What is done, with this too."""
        return replace(self.apply(variant, subject), remedies=(*variant.remedies, self.name))


def _compensating(part: Compensation) -> Remedy:
    """A compensation that has a name."""
    gain = isinstance(part, Gain)

    def apply(variant: Variant, subject: Subject) -> Variant:
        kept = [each.name for each in as_compensations(variant.compensation).parts if each.kind != part.kind]
        return replace(variant, compensation="+".join([part.name, *kept] if gain else [*kept, part.name]))

    def why_not(variant: Variant, subject: Subject) -> str:
        if part.name in as_compensations(variant.compensation).names:
            return _DONE
        if part.needs_data and not subject.calibration:
            return "it needs data: give calibration=, a loader of inputs"
        if gain and not any(state.device.drifts for state in subject.states.values()):
            return "the device does not drift"
        if part.name == "crossbar" and all(len(state.layout.rows) == 1 for state in subject.states.values()):
            return "every layer lies on one row of crossbars, which the global one is for"
        # Crossbars may be changed by other remedies first.
        return part.why_not(subject.analog) if not variant.crossbar else ""

    return Remedy(
        part.name,
        part.kind,
        (0.5 if part.name == "global" else 1.0) if gain else 3.0,
        "a digital gain, measured as the chip drifts" if gain else "inputs that go through each chip at each age",
        apply,
        why_not,
    )


def _no_gain(variant: Variant, subject: Subject) -> Variant:
    return replace(variant, compensation=as_compensations(variant.compensation).without_gain().text)


def _has_gain(variant: Variant, subject: Subject) -> str:
    return "" if as_compensations(variant.compensation).gain else "there is none"


def _ranging(name: str, price: float, percentile: float, **changes: Any) -> Remedy:
    """Ranges of converters set by data."""

    def apply(variant: Variant, subject: Subject) -> Variant:
        return replace(variant.with_crossbar(**changes), percentile=percentile)

    def why_not(variant: Variant, subject: Subject) -> str:
        crossbars = [state.crossbar for state in subject.states.values()]
        if reason := _no_range(crossbars, changes):
            return reason
        same = all(getattr(crossbar, key) == value for crossbar in crossbars for key, value in changes.items())
        if same and percentile == variant.percentile:
            return _DONE
        return "" if subject.calibration else "it needs data: give calibration=, a loader of inputs"

    return Remedy(name, "ranges", price, "set once, from inputs", apply, why_not)


def _no_range(crossbars: Sequence[Crossbar], wanted: Collection[str]) -> str:
    """Why there is no range of these kinds to be set, in words."""
    if not any(crossbar.converts for crossbar in crossbars):
        return "the crossbars have no converters"
    if "input_range" in wanted and all(one.dac_bits is None and not one.output_noise for one in crossbars):
        return "no input converter has a range"
    if "input_range" in wanted and any(crossbar.learns for crossbar in crossbars):
        return "the input ranges are learned"
    if "output_bound" in wanted and all(crossbar.output_bound is None for crossbar in crossbars):
        return "no output converter has a bound"
    return ""


def _mapped(name: str, kind: str, price: float, what: str, **changes: Any) -> Remedy:
    """Weights laid on cells in another way."""

    def apply(variant: Variant, subject: Subject) -> Variant:
        return variant.with_mapping(**changes)

    def why_not(variant: Variant, subject: Subject) -> str:
        devices = [state.device for state in subject.states.values()]
        if any(device.signed for device in devices):
            return "the device acts on weights, not on cells"
        if all(getattr(device.laid, key) == value for device in devices for key, value in changes.items()):
            return _DONE
        return ""

    return Remedy(name, kind, price, what, apply, why_not)


def _searching_ranges(name: str, price: float, **changes: Any) -> Remedy:
    """Ranges of converters set by data, and each layer's moved to where its outputs are best."""
    plain = _ranging(name, price, PERCENTILE, **changes)

    def why_not(variant: Variant, subject: Subject) -> str:
        reason = plain.why_not(variant, subject)
        return "" if reason == _DONE and RANGES not in variant.searched and subject.calibration else reason

    return replace(
        plain,
        what="set once, each by the error of its layer on inputs",
        apply=lambda variant, subject: plain.apply(variant, subject).with_search(RANGES),
        why_not=why_not,
    )


def _search_largest(variant: Variant, subject: Subject) -> Variant:
    return variant.with_search(LARGEST)


def _no_largest(variant: Variant, subject: Subject) -> str:
    if all(state.device.signed for state in subject.states.values()):
        return "the device acts on weights, not on cells"
    if LARGEST in variant.searched:
        return _DONE
    return "" if subject.calibration else "it needs data: give calibration=, a loader of inputs"


def _around(variant: Variant, subject: Subject) -> Variant:
    return replace(variant, laid_around=True)


def _no_faults(variant: Variant, subject: Subject) -> str:
    stuck = subject.stuck()
    if not stuck:
        return "the device has no stuck cells"
    return "several effects make cells stick" if len(stuck) > 1 else ""


def _kept(name: str, find: Callable[[Subject], tuple[str, ...]], missing: str) -> Remedy:
    """Layers that stay digital, found by what they are."""

    def apply(variant: Variant, subject: Subject) -> Variant:
        return variant.with_digital(find(subject))

    def why_not(variant: Variant, subject: Subject) -> str:
        found = find(subject)
        if not found:
            return missing
        return "nothing else is analog" if set(found) >= set(subject.layers) - set(variant.digital) else ""

    return Remedy(name, "layers", 10.0, "digital products", apply, why_not)


def depthwise(subject: Subject) -> tuple[str, ...]:
    """The depthwise convolutions: each channel has a filter of its own."""
    modules: Mapping[str, nn.Module] = dict(subject.digital.named_modules())
    found = []
    for name in subject.layers:
        module = modules.get(name)
        groups = getattr(module, "groups", 1)
        if isinstance(groups, int) and groups > 1 and groups == getattr(module, "in_channels", 0):
            found.append(name)
    return tuple(found)


def _first(subject: Subject) -> tuple[str, ...]:
    return subject.layers[:1]


def _last(subject: Subject) -> tuple[str, ...]:
    return subject.layers[-1:]


def keep_digital(layers: Iterable[str]) -> Remedy:
    """These layers digital, under their names."""
    names = tuple(layers)
    return replace(_kept(f"{DIGITAL}{','.join(names)}", lambda subject: names, ""), kind="layers")


REMEDIES: tuple[Remedy, ...] = (
    Remedy("no-gain", "gain", 0.0, "nothing", _no_gain, _has_gain),
    _ranging("input-range", 2.0, 99.99, input_range="calibrated"),
    _ranging("input-range-99.9", 2.0, 99.9, input_range="calibrated"),
    _ranging("input-range-99", 2.0, 99.0, input_range="calibrated"),
    _ranging("output-bound", 2.0, 99.99, output_bound="calibrated"),
    _ranging("input-range-output-bound", 2.1, 99.99, input_range="calibrated", output_bound="calibrated"),
    _ranging("input-range-output-bound-99.9", 2.1, 99.9, input_range="calibrated", output_bound="calibrated"),
    _searching_ranges("search-output-bound", 2.2, output_bound="calibrated"),
    _searching_ranges("search-ranges", 2.3, input_range="calibrated", output_bound="calibrated"),
    _mapped("scale-per-column", "scale", 1.0, "a digital factor for each column", scale="column"),
    _mapped("largest-weight-99.5", "largest weight", 1.1, "nothing: larger weights saturate", percentile=99.5),
    _mapped("largest-weight-97", "largest weight", 1.1, "nothing: larger weights saturate", percentile=97.0),
    Remedy(
        "search-largest-weight",
        "largest weight",
        1.2,
        "nothing: larger weights saturate, in each layer as far as its error gets less on inputs",
        _search_largest,
        _no_largest,
    ),
    Remedy("remap", "faults", 4.0, "a test of each chip; lines are exchanged", _around, _no_faults),
    _mapped("copies-2", "copies", 6.0, "twice the cells", copies=2),
    _mapped("copies-4", "copies", 8.0, "four times the cells", copies=4),
    _kept("digital-first", _first, ""),
    _kept("digital-last", _last, ""),
    _kept("digital-first-last", lambda subject: tuple(dict.fromkeys((*_first(subject), *_last(subject)))), ""),
    _kept("digital-depthwise", depthwise, "the network has no depthwise convolution"),
)


def all_remedies() -> dict[str, Remedy]:
    """Every remedy by its name, in the order in which they are tried."""
    named = {name: _compensating(part) for name, part in COMPENSATIONS.items()}
    gains = {name: remedy for name, remedy in named.items() if remedy.kind == "gain"}
    rest = {name: remedy for name, remedy in named.items() if remedy.kind != "gain"}
    return {**gains, **rest, **{remedy.name: remedy for remedy in REMEDIES}}


def read_remedies(text: str, subject: Subject) -> list[Remedy]:
    """The remedies that a text names, joined by ``+``.

    Raises:
        ValueError: an unknown remedy or layer.
    """
    known, found = all_remedies(), []
    for word in text.split("+"):
        if word.startswith(DIGITAL):
            layers = word.removeprefix(DIGITAL).split(",")
            for layer in layers:
                if layer not in subject.states:
                    raise InvalidValueError(
                        f"judge: {layer!r} is no analog layer; there are {', '.join(subject.layers)}"
                    )
            found.append(keep_digital(layers))
        elif word in known:
            found.append(known[word])
        else:
            near = difflib.get_close_matches(word, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InvalidValueError(
                f"judge: there is no remedy {word!r}{hint}; known are {', '.join(known)}, {DIGITAL}LAYERS"
            )
    return found


def combine(remedies: Iterable[Remedy], start: Variant, subject: Subject) -> Variant:
    """All of them, what changes the hardware first, so that compensations find it as it will be.

    Raises:
        ValueError: one cannot be done.
    """
    variant = start
    for remedy in sorted(remedies, key=lambda each: each.name in COMPENSATIONS):
        if reason := remedy.why_not(variant, subject):
            raise InvalidValueError(f"judge: remedy {remedy.name!r}: {reason}")
        variant = remedy.applied(variant, subject)
    return variant
