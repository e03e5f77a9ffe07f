"""What can be done for a trained network on chips without labels: tried one by one, and kept where it helps."""

from __future__ import annotations

import math
import time as clock
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from analogsim.chip.clean import as_trained
from analogsim.chip.compensation import CompensationLike, as_compensations
from analogsim.chip.faults import remap
from analogsim.chip.layer_errors import FIRST_SEED, Ages, Chips, Trial, ages_for, is_better, measure_layers
from analogsim.chip.lifecycle import Faults, erase
from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.evaluation.metrics import Metric
from analogsim.evaluation.monte_carlo import judge_chips
from analogsim.evaluation.preparation.choice import DIGITAL, Bench, Choice
from analogsim.evaluation.preparation.halves import as_loader, halves_of
from analogsim.evaluation.preparation.prepared import Prepared, TriedStep
from analogsim.evaluation.preparation.steps import Step, find_steps
from analogsim.layers.module import matrices_of
from analogsim.utils.batches import Inputs, answer, call, describe, moved
from analogsim.utils.checks import MOST_TURNS, check_whole
from analogsim.utils.times import seconds

FIRST_CHIP = FIRST_SEED + 500_000
"""The seed of the first chip that `prepare` judges on; searches of hardware have chips of their own."""

_CANNOT = (ValueError, RuntimeError, NotImplementedError)
"""What a step may raise where it cannot be done for a network; anything else is a bug."""

_SEARCH_FORWARDS = 60  # of one chip through the network, about what a search of ranges or percentiles takes
_NO_TIME = "no time was left"
_FEWEST, _MOST = 4, 16  # chips, where nobody says how many
_PRICE = 1.02
_LEAST = 1e-5  # of the variance of the answers, or of the answers themselves: less is not worth any step
_NAMES = {
    "error": "relative squared error of the answers",
    "agreement": "other class than the digital network",
}
_SEARCHED = 128  # inputs that searches of hardware see
_MEASUREMENTS = 40  # about what a plan takes

KnownFaults = Faults | Callable[[int], Faults | None]


