"""The judgement as a value: what was measured, what follows from it, and how to do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from analogsim.errors import InvalidValueError
from analogsim.evaluation.display import number, spread
from analogsim.evaluation.report import Report, compare_table
from analogsim.recipes.judge.page import page, written
from analogsim.recipes.judge.paired import Difference
from analogsim.utils.digests import unsealed
from analogsim.utils.text import table

NOTHING_TO_DO = "nothing to do"
RECOMMENDED = "recommended"
NO_REMEDY = "no remedy helps"
OPEN = "not decided"


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Args:
        name: of a remedy, a non-ideality or a layer.
        score: mean over chips; NaN where there is none.
        std: from chip to chip.
        gain: how much better than as it is, or what is lost.
        error: of it, standard error of chips and samples.
        beyond: whether it is not 0 beyond that error (95 %).
        cost: what it costs, or the share of the work.
        chips: how many.
    """

    name: str
    score: float
    std: float
    gain: float
    error: float
    beyond: bool
    cost: str = ""
    chips: int = 0

    def told(self, unit: str | None) -> str:
        """Gain and error: ``"+2.13 ± 0.21"``."""
        sign = "+" if self.gain >= 0 else "-"
        return sign + spread(abs(self.gain), self.error, unit)


@dataclass(frozen=True, eq=False)
class Judgement:
    """What a trained network loses on chips, and what to do about it. ``str()`` is the answer as text.

    Args:
        verdict: `RECOMMENDED`, `NOTHING_TO_DO`, `NO_REMEDY`, or `OPEN` where time ran out first.
        advice: it in sentences.
        report: the network as it is, on test data.
        loss: of it, at the time by which it is judged.
        at: that time, as text.
        final: the same with what is recommended, on the same test data and chips; None where nothing is.
        gain: of that, at the time by which it is judged; None where nothing is.
        recommended: the names of the remedies.
        command: that judges them again.
        python: that does them.
        parts: what each non-ideality costs, on validation data, as the rows that follow: the score without it.
        layers: what each layer costs alone.
        remedies: what each remedy brings.
        untried: what was not tried, and why.
        notes: what to know beside the tables.
        guess: the score of answers that belong to other samples, or of guessing.
        seconds: that it took.
        minutes: that it was given.
    """

    verdict: str
    advice: str
    report: Report
    loss: Difference
    at: str
    final: Report | None = None
    gain: Difference | None = None
    recommended: tuple[str, ...] = ()
    command: str = ""
    python: str = ""
    parts: tuple[Row, ...] = ()
    layers: tuple[Row, ...] = ()
    remedies: tuple[Row, ...] = ()
    untried: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    guess: float | None = None
    seconds: float = 0.0
    minutes: float = 0.0

    @property
    def clean(self) -> float:
        """The score of the network without errors, see `Report.clean`."""
        return self.report.clean

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and text, for JSON; `from_dict` is its inverse."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("report", "final"):
            fields[name] = None if fields[name] is None else fields[name].to_dict()
        for name in ("loss", "gain"):
            fields[name] = None if fields[name] is None else asdict(fields[name])
        for name in ("parts", "layers", "remedies"):
            fields[name] = [asdict(row) for row in fields[name]]
        for name in ("untried", "notes", "recommended"):
            fields[name] = [list(entry) if isinstance(entry, tuple) else entry for entry in fields[name]]
        return fields

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Judgement:
        """The judgement that ``to_dict()`` was taken of, also as it is in files, with a digest.

        Raises:
            ValueError: it is not as it was written.
        """
        fields = unsealed(data)
        try:
            return cls._of(fields)
        except (TypeError, KeyError, ValueError) as error:
            raise InvalidValueError(f"judgement: what it holds is no judgement, or damaged: {error}") from error

    @classmethod
    def _of(cls, fields: dict[str, Any]) -> Judgement:
        for name in ("report", "final"):
            fields[name] = None if fields[name] is None else Report.from_dict(fields[name])
        for name in ("loss", "gain"):
            fields[name] = None if fields[name] is None else Difference(**fields[name])
        for name in ("parts", "layers", "remedies"):
            fields[name] = tuple(Row(**row) for row in fields[name])
        fields["untried"] = tuple((name, why) for name, why in fields["untried"])
        for name in ("notes", "recommended"):
            fields[name] = tuple(fields[name])
        return cls(**fields)

    def replace(self, **changes: Any) -> Judgement:
        """A copy with other fields."""
        return replace(self, **changes)

    def to_html(self) -> str:
        """One page that needs nothing beside it."""
        return page([self.body(f"{self.report.metric} on chips")], f"{self.report.metric} on chips")

    def body(self, title: str) -> str:
        """What stands on the page, under a title."""
        return written(
            title=title,
            first=(self.headline(), self.advice),
            reports=self.reports(),
            sections=self.sections(),
            notes=self.notes,
            code={
                name: text for name, text in (("In Python", self.python), ("Judged by itself", self.command)) if text
            },
        )

    def sections(self) -> list[tuple[str, Sequence[str], list[list[str]]]]:
        """The tables: what stands above, the heads of the columns, the rows."""
        unit = self.report.unit
        mean = f"{self.report.heading}, mean ± std"
        found: list[tuple[str, Sequence[str], list[list[str]]]] = []
        if self.parts:
            title = f"What costs most after {self.at}: without it, on validation data"
            rows = [[row.name, spread(row.score, row.std, unit), row.told(unit)] for row in self.parts]
            found.append((title, ("without", mean, "gain ± error"), rows))
        if self.layers:
            title = f"Which layers cost most after {self.at}: these alone analog, on validation data"
            rows = [
                [row.name, spread(row.score, row.std, unit), row.told(unit), row.cost]
                for row in sorted(self.layers, key=lambda row: -row.gain)
            ]
            found.append((title, ("analog", mean, "loss ± error", "multiply-acc."), rows))
        if self.remedies:
            title = f"What each remedy brings after {self.at}, on validation data and chips of their own"
            rows = [
                [
                    row.name,
                    row.cost,
                    spread(row.score, row.std, unit),
                    row.told(unit) if row.name != "as it is" else "",
                    ("helps" if row.gain > 0 else "hurts") if row.beyond else "",
                    str(row.chips),
                ]
                for row in self.remedies
            ]
            found.append((title, ("remedy", "what it takes", mean, "gain ± error", "", "chips"), rows))
        if self.untried:
            found.append(("Not tried", ("remedy", "why"), [list(entry) for entry in self.untried]))
        return found

    def reports(self) -> dict[str, Report]:
        """The network as it is, and with what is recommended, on test data."""
        both = {"as it is": self.report}
        if self.final is not None and self.final.times == self.report.times:
            both["+".join(self.recommended) or "recommended"] = self.final
        return both

    def __str__(self) -> str:
        scores = self.reports()
        parts = [self.headline(), compare_table(scores if len(scores) > 1 else {"": self.report})]
        for title, head, rows in self.sections():
            words = 2 if head[0] == "remedy" else 1
            parts.append(f"{title}\n\n{table(head, rows, right=words)}")
        parts += [f"{note}" for note in self.notes]
        parts.append(self.advice)
        if self.recommended:
            parts.append(f"In Python:\n\n{_indented(self.python)}")
            if self.command:
                parts.append(f"Judged by itself:\n\n{_indented(self.command)}")
        return "\n\n".join(parts)

    def headline(self) -> str:
        """Clean score, loss and verdict in one line."""
        unit = self.report.unit
        lost = spread(self.loss.mean, self.loss.error, unit)
        return (
            f"{self.report.heading}: clean {number(self.clean, unit)}, lost on chips after {self.at}: {lost} "
            f"(standard error). Verdict: {self.verdict}."
        )


def page_of(judgements: Mapping[str, Judgement]) -> str:
    """One page of the judgements of several networks, by their names."""
    bodies = [each.body(f"{name}: {each.report.metric} on chips") for name, each in judgements.items()]
    return page(bodies, ", ".join(judgements))


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
