"""Measurements of variants of one network: on which data and chips, what they cost, and what was measured already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import analogsim
from analogsim.chip.compensation import as_compensations
from analogsim.errors import InvalidTypeError, OperationError
from analogsim.evaluation.ablation import Ablation
from analogsim.evaluation.display import FloatArray
from analogsim.evaluation.journal import Journal
from analogsim.evaluation.metrics import Metric
from analogsim.evaluation.monte_carlo import judge_chips
from analogsim.evaluation.report import Report
from analogsim.evaluation.scoring import ask_alone, find_alone, score_networks
from analogsim.evaluation.workers import Executor, Ranks
from analogsim.recipes.judge.clock import Clock
from analogsim.recipes.judge.paired import Difference, compare, recording
from analogsim.recipes.judge.samples import Samples
from analogsim.recipes.judge.variant import Subject, Variant
from analogsim.utils.batches import Data, answer, call

_BY_PARTS = "part by part"
_SEARCH_FORWARDS = 60  # of one chip through the network, about what a search of ranges or percentiles takes


@dataclass(frozen=True, eq=False)
class Measured:
    """What a variant scores.

    Args:
        report: its scores.
        rows: of single samples, ``(chips, times, samples)``.
        clean: of the clean network, see `Report.clean`, ``(samples,)``.
        anew: how many of the chips were in no journal.
    """

    report: Report
    rows: FloatArray
    clean: FloatArray
    anew: int = 0

    @property
    def sign(self) -> float:
        """1 where a higher score is the better one, else -1."""
        return 1.0 if self.report.higher_is_better else -1.0

    def score(self, at: int = -1) -> float:
        """Mean over chips at one of its times."""
        return float(self.report.mean[at])

    def over(self, other: Measured, at: int = -1, other_at: int | None = None) -> Difference:
        """How much better it is than another, on the chips and samples that both have seen.

        Args:
            other: on the same data.
            at: which of the times.
            other_at: of the other one; None: the same.
        """
        chips = min(len(self.rows), len(other.rows))
        theirs = at if other_at is None else other_at
        rows = self.rows[:chips, at] - other.rows[:chips, theirs]
        values = self.report.values[:chips, at] - other.report.values[:chips, theirs]
        return _found(self.sign * rows, self.sign * values)

    def loss(self, at: int = -1) -> Difference:
        """How much worse it is than the clean network."""
        values = self.report.clean - self.report.values[:, at]
        return _found(self.sign * (self.clean - self.rows[:, at]), self.sign * values)

    def joined(self, more: Measured) -> Measured:
        """With further chips."""
        report = replace(
            self.report,
            values=np.concatenate((self.report.values, more.report.values)),
            seeds=(*self.report.seeds, *more.report.seeds),
        )
        return Measured(report, np.concatenate((self.rows, more.rows)), self.clean, self.anew + more.anew)


def _found(rows: FloatArray, values: FloatArray) -> Difference:
    counted = ~np.isnan(rows).any(0)  # samples without any target that counts have no score
    # Where there are none of single samples, chips alone tell the error.
    return compare(rows[:, counted] if counted.any() else values[:, None], float(values.mean()))


class NoTimeError(Exception):
    """A measurement would take longer than there is time for."""


@dataclass(frozen=True)
class Part:
    """Data and chips that belong together.

    Args:
        samples: the data.
        first: the seed of the first chip.
        times: at which ages chips are visited.
        name: of the data.
    """

    samples: Samples
    first: int
    times: tuple[float | str, ...]
    name: str = ""


class Bench:
    """Measures variants of one network and keeps what it measured.

    Args:
        subject: the network.
        metric: the score, with a direction.
        clock: what time there is.
        executor: who judges chips, see `analogsim.evaluate`; None: this process.
        journal: where they are kept; None: nowhere.
    """

    def __init__(
        self,
        subject: Subject,
        metric: Metric,
        clock: Clock,
        *,
        executor: Executor | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.subject = subject
        self.metric = metric
        self.clock = clock
        self._executor = executor
        self._journal = journal
        self._known: dict[tuple[Variant, Part], Measured] = {}
        self._before: dict[tuple[str, str], frozenset[int]] | None = None

    def known(self, variant: Variant, part: Part) -> Measured | None:
        """What was measured already."""
        return self._known.get((variant.effect, part))

    def measure(self, variant: Variant, part: Part, chips: int, *, reserve: float = 0.0) -> Measured:
        """A variant on at least so many chips; those that it has seen are not taken again.

        Args:
            variant: what is done.
            part: on which data and chips.
            chips: how many.
            reserve: seconds that have to be left afterwards.

        Raises:
            NoTimeError: that would take too long.
            ValueError: it cannot be, see `analogsim.evaluate`, as for all other errors.
        """
        before = self.known(variant, part)
        done = 0 if before is None else len(before.rows)
        if done >= chips:
            return before  # type: ignore[return-value]
        count = len(part.samples)
        kind = self._kind(variant)
        takes = self.estimate(variant, part, chips)  # nothing, where a journal has them all
        if takes > max(self.clock.left - reserve, 0.0):
            raise NoTimeError
        if variant.searched:
            self.subject.twin(variant)  # where it is searched for, which is no cost of chips
        start = self.clock.now()
        found = self.ask(variant, part, range(part.first + done, part.first + chips))
        self.clock.learn(count, found.anew * len(part.times), self.clock.now() - start, kind)
        if before is not None:
            found = before.joined(found)
        self._known[variant.effect, part] = found
        return found

    def estimate(self, variant: Variant, part: Part, chips: int) -> float:
        """Seconds until a variant has been on so many chips; those of a journal, too, are not taken again."""
        visits = self._missing(variant, part, chips) * len(part.times)
        search = 0.0
        if visits and not self.subject.is_found(variant):
            search = self.clock.estimate(self.subject.inputs, _SEARCH_FORWARDS)
        return search + self.clock.estimate(len(part.samples), visits, self._kind(variant))

    def kept(self, variant: Variant, part: Part, *, parts: bool = False) -> int:
        """How many of the first chips of a part are in the journal, so that they take no time.

        Args:
            variant: what is done.
            part: on which data and chips.
            parts: those on which each part of the hardware was switched off in turn.
        """
        name = f"{variant.effect.key}, {_BY_PARTS}" if parts else variant.effect.key
        journal = self._named(part, name)
        if journal is None:
            return 0
        if self._before is None:
            self._before = self._executor.first(journal.kept) if isinstance(self._executor, Ranks) else journal.kept()
        chips, count = self._before.get((journal.name, journal.part), frozenset()), 0
        while part.first + count in chips:
            count += 1
        return count

    def _missing(self, variant: Variant, part: Part, chips: int) -> int:
        """How many of so many chips are still to be judged."""
        before = self.known(variant, part)
        return max(chips - max(0 if before is None else len(before.rows), self.kept(variant, part)), 0)

    def _kind(self, variant: Variant) -> str:
        """What takes time at each visit of a chip beside asking it."""
        return "+".join(part.name for part in as_compensations(variant.compensation).adjustments)

    def ask(self, variant: Variant, part: Part, seeds: Sequence[int]) -> Measured:
        """A variant on these chips, whatever is known and however long it takes."""
        twin = self.subject.twin(variant)
        found = judge_chips(
            twin,
            part.samples,
            chips=len(seeds),
            seed=seeds[0],
            metric=recording(self.metric),
            faults=self.subject.faults(variant, twin),
            action="judge",
            **self._how(variant, twin, part, variant.effect.key),
        )
        rows, clean = found.details, found.clean
        if rows is None or clean is None:
            raise OperationError("judge: chips came back without the scores of their samples")
        return Measured(found.report, rows, clean, found.anew)

    def ablate(self, variant: Variant, part: Part, chips: int) -> Ablation:
        """A variant with each part of the hardware switched off in turn, see `analogsim.ablate`."""
        return analogsim.ablate(
            self.subject.twin(variant),
            part.samples,
            chips=chips,
            seed=part.first,
            metric=self.metric,
            **self._how(variant, self.subject.analog, part, f"{variant.effect.key}, {_BY_PARTS}"),
        )

    def _how(self, variant: Variant, twin: nn.Module, part: Part, name: str) -> Mapping[str, Any]:
        """How chips are judged, and where they are kept."""
        return {
            "times": part.times,
            "compensation": self.subject.compensation(variant, twin),
            "calibration": self.subject.calibration or None,
            "executor": self._executor,
            "journal": self._named(part, name),
        }

    def _named(self, part: Part, name: str) -> Journal | None:
        """The journal, for a part and what is done."""
        journal = self._journal
        if journal is None:
            return None
        title = ": ".join(filter(None, (journal.name, part.name, f"{len(part.samples)} samples", name)))
        return replace(journal, name=title)

    def score_constant(self, samples: Samples) -> float:
        """The score of who always says the same: the mean of what the digital network answers.

        Raises:
            TypeError: its answers are no tensors of one shape, of which there is a mean.
        """
        if self.metric.reads != "answer":
            raise InvalidTypeError("judge: only of answers there is a mean")
        data = Data(samples, next(self.subject.digital.parameters()).device)
        outputs: list[Any] = []
        with torch.no_grad():
            for inputs, _ in data:
                outputs.append(answer(call(self.subject.digital, inputs)))
        shapes = {output.shape[1:] if isinstance(output, Tensor) and output.ndim else None for output in outputs}
        if len(shapes) > 1 or None in shapes or not all(output.is_floating_point() for output in outputs):
            raise InvalidTypeError("judge: the answers are no tensors of one shape")
        mean = torch.cat(outputs).double().mean(0).to(outputs[0].dtype)
        score = self.metric.begin(data.device)
        for output, (_, target) in zip(outputs, data, strict=True):
            self.metric.add(score, mean.expand_as(output), target)
        return self.metric.result(score)

    def score_clean(self, samples: Samples) -> tuple[float, FloatArray]:
        """The score of the digital network, and of its single samples."""
        network = self.subject.digital
        data = Data(samples, next(network.parameters()).device)
        find = find_alone(network, "the digital network")
        found = score_networks(ask_alone(network), data, recording(self.metric), find)
        return found.values[0], found.details[0]
