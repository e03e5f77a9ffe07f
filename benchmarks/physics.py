"""``pcm`` against the published formulas: mean and standard deviation of a cell at every time, over the whole range.

The right-hand side is computed here from the formulas alone (closed forms, and a quadrature over the programmed
conductance for the 1/f noise), the left-hand side by programming cells and reading them.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm

import analogsim
import analogsim.compensate
import analogsim.times
from analogsim.noise import KeyedNoise
from analogsim.text import table
from analogsim.times import DEFAULT_TIMES, seconds

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

G_MAX, T0, T_READ = 25.0, 20.0, 250e-9
TARGETS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Moments:
    """Mean and standard deviation of a cell's conductance, µS."""

    mean: float
    std: float


def _decay_moment(mu: float, s: float, a: float) -> float:
    """E[exp(-a |mu + s xi|)] for a standard normal xi."""
    shift = 0.5 * (a * s) ** 2
    left = math.exp(shift - a * mu) * norm.cdf(mu / s - a * s)
    return float(left + math.exp(shift + a * mu) * norm.cdf(-mu / s - a * s))


def published(x: float, t: float | None) -> Moments:
    """Moments of a cell with target ``x g_max``: as programmed (t None), or read at t seconds."""
    target = x * G_MAX
    sigma = 0.26348 + 1.9650 * x - 1.1731 * x * x
    # The distribution of max(0, target + sigma xi) on a fine grid; its atom at zero reads zero for ever.
    xi = np.linspace(-9, 9, 200_001)
    weight = norm.pdf(xi) * (xi[1] - xi[0])
    g = np.maximum(0.0, target + sigma * xi)
    if t is None:
        first, second = float((weight * g).sum()), float((weight * g * g).sum())
        return Moments(first, math.sqrt(second - first**2))
    log_x = math.log(max(x, 1e-7))
    mu = min(max(-0.0155 * log_x + 0.0244, 0.049), 0.100)
    s = min(max(-0.0125 * log_x - 0.0059, 0.008), 0.045)
    a = math.log((t + T0) / T0)
    q = np.minimum(0.0088 / np.maximum((g / G_MAX) ** 0.65, 1e-3), 0.2)
    q = q * math.sqrt(math.log((t + T0 + T_READ) / (2 * T_READ)))
    # max(0, 1 + q xi') for a second normal
    up, bell = norm.cdf(1 / q), norm.pdf(1 / q)
    first = float((weight * g * (up + q * bell)).sum()) * _decay_moment(mu, s, a)
    second = float((weight * g * g * ((1 + q * q) * up + q * bell)).sum()) * _decay_moment(mu, s, 2 * a)
    return Moments(first, math.sqrt(second - first**2))


def sampled(cells: int, seed: int = 0) -> dict[tuple[float, float | None], Array]:
    """Conductances of ``cells`` cells of our ``pcm`` for each target and time, µS."""
    device = analogsim.as_device_model("pcm").replace(mapping=analogsim.Mapping("pair", "tensor"))
    # A positive weight is held by the first cell of its pair; one row of full weights sets the scale.
    weight = torch.tensor((1.0, *TARGETS), dtype=torch.float64).unsqueeze(1).expand(-1, cells).contiguous()
    written = device.program(weight, KeyedNoise(str(seed), "physics"))
    found: dict[tuple[float, float | None], Array] = {}
    for time in (None, *map(seconds, DEFAULT_TIMES)):
        g = written.programmed if time is None else device.read(written, time, KeyedNoise(str(seed), str(time)))
        for row, x in enumerate(TARGETS, start=1):
            found[x, time] = g[0, row].numpy()
    return found


