"""How many samples a judgement gets, and a judgement once more where the first had few for want of knowing better."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass

from analogsim.evaluation.course import ChipScores
from analogsim.evaluation.journal import Journal
from analogsim.evaluation.workers import Executor, Ranks
from analogsim.recipes.judge.bench import Bench, Part
from analogsim.recipes.judge.findings import Findings
from analogsim.recipes.judge.judgement import NOTHING_TO_DO, OPEN, Judgement
from analogsim.recipes.judge.paired import GROUPS
from analogsim.recipes.judge.plan import Plan
from analogsim.recipes.judge.remedies import Remedy, all_remedies
from analogsim.recipes.judge.samples import Samples
from analogsim.recipes.judge.sizes import Sizes, plan
from analogsim.recipes.judge.variant import Variant
from analogsim.utils.times import label


@dataclass(frozen=True, eq=False)
class Rounds:
    """Judgements of one network, of which the first that says something is the answer.

    Args:
        bench: measures; its clock knows what that costs.
        base: what is done for the network as it is.
        judged: the samples that the answer is given on.
        choosing: those that it is chosen on.
        ages: at which chips are visited, seconds.
        chosen_at: the one that it is chosen by.
        seeds: the first chip that the answer is given on, and the first that it is chosen on.
        tolerance: see `analogsim.recipes.judge.judge`, as for what follows.
        only: the remedies that are tried.
        notes: what to know beside the tables.
        tell: told what is being done.
        show: given every judgement as far as it has come.
        executor: who judges.
        journal: where chips, and the sizes of the rounds, are kept.
    """

    bench: Bench
    base: Variant
    judged: Samples
    choosing: Samples
    ages: Sequence[float]
    chosen_at: float
    seeds: tuple[int, int]
    tolerance: float
    only: Sequence[str] | None
    notes: Sequence[str]
    tell: Callable[[str], None]
    show: Callable[[Judgement], None]
    executor: Executor | None
    journal: Journal | None

    def run(self) -> Judgement:
        """The answer.

        That nothing is lost is not said of few samples where there is time for more: by then it is known for how many.
        """
        clock, most = self.bench.clock, max(len(self.judged), len(self.choosing))
        sizes, number = self.sizes(1), 1
        found = self.plan(sizes).run()
        while found.verdict in (NOTHING_TO_DO, OPEN) and sizes.samples < most and clock.left > clock.budget / 2:
            number, before = number + 1, sizes.samples
            sizes = self.sizes(number)
            if sizes.samples < min(2 * before, most):
                break
            found = self.plan(sizes).run()
        return found

    def run_given(self, variant: Variant, remedies: Sequence[Remedy]) -> Judgement:
        """See `Plan.run_given`."""
        return self.plan(self.sizes(1)).run_given(variant, remedies)

    def sizes(self, number: int) -> Sizes:
        """Those of a round: in the time that is left, or as the call that began the journal had them."""
        subject = self.bench.subject
        wanted = [remedy for name, remedy in all_remedies().items() if self.only is None or name in self.only]
        sizes = plan(
            self.bench.clock,
            times=len(self.ages),
            remedies=sum(not remedy.why_not(self.base, subject) for remedy in wanted),
            layers=len(subject.layers),
            available=max(len(self.judged), len(self.choosing)),
        )
        journal = self.journal
        if journal is None:
            return sizes

        def kept() -> tuple[float, ...]:
            with journal.of("sizes of measurements").opened({"clean": 0.0}) as record:
                if not record.done([number]):
                    record.add([ChipScores(number, tuple(map(float, astuple(sizes))))])
                return record.done([number])[number].values

        found = self.executor.first(kept) if isinstance(self.executor, Ranks) else kept()
        return Sizes(*map(int, found))

    def plan(self, sizes: Sizes) -> Plan:
        """The plan of a round."""
        score = self.bench.metric.score
        pieces = GROUPS if not callable(score) or hasattr(score, "update") else 1
        test, choice = (part.take(sizes.samples, pieces=pieces) for part in (self.judged, self.choosing))
        fewer = [
            f"Of the {name} data {sizes.samples} of {len(part)} samples are used, at random: more would take longer "
            f"than {self.bench.clock.budget / 60:g} minutes."
            for name, part in (("test", self.judged), ("validation", self.choosing))
            if len(part) > sizes.samples
        ]
        at, where = label(self.chosen_at), self.ages.index(self.chosen_at)
        return Plan(
            bench=self.bench,
            base=self.base,
            test=Part(test, self.seeds[0], tuple(self.ages), "test data"),
            choice=Part(choice, self.seeds[1], (self.chosen_at,), "validation data"),
            sizes=sizes,
            found=Findings(at=at, where=where, tolerance=self.tolerance, notes=[*self.notes, *fewer]),
            only=self.only,
            tell=self.tell,
            show=self.show,
        )
