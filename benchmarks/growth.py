"""How cost grows: with parameters, chips, times, batch, crossbar size and workers, beside the slope that is expected.

Every size of a panel takes its turn in every round. The slope is fitted to logarithms in each round, over the sizes
where the term that is expected to grow outweighs what is constant.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar, Report
from analogsim.recipes.training.processes import joined
from analogsim.utils.files import write_figure, write_whole
from analogsim.utils.text import table
from benchmarks.harness.methods import answer, forward_backward
from benchmarks.harness.networks import CASES
from benchmarks.harness.timing import Call, Seconds, Spread, duration, interleave

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROOT = Path(__file__).resolve().parents[1]
_NETWORK = "mlp"  # whose chips are evaluated
_METRIC = "cross_entropy"  # tells chips apart that an accuracy would not


@dataclass(frozen=True)
class Sizes:
    """How large things are.

    Args:
        sides: of the square layers whose parameters grow.
        batch: of their training step.
        chips: how many, one after the other.
        times: how many.
        samples: that are evaluated.
        batches: of the training step of one layer.
        batched: side of that layer.
        rows: of square crossbars.
        on_crossbars: side of the layer that lies on them, and size of its batch.
        workers: processes that share the chips.
        shared: chips that they share.
    """

    sides: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
    batch: int = 64
    chips: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    times: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    samples: int = 1000
    batches: tuple[int, ...] = (1, 4, 16, 64, 256, 1024, 4096)
    batched: int = 256
    rows: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024)
    on_crossbars: tuple[int, int] = (1024, 256)
    workers: tuple[int, ...] = tuple(2**k for k in range((os.cpu_count() or 1).bit_length()))
    shared: int = 64


QUICK = Sizes(
    sides=(4, 8),
    batch=2,
    chips=(1, 2),
    times=(1, 2),
    samples=4,
    batches=(1, 2),
    batched=8,
    rows=(4, 8),
    on_crossbars=(8, 2),
    workers=(1, 2),
    shared=2,
)


@dataclass(frozen=True)
class Series:
    """One cost over sizes.

    Args:
        name: what is timed.
        sizes: the sizes.
        seconds: for each size, one number per round.
        expected: the slope, in a plot of logarithms.
        fitted: which of the sizes it is expected of.
        share: the unit that the cost of one is told for ("weight"); empty where that says nothing.
    """

    name: str
    sizes: Sequence[int]
    seconds: Sequence[Seconds]
    expected: float
    fitted: slice
    share: str = ""

    @property
    def slope(self) -> Spread | None:
        """The slope fitted in each round; None if none has times above zero throughout, as differences may lack."""
        seconds = np.stack(self.seconds)[self.fitted]
        seconds = seconds[:, (seconds > 0).all(axis=0)]
        if not seconds.size or len(seconds) < 2:
            return None
        return Spread.of(np.polyfit(np.log(self.sizes[self.fitted]), np.log(seconds), 1)[0])

    @property
    def spreads(self) -> list[Spread]:
        """Of each size."""
        return [Spread.of(values) for values in self.seconds]


@dataclass(frozen=True)
class Panel:
    """What grows with one size.

    Args:
        name: the size.
        axis: what the axis says.
        what: what is timed.
        why: where the slope comes from.
        series: the costs.
    """

    name: str
    axis: str
    what: str
    why: str
    series: tuple[Series, ...]


Settings = dict[str, Any]  # what `interleave` takes: rounds, steps, device


def _check(what: str, found: Tensor, wanted: Tensor, tolerance: float) -> None:
    """Raise RuntimeError if two answers differ by more than ``tolerance``, norm over norm."""
    error = float((found - wanted).norm() / wanted.norm())
    if not error <= tolerance:
        raise RuntimeError(f"{what} differ by {error:.1e}: do not time it")


def _layer(side: int, device: torch.device, batch: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A square layer, inputs and labels, always the same ones."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(side, side))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.empty(parameter.shape).uniform_(-1, 1, generator=generator) / math.sqrt(side))
    inputs = torch.randn(batch, side, generator=generator)
    labels = torch.randint(side, (batch,), generator=generator)
    return model.to(device), inputs.to(device), labels.to(device)


def _noisy(model: nn.Module, inputs: Tensor, crossbar: Crossbar | None = None, tolerance: float = 1e-5) -> nn.Module:
    """The twin that draws Gaussian noise in training; without noise it must answer as the model does."""
    analog = analogsim.convert(model, "gaussian", crossbar=crossbar or Crossbar()).train()
    analogsim.set_noise_scale(analog, 0.0)
    _check("a layer and its twin without noise", answer(analog, inputs), answer(model, inputs), tolerance)
    analogsim.set_noise_scale(analog, 1.0)
    return analog


def _rising(sizes: Sequence[int]) -> slice:
    """The upper half of the sizes, two at least: there what is constant is outweighed."""
    return slice(max(min((len(sizes) + 1) // 2, len(sizes) - 2), 0), None)


def _falling(sizes: Sequence[int]) -> slice:
    """The lower half of the sizes, two at least."""
    return slice(None, max((len(sizes) + 1) // 2, 2))


def _by_parameters(sizes: Sizes, settings: Settings) -> Panel:
    calls: dict[str, Call] = {}
    device = settings["device"]
    for side in sizes.sides:
        model, inputs, labels = _layer(side, device, sizes.batch)
        chip = analogsim.convert(model, "pcm")
        calls[f"plain {side}"] = partial(forward_backward, model, inputs, labels)
        calls[f"noisy {side}"] = partial(forward_backward, _noisy(model, inputs), inputs, labels)
        calls[f"program {side}"] = partial(analogsim.program, chip)
    seconds = interleave(calls, **settings)
    weights = [side * side for side in sizes.sides]
    noise = [seconds[f"noisy {side}"] - seconds[f"plain {side}"] for side in sizes.sides]
    programs = [seconds[f"program {side}"] for side in sizes.sides]
    upper = _rising(weights)
    return Panel(
        name="parameters",
        axis="weights of a square layer",
        what=f"training with gaussian noise minus plain, batch {sizes.batch}; programming pcm",
        why="every weight is drawn, and every cell is written, once",
        series=(
            Series("noise of a training step", weights, noise, 1.0, upper, "weight"),
            Series("program a chip", weights, programs, 1.0, upper, "weight"),
        ),
    )


def _evaluated(samples: int, device: torch.device) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """A network's twin on phase-change memory, and batches of data."""
    case = CASES[_NETWORK]
    images, labels = case.data(device, samples)
    pairs = zip(torch.split(images, 500), torch.split(labels, 500), strict=True)
    return analogsim.convert(case.model(device), "pcm"), list(pairs)