def prepare(
    analog: nn.Module,
    inputs: Iterable[Any],
    *,
    budget: float | str = "2min",
    chips: int | None = None,
    time: Ages | None = None,
    compensation: CompensationLike = "global",
    copies: int = 1,
    digital: float = 0.0,
    faults: KnownFaults | None = None,
    criterion: str | Metric = "error",
    samples: int = 512,
    seed: int = FIRST_CHIP,
    tell: Callable[[str], None] = lambda _: None,
) -> Prepared:
    """Try what helps a trained network on chips, without labels and within a time, and keep what does.

    One half of the inputs is what things are set by, the other half what they are judged by: how far the answers of a
    few chips at the ages asked are from those of the digital network (of the one behind its converters, where a
    crossbar learns its ranges, since that was trained). Each step of the table is measured alone; then,
    the best first, each is added where it makes the error less by 1 % and by two standard errors over the chips; last,
    what brings nothing any more beside the others is taken out again. Steps are: ranges of converters set from data and
    searched for (`search_ranges`), the largest weight (`search_percentile`), every compensation that has a name (gains,
    batch norm again, ranges and outputs matched on each chip), more cells for each conductance if ``copies`` allows it,
    the layers with the largest errors kept digital if ``digital`` allows it, and weights laid around ``faults`` if they
    are known (`remap`).

    The twin is changed in place: mapping, crossbars and ranges are those that were found, chips are gone. The digital
    network stays as it is.

    Args:
        analog: the twin.
        inputs: one batch (a tensor, or a mapping of keyword arguments), or what yields some; without use of labels. 128
            or more are worth it: half of them are held out.
        budget: how long it may take, seconds or text such as ``"30s"``. The first measurement is made in any case, and
            a search or measurement that was begun is finished; what was not tried for want of time is said.
        chips: on how many chips; None: on 4 to 16, as the budget allows.
        time: the ages that count, one or several, of which the mean is taken; None: a second and a year, or as near to
            them as the devices' formulas go.
        compensation: what it begins with.
        copies: how many cells may hold one conductance at most; of 2, 4, 8 and 16 those are tried that are not more.
        digital: which share of the weights may stay digital, 0 to 1: the matrices whose products are furthest from the
            digital ones, as many as fit.
        faults: cells known to be stuck, see `evaluate`: a map for all chips, or a function of the chip's seed.
        criterion: ``"error"``: the mean squared error of the answers, relative to their variance; ``"agreement"``: the
            share of answers whose largest class is another one than the digital network's; or a `Metric` of
            ``(answer, digital answer)`` with a direction.
        samples: how many inputs are used at most.
        seed: the first chip; by default no chip of an evaluation or a search.
        tell: told what is being tried.

    Returns:
        What is kept, and what each step brought.

    Raises:
        ValueError: no inputs, NaN or infinite ones, nothing that can be held out, an unknown criterion or one without a
            direction, an impossible budget, number or time. The twin is as it was then.
        TypeError: the network's answer is no tensor, and the criterion is not one's own.
        NotCalibratedError: converters have no range yet.
        BypassedError: no analog layer had a part in the answers.

    Example:
        >>> import torch, analogsim
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
        >>> analog = analogsim.convert(model, device="pcm", crossbar="standard")
        >>> x = torch.randn(128, 8)
        >>> prepared = analogsim.prepare(analog, x, budget="5s", chips=2)
        >>> prepared.after <= prepared.before
        True
    """
    end = clock.monotonic() + _seconds_of(budget)
    begun = clock.monotonic()
    _check_values(faults, tell)
    if chips is not None:
        _check_whole("chips", chips, 2)
    _check_whole("copies", copies, 1)
    _check_whole("samples", samples, 2)
    _check_share(digital)
    ages = ages_for(analog, time, "prepare")
    given, held_out = halves_of(inputs, samples)
    if given is held_out:
        raise InvalidValueError(
            "prepare: half of the inputs is held out to judge by, and there is one sample, or one batch that cannot be "
            "cut in two; give more, or several batches"
        )
    data, metric = _pairs(analog, held_out, criterion, matrices_of(analog)[0].still()[0].device)
    loader = as_loader(given)
    searched = as_loader(halves_of(loader, 2 * _SEARCHED)[0]) if samples > 2 * _SEARCHED else loader
    bench = Bench(analog, searched, ages)
    judge = _Judge(analog, bench, data, metric, loader, chips or _FEWEST, ages, seed, faults, end)
    cells = _cells(analog)
    start = Choice(as_compensations(compensation))
    try:
        if chips is None:
            judge.choose_chips(start)
        dearest = _dearest(analog, searched, ages, digital)
        plan = _Plan(judge, find_steps(copies, faults=faults is not None, digital=dearest), start, tell)
        final = plan.run()
        bench.put(final)
    except BaseException:
        bench.undo()
        raise
    erase(analog)
    return Prepared(
        analog=analog,
        compensation=final.compensations,
        faults=judge.faults_of(final),
        steps=tuple(plan.rows.values()),
        before=float(plan.first.mean()),
        after=float(plan.reached.mean()),
        criterion=metric.name,
        times=ages,
        chips=judge.chips,
        samples=judge.samples,
        cells=(cells, _cells(analog)),
        seconds=clock.monotonic() - begun,
    )


def _seconds_of(budget: float | str) -> float:
    try:
        found = seconds(budget)
    except (TypeError, ValueError):
        found = 0.0
    if found <= 0:
        raise InvalidValueError(f'prepare: budget must be a time > 0, such as 30 or "30s", got {budget!r}')
    return found


def _check_values(faults: object, tell: object) -> None:
    if faults is not None and not callable(faults) and not isinstance(faults, Mapping):
        raise InvalidTypeError(
            "prepare: faults must be a mapping from layers to maps, or a function of a chip's seed that gives one, got "
            f"{describe(faults)}"
        )
    if not callable(tell):
        raise InvalidTypeError(f"prepare: tell must be a function of a text, such as print, got {tell!r}")


def _check_whole(name: str, value: object, least: int) -> None:
    check_whole(value, f"prepare: {name}", least, MOST_TURNS)


