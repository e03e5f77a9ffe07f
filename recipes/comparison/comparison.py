"""Runs beside one another: chart and tables for a terminal, a page, a frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from analogsim.evaluation.display import number
from analogsim.evaluation.report import Report, clean_columns
from analogsim.integrations.metric_names import tail
from analogsim.recipes.comparison import html_page
from analogsim.recipes.comparison.charts import MARKS, drift_chart
from analogsim.recipes.comparison.saved_runs import SavedRun
from analogsim.recipes.tracking import links
from analogsim.utils.text import table
from analogsim.utils.times import label

if TYPE_CHECKING:
    from pandas import DataFrame

_WIDTH, _WIDEST = 80, 100  # of the text as such, and of the chart in a wide terminal
_SHORTEST, _LONGEST = 12, 32  # characters to which a value is cut, if it has to be


@dataclass(frozen=True)
class Comparison:
    """Several runs with distinct names, at the times that all their reports share.

    Attributes:
        runs: as they were asked for; those that did not get so far have no report.
        notes: what to know beside the tables.
        port: where ``analogsim ui`` serves a database.
        view: the page of MLflow that shows the runs' curves, where one is kept.
    """

    runs: tuple[SavedRun, ...]
    notes: tuple[str, ...] = ()
    port: int = links.PORT
    view: str = ""

    @property
    def marks(self) -> dict[str, SavedRun]:
        """The runs by the letters that stand for them in charts and tables."""
        return dict(zip(MARKS, self.runs, strict=False))

    @property
    def reports(self) -> dict[str, Report]:
        """The reports by the runs' names."""
        return {run.name: run.report for run in self.runs if run.report is not None}

    @property
    def differing(self) -> dict[str, tuple[str, ...]]:
        """The parameters that are not the same in all runs: their value in each, empty where a run has none."""
        known = [run for run in self.runs if run.params]
        keys = dict.fromkeys(key for run in known for key in run.params)
        differ = [key for key in keys if len({run.params.get(key) for run in known}) > 1]
        return {key: tuple(run.params.get(key, "") for run in self.runs) for key in differ}

    @property
    def stored(self) -> tuple[SavedRun, ...]:
        """The runs that are in MLflow."""
        return tuple(run for run in self.runs if run.experiment_id)

    @property
    def link(self) -> str:
        """MLflow's page that compares the runs; empty where none is in MLflow, or not all in one store."""
        if len({run.uri for run in self.stored}) != 1:
            return ""
        return self.view or links.compare_link(self.stored, self.port)

    @property
    def command(self) -> str:
        """The command after which the link answers; empty where there is nothing to start."""
        return links.ui_command(self.stored[0].uri, self.port) if self.link else ""

    def __str__(self) -> str:
        return self.text(_WIDTH)

    def text(self, width: int) -> str:
        """Chart and tables for a terminal of so many characters."""
        parts = [
            drift_chart(dict(self._judged()), min(width, _WIDEST)),
            self._names(),
            self._scores(width),
        ]
        open_runs = [(mark, run) for mark, run in self.marks.items() if run.report is None]
        if open_runs:
            rows = [(mark, run.status, _last(run) or "nothing yet") for mark, run in open_runs]
            parts.append(table(("", "without a report", "last metrics"), rows, right=3))
        if self.differing:
            parts.append(self._parameters(width))
        parts += self.notes
        return "\n\n".join(parts)

    def _judged(self) -> list[tuple[str, Report]]:
        return [(mark, run.report) for mark, run in self.marks.items() if run.report is not None]

    def _names(self) -> str:
        names = table(("", "run"), [(mark, run.name) for mark, run in self.marks.items()], right=2)
        settings: dict[str, list[str]] = {}
        for mark, report in self._judged():
            settings.setdefault(report.described, []).append(mark)
        lines = [
            described if len(settings) == 1 else f"{' '.join(marks)}: {described}"
            for described, marks in settings.items()
        ]
        return "\n".join([names, *lines])

    def _scores(self, width: int) -> str:
        """Mean ± std at each time; where that is too wide only the mean, and the spread at the last time."""
        runs = self._judged()
        first = runs[0][1]
        unit, last = first.unit, first.labels[-1]
        names = clean_columns(report for _, report in runs)
        full = []
        short = []
        for mark, report in runs:
            means = [number(value, unit) for value in report.mean]
            spreads = ["" if value != value else number(value, unit) for value in report.std]
            low = number(report.quantile(first.tail)[-1], unit)
            clean = [number(getattr(report, name), unit) for name in names]
            pairs = [f"{mean} ± {spread}" if spread else mean for mean, spread in zip(means, spreads, strict=True)]
            full.append((mark, *clean, *pairs, low))
            short.append((mark, *clean, *means, spreads[-1], low))
        text = table(("", *names, *first.labels, f"{first.tail_label} {last}"), full)
        what = f"{first.heading}: mean ± std over chips"
        if max(map(len, text.splitlines())) > width:
            text = table(("", *names, *first.labels, f"± std {last}", f"{first.tail_label} {last}"), short)
            what = f"{first.heading}: mean over chips"
        return f"{what}\n{text}"

    def _parameters(self, width: int) -> str:
        """Parameters as rows and runs as columns, in as many tables as the width needs."""
        marks = list(self.marks)
        name = max(map(len, [*(_cut(key, _LONGEST) for key in self.differing), "parameter"]))
        longest = min(max((width - name) // len(marks) - 2, _SHORTEST), _LONGEST)
        rows = {_cut(key, _LONGEST): [_cut(value, longest) for value in row] for key, row in self.differing.items()}
        columns = [max(1, *(len(row[index]) for row in rows.values())) + 2 for index in range(len(marks))]
        blocks, start = [], 0
        while start < len(marks):
            end = start + 1
            while end < len(marks) and name + sum(columns[start : end + 1]) <= width:
                end += 1
            body = [(key, *row[start:end]) for key, row in rows.items()]
            blocks.append(table(("parameter", *marks[start:end]), body))
            start = end
        return "parameters that differ\n" + "\n\n".join(blocks)

    def to_html(self) -> str:
        """One page that needs nothing beside it: curves, tables, links."""
        return html_page.page(
            self.marks,
            differing=self.differing,
            notes=self.notes,
            link=self.link,
            command=self.command,
            port=self.port,
        )

    def to_frame(self) -> DataFrame:
        """One row per run and time, as a pandas frame; scores as they are, not in percent.

        Where one of them has another digital than clean score, both are columns. The bad end of the chips is the column
        ``p05``, or ``p95`` where the lower score is the better one.
        """
        import pandas as pd

        names = clean_columns(self.reports.values())
        return pd.DataFrame(
            [
                {
                    "run": name,
                    "seconds": time,
                    "time": label(time),
                    **{name: getattr(report, name) for name in names},
                    "mean": report.mean[index],
                    "std": report.std[index],
                    tail(report.tail): report.quantile(report.tail)[index],
                    "chips": len(report.seeds),
                }
                for name, report in self.reports.items()
                for index, time in enumerate(report.times)
            ]
        )


def _last(run: SavedRun) -> str:
    names = [name for name in run.metrics if name.startswith("validation/")] or list(run.metrics)
    return ", ".join(f"{name} {run.metrics[name]:.4g}" for name in names[:3])


def _cut(text: str, longest: int) -> str:
    """The beginning and the end of a text: what differs may be at either."""
    end = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[: longest - 1 - end]}…{text[-end:]}"
