"""Judge a trained network: what it loses on chips, what that comes from, and which remedy is worth it.

Examples:
analogsim judge --model nets.py:build --weights net.safetensors --data folder:images --crossbar standard
analogsim judge runs/20260101-120000-digits-lenet5-pcm --html judgement.html
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import analogsim
from analogsim.chip.calibration import find_saturated, saturation_told
from analogsim.chip.compensation import as_compensations
from analogsim.errors import ConversionWarning, InvalidValueError
from analogsim.evaluation.journal import Journal, as_journal
from analogsim.evaluation.metrics import MetricLike, as_metric
from analogsim.evaluation.workers import Executor, Ranks
from analogsim.layers.module import AnalogModule, matrices_of
from analogsim.recipes.config.arguments import Program
from analogsim.recipes.config.outputs import check_output, keep_result
from analogsim.recipes.judge.bench import Bench, Part
from analogsim.recipes.judge.clock import Clock
from analogsim.recipes.judge.judgement import Judgement, page_of
from analogsim.recipes.judge.remedies import all_remedies, combine, read_remedies
from analogsim.recipes.judge.rounds import Rounds
from analogsim.recipes.judge.samples import Samples, read, read_inputs
from analogsim.recipes.judge.variant import Subject, Variant, set_ranges_again
from analogsim.recipes.tasks import data_sets, networks
from analogsim.recipes.tasks.loaders import take
from analogsim.recipes.tasks.references import short
from analogsim.recipes.tasks.task import load_metric
from analogsim.recipes.tasks.weights import load_into, read_weights
from analogsim.recipes.training.restored import Asked, judging, restored
from analogsim.recipes.training.sharing import Sharing, add_sharing, sharing
from analogsim.utils.batches import moved
from analogsim.utils.digests import sealed
from analogsim.utils.files import write_whole
from analogsim.utils.times import DEFAULT_TIMES, label, seconds

_MOST_SAMPLES = 5_000
_FEW = 256  # samples below which choosing by them alone is choosing by chance
_CALIBRATION = 512
# Chips far away from those that the answer is given on.
_OTHER_CHIPS = 1_000_000
_AT_ONCE = 3  # chips that workers are timed by, the fewest that are asked for


def judge(
    model: nn.Module,
    test: Iterable[Any],
    *,
    calibration: Iterable[Any] | None = None,
    validation: Iterable[Any] | None = None,
    metric: MetricLike = "accuracy",
    higher_is_better: bool | None = None,
    device: Any = "pcm",
    crossbar: Any = "ideal",
    compensation: str | None = "global",
    times: Sequence[float | str] | None = None,
    at: float | str | None = None,
    minutes: float = 10.0,
    tolerance: float = 0.01,
    seed: int = 0,
    only: Sequence[str] | None = None,
    apply: str | None = None,
    executor: Executor | None = None,
    journal: str | os.PathLike[str] | Journal | None = None,
    tell: Callable[[str], None] = lambda _: None,
    show: Callable[[Judgement], None] = lambda _: None,
) -> Judgement:
    """What a trained network loses on chips, what that comes from, and what to do about it, within a given time.

    Remedies are chosen on validation data and on chips of their own; what is recommended is judged beside doing nothing
    on test data and other chips, the same ones for both. Of remedies that are equally good within one standard error
    the cheapest is taken, and what does not help beyond its error (95 %, over chips and samples) is not recommended.
    ``model`` is left alone.

    Args:
        model: a trained network that `analogsim.convert` takes; or its twin, whose hardware and ranges it then has.
        test: batches of ``(input, target)``, see `analogsim.evaluate`, that the answer is given on.
        calibration: batches that ranges and statistics are set by; training data. Default: the inputs of validation.
        validation: batches to choose by. Default: half of the test data, which then have no part in the answer. Where
            there are fewer than 256 samples, those of ``calibration`` that have targets are added.
        metric: see `analogsim.evaluate`.
        higher_is_better: of a metric that does not say so itself.
        device: see `analogsim.convert`; not used for a twin but to name it.
        crossbar: the same.
        compensation: what is compensated anyway: names joined by ``+``, or None.
        times: since programming, at which the network is judged; default: as `analogsim.evaluate`.
        at: the one of them by which remedies are chosen; default: the last.
        minutes: all of it may take. Samples and chips become fewer where a forward is slow.
        tolerance: share of what there is to lose (clean score to guessing) that may be lost before remedies are tried
            that cost cells or digital products.
        seed: the first chip.
        only: names of the remedies to try, see `analogsim.recipes.judge.remedies`; default: all.
        apply: remedies joined by ``+`` that are not chosen but given, and judged on test data alone.
        executor: see `analogsim.evaluate`; what is measured is the same, and there is time for more of it.
        journal: see `analogsim.evaluate`. The same call goes on with what was measured, on the samples and with as many
            chips as the first one had time for.
        tell: told in a few words what is being done.
        show: given every judgement as far as it has come, so that an interruption loses nothing.

    Returns:
        The answer; ``print`` it, or write its ``to_html()``.

    Raises:
        ValueError: settings or data that cannot be; see `analogsim.evaluate`, as for all other errors.
    """
    clock = Clock(60 * _checked(minutes, "minutes", 0.0, 10_000.0), _time_of(executor))
    _checked(tolerance, "tolerance", 0.0, 1.0)
    scored = as_metric(metric).directed(higher_is_better, "judge")
    base = Variant(compensation=as_compensations(compensation).text)
    _check_names(only)
    notes: list[str] = []
    judged, choosing, inputs = _data(test, validation, calibration, clock, notes)
    analog = _twin_of(model, device, crossbar, inputs, notes)
    subject = Subject(analog, inputs, device, crossbar)
    as_compensations(compensation).check(analog, "judge")
    ages = _ages(times, subject)
    chosen_at = ages[-1] if at is None else seconds(at)
    if chosen_at not in ages:
        raise InvalidValueError(f"judge: at={at!r} is none of the times {', '.join(map(label, ages))}")
    given = None if apply is None else combine(read_remedies(apply, subject), base, subject)
    kept = as_journal(journal)
    bench = Bench(subject, scored, clock, executor=executor, journal=kept)
    tell("how long a forward takes")
    learn_costs(Bench(subject, scored, clock), base, choosing, chosen_at, seed + _OTHER_CHIPS)
    if executor is not None:
        tell("how long it takes elsewhere")
        _learn_factor(Bench(subject, scored, clock, executor=executor), base, choosing, chosen_at, seed + _OTHER_CHIPS)
    rounds = Rounds(
        bench=bench,
        base=base,
        judged=judged,
        choosing=choosing,
        ages=ages,
        chosen_at=chosen_at,
        seeds=(seed, seed + _OTHER_CHIPS),
        tolerance=tolerance,
        only=only,
        notes=notes,
        tell=tell,
        show=show,
        executor=executor,
        journal=kept,
    )
    return rounds.run() if given is None else rounds.run_given(given, read_remedies(apply or "", subject))


def _checked(value: float, name: str, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least < value <= most:
        raise InvalidValueError(f"judge: {name} must be a number above {least:g} and at most {most:g}, got {value!r}")
    return float(value)


def _check_names(only: Sequence[str] | None) -> None:
    known = all_remedies()
    for name in only or ():
        if name not in known:
            raise InvalidValueError(f"judge: there is no remedy {name!r}; known are {', '.join(known)}")


def _data(
    test: Iterable[Any],
    validation: Iterable[Any] | None,
    calibration: Iterable[Any] | None,
    clock: Clock,
    notes: list[str],
) -> tuple[Samples, Samples, list[Any]]:
    """The samples that the answer is given on, those that it is chosen on, and inputs to calibrate by."""
    allowed = clock.budget / 20
    judged, hurried = read(test, _MOST_SAMPLES, allowed, clock.now)
    if validation is None:
        judged, choosing = judged.halves()
        notes.append("No validation data were given: one half of the test data chooses, the other half judges.")
    else:
        choosing, late = read(validation, _MOST_SAMPLES, allowed, clock.now)
        hurried = hurried or late
    if hurried:
        notes.append(f"Reading the data was left after {allowed:.0f} s: what came first stands for all of them.")
    if calibration is None:
        inputs = [entry for entry, _ in choosing.take(_CALIBRATION)]
    else:
        inputs = read_inputs(calibration, _CALIBRATION, allowed, clock.now)
        if len(choosing) < _FEW:
            choosing = _extended(choosing, calibration, clock, notes)
    return judged, choosing, inputs


def _extended(choosing: Samples, calibration: Iterable[Any], clock: Clock, notes: list[str]) -> Samples:
    """With samples of the calibration data, where these have targets."""
    try:
        more, _ = read(calibration, _FEW - len(choosing), clock.budget / 20, clock.now)
    except TypeError:  # inputs alone
        return choosing
    notes.append(
        f"There are {len(choosing)} validation samples; {len(more)} of the calibration data choose with them, and have "
        "no part in the answer."
    )
    return Samples([*choosing, *more])


def _twin_of(model: nn.Module, device: Any, crossbar: Any, inputs: list[Any], notes: list[str]) -> nn.Module:
    """The network as it is on the chip, with the ranges that it needs."""
    if any(isinstance(module, AnalogModule) for module in model.modules()):
        analog = model
    else:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConversionWarning)
            analog = analogsim.convert(model, device, crossbar=crossbar, example=inputs[0])
        notes += [" ".join(str(entry.message).split()) for entry in caught if entry.category is ConversionWarning]
    states = [matrix.analog for matrix in matrices_of(analog)]
    missing = any(
        (state.crossbar.needs_range and state.input_range is None)
        or (state.crossbar.needs_bound and state.output_bound is None)
        for state in states
    )
    if missing:
        set_ranges_again(analog, inputs, 99.99)
    if inputs:
        first = moved(inputs[0], matrices_of(analog)[0].torch_device)
        if saturated := saturation_told(analog, find_saturated(analog, first)):
            notes.append(f"{saturated[0].upper()}{saturated[1:]}.")
    return analog


def _ages(times: Sequence[float | str] | None, subject: Subject) -> tuple[float, ...]:
    """The times in seconds, in order; by default as far as the devices' formulas go."""
    devices = [state.device for state in subject.states.values()]
    if times is None:
        first, last = max(device.times[0] for device in devices), min(device.times[1] for device in devices)
        return tuple(t for t in map(seconds, DEFAULT_TIMES) if first <= t <= last) or (0.0,)
    if isinstance(times, str) or not len(times):
        raise InvalidValueError(f'judge: times must be a sequence such as ("1s", "1y"), got {times!r}')
    return tuple(sorted(dict.fromkeys(map(seconds, times))))


