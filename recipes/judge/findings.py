"""What is known of a network so far: measurements, what follows from them, and what was not tried."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from analogsim.errors import OperationError
from analogsim.recipes.judge.bench import Measured
from analogsim.recipes.judge.judgement import Row
from analogsim.recipes.judge.remedies import Remedy
from analogsim.recipes.judge.variant import Variant

CHEAP = 5.0
"""Remedies up to this price need neither cells nor digital products."""


@dataclass(frozen=True)
class Tried:
    """A variant that was measured, and what it is made of."""

    remedies: tuple[Remedy, ...]
    variant: Variant
    measured: Measured
    price: float

    @property
    def is_cheap(self) -> bool:
        """Whether it takes neither cells nor digital products."""
        return all(remedy.price <= CHEAP for remedy in self.remedies)

    @property
    def loss(self) -> float:
        """What is lost with it."""
        return self.measured.loss().mean


@dataclass(eq=False)
class Findings:
    """What was found so far.

    Args:
        at: the time by which the network is judged, as text.
        where: its place among those of the test data.
        tolerance: share of what there is to lose that may be lost without cells or digital products being spent.
        notes: what to know beside the tables.
        tried: what was measured on the data that are chosen by, the network as it is first.
        untried: what was not, and why.
        shares: of the work, that each layer has.
        parts: what each non-ideality costs.
        layers: what each layer costs.
        guess: the score of guessing; None where there is none.
    """

    at: str
    where: int
    tolerance: float
    notes: list[str]
    tried: list[Tried] = field(default_factory=list)
    untried: dict[str, str] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    parts: tuple[Row, ...] = ()
    layers: tuple[Row, ...] = ()
    guess: float | None = None
    _asis: Measured | None = None
    _start: Measured | None = None

    @property
    def asis(self) -> Measured:
        """The network as it is, on test data."""
        if self._asis is None:
            raise OperationError("judge: the network as it is comes first")
        return self._asis

    @asis.setter
    def asis(self, measured: Measured) -> None:
        self._asis = measured

    @property
    def start(self) -> Measured:
        """The network as it is, on the data that are chosen by."""
        if self._start is None:
            raise OperationError("judge: the network as it is comes first")
        return self._start

    @start.setter
    def start(self, measured: Measured) -> None:
        self._start = measured

    @property
    def can_choose(self) -> bool:
        """Whether there was time for the network as it is on the data that are chosen by."""
        return self._start is not None

    @property
    def span(self) -> float:
        """What there is to lose: from the clean score to that of guessing, or to 0 where that is not known."""
        clean = self.asis.report.clean
        if self.guess is not None and clean != self.guess:
            return abs(clean - self.guess)
        return abs(clean)

    @property
    def allowed(self) -> float:
        """What may be lost without cells or digital products being spent on it."""
        return self.tolerance * self.span

    def knows_nothing(self) -> bool:
        """Whether the clean network itself is no better than guessing, as far as the samples tell."""
        if self.guess is None:
            return False
        clean = self.asis.clean[~np.isnan(self.asis.clean)]
        error = float(clean.std(ddof=1)) / np.sqrt(len(clean)) if len(clean) > 1 else 0.0
        return self.asis.sign * (self.asis.report.clean - self.guess) <= 2 * error

    def is_guessing(self, measured: Measured) -> bool:
        """Whether a network on chips knows nothing of its samples."""
        if self.guess is None:
            return False
        above = measured.sign * (measured.score(self.where) - self.guess)
        return above < 0.05 * self.span or above <= 2 * measured.loss(self.where).error

    def seems_to_lose(self) -> bool:
        """Whether the network loses more than it may, though not beyond the error: too little was measured to tell."""
        loss = self.asis.loss(self.where)
        return not self.knows_nothing() and loss.mean > self.allowed and not loss.beyond()

    def needs_more(self, best: Tried | None) -> bool:
        """Whether so much is lost with the best so far that cells or digital products may be spent on it.

        Beyond the error, on the data that are chosen by, and with nothing done on test data too.
        """
        if best is None:
            return False
        loss = best.measured.loss()
        error = 0.0 if np.isnan(loss.error) else loss.error
        return loss.mean - error > self.allowed and self.asis.loss(self.where).mean > self.allowed

    def share(self, layers: Iterable[str]) -> float:
        """The share of the work that layers have together."""
        return sum(self.shares.get(name, 0.0) for name in layers)

    def chosen(self) -> Tried:
        """The cheapest within one standard error of the best; without cells and digital products, if that will do."""
        cheap = cheapest([each for each in self.tried if each.is_cheap])
        if not self.needs_more(cheap):
            return cheap
        enough = [each for each in self.tried if each.loss <= self.allowed]
        if not enough:
            return cheapest(self.tried)
        target = min(enough, key=lambda each: each.price)
        near = [each for each in self.tried if not is_better(target.measured, each.measured)]
        return min((each for each in near if each is target or each.remedies), key=lambda each: each.price)


def is_better(one: Measured, other: Measured) -> bool:
    """By more than one standard error."""
    apart = one.over(other)
    return apart.mean > (0.0 if np.isnan(apart.error) else apart.error)


def cheapest(tried: Sequence[Tried]) -> Tried:
    """The cheapest within one standard error of the best, and as far above the first, as which it begins."""
    first, *rest = tried
    better = [each for each in rest if is_better(each.measured, first.measured)]
    if not better:
        return first
    best = max(better, key=lambda each: each.measured.over(first.measured).mean)
    near = [each for each in better if each is best or not is_better(best.measured, each.measured)]
    return min(near, key=lambda each: each.price)
