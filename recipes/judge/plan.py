"""The plan of a judgement: what is measured in which order, within the time there is.

The most important answers come first, so that a short budget still gives them: what the network scores on chips, what
that comes from, what remedies bring, which layers cost most, what to do, and whether that holds on data and chips that
had no part in the choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from analogsim.evaluation.ablation import ALL
from analogsim.evaluation.display import deviation, number
from analogsim.evaluation.scores import IGNORED
from analogsim.recipes.judge.bench import Bench, Measured, NoTimeError, Part
from analogsim.recipes.judge.judgement import NO_REMEDY, NOTHING_TO_DO, OPEN, RECOMMENDED, Judgement, Row
from analogsim.recipes.judge.layers import Cost, by_harm, find_costs, shares_of
from analogsim.recipes.judge.paired import Difference
from analogsim.recipes.judge.remedies import Remedy, all_remedies, combine, keep_digital
from analogsim.recipes.judge.samples import Samples
from analogsim.recipes.judge.sizes import Sizes
from analogsim.recipes.judge.variant import Variant

CAN_FAIL = (ValueError, TypeError, RuntimeError, NotImplementedError, ArithmeticError)
"""What a remedy may raise where it cannot be done; anything else is a bug."""

_NO_TIME = "no time was left"
_CHEAP = 5.0  # remedies up to this price need neither cells nor digital products
_MOST_CHIPS = 25
_SMALL = 0.003  # of what there is to lose, which is not worth a remedy


@dataclass(frozen=True)
class Tried:
    """A variant that was measured, and what it is made of."""

    remedies: tuple[Remedy, ...]
    variant: Variant
    measured: Measured
    price: float


@dataclass(eq=False)
class Plan:
    """A judgement as it is made.

    Args:
        bench: measures.
        base: what is done for the network as it is.
        test: data and chips that the answer is given on, all times.
        choice: data and chips that it is chosen on, at the time by which the network is judged.
        sizes: of measurements.
        at: that time, as text.
        where: its place among those of the test data.
        tolerance: share of what there is to lose that may be lost without cells or digital products being spent.
        only: the names of the remedies that are tried; None for all.
        tell: told what is being done.
        show: given every judgement as far as it has come.
    """

    bench: Bench
    base: Variant
    test: Part
    choice: Part
    sizes: Sizes
    at: str
    where: int
    tolerance: float
    only: Sequence[str] | None = None
    tell: Callable[[str], None] = lambda _: None
    show: Callable[[Judgement], None] = lambda _: None
    notes: list[str] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)
    untried: dict[str, str] = field(default_factory=dict)
    costs: list[Cost] = field(default_factory=list)
    shares: dict[str, float] = field(default_factory=dict)
    parts: tuple[Row, ...] = ()
    layers: tuple[Row, ...] = ()
    guess: float | None = None

    def __post_init__(self) -> None:
        self._asis: Measured | None = None
        self._chosen_from: Measured | None = None

    # What is asked of measurements.

    @property
    def asis(self) -> Measured:
        """The network as it is, on test data."""
        if self._asis is None:
            raise RuntimeError("judge: the network as it is comes first")
        return self._asis

    @property
    def start(self) -> Measured:
        """The network as it is, on the data that are chosen by."""
        if self._chosen_from is None:
            raise RuntimeError("judge: the network as it is comes first")
        return self._chosen_from

    @property
    def span(self) -> float:
        """What there is to lose: from the clean score to that of guessing, or the clean score itself."""
        clean, metric = self.asis.report.clean, self.bench.metric
        bounded = metric.unit == "%" or metric.chance is not None
        if bounded and self.guess is not None and clean != self.guess:
            return abs(clean - self.guess)
        return abs(clean) or abs(self.guess or 0.0)

    @property
    def _reserve(self) -> float:
        """Seconds for the last measurement, which a recommendation needs."""
        return self.bench.clock.estimate(len(self.test.samples), min(self.sizes.final, 3) * len(self.test.times))

    def _measure(self, variant: Variant, chips: int) -> Measured:
        return self.bench.measure(variant, self.choice, chips, reserve=self._reserve)

    # The steps.

    def run(self) -> Judgement:
        """All of it."""
        self._begin()
        self.show(self.judgement(OPEN, "It was not finished."))
        if not self._worth_it():
            self._find_parts()
            return self.judgement(NOTHING_TO_DO, self._nothing_to_do())
        self._find_parts()
        self._find_shares()
        self.show(self.judgement(OPEN, "It was not finished."))
        self._try_each()
        best = self._combine()
        self.show(self.judgement(OPEN, "It was not finished."))
        self._find_layers(best)
        self.show(self.judgement(OPEN, "It was not finished."))
        if self._needs_more(best):
            self._try_digital(best)
        return self._confirm(self._pruned(self._choose()))

    def run_given(self, variant: Variant, remedies: Sequence[Remedy]) -> Judgement:
        """Remedies that are given, beside the network as it is, on test data."""
        self._begin()
        self._find_shares()
        chosen = Tried(tuple(remedies), variant, self.start, 0.0)
        found = self._confirm(chosen)
        return found.replace(python=self.bench.subject.code(variant))

    def _begin(self) -> None:
        self.tell("the network as it is")
        clock, part = self.bench.clock, self.test
        chips = self.sizes.final
        while chips > 2 and clock.estimate(len(part.samples), chips * len(part.times)) > 0.4 * clock.left:
            chips -= 1
        try:
            self._asis = self.bench.measure(self.base, part, chips)
        except NoTimeError:  # the one answer that is given whatever it takes
            self._asis = self.bench.ask(self.base, part, range(part.first, part.first + chips))
        chance = self.asis.report.chance
        better = max if self.bench.metric.higher_is_better else min
        found = [*self._of_others(), *_constant(self.bench.metric.name, part.samples)]
        self.guess = better([*found, *([] if chance is None else [chance])], default=None)
        try:
            self._chosen_from = self._measure(self.base, self.sizes.tried)
        except NoTimeError:
            self.notes.append("There was no time to try anything: give more --minutes.")

    def _of_others(self) -> list[float]:
        """The digital network's score on targets of other samples; nothing where there are none."""
        mixed = self.test.samples.exchanged()
        if mixed is None:
            return []
        try:
            return [self.bench.score_clean(mixed)[0]]
        except CAN_FAIL:  # a metric may not take what does not belong together
            return []

    def _worth_it(self) -> bool:
        """Whether anything that there is time to see is lost at any time."""
        least = _SMALL * self.span
        losses = {at: self.asis.loss(at) for at in range(len(self.asis.report.times))}
        # One of five times is beyond 95 % by chance every fourth time.
        sure = {at: 0.95 if at == self.where else 0.99 for at in losses}
        return any(loss.mean > least and loss.beyond(sure[at]) for at, loss in losses.items())

    def _nothing_to_do(self) -> str:
        loss, unit = self.asis.loss(self.where), self.asis.report.unit
        seen = number(1.96 * loss.error, unit)
        if 1.96 * loss.error > self.tolerance * self.span:
            return (
                "Nothing to do as far as can be seen: no loss is beyond its error, but with "
                f"{self.asis.report.samples} samples and {len(self.asis.rows)} chips one of {seen} would not be; "
                "give more data to know better."
            )
        return "Nothing to do: at none of these times does the network lose anything that is worth a remedy."

    def _find_parts(self) -> None:
        self.tell("what costs most")
        clock, count = self.bench.clock, len(self.choice.samples)
        chips = self.sizes.parts
        while chips > 2 and clock.estimate(count, 9 * chips) > 0.25 * (clock.left - self._reserve):
            chips -= 1
        if clock.estimate(count, 9 * chips) > 0.5 * (clock.left - self._reserve):
            self.untried["the parts of the hardware, one by one"] = _NO_TIME
            return
        try:
            ablation = self.bench.ablate(self.base, self.choice, chips)
        except CAN_FAIL as error:
            self.untried["the parts of the hardware, one by one"] = _told(error)
            return
        rows = []
        for name, report in ablation.reports.items():
            if name != ALL:
                gain, spread = (float(value) for value in ablation.gain(name)[:, -1])
                beyond = abs(gain) > 2 * spread
                rows.append(
                    Row(name, float(report.mean[-1]), deviation(report.values[:, -1]), gain, spread, beyond, "", chips)
                )
        self.parts = tuple(sorted(rows, key=lambda row: -row.gain))

    def _try_each(self) -> None:
        if self._chosen_from is None:
            return
        self._note((), self.base, self.start)
        for remedy in all_remedies().values():
            if self.only is None or remedy.name in self.only:
                self._try((remedy,))

    def _try(self, remedies: tuple[Remedy, ...]) -> Tried | None:
        """Measure remedies together; None, and a word why, where that cannot be."""
        name = "+".join(remedy.name for remedy in remedies)
        subject = self.bench.subject
        try:
            variant = combine(remedies, self.base, subject)
        except ValueError as error:
            if len(remedies) == 1:
                self.untried[name] = str(error).partition(f"{remedies[0].name!r}: ")[2] or str(error)
            return None
        known = next((each for each in self.tried if each.variant.effect == variant.effect), None)
        if known is not None:
            return known
        self.tell(f"remedy {variant.name}")
        try:
            measured = self._measure(variant, self.sizes.tried)
        except NoTimeError:
            self.untried[variant.name] = _NO_TIME
            return None
        except CAN_FAIL as error:
            self.untried[variant.name] = _told(error)
            return None
        return self._note(remedies, variant, measured)

    def _note(self, remedies: tuple[Remedy, ...], variant: Variant, measured: Measured) -> Tried:
        found = Tried(remedies, variant, measured, sum(each.price for each in remedies) + self._digital_price(variant))
        self.tried.append(found)
        return found

    def _digital_price(self, variant: Variant) -> float:
        if not variant.digital:
            return 0.0
        every = len(self.bench.subject.layers)
        return 200 * sum(self.shares.get(name, 1 / every) for name in variant.digital)

    def _combine(self) -> Tried | None:
        """Cheap remedies, one after the other on top of the best, as long as that gets better beyond its error."""
        if not self.tried:
            return None
        singles = [each for each in self.tried if each.remedies and each.price <= _CHEAP]
        singles.sort(key=lambda each: -each.measured.over(self.start).mean)
        best = self.tried[0]
        if singles and _is_better(singles[0].measured, best.measured):
            best = singles[0]
        while True:
            found = self._improved(best, singles)
            if found is None:
                return best
            best = found

    def _improved(self, best: Tried, singles: Iterable[Tried]) -> Tried | None:
        """The best with one remedy more, or with another one of its kind."""
        remains = self._remains(best) > self.tolerance * self.span
        for single in singles:
            (remedy,) = single.remedies
            if remedy in best.remedies:
                continue
            helps = single.measured.over(self.start)
            # What does not help alone may do so once another has taken the worst away.
            if helps.mean <= 0 and not (remains and len(best.remedies) < 3):
                continue
            kept = tuple(each for each in best.remedies if each.kind != remedy.kind)
            found = self._try((*kept, remedy)) if kept else None
            if found is not None and _is_better(found.measured, best.measured):
                return found
        return None

    def _remains(self, best: Tried | None) -> float:
        """What is lost with the best so far."""
        return 0.0 if best is None else best.measured.loss().mean

    def _needs_more(self, best: Tried | None) -> bool:
        """Whether so much is lost with the best so far that cells or digital products may be spent on it.

        Beyond the error, on the data that are chosen by, and with nothing done on test data too.
        """
        if best is None:
            return False
        allowed, loss = self.tolerance * self.span, best.measured.loss()
        error = 0.0 if np.isnan(loss.error) else loss.error
        return loss.mean - error > allowed and self.asis.loss(self.where).mean > allowed

    def _find_layers(self, best: Tried | None) -> None:
        if best is None:
            return
        self.tell("layer by layer")
        subject = self.bench.subject
        clock = self.bench.clock
        left = clock.left - self._reserve
        chips = self.sizes.layers
        each = clock.estimate(len(self.choice.samples), chips)
        most = max(min(int(0.5 * left / max(each, 1e-9)), max(self.sizes.groups, 2)), 0)
        if most < 2 or len(subject.layers) < 2:
            if len(subject.layers) > 1:
                self.untried["layer by layer"] = _NO_TIME
            return
        try:
            self.costs, whole = find_costs(
                self.bench, best.variant, self.choice, chips, most=most, reserve=self._reserve
            )
        except CAN_FAIL as error:
            self.untried["layer by layer"] = _told(error)
            return
        self.layers = tuple(self._row_of(cost, best.variant) for cost in self.costs)
        if best.remedies:
            self.notes.append(f"Layers were taken one by one with {best.variant.name}.")
        if not whole:
            self.notes.append(
                "Layers were taken in groups, of which the worst were cut finest, as far as there was time."
            )
        idle = [name for cost in self.costs if cost.idle for name in cost.layers]
        if idle:
            self.notes.append(f"Without a part in the answers, so that nothing is known of them: {', '.join(idle)}.")

    def _find_shares(self) -> None:
        try:
            self.shares = shares_of(self.bench.subject, next(iter(self.choice.samples))[0])
        except CAN_FAIL as error:
            self.notes.append(f"The work of the layers could not be counted: {_told(error)}.")

    def _row_of(self, cost: Cost, base: Variant) -> Row:
        share = sum(self.shares.get(name, 0.0) for name in cost.layers)
        told = f"{share:.1%}" if self.shares else ""
        digital = tuple(name for name in self.bench.subject.layers if name not in cost.layers)
        found = self.bench.known(base.with_digital(digital), self.choice)
        score, std = self.start.report.clean, float("nan")
        if found is not None and not cost.idle:
            score, std = found.score(), deviation(found.report.values[:, -1])
        count = 0 if found is None else len(found.rows)
        return Row(cost.name, score, std, cost.loss.mean, cost.loss.error, cost.loss.beyond(), told, count)

    def _try_digital(self, best: Tried | None) -> None:
        """Cells and digital products, for what cheap remedies leave: as few layers as reach the tolerance."""
        if best is None:
            return
        for remedy in all_remedies().values():
            if remedy.price > _CHEAP and best.remedies and (self.only is None or remedy.name in self.only):
                self._try((*best.remedies, remedy))
        if self.only is not None or len(self.bench.subject.layers) < 2:
            return
        order = by_harm(self.costs, self.shares) if self.costs else list(self.bench.subject.layers)
        low, high, count = 0, len(order), 1
        while low + 1 < high:
            found = self._try((*best.remedies, keep_digital(order[:count])))
            if found is None:
                break
            reached = found.measured.loss().mean <= self.tolerance * self.span
            low, high = (low, count) if reached else (count, high)
            doubled = high == len(order)
            count = min(2 * count, len(order) - 1) if doubled else (low + high) // 2

    def _choose(self) -> Tried | None:
        """The cheapest within one standard error of the best; without cells and digital products, if that will do."""
        if not self.tried:
            return None
        self._look_again(self.tried)
        cheap = _cheapest([each for each in self.tried if _only_cheap(each)])
        if not self._needs_more(cheap):
            return cheap
        enough = [each for each in self.tried if self._remains(each) <= self.tolerance * self.span]
        if not enough:
            return _cheapest(self.tried)
        target = min(enough, key=lambda each: each.price)
        near = [each for each in self.tried if not _is_better(target.measured, each.measured)]
        return min((each for each in near if each is target or each.remedies), key=lambda each: each.price)

    def _look_again(self, tried: Sequence[Tried]) -> None:
        """More chips for those that may be the best."""
        best = max(tried, key=lambda each: each.measured.over(self.start).mean)
        near = [
            each
            for each in tried
            if best.measured.over(each.measured).mean <= 2 * best.measured.over(each.measured).error
        ]
        near.sort(key=lambda each: -each.measured.over(self.start).mean)
        again = [self.tried[0], *(each for each in near[:4] if each is not self.tried[0])]
        clock, more = self.bench.clock, 3 * self.sizes.tried
        while more > self.sizes.tried and clock.estimate(len(self.choice.samples), more * len(again)) > 0.5 * (
            clock.left - self._reserve
        ):
            more -= 1
        for each in again:
            try:
                measured = self._measure(each.variant, more)
            except NoTimeError:
                return
            place = self.tried.index(each)
            self.tried[place] = Tried(each.remedies, each.variant, measured, each.price)
            if place == 0:
                self._chosen_from = measured

    def _pruned(self, chosen: Tried | None) -> Tried | None:
        """What was chosen, without what it does as well without."""
        if chosen is None or len(chosen.remedies) < 2:
            return chosen
        for remedy in sorted(chosen.remedies, key=lambda each: -each.price):
            rest = tuple(each for each in chosen.remedies if each is not remedy)
            if not rest:
                continue
            found = self._try(rest)
            if found is not None and not _is_better(chosen.measured, found.measured):
                enough = self.tolerance * self.span
                if self._remains(chosen) > enough or self._remains(found) <= enough:
                    chosen = found
        return chosen

    def _confirm(self, chosen: Tried | None) -> Judgement:
        if chosen is None:
            return self.judgement(OPEN, "There was no time to try a remedy: give more minutes.")
        if not chosen.remedies:
            return self.judgement(NO_REMEDY, f"No remedy helps beyond its error. {self._what_then(None)}")
        self.tell(f"{chosen.variant.name} on test data")
        part, chips = self.test, self._more_chips()
        final: Measured | None = None
        while final is None and chips > 1:
            try:
                final = self.bench.measure(chosen.variant, part, chips)
            except NoTimeError:
                chips = chips - 1 if chips < 6 else chips // 2
            except CAN_FAIL as error:
                why = f"{chosen.variant.name} helped on validation data and failed on test data: {_told(error)}"
                return self.judgement(NO_REMEDY, why)
        if final is None:
            told = f"{chosen.variant.name} helped on validation data; there was no time left to judge it on test data."
            return self.judgement(OPEN, told, chosen=chosen)
        gain = final.over(self.asis, self.where)
        if not gain.beyond():
            brings = f"{number(gain.mean, final.report.unit)} ± {number(gain.error, final.report.unit)}"
            return self.judgement(
                NO_REMEDY,
                f"No remedy helps beyond its error: {chosen.variant.name}, the best on validation data, brings "
                f"{brings} on test data. {self._what_then(final)}",
            )
        return self.judgement(RECOMMENDED, self._recommendation(chosen, final, gain), final=final, chosen=chosen)

    def _more_chips(self) -> int:
        """How many chips the answer is given on, where time was left: the network as it is has been on them then."""
        part, clock, done = self.test, self.bench.clock, len(self.asis.rows)
        chips = _MOST_CHIPS
        while (
            chips > done and clock.estimate(len(part.samples), (2 * chips - done) * len(part.times)) > 0.6 * clock.left
        ):
            chips -= 1
        if chips > done:
            self._asis = self.bench.measure(self.base, part, chips)
        return max(chips, done)

    # What is said.

    def _recommendation(self, chosen: Tried, final: Measured, gain: Difference) -> str:
        unit = final.report.unit
        said = [
            f"Recommended: {chosen.variant.name}. On test data and chips that had no part in the choice it brings "
            f"{number(gain.mean, unit)} ± {number(gain.error, unit)} after {self.at}, from "
            f"{number(self.asis.score(self.where), unit)} to {number(final.score(self.where), unit)}."
        ]
        takes = [f"{each.name}: {each.what}" for each in chosen.remedies]
        if chosen.variant.digital:
            layers = ", ".join(chosen.variant.digital)
            share = sum(self.shares.get(name, 0.0) for name in chosen.variant.digital)
            work = f", {share:.1%} of the multiply-accumulates" if self.shares else ""
            takes.append(f"digital stay {layers}{work}")
        said.append(f"It takes: {'; '.join(takes)}.")
        worse = [
            label
            for at, label in enumerate(final.report.labels)
            if final.over(self.asis, at).mean < -2 * final.over(self.asis, at).error
        ]
        if worse:
            said.append(f"It costs after {', '.join(worse)}.")
        said += [self._without_spending(chosen), self._what_then(final)]
        return " ".join(filter(None, said))

    def _without_spending(self, chosen: Tried) -> str:
        """What is reached without cells and digital products, where some are recommended."""
        if _only_cheap(chosen) or not self.tried:
            return ""
        cheap = _cheapest([each for each in self.tried if _only_cheap(each)])
        if not cheap.remedies:
            return "Without more cells or digital layers nothing helps."
        score = number(cheap.measured.score(), self.asis.report.unit)
        return f"Without more cells or digital layers {cheap.variant.name} reaches {score} on validation data."

    def _what_then(self, final: Measured | None) -> str:
        """What is left, and what to do about that."""
        measured = self.asis if final is None or not final.over(self.asis, self.where).beyond() else final
        loss, unit = measured.loss(self.where), measured.report.unit
        said = []
        if loss.mean > self.tolerance * self.span:
            worst = f" (most of it from {self.parts[0].name})" if self.parts and self.parts[0].beyond else ""
            said.append(
                f"{number(loss.mean, unit)} ± {number(loss.error, unit)} are lost then{worst}; what is left is a "
                "matter of training with the noise of the chip (analogsim train)."
            )
        if self._is_guessing(measured):
            guess = number(self.guess or 0.0, unit)
            said.append(f"That is no better than guessing ({guess}).")
        return " ".join(said)

    def _is_guessing(self, measured: Measured) -> bool:
        """Whether it knows nothing of its samples."""
        if self.guess is None:
            return False
        above = measured.sign * (measured.score(self.where) - self.guess)
        return above < 0.05 * self.span or above <= 2 * measured.loss(self.where).error

    def judgement(
        self, verdict: str, advice: str, *, final: Measured | None = None, chosen: Tried | None = None
    ) -> Judgement:
        """What is known so far."""
        notes = list(self.notes)
        if self._is_guessing(self.asis):
            guess = number(self.guess or 0.0, self.asis.report.unit)
            notes.append(f"On chips the network is no better than guessing ({guess}) after {self.at}.")
        subject = self.bench.subject
        shown = self._chosen_from if self._chosen_from is not None and self.tried else None
        rows = [] if shown is None else [_row_of_remedy(each, shown, self.shares) for each in self.tried]
        return Judgement(
            verdict=verdict,
            advice=advice,
            report=self.asis.report,
            loss=self.asis.loss(self.where),
            at=self.at,
            final=None if final is None else final.report,
            gain=None if final is None else final.over(self.asis, self.where),
            recommended=() if chosen is None else tuple(each.name for each in chosen.remedies),
            python="" if chosen is None else subject.code(chosen.variant),
            parts=self.parts,
            layers=self.layers,
            remedies=tuple(sorted(rows, key=lambda row: -row.gain)),
            untried=tuple(self.untried.items()),
            notes=tuple(notes),
            guess=self.guess,
            seconds=self.bench.clock.spent,
            minutes=self.bench.clock.budget / 60,
        )


