"""Which layers matter: each one analog alone, and which to keep digital for a stated score."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from torch import nn

from analogsim.chip.compensation import CompensationLike, Compensations, as_compensations
from analogsim.conversion.analog import convert
from analogsim.conversion.digital import to_digital
from analogsim.crossbar.crossbar import Crossbar
from analogsim.device.model import DeviceModel
from analogsim.errors import ConversionWarning, InvalidValueError
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
from analogsim.evaluation.journal import Journal, as_journal
from analogsim.evaluation.kept_digital import KeptDigital, Per, Selection, Share, by_loss_per_share, search, sum_shares
from analogsim.evaluation.metrics import MetricLike, as_metric, check_share
from analogsim.evaluation.monte_carlo import judge_chips
from analogsim.evaluation.operations import analog_macs, macs
from analogsim.evaluation.report import Report
from analogsim.evaluation.variants import build_variant
from analogsim.evaluation.workers import Executor
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import matrices_of
from analogsim.layers.state import AnalogState, Uses
from analogsim.utils.batches import Data, Inputs
from analogsim.utils.checks import MOST_TURNS, check_whole
from analogsim.utils.text import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


@dataclass(frozen=True, eq=False)
class _Setting:
    """A network's parts, ready to be put together with any of its layers analog.

    Args:
        digital: the network.
        states: what is known of each analog layer, by name.
        data: what the score is taken on.
        options: of `evaluate`, but for the compensation.
        compensations: see `evaluate`.
        executor: see `evaluate`.
        journal: see `evaluate`.
    """

    digital: nn.Module
    states: Mapping[str, AnalogState]
    data: Data
    options: Mapping[str, Any]
    compensations: Compensations
    executor: Executor | None = None
    journal: Journal | None = None

    def twin(self, names: Iterable[str]) -> nn.Module:
        """The network with these layers analog, as they were, and all others digital."""
        return build_variant(self.digital, {name: self.states[name] for name in names})

    def report(self, names: Collection[str], action: str = "keep_digital") -> Report:
        """The score with these layers analog, and what there is to compensate in them."""
        return self.judged(names, action)[0]

    def judged(self, names: Collection[str], action: str) -> tuple[Report, Uses]:
        """It, and which layers had a part."""
        twin = self.twin(names)
        fitting = self.compensations.fitting(twin)
        chosen = set(names)
        part = ", ".join(repr(name) for name in self.states if name in chosen)
        journal = self.journal
        if journal is not None and chosen != set(self.states):  # else it is what `evaluate` judges
            journal = journal.of(f"analog: {part}")
        where: dict[str, Any] = {"executor": self.executor, "journal": journal, "action": action}
        found = judge_chips(twin, self.data, compensation=fitting, **where, **self.options)
        return found.report, found.uses

    def device(self, digital: Iterable[str]) -> dict[str, DeviceModel | None]:
        """The mapping for `convert` that keeps these layers digital, and all others as they are."""
        kept = set(digital)
        rest = {name: state.device for name, state in self.states.items() if name not in kept}
        asked: dict[str, DeviceModel | None] = dict.fromkeys(digital)
        devices = list(rest.values())
        if devices and all(device == devices[0] for device in devices):
            short = {**asked, "*": devices[0]}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConversionWarning)
                twin = convert(self.digital, short)
            if {matrix.analog.name for matrix in matrices_of(twin)} == set(rest):
                return short
        return {**asked, **rest, "*": None}

    def crossbar(self, digital: Iterable[str]) -> Crossbar | dict[str, Crossbar]:
        """The crossbars for `convert` of all layers but these."""
        kept = set(digital)
        rest = {name: state.crossbar for name, state in self.states.items() if name not in kept}
        crossbars = list(rest.values())
        return crossbars[0] if all(crossbar == crossbars[0] for crossbar in crossbars[1:]) and crossbars else rest


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """What a network loses when one of its layers alone is analog. ``str()`` is a table, the worst layer first.

    Args:
        reports: the scores with only this layer analog, by its name; all of the same chips.
        everything: the scores with all of them analog.
        shares: what each layer is of the network.
        idle: the layers that had no part in the answers, so that nothing is known of what they cost.
    """

    reports: Mapping[str, Report]
    everything: Report
    shares: Mapping[str, Share]
    _setting: _Setting = field(repr=False)
    idle: frozenset[str] = frozenset()

    @property
    def clean(self) -> float:
        """The score of the digital network."""
        return self.everything.clean

    @property
    def metric(self) -> str:
        """The name of the score."""
        return self.everything.metric

    @property
    def higher_is_better(self) -> bool:
        """Whether the network with the higher score is the better one."""
        return bool(self.everything.higher_is_better)

    def loss(self, layer: str | None = None) -> FloatArray:
        """What each chip loses against the digital network, ``(chips,)``; negative where it gains.

        Args:
            layer: the one that is analog; None: all of them.
        """
        if layer is not None and layer not in self.reports:
            raise InvalidValueError(
                f"loss: {layer!r} is no analog layer; there are {', '.join(map(repr, self.reports))}"
            )
        report = self.everything if layer is None else self.reports[layer]
        lost = self.clean - report.values[:, 0]
        return np.asarray(lost if self.higher_is_better else -lost)

    def mean(self, layer: str | None = None) -> float:
        """Mean loss over chips, see `loss`."""
        return float(self.loss(layer).mean())

    def std(self, layer: str | None = None) -> float:
        """Standard deviation of the loss from chip to chip (unbiased; NaN for one chip)."""
        return deviation(self.loss(layer))

    @property
    def ranking(self) -> tuple[str, ...]:
        """The layers, that of the largest mean loss first."""
        return tuple(sorted(self.reports, key=lambda name: -self.mean(name)))

    def difference(self, layer: str, other: str) -> tuple[float, float]:
        """How much more one layer costs than another: mean and standard error of the differences chip by chip."""
        apart = self.loss(layer) - self.loss(other)
        return float(apart.mean()), deviation(apart) / float(np.sqrt(len(apart)))

    def keep_digital(
        self,
        target: float,
        *,
        per: Per = "macs",
        executor: Executor | None = None,
        journal: str | os.PathLike[str] | Journal | None = None,
    ) -> KeptDigital:
        """Which layers to keep digital, so that the rest on a chip reaches a score.

        Greedy: the layer of the largest loss per share of the network becomes digital first, and so on. The losses of
        layers alone only give the order; after each step the network that results is evaluated on the same chips.

        Args:
            target: the score that the mean over chips must reach, such as 0.97 for an accuracy of 97 %.
            per: share of what: ``"macs"`` (multiply-accumulates) or ``"parameters"``.
            executor: see `evaluate`.
            journal: see `evaluate`; it may be that of `sensitivity`.

        Returns:
            The layers, the mapping to hand to `convert`, and the score at each step. In the last resort everything is
            digital.

        Raises:
            ValueError: the target is no share where scores are shares; the digital network itself does not reach it, or
                its weights have changed.
        """
        check_share(target, self.everything.unit, "keep_digital: target")
        if not self._reaches(self.clean, target):
            raise InvalidValueError(
                f"keep_digital: the digital network has {self.metric} {self.clean:g}, which does not reach {target!r}"
            )
        if per not in get_args(Per):
            raise InvalidValueError(f"keep_digital: per must be one of {', '.join(get_args(Per))}, got {per!r}")
        losses = {name: self.mean(name) for name in self.reports}
        steps = search(
            by_loss_per_share(losses, {name: getattr(self.shares[name], per) for name in losses}),
            Selection((), self.everything.values[:, 0], sum_shares(self.shares.values())),
            lambda mean: self._reaches(mean, target),
            partial(self._with_digital, executor, as_journal(journal)),
        )
        kept = steps[-1].digital
        return KeptDigital(
            steps,
            target,
            self.clean,
            self.metric,
            self._setting.device(kept),
            self._setting.crossbar(kept),
            self._described,
            self.everything.unit,
        )

    def _reaches(self, score: float, target: float) -> bool:
        return score >= target if self.higher_is_better else score <= target

    def _with_digital(self, executor: Executor | None, journal: Journal | None, digital: Sequence[str]) -> Selection:
        """The network with these layers digital too, on the same chips."""
        left = [name for name in self.reports if name not in digital]
        if self.idle.issuperset(left):
            shares = sum_shares(self.shares[name] for name in left)
            return Selection(tuple(digital), np.full(len(self.everything.values), self.clean), shares)
        shared = executor is not None or journal is not None
        setting = replace(self._setting, executor=executor, journal=journal) if shared else self._setting
        report = setting.report(left)
        if report.clean != self.clean:
            raise InvalidValueError(
                f"keep_digital: the digital network has {self.metric} {report.clean:g} and had {self.clean:g}: "
                "its weights have changed; call analogsim.sensitivity again"
            )
        return Selection(tuple(digital), report.values[:, 0], sum_shares(self.shares[name] for name in left))

    @property
    def _described(self) -> str:
        return f"{self.everything.labels[0]} after programming, {self.everything.described}"

    def to_frame(self) -> DataFrame:
        """One row per layer and chip: layer, chip, the metric, what it loses, and the layer's shares."""
        rows = [
            {
                "layer": name,
                "chip": seed,
                self.metric: value,
                "loss": loss,
                "parameters": self.shares[name].parameters,
                "multiply-accumulates": self.shares[name].macs,
            }
            for name, report in self.reports.items()
            for seed, value, loss in zip(report.seeds, report.values[:, 0], self.loss(name), strict=True)
        ]
        return frame(rows)

    def __str__(self) -> str:
        unit = self.everything.unit
        head = ("analog", self.everything.heading, heading("loss", unit), "parameters", "multiply-acc.")

        def row(title: str, name: str | None, share: Share) -> tuple[str, ...]:
            report = self.everything if name is None else self.reports[name]
            return (
                title,
                spread(float(report.mean[0]), float(report.std[0]), unit),
                spread(self.mean(name), self.std(name), unit),
                f"{share.parameters:.1%}",
                f"{share.macs:.1%}",
            )

        rows = [row(name or "(the model itself)", name, self.shares[name]) for name in self.ranking]
        rows.append(row("everything", None, sum_shares(self.shares.values())))
        rows.append(("nothing", number(self.clean, unit), "", "", ""))
        return f"{table(head, rows)}\nmean ± std over chips: {self._described}"

    def plot(self) -> Figure:
        """The loss of each layer in the network's order: mean and standard deviation over chips."""
        names = list(self.reports)
        drawn, axes = figure(6.4, 1.4 + 0.22 * len(names))
        spread_of = np.nan_to_num([self.std(name) for name in names])
        axes.barh(names, [self.mean(name) for name in names], xerr=spread_of, color=COLORS[0])
        axes.axvline(self.mean(), color=COLORS[1], ls=":", lw=1, label="everything analog")
        axes.invert_yaxis()
        axes.tick_params(axis="y", labelsize=7)
        unit = self.everything.unit
        axes.set_xlabel(
            f"{heading('loss', unit)} of {self.metric} with this layer alone analog, mean and std over chips"
        )
        in_unit(axes.xaxis, unit)
        titled(axes, self._described)
        axes.legend()
        axes.grid(alpha=0.3, axis="x")
        return drawn


