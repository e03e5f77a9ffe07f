"""How our pages look: for light and dark screens, wide and narrow ones."""

from __future__ import annotations

from analogsim.evaluation.display import COLORS

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1b1b1b; --quiet: #595959; --link: #0b57d0; --line: #c4c4c4; }
@media (prefers-color-scheme: dark) {
:root { --page: #1b1b1b; --ink: #ededed; --quiet: #b0b0b0; --link: #8ab4f8; --line: #5a5a5a; }
}
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; max-width: 75rem;
  background: var(--page); color: var(--ink); }
a { color: var(--link); }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin-top: 2rem; }
svg { width: 100%; min-width: 36rem; max-width: 62rem; height: auto; }
svg text { font-family: system-ui, sans-serif !important; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; min-width: 10rem; white-space: normal; overflow-wrap: anywhere; }
td.text { min-width: 8rem; max-width: 20rem; white-space: normal; overflow-wrap: anywhere; }
.mark { display: inline-block; min-width: 1.4em; margin-right: .5em; border-radius: .3em;
  text-align: center; font-weight: 600; }
small, summary { color: var(--quiet); } code { user-select: all; overflow-wrap: anywhere; }
"""

DARK, LIGHT = "#000000", "#ffffff"


def ink_on(color: str) -> str:
    """Black or white, whichever is easier to read on a colour ``#rrggbb``: its contrast is 4.5 : 1 or more."""
    shares = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue  # WCAG 2
    return DARK if luminance > 0.179 else LIGHT


def color_at(index: int) -> str:
    """The colour of the run at a place, as its curve has it."""
    return COLORS[index % len(COLORS)]
