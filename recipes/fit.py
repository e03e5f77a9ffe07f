"""Fit a device model to a table of measurements: ``analogsim fit measurements.csv``."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import analogsim
from analogsim.errors import InvalidValueError
from analogsim.fit import FittedDevice
from analogsim.recipes.config.arguments import Program
from analogsim.recipes.config.outputs import check_figure, check_output, keep_result
from analogsim.utils.files import write_figure
from analogsim.utils.times import seconds


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
    done: Callable[[FittedDevice], None] = lambda _: None,
) -> FittedDevice:
    """Fit, write the device file and the figure; the arguments besides are those of `analogsim.fit_device`.

    ``done`` is given what was fitted, before anything is written.

    Raises:
        FileNotFoundError: there is no such table, or no folder for what is to be written.
        ValueError: the table cannot be used, or the device file would not end in ``.toml``.
    """
    check_output(out, "fit")  # told before the work, not after it
    check_figure(plot, "fit")
    if not out.endswith(".toml"):
        raise InvalidValueError(f"fit: the device file must end in .toml, so that convert knows it; got {out!r}")
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
    done(fitted)
    fitted.save(out)
    if plot is not None:
        write_figure(plot, fitted.plot())
    return fitted


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Fit programming error, drift and read noise to measured conductances of single cells: a CSV file "
        "with the columns target, time, measured, cell and units in the header, such as 'target [µS]'."
    )
    parser.add_argument("measurements", metavar="FILE.csv", help="one row for each reading of one cell")
    parser.add_argument(
        "--out", metavar="FILE.toml", default="device.toml", help="the device file; default: %(default)s"
    )
    parser.add_argument("--plot", metavar="FILE", help="draw measurements and fit (png, svg, pdf)")
    parser.add_argument(
        "--unit",
        dest="units",
        metavar="COLUMN=UNIT",
        action="append",
        default=[],
        help="of target and measured (nS, uS, mS, S, ohm, kohm, Mohm, %%) or time (ms, s, min, h, d); default: the "
        "header's, else uS and s",
    )
    parser.add_argument(
        "--t0",
        metavar="TIME",
        help="from programming to the first reading, if time starts there, as 30 (seconds) or 1min",
    )
    parser.add_argument(
        "--g-min",
        type=float,
        metavar="uS",
        help="conductance of a cell that stands for zero, in µS; default: lowest target",
    )
    parser.add_argument(
        "--g-max", type=float, metavar="uS", help="conductance of the largest weight, in µS; default: highest target"
    )
    parser.add_argument(
        "--bootstrap", type=int, default=200, help="samples for the intervals; 0: none; default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, help="of these samples; default: 0")


def _run_command(options: argparse.Namespace) -> object:
    units = {}
    for text in options.units:
        name, equals, unit = text.partition("=")
        if not equals:
            raise InvalidValueError(f"fit: --unit takes COLUMN=UNIT, such as time=h, got {text!r}")
        units[name] = unit
    found: dict[str, object] = {}

    def done(fitted: FittedDevice) -> None:
        found.update(_result_of(fitted, options.out))
        keep_result(options, found)
        print(fitted, flush=True)

    fit(
        options.measurements,
        options.out,
        plot=options.plot,
        units=units,
        t0=None if options.t0 is None else seconds(options.t0),
        g_min=options.g_min,
        g_max=options.g_max,
        bootstrap=options.bootstrap,
        seed=options.seed,
        done=done,
    )
    if not options.quiet:
        print(f'\nuse it: analog = analogsim.convert(model, device="{options.out}")')
    return found


def _result_of(fitted: FittedDevice, file: str) -> dict[str, object]:
    """What was fitted, as JSON can hold it."""
    found: dict[str, object] = {"file": file, "device": repr(fitted)}
    if fitted.report is not None:
        found["parameters"] = [asdict(one) for one in fitted.report.parameters]
        found |= {"notes": list(fitted.report.notes), "warnings": list(fitted.report.warnings)}
    return found


PROGRAM = Program(
    "fit",
    "fit a device model to your measurements",
    _declare,
    _run_command,
    examples=(
        "fit measurements.csv --out mine.toml --plot fit.png",
        "fit measurements.csv --unit time=h --unit target=uS --t0 30s",
    ),
    result="file and parameters",
)
