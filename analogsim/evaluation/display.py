"""How scores are shown: in tables, frames and figures."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analogsim.errors import MissingPackageError
from analogsim.utils.packages import how_to_install

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from pandas import DataFrame

FloatArray = NDArray[np.float64]

COLORS = ("#2d5ae1", "#ff5a00", "#69695a", "#ff4bb4", "#965a00", "#a578ff", "#b42d87", "#b48778")
"""Eight colours, after which they begin again.

Any two of them are a CIEDE2000 of 17 or more apart, for usual eyes and under deuteranopia (Machado et al. 2009,
severity 1), and each has a contrast of 3 : 1 or more with a white page and with a dark one (``#1b1b1b``). Found by a
search over sRGB for the set whose nearest pair is farthest apart.
"""

DASHES = ("-", (0, (5, 1.5)), (0, (6, 1.5, 1.2, 1.5)), (0, (1.2, 1.2)), (0, (9, 2)), (0, (3, 1.2, 1.2, 1.2, 1.2, 1.2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", "h", ">")

MANY = 6
"""Curves from which their legend has a place of its own, and their bands would hide one another."""

_LETTERS = 84  # of a line above a figure, as many as fit
_NAME = 48  # letters of a name there
_LETTER, _LINE = 0.055, 0.155  # inches of it, about


def curve_style(index: int) -> Mapping[str, Any]:
    """How matplotlib draws the curve at a place: no two of the first 264 look alike."""
    return {
        "color": COLORS[index % len(COLORS)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
    }


def number(value: float, unit: str | None) -> str:
    """A score as tables show it: shares in percent, all else as it is."""
    return f"{100 * value:.2f}" if unit == "%" else f"{value:.4g}"


def small(value: float, unit: str | None) -> str:
    """What scores differ by, to two digits: shares in points, all else as it is."""
    return f"{100 * value:.2g} points" if unit == "%" else f"{value:.2g}"


def spread(mean: float, std: float, unit: str | None) -> str:
    """Mean ± standard deviation; the mean alone where there is none (NaN)."""
    return number(mean, unit) + ("" if np.isnan(std) else f" ± {number(std, unit)}")


def heading(name: str, unit: str | None) -> str:
    """What stands above scores: ``"accuracy [%]"``."""
    return f"{name} [{unit}]" if unit else name


def deviation(values: FloatArray) -> float:
    """Standard deviation (unbiased; NaN for one value)."""
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")


def frame(data: Sequence[Mapping[str, Any]] | Mapping[str, Any]) -> DataFrame:
    """A pandas frame of rows or of columns.

    Raises:
        ImportError: pandas is missing.
    """
    try:
        import pandas as pd
    except ImportError:
        raise MissingPackageError(f"to_frame needs pandas; install it with: {how_to_install('plot')}") from None
    return pd.DataFrame(data)


def figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure with one set of axes; inches.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackageError(f"plot needs matplotlib; install it with: {how_to_install('plot')}") from None
    made = Figure(figsize=(width, height), layout="constrained")
    return made, made.subplots()


def in_unit(axis: Axis, unit: str | None) -> None:
    """Label an axis of scores as tables show them: shares in percent."""
    if unit == "%":
        from matplotlib.ticker import PercentFormatter

        axis.set_major_formatter(PercentFormatter(1.0, symbol=""))


def legend(drawn: Figure, axes: Axes) -> None:
    """Say which curve is which: among the curves where they are few, beside them from six on, in a figure that grows.

    The curves keep the room that they have, however many and long the names are.
    """
    lines, names = axes.get_legend_handles_labels()
    # names of runs differ at either end
    short = [name if len(name) <= _NAME else f"{name[: _NAME // 2 - 3]}...{name[-_NAME // 2 :]}" for name in names]
    if len(names) < MANY:
        axes.legend(lines, short)
        return
    width, height = drawn.get_size_inches()
    columns = -(-len(names) // max(1, int((height - 1) / _LINE)))
    axes.legend(lines, short, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.5, fontsize=7, ncols=columns)
    widest = max(len(name) for name in short)
    drawn.set_size_inches(width + columns * (_LETTER * widest + 0.55), height)


def titled(axes: Axes, *lines: str) -> None:
    """Put lines above a figure, of which long ones go on in the next."""
    axes.set_title("\n".join(part for line in lines for part in textwrap.wrap(line, _LETTERS)), size=9)
