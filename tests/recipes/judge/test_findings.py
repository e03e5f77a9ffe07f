from dataclasses import replace

import numpy as np
import pytest

from analogsim.evaluation.report import Report
from analogsim.recipes.judge.bench import Measured
from analogsim.recipes.judge.findings import Findings, Tried, cheapest, is_better
from analogsim.recipes.judge.remedies import all_remedies
from analogsim.recipes.judge.variant import Variant


def measured(score: float, *, clean: float = 0.9, chips: int = 5, samples: int = 400, spread: float = 0.01) -> Measured:
    """Chips around a score, with samples that are right or not."""
    values = score + spread * np.linspace(-1, 1, chips)[:, None]
    rows = (np.linspace(0, 1, samples, endpoint=False) < values[..., None]).astype(float)
    right = (np.linspace(0, 1, samples, endpoint=False) < clean).astype(float)
    report = Report(values, (1.0,), clean, "accuracy", "pcm", tuple(range(chips)), None, unit="%", samples=samples)
    return Measured(replace(report, higher_is_better=True), rows, right)


def tried(score: float, *names: str) -> Tried:
    remedies = tuple(all_remedies()[name] for name in names)
    return Tried(remedies, Variant(names), measured(score), sum(each.price for each in remedies))


def found(score: float, *others: Tried, guess: float | None = 0.1, clean: float = 0.9) -> Findings:
    made = Findings(at="1y", where=0, tolerance=0.01, notes=[], tried=[tried(score), *others], guess=guess)
    made.asis = made.start = measured(score, clean=clean)
    return made


def test_what_there_is_to_lose_is_what_is_above_guessing():
    assert found(0.8).span == pytest.approx(0.8)
    assert found(0.8, guess=None).span == pytest.approx(0.9)


def test_what_comes_first_is_asked_for_first():
    empty = Findings(at="1y", where=0, tolerance=0.01, notes=[])
    assert not empty.can_choose
    for name in ("asis", "start"):
        with pytest.raises(RuntimeError, match="comes first"):
            getattr(empty, name)


def test_a_network_that_knows_nothing():
    assert found(0.1, clean=0.11).knows_nothing()
    assert not found(0.1, clean=0.2).knows_nothing()
    assert not found(0.1, clean=0.11, guess=None).knows_nothing()


def test_what_is_lost_and_may_be_chance_is_not_nothing():
    few = found(0.9)
    few.asis = measured(0.86, samples=16, chips=2, spread=0.04)
    assert few.seems_to_lose()
    few.asis = measured(0.86, samples=4_000, chips=5, spread=0.001)  # it is lost, beyond its error
    assert not few.seems_to_lose()
    few.asis = measured(0.898, samples=16, chips=2, spread=0.04)  # less than what may be lost
    assert not few.seems_to_lose()
    assert not found(0.08, clean=0.1).seems_to_lose()  # and it had nothing to lose


def test_a_network_that_is_destroyed_on_chips():
    made = found(0.12)
    assert made.is_guessing(made.asis)
    assert not found(0.5).is_guessing(measured(0.5))


def test_the_cheapest_of_what_is_equally_good():
    one, two, three = tried(0.8), tried(0.85, "copies-4"), tried(0.85, "column")
    assert cheapest([one, two, three]) is three
    assert cheapest([one, tried(0.8, "column")]) is one
    assert is_better(two.measured, one.measured)


def test_cells_are_spent_only_on_what_is_lost_beyond_its_error():
    enough = found(0.895, tried(0.9, "copies-4"))
    assert enough.chosen().remedies == ()
    needed = found(0.7, tried(0.9, "copies-4"), tried(0.72, "column"))
    assert [each.name for each in needed.chosen().remedies] == ["copies-4"]
    out_of_reach = found(0.5, tried(0.7, "copies-4"), tried(0.52, "column"))
    assert [each.name for each in out_of_reach.chosen().remedies] == ["copies-4"]
