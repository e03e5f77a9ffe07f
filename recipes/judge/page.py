"""A judgement as one HTML page that needs nothing beside it, in the style of comparisons of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from html import escape

from analogsim.evaluation.display import number, spread
from analogsim.evaluation.report import APART, Report, clean_columns
from analogsim.recipes.comparison.html_page import PAGE, drawing, make_table
from analogsim.recipes.comparison.style import STYLE

_MORE_STYLE = """
pre { overflow-x: auto; padding: .7rem; border: 1px solid var(--line); border-radius: .3em; user-select: all; }
.first { font-weight: 600; }
"""

Section = tuple[str, Sequence[str], Sequence[Sequence[str]]]


def page(judgements: Sequence[str], title: str) -> str:
    """The page of judgements that `written` gave.

    Args:
        judgements: HTML.
        title: of the page.
    """
    return PAGE.format(title=f"analogsim: {escape(title)}", style=STYLE + _MORE_STYLE, body="\n".join(judgements))


def written(
    *,
    title: str,
    first: Sequence[str],
    reports: Mapping[str, Report],
    sections: Sequence[Section],
    notes: Sequence[str],
    code: Mapping[str, str],
) -> str:
    """One judgement; all text is escaped.

    Args:
        title: that it stands under.
        first: paragraphs that stand first.
        reports: on test data, of the same times, by their names.
        sections: tables: what stands above, the heads of the columns, the rows.
        notes: what to know beside them.
        code: lines to copy, by what they are.
    """
    parts = [
        f"<h1>{escape(title)}</h1>",
        *(f'<p class="first">{escape(text)}</p>' for text in first),
        *(f"<h2>{escape(name)}</h2><pre>{escape(text)}</pre>" for name, text in code.items()),
        "<h2>On test data</h2>",
        drawing(reports, f"drift-{sha256(title.encode()).hexdigest()[:8]}"),
        _scores(reports),
    ]
    for above, head, rows in sections:
        cells = [[escape(cell) for cell in row] for row in rows]
        parts.append(f"<h2>{escape(above)}</h2>\n{make_table([escape(cell) for cell in head], cells)}")
    if notes:
        parts.append("<h2>To know beside the tables</h2>")
        parts += [f"<p>{escape(note)}</p>" for note in notes]
    return "\n".join(parts)


def _scores(reports: Mapping[str, Report]) -> str:
    listed = list(reports.values())
    unit = listed[0].unit
    columns = clean_columns(listed)
    rows = [[name, *(number(getattr(report, name), unit) for report in listed)] for name in columns]
    for at, label in enumerate(listed[0].labels):
        rows.append([f"after {label}", *(spread(report.mean[at], report.std[at], unit) for report in listed)])
    described = "; ".join(dict.fromkeys(report.described for report in listed))
    table = make_table([escape(listed[0].heading), *map(escape, reports)], rows)
    told = f"{APART}. " if columns[1:] else ""
    return f"{table}<p><small>{told}Mean ± standard deviation over chips: {escape(described)}</small></p>"
