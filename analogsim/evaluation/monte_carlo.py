"""Monte-Carlo over chips and times."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from torch import nn

from analogsim.chip.calibration import find_saturated, has_fixed_bound, saturation_told
from analogsim.chip.clean import is_trained_behind_converters
from analogsim.chip.compensation import CalibrationData, CompensationLike, Compensations, as_compensations
from analogsim.chip.lifecycle import Faults, as_seed, without_errors
from analogsim.chip.on_chip import OnChip
from analogsim.conversion.digital import to_digital
from analogsim.conversion.first_forward import FirstForward, stop_watching
from analogsim.crossbar.crossbar import IDEAL
from analogsim.errors import InvalidTypeError, InvalidValueError, MissingPackageError, WorkerError
from analogsim.evaluation.course import ChipScores, Course, Part
from analogsim.evaluation.display import FloatArray
from analogsim.evaluation.journal import Journal, Question, Record, as_journal, describe_question
from analogsim.evaluation.metrics import Metric, MetricLike, as_metric
from analogsim.evaluation.report import Report
from analogsim.evaluation.sampling.learning import FIRST, Answers, Learned
from analogsim.evaluation.sampling.over_chips import Sampled
from analogsim.evaluation.sampling.rounds import Plan, SamplesPerChip, as_plan, boundary_after, stop_told
from analogsim.evaluation.sampling.unit_scores import noting
from analogsim.evaluation.sampling.units import Asked, Reader, Units
from analogsim.evaluation.scoring import Scores, ask_alone, find_alone, score_networks
from analogsim.evaluation.workers import Executor, Ranks, judge_elsewhere, judge_in_ranks
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import matrices_of
from analogsim.layers.state import Uses
from analogsim.utils.batches import Data, read_once
from analogsim.utils.checks import MOST_TURNS, check_flag, check_whole
from analogsim.utils.packages import how_to_install
from analogsim.utils.text import in_short
from analogsim.utils.times import DEFAULT_TIMES, seconds

_TRIED = 256  # samples that are taken out of their batches to see whether they score the same
_SAME = 0.98  # of these; rounding decides between two classes that are equally likely

Clean = Literal["converters", "digital"]
"""What `Report.clean` is the score of."""


def evaluate(
    analog: nn.Module,
    loader: Iterable[Any],
    *,
    chips: int | None = None,
    times: Sequence[float | str] | None = None,
    metric: MetricLike = "accuracy",
    seed: int = 0,
    compensation: CompensationLike = "global",
    calibration: Iterable[Any] | None = None,
    faults: Faults | Callable[[int], Faults] | None = None,
    together: int = 1,
    progress: bool = False,
    executor: Executor | None = None,
    journal: str | os.PathLike[str] | Journal | None = None,
    clean: Clean | None = None,
    on_chip: OnChip | None = None,
    precision: float | None = None,
    samples_per_chip: SamplesPerChip = None,
) -> Report:
    """What is left of a network: its score on many chips, each followed through time, beside the clean score.

    The chips are ``program(seed)``, ``program(seed + 1)``, ...: the same ones in every call. Chip, modes and
    Parameters of ``analog`` are as before afterwards.

    Args:
        analog: the twin from `convert`.
        loader: yields pairs ``(input, target)``, where the input is a tensor, a tuple of arguments or a mapping of
            keyword arguments; or mappings with ``"labels"``, as Hugging Face's collators make them. Tensors are moved
            to the model's torch device. Up to 1 GiB is kept in memory; more is read again for each chip and time.
        chips: how many chips; with a ``precision`` the most. Default: 25, with a precision 10,000.
        times: since programming, seconds or text, each at least 0. Default: one second, hour, day, month and year, as
            far as the devices' formulas go.
        metric: ``"accuracy"``, ``"cross_entropy"``, ``"loss"`` (the network's own, when it is given labels), a
            function of ``(output, target)`` that returns one score per sample, or their mean, an object with
            ``update(output, target)``, ``compute()`` and ``reset()``, or one of these with name, unit and direction:
            an `analogsim.evaluation.Metric`. The output is what the network returns, or the ``logits`` in it. Targets
            of -100 do not count, but for what a function of one's own does with them.
        seed: the first chip.
        compensation: ``"global"``, ``"crossbar"``, ``"column"`` or None, see `drift`; and what needs data, joined by
            ``+``: ``"batch-norm"`` (statistics estimated again on each chip at each time), ``"ranges"`` (calibrated
            ranges of converters set again; learned ones stay), ``"affine"`` and ``"bias"`` (a digital scale and offset
            for each output, or the offset alone, see `calibrate_outputs`; ``"affine@1h"``: measured when the chip is an
            hour old, and used at every age). ``"column+batch-norm"``, for example. Objects of
            `analogsim.chip.Gain` and `analogsim.chip.Adjustment` take the place of a name, also after a ``+``.
        calibration: the data for these: inputs, or tuples that begin with them, without use of labels. Not the data of
            the evaluation, or the result is no longer that of unseen data.
        faults: cells known to be stuck, see `program`: the same ones on each chip, or a function of the chip's seed,
            such as ``lambda seed: remap(analog, draw_faults(analog, "stuck-at", seed))``.
        together: how many chips go through the network at once, `torch.vmap` over their weights: the same scores but
            for rounding, less time where a forward leaves the hardware idle, more memory. Not for what is noisy from
            use to use (read noise, output noise), compensation from data, or networks that torch cannot map.
        progress: show a progress bar.
        executor: hands chips to workers: any `concurrent.futures.Executor`, or what has its ``submit``. Network, data,
            metric and faults are pickled and go to each worker once; chips go in tasks of about two seconds
            (`analogsim.evaluation.Chunked` fixes their number). Report, errors and warnings are as from this process,
            the report bit for bit where the workers have its kind of processor and its torch: they are given its number
            of torch's threads.
        journal: a file in which chips are kept as they come. The same call goes on with it after whatever ended it, and
            takes what it has of others: more chips, or other ones, of the same network, hardware, data, metric,
            compensation, faults and times. One process at a time.
        clean: what `Report.clean`, and with it normalised accuracy, is the score of. ``"digital"``: the digital
            network, which knows no converters. ``"converters"``: the twin with its converters and their ranges, and no
            error of devices, wires or converters: the network that was trained, where training saw the converters.
            Default: the latter where a crossbar learns its ranges, since only training learns them; else the former.
            `Report.digital` is the score of the digital network in any case.
        on_chip: called for each chip at each age, after its compensations and before it is judged, with the twin,
            programmed, in eval mode, the seed and the age in seconds: to measure, or to train what is digital with the
            chip in the loop. Parameters, buffers and ranges are as before afterwards, so that each chip and age begins
            with the same network. It returns nothing. Workers of an executor call a copy of their own, made by pickle,
            and what that collects stays with them; for chips that a journal holds already it is not called. Not with
            chips together.
        precision: judge chips until the mean over all that there might be is known this well at every time: half the
            width of its 95 % interval (Student's t), in the metric's unit, 0.001 for 0.1 points of accuracy. At least
            16 chips are judged, and how many is a matter of their scores alone, however they are shared out. It is said
            of the data as they are, not of others of the kind.
        samples_per_chip: ask each chip so many samples, drawn for it and each time at random, on average; ``"auto"``
            for as many as it is worth. Samples whose answers errors change are asked more often, the others by chance;
            what answers differ by from what is expected of them, over the chance of being asked, makes the chip's score
            an unbiased estimate (`analogsim.evaluation.sampling`). The report takes what samples add to the spread out
            of its deviations and quantiles. What chips are asked is learned from those before them, and the same in any
            number of workers. None: all samples. For metrics that are a mean over samples, or follow from one.

    Raises:
        ValueError: an empty loader or batch, no time or chip, an unknown metric, targets that it cannot take, a time
            before programming or one that a device has no formula for, chips together that cannot be; a precision that
            is none, samples of a metric that is no mean over samples or of a network whose answers depend on what else
            is in the batch.
        NonFiniteError: an answer or a score is NaN or infinite; it names the chip, the time, and the first layer that
            answered so. Minus infinity is let through where masks put it, also into the digital network's answers.
        BypassedError: no analog layer had a part in the answers.
        RuntimeError: torch cannot take several chips through this network at once.
        WorkerError: workers died, or the executor takes no more tasks. What was judged is in the journal.
        TypeError: something that workers need cannot be pickled, such as a lambda without cloudpickle.
        ValueError: the journal is of another question, is damaged, or another process writes to it.

    Warns:
        ConversionWarning: some analog layers had no part in the answers; `audit` tells more.
        UserWarning: the end of the journal was torn when its process died; or more than 5 % of what reaches a layer's
            output converters lies beyond a fixed bound, on the first batch and without errors of a chip; or ``chips``
            were judged and the mean is not known as precisely as was asked for.
    """
    judged = judge_chips(
        analog,
        loader,
        chips=chips,
        times=times,
        metric=metric,
        seed=seed,
        compensation=compensation,
        calibration=calibration,
        faults=faults,
        together=together,
        progress=progress,
        executor=executor,
        journal=journal,
        clean=clean,
        on_chip=on_chip,
        look=True,
        precision=precision,
        samples_per_chip=samples_per_chip,
    )
    judged.uses.warn("evaluate", stacklevel=2)
    for told in filter(None, (judged.saturated, judged.imprecise)):
        warnings.warn(f"evaluate: {told}", stacklevel=2)
    for listener in list(_listeners):
        listener(judged.report)
    return judged.report


Listener = Callable[[Report], None]

_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """Call a function with each report that `analogsim.evaluate` gives in this process; once, however often asked."""
    if listener not in _listeners:
        _listeners.append(listener)


def stop_listening(listener: Listener) -> None:
    """Call it no longer. Nothing happens for one that is not called."""
    if listener in _listeners:
        _listeners.remove(listener)


@dataclass(frozen=True, eq=False)
class Judged:
    """What is known of chips that were judged.

    Args:
        report: their scores.
        uses: which layers had a part in the answers.
        clean: what the metric keeps of the clean network (see `Report.clean`) beside its score, see
            `analogsim.evaluation.metrics.Detailed`; None where it keeps nothing.
        details: the same of each chip at each time, ``(chips, times, ...)``.
        anew: how many chips the journal did not have.
        saturated: what is to be said of output converters that saturate; empty for nothing.
        imprecise: what is to be said where a precision was not reached; empty for nothing.
    """

    report: Report
    uses: Uses
    clean: FloatArray | None
    details: FloatArray | None
    anew: int
    saturated: str = ""
    imprecise: str = ""


def judge_chips(
    analog: nn.Module,
    loader: Iterable[Any],
    *,
    chips: int | None,
    times: Sequence[float | str] | None,
    metric: MetricLike,
    seed: int,
    compensation: CompensationLike,
    calibration: Iterable[Any] | None,
    faults: Faults | Callable[[int], Faults | None] | None = None,
    together: int = 1,
    progress: bool = False,
    action: str = "evaluate",
    executor: Executor | None = None,
    journal: str | os.PathLike[str] | Journal | None = None,
    clean: Clean | None = None,
    on_chip: OnChip | None = None,
    look: bool = False,
    precision: float | None = None,
    samples_per_chip: SamplesPerChip = None,
) -> Judged:
    """What `evaluate` does, and which layers had a part in the answers, of which it says nothing yet.

    Args:
        analog: the twin; see `evaluate` for what follows.
        loader: the data.
        chips: how many, or the most.
        times: since programming.
        metric: the score.
        seed: the first chip.
        compensation: of drift, and what is made from data.
        calibration: the data for it.
        faults: known to be stuck.
        together: how many chips at once.
        progress: show a progress bar.
        action: in whose name an error is raised.
        executor: who judges them; whoever calls this hands on what his caller gives, as `sensitivity` does.
        journal: where they are kept; whoever judges several networks gives each a part of its own (`Journal.of`).
        clean: what it is the score of.
        on_chip: called for each chip at each age.
        look: whether output converters saturate is found out, with one more forward of the first batch.
        precision: of the mean, see `evaluate`.
        samples_per_chip: how many each is asked.

    Raises:
        BypassedError: none had.
    """
    _check_count("together", together)
    _check_times(times)
    wanted = as_compensations(compensation)
    _check_compensations(wanted, analog, calibration, together)
    _check_on_chip(on_chip, together)
    judged = as_metric(metric)
    plan = as_plan(chips, precision, samples_per_chip, together, judged)
    first = as_seed(seed)
    as_seed(first + plan.chips - 1)
    check_flag(progress, "evaluate: progress")
    layers = matrices_of(analog)
    converters = _counts_converters(clean, analog)
    instants = _instants(times, layers)
    data = Data(loader, layers[0].still()[0].device)
    # What is judged here looks for itself, at every chip.
    watching = [(module, watch) for module in analog.modules() for watch in stop_watching(module)]
    digital = to_digital(analog).eval()
    plain, trained, units = _clean_scores(analog, digital, data, judged, plan, converters)
    saturated = _saturated(analog, data) if look else ""
    course = Course(
        analog=analog,
        times=instants,
        compensations=wanted,
        calibration=CalibrationData(digital, _read(calibration, wanted), data.device),
        data=data,
        metric=judged,
        faults=faults,
        masked=plain.masked,
        on_chip=on_chip,
    )
    described = ", ".join(dict.fromkeys(_described(layer) for layer in layers))
    uses = Uses([matrix.analog for matrix in layers])
    ask = partial(
        describe_question, course, clean=plain.values[0], device=described, sampling=plan.describe_sampling(first)
    )

    def check_first(batch: Iterable[ChipScores]) -> None:
        for chip in batch:
            if chip.seed == first:  # which shows already whether any layer has a part
                uses.credit(chip.idle)
                uses.check(action)

    bar = _progress_bar(None if plan.precision else plan.chips) if progress else nullcontext()
    with ExitStack() as stack, bar as shown:
        record, known = _opened(as_journal(journal), ask, executor, range(first, first + plan.chips), stack)
        judging = partial(_judged, together=together, executor=executor, journal=journal)
        done: dict[int, ChipScores] = {}
        came = _until_enough(_rounds(course, plan, units, first, done), known, judging)
        for batch, is_new in stack.enter_context(closing(came)):
            _keep(batch, done, record if is_new else None, shown)
            check_first(batch)
    chosen = [done[seed] for seed in range(first, first + len(done))]
    for chip in chosen:
        uses.credit(chip.idle)
    _watch_again(uses, watching)
    report = Report(
        values=np.array([chip.values for chip in chosen]),
        times=instants,
        clean=trained.values[0],
        metric=judged.name,
        device=described,
        seeds=tuple(chip.seed for chip in chosen),
        compensation=wanted.text,
        chance=judged.by_chance(plain.classes),
        samples=plain.samples,
        unit=judged.unit,
        higher_is_better=judged.higher_is_better,
        digital=plain.values[0],
        constant=course.is_constant,
        precision=plan.precision,
        sampled=_sampled(units, plan, chosen),
    )
    anew = len(done.keys() - known.keys())
    told = stop_told(plan, report.values, judged.unit)
    return Judged(report, uses, *_details(trained, [] if units else chosen), anew, saturated, told)


def _clean_scores(
    analog: nn.Module, digital: nn.Module, data: Data, metric: Metric, plan: Plan, converters: bool
) -> tuple[Scores, Scores, Units | None]:
    """The scores of the digital network and of that which is clean, and what the data consist of for chips.

    The last of them is None where chips are asked all the data.
    """
    noted = metric if plan.samples is None else noting(metric, whole=True)
    plain = score_networks(ask_alone(digital), data, noted, find_alone(digital, "the digital network"))
    trained = _score_behind_converters(analog, data, noted, plain) if converters else plain
    return plain, trained, None if plan.samples is None else _units(digital, data, metric, plain, trained)


def _saturated(analog: nn.Module, data: Data) -> str:
    """What is to be said of output converters that saturate; empty for nothing."""
    if not any(map(has_fixed_bound, matrices_of(analog))):
        return ""
    return saturation_told(analog, find_saturated(analog, next(iter(data))[0]))


def _until_enough(
    rounds: Iterable[tuple[range, Course]],
    known: Mapping[int, ChipScores],
    judging: Callable[[Course, Sequence[int]], Generator[Collection[ChipScores]]],
) -> Generator[tuple[Collection[ChipScores], bool]]:
    """The chips of all rounds as they come, and whether they are new.

    Args:
        rounds: chips, and what they go through; the next round is asked for when those of the last have come.
        known: chips that were judged before.
        judging: judges others.
    """
    for seeds, course in rounds:
        here = [known[seed] for seed in seeds if seed in known]
        if here:
            yield here, False
        with closing(judging(course, [seed for seed in seeds if seed not in known])) as came:
            for batch in came:
                yield batch, True


def _rounds(
    course: Course, plan: Plan, units: Units | None, first: int, done: Mapping[int, ChipScores]
) -> Iterator[tuple[range, Course]]:
    """The chips to be judged next, and what they go through, until there are enough.

    Args:
        course: what chips go through that are asked all the data.
        plan: when there are enough.
        units: what the data consist of, where chips are asked part of them.
        first: the first chip.
        done: the chips so far; those of a round are in it when the next one is asked for.
    """
    learned = None
    if units is not None:
        learned = Learned(units, len(course.ages), None if plan.samples == "auto" else cast(int, plan.samples))
    boundary = taken = 0
    while True:
        count = len(done)
        look = plan.next_look(np.array([done[first + place].values for place in range(count)]))
        if look <= count:
            return
        while count < look:
            if learned is not None and count >= boundary:
                if course.part is not None:
                    answers = [_answers(done[first + place]) for place in range(taken, count)]
                    learned.take(course.part.design, [each[: len(course.ages)] for each in answers])
                taken, boundary = count, boundary_after(count, FIRST)
                course = replace(course, part=Part(learned.units, learned.design()))
            upto = look if learned is None else min(look, boundary)
            yield range(first + count, first + upto), course
            count = upto


def _answers(chip: ChipScores) -> list[Answers]:
    """What a chip that was asked part of the data answered at each time."""
    return [Answers(index.astype(np.int64), scores) for index, scores in chip.details]


def _sampled(units: Units | None, plan: Plan, chips: Sequence[ChipScores]) -> Sampled | None:
    """How much of the data chips were asked, and how sure their scores are; None where they were asked all."""
    if units is None:
        return None
    asked = [[int(units.size[index.astype(np.int64)].sum()) for index, _ in chip.details] for chip in chips]
    return Sampled(np.array([chip.variances for chip in chips]), np.array(asked), cast(int | str, plan.samples))


def _units(digital: nn.Module, data: Data, metric: Metric, plain: Scores, trained: Scores) -> Units:
    """What data consist of, with what is known of it before any chip.

    Raises:
        ValueError: what a sample scores depends on what else is in its batch.
    """
    units = Units.of(data, trained.details[0])
    alone = np.flatnonzero(units.weight > 0)
    some = alone[np.linspace(0, len(alone) - 1, min(len(alone), _TRIED)).astype(np.int64)]
    asked = Asked(Reader(data, units), some)
    again = score_networks(ask_alone(digital), asked, noting(metric, whole=False), masked=plain.masked)
    then, now = (units.scores_of(some, again.details[0]), Units.of(data, plain.details[0]).clean[some])
    same = np.isclose(then, now, rtol=1e-3, atol=1e-3 * max(float(np.abs(now).max()), 1e-12), equal_nan=True)
    if same.mean() < _SAME:
        raise InvalidValueError(
            f"evaluate: the digital network scores {(~same).sum()} of {len(some)} samples otherwise when they are "
            "taken out of their batches, or the loader gives other samples in each pass; samples_per_chip needs "
            "samples that are judged by themselves, in a fixed order"
        )
    return units


def _details(clean: Scores, chips: Sequence[ChipScores]) -> tuple[FloatArray | None, FloatArray | None]:
    """What the metric keeps of the clean network, and of each chip at each time; None where it keeps nothing."""
    kept = [np.stack(chip.details) for chip in chips if chip.details]
    return (clean.details[0] if clean.details else None), (np.stack(kept) if kept else None)


def _watch_again(uses: Uses, watching: Sequence[tuple[nn.Module, FirstForward]]) -> None:
    """Look at the next forwards too, where some layers had no part here, which they may have in training."""
    for module, watch in watching if uses.idle else ():
        watch.watch(module)


def _check_on_chip(on_chip: OnChip | None, together: int) -> None:
    if on_chip is None:
        return
    if not callable(on_chip):
        raise InvalidTypeError(f"evaluate: on_chip must be a function of (analog, seed, t), got {on_chip!r}")
    if together > 1:
        raise InvalidValueError(
            f"evaluate: together={together} with on_chip, which takes one chip; leave out one of them"
        )


def _counts_converters(clean: Clean | None, analog: nn.Module) -> bool:
    """Whether the clean score is that behind the converters."""
    if clean is None:
        return is_trained_behind_converters(analog)
    if clean not in ("converters", "digital"):
        raise InvalidValueError(f'evaluate: clean must be "converters", "digital" or None, got {clean!r}')
    return clean == "converters" and any(matrix.analog.crossbar.converts for matrix in matrices_of(analog))


def _score_behind_converters(analog: nn.Module, data: Data, metric: Metric, digital: Scores) -> Scores:
    """The score of the twin with its converters and without any error."""
    with without_errors(analog):
        find = find_alone(analog, "the network behind its converters, without errors,")
        return score_networks(ask_alone(analog), data, metric, find, masked=digital.masked)


def _read(calibration: Iterable[Any] | None, wanted: Compensations) -> Iterable[Any] | None:
    """The data for compensations, the same ones for all chips."""
    return calibration if calibration is None or not wanted.needs_data else read_once(calibration)


def _opened(
    journal: Journal | None, ask: Callable[[], Question], executor: Executor | None, seeds: range, stack: ExitStack
) -> tuple[Record | None, dict[int, ChipScores]]:
    """The record of a question, where this process keeps it, and what it holds already."""
    if journal is None:
        return None, {}
    kept: list[Record] = []

    def done() -> dict[int, ChipScores]:
        kept.append(stack.enter_context(journal.opened(ask())))
        return kept[0].done(seeds)

    known = executor.first(done) if isinstance(executor, Ranks) else done()
    return (kept[0] if kept else None), dict(known)


def _judged(
    course: Course,
    seeds: Sequence[int],
    together: int,
    executor: Executor | None,
    journal: str | os.PathLike[str] | Journal | None,
) -> Generator[Collection[ChipScores]]:
    """The scores of chips as they come, here or elsewhere."""
    if not seeds:
        return
    if executor is None:
        for start in range(0, len(seeds), together):
            yield course.judge(seeds[start : start + together], together=together > 1)
    elif isinstance(executor, Ranks):
        yield from judge_in_ranks(executor, course, seeds, together)
    else:
        kept = as_journal(journal)
        place = None if kept is None else Path(f"{os.path.realpath(kept.path)}.parcels")
        try:
            yield from judge_elsewhere(executor, course, seeds, together, place)
        except WorkerError as error:
            told = (
                "chips that were done are lost; give journal= to keep them"
                if kept is None
                else f"chips that were done are kept in {os.fspath(kept.path)!r}; the same call goes on with the rest"
            )
            raise WorkerError(f"{error}; {told}") from error


def _keep(batch: Collection[ChipScores], done: dict[int, ChipScores], record: Record | None, bar: Any) -> None:
    """Take in what came."""
    if record is not None:
        record.add(batch)
    done |= {chip.seed: chip for chip in batch}
    if bar is not None:
        bar.update(len(batch))


def _check_count(name: str, count: object) -> None:
    check_whole(count, f"evaluate: {name}", 1, MOST_TURNS)


def _check_times(times: Sequence[float | str] | None) -> None:
    if times is not None and (not isinstance(times, Sized) or isinstance(times, str | bytes) or not len(times)):
        raise InvalidValueError(f'evaluate: times must be a sequence such as ("1s", "1d"), got {times!r}')


def _check_compensations(
    wanted: Compensations, analog: nn.Module, calibration: Iterable[Any] | None, together: int
) -> None:
    if calibration is not None and not isinstance(calibration, Iterable):
        raise InvalidTypeError(f"evaluate: calibration must yield inputs, got {in_short(calibration)}")
    if wanted.needs_data and calibration is None:
        raise InvalidValueError(
            f"evaluate: compensation {wanted.text!r} needs data: give calibration=, a loader of inputs"
        )
    if wanted.needs_data and isinstance(calibration, Iterator):
        raise InvalidValueError("evaluate: calibration can be read only once; give a DataLoader or a list of batches")
    wanted.check(analog, "evaluate")
    if together > 1 and wanted.adjustments:
        raise InvalidValueError(
            f"evaluate: together={together} with compensation {wanted.text!r}, which is made for each chip by itself; "
            "leave out one of them"
        )


def _instants(times: Sequence[float | str] | None, layers: Sequence[AnalogMatrix]) -> tuple[float, ...]:
    """The times in seconds; by default as far as the devices' formulas go."""
    instants = _default_times(layers) if times is None else tuple(seconds(t) for t in times)
    for layer in layers:
        for t in instants:
            layer.analog.device.check_time(t)
    return instants


def _described(layer: AnalogMatrix) -> str:
    device, crossbar = layer.analog.device.name, layer.analog.crossbar
    return device if crossbar == IDEAL else f"{device} ({crossbar})"


def _default_times(layers: Sequence[AnalogMatrix]) -> tuple[float, ...]:
    """`DEFAULT_TIMES` as far as all devices go; programming itself, where they go nowhere."""
    spans = [layer.analog.device.times for layer in layers]
    first, last = max(span[0] for span in spans), min(span[1] for span in spans)
    return tuple(t for t in map(seconds, DEFAULT_TIMES) if first <= t <= last) or (0.0,)


def _progress_bar(chips: int | None) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        raise MissingPackageError(f"evaluate: progress=True needs tqdm; {how_to_install('recipes')}") from None
    return tqdm(total=chips, desc="chips", unit="chip", leave=False, dynamic_ncols=True)
