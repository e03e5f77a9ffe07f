"""The answer of `analogsim.evaluate`: a score for every chip and time, and what people ask of it."""

from __future__ import annotations

import itertools
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.evaluation.display import (
    FloatArray,
    curve_style,
    figure,
    frame,
    heading,
    in_unit,
    legend,
    number,
    small,
    spread,
    titled,
)
from analogsim.evaluation.metrics import METRICS
from analogsim.evaluation.sampling.over_chips import (
    Sampled,
    chip_variance,
    chips_needed,
    half_width,
    quantile,
    quantile_interval,
)
from analogsim.utils.digests import unsealed
from analogsim.utils.text import table
from analogsim.utils.times import label, seconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_times(value: object) -> bool:
    return isinstance(value, list | tuple) and all(_is_number(time) and 0 <= time < math.inf for time in value)


def _are_seeds(value: object) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(type(seed) is int for seed in value)


# What a stored report may hold, by the names of its fields; the values are looked at with their shape.
_STORED: dict[str, Callable[[Any], bool]] = {
    "times": _are_times,
    "clean": _is_number,
    "metric": lambda value: isinstance(value, str),
    "device": lambda value: isinstance(value, str),
    "seeds": _are_seeds,
    "compensation": lambda value: isinstance(value, str | None),
    "chance": lambda value: value is None or _is_number(value),
    "samples": lambda value: type(value) is int and value >= 0,
    "unit": lambda value: isinstance(value, str | None),
    "higher_is_better": lambda value: isinstance(value, bool | None),
    "digital": lambda value: value is None or _is_number(value),
    "constant": lambda value: isinstance(value, bool),
    "precision": lambda value: value is None or (_is_number(value) and value > 0),
    "sampled": lambda value: value is None or isinstance(value, Mapping),
}