def compare(cells: int, seed: int = 0) -> tuple[str, float]:
    """A table of ours against the formulas, and the largest deviation in standard errors."""
    rows, largest = [], 0.0
    for (x, time), g in sampled(cells, seed).items():
        want = published(x, time)
        mean, std = float(g.mean()), float(g.std(ddof=1))
        kurtosis = float(((g - mean) ** 4).mean()) / std**4
        z_mean = (mean - want.mean) / (want.std / math.sqrt(cells))
        z_std = (std - want.std) / (want.std * math.sqrt((kurtosis - 1) / (4 * cells)))
        largest = max(largest, abs(z_mean), abs(z_std))
        label = "programmed" if time is None else analogsim.times.label(time)
        values = (want.mean, mean, want.std, std)
        rows.append((f"{x * G_MAX:.2f}", label, *(f"{v:.4f}" for v in values), f"{z_mean:+.1f}", f"{z_std:+.1f}"))
    head = ("target µS", "time", "mean, formula", "ours", "std, formula", "ours", "Δmean / SE", "Δstd / SE")
    return table(head, rows, right=2), largest


def weight_error(cells: int = 1_000_000, seed: int = 0) -> str:
    """Root-mean-square error of Gaussian weights clipped at 2.5 sigma, relative to the largest: raw and with a gain."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(1000, cells // 1000, generator=generator, dtype=torch.float64).clamp(-2.5, 2.5) / 2.5
    device = analogsim.as_device_model("pcm").replace(mapping=analogsim.Mapping("pair", "tensor"))
    written = device.program(weight, KeyedNoise(str(seed), "weights"))
    reference = device.to_weight(written.programmed, written).abs().sum()
    rows = []
    for time in DEFAULT_TIMES:
        g = device.read(written, seconds(time), KeyedNoise(str(seed), "weights", time))
        now = device.to_weight(g, written)
        gain = float((weight * now).sum() / (weight * weight).sum())
        best = (weight * now).sum() / (now * now).sum() * now
        ours = analogsim.compensate.global_gain(reference, now) * now
        errors = [float((value - weight).square().mean().sqrt()) for value in (now, best, ours)]
        rows.append((time, f"{gain:.3f}", *(f"{100 * error:.2f} %" for error in errors)))
    return table(("time", "decay", "raw error", "after the best gain", "after the measured gain"), rows)


def plot(cells: int, seed: int = 0) -> Figure:
    """Formulas as lines, our cells as points: mean and standard deviation over the range, a colour for each time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    found = sampled(cells, seed)
    line = np.linspace(0, 1, 60)
    for index, time in enumerate((None, *map(seconds, DEFAULT_TIMES))):
        label = "programmed" if time is None else analogsim.times.label(time)
        curve = [published(float(x), time) for x in line]
        points = [found[x, time] for x in TARGETS]
        for axes, of_curve, of_points in (
            (left, [m.mean for m in curve], [p.mean() for p in points]),
            (right, [m.std for m in curve], [p.std(ddof=1) for p in points]),
        ):
            axes.plot(line * G_MAX, of_curve, color=f"C{index}", lw=1)
            axes.plot(np.asarray(TARGETS) * G_MAX, of_points, "o", ms=4, color=f"C{index}", label=label)
    for axes, what in ((left, "mean"), (right, "standard deviation")):
        axes.set_xlabel("target conductance [µS]")
        axes.set_ylabel(f"{what} of the conductance [µS]")
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    figure.suptitle(f"pcm: published formulas (lines) and {cells:,} cells of ours (points)", size=10)
    return figure


def main() -> None:
    """``python -m benchmarks.physics``: print both tables, and draw the plot if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.physics", description=__doc__)
    parser.add_argument("--cells", type=int, default=100_000, help="cells for each target (default: 100000)")
    parser.add_argument("--seed", type=int, default=0, help="of the cells")
    parser.add_argument("--plot", metavar="FILE", help="draw formulas and cells (png, svg, pdf)")
    options = parser.parse_args()
    text, largest = compare(options.cells, options.seed)
    print(f"{text}\nlargest deviation: {largest:.1f} standard errors\n")
    print(f"Gaussian weights clipped at 2.5 sigma, error relative to the largest:\n{weight_error(seed=options.seed)}")
    if options.plot:
        plot(min(options.cells, 20_000), options.seed).savefig(options.plot, dpi=110)


if __name__ == "__main__":
    main()