def _time_of(executor: Executor | None) -> Callable[[], float]:
    """A clock; where processes make the same call, the one of the first of them, by which all decide alike."""
    if isinstance(executor, Ranks):
        ranks = executor
        return lambda: ranks.gather(time.monotonic())[0]
    return time.monotonic


def _learn_factor(bench: Bench, base: Variant, samples: Samples, at: float, first: int) -> None:
    """Find out what a chip costs where several are judged at once; those who judge begin slowly."""
    clock, part = bench.clock, Part(samples.take(256), first, (at,))
    alone = clock.estimate(len(part.samples), _AT_ONCE)
    fastest, allowed = alone, clock.budget / 30
    for _ in range(3):
        if fastest > allowed:
            break
        before = clock.now()
        bench.ask(base, part, range(first, first + _AT_ONCE))
        took = clock.now() - before
        fastest, allowed = min(fastest, took), allowed - took
    clock.factor *= fastest / alone if alone else 1.0


def learn_costs(bench: Bench, base: Variant, samples: Samples, at: float, first: int) -> None:
    """Find out what a chip costs, first on a few samples; what is slow is not asked for more."""
    clock = bench.clock

    def timed(count: int) -> tuple[int, float]:
        part = Part(samples.take(count), first, (at,))
        before = clock.now()
        bench.ask(base, part, [first])
        return len(part.samples), clock.now() - before

    allowed = clock.budget / 10
    small = timed(8)
    if small[1] < allowed:  # the first of all took longer, whatever there was to be set up
        small = min(small, timed(8))
    clock.set_costs(small, small)
    # Of eight samples alone it is not known what is of the chip and what of the samples.
    for count in (32, 256):
        if clock.estimate(count, 1) > allowed:
            break
        clock.set_costs(small, timed(count))


