"""Every device model against the published formulas: mean and standard deviation over the range, at every time.

The right-hand side is computed in ``harness/published.py`` from the formulas alone (closed forms and quadrature,
clipping at zero included), the left-hand side by programming cells and reading them. A deviation of more than 5
standard errors ends the program with status 1.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

import analogsim
from analogsim.crossbar.gains import global_gain
from analogsim.device import DeviceModel, Effect
from analogsim.noise import KeyedNoise
from analogsim.utils.files import write_figure, write_whole
from analogsim.utils.text import table
from analogsim.utils.times import DEFAULT_TIMES, label, seconds
from benchmarks.harness import published as published
from benchmarks.harness.published import Array, Moments, Published

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LIMIT = 5.0  # standard errors

Sampled = Iterator[tuple[float, float | None, Array]]
Sampler = Callable[[DeviceModel, Sequence[float], Sequence[float | None], int], Sampled]


def _placed(device: DeviceModel, fractions: Sequence[float]) -> tuple[DeviceModel, torch.Tensor]:
    """The device with one scale for the tensor, and weights ``(1 + targets, 1)`` that lie on ``x g_max``.

    A positive weight is held by the first cell of its pair; the first row of full weights sets the scale.
    """
    device = device.replace(mapping=analogsim.Mapping("pair", "tensor"))
    g = torch.tensor(fractions, dtype=torch.float64) * device.g_max
    weight = (g - device.g_min) / (device.g_max - device.g_min)
    return device, torch.cat((torch.ones(1, dtype=torch.float64), weight)).unsqueeze(1)


def conductances(device: DeviceModel, fractions: Sequence[float], times: Sequence[float | None], cells: int) -> Sampled:
    """Conductances as programmed (time None) and as read later."""
    device, weight = _placed(device, fractions)
    written = device.program(weight.expand(-1, cells).contiguous(), KeyedNoise("physics"))
    for t in times:
        g = written.programmed if t is None else device.read(written, t, KeyedNoise("physics", str(t)))
        for x, row in zip(fractions, g[0, 1:], strict=True):
            yield x, t, row.numpy()


def exponents(device: DeviceModel, fractions: Sequence[float], times: Sequence[float | None], cells: int) -> Sampled:
    """Drift exponents."""
    device, weight = _placed(device, fractions)
    written = device.program(weight.expand(-1, cells).contiguous(), KeyedNoise("physics", "exponents"))
    (nu,) = (drawn["nu"] for drawn in written.drawn if "nu" in drawn)
    for x, row in zip(fractions, nu[0, 1:], strict=True):
        yield x, None, row.numpy()


def products(device: DeviceModel, fractions: Sequence[float], times: Sequence[float | None], cells: int) -> Sampled:
    """White read noise of a weight's pair, from two products of a chip, in the unit of the conductances."""
    device, weight = _placed(device, [x for x in fractions for _ in range(cells)])
    layer = nn.Linear(1, len(weight), bias=False).double()
    layer.weight.data.copy_(weight)
    analog = analogsim.convert(nn.Sequential(layer), device=device).eval()
    analogsim.program(analog, seed=0)
    with torch.no_grad():
        one, other = analog(torch.ones(2, 1, dtype=torch.float64))[:, 1:]
    noise = (one - other) / math.sqrt(2) * (device.g_max - device.g_min)
    for x, row in zip(fractions, noise.view(-1, cells), strict=True):
        yield x, None, row.numpy()


def roundings(device: DeviceModel, fractions: Sequence[float], times: Sequence[float | None], cells: int) -> Sampled:
    """Errors of targets that lie uniformly over the range; the fraction says nothing."""
    low = device.g_min / device.g_max
    device, weight = _placed(device, np.random.default_rng(0).uniform(low, 1.0, cells).tolist())
    written = device.program(weight, KeyedNoise("physics"))
    yield fractions[0], None, (written.programmed - written.cells.target)[0, 1:, 0].numpy()


