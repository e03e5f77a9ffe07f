from __future__ import annotations

import re

import pytest

from analogsim.evaluation.display import COLORS
from analogsim.recipes.comparison.style import STYLE, color_at, ink_on


def contrast(first: str, second: str) -> float:
    """WCAG 2."""

    def luminance(color: str) -> float:
        shares = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in shares)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_can_be_read_on_light_and_dark_screens(theme: int) -> None:
    rules = re.findall(r":root \{([^}]*)\}", STYLE)
    colors = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", rules[theme]))
    assert set(colors) == {"page", "ink", "quiet", "link", "line"}
    for name in ("ink", "quiet", "link"):
        assert contrast(colors[name], colors["page"]) >= 4.5, name
    # nothing else gives text a colour, or makes it fainter
    assert set(re.findall(r"(?<![-\w])color: ([^;]+);", STYLE)) == {"var(--ink)", "var(--link)", "var(--quiet)"}
    assert "opacity" not in STYLE


def test_letters_can_be_read_on_the_color_of_each_curve() -> None:
    for color in (*COLORS, "#777777", "#000000", "#ffffff"):
        assert contrast(ink_on(color), color) >= 4.5
    assert color_at(9) == COLORS[1]
