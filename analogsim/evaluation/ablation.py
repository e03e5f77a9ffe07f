"""Which non-ideality costs how much: each one switched off in turn."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from torch import nn

from analogsim.chip.compensation import CompensationLike, as_compensations
from analogsim.conversion.digital import to_digital
from analogsim.crossbar.crossbar import Crossbar
from analogsim.device.model import DeviceModel, Effect
from analogsim.errors import InvalidValueError
from analogsim.evaluation.display import FloatArray, number, spread
from analogsim.evaluation.journal import Journal, as_journal
from analogsim.evaluation.metrics import MetricLike, as_metric
from analogsim.evaluation.monte_carlo import judge_chips
from analogsim.evaluation.report import APART, Report, clean_columns
from analogsim.evaluation.variants import Hardware, build_variant
from analogsim.evaluation.workers import Executor
from analogsim.layers.module import matrices_of
from analogsim.utils.checks import MOST_TURNS, check_whole
from analogsim.utils.text import table

ALL = "everything on"


@dataclass(frozen=True)
class _Nothing(Effect):
    """What is left of a chain whose only effect is switched off."""

    signed: ClassVar[bool] = True


# What is ideal when a part of the periphery is switched off.
_PERIPHERY: dict[str, dict[str, Any]] = {
    "DAC": {"dac_bits": None, "bit_serial": False},
    "ADC": {"adc_bits": None, "output_bound": None},
    "output noise": {"output_noise": 0.0},
    "mismatch of converters": {"gain_mismatch": 0.0, "offset_mismatch": 0.0},
    "wires": {"wire_resistance": 0.0},
    "cuts into several crossbars": {"rows": None, "cols": None},
}


@dataclass(frozen=True)
class Ablation:
    """The reports of a network with everything on, and with each non-ideality switched off. ``str()`` is a table.

    Args:
        reports: by what is switched off; `ALL` is the first. All are of the same chips.
    """

    reports: Mapping[str, Report]

    def gain(self, name: str) -> FloatArray:
        """How much better the network gets without a non-ideality: mean and standard error, ``(2, times)``.

        Differences are taken chip by chip, which cancels what the chips have in common; they are positive where the
        score is the better one, be it higher or lower. NaN errors for one chip.

        Raises:
            ValueError: the reports do not say which direction of their metric is better.
        """
        first = self.reports[ALL]
        if first.higher_is_better is None:
            raise InvalidValueError(
                f"gain: it is not known whether a higher {first.metric!r} is better; make the reports with an "
                "analogsim.evaluation.Metric that says higher_is_better"
            )
        difference = self.reports[name].values - first.values
        if not first.higher_is_better:
            difference = -difference
        chips = len(difference)
        error = difference.std(axis=0, ddof=1) / np.sqrt(chips) if chips > 1 else np.full(difference.shape[1], np.nan)
        return np.stack((difference.mean(axis=0), error))

    def __str__(self) -> str:
        first = self.reports[ALL]
        unit = first.unit
        head = [first.heading]
        for label in first.labels:
            head += [f"after {label}", "gain"]
        rows = []
        for name, report in self.reports.items():
            row = [name if name == ALL else f"without {name}"]
            gains = self.gain(name)
            for index in range(len(report.times)):
                gain, error = gains[:, index]
                sign = "+" if gain >= 0 else "-"
                row += [
                    spread(report.mean[index], report.std[index], unit),
                    "" if name == ALL else f"{sign}{spread(abs(gain), error, unit)}",
                ]
            rows.append(row)
        for name in clean_columns([first]):
            rows.append([name, number(getattr(first, name), unit), *[""] * (len(head) - 2)])
        told = f"{APART}\n" if first.apart else ""
        return (
            f"{table(head, rows)}\n{first.described}\n"
            f"{told}mean ± std over chips; gain: over everything on, mean ± standard error of the differences chip by "
            "chip"
        )


Change = Callable[[DeviceModel, Crossbar], Hardware]


def _without_effect(key: str) -> Change:
    def change(device: DeviceModel, crossbar: Crossbar) -> Hardware:
        kept = tuple(effect for effect in device.effects if type(effect).__name__ != key)
        return device.replace(effects=kept or (_Nothing(),)), crossbar

    return change


def _without_part(ideal: dict[str, Any]) -> Change:
    def change(device: DeviceModel, crossbar: Crossbar) -> Hardware:
        return device, crossbar.replace(**ideal)

    return change


def _without_field(name: str) -> Change:
    def change(device: DeviceModel, crossbar: Crossbar) -> Hardware:
        defaults = {spec.name: spec.default for spec in fields(crossbar) if spec.name == name}
        return device, crossbar.replace(**defaults)

    return change


def _changes(hardware: Collection[Hardware]) -> dict[str, Change]:
    """What can be switched off, by its name: every kind of effect, and the parts that are not ideal anyway."""
    effects = dict.fromkeys(type(effect).__name__ for device, _ in hardware for effect in device.effects)
    changes = {key: _without_effect(key) for key in effects}
    parts = {name: _without_part(ideal) for name, ideal in _PERIPHERY.items()}
    further = dict.fromkeys(name for _, crossbar in hardware for name in crossbar.further())
    parts |= {name.replace("_", " "): _without_field(name) for name in further}
    for name, change in parts.items():
        if any(change(device, crossbar)[1] != crossbar for device, crossbar in hardware):
            changes[name] = change
    return changes


def ablate(
    analog: nn.Module,
    loader: Iterable[Any],
    *,
    chips: int = 10,
    times: Sequence[float | str] | None = None,
    metric: MetricLike = "accuracy",
    seed: int = 0,
    compensation: CompensationLike = "global",
    calibration: Iterable[Any] | None = None,
    higher_is_better: bool | None = None,
    executor: Executor | None = None,
    journal: str | os.PathLike[str] | Journal | None = None,
) -> Ablation:
    """Evaluate a network on the same chips with each non-ideality switched off in turn.

    Switched off are, one at a time: every kind of effect of the device models, the input converters, the output
    converters, their noise, the wires, the cuts into several crossbars, and the drift compensation (which is a remedy:
    without it things get worse). The other draws of a chip stay what they are.

    Args:
        analog: the twin, with its device and crossbar; it is left alone.
        loader: see `analogsim.evaluate`, as for all that follow.
        chips: how many chips.
        times: since programming.
        metric: of the outputs.
        seed: the first chip.
        compensation: of drift, and what is made from data; of these only what has something to do where a part is off:
            ``"ranges"``, for example, where a calibrated one is left.
        calibration: the data for it.
        higher_is_better: whether the network with the higher metric is the better one. Default: as the metric says;
            a function does not.
        executor: see `analogsim.evaluate`; the parts come one after the other, the chips of each are shared out.
        journal: see `analogsim.evaluate`; one file keeps the chips of all parts.

    Returns:
        The reports, by what is off.

    Raises:
        ValueError: it is not known which direction of the metric is better; or see `analogsim.evaluate`, as for all
            other errors and warnings.
    """
    check_whole(chips, "ablate: chips", 1, MOST_TURNS)
    judged = as_metric(metric).directed(higher_is_better, "ablate")
    wanted = as_compensations(compensation)
    states = {matrix.analog.name: matrix.analog for matrix in matrices_of(analog)}
    hardware = {name: (state.device, state.crossbar) for name, state in states.items()}
    given: dict[str, Any] = {
        "chips": chips,
        "metric": judged,
        "seed": seed,
        "calibration": calibration,
        "action": "ablate",
        "executor": executor,
    }
    kept = as_journal(journal)

    def without(name: str) -> Journal | None:
        return None if kept is None else kept.of(f"without {name}")

    found = judge_chips(analog, loader, times=times, compensation=wanted, journal=kept, **given)
    found.uses.warn("ablate", stacklevel=2)
    first = found.report
    given["times"] = first.times  # a device without its shortest-lived effect may have formulas for more of them
    reports = {ALL: first}
    digital = to_digital(analog)
    for name, change in _changes(hardware.values()).items():
        twin = build_variant(digital, states, {layer: change(*parts) for layer, parts in hardware.items()})
        fitting = wanted.fitting(twin)
        reports[name] = judge_chips(twin, loader, compensation=fitting, journal=without(name), **given).report
    if wanted.gain is not None and any(state.device.drifts for state in states.values()):
        name, rest = "drift compensation", wanted.without_gain()
        reports[name] = judge_chips(analog, loader, compensation=rest, journal=without(name), **given).report
    return Ablation(reports)
