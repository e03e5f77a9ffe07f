"""The search space of a study: which settings are searched, between which values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from analogsim.errors import InvalidValueError
from analogsim.recipes.config.reader import NONE, Reader, Table, every_option, members_of
from analogsim.utils.text import table

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.distributions import BaseDistribution

# What says where a run lies and how it is judged is no property of the network.
_FIXED = (
    *("seed", "run_on", "out", "baseline", "task", "metric", "evaluation.", "tracking."),
    *("data.name", "data.folder", "data.download", "data.validation", "data.limit"),
)


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; in steps, or evenly on a logarithmic scale, if so said."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def to_plain(self) -> dict[str, Any]:
        """As in a file: what is said of it, and no more."""
        plain: dict[str, Any] = {"low": self.low, "high": self.high}
        return plain | ({"log": True} if self.log else {}) | ({} if self.step is None else {"step": self.step})

    def holds(self, value: Any) -> bool:
        """Whether a value lies in it."""
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def __str__(self) -> str:
        ends = f"{self.low:g} to {self.high:g}"
        if self.log:
            return f"{ends}, logarithmic"
        return ends if self.step is None else f"{ends}, steps of {self.step:g}"


@dataclass(frozen=True)
class Choice:
    """One of several values, which have no order."""

    choices: tuple[Any, ...]

    def to_plain(self) -> dict[str, Any]:
        """As in a file."""
        return {"choices": [NONE if value is None else value for value in self.choices]}

    def holds(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return value in self.choices

    def __str__(self) -> str:
        return ", ".join(NONE if value is None else str(value) for value in self.choices)


@dataclass(frozen=True)
class Space(Table):
    """Settings by their dotted names, and what each may be.

    In a file::

        [search]
        noise.end = { low = 0.5, high = 4.0, log = true }
        noise.shape = { choices = ["linear", "cosine"] }

    On the command line: ``search.noise.end="{low=0.5, high=4}"``; ``search.noise.end=none`` takes it out.

    Args:
        parts: what is searched.
        left_out: names that were said to be none, which must be those of settings too.
    """

    parts: tuple[tuple[str, Range | Choice], ...]
    left_out: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def from_plain(cls, value: Mapping[str, Any]) -> Self:
        """The space of a nested table; raises ValueError where an entry is no range and no choice."""
        parts = _parts(value, "")
        left_out = tuple(name for name, part in parts if part is None)
        return cls(tuple((name, part) for name, part in parts if part is not None), left_out)

    def to_plain(self) -> dict[str, Any]:
        """The nested table."""
        plain: dict[str, Any] = {}
        for name, part in self.parts:
            *parents, leaf = name.split(".")
            node = plain
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = part.to_plain()
        return plain

    def __str__(self) -> str:
        return table(("searched", "values"), [(name, str(part)) for name, part in self.parts], right=2)

    def distributions(self, cls: type[Any]) -> dict[str, BaseDistribution]:
        """Optuna's distributions of the settings of the configuration `cls`.

        Raises:
            ValueError: nothing is searched, a setting does not exist or cannot be searched, or a value is one that it
                does not take.
        """
        known = {name: (part, hint) for name, part, hint in every_option(cls)}
        reader = Reader("search", tuple(known))
        for name in self.left_out:
            if not any(option == name or option.startswith(f"{name}.") for option in known):
                raise reader.unknown(name, known)
        if not self.parts:
            raise InvalidValueError(
                "search: nothing is searched; name at least one setting with low and high, or choices"
            )
        result = {}
        for name, part in self.parts:
            if name not in known:
                raise reader.unknown(name, known)
            if name.startswith(_FIXED):
                raise InvalidValueError(f"search: {name} cannot be searched; it does not shape the network")
            option, hint = known[name]
            result[name] = _distribution(part, reader, option, hint, name)
        return result


def suggest(distributions: Mapping[str, BaseDistribution], trial: Trial) -> dict[str, Any]:
    """The values of a trial, by the names of their settings."""
    from optuna.distributions import FloatDistribution, IntDistribution

    values: dict[str, Any] = {}
    for name, each in distributions.items():
        if isinstance(each, FloatDistribution):
            values[name] = trial.suggest_float(name, each.low, each.high, log=each.log, step=each.step)
        elif isinstance(each, IntDistribution):
            values[name] = trial.suggest_int(name, each.low, each.high, log=each.log, step=each.step)
        else:
            values[name] = trial.suggest_categorical(name, each.choices)  # type: ignore[attr-defined]
    return values


def _parts(value: Mapping[str, Any], prefix: str) -> list[tuple[str, Range | Choice | None]]:
    """The entries of a table by their dotted names; None is for what is not to be searched."""
    found: list[tuple[str, Range | Choice | None]] = []
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if inner == NONE:
            found.append((name, None))
            continue
        if isinstance(inner, (list, tuple)):
            inner = {"choices": inner}
        if not isinstance(inner, Mapping):
            raise _wrong(name, f"wanted {{low = ..., high = ...}} or {{choices = [...]}}, got {inner!r}")
        if inner.keys() & {"low", "high", "choices"}:
            found.append((name, _part(inner, name)))
        else:
            found += _parts(inner, f"{name}.")
    return found


def _part(plain: Mapping[str, Any], name: str) -> Range | Choice:
    return _choice(plain, name) if "choices" in plain else _range(plain, name)


def _choice(plain: Mapping[str, Any], name: str) -> Choice:
    choices = plain["choices"]
    if plain.keys() != {"choices"} or not isinstance(choices, (list, tuple)) or not choices:
        raise _wrong(name, f"choices are a list of values and stand alone, got {dict(plain)!r}")
    return Choice(tuple(None if value == NONE else value for value in choices))


def _range(plain: Mapping[str, Any], name: str) -> Range:
    if not {"low", "high"} <= plain.keys() <= {"low", "high", "log", "step"}:
        raise _wrong(name, f"a range has low and high, and may have log or step, got {dict(plain)!r}")
    low, high, log, step = plain["low"], plain["high"], plain.get("log", False), plain.get("step")
    numbers = [low, high] if step is None else [low, high, step]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
            raise _wrong(name, f"low, high and step are finite numbers, got {number!r}")
    if not isinstance(log, bool):
        raise _wrong(name, f"log is true or false, got {log!r}")
    if not low < high:
        raise _wrong(name, f"low must be below high, got {low!r} and {high!r}")
    if log and (low <= 0 or step is not None):
        raise _wrong(name, f"a logarithmic range needs low > 0 and no step, got {dict(plain)!r}")
    if step is not None and not 0 < step <= high - low:
        raise _wrong(name, f"step must be above 0 and fit into the range, got {step!r}")
    return Range(low, high, log, step)


def _distribution(part: Range | Choice, reader: Reader, option: Any, hint: Any, name: str) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    kinds = members_of(hint)
    if isinstance(part, Choice):
        values = tuple(reader.checked(option, hint, value, name) for value in part.choices)
        if len(set(values)) < len(values):
            raise _wrong(f"search: {name}", f"give each choice once, got {part}")
        return CategoricalDistribution(values)
    if not {int, float} & set(kinds):
        raise _wrong(f"search: {name}", "has no numbers to range over; give it choices = [...]")
    ends = [reader.checked(option, hint, value, name) for value in (part.low, part.high)]
    if float in kinds:
        return FloatDistribution(float(ends[0]), float(ends[1]), log=part.log, step=part.step)
    step = 1 if part.step is None else part.step
    if not isinstance(step, int):
        raise _wrong(f"search: {name}", f"takes whole numbers, so its step must be one, got {step!r}")
    return IntDistribution(ends[0], ends[1], log=part.log, step=step)


def _wrong(name: str, what: str) -> ValueError:
    return InvalidValueError(f"{name}: {what}")


DEFAULT_SPACE = Space(
    (
        ("noise.shape", Choice(("constant", "linear", "cosine", "step"))),
        ("noise.start", Range(0.0, 2.0)),
        ("noise.end", Range(0.25, 8.0, log=True)),
        ("noise.ramp", Range(0.1, 1.0)),
        ("noise.warmup", Range(0.0, 0.3)),
        ("noise.jitter", Range(0.0, 0.5)),
        ("noise.clip_sigmas", Range(1.5, 4.0)),
        ("optimization.lr", Range(5e-4, 2e-2, log=True)),
    )
)
