"""Which workers of a study have died, told without comparing the clocks of two machines."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SILENT = 4
"""Heartbeats without a sign of life after which a worker is dead."""


@dataclass
class _Seen:
    sign: Any
    silent: float = 0.0


class Watch:
    """Watches the signs of life of trials by one clock, its own, which only goes forward.

    A sign is any value that its worker changes with every heartbeat; what it says does not matter, so that clocks may
    differ by hours, or be set back. What passes between two looks counts for two heartbeats at most: who slept himself,
    or could not reach the storage for a while, gives the others time for a sign before he takes them for dead.

    Args:
        beat: seconds between two signs.
    """

    def __init__(self, beat: float) -> None:
        self._beat = beat
        self._looked = -float("inf")
        self._seen: dict[int, _Seen] = {}

    def look(self, signs: Mapping[int, Any]) -> None:
        """Take note of the present signs of all that are at work."""
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, 2 * self._beat), now
        before, self._seen = self._seen, {}
        for key, sign in signs.items():
            known = before.get(key)
            same = known is not None and known.sign == sign
            self._seen[key] = _Seen(sign, known.silent + passed if known is not None and same else 0.0)

    def dead(self) -> list[int]:
        """Those that were silent for too long when they were last looked at."""
        return [key for key, seen in self._seen.items() if seen.silent > SILENT * self._beat]
