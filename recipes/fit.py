"""Fit a device model to a table of measurements: ``analogsim fit measurements.csv``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import analogsim
from analogsim.fit import FittedDevice
from analogsim.utils.files import write_figure


def fit(
    measurements: str,
    out: str,
    *,
    plot: str | None = None,
    units: Mapping[str, str] | None = None,
    t0: float | None = None,
    g_min: float | None = None,
    g_max: float | None = None,
    bootstrap: int = 200,
    seed: int = 0,
) -> FittedDevice:
    """Fit, write the device file and the figure; the arguments besides are those of `analogsim.fit_device`.

    Raises:
        FileNotFoundError: there is no such table, or no folder for what is to be written.
        ValueError: the table cannot be used, or the device file would not end in ``.toml``.
    """
    for file in (out, plot):  # told before the work, not after it
        if file is not None and not Path(file).absolute().parent.is_dir():
            raise FileNotFoundError(f"fit: there is no folder for {file!r}; make it first")
    if not out.endswith(".toml"):
        raise ValueError(f"fit: the device file must end in .toml, so that convert knows it; got {out!r}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", analogsim.FitWarning)  # they stand under the table
        fitted = analogsim.fit_device(
            measurements,
            units=units,
            t0=t0,
            g_min=g_min,
            g_max=g_max,
            name=Path(out).stem,
            bootstrap=bootstrap,
            seed=seed,
        )
    fitted.save(out)
    if plot is not None:
        write_figure(plot, fitted.plot())
    return fitted