@dataclass(frozen=True)
class Case:
    """Cells of a device, and the moments that the formulas give them.

    Args:
        page: the page in ``docs/devices`` that it belongs to.
        device: name with parameters, or effects on the generic range.
        published: moments for a relative target and a time.
        fractions: the relative targets.
        times: the times; None is just programmed.
        sample: what is sampled.
        what: its name, if it is not the conductance.
        drawn: whether the page's plot shows it.
    """

    page: str
    device: str | Effect
    published: Published
    fractions: tuple[float, ...]
    times: tuple[float | None, ...] = (None,)
    sample: Sampler = conductances
    what: str = ""
    drawn: bool = False

    @property
    def model(self) -> DeviceModel:
        """The device model."""
        if isinstance(self.device, str):
            return analogsim.as_device_model(self.device)
        pair = analogsim.Mapping("pair", "tensor")
        return DeviceModel((self.device,), g_min=published.G_MIN, g_max=published.G_MAX, mapping=pair)

    @property
    def title(self) -> str:
        """What the table calls it."""
        name = self.device if isinstance(self.device, str) else repr(self.device)
        return f"{name}, {self.what}" if self.what else name


YEAR = tuple(map(seconds, DEFAULT_TIMES))
TARGETS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
ABOVE_MIN = (0.08, 0.2, 0.5, 1.0)


def _pcm(page: str, device: str, formulas: published.PCM) -> tuple[Case, Case]:
    return (
        Case(page, device, formulas.moments, TARGETS, (None, *YEAR), drawn=True),
        Case(page, device, formulas.exponent, TARGETS, sample=exponents, what="drift exponent"),
    )


def _gaussian(law: str, distribution: str) -> Case:
    effect = analogsim.Gaussian(std=0.05, law=law, distribution=distribution)
    return Case("generic", effect, published.error(law, distribution), ABOVE_MIN, drawn=distribution == "normal")


def _read_noise(law: str) -> Case:
    effect = analogsim.ReadNoise(std=0.01, law=law)
    return Case("generic", effect, published.read_noise(law), ABOVE_MIN, sample=products, what="noise of one product")


_HOUR, _DAY = seconds("1h"), seconds("1d")
_WAN = tuple(x / 40 for x in (1, 4, 10, 20, 30, 40))
_CMO = tuple(g / 88.2 for g in (9.0, 20.0, 50.0, 80.0, 88.2))
_CMO_TIMES = (None, 1.0, _HOUR, _DAY, seconds("1y"), seconds("10y"))
_LAWS = ("constant", "proportional", "inverse")
CASES = (
    *_pcm("pcm", "pcm", published.pcm),
    *_pcm("pcm", "pcm(fit='crosssim')", published.pcm_crosssim),
    *_pcm("pcm-hermes", "pcm-hermes", published.hermes_two),
    *_pcm("pcm-hermes", "pcm-hermes(cells_per_conductance=1)", published.hermes_one),
    Case(
        "reram-wan2022",
        "reram-wan2022",
        published.wan,
        _WAN,
        (None, 1.0, _HOUR, _DAY, 1.5 * _DAY, 2 * _DAY),
        drawn=True,
    ),
    Case("reram-wan2022", "reram-wan2022", published.wan_read, _WAN, sample=products, what="noise of one product"),
    Case("reram-wan2022", "reram-wan2022(fit='crosssim', g_max=39.26)", published.wan_crosssim, _WAN, drawn=True),
    Case("reram-cmo", "reram-cmo", published.cmo(0.2), _CMO, _CMO_TIMES, drawn=True),
    Case("reram-cmo", "reram-cmo(acceptance='2%')", published.cmo(2.0), _CMO, _CMO_TIMES, drawn=True),
    Case("reram-milo", "reram-milo", published.milo, tuple(g / 225 for g in (50, 100, 150, 225)), drawn=True),
    Case(
        "sonos",
        "sonos",
        published.sonos,
        TARGETS,
        (None, _HOUR, _DAY, 2 * _DAY, 3 * _DAY, 4 * _DAY, 5 * _DAY),
        drawn=True,
    ),
    Case("sonos", "sonos", published.sonos_read, TARGETS, sample=products, what="noise of one product"),
    *(_gaussian(law, distribution) for distribution in ("normal", "uniform") for law in _LAWS),
    *(_read_noise(law) for law in _LAWS),
    Case("generic", analogsim.Quantization(16), published.nearest(16), (0.5,), sample=roundings, what="error"),
    Case("generic", analogsim.Quantization(16, stochastic=True), published.quantization(16), (0.2, 0.3, 0.5, 0.9)),
    Case("generic", analogsim.StuckAt(), published.stuck, ABOVE_MIN),
    Case("generic", analogsim.Drift(nu=0.05, nu_std=0.02), published.drift, (0.5, 1.0), YEAR, drawn=True),
)