def _instants(count: int) -> list[float]:
    """So many times from a second to a year."""
    return [float(t) for t in np.geomspace(1.0, analogsim.seconds("1y"), count)]


def _by_chips(sizes: Sizes, settings: Settings) -> Panel:
    analog, batches = _evaluated(sizes.samples, settings["device"])
    evaluate = partial(analogsim.evaluate, analog, batches, times=("1d",), metric=_METRIC)
    most = max(sizes.chips)
    alone, together = (evaluate(chips=most, together=count).values for count in (1, most))
    _check("chips one by one and all at once", torch.from_numpy(together), torch.from_numpy(alone), 1e-5)
    calls = {f"{count}": partial(evaluate, chips=count) for count in sizes.chips}
    seconds = interleave(calls, **settings)
    return Panel(
        name="chips",
        axis="chips",
        what=f"evaluate of an {_NETWORK} on pcm, {sizes.samples} samples, one time",
        why="each chip is written, aged and asked; the clean score comes once",
        series=(Series("evaluate", sizes.chips, list(seconds.values()), 1.0, _rising(sizes.chips), "chip"),),
    )


def _by_times(sizes: Sizes, settings: Settings) -> Panel:
    analog, batches = _evaluated(sizes.samples, settings["device"])
    calls = {
        f"{count}": partial(analogsim.evaluate, analog, batches, chips=1, times=_instants(count), metric=_METRIC)
        for count in sizes.times
    }
    seconds = interleave(calls, **settings)
    return Panel(
        name="times",
        axis="times",
        what=f"evaluate of an {_NETWORK} on pcm, {sizes.samples} samples, one chip",
        why="the chip is aged and asked at each time; it is written once",
        series=(Series("evaluate", sizes.times, list(seconds.values()), 1.0, _rising(sizes.times), "time"),),
    )


def _by_batch(sizes: Sizes, settings: Settings) -> Panel:
    calls: dict[str, Call] = {}
    for batch in sizes.batches:
        model, inputs, labels = _layer(sizes.batched, settings["device"], batch)
        calls[f"plain {batch}"] = partial(forward_backward, model, inputs, labels)
        calls[f"noisy {batch}"] = partial(forward_backward, _noisy(model, inputs), inputs, labels)
    seconds = interleave(calls, **settings)
    upper = _rising(sizes.batches)
    plain, noisy = ([seconds[f"{kind} {batch}"] for batch in sizes.batches] for kind in ("plain", "noisy"))
    return Panel(
        name="batch",
        axis="samples in a batch",
        what=f"training step of a layer of {sizes.batched} x {sizes.batched}: forward, backward",
        why="a product for every sample; the noise is drawn once a batch",
        series=(
            Series("with gaussian noise", sizes.batches, noisy, 1.0, upper, "sample"),
            Series("plain", sizes.batches, plain, 1.0, upper, "sample"),
        ),
    )


