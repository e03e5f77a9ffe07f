"""A comparison of runs as one HTML page that needs nothing beside it: no script, no font, no file, no network."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from analogsim.evaluation.display import number
from analogsim.evaluation.report import Report, clean_columns, compare_plot
from analogsim.recipes.comparison.saved_runs import SavedRun
from analogsim.recipes.tracking import links

# Colours that can be told apart on white as well as on black.
COLORS = (
    "#1f83d6", "#e8710a", "#2ca02c", "#e0393e", "#9b6bd1", "#a0705f", "#e36bb5", "#808080", "#a9a800", "#12a5b5",
    "#7a9ff2", "#b5651d", "#00a36c", "#c2185b", "#5e7c16", "#6a5acd", "#d2a000", "#3d8b8b", "#ff7f7f", "#708090",
)  # fmt: skip
_NONE = "#777777"  # a run without a curve
_INK = "#010203"  # stands in the drawing for the colour of text, which the page chooses

STYLE = """
:root { color-scheme: light dark; --line: #8886; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; max-width: 75rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
svg { width: 100%; max-width: 56rem; height: auto; }
svg text { font-family: system-ui, sans-serif !important; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; min-width: 10rem; }
td { max-width: 20rem; overflow-wrap: anywhere; }
.mark { display: inline-block; min-width: 1.4em; margin-right: .5em; border-radius: .3em; color: #fff;
  text-align: center; font-weight: 600; }
small { opacity: .75; } code { user-select: all; }
"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def page(
    runs: Mapping[str, SavedRun],
    *,
    differing: Mapping[str, Sequence[str]] | None = None,
    notes: Sequence[str] = (),
    link: str = "",
    command: str = "",
    port: int = links.PORT,
) -> str:
    """The page; every text of the runs in it is escaped.

    Args:
        runs: by the letters that stand for them; one of them at least has a report, and all reports are of one metric
            and the same times.
        differing: the parameters that are not the same in all runs, and their value in each.
        notes: what to know beside the tables.
        link: MLflow's page that compares the runs, if there is one.
        command: after which it answers; empty where it does already.
        port: where ``analogsim ui`` serves a database, for the links of single runs.
    """
    reports = {mark: run.report for mark, run in runs.items() if run.report is not None}
    first = next(iter(reports.values()))
    colors = dict(zip(reports, itertools.cycle(COLORS), strict=False))
    badges = {mark: f'<span class="mark" style="background:{colors.get(mark, _NONE)}">{mark}</span>' for mark in runs}
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    parts = [
        f"<h1>{count}: {escape(first.metric)} after programming</h1>",
        drawing(reports, colors),
        "<h2>Scores</h2>",
        _scores(runs, badges, first, port),
        _parameters(differing or {}, list(badges.values())),
        _metrics(list(runs.values()), list(badges.values())),
        *(f"<p>{escape(note)}</p>" for note in notes),
        _to_mlflow(link, command),
    ]
    return PAGE.format(title=f"analogsim: {count}", style=STYLE, body="\n".join(filter(None, parts)))


def _parameters(differing: Mapping[str, Sequence[str]], heads: Sequence[str]) -> str:
    if not differing:
        return ""
    rows = [[escape(key), *map(escape, values)] for key, values in differing.items()]
    return "<h2>Parameters that differ</h2>\n" + make_table(["parameter", *heads], rows)


def _metrics(runs: Sequence[SavedRun], heads: Sequence[str]) -> str:
    names = sorted({name for run in runs for name in run.metrics})
    if not names:
        return ""
    rows = [
        [escape(name), *(f"{run.metrics[name]:.6g}" if name in run.metrics else "" for run in runs)] for name in names
    ]
    listed = make_table(["metric", *heads], rows)
    return f"<h2>Metrics</h2><details><summary>the last value of each</summary>{listed}</details>"


def _to_mlflow(link: str, command: str) -> str:
    if not link:
        return ""
    start = f"First start <code>{escape(command)}</code>, then open " if command else "Open "
    return f'<h2>MLflow</h2><p>{start}<a href="{escape(link)}">the page that compares these runs</a>.</p>'


def drawing(reports: Mapping[str, Report], colors: Mapping[str, str]) -> str:
    """The drift curves as an SVG element that takes the colour of its text from the page."""
    import matplotlib
    from cycler import cycler

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "analogsim",  # the same runs, the same page
        "text.parse_math": False,  # a dollar sign is one
        "axes.prop_cycle": cycler(color=[colors[mark] for mark in reports]),
        "text.color": _INK,
        "axes.edgecolor": _INK,
        "axes.labelcolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "grid.color": _INK,
        "grid.linewidth": 0.5,
        "legend.framealpha": 0.0,
    }
    with matplotlib.rc_context(settings):
        figure = compare_plot(reports)
        figure.set_size_inches(figure.get_figwidth() + 2.1, 4.5)  # a page is wider than a column
        for band in figure.axes[0].collections:  # many of them together must not hide the lines
            band.set_alpha(0.2 * min(1, 4 / len(reports)))
        picture = io.StringIO()
        about = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(picture, format="svg", transparent=True, metadata=about)
    drawn = picture.getvalue()
    return drawn[drawn.index("<svg") :].replace(_INK, "currentColor")


def _scores(runs: Mapping[str, SavedRun], badges: Mapping[str, str], first: Report, port: int) -> str:
    unit = first.unit
    names = clean_columns(run.report for run in runs.values() if run.report is not None)
    rows = []
    for mark, run in runs.items():
        name = escape(run.name)
        if run.experiment_id:
            name = f'<a href="{escape(links.run_link(run, port))}">{name}</a>'
        described = run.report.described if run.report else f"no report, {run.status}"
        cells = [f"{badges[mark]}{name}<br><small>{escape(described)}</small>"]
        if run.report is None:
            cells += [""] * (len(names) + len(first.times))
        else:
            cells += [number(getattr(run.report, name), unit) for name in names]
            for mean, std, low in zip(run.report.mean, run.report.std, run.report.quantile(first.tail), strict=True):
                spread = "" if std != std else f" ± {number(std, unit)}"
                cells.append(f"{number(mean, unit)}{spread}<br><small>{number(low, unit)}</small>")
        rows.append(cells)
    said = (
        f"<p><small>Mean ± standard deviation over chips; below it the {100 * first.tail:.0f}th percentile.</small></p>"
    )
    head = [escape(first.heading), *names, *(f"after {time}" for time in first.labels)]
    return make_table(head, rows) + said


def make_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already, wide ones with a bar of their own to scroll."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    return f'<div class="wide"><table>\n<tr>{top}</tr>\n{body}</table></div>'
