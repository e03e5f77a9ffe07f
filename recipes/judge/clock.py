"""A budget of time, and what a measurement will take of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Clock:
    """How much of a budget is left, and what chips cost, learnt from those that were measured.

    A chip at one age takes ``fixed + samples * per_sample`` seconds, times a factor that is corrected by every
    measurement of its kind: chips that data go through before they are asked take longer than others.

    Args:
        budget: seconds.
        now: tells the time.
    """

    budget: float
    now: Callable[[], float] = time.monotonic
    fixed: float = 0.0
    per_sample: float = 0.0
    factor: float = 1.0
    start: float = field(init=False)
    _factors: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.start = self.now()

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return self.now() - self.start

    @property
    def left(self) -> float:
        """Seconds that are left, below 0 when none are."""
        return self.budget - self.spent

    def set_costs(self, small: tuple[int, float], large: tuple[int, float]) -> None:
        """Learn the costs from two measurements of one chip, each the number of samples and the seconds."""
        (few, short), (many, long) = small, large
        if many > few:
            self.per_sample = max(long - short, 0.1 * long) / (many - few)
        else:
            self.per_sample = short / few
        self.fixed = max(short - few * self.per_sample, 0.0)

    def estimate(self, samples: int, visits: float, kind: str = "") -> float:
        """Seconds of so many visits to chips, each at one age.

        Args:
            samples: of each visit.
            visits: how many.
            kind: what is done at each visit beside asking; of a kind that is not known yet, as without.
        """
        return visits * self._factors.get(kind, self.factor) * (self.fixed + samples * self.per_sample)

    def learn(self, samples: int, visits: float, took: float, kind: str = "") -> None:
        """Correct the factor of a kind by what a measurement took."""
        expected = visits * (self.fixed + samples * self.per_sample)
        if expected <= 0:
            return
        found = took / expected
        if not kind:
            self.factor = 0.5 * self.factor + 0.5 * found
        else:
            self._factors[kind] = 0.5 * self._factors.get(kind, found) + 0.5 * found

    def samples_for(self, seconds: float) -> int:
        """How many samples a visit of so many seconds may have; 0 where even a visit without any takes longer."""
        return max(int((seconds / self.factor - self.fixed) / max(self.per_sample, 1e-12)), 0)