def _is_better(one: Measured, other: Measured) -> bool:
    """By more than one standard error."""
    apart = one.over(other)
    return apart.mean > (0.0 if np.isnan(apart.error) else apart.error)


def _only_cheap(tried: Tried) -> bool:
    return all(remedy.price <= _CHEAP for remedy in tried.remedies)


def _cheapest(tried: Sequence[Tried]) -> Tried:
    """The cheapest within one standard error of the best, and as far above the first, as which it begins."""
    first, *rest = tried
    better = [each for each in rest if _is_better(each.measured, first.measured)]
    if not better:
        return first
    best = max(better, key=lambda each: each.measured.over(first.measured).mean)
    near = [each for each in better if each is best or not _is_better(best.measured, each.measured)]
    return min(near, key=lambda each: each.price)


def _row_of_remedy(tried: Tried, start: Measured, shares: dict[str, float]) -> Row:
    gain = tried.measured.over(start)
    cost = tried.remedies[0].what if len(tried.remedies) == 1 else ""  # of several, each has a row of its own
    if tried.variant.digital and shares:
        cost = f"{sum(shares.get(name, 0.0) for name in tried.variant.digital):.1%} of the multiply-acc. digital"
    beyond = gain.beyond() or Difference(-gain.mean, gain.error, gain.freedom).beyond()
    std = deviation(tried.measured.report.values[:, -1])
    return Row(
        tried.variant.name, tried.measured.score(), std, gain.mean, gain.error, beyond, cost, len(tried.measured.rows)
    )


def _constant(metric: str, samples: Samples) -> list[float]:
    """The accuracy of always answering the most frequent class; nothing for any other score."""
    if metric != "accuracy":
        return []
    targets = torch.cat([target.flatten() for _, target in samples])
    targets = targets[targets != IGNORED]
    return [float(targets.bincount().max()) / len(targets)] if len(targets) else []


def _told(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