def judge_run(
    path: Path,
    *,
    options: argparse.Namespace,
    tell: Callable[[str], None],
    shared: Sharing,
    known: dict[str, Judgement] | None = None,
    **how: Any,
) -> dict[str, Judgement]:
    """Judge the networks of a run, on its own data.

    Args:
        path: a run's folder, or one checkpoint file.
        options: of the command line; what is left out is as the run has it.
        tell: told what is being done.
        shared: who judges the chips, and where they are kept.
        known: filled with every judgement as far as it has come, so that an interruption loses nothing.
        **how: see `judge`.

    Returns:
        The judgements, by the networks' names.
    """
    asked: Asked = {
        "device": options.device,
        "crossbar": options.crossbar,
        "compensation": options.compensation,
        "folder": options.folder,
        "times": options.times.split(",") if options.times else None,
        "model": options.model,
        "data": options.data,
        "task": options.task,
        "metric": options.metric,
        "trust": options.trust,
    }
    found = {} if known is None else known
    for name, network in restored(path, asked, tell, "judge", place=shared.place):
        rule = judging(network, asked)
        found[name] = judge(
            network.analog,
            network.test,
            validation=network.validation,
            calibration=network.calibration,
            metric=network.task.metric,
            device=network.config.device,
            crossbar=network.config.crossbar,
            compensation=rule["compensation"],
            times=rule["times"],
            tell=tell,
            show=partial(found.__setitem__, name),
            **shared.options(name),
            **how,
        )
    return found