def _check_share(digital: object) -> None:
    if isinstance(digital, bool) or not isinstance(digital, int | float) or not 0 <= digital <= 1:
        raise InvalidValueError(
            f"prepare: digital is the share of the weights that may stay digital, 0 to 1, got {digital!r}"
        )


def _cells(analog: nn.Module) -> int:
    return sum(matrix.analog.cells for matrix in matrices_of(analog) if matrix.analog.device != DIGITAL)


def _dearest(analog: nn.Module, inputs: Iterable[Any], ages: Sequence[float], share: float) -> list[tuple[str, ...]]:
    """The matrices with the largest errors of their products, as many as make up a share of the weights.

    Returns:
        Their names, in groups of 1, 2, 4, ... of them, the last one of all.
    """
    matrices = matrices_of(analog)
    left = share * sum(matrix.analog.shape.numel() for matrix in matrices)
    fitting = [matrix for matrix in matrices if matrix.analog.shape.numel() <= left]
    if not fitting:
        return []
    trials = {matrix: [Trial.now(matrix.analog)] for matrix in fitting}
    chips = Chips([FIRST_SEED, FIRST_SEED + 1], ages, as_compensations("global").gain)
    errors = measure_layers(analog, inputs, trials, chips, "prepare")
    names: list[str] = []
    for matrix in sorted(errors, key=lambda matrix: -float(errors[matrix].mean())):
        if matrix.analog.shape.numel() <= left:
            left -= matrix.analog.shape.numel()
            names.append(matrix.analog.name)
    sizes = [2**power for power in range(len(names).bit_length()) if 2**power < len(names)]
    return [tuple(names[:size]) for size in (*sizes, len(names))] if names else []


def _squared_error(variance: float, output: Tensor, target: Tensor) -> Tensor:
    """For each sample, where both are finite: masks put infinity where nothing is asked."""
    known = output.isfinite() & target.isfinite()
    wrong = torch.where(known, output.double() - target.double(), 0.0).square().flatten(1)
    return wrong.sum(1) / known.flatten(1).sum(1).clamp(min=1) / variance


def _is_other_class(output: Tensor, target: Tensor) -> Tensor:
    """For each sample, the share of its answers whose largest class is another one."""
    return (
        (output.argmax(1) != target.argmax(1))
        .double()
        .flatten(1 if output.ndim > 2 else 0)
        .reshape(len(output), -1)
        .mean(1)
    )


@torch.no_grad()
def _pairs(
    analog: nn.Module, held_out: Sequence[Any], criterion: str | Metric, place: torch.device
) -> tuple[list[tuple[Inputs, Any]], Metric]:
    """Inputs with the answers of the network that was trained, and what judges others by them."""
    with as_trained(analog):
        pairs = [(batch, answer(call(analog, moved(batch, place)))) for batch in held_out]
    if isinstance(criterion, Metric):
        if criterion.higher_is_better is None:
            raise InvalidValueError(
                f"prepare: the criterion {criterion.name!r} needs a direction: Metric(..., higher_is_better=False)"
            )
        return pairs, criterion
    if criterion not in _NAMES:
        raise InvalidValueError(f'prepare: criterion must be "error", "agreement" or a Metric, got {criterion!r}')
    answers = [target for _, target in pairs]
    for target in answers:
        if not isinstance(target, Tensor) or not target.ndim:
            raise InvalidTypeError(
                f"prepare: the network answers with {describe(target)}, and criterion={criterion!r} is of tensors with "
                "an axis of samples; give an analogsim.evaluation.Metric of (answer, digital answer)"
            )
    if criterion == "agreement":
        if any(target.ndim < 2 for target in answers):
            raise InvalidValueError(
                'prepare: criterion="agreement" is of classes along axis 1, and the answers have no such axis'
            )
        return pairs, Metric(_NAMES[criterion], _is_other_class, higher_is_better=False)
    values = torch.cat([target[target.isfinite()].double().flatten() for target in answers])
    variance = float(values.var(correction=0)) if len(values) else 0.0
    score = partial(_squared_error, variance or 1.0)
    return pairs, Metric(_NAMES[criterion], score, higher_is_better=False)


