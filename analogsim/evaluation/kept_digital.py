"""Layers that a network keeps digital to reach a score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from analogsim.crossbar.crossbar import Crossbar
from analogsim.device.model import DeviceModel
from analogsim.evaluation.display import (
    COLORS,
    FloatArray,
    deviation,
    figure,
    frame,
    heading,
    in_unit,
    number,
    spread,
    titled,
)
from analogsim.utils.text import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

Per = Literal["macs", "parameters"]
"""Of what a share is taken."""


@dataclass(frozen=True)
class Share:
    """What analog layers are of a network, in [0, 1].

    Args:
        parameters: those on crossbars, of all its parameters.
        macs: multiply-accumulates of one forward, of all that it takes.
    """

    parameters: float
    macs: float

    def __add__(self, other: Share) -> Share:
        return Share(self.parameters + other.parameters, self.macs + other.macs)


@dataclass(frozen=True, eq=False)
class Selection:
    """A network with some layers kept digital.

    Args:
        digital: their names.
        values: the score of each chip, ``(chips,)``.
        share: what is left analog.
    """

    digital: tuple[str, ...]
    values: FloatArray
    share: Share

    @property
    def mean(self) -> float:
        """Mean score over the chips."""
        return float(self.values.mean())

    @property
    def std(self) -> float:
        """Standard deviation of the score from chip to chip (unbiased; NaN for one chip)."""
        return deviation(self.values)


@dataclass(frozen=True, eq=False)
class KeptDigital:
    """Layers that a network keeps digital to reach a score, and the way there. ``str()`` is a table.

    Args:
        steps: the first with everything analog, each further one with one more layer digital; the last reaches the
            target.
        target: the score that the mean over chips reaches.
        clean: the score of the digital network.
        metric: its name.
        device: for ``convert(model, device)``: these layers None, all others as they were.
        crossbar: for ``convert(..., crossbar=)``: of all others as they were.
        described: what the scores were measured on.
        unit: of the metric, see `Metric`.
    """

    steps: tuple[Selection, ...]
    target: float
    clean: float
    metric: str
    device: Mapping[str, DeviceModel | None]
    crossbar: Crossbar | Mapping[str, Crossbar]
    described: str
    unit: str | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers to keep digital."""
        return self.steps[-1].digital

    @property
    def mean(self) -> float:
        """The score with them digital, mean over chips."""
        return self.steps[-1].mean

    @property
    def std(self) -> float:
        """Its standard deviation from chip to chip."""
        return self.steps[-1].std

    @property
    def share(self) -> Share:
        """What is left analog."""
        return self.steps[-1].share

    def to_frame(self) -> DataFrame:
        """One row per step and chip: step, kept digital, number of the chip, the metric and the analog shares."""
        rows = [
            {
                "step": at,
                "kept digital": step.digital[-1] if at else "",
                "chip": chip,
                self.metric: value,
                "analog parameters": step.share.parameters,
                "analog multiply-accumulates": step.share.macs,
            }
            for at, step in enumerate(self.steps)
            for chip, value in enumerate(step.values)
        ]
        return frame(rows)

    def __str__(self) -> str:
        head = ("kept digital", heading(self.metric, self.unit), "analog parameters", "analog multiply-acc.")
        rows = [
            (
                f"+ {step.digital[-1] or '(the model itself)'}" if at else "nothing",
                spread(step.mean, step.std, self.unit),
                f"{step.share.parameters:.1%}",
                f"{step.share.macs:.1%}",
            )
            for at, step in enumerate(self.steps)
        ]
        rows.append(("everything", number(self.clean, self.unit), "0.0%", "0.0%"))
        layers = "1 layer" if len(self.layers) == 1 else f"{len(self.layers)} layers"
        return (
            f"{table(head, rows)}\n"
            f"{number(self.target, self.unit)} is reached with {layers} digital; mean ± std over chips: "
            f"{self.described}"
        )

    def plot(self) -> Figure:
        """The score over the share of multiply-accumulates that runs analog, from everything analog to the target."""
        drawn, axes = figure(6.4, 4.0)
        shares = [100 * step.share.macs for step in self.steps]
        axes.errorbar(
            shares,
            [step.mean for step in self.steps],
            [step.std for step in self.steps],
            fmt="o-",
            capsize=3,
            color=COLORS[0],
        )
        for at, (share, step) in enumerate(zip(shares, self.steps, strict=True)):
            if at:
                axes.annotate(f"{step.digital[-1]} ", (share, step.mean), ha="right", va="bottom", fontsize=7)
        axes.axhline(self.clean, color=COLORS[2], ls="--", lw=1, label="clean")
        axes.axhline(self.target, color=COLORS[1], ls=":", lw=1, label="target")
        axes.invert_xaxis()
        axes.set_xlabel("multiply-accumulates that run analog [%]")
        axes.set_ylabel(heading(self.metric, self.unit))
        in_unit(axes.yaxis, self.unit)
        titled(axes, "layers kept digital one after the other", self.described)
        axes.legend()
        axes.grid(alpha=0.3)
        return drawn


def sum_shares(shares: Iterable[Share]) -> Share:
    """What layers are of a network together."""
    return sum(shares, Share(0.0, 0.0))


def by_loss_per_share(losses: Mapping[str, float], shares: Mapping[str, float]) -> list[str]:
    """Layers in the order in which they become digital: that of the largest loss per share of the network first.

    Args:
        losses: what each layer costs alone; one that costs nothing, or less, counts as 0.
        shares: of the network, in [0, 1].
    """

    def harm(name: str) -> tuple[float, float]:
        lost, share = max(losses[name], 0.0), shares[name]
        if share:
            return -lost / share, share  # where layers alone cost nothing, the smaller one goes first
        return -np.inf if lost else 0.0, share

    return sorted(losses, key=harm)


def search(
    order: Sequence[str],
    everything: Selection,
    reaches: Callable[[float], bool],
    measure: Callable[[Sequence[str]], Selection],
) -> tuple[Selection, ...]:
    """Keep one layer more digital in each step, until the mean score over chips is reached or none is left.

    Args:
        order: the layers, that which becomes digital first first.
        everything: the network with all of them analog.
        reaches: whether a mean score will do.
        measure: the network with these layers digital.
    """
    steps = [everything]
    for count in range(1, len(order) + 1):
        if reaches(steps[-1].mean):
            break
        steps.append(measure(order[:count]))
    return tuple(steps)