def judge_named(
    *,
    options: argparse.Namespace,
    tell: Callable[[str], None],
    shared: Sharing,
    known: dict[str, Judgement] | None = None,
    **how: Any,
) -> dict[str, Judgement]:
    """Judge a network that the user names, on data that the user names.

    Args:
        options: of the command line.
        tell: told what is being done, and of weights that need another name.
        shared: who judges the chips, and where they are kept.
        known: filled with every judgement as far as it has come, so that an interruption loses nothing.
        **how: see `judge`.

    Returns:
        The judgement, by the network's name.

    Raises:
        ValueError: weights of another architecture; or see `data_sets.load`, `networks.make_network`, `judge`.
    """
    data = data_sets.load(options.data, options.folder, task=options.task)
    model = networks.make_network(options.model, data.facts, seed=0)
    if options.weights is None:
        tell("no --weights: the network is judged as its factory gives it")
    else:
        for note in load_into(model, read_weights(options.weights), f"weights {options.weights!r}"):
            tell(note)
    drawn = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:_CALIBRATION]
    found, name = {} if known is None else known, short(options.model)
    found[name] = judge(
        model,
        data.batches(data.test, options.batch_size),
        validation=data.batches(data.validation, options.batch_size),
        calibration=data.batches(take(data.train, drawn), min(options.batch_size, 128)),
        metric=data.task.metric if options.metric is None else load_metric(options.metric),
        device=options.device or "pcm",
        crossbar=options.crossbar or "ideal",
        compensation=None if options.compensation == "none" else options.compensation or "global",
        times=options.times.split(",") if options.times else None,
        tell=tell,
        show=partial(found.__setitem__, name),
        **shared.options(name),
        **how,
    )
    return found


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Judge a trained network: what it loses on chips, what that comes from, what remedies bring that need no "
        "training, and which one is worth it."
    )
    parser.add_argument(
        "run", metavar="RUN", nargs="?", help="a run's folder, or a checkpoint file; or --model, --data"
    )
    parser.add_argument("--model", help="package.module:factory, file.py:factory, or a name that train knows")
    parser.add_argument("--weights", metavar="FILE", help="its trained weights: safetensors, or a state dict")
    parser.add_argument("--data", help="a name, folder:PATH, npz:FILE, audio:PATH, text:FILE, or file.py:factory")
    parser.add_argument("--task", help="what was learned; default: what the data say")
    parser.add_argument("--metric", help="what is judged by, a name or file.py:score; default: the task's")
    parser.add_argument("--trust", action="store_true", help="run whatever code the run names")
    parser.add_argument("--batch-size", type=int, default=250, help="samples in a forward; default: 250")
    parser.add_argument("--device", help="device model; default: the run's, or pcm")
    parser.add_argument("--crossbar", help="array, converters and wires; default: the run's, or ideal")
    parser.add_argument("--compensation", help="what is compensated anyway, or none; default: the run's, or global")
    parser.add_argument("--folder", help="where the data lie")
    parser.add_argument("--times", help='since programming, such as "1s,1h,1d"; default: the run\'s')
    parser.add_argument("--at", help="the time, as 1w, by which remedies are chosen; default: the last")
    parser.add_argument("--minutes", type=float, default=10.0, help="minutes that it may take; default: 10")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.01,
        help="share of what there is to lose that is no reason for more cells or digital layers; default: 0.01",
    )
    parser.add_argument("--only", metavar="REMEDIES", help="the remedies to try, joined by commas; default: all")
    parser.add_argument("--apply", metavar="REMEDIES", help="judge these, joined by +, beside the network as it is")
    parser.add_argument("--seed", type=int, default=0, help="the first chip; default: 0")
    add_sharing(parser)
    parser.add_argument("--html", metavar="FILE", help="write one page that needs nothing beside it")


