"""The answer of `analogsim.fit_device`: a device model, and what is known about its numbers."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from analogsim.device.file import save_device
from analogsim.device.model import DeviceModel
from analogsim.errors import InvalidValueError, MissingKeyError, MissingPackageError
from analogsim.fit.estimate import FloatArray
from analogsim.utils.packages import how_to_install
from analogsim.utils.text import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Parameter:
    """A fitted number.

    Args:
        name: what it is.
        value: the number.
        unit: its unit ("1" if dimensionless).
        low, high: ends of its 95 % interval; NaN if none was asked for.
    """

    name: str
    value: float
    unit: str
    low: float
    high: float


@dataclass(frozen=True)
class Check:
    """Whether what the fit leaves looks normal.

    Args:
        name: of the part.
        number: of the standardised residuals.
        left_out: how many were left out because they lie more than four standard deviations off.
        p: how probable a distance this large from a normal distribution is (Kolmogorov-Smirnov).
    """

    name: str
    number: int
    left_out: int
    p: float


@dataclass(frozen=True, eq=False)
class Panel:
    """Points and the law that was fitted to them, for the plot.

    Args:
        title: what is shown, with its unit.
        label: the axis below, with its unit.
        x, y: the points; `kept` those that the law was fitted to.
        curve: where the law is drawn.
        mean, std: the law there.
    """

    title: str
    label: str
    x: FloatArray
    y: FloatArray
    kept: np.ndarray[Any, np.dtype[np.bool_]]
    curve: FloatArray
    mean: FloatArray
    std: FloatArray


@dataclass(frozen=True, eq=False)
class FitReport:
    """What is known about the numbers of a fitted device.

    Args:
        described: what was measured, in one line.
        parameters: with their intervals.
        checks: of what the fit leaves.
        notes: what was assumed, what was dropped and why.
        warnings: what the data cannot tell.
        panels: for the plot.
        residuals: standardised, of each check.
    """

    described: str
    parameters: tuple[Parameter, ...]
    checks: tuple[Check, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    panels: tuple[Panel, ...]
    residuals: tuple[FloatArray, ...]

    def __getitem__(self, name: str) -> Parameter:
        """The parameter of that name."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        raise MissingKeyError(f"no parameter {name!r}; there are {', '.join(one.name for one in self.parameters)}")

    def __str__(self) -> str:
        rows = [
            (
                one.name,
                f"{one.value:.3g}",
                one.unit,
                "" if np.isnan(one.low) else f"{one.low:.3g} to {one.high:.3g}",
            )
            for one in self.parameters
        ]
        parts = [self.described, table(("parameter", "value", "unit", "95 % interval"), rows)]
        if self.checks:
            tested = [(one.name, str(one.number), str(one.left_out), f"{one.p:.2g}") for one in self.checks]
            parts.append(table(("is it normal?", "values", "left out", "p"), tested))
        parts += ["\n".join(f"note: {note}" for note in self.notes)] if self.notes else []
        parts += ["\n".join(f"warning: {warning}" for warning in self.warnings)] if self.warnings else []
        return "\n\n".join(parts)


@dataclass(frozen=True, eq=False, repr=False)
class FittedDevice(DeviceModel):
    """A device model that was fitted to measurements; it is equal to, and written as, the plain device model.

    Args:
        report: what is known about its numbers. The other fields are those of `analogsim.DeviceModel`.
    """

    report: FitReport | None = field(default=None, repr=False, compare=False)

    @property
    def device(self) -> DeviceModel:
        """The plain device model, without the report."""
        return DeviceModel(**{spec.name: getattr(self, spec.name) for spec in fields(DeviceModel)})

    def replace(self, **changes: Any) -> DeviceModel:
        """A plain device model with other fields, to which the report no longer belongs."""
        return self.device.replace(**changes)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the device model to a file, see `analogsim.save_device`."""
        save_device(self, path)

    def plot(self) -> Figure:
        """What was measured and what was fitted: programming errors, exponents, read noise, and the residuals."""
        if self.report is None:
            raise InvalidValueError("plot: this device has no report; fit_device makes one")
        return draw(self.report, self.name)

    def __str__(self) -> str:
        return repr(self) if self.report is None else str(self.report)

    def __repr__(self) -> str:
        return repr(self.device)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DeviceModel):
            return NotImplemented
        return self.device == (other.device if isinstance(other, FittedDevice) else other)

    def __hash__(self) -> int:
        return hash(self.device)


def draw(report: FitReport, name: str) -> Figure:
    """The figure of `FittedDevice.plot`."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackageError(f"plot needs matplotlib; install it with: {how_to_install('plot')}") from None
    from scipy.stats import norm

    count = len(report.panels) + 1
    figure = Figure(figsize=(4.2 * min(count, 2), 3.4 * ((count + 1) // 2)), layout="constrained")
    places = list(figure.subplots((count + 1) // 2, 2, squeeze=False).flat)
    for axes, panel in zip(places, report.panels, strict=False):
        axes.plot(panel.x[panel.kept], panel.y[panel.kept], ".", ms=3, alpha=0.5, color="C0")
        axes.plot(panel.x[~panel.kept], panel.y[~panel.kept], "x", ms=5, color="C3", label="left out")
        axes.plot(panel.curve, panel.mean, color="C1")
        axes.fill_between(panel.curve, panel.mean - panel.std, panel.mean + panel.std, color="C1", alpha=0.3, lw=0)
        if not panel.kept.all():
            axes.legend()
        axes.set_title(panel.title, size=9)
        axes.set_xlabel(panel.label)
    axes = places[count - 1]
    for check, residuals in zip(report.checks, report.residuals, strict=True):
        ranks = (np.arange(len(residuals)) + 0.5) / len(residuals)
        axes.plot(norm.ppf(ranks), np.sort(residuals), ".", ms=3, label=check.name)
    axes.axline((0, 0), slope=1, color="0.5", lw=1)
    axes.set_title("standardised residuals", size=9)
    axes.set_xlabel("of a normal distribution")
    if report.checks:
        axes.legend()
    for axes in places[count:]:
        axes.set_visible(False)
    figure.suptitle(f"{name}: {report.described}\nline and band: mean and standard deviation that were fitted", size=9)
    return figure
