"""Write docs/weight.svg, the life of a weight: ``python docs/make_weight.py``, at the checkout's root.

A drawing of text and boxes on a card of its own colour, so that it reads on light and dark pages, at 400 pixels too.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

WIDTH, LEFT, TOP = 400, 10, 64
INK, PALE, CARD = "#1b1f24", "#57606a", "#ffffff"
# Who draws it anew, by colour and by the words in the box; colours that the colour-blind tell apart.
NOTHING, CHIP, AGE, USE = "#8c959f", "#0072b2", "#b87800", "#b3470f"

# What happens, in which unit, and whether something is drawn for it.
STAGES = (
    ("weight", "in the units of the network", ("a Parameter, which the optimizer moves",), NOTHING, "nothing drawn"),
    (
        "mapped to cells",
        "µS",
        ("pair, two-sided, offset, slices, copies;", "the largest weight of a column at g_max"),
        NOTHING,
        "nothing drawn",
    ),
    (
        "written",
        "µS",
        ("levels, error of programming, stuck cells;", "each cell's own exponent of drift"),
        CHIP,
        "once a chip: program(seed)",
    ),
    ("aged", "µS, a function of time", ("drift, relaxation, retention",), NOTHING, "nothing drawn: drift(t)"),
    ("read slowly", "µS", ("1/f noise, which stays while inputs stream",), AGE, "once a chip and age"),
    (
        "on wires",
        "µS",
        ("IR drop, solved for the written crossbar",),
        NOTHING,
        "nothing drawn",
    ),
    (
        "multiplied",
        "input range x largest weight",
        ("inputs through DACs;", "white read noise of every cell"),
        USE,
        "every product",
    ),
    (
        "converted",
        "input range x largest weight",
        ("output noise, ADC; each converter's own", "gain and offset (once a chip)"),
        USE,
        "every conversion",
    ),
    (
        "answer",
        "in the units of the network",
        ("scales, sums of crossbars, digital bias,", "measured gains and corrections"),
        NOTHING,
        "nothing drawn",
    ),
)


def text(
    x: float, y: float, words: str, size: float, colour: str = INK, weight: str = "normal", end: bool = False
) -> str:
    """A line of text."""
    look = f'font-size="{size}" fill="{colour}" font-weight="{weight}"' + (' text-anchor="end"' if end else "")
    return f'<text x="{x}" y="{y}" {look}>{escape(words)}</text>'


def drawing() -> str:
    """The whole file."""
    parts, y = [], TOP
    for number, (name, unit, lines, colour, who) in enumerate(STAGES):
        height = 42 + 15 * len(lines)
        parts.append(f'<rect x="{LEFT}" y="{y}" width="380" height="{height}" rx="6" fill="{CARD}" stroke="{colour}"/>')
        parts.append(f'<rect x="{LEFT}" y="{y}" width="6" height="{height}" rx="3" fill="{colour}"/>')
        parts += [text(26, y + 18, name, 14, weight="bold"), text(380, y + 18, unit, 12, PALE, end=True)]
        parts += [text(26, y + 34 + 15 * row, line, 12.5) for row, line in enumerate(lines)]
        parts.append(text(26, y + height - 8, who, 12, colour if colour != NOTHING else PALE, "bold"))
        y += height
        if number < len(STAGES) - 1:
            parts.append(f'<path d="M200 {y} v10 m-4 -5 l4 5 l4 -5" fill="none" stroke="{INK}" stroke-width="1.5"/>')
            y += 12
    foot = (
        "Training: all of it anew in every forward, at an age of its own,",
        "as w + noise scale x (drawn - w); the gradient lands on w.",
        "same_noise(analog): one draw for several forwards.",
    )
    parts += [text(LEFT, y + 24 + 16 * row, line, 12.5) for row, line in enumerate(foot)]
    head = text(LEFT, 24, "The life of a weight", 17, weight="bold")
    head += text(LEFT, 45, "what acts, in which unit, and who draws it anew", 12.5, PALE)
    height = y + 24 + 16 * len(foot)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif" role="img">\n'
        f"<title>The life of a weight: stages, units, and what is drawn when</title>\n"
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#f6f8fa"/>\n' + "\n".join([head, *parts]) + "\n</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_name("weight.svg").write_text(drawing(), encoding="utf-8")