def _is_less(before: Tensor, after: Tensor, least: float) -> bool:
    """Whether errors of the same chips became less, by a mean that counts, whatever the errors of single chips are."""
    if float((before - after).mean()) <= least:
        return False
    if bool((before > 0).all()) and bool((after > 0).all()):  # those of some chips are many times those of others
        after = after.log() - before.log() + 1
        before = torch.ones_like(before)
    return is_better(before, after)


@dataclass(eq=False)
class _Judge:
    """Measures choices on held-out inputs, each once.

    Args:
        analog: the twin.
        bench: puts it on the hardware of a choice.
        data: held out, with the digital answers.
        metric: judges.
        given: what compensations are made of.
        chips: how many.
        ages: of the chips, seconds.
        seed: of the first.
        faults: known ones.
        end: when the time is over.
    """

    analog: nn.Module
    bench: Bench
    data: list[tuple[Inputs, Any]]
    metric: Metric
    given: Sequence[Any]
    chips: int
    ages: tuple[float, ...]
    seed: int
    faults: KnownFaults | None
    end: float
    samples: int = 0
    _known: dict[Choice, Tensor] = field(default_factory=dict)
    _took: dict[bool, float] = field(default_factory=dict)
    _shortest: float = math.inf

    def choose_chips(self, choice: Choice) -> None:
        """Judge on as many chips as half of the time is enough for."""
        self.measure(choice)
        each = self._shortest / self.chips
        wanted = int(0.5 * (self.end - clock.monotonic()) / (_MEASUREMENTS * each))
        chips = max(_FEWEST, min(_MOST, wanted))
        if chips > self.chips:
            self._took = {with_data: took * chips / self.chips for with_data, took in self._took.items()}
            self._shortest *= chips / self.chips
            self.chips = chips
            self._known.clear()

    def has_time(self, choice: Choice) -> bool:
        """Whether there is time to measure a choice, as far as can be said."""
        if choice in self._known:
            return True
        with_data = bool(choice.compensations.adjustments)
        # What is made of data on each chip takes several times as long as asking; of what is not known yet, the most.
        wanted = self._took.get(with_data, max(self._took.values(), default=0.0))
        if not self.bench.is_made(choice):
            wanted += _SEARCH_FORWARDS * self._shortest / self.chips
        return clock.monotonic() + wanted < self.end

    def is_less(self, before: Tensor, after: Tensor) -> bool:
        """Whether errors became less."""
        return _is_less(before, after, _LEAST if self.metric.name in _NAMES.values() else 0.0)

    def faults_of(self, choice: Choice) -> KnownFaults | None:
        """The faults as the weights of a choice meet them."""
        if self.faults is None or not choice.around:
            return self.faults
        laid, known = partial(self._laid, signs=choice.around == "signs"), self.faults
        return (lambda seed: laid(known(seed))) if callable(known) else laid(known)

    def _laid(self, known: Faults | None, *, signs: bool) -> Faults | None:
        """Weights laid around a chip's faults, where it has any; what is no map `program` refuses."""
        return remap(self.analog, known, signs=signs) if isinstance(known, Mapping) else known

    def measure(self, choice: Choice) -> Tensor:
        """Errors, one for each chip, smaller ones better."""
        if choice not in self._known:
            self.bench.put(choice)
            start = clock.monotonic()
            report = judge_chips(
                self.analog,
                self.data,
                chips=self.chips,
                times=self.ages,
                metric=self.metric,
                seed=self.seed,
                compensation=choice.compensations,
                calibration=self.given,
                faults=self.faults_of(choice),
                action="prepare",
            ).report
            spent = clock.monotonic() - start
            with_data = bool(choice.compensations.adjustments)
            self._took[with_data] = max(self._took.get(with_data, 0.0), spent)
            self._shortest = min(self._shortest, spent)
            self.samples = report.samples
            values = torch.from_numpy(report.values).double().mean(1)
            self._known[choice] = -values if self.metric.higher_is_better else values
        return self._known[choice]


