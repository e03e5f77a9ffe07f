"""The plan of a judgement: what is measured in which order, within the time there is.

The most important answers come first, so that a short budget still gives them: what the network scores on chips, what
that comes from, what remedies bring, which layers cost most, what to do, and whether that holds on data and chips that
had no part in the choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from analogsim.errors import WorkerError
from analogsim.evaluation.ablation import ALL
from analogsim.evaluation.display import deviation, number
from analogsim.evaluation.scores import IGNORED
from analogsim.recipes.judge.advice import (
    rows_of_remedies,
    say_no_remedy,
    say_nothing_to_do,
    say_recommended,
)
from analogsim.recipes.judge.bench import Bench, Measured, NoTimeError, Part
from analogsim.recipes.judge.findings import CHEAP, Findings, Tried, is_better
from analogsim.recipes.judge.judgement import NO_REMEDY, NOTHING_TO_DO, OPEN, RECOMMENDED, Judgement, Row
from analogsim.recipes.judge.layers import Cost, by_harm, find_costs, shares_of
from analogsim.recipes.judge.remedies import Remedy, all_remedies, combine, keep_digital
from analogsim.recipes.judge.samples import Samples
from analogsim.recipes.judge.sizes import Sizes
from analogsim.recipes.judge.variant import Variant

T = TypeVar("T")

CAN_FAIL = (ValueError, TypeError, RuntimeError, NotImplementedError, ArithmeticError)
"""What a remedy may raise where it cannot be done; anything else is a bug."""

_NO_TIME = "no time was left"
_MOST_CHIPS = 25
_SMALL = 0.003  # of what there is to lose, which is not worth a remedy


@dataclass(eq=False)
class Plan:
    """A judgement as it is made.

    Args:
        bench: measures.
        base: what is done for the network as it is.
        test: data and chips that the answer is given on, all times.
        choice: data and chips that it is chosen on, at the time by which the network is judged.
        sizes: of measurements.
        found: what is known so far.
        only: the names of the remedies that are tried; None for all.
        tell: told what is being done.
        show: given every judgement as far as it has come.
    """

    bench: Bench
    base: Variant
    test: Part
    choice: Part
    sizes: Sizes
    found: Findings
    only: Sequence[str] | None = None
    tell: Callable[[str], None] = lambda _: None
    show: Callable[[Judgement], None] = lambda _: None

    def __post_init__(self) -> None:
        self._costs: list[Cost] = []

    # What is asked of measurements.

    @property
    def _reserve(self) -> float:
        """Seconds for the last measurement, which a recommendation needs."""
        return self.bench.clock.estimate(len(self.test.samples), min(self.sizes.final, 3) * len(self.test.times))

    @property
    def _left(self) -> float:
        """Seconds for all else."""
        return self.bench.clock.left - self._reserve

    def _measure(self, variant: Variant, chips: int) -> Measured:
        return self.bench.measure(variant, self.choice, chips, reserve=self._reserve)

    def _attempt(self, name: str, work: Callable[[], T]) -> T | None:
        """Something that may fail, or for which there may be no time; it is told why then, and None comes of it."""
        try:
            return work()
        except NoTimeError:
            self.found.untried[name] = _NO_TIME
        except WorkerError:  # nothing else can be measured either
            raise
        except CAN_FAIL as error:
            self.found.untried[name] = _told(error)
        return None

    # The steps.

    def run(self) -> Judgement:
        """All of it."""
        self._begin()
        self._show()
        if not self._worth_it():
            if not self.found.knows_nothing():
                self._find_parts()
            verdict = OPEN if self.found.seems_to_lose() else NOTHING_TO_DO
            return self.judgement(verdict, say_nothing_to_do(self.found))
        self._find_parts()
        self._find_shares()
        self._show()
        self._try_each()
        best = self._combine()
        self._show()
        self._find_layers(best)
        self._show()
        if self.found.needs_more(best):
            self._try_digital(best)
        return self._confirm(self._pruned(self._choose()))

    def run_given(self, variant: Variant, remedies: Sequence[Remedy]) -> Judgement:
        """Remedies that are given, beside the network as it is, on test data."""
        self._begin()
        self._find_shares()
        judged = self._confirm(Tried(tuple(remedies), variant, self.found.start, 0.0))
        return judged.replace(python=self.bench.subject.code(variant))

    def _show(self) -> None:
        self.show(self.judgement(OPEN, "It was not finished."))

    def _begin(self) -> None:
        self.tell("the network as it is")
        clock, part = self.bench.clock, self.test
        chips, kept = self.sizes.final, self.bench.kept(self.base, part)
        while chips > max(2, kept) and clock.estimate(len(part.samples), chips * len(part.times)) > 0.4 * clock.left:
            chips -= 1
        try:
            self.found.asis = self.bench.measure(self.base, part, chips)
        except NoTimeError:  # the one answer that is given whatever it takes
            self.found.asis = self.bench.ask(self.base, part, range(part.first, part.first + chips))
        chance = self.found.asis.report.chance
        better = max if self.bench.metric.higher_is_better else min
        guesses = [*self._guessed(), *_most_frequent(self.bench.metric.name, part.samples)]
        self.found.guess = better([*guesses, *([] if chance is None else [chance])], default=None)
        try:
            self.found.start = self._measure(self.base, self.sizes.tried)
        except NoTimeError:
            self.found.notes.append("There was no time to try anything: give more --minutes.")

    def _guessed(self) -> list[float]:
        """What is scored without knowing anything of a sample: by answers to others, and by one answer to all."""
        samples, found = self.test.samples, []
        mixed = samples.exchanged()
        with suppress(*CAN_FAIL):  # a metric may not take what does not belong together
            if mixed is not None:
                found.append(self.bench.score_clean(mixed)[0])
        with suppress(*CAN_FAIL):
            found.append(self.bench.score_constant(samples))
        return found

    def _worth_it(self) -> bool:
        """Whether anything that there is time to see is lost at any time."""
        found = self.found
        if found.knows_nothing():
            return False
        losses = {at: found.asis.loss(at) for at in range(len(found.asis.report.times))}
        # One of five times is beyond 95 % by chance every fourth time.
        sure = {at: 0.95 if at == found.where else 0.99 for at in losses}
        return any(loss.mean > _SMALL * found.span and loss.beyond(sure[at]) for at, loss in losses.items())

    def _find_parts(self) -> None:
        self.tell("what costs most")
        clock, count = self.bench.clock, len(self.choice.samples)
        chips, name = self.sizes.parts, "the parts of the hardware, one by one"
        kept = self.bench.kept(self.base, self.choice, parts=True)
        while chips > max(2, kept) and clock.estimate(count, 9 * chips) > 0.25 * self._left:
            chips -= 1
        if chips > kept and clock.estimate(count, 9 * chips) > 0.5 * self._left:
            self.found.untried[name] = _NO_TIME
            return
        ablation = self._attempt(name, lambda: self.bench.ablate(self.base, self.choice, chips))
        if ablation is None:
            return
        rows = []
        for part, report in ablation.reports.items():
            if part != ALL:
                gain, spread = (float(value) for value in ablation.gain(part)[:, -1])
                std, beyond = deviation(report.values[:, -1]), abs(gain) > 2 * spread
                rows.append(Row(part, float(report.mean[-1]), std, gain, spread, beyond, "", chips))
        self.found.parts = tuple(sorted(rows, key=lambda row: -row.gain))

    def _try_each(self) -> None:
        if not self.found.can_choose:
            return
        self._note((), self.base, self.found.start)
        for remedy in all_remedies().values():
            if self.only is None or remedy.name in self.only:
                self._try((remedy,))

    def _try(self, remedies: tuple[Remedy, ...]) -> Tried | None:
        """Measure remedies together; None, and a word why, where that cannot be."""
        name = "+".join(remedy.name for remedy in remedies)
        try:
            variant = combine(remedies, self.base, self.bench.subject)
        except ValueError as error:
            if len(remedies) == 1:
                self.found.untried[name] = str(error).partition(f"{remedies[0].name!r}: ")[2] or str(error)
            return None
        known = next((each for each in self.found.tried if each.variant.effect == variant.effect), None)
        if known is not None:
            return known
        self.tell(f"remedy {variant.name}")
        measured = self._attempt(variant.name, lambda: self._measure(variant, self.sizes.tried))
        return None if measured is None else self._note(remedies, variant, measured)

    def _note(self, remedies: tuple[Remedy, ...], variant: Variant, measured: Measured) -> Tried:
        noted = Tried(remedies, variant, measured, sum(each.price for each in remedies) + self._digital_price(variant))
        self.found.tried.append(noted)
        return noted

    def _digital_price(self, variant: Variant) -> float:
        if not variant.digital:
            return 0.0
        every = len(self.bench.subject.layers)
        return 200 * sum(self.found.shares.get(name, 1 / every) for name in variant.digital)

    def _combine(self) -> Tried | None:
        """Cheap remedies, one after the other on top of the best, as long as that gets better beyond its error."""
        tried = self.found.tried
        if not tried:
            return None
        singles = [each for each in tried if each.remedies and each.price <= CHEAP]
        singles.sort(key=lambda each: -each.measured.over(self.found.start).mean)
        best = tried[0]
        if singles and is_better(singles[0].measured, best.measured):
            best = singles[0]
        while True:
            improved = self._improved(best, singles)
            if improved is None:
                return best
            best = improved

    def _improved(self, best: Tried, singles: Iterable[Tried]) -> Tried | None:
        """The best with one remedy more, or with another one of its kind."""
        remains = best.loss > self.found.allowed
        for single in singles:
            (remedy,) = single.remedies
            if remedy in best.remedies:
                continue
            helps = single.measured.over(self.found.start)
            # What does not help alone may do so once another has taken the worst away.
            if helps.mean <= 0 and not (remains and len(best.remedies) < 3):
                continue
            kept = tuple(each for each in best.remedies if each.kind != remedy.kind)
            with_it = self._try((*kept, remedy)) if kept else None
            if with_it is not None and is_better(with_it.measured, best.measured):
                return with_it
        return None

    def _find_layers(self, best: Tried | None) -> None:
        layers = self.bench.subject.layers
        if best is None or len(layers) < 2:
            return
        self.tell("layer by layer")
        chips, name, most = self.sizes.layers, "layer by layer", self._groups_in_time(best.variant)
        if most < 2:
            self.found.untried[name] = _NO_TIME
            return
        costs = self._attempt(
            name,
            lambda: find_costs(self.bench, best.variant, self.choice, chips, most=most, reserve=self._reserve),
        )
        if costs is None:
            return
        self._costs, whole = costs
        self.found.layers = tuple(self._row_of(cost, best.variant) for cost in self._costs)
        notes = self.found.notes
        if best.remedies:
            notes.append(f"Layers were taken one by one with {best.variant.name}.")
        if not whole:
            notes.append("Layers were taken in groups, of which the worst were cut finest, as far as there was time.")
        idle = [name for cost in self._costs if cost.idle for name in cost.layers]
        if idle:
            notes.append(f"Without a part in the answers, so that nothing is known of them: {', '.join(idle)}.")

    def _groups_in_time(self, base: Variant) -> int:
        """How many groups of layers half of the time is enough for; those that are known already take none."""
        layers, chips = self.bench.subject.layers, self.sizes.layers
        each = self.bench.clock.estimate(len(self.choice.samples), chips)
        alone = [base.with_digital(tuple(other for other in layers if other != layer)) for layer in layers]
        free = sum(self.bench.kept(variant, self.choice) >= chips for variant in alone)
        return min(max(int(0.5 * self._left / max(each, 1e-9)), 0) + free, max(self.sizes.groups, 2))

    def _find_shares(self) -> None:
        try:
            self.found.shares = shares_of(self.bench.subject, next(iter(self.choice.samples))[0])
        except CAN_FAIL as error:
            self.found.notes.append(f"The work of the layers could not be counted: {_told(error)}.")

    def _row_of(self, cost: Cost, base: Variant) -> Row:
        told = f"{self.found.share(cost.layers):.1%}" if self.found.shares else ""
        digital = tuple(name for name in self.bench.subject.layers if name not in cost.layers)
        known = self.bench.known(base.with_digital(digital), self.choice)
        score, std = self.found.start.report.clean, float("nan")
        if known is not None and not cost.idle:
            score, std = known.score(), deviation(known.report.values[:, -1])
        count = 0 if known is None else len(known.rows)
        return Row(cost.name, score, std, cost.loss.mean, cost.loss.error, cost.loss.beyond(), told, count)

    def _try_digital(self, best: Tried | None) -> None:
        """Cells and digital products, for what cheap remedies leave: as few layers as reach the tolerance."""
        if best is None:
            return
        for remedy in all_remedies().values():
            if remedy.price > CHEAP and best.remedies and (self.only is None or remedy.name in self.only):
                self._try((*best.remedies, remedy))
        if self.only is not None or len(self.bench.subject.layers) < 2:
            return
        order = by_harm(self._costs, self.found.shares) if self._costs else list(self.bench.subject.layers)
        low, high, count = 0, len(order), 1
        while low + 1 < high:
            with_them = self._try((*best.remedies, keep_digital(order[:count])))
            if with_them is None:
                break
            low, high = (low, count) if with_them.loss <= self.found.allowed else (count, high)
            doubled = high == len(order)
            count = min(2 * count, len(order) - 1) if doubled else (low + high) // 2

    def _choose(self) -> Tried | None:
        if not self.found.tried:
            return None
        self._look_again(self.found.tried)
        most = max(len(each.measured.rows) for each in self.found.tried)
        while True:  # each turn another one has been on all these chips
            chosen = self.found.chosen()
            again = self._as_often(chosen, most)
            if again is chosen:
                return chosen

    def _as_often(self, tried: Tried, chips: int) -> Tried:
        """It on so many chips as what it is compared with, or as it is where it was, or where no time is left for that.

        Of few chips nearly everything is within the error of the best, so that the cheapest of all would be taken.
        """
        if len(tried.measured.rows) >= chips:
            return tried
        try:
            measured = self._measure(tried.variant, chips)
        except NoTimeError:
            return tried
        place = self.found.tried.index(tried)
        self.found.tried[place] = again = replace(tried, measured=measured)
        return again

    def _look_again(self, tried: Sequence[Tried]) -> None:
        """More chips for those that may be the best."""
        start = self.found.start
        best = max(tried, key=lambda each: each.measured.over(start).mean).measured
        near = [each for each in tried if best.over(each.measured).mean <= 2 * best.over(each.measured).error]
        near.sort(key=lambda each: -each.measured.over(start).mean)
        again = [tried[0], *(each for each in near[:4] if each is not tried[0])]
        more, bench = 3 * self.sizes.tried, self.bench

        def takes(chips: int) -> float:
            return sum(bench.estimate(each.variant, self.choice, chips) for each in again)

        while more > self.sizes.tried and takes(more) > max(0.5 * self._left, 0.0):
            more -= 1
        for each in again:
            try:
                measured = self._measure(each.variant, more)
            except NoTimeError:
                return
            place = self.found.tried.index(each)
            self.found.tried[place] = replace(each, measured=measured)
            if place == 0:
                self.found.start = measured

    def _pruned(self, chosen: Tried | None) -> Tried | None:
        """What was chosen, without what it does as well without."""
        if chosen is None or len(chosen.remedies) < 2:
            return chosen
        for remedy in sorted(chosen.remedies, key=lambda each: -each.price):
            rest = tuple(each for each in chosen.remedies if each is not remedy)
            without = self._try(rest) if rest else None
            if without is None:
                continue
            without = self._as_often(without, len(chosen.measured.rows))
            if not is_better(chosen.measured, without.measured):
                allowed = self.found.allowed
                if chosen.loss > allowed or without.loss <= allowed:
                    chosen = without
        return chosen

    def _confirm(self, chosen: Tried | None) -> Judgement:
        if chosen is None:
            return self.judgement(OPEN, "There was no time to try a remedy: give more minutes.")
        if not chosen.remedies:
            return self._without_remedy(say_no_remedy(self.found, None, None))
        self.tell(f"{chosen.variant.name} on test data")
        final = self._final(chosen.variant)
        name = f"{chosen.variant.name} on test data"
        if final is None and self.found.untried.get(name, _NO_TIME) != _NO_TIME:
            why = f"{chosen.variant.name} helped on validation data and failed on test data: {self.found.untried[name]}"
            return self.judgement(NO_REMEDY, why)
        if final is None:
            told = f"{chosen.variant.name} helped on validation data; there was no time left to judge it on test data."
            return self.judgement(OPEN, told, chosen=chosen)
        gain = final.over(self.found.asis, self.found.where)
        if not gain.beyond():
            return self._without_remedy(say_no_remedy(self.found, chosen, final))
        advice = say_recommended(self.found, chosen, final, gain)
        return self.judgement(RECOMMENDED, advice, final=final, chosen=chosen)

    def _without_remedy(self, advice: str) -> Judgement:
        """That none helps; which is not known where there was no time for some of them."""
        late = [name for name in all_remedies() if self.found.untried.get(name) == _NO_TIME]
        if not late:
            return self.judgement(NO_REMEDY, advice)
        told = f"There was no time for {len(late)} of the remedies ({', '.join(late)}): give more minutes."
        return self.judgement(OPEN, told if len(self.found.tried) < 2 else f"{advice} {told}")

    def _final(self, variant: Variant) -> Measured | None:
        """A variant on test data, on fewer chips where there is little time; None where there is none, or it fails."""
        chips, name = self._more_chips(variant), f"{variant.name} on test data"
        while chips > 1:
            count = chips
            final = self._attempt(name, lambda: self.bench.measure(variant, self.test, count))  # noqa: B023  called here
            if final is not None:
                self.found.untried.pop(name, None)
                return final
            if self.found.untried[name] != _NO_TIME:
                return None
            chips = chips - 1 if chips < 6 else chips // 2
        return None

    def _more_chips(self, variant: Variant) -> int:
        """How many chips the answer is given on, where time was left: the network as it is has been on them then."""
        part, bench, done = self.test, self.bench, len(self.found.asis.rows)

        def takes(chips: int) -> float:
            return bench.estimate(self.base, part, chips) + bench.estimate(variant, part, chips)

        chips = _MOST_CHIPS
        while chips > done and takes(chips) > 0.6 * bench.clock.left:
            chips -= 1
        if chips > done:
            self.found.asis = self.bench.measure(self.base, part, chips)
        return max(chips, done)

    def judgement(
        self, verdict: str, advice: str, *, final: Measured | None = None, chosen: Tried | None = None
    ) -> Judgement:
        """What is known so far."""
        found, clock = self.found, self.bench.clock
        notes = list(found.notes)
        if found.is_guessing(found.asis) and not found.knows_nothing():
            guess = number(found.guess or 0.0, found.asis.report.unit)
            notes.append(f"On chips the network is no better than guessing ({guess}) after {found.at}.")
        return Judgement(
            verdict=verdict,
            advice=advice,
            report=found.asis.report,
            loss=found.asis.loss(found.where),
            at=found.at,
            final=None if final is None else final.report,
            gain=None if final is None else final.over(found.asis, found.where),
            recommended=() if chosen is None else tuple(each.name for each in chosen.remedies),
            python="" if chosen is None else self.bench.subject.code(chosen.variant),
            parts=found.parts,
            layers=found.layers,
            remedies=rows_of_remedies(found),
            untried=tuple(found.untried.items()),
            notes=tuple(notes),
            guess=found.guess,
            seconds=clock.spent,
            minutes=clock.budget / 60,
        )


def _most_frequent(metric: str, samples: Samples) -> list[float]:
    """The accuracy of always answering the most frequent class; nothing for any other score."""
    targets = [target.flatten() for _, target in samples if isinstance(target, Tensor)]
    if metric != "accuracy" or not targets:
        return []
    counted = torch.cat(targets)
    counted = counted[counted != IGNORED]
    return [float(counted.bincount().max()) / len(counted)] if len(counted) else []


def _told(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
