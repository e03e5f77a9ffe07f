"""Curves can be told apart by anybody: differences are computed as the standards say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from analogsim.evaluation.display import COLORS, curve_style

Array = NDArray[np.float64]

# Machado, Oliveira, Fernandes 2009: deuteranopia, severity 1, on linear RGB.
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
WHITE, DARK = "#ffffff", "#1b1b1b"  # of our pages


def linear(color: str) -> Array:
    shares = np.array([int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)


def lab(rgb: Array) -> Array:
    """CIELAB of linear sRGB under D65."""
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )
    xyz = to_xyz @ rgb / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def ciede2000(first: Array, second: Array) -> float:
    """Sharma, Wu, Dalal 2005, with all weights 1."""
    (l1, a1, b1), (l2, a2, b2) = first, second
    mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    g = (1 - np.sqrt(mean**7 / (mean**7 + 25**7))) / 2
    a1, a2 = (1 + g) * a1, (1 + g) * a2
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1)) % 360, np.degrees(np.arctan2(b2, a2)) % 360
    colorless = c1 * c2 == 0
    turn = 0.0 if colorless else (h2 - h1 + 180) % 360 - 180
    dl, dc, dh = l2 - l1, c2 - c1, 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    lightness, chroma = (l1 + l2) / 2, (c1 + c2) / 2
    hue = h1 + h2 if colorless else (h1 + turn / 2) % 360
    t = 1 - 0.17 * np.cos(np.radians(hue - 30)) + 0.24 * np.cos(np.radians(2 * hue))
    t += 0.32 * np.cos(np.radians(3 * hue + 6)) - 0.20 * np.cos(np.radians(4 * hue - 63))
    sl = 1 + 0.015 * (lightness - 50) ** 2 / np.sqrt(20 + (lightness - 50) ** 2)
    sc, sh = 1 + 0.045 * chroma, 1 + 0.015 * chroma * t
    twist = 2 * np.sqrt(chroma**7 / (chroma**7 + 25**7))
    rt = -np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2)))) * twist
    return float(np.sqrt((dl / sl) ** 2 + (dc / sc) ** 2 + (dh / sh) ** 2 + rt * dc / sc * dh / sh))


def contrast(first: str, second: str) -> float:
    """WCAG 2."""
    high, low = sorted(float(np.array([0.2126, 0.7152, 0.0722]) @ linear(each)) for each in (first, second))[::-1]
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(
    ("first", "second", "known"),
    [  # table 1 of Sharma, Wu, Dalal 2005: pairs 1, 7, 17, 20 and 25
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, 0.0, 0.0), (50.0, -1.0, 2.0), 2.3669),
        ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
        ((50.0, 2.5, 0.0), (50.0, 3.2592, 0.3350), 1.0000),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ],
)
def test_the_difference_is_the_published_one(first: tuple, second: tuple, known: float) -> None:
    assert ciede2000(np.array(first), np.array(second)) == pytest.approx(known, abs=5e-5)


def test_any_two_colors_can_be_told_apart_also_without_green_cones() -> None:
    assert len(set(COLORS)) == 8
    for first, second in itertools.combinations(COLORS, 2):
        usual = ciede2000(lab(linear(first)), lab(linear(second)))
        seen = [lab(np.clip(DEUTERANOPIA @ linear(color), 0, 1)) for color in (first, second)]
        assert min(usual, ciede2000(*seen)) >= 17, (first, second)


def test_each_color_is_seen_on_white_and_on_dark_pages() -> None:
    assert all(contrast(color, page) >= 3 for color in COLORS for page in (WHITE, DARK))


def test_dash_and_marker_differ_beside_the_color() -> None:
    styles = [curve_style(index) for index in range(264)]
    assert len({str(style) for style in styles}) == 264
    for name, count in (("linestyle", 6), ("marker", 11), ("color", 8)):
        assert len({str(style[name]) for style in styles[:count]}) == count