@dataclass(eq=False)
class _Plan:
    """The search: each step alone, the best added one after the other, what brings nothing taken out.

    Args:
        judge: measures.
        steps: what there is.
        start: what it begins with.
        tell: told what is being tried.
    """

    judge: _Judge
    steps: Sequence[Step]
    start: Choice
    tell: Callable[[str], None]
    rows: dict[str, TriedStep] = field(default_factory=dict)

    def run(self) -> Choice:
        """What is best."""
        self.first = self.reached = self.judge.measure(self.start)
        tried = {step.name: self._alone(step) for step in sorted(self.steps, key=lambda step: not step.first)}
        self.rows |= {step.name: tried[step.name] for step in self.steps}
        kept = self._prune(self._add())
        self.reached = self.judge.measure(self._made(kept))
        for step in kept:
            self.rows[step.name] = replace(self.rows[step.name], kept=True)
        return self._made(kept)

    def _made(self, steps: Collection[Step]) -> Choice:
        """All of some steps, in the order of the table."""
        choice = self.start
        for step in self.steps:
            if step in steps:
                choice = step.change(choice)
        return choice

    def _alone(self, step: Step) -> TriedStep:
        row = TriedStep(step.name, step.takes)
        self.judge.bench.restore()
        choice = step.change(self.start)
        if why := step.why_not(self.judge.analog) or ("it is done already" if choice == self.start else ""):
            return replace(row, why=why)
        if not self.judge.has_time(choice):
            return replace(row, why=_NO_TIME)
        self.tell(step.name)
        try:
            found = self.judge.measure(choice)
        except _CANNOT as error:
            return replace(row, why=" ".join(str(error).split()))
        gained = self.first - found
        return replace(row, alone=float(found.mean()), spread=float(gained.std()) / len(gained) ** 0.5)

    def _add(self) -> list[Step]:
        """What helps beside what is kept already, the best first; what did not, or could not, may after another one."""
        rows = self.rows
        left = [step for step in self.steps if rows[step.name].why != _NO_TIME]
        left.sort(key=self._rank)
        kept: list[Step] = []
        again = True
        while again:
            again = False
            for step in list(left):
                if not any(step.kind == other.kind for other in kept) and self._helps(step, kept):
                    kept.append(step)
                    left.remove(step)
                    again = True
        return kept

    def _rank(self, step: Step) -> tuple[bool, float]:
        """Where it stands among what may be added: by what it brings alone, 2 % less for each unit of its price."""
        alone = self.rows[step.name].alone
        return (True, step.price) if alone is None else (False, alone + abs(alone) * (_PRICE**step.price - 1))

    def _helps(self, step: Step, kept: Sequence[Step]) -> bool:
        before = self._made(kept)
        choice = self._made([*kept, step])
        self.judge.bench.put(before)
        if choice == before or step.why_not(self.judge.analog):
            return False
        row = self.rows[step.name]
        if not self.judge.has_time(choice):
            self.rows[step.name] = replace(row, why=f"beside the others {_NO_TIME}")
            return False
        self.tell("+".join((*(other.name for other in kept), step.name)))
        try:
            found = self.judge.measure(choice)
        except _CANNOT as error:
            self.rows[step.name] = replace(row, why=" ".join(str(error).split()))
            return False
        if not self.judge.is_less(self.reached, found):
            return False
        self.reached = found
        self.rows[step.name] = replace(row, added=float(found.mean()), why="")
        return True

    def _prune(self, kept: list[Step]) -> list[Step]:
        """What is left when each that no longer brings anything is taken out, the first ones first."""
        for step in list(kept[:-1]):
            rest = [other for other in kept if other is not step]
            choice = self._made(rest)
            if not self.judge.has_time(choice):
                break
            try:
                found = self.judge.measure(choice)
            except _CANNOT:  # one that is kept needs it
                continue
            if not self.judge.is_less(found, self.judge.measure(self._made(kept))):
                kept = rest
                self.rows[step.name] = replace(
                    self.rows[step.name], added=None, why="brings nothing beside those kept after it"
                )
        return kept