def _forward(model: nn.Module, inputs: Tensor) -> None:
    model(inputs)


def _by_crossbar(sizes: Sizes, settings: Settings) -> Panel:
    side, batch = sizes.on_crossbars
    model, inputs, _ = _layer(side, settings["device"], batch)
    calls: dict[str, Call] = {"ideal": partial(_noisy(model, inputs), inputs)}
    for rows in sizes.rows:
        crossbar = Crossbar(rows=rows, cols=rows, adc_bits=8)
        # What 8 bits leave of the answer: an error far below what a lost block would make.
        calls[f"converted {rows}"] = partial(_noisy(model, inputs, crossbar, tolerance=0.2), inputs)
        calls[f"program {rows}"] = partial(analogsim.program, analogsim.convert(model, "pcm", crossbar=crossbar))
    seconds = interleave(calls, **settings)
    converters = [seconds[f"converted {rows}"] - seconds["ideal"] for rows in sizes.rows]
    programs = [seconds[f"program {rows}"] for rows in sizes.rows]
    return Panel(
        name="crossbar",
        axis="rows and columns of a crossbar",
        what=f"8-bit ADCs of a {side} x {side} layer, a training forward of {batch} samples; programming pcm",
        why="every output is the sum of side / rows converted ones; the cells are as many on crossbars of any size",
        series=(
            Series("ADCs of a forward", sizes.rows, converters, -1.0, _falling(sizes.rows)),
            Series("program a chip", sizes.rows, programs, 0.0, slice(None)),
        ),
    )


def shared(chips: int, samples: int, rounds: int, file: str) -> None:
    """A process that torchrun starts: evaluate its share of the chips. Process 0 writes seconds and scores."""
    analog, batches = _evaluated(samples, torch.device("cpu"))
    seconds = []
    with joined() as group:
        for _ in range(rounds + 1):  # the first one makes ready what is made once
            group.gather(None)  # all begin together, and none is done before the last one is
            start = time.perf_counter()
            report: Report = group.evaluate(analog, batches, chips=chips, times=("1d",), metric=_METRIC)
            seconds.append(time.perf_counter() - start)
        if group.main:
            found = {"seconds": seconds[1:], "values": report.values.tolist()}
            write_whole(file, json.dumps(found))


