"""A comparison of runs as one HTML page that needs nothing beside it: no script, no font, no file, no network."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from analogsim.evaluation.display import MANY, number
from analogsim.evaluation.report import Report, clean_columns, compare_plot
from analogsim.integrations.metric_names import metric_name
from analogsim.recipes.comparison.saved_runs import SavedRun
from analogsim.recipes.comparison.style import STYLE, color_at, ink_on
from analogsim.recipes.tracking import links

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NONE = "#777777"  # a run without a curve
_NUMBERS = re.compile(r"[-+\d.,eE±%\s]*|nan|inf|True|False|None")
_INK = "#010203"  # stands in the drawing for the colour of text, which the page chooses

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
    colors = {mark: color_at(index) for index, mark in enumerate(reports)}
    badges = {mark: _badge(mark, colors.get(mark, _NONE)) for mark in runs}
    count = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    parts = [
        f"<h1>{count}: {escape(first.metric)} after programming</h1>",
        drawing(reports),
        "<h2>Scores</h2>",
        _scores(runs, badges, first, port),
        _parameters(differing or {}, list(badges.values())),
        _metrics(list(runs.values()), list(badges.values()), first),
        *(f"<p>{escape(note)}</p>" for note in notes),
        _to_mlflow(link, command),
    ]
    return PAGE.format(title=f"analogsim: {count}", style=STYLE, body="\n".join(filter(None, parts)))


def _badge(mark: str, color: str) -> str:
    return f'<span class="mark" style="background:{color};color:{ink_on(color)}">{mark}</span>'


def _parameters(differing: Mapping[str, Sequence[str]], heads: Sequence[str]) -> str:
    if not differing:
        return ""
    rows = [[escape(key), *map(escape, values)] for key, values in differing.items()]
    return "<h2>Parameters that differ</h2>\n" + make_table(["parameter", *heads], rows)


def _metrics(runs: Sequence[SavedRun], heads: Sequence[str], first: Report) -> str:
    names = sorted({name for run in runs for name in run.metrics})
    if not names:
        return ""
    judged = f"/{metric_name(first.metric)}/"

    def shown(name: str, value: float) -> str:
        return f"{number(value, '%')} %" if first.unit == "%" and judged in name else f"{value:.6g}"

    rows = [
        [escape(name), *(shown(name, run.metrics[name]) if name in run.metrics else "" for run in runs)]
        for name in names
    ]
    listed = make_table(["metric", *heads], rows)
    return f"<h2>Metrics</h2><details><summary>the last value of each</summary>{listed}</details>"


def _to_mlflow(link: str, command: str) -> str:
    if not link:
        return ""
    start = f"First start <code>{escape(command)}</code>, then open " if command else "Open "
    return f'<h2>MLflow</h2><p>{start}<a href="{escape(link)}">the page that compares these runs</a>.</p>'


def drawing(reports: Mapping[str, Report], name: str = "drift") -> str:
    """The drift curves as an SVG element that takes the colour of its text from the page.

    From six curves on, the band of one is seen while a pointer is on the curve or on its name.

    Args:
        reports: by what their curves are called.
        name: of the drawing, which no other one in the page has.
    """
    import matplotlib

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"analogsim {name}",  # the same runs, the same page
        "text.parse_math": False,  # a dollar sign is one
        "text.color": _INK,
        "axes.edgecolor": _INK,
        "axes.labelcolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "grid.color": _INK,
        "grid.linewidth": 0.5,
        "legend.framealpha": 0.0,
    }
    many = len(reports) >= MANY
    with matplotlib.rc_context(settings):
        figure = compare_plot(reports)
        figure.set_size_inches(figure.get_figwidth() + 2.1, 4.5)  # a page is wider than a column
        axes = figure.axes[0]
        if many:
            _wide_enough_to_point_at(axes)
        for part in (*axes.lines, *axes.collections, *_names_in(axes)):
            if part.get_gid():
                part.set_gid(f"{name}-{part.get_gid()}")
        picture = io.StringIO()
        about = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(picture, format="svg", transparent=True, metadata=about)
    drawn = picture.getvalue()
    drawn = drawn[drawn.index("<svg") :].replace(_INK, "currentColor")
    told = "<p><small>The band of a curve is seen while the pointer is on it, or on its name.</small></p>"
    shown = f"{_bands_when_pointed_at(name, len(reports))}\n{told}" if many else ""
    return f'<div class="wide">{drawn}</div>{shown}'


def _wide_enough_to_point_at(axes: Axes) -> None:
    """Lay a wide line that is not seen over each curve."""
    for line in [line for line in axes.lines if line.get_gid()]:
        x, y = line.get_data()
        over = str(line.get_gid()).replace("curve", "reach")
        axes.plot(x, y, lw=12, alpha=0, gid=over, label="_nolegend_", zorder=5)


def _names_in(axes: Axes) -> list[Any]:
    """The names of the curves in the legend, under ids of their own."""
    legend = axes.get_legend()
    names = [] if legend is None else legend.get_texts()
    for index, text in enumerate(names):
        text.set_gid(f"name-{index}")
    return names


def _bands_when_pointed_at(name: str, count: int) -> str:
    """Rules of style: a band is not there until something of its curve is pointed at."""
    rules = [f'[id^="{name}-band-"] {{ opacity: 0; }}', f'[id^="{name}-reach-"] {{ pointer-events: stroke; }}']
    for index in range(count):
        parts = ", ".join(f"#{name}-{part}-{index}:hover" for part in ("reach", "curve", "name"))
        rules.append(f"svg:has({parts}) #{name}-band-{index} {{ opacity: 1; }}")
        rules.append(f"#{name}-band-{index} path, #{name}-band-{index} use {{ fill-opacity: .3 !important; }}")
    return "<style>{}</style>".format("\n".join(rules))


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
    """A table of cells that are HTML already, wide ones with a bar of their own to scroll; numbers are not broken."""
    top = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(f"<tr><td>{row[0]}</td>{''.join(map(_cell, row[1:]))}</tr>\n" for row in rows)
    return f'<div class="wide"><table>\n<tr>{top}</tr>\n{body}</table></div>'


def _cell(content: str) -> str:
    kind = "" if _NUMBERS.fullmatch(re.sub("<[^>]*>", " ", content)) else ' class="text"'
    return f"<td{kind}>{content}</td>"