@dataclass(frozen=True, eq=False)
class Report:
    """Scores of many chips at several times after programming. Equal to what holds the same, NaN being NaN.

    Args:
        values: the metric of each chip at each time, ``(chips, times)``.
        times: seconds after programming.
        clean: the metric of the network without errors on the same data: of the digital network, or, where training saw
            the converters, of that behind its converters, see `analogsim.evaluate`.
        metric: its name.
        device: the device models' names, and what is not ideal in their crossbars.
        seeds: the chips.
        compensation: what was compensated.
        chance: the score of guessing, None where the metric has none.
        samples: number of samples in the data.
        unit: of the metric, see `Metric`; None: that of the metric known by this name, with its direction.
        higher_is_better: of the metric; None: not known.
        digital: the metric of the digital network, without converters; None: it is `clean`, as in older reports.
        constant: whether chips answer the same at every age, so that each was judged once and has that score at all
            times.
        precision: half the width of the 95 % interval of the mean that chips were judged for; None: so many chips.
        sampled: of chips that were asked part of the data each, how much of it, and how sure their scores are, which
            are then estimates; None: they are scores on all the data.
    """

    values: FloatArray
    times: tuple[float, ...]
    clean: float
    metric: str
    device: str
    seeds: tuple[int, ...]
    compensation: str | None
    chance: float | None = None
    samples: int = 0
    unit: str | None = None
    higher_is_better: bool | None = None
    digital: float = None  # type: ignore[assignment]  # which __post_init__ puts right
    constant: bool = False
    precision: float | None = None
    sampled: Sampled | None = None

    def __post_init__(self) -> None:
        if vars(self)["digital"] is None:
            object.__setattr__(self, "digital", self.clean)
        if self.unit is not None:
            return
        known = METRICS.get(self.metric)
        object.__setattr__(self, "unit", known.unit if known else "")
        if known and self.higher_is_better is None:
            object.__setattr__(self, "higher_is_better", known.higher_is_better)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Report):
            return NotImplemented
        # What dataclass would write asks an array whether it is true, and NaN whether it is NaN.
        scores = np.array_equal(self.values, other.values, equal_nan=True)
        return scores and all(_same(mine, vars(other)[name]) for name, mine in vars(self).items() if name != "values")

    def __hash__(self) -> int:
        return hash((self.metric, self.device, self.times, self.seeds))

    @property
    def apart(self) -> bool:
        """Whether the digital network scores other than clean, so that both are told."""
        return self.digital != self.clean and not (math.isnan(self.clean) and math.isnan(self.digital))

    @property
    def heading(self) -> str:
        """What stands above its scores in tables: ``"accuracy [%]"``."""
        return heading(self.metric, self.unit)

    @property
    def tail(self) -> float:
        """The quantile that 19 of 20 chips reach: 0.05, or 0.95 where the lower score is the better one.

        0.05 too where the direction is not known: it is then the lower end of the chips, be that the good or the bad.
        """
        return 0.95 if self.higher_is_better is False else 0.05

    @property
    def tail_label(self) -> str:
        """It as text: ``"5th pct."``."""
        return f"{100 * self.tail:.0f}th pct."

    @property
    def mean(self) -> FloatArray:
        """Mean over chips at each time, ``(times,)``."""
        return np.asarray(self.values.mean(axis=0))

    @property
    def std(self) -> FloatArray:
        """Standard deviation from chip to chip at each time; NaN for one chip.

        The root of an unbiased variance, out of which that is taken which comes from asking chips part of the data; 0
        where nothing is left.
        """
        return np.sqrt(np.maximum(chip_variance(self.values, self.sampled), 0))

    def quantile(self, q: float) -> FloatArray:
        """The q-quantile over chips at each time: of `tail` it is what 19 of 20 chips reach.

        Of chips that were asked part of the data what that adds to their spread is taken out, see
        `analogsim.evaluation.sampling.over_chips`; NaN where too little is known of the spread that is left.

        Raises:
            ValueError: ``q`` is not between 0 and 1.

        Warns:
            UserWarning: it is NaN, and how many chips it takes.
        """
        told = self.unknown_told(q)
        if told:
            warnings.warn(f"quantile: {told}", stacklevel=2)
        return self.known_quantile(q)

    def known_quantile(self, q: float) -> FloatArray:
        """`quantile` without a warning, for tables and figures that say by themselves where it is not known."""
        if not 0 <= q <= 1:
            raise InvalidValueError(f"quantile: q must be in [0, 1], got {q!r}")
        return quantile(self.values, self.sampled, q)

    def unknown_told(self, q: float) -> str:
        """What is to be said of times at which a quantile is not known; empty for nothing."""
        unknown = np.isnan(self.known_quantile(q)) & ~np.isnan(self.values).any(axis=0)
        if self.sampled is None or not unknown.any():
            return ""
        needed = chips_needed(self.values, self.sampled)
        counts = [count for count, nan in zip(needed, unknown, strict=True) if nan]
        more = "" if None in counts else f"about {max(map(int, filter(None, counts))):,} chips, or "
        at = ", ".join(time for time, nan in zip(self.labels, unknown, strict=True) if nan)
        return (
            f"what {len(self.values)} chips on part of the data say of their spread after {at} may be chance; a "
            f"quantile takes {more}more samples a chip"
        )

    def quantile_interval(self, q: float, confidence: float = 0.95) -> FloatArray:
        """Confidence interval of a quantile over chips, ``(2, times)``: lower and upper bound.

        From the order of the chips, whatever their law; an end that takes more chips than there are is infinite (the
        5th percentile has a lower end from 72 chips on). Of chips that were asked part of the data from the errors of
        mean and variance, as normal numbers have them.

        Raises:
            ValueError: ``q`` or the confidence is not between 0 and 1.
        """
        if not 0 <= q <= 1:
            raise InvalidValueError(f"quantile: q must be in [0, 1], got {q!r}")
        _check_confidence(confidence)
        return quantile_interval(self.values, self.sampled, q, confidence)

    def interval(self, confidence: float = 0.95) -> FloatArray:
        """Confidence interval of the mean (Student's t over chips), ``(2, times)``: lower and upper bound.

        It is that of the mean over all chips that there might be, on these data; estimates of chips that were asked
        part of them bring their own errors into it.
        """
        _check_confidence(confidence)
        half = half_width(self.values, confidence)
        return np.stack((self.mean - half, self.mean + half))

    @property
    def normalized(self) -> FloatArray:
        r"""Normalised accuracy of each chip and time: 1 is the clean network, 0 is chance.

        .. math:: A^* = 1 - \frac{err - err_{clean}}{err_{chance} - err_{clean}}

        ``replace(report, clean=...)`` (of `dataclasses`) refers it to another network, such as the plainly trained one.

        Raises:
            ValueError: the metric has no chance level.

        Source: Rasch et al., Nat. Commun. 14 (2023).
        """
        if self.chance is None or self.clean == self.chance:
            raise InvalidValueError(
                f"normalized: the metric {self.metric!r} has no chance level apart from its clean value"
            )
        return np.asarray(1 - (self.clean - self.values) / (self.clean - self.chance))

    @property
    def described(self) -> str:
        """What the scores were measured on: device, chips, samples, compensation."""
        chips, samples = "1 chip" if len(self.seeds) == 1 else f"{len(self.seeds)} chips", f", {self.samples} samples"
        if self.sampled is not None:
            asked = sorted({round(count) for count in self.sampled.asked.mean(axis=0).tolist()})
            samples = (
                f" on {' to '.join(map(str, dict.fromkeys((asked[0], asked[-1]))))} of {self.samples} samples each"
            )
        once = "; no change with time, judged once" if self.constant and self.times[1:] else ""
        told = f"{self.device}, {chips}{samples}, compensation: {self.compensation or 'none'}{once}"
        return told + self._precision_told()

    def _precision_told(self) -> str:
        """How precisely the mean is known, where a precision was asked for."""
        if self.precision is None:
            return ""
        half = float(half_width(self.values).max())
        less = "" if half <= self.precision else f", not ±{small(self.precision, self.unit)} as was asked for"
        return f"\n95 % interval of the mean, at the time when it is widest: ±{small(half, self.unit)}{less}"

    @property
    def labels(self) -> tuple[str, ...]:
        """The times as short text: ``"1h"``."""
        return tuple(label(t) for t in self.times)

    def at(self, time: float | str) -> FloatArray:
        """The scores of all chips at one of the evaluated times, ``(chips,)``."""
        t = seconds(time)
        if t not in self.times:
            raise InvalidValueError(f"report: {time!r} was not evaluated; there are {', '.join(self.labels)}")
        return np.asarray(self.values[:, self.times.index(t)])

    def only(self, times: Sequence[float | str]) -> Report:
        """The same report at some of the evaluated times, in the given order."""
        chosen = [self.at(time) for time in times]
        if not chosen:
            raise InvalidValueError(f"report: give at least one of the evaluated times {', '.join(self.labels)}")
        instants = tuple(seconds(time) for time in times)
        places = [self.times.index(time) for time in instants]
        sampled = None if self.sampled is None else self.sampled.at(slice(None), places)
        return replace(self, values=np.stack(chosen, axis=1), times=instants, sampled=sampled)

    def to_frame(self) -> DataFrame:
        """One row per chip and time: chip, seconds, time, and the metric, as a pandas frame.

        Where clean and digital score are not the same, both are columns too.
        """
        both = clean_columns([self]) if self.apart else ()
        return frame(
            {
                "chip": np.repeat(self.seeds, len(self.times)),
                "seconds": np.tile(self.times, len(self.seeds)),
                "time": np.tile(self.labels, len(self.seeds)),
                self.metric: self.values.ravel(),
                **{name: np.repeat(getattr(self, name), self.values.size) for name in both},
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and text, for JSON; `from_dict` is its inverse."""
        return {
            "values": self.values.tolist(),
            "times": list(self.times),
            "clean": self.clean,
            "metric": self.metric,
            "device": self.device,
            "seeds": list(self.seeds),
            "compensation": self.compensation,
            "chance": self.chance,
            "samples": self.samples,
            "unit": self.unit,
            "higher_is_better": self.higher_is_better,
            "digital": self.digital,
            **({"constant": True} if self.constant else {}),
            **({} if self.precision is None else {"precision": self.precision}),
            **({} if self.sampled is None else {"sampled": self.sampled.to_dict()}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Report:
        """The report that ``to_dict()`` was taken of, also as it is in files, with a digest.

        Raises:
            ValueError: it is none, or not as it was written.
        """
        plain = unsealed(data)
        every = {spec.name: spec.default is MISSING for spec in fields(cls)}
        odd = [f"no {key!r}" for key, needed in every.items() if needed and key not in plain]
        odd += [f"an unknown {key!r}" for key in plain if key not in every]
        given = {key: (plain[key], holds) for key, holds in _STORED.items() if key in plain}
        odd += [f"{key}={_shown(value)}" for key, (value, holds) in given.items() if not holds(value)]
        if odd:
            raise InvalidValueError(f"report: it has {odd[0]}")
        values = np.asarray(plain["values"], dtype=np.float64)
        chips, times = tuple(plain["seeds"]), tuple(plain["times"])
        if values.shape != (len(chips), len(times)) or np.isinf(values).any() or len({*chips}) < len(chips):
            raise InvalidValueError(
                f"report: it has {values.shape} values for {len(chips)} chips and {len(times)} times, infinite "
                "ones, or a chip twice"
            )
        sampled = _sampled(plain.get("sampled"), values)
        return cls(**{**plain, "values": values, "times": times, "seeds": chips, "sampled": sampled})

    @classmethod
    def merged(cls, reports: Iterable[Report]) -> Report:
        """One report of all the chips that several reports are of, the lowest seed first.

        Args:
            reports: parts of one evaluation, on other chips each.

        Raises:
            TypeError: they are no reports.
            ValueError: no report; a chip is in two of them; or they are not parts of one evaluation: other times,
                metric, hardware, compensation, data, or clean score (but for rounding, which differs from machine to
                machine; the report keeps the first one's).
        """
        parts = sorted(_reports("merged", reports), key=lambda report: report.seeds)
        if not parts:
            raise InvalidValueError("merged: give at least one report")
        first = parts[0]
        _check_sampled(parts)
        for name in (
            "times",
            "metric",
            "unit",
            "higher_is_better",
            "device",
            "compensation",
            "samples",
            "chance",
            "constant",
        ):
            for part in parts:
                if getattr(part, name) != getattr(first, name):
                    raise InvalidValueError(
                        f"merged: the reports differ in {name}: {getattr(first, name)!r} and {getattr(part, name)!r}"
                    )
        for name, part in itertools.product(("digital", "clean"), parts):
            mine, other = getattr(first, name), getattr(part, name)
            if not np.isclose(mine, other, rtol=1e-6, atol=1e-9, equal_nan=True):
                raise InvalidValueError(
                    f"merged: the {name} networks score {mine!r} and {other!r}; their weights or data are not the same"
                )
        seeds = [seed for part in parts for seed in part.seeds]
        twice = sorted(seed for seed, count in Counter(seeds).items() if count > 1)
        if twice:
            others = f", as are {len(twice) - 1} others" if twice[1:] else ""
            raise InvalidValueError(f"merged: chip {twice[0]} is in two of the reports{others}")
        order = np.argsort(seeds, kind="stable")
        values = np.concatenate([part.values for part in parts])[order]
        sampled = Sampled.merged([part.sampled for part in parts], order)
        return replace(first, values=values, seeds=tuple(sorted(seeds)), precision=None, sampled=sampled)

    def __str__(self) -> str:
        return compare_table({"": self})

    def plot(self) -> Figure:
        """The drift curve: mean, the middle 90 % of the chips, and the clean value, over a logarithmic time axis."""
        return compare_plot({self.device.partition(" (")[0]: self})  # all of it stands above the figure


def _same(mine: object, other: object) -> bool:
    nans = (isinstance(value, float) and math.isnan(value) for value in (mine, other))
    return mine == other or all(nans)


def _check_sampled(parts: Sequence[Report]) -> None:
    if len({part.sampled is None for part in parts}) > 1:
        raise InvalidValueError("merged: some of the reports are of chips on part of the data, and others on all")


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise InvalidValueError(f"interval: confidence must be in (0, 1), got {confidence!r}")


def _sampled(stored: Any, values: FloatArray) -> Sampled | None:
    """What a stored report says of chips on part of the data.

    Raises:
        ValueError: that is not of these values.
    """
    if stored is None:
        return None
    try:
        found = Sampled.from_dict(stored)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidValueError(f"report: it has sampled={_shown(stored)} ({error})") from None
    if found.variances.shape != values.shape or found.asked.shape != values.shape or not (found.variances >= 0).all():
        raise InvalidValueError(f"report: it has other variances of samples than for {values.shape} values")
    return found


def _shown(given: object) -> str:
    text = repr(given)
    return text if len(text) < 80 and "\n" not in text else f"a {type(given).__name__}"


def _reports(of: str, given: Iterable[Report]) -> list[Report]:
    """What was given to a function of this name, if it is reports."""
    listed = list(given) if isinstance(given, Iterable) else [given]
    for report in listed:
        if not isinstance(report, Report):
            raise InvalidTypeError(
                f"{of}: give reports, got {_shown(report)}; evaluate makes them, Report.from_dict of what to_dict gave"
            )
    return listed


APART = "clean: behind the converters, without errors; digital: without converters"
"""What the two scores are, for tables that have both."""


def clean_columns(reports: Iterable[Report]) -> tuple[str, ...]:
    """Which scores without errors tables of some reports have: ``"clean"``, and ``"digital"`` where one differs."""
    return ("clean", "digital") if any(report.apart for report in reports) else ("clean",)


def _check_comparable(reports: Mapping[str, Report]) -> list[Report]:
    if not reports:
        raise InvalidValueError("compare: give at least one report")
    if not isinstance(reports, Mapping):
        raise InvalidTypeError(f"compare: give a mapping from names to reports, got {_shown(reports)}")
    listed = _reports("compare", reports.values())
    if len({(report.times, report.metric, report.unit) for report in listed}) > 1:
        raise InvalidValueError("compare: the reports have different times or metrics")
    if len({report.higher_is_better for report in listed} - {None}) > 1:
        raise InvalidValueError(f"compare: the reports do not agree whether a higher {listed[0].metric!r} is better")
    return listed


def compare_table(reports: Mapping[str, Report]) -> str:
    """Several reports side by side: clean, then mean ± std and the `Report.tail` over chips at each time.

    Where one has another digital than clean score, digital ones have a row too.

    Raises:
        ValueError: no report, or reports of different times or metrics.
    """
    listed = _check_comparable(reports)
    first = listed[0]
    unit = first.unit
    head = [first.heading]
    for name in reports:
        head += [name or "mean ± std", first.tail_label]
    rows = []
    for column in clean_columns(listed):
        rows.append([column, *(cell for report in listed for cell in (number(getattr(report, column), unit), ""))])
    apart = len(rows) > 1
    tails = [report.known_quantile(first.tail) for report in listed]
    for index, time in enumerate(first.labels):
        row = [f"after {time}"]
        for report, tail in zip(listed, tails, strict=True):
            row += _cells(report, index, tail[index])
        rows.append(row)
    what = "" if "" in reports else "mean ± std over chips: "
    body = f"{table(head, rows)}\n{APART}" if apart else table(head, rows)
    body += _unknown_tails(reports, first.tail)
    if len({report.described for report in listed}) == 1:
        return f"{body}\n{what}{first.described}"
    last = "\n".join(f"{name}: {what}{report.described}" for name, report in reports.items())
    return f"{body}\n{last}"


def _unknown_tails(reports: Mapping[str, Report], tail: float) -> str:
    """A line for each report whose tail is not known at some times."""
    told = {name: report.unknown_told(tail) for name, report in reports.items()}
    return "".join(f"\n?: {f'{name}: ' if name else ''}{text}" for name, text in told.items() if text)


def _cells(report: Report, index: int, tail: float) -> tuple[str, str]:
    """Mean ± std, and the tail, at one of the times."""
    mean, std = float(report.mean[index]), float(report.std[index])
    if report.sampled is not None and math.isnan(tail):  # their spread may be chance
        return f"{number(mean, report.unit)} ± ?", "?"
    return spread(mean, std, report.unit), number(tail, report.unit)


def compare_plot(reports: Mapping[str, Report]) -> Figure:
    """Drift curves of several reports in one figure, see `Report.plot`.

    Curves differ in colour, dash and marker; the parts of the one at place 3 have the ids ``curve-3`` and ``band-3``.
    """
    listed = _check_comparable(reports)
    drawn, axes = figure(6.4, 4.0)
    for index, (name, report) in enumerate(reports.items()):
        style = curve_style(index)
        color = style["color"]
        # A logarithmic axis has no zero: the moment after programming is drawn at a tenth of a second.
        seconds = np.maximum(report.times, 0.1)
        axes.plot(seconds, report.mean, **style, lw=1.8, ms=5, label=name, gid=f"curve-{index}")
        low, high = report.known_quantile(0.05), report.known_quantile(0.95)
        faint = 0.2 * min(1, 4 / len(reports))  # many of them together must not hide the curves
        axes.fill_between(seconds, low, high, color=color, alpha=faint, lw=0, gid=f"band-{index}")
        axes.axhline(report.clean, color=color, lw=0.8)
        if report.apart:
            axes.axhline(report.digital, color=color, ls=":", lw=0.8)
    axes.set_xscale("log")
    axes.set_xticks(np.maximum(listed[0].times, 0.1), listed[0].labels)
    axes.minorticks_off()
    axes.set_xlabel("time after programming")
    axes.set_ylabel(listed[0].heading)
    in_unit(axes.yaxis, listed[0].unit)
    described = {report.described for report in listed}
    of = described.pop() if len(described) == 1 else "different settings, see the table"
    level = "thin and level: clean" + (", dotted: digital" if clean_columns(listed)[1:] else "")
    titled(axes, f"mean and 5th to 95th percentile of the chips; {level}", of)
    legend(drawn, axes)
    axes.grid(alpha=0.3)
    return drawn