def _z(ours: float, theirs: float, standard_error: float) -> float:
    """The difference in standard errors; what has no spread must agree to rounding."""
    if abs(ours - theirs) <= 1e-9 * max(1.0, abs(theirs)):
        return 0.0
    return (ours - theirs) / standard_error if standard_error > 0 else math.copysign(math.inf, ours - theirs)


@dataclass(frozen=True)
class Row:
    """One cell of the range at one time: the source's moments and ours."""

    target: float
    time: float | None
    theirs: Moments
    ours: Moments
    z_mean: float
    z_std: float

    @classmethod
    def of(cls, target: float, time: float | None, theirs: Moments, values: Array) -> Row:
        """Compare a sample with what it should be."""
        ours = Moments(float(values.mean()), float(values.std()))
        fourth = float(((values - ours.mean) ** 4).mean())
        kurtosis = fourth / ours.std**4 if ours.std > 1e-9 else 1.0
        z_mean = _z(ours.mean, theirs.mean, theirs.std / math.sqrt(values.size))
        z_std = _z(ours.std, theirs.std, theirs.std * math.sqrt(max(0.0, kurtosis - 1) / (4 * values.size)))
        return cls(target, time, theirs, ours, z_mean, z_std)

    @property
    def text(self) -> tuple[str, ...]:
        """The row of the table."""
        numbers = (self.theirs.mean, self.ours.mean, self.theirs.std, self.ours.std)
        time = "-" if self.time is None else label(self.time)
        return (f"{self.target:.4g}", time, *(f"{v:.4f}" for v in numbers), f"{self.z_mean:+.1f}", f"{self.z_std:+.1f}")


HEAD = ("target", "time", "mean, source", "ours", "std, source", "ours", "Δmean / SE", "Δstd / SE")


def compare(case: Case, cells: int) -> list[Row]:
    """Ours against the formulas, for every target and time of a case."""
    device = case.model
    found = case.sample(device, case.fractions, case.times, cells)
    return [Row.of(x * device.g_max, t, case.published(x, t), values) for x, t, values in found]


def largest(rows: Sequence[Row]) -> float:
    """The largest deviation, in standard errors."""
    return max(max(abs(row.z_mean), abs(row.z_std)) for row in rows)


def summary(results: dict[Case, list[Row]]) -> str:
    """The largest deviation of each case."""
    rows = [(case.title, str(2 * len(rows)), f"{largest(rows):.1f}") for case, rows in results.items()]
    rows.append(("all", str(2 * sum(map(len, results.values()))), f"{max(map(largest, results.values())):.1f}"))
    return table(("device", "moments", "largest deviation / SE"), rows)