def _command(options: argparse.Namespace) -> list[str]:
    """The command that was given, without what it writes and chooses from."""
    words = ["analogsim", "judge", *([] if options.run is None else [options.run])]
    for name in (
        "model",
        "weights",
        "data",
        "task",
        "metric",
        "device",
        "crossbar",
        "compensation",
        "folder",
        "times",
        "at",
    ):
        if (value := getattr(options, name)) is not None:
            words += [f"--{name}", str(value)]
    return words


def _check_options(options: argparse.Namespace) -> None:
    check_output(options.html, "judge")  # told before the work, not after it
    if options.run is None and (options.model is None or options.data is None):
        raise InvalidValueError("judge: give a run's folder, or --model and --data (and --weights)")
    if options.run is not None and options.weights is not None:
        raise InvalidValueError(
            "judge: a run has weights of its own; leave out --weights, or give --model and --data alone"
        )


def _run_command(options: argparse.Namespace) -> object:
    _check_options(options)
    with sharing(options, "judge") as shared:
        found = _found(options, shared)
        if not shared.main:
            return None
    for name, each in found.items():
        if each.recommended:
            words = [*_command(options), "--apply", "+".join(each.recommended)]
            found[name] = each.replace(command=shlex.join(words))
    result = {name: sealed(each.to_dict()) for name, each in found.items()}
    keep_result(options, result)
    print("\n\n".join(f"{name} network\n\n{each}" for name, each in found.items()))
    if options.html is not None:
        write_whole(options.html, page_of(found))
    return result


def _found(options: argparse.Namespace, shared: Sharing) -> dict[str, Judgement]:
    """The judgements that a command asks for; what is known is printed where it is interrupted."""
    so_far: dict[str, Judgement] = {}

    def tell(text: str) -> None:
        if shared.main and not options.quiet:
            print(text, file=sys.stderr, flush=True)

    how = {
        "shared": shared,
        "at": options.at,
        "minutes": options.minutes,
        "tolerance": options.tolerance,
        "seed": options.seed,
        "only": options.only.split(",") if options.only else None,
        "apply": options.apply,
        "known": so_far,
    }
    try:
        if options.run is None:
            return judge_named(options=options, tell=tell, **how)
        return judge_run(Path(options.run), options=options, tell=tell, **how)
    except BaseException:  # what was found out is not lost to what comes after it, be it an error or Ctrl-C
        if so_far and shared.main:
            keep_result(options, {name: sealed(each.to_dict()) for name, each in so_far.items()})
            print("\n\n".join(f"{name} network\n\n{each}" for name, each in so_far.items()), flush=True)
        raise


PROGRAM = Program(
    "judge",
    "what a trained network loses on chips, and what to do about it",
    _declare,
    _run_command,
    examples=(
        "judge runs/RUN --minutes 5 --html judgement.html",
        "judge --model nets.py:make --weights w.pt --data npz:x.npz --at 1w",
        "judge runs/RUN --only global+affine,copies-2 --json - --quiet",
    ),
    result="the judgements",
)
