"""How curves are told apart: by colour, by dash and by marker, each of which is enough by itself for a few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

COLORS = ("#2d5ae1", "#ff5a00", "#69695a", "#ff4bb4", "#965a00", "#a578ff", "#b42d87", "#b48778")
"""Eight colours, after which they begin again.

Any two of them are a CIEDE2000 of 17 or more apart, for usual eyes and under deuteranopia (Machado et al. 2009,
severity 1), and each has a contrast of 3 : 1 or more with a white page and with a dark one (``#1b1b1b``). Found by a
search over sRGB for the set whose nearest pair is farthest apart.
"""

DASHES = ("-", (0, (5, 1.5)), (0, (6, 1.5, 1.2, 1.5)), (0, (1.2, 1.2)), (0, (9, 2)), (0, (3, 1.2, 1.2, 1.2, 1.2, 1.2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", "h", ">")


def curve_style(index: int) -> Mapping[str, Any]:
    """How matplotlib draws the curve at a place: no two of the first 264 look alike."""
    return {
        "color": COLORS[index % len(COLORS)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
    }