def _shares(analog: nn.Module, example: Inputs) -> dict[str, Share]:
    """What each analog layer is of the network."""
    args = () if isinstance(example, Mapping) else example if isinstance(example, tuple) else (example[:1],)
    named = dict(example) if isinstance(example, Mapping) else {}
    parameters = sum(parameter.numel() for parameter in analog.parameters())
    counted, products = analog_macs(analog, *args, **named), sum(macs(analog, *args, **named).values())
    matrices = matrices_of(analog)
    users = Counter(map(_place_of, matrices))
    shares = {}
    for matrix in matrices:
        state, (weight, bias) = matrix.analog, matrix.still()
        held = weight.numel() / users[_place_of(matrix)]  # those with one weight share its size
        if state.layout.bias_rows and bias is not None:
            held += bias.numel()
        shares[state.name] = Share(held / parameters, counted[state.name] / products if products else 0.0)
    return shares


def _place_of(matrix: AnalogMatrix) -> tuple[int, tuple[int, int] | None]:
    """Where the weight lies: the same for all that share it, also where it is computed, or turned into a matrix."""
    slot = matrix.analog.slot
    return slot.parameters(matrix.holder)[0].data_ptr(), slot.part


def sensitivity(
    analog: nn.Module,
    loader: Iterable[Any],
    *,
    chips: int = 5,
    t: float | str = "1d",
    metric: MetricLike = "accuracy",
    seed: int = 0,
    compensation: CompensationLike = "global",
    calibration: Iterable[Any] | None = None,
    together: int = 1,
    higher_is_better: bool | None = None,
    executor: Executor | None = None,
    journal: str | os.PathLike[str] | Journal | None = None,
) -> Sensitivity:
    """What a network loses when one of its layers alone is analog and all others are digital, layer by layer.

    A layer's cells are those that it has on the whole chip of the same seed, so that all layers are compared on the
    same chips. Chip, modes and Parameters of ``analog`` are as before afterwards.

    Args:
        analog: the twin from `convert`, with its devices, crossbars and ranges.
        loader: see `evaluate`; it is read once if it is small.
        chips: how many chips.
        t: the time after programming, seconds or text.
        metric: see `evaluate`.
        seed: the first chip.
        compensation: see `evaluate`.
        calibration: see `evaluate`.
        together: see `evaluate`.
        higher_is_better: whether the network with the higher metric is the better one. Default: as the metric says;
            a function does not.
        executor: see `evaluate`; the layers come one after the other, the chips of each are shared out.
        journal: see `evaluate`; one file keeps the chips of all layers.

    Returns:
        The scores of each layer alone and of all together; `Sensitivity.keep_digital` says which to leave digital.

    Raises:
        ValueError: it is not known which direction of the metric is better; or see `evaluate`, as for all other errors.

    Warns:
        ConversionWarning: some analog layers had no part in the answers: what they cost is not known, and shown as 0.

    Example:
        >>> import torch, analogsim
        >>> from analogsim import sensitivity
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> batch = torch.randn(32, 4), torch.randint(2, (32,))
        >>> result = sensitivity(analogsim.convert(model, device="pcm"), [batch], chips=2)
        >>> sorted(result.ranking)
        ['0', '2']
    """
    check_whole(chips, "sensitivity: chips", 1, MOST_TURNS)
    judged = as_metric(metric).directed(higher_is_better, "sensitivity")
    states = {matrix.analog.name: matrix.analog for matrix in matrices_of(analog)}
    wanted = as_compensations(compensation)
    wanted.check(analog, "sensitivity")
    if isinstance(calibration, Iterator):
        calibration = list(calibration)
    digital = to_digital(analog)
    data = Data(loader, next(digital.parameters()).device)
    options = {"chips": chips, "times": (t,), "metric": judged, "seed": seed, "calibration": calibration}
    options |= {"together": together, "clean": "digital"}  # what stays digital has no converters
    setting = _Setting(digital, states, data, options, wanted, executor, as_journal(journal))
    everything, uses = setting.judged(states, "sensitivity")
    uses.warn("sensitivity", stacklevel=2)
    idle = frozenset(state.name for state in uses.idle)
    clean = replace(everything, values=np.full_like(everything.values, everything.clean))
    reports = {name: clean if name in idle else setting.report([name], "sensitivity") for name in states}
    later = replace(setting, executor=None, journal=None)  # a pool may be gone by then
    return Sensitivity(reports, everything, _shares(analog, next(iter(data))[0]), later, idle)