def weight_error(cells: int = 1_000_000, seed: int = 0) -> str:
    """Root-mean-square error of Gaussian weights clipped at 2.5 sigma, relative to the largest: raw and with a gain."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(1000, cells // 1000, generator=generator, dtype=torch.float64).clamp(-2.5, 2.5) / 2.5
    device = analogsim.as_device_model("pcm").replace(mapping=analogsim.Mapping("pair", "tensor"))
    written = device.program(weight, KeyedNoise(str(seed), "weights"))
    fresh = device.to_weight(written.programmed, written)
    rows = []
    for time in DEFAULT_TIMES:
        g = device.read(written, seconds(time), KeyedNoise(str(seed), "weights", time))
        now = device.to_weight(g, written)
        gain = float((weight * now).sum() / (weight * weight).sum())
        best = (weight * now).sum() / (now * now).sum() * now
        ours = global_gain(weight, fresh, now) * now
        errors = [float((value - weight).square().mean().sqrt()) for value in (now, best, ours)]
        rows.append((time, f"{gain:.3f}", *(f"{100 * error:.2f} %" for error in errors)))
    return table(("time", "decay", "raw error", "after the best gain", "after the measured gain"), rows)


def _panel(axes: Axes, case: Case, cells: int, of: Callable[[Moments, float], float]) -> None:
    """Formulas as lines and cells as points, a colour for each time."""
    device = case.model
    line = np.linspace(device.g_min / device.g_max, 1.0, 61)
    found = {(x, t): values for x, t, values in case.sample(device, case.fractions, case.times, cells)}
    for index, t in enumerate(case.times):
        name = "programmed" if t is None else label(t)
        top = device.g_max
        axes.plot(line * top, [of(case.published(float(x), t), x * top) for x in line], color=f"C{index}", lw=1)
        points = [Moments(float(found[x, t].mean()), float(found[x, t].std())) for x in case.fractions]
        ours = [of(moments, x * top) for moments, x in zip(points, case.fractions, strict=True)]
        axes.plot(np.asarray(case.fractions) * top, ours, "o", ms=3.5, color=f"C{index}", label=name)
    axes.set_xlabel(f"target [{device.unit}]")
    axes.grid(alpha=0.3)


def plot(page: str, cells: int) -> Figure:
    """Shift of the mean and standard deviation over the range, for the cases of a page; a row for each."""
    from matplotlib.figure import Figure

    cases = [case for case in CASES if case.page == page and case.drawn]
    figure = Figure(figsize=(8, 2.6 * len(cases) + 0.3), layout="constrained")
    for case, (left, right) in zip(cases, figure.subplots(len(cases), 2, squeeze=False), strict=True):
        _panel(left, case, cells, lambda moments, target: moments.mean - target)
        _panel(right, case, cells, lambda moments, _: moments.std)
        left.set_ylabel(f"mean - target [{case.model.unit}]")
        right.set_ylabel(f"standard deviation [{case.model.unit}]")
        left.set_title(case.title, size=9, loc="left")
        # Scales on which sampling noise does not look like a finding.
        low, high = left.get_ylim()
        left.set_ylim(min(low, -0.02 * case.model.g_max), max(high, 0.02 * case.model.g_max))
        right.set_ylim(bottom=0)
        if len(case.times) > 1:
            right.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(f"{page}: published formulas (lines), {cells:,} cells of ours (points)", size=9)
    return figure


def document(results: dict[Case, list[Row]], cells: int) -> str:
    """The tables as a page: what is compared, a summary, and every row."""
    links = "".join(f"[{page}]({page}.md), " for page in dict.fromkeys(case.page for case in results))
    parts = [
        f"# Device models against their sources\n\nA page for each technology: {links}[temperature](temperature.md).\n",
        "Every published formula that the devices use, against cells that were programmed and read: mean and standard\n"
        "deviation, the difference in standard errors (SE). The source's side is computed from the formulas alone, by\n"
        f"closed forms and quadrature, clipping at zero included. {cells:,} cells for each line. This page and the\n"
        "plots:\n\n    python -m benchmarks.physics --table docs/devices/README.md --plot docs/devices\n",
        f"```\n{summary(results)}\n```\n",
        "The program ends with status 1 if a deviation exceeds 5 standard errors. Lines below: targets and moments in\n"
        "the unit of the device (µS; nA for `sonos`); time since programming, `-` for what was just programmed.\n",
    ]
    for case, rows in results.items():
        parts.append(f"## {case.title}\n\n```\n{table(HEAD, [row.text for row in rows], right=2)}\n```\n")
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m benchmarks.physics``: print all tables; write and draw them if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.physics", description=__doc__)
    parser.add_argument("--cells", type=int, default=100_000, help="cells for each target (default: 100000)")
    parser.add_argument("--page", choices=sorted({case.page for case in CASES}), help="only this technology")
    parser.add_argument("--table", metavar="FILE", type=Path, help="write the tables as Markdown")
    parser.add_argument(
        "--plot", metavar="FOLDER", type=Path, help="draw formulas and cells, a png for each technology"
    )
    options = parser.parse_args(arguments)
    cases = [case for case in CASES if options.page in (None, case.page)]
    results = {}
    for case in cases:
        results[case] = compare(case, options.cells)
        print(f"{case.title}\n{table(HEAD, [row.text for row in results[case]], right=2)}\n", flush=True)
    print(summary(results))
    if options.page in (None, "pcm"):
        print(f"\nGaussian weights clipped at 2.5 sigma on pcm, error relative to the largest:\n{weight_error()}")
    if options.table:
        write_whole(options.table, document(results, options.cells))
    if options.plot:
        options.plot.mkdir(parents=True, exist_ok=True)
        for page in dict.fromkeys(case.page for case in cases):
            write_figure(options.plot / f"{page}.png", plot(page, min(options.cells, 20_000)), dpi=90)
    return int(max(map(largest, results.values())) > LIMIT)


if __name__ == "__main__":
    raise SystemExit(main())
