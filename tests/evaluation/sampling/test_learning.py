from __future__ import annotations

import numpy as np
import pytest

from analogsim.evaluation.sampling.design import Design, variance_of
from analogsim.evaluation.sampling.learning import MOST_NOISE, NOISE, Answers, Learned
from analogsim.evaluation.sampling.units import Units

UNITS = 3000


def units(margins: bool = True) -> Units:
    rng = np.random.default_rng(0)
    margin = rng.normal(2, 2, size=UNITS)
    place = np.arange(UNITS)
    same = (place // 100, place % 100, np.ones(UNITS, int), np.full(UNITS, 1 / UNITS))
    return Units(*same, (margin > 0).astype(float), margin if margins else None)


def answers(asked: Design, seed: int, spread: float = 0.3) -> list[Answers]:
    """A chip whose margins are shifted all together, and each by itself; by half as much at the first of two times."""
    rng = np.random.default_rng((7, seed))
    apart, common = rng.normal(size=UNITS), rng.normal()
    true = units().margin
    assert true is not None
    found = []
    for time, index in enumerate(asked.asked(seed)):
        shift = (0.5 + 0.5 * time) * (0.05 * common + spread * apart)
        found.append(Answers(index, (true + shift > 0)[index].astype(float)))
    return found


def learned(chips: int, samples: int | None = None, known: Units | None = None) -> tuple[Learned, Design]:
    state = Learned(known or units(), 2, samples)
    done = 0
    for upto in (8, 16, 32, 64):
        design = state.design()
        if done >= chips:
            break
        state.take(design, [answers(design, seed) for seed in range(done, min(upto, chips))])
        done = upto
    return state, state.design()


def test_units_that_change_are_asked_most() -> None:
    first, later = learned(0)[1], learned(32)[1]
    near = np.abs(units().margin) < 0.3
    for design in (first, later):
        assert design.chances[1, near].mean() > 3 * design.chances[1, ~near].mean()
    assert later.expected[1, near].std() < first.expected[1, near].std(), "what wavers is expected to be in between"


def test_what_was_learned_pays() -> None:
    """The variance that 150 samples leave, of chips that nothing was learned from."""
    everything = Design(np.ones((2, UNITS)), np.zeros((2, UNITS)), units().weight)
    truth = np.stack([answers(everything, seed)[1].scores for seed in range(500, 560)])
    left = []
    for chips in (0, 16, 64):
        design = learned(chips, 150)[1]
        wrong = np.sqrt(((truth - design.expected[1]) ** 2).mean(0))
        left.append(variance_of(design.chances[1], wrong, design.weights))
    assert left[2] < left[1] < left[0]
    assert left[2] < 0.8 * left[0]


def test_so_many_samples_are_asked_as_are_said() -> None:
    for design in (learned(0, 150)[1], learned(16, 150)[1]):
        np.testing.assert_allclose(design.chances.sum(1), 150, rtol=0.05)


def test_as_many_samples_are_asked_as_the_spread_of_the_chips_is_worth() -> None:
    state, design = learned(64)
    spread = state.spread()
    deviations = [state._model(time)[1] for time in range(2)]
    noise = np.array([variance_of(*each, design.weights) for each in zip(design.chances, deviations, strict=True)])
    assert noise[1] == pytest.approx(NOISE * spread[1], rel=0.1)
    assert NOISE * 0.9 < noise[0] / spread[0] < MOST_NOISE * 1.1
    assert design.chances.sum(1).max() < UNITS / 3


def test_the_spread_is_that_of_the_chips_alone() -> None:
    everything = Design(np.ones((2, UNITS)), np.zeros((2, UNITS)), units().weight)
    means = np.array([answers(everything, seed)[1].scores.mean() for seed in range(64)])
    state = learned(64)[0]
    seen = np.stack(state.means)[:, 1].var(ddof=1)
    error = seen * np.sqrt(2 / 63)
    assert abs(state.spread()[1] - means.var(ddof=1)) < 4 * error
    assert state.spread()[1] < seen


def test_small_data_are_asked_as_a_whole_at_first() -> None:
    small = Units(*(part[:300] for part in (units().batch, units().place, units().size)), units().weight[:300] * 10,
                  units().clean[:300], None)  # fmt: skip
    assert (Learned(small, 1, None).design().chances == 1).all()


def test_without_margins_units_are_asked_alike_at_first() -> None:
    design = learned(0, 150, units(margins=False))[1]
    assert np.ptp(design.chances) == pytest.approx(0)