def _workers(count: int, program: str) -> None:
    """Run a program in so many processes of one thread each, joined by torchrun.

    Raises:
        RuntimeError: it failed.
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "--no-python"]
    command = [sys.executable, *torchrun, sys.executable, "-c", program]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"growth: {count} processes failed:\n{program}\n{done.stderr}")


def _by_workers(sizes: Sizes, settings: Settings) -> Panel:
    seconds, scores = [], []
    for count in sizes.workers:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "found.json"
            arguments = (sizes.shared, sizes.samples, settings["rounds"], str(file))
            _workers(count, f"from benchmarks import growth\ngrowth.shared{arguments!r}")
            found = json.loads(file.read_text(encoding="utf-8"))
        seconds.append(np.array(found["seconds"]))
        scores.append(torch.tensor(found["values"]))
        _check(f"the scores of {count} processes and of one", scores[-1], scores[0], 1e-6)
    return Panel(
        name="workers",
        axis="processes of one CPU thread",
        what=f"evaluate of {sizes.shared} chips of an {_NETWORK} on pcm, {sizes.samples} samples",
        why="the chips are shared out; clean score and reports are for all",
        series=(Series("evaluate", sizes.workers, seconds, -1.0, slice(None)),),
    )


PANELS = (_by_parameters, _by_chips, _by_times, _by_batch, _by_crossbar, _by_workers)


def _row(panel: Panel, series: Series) -> tuple[str, ...]:
    """What the table says of a series."""
    first, last = series.spreads[0], series.spreads[-1]
    slope = series.slope
    fitted = series.sizes[series.fitted]
    return (
        panel.name,
        series.name,
        f"{series.sizes[0]:,} - {series.sizes[-1]:,}",
        f"{duration(first.median)} - {duration(last.median)}",
        f"{duration(last.median / series.sizes[-1])} a {series.share}" if series.share else "",
        f"{series.expected:g}",
        f"{slope.median:.2f}" if slope else "",
        f"{slope.low:.2f} - {slope.high:.2f}" if slope else "",
        f"{fitted[0]:,} - {fitted[-1]:,}",
    )


_HEAD = ("size", "cost", "sizes", "time", "at the largest", "expected slope", "fitted", "quartiles", "over")


def _record(panel: Panel, series: Series) -> dict[str, Any]:
    """A series for JSON."""
    fitted = series.sizes[series.fitted]
    return {
        "benchmark": "growth",
        "size": panel.name,
        "what": panel.what,
        "why": panel.why,
        "cost": series.name,
        "sizes": list(series.sizes),
        "seconds": [spread.as_dict() for spread in series.spreads],
        "expected_slope": series.expected,
        "slope": series.slope.as_dict() if series.slope else None,
        "fitted_over": [fitted[0], fitted[-1]],
    }


_COLORS = ("#0072B2", "#D55E00")  # of Okabe and Ito: told apart by colour-blind people too
_MARKS = ("o", "s")


def _draw(axes: Axes, panel: Panel) -> None:
    """Medians with quartiles, and a line of the expected slope over the sizes that it is expected of."""
    seen: list[float] = []
    for series, color, mark in zip(panel.series, _COLORS, _MARKS, strict=False):
        sizes, spreads = np.array(series.sizes, float), series.spreads
        low, median, high = (np.array([getattr(each, of) for each in spreads]) for of in ("low", "median", "high"))
        shown = median > 0  # a difference that is lost in the noise of the clock has no place on a logarithmic axis
        seen += median[shown].tolist()
        # A bar that reaches below zero reaches far below the axis.
        bars = np.stack((median - np.maximum(low, median / 1000), high - median))[:, shown]
        slope = f"{series.slope.median:.2f}" if series.slope else "none"
        axes.errorbar(
            sizes[shown],
            median[shown],
            bars,
            fmt=mark,
            ms=4,
            lw=1,
            capsize=2,
            color=color,
            label=f"{series.name}: slope {slope}, expected {series.expected:g}",
        )
        over, anchors = sizes[series.fitted], median[series.fitted]
        anchor = (len(over) - 1) // 2
        if anchors[anchor] > 0:
            line = anchors[anchor] * (over / over[anchor]) ** series.expected
            axes.plot(over, line, "--", lw=1.2, color=color)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(min(seen) / 3, max(seen) * 8)  # with room for the legend, and a decade at least
    sizes_shown = panel.series[0].sizes
    axes.set_xticks(sizes_shown, [_short(size) for size in sizes_shown])
    axes.minorticks_off()
    axes.set_xlabel(panel.axis)
    axes.set_ylabel("time [s]")
    axes.set_title("\n".join(wrap(panel.what, 55)), size=8, loc="left")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="upper left")


def _short(size: int) -> str:
    """A size as a tick: 4,194,304 is 4M."""
    for unit, factor in (("M", 2**20), ("k", 2**10)):
        if size >= factor:
            return f"{size / factor:.3g}{unit}"
    return str(size)


def plot(panels: Sequence[Panel], where: str) -> Figure:
    """A figure with a panel for each size.

    Args:
        panels: as measured.
        where: the machine, for the title.
    """
    from matplotlib.figure import Figure

    columns = 3
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(12, 3.6 * rows), layout="constrained")
    for panel, axes in zip(panels, figure.subplots(rows, columns, squeeze=False).flat, strict=False):
        _draw(axes, panel)
    figure.suptitle(f"Medians and quartiles; broken lines have the expected slope. {where}", size=9)
    return figure


def run(
    device: torch.device,
    *,
    rounds: int,
    steps: int | None,
    quick: bool,
    file: Path | None = None,
    say: Callable[[str], object] = print,
) -> list[dict[str, Any]]:
    """Time every size; print the table, draw the figure, and return the rows for JSON.

    Args:
        device: where; processes share chips on the CPU in any case.
        rounds: of the timing.
        steps: calls in a burst.
        quick: tiny sizes.
        file: the figure's; png, unless its name says otherwise.
        say: prints.
    """
    sizes = QUICK if quick else Sizes()
    settings: Settings = {"rounds": rounds, "steps": steps, "device": device}
    panels = [measure(sizes, settings) for measure in PANELS]
    every = [(panel, series) for panel in panels for series in panel.series]
    say(f"Growth of cost on {device.type}: median of {rounds} rounds\n")
    say(table(_HEAD, [_row(*each) for each in every], right=2) + "\n")
    say("".join(f"{panel.name}: {panel.what}; {panel.why}.\n" for panel in panels))
    if file is not None:
        file = file if file.suffix else file.with_suffix(".png")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_figure(file, plot(panels, f"{device.type}, {torch.get_num_threads()} thread(s)"), dpi=80)
        say(f"drawn: {file}")
    return [_record(*each) for each in every]
