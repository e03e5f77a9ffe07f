"""Who is dead is told by one clock, whatever those of the others say."""

from __future__ import annotations

import time
from typing import Any

import pytest

from analogsim.recipes.study.heartbeats import Watch


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made)
    return made


def test_who_is_silent_for_more_than_four_beats_is_dead(clock: Clock) -> None:
    watch = Watch(10)
    for passed in range(0, 50, 5):
        clock.now = 100.0 + passed
        watch.look({1: "as it was", 2: passed})
        assert watch.dead() == ([1] if passed > 40 else [])
    watch.look({2: 0})
    assert watch.dead() == []  # it is not at work any more


@pytest.mark.parametrize("signs", [range(0, -3600, -1), [7, 3607] * 30, ["b", "a", None] * 20])
def test_what_a_sign_says_does_not_matter(clock: Clock, signs: Any) -> None:
    watch = Watch(10)
    for sign in signs:
        clock.now += 10
        watch.look({1: sign})
        assert watch.dead() == []


def test_who_slept_or_was_cut_off_gives_the_others_time(clock: Clock) -> None:
    """After an hour away the first look counts for two beats, whoever was silent."""
    watch = Watch(10)
    watch.look({1: 0, 2: 0})
    clock.now += 3600
    watch.look({1: 0, 2: 0})
    assert watch.dead() == []
    for _ in range(3):
        clock.now += 10
        watch.look({1: 1, 2: 0})
    assert watch.dead() == [2]
