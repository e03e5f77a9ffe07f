"""Effects and device models.

An `Effect` is one non-ideality: a frozen dataclass whose methods are the stages of a cell's life. A `DeviceModel`
is a chain of effects over a conductance range. Order in the chain is physical order; each stage runs through the
whole chain before the next one starts::

    program -> hold -> age(t) -> hold -> read(t)          and, in every use, read_std

``hold`` comes after both, so that a stuck cell takes neither programming noise nor drift wherever it stands in the
chain.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Self
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor

from analogsim.device.parameters import checked
from analogsim.errors import InvalidTypeError, InvalidValueError, OperationError
from analogsim.mapping.cell_code import CellCode, stuck_cells
from analogsim.mapping.layout import Layout
from analogsim.mapping.mapped_weight import MappedWeight
from analogsim.mapping.mapping import Mapping
from analogsim.noise.sources import Noise
from analogsim.utils.checks import as_number
from analogsim.utils.times import label

State = dict[str, Tensor]

STAGES = ("program", "error", "draw", "held", "hold", "age", "read", "read_std")
"""The methods of an effect that a cell's life goes through."""

STUCK_OFF, STUCK_ON = 1, 2
"""What a map of faults says of a cell that is stuck at ``g_min`` or at ``g_max``; 0 is a cell that works. A map of
floating numbers holds the conductance of each stuck cell instead, and NaN for those that work."""


def held_by(faults: Tensor, g: Tensor, cells: Cells) -> Tensor:
    """``g`` with the cells of a map of faults where they are stuck."""
    if faults.is_floating_point():
        return torch.where(faults.isnan(), g, faults.to(g.dtype))
    return g.masked_fill(faults == STUCK_OFF, cells.g_min).masked_fill_(faults == STUCK_ON, cells.g_max)


@dataclass(frozen=True)
class Cells:
    """What an effect may know about the cells it acts on.

    Args:
        target: the conductances that were asked for, ``(cells, *weight.shape)``, µS.
        g_min: the lowest conductance of the range, µS.
        g_max: the highest one, µS; for signed cells the largest weight, a tensor that broadcasts against ``target``.
        signed: one value per weight that takes either sign (`analogsim.Mapping`), so nothing stops at zero.
        programmed: the conductances that were written, µS; None while they are being written.
        code: how weights are written on them, by plane, slice and copy; None for cells on their own.
    """

    target: Tensor
    g_min: float
    g_max: float | Tensor
    signed: bool = False
    programmed: Tensor | None = None
    code: CellCode | None = None

    def floor(self, g: Tensor) -> Tensor:
        """``g``, with a physical cell's conductance stopped at zero. Works in place on ``g``."""
        return g if self.signed else g.clamp_min_(0)


@dataclass(frozen=True)
class Effect:
    """One non-ideality. Subclass as a frozen dataclass and override the stages it takes part in.

    Every method gets conductances ``g`` of shape ``(..., cells, *weight.shape)`` in µS and returns the same shape,
    dtype and device; it does not write into its arguments, loops over no elements and takes randomness only from
    ``noise``. Fields made with `param` are checked by themselves.
    """

    signed: ClassVar[bool] = False
    """Whether the effect also makes sense on a weight as one signed value, as a noise on weights does."""

    cellwise: ClassVar[bool] = False
    """Whether every stage treats each cell as if there were no others, and draws one number for each cell at a time.
    Compiled code then draws the two cells of a pair side by side, in about half the time."""

    times: ClassVar[tuple[float, float]] = (0.0, math.inf)
    """The ages (s after programming) for which its formula is valid; at 0 every device is what was written."""

    def __post_init__(self) -> None:
        for spec in fields(self):
            if spec.metadata:
                value = getattr(self, spec.name)
                value = checked(type(self).__name__, spec.name, value, spec.default, spec.metadata)
                object.__setattr__(self, spec.name, value)

    def check(self, model: DeviceModel) -> None:
        """Raise ValueError if the effect cannot be part of ``model`` (its range, its mapping)."""

    def program(self, g: Tensor, cells: Cells, noise: Noise) -> Tensor:
        """What is written when ``g`` is to be written. Drawn once for the life of a chip."""
        return g

    def error(self, g: Tensor, g_max: Callable[[Tensor], float | Tensor], noise: Noise) -> Tensor:
        """What an effect that does nothing else adds to ``g``, a fresh tensor. Spares training the detour over g.

        ``g_max(g)`` is the top of the range; it costs a pass over the weights, so only who needs it asks for it.
        """
        raise NotImplementedError(f"{type(self).__name__} is not additive")

    def draw(self, cells: Cells, noise: Noise) -> State:
        """What each cell keeps for life besides its conductance: drift exponent, faults, ..."""
        return {}

    def held(self, drawn: State) -> Tensor | None:
        """Boolean mask of the cells that no longer follow their target, or None if there are none."""
        return None

    def hold(self, g: Tensor, cells: Cells, drawn: State) -> Tensor:
        """``g`` with the held cells where they are stuck. Runs after ``program`` and after ``age``."""
        return g

    def age(self, g: Tensor, t: float | Tensor, cells: Cells, drawn: State) -> Tensor:
        """``g`` at ``t`` seconds after programming: a deterministic function of what was drawn."""
        return g

    def read(self, g: Tensor, t: float | Tensor, cells: Cells, noise: Noise) -> Tensor:
        """``g`` as it stands while inputs stream through at time ``t``: slow (1/f) noise."""
        return g

    def read_std(self, g: Tensor, cells: Cells) -> Tensor | None:
        """Standard deviation (µS) of white read noise, independent in every use; None if there is none."""
        return None

    def cell_levels(self) -> int | None:
        """How many levels, equally spaced from ``g_min`` to ``g_max``, a cell is written to; None for any conductance.

        Bit slices want to know: digits of a code must be among the levels, and so must the reference of offset cells.
        """
        return None

    @classmethod
    def implements(cls, stage: str) -> bool:
        """Whether the effect takes part in a stage, that is, overrides the method of that name."""
        return getattr(cls, stage) is not getattr(Effect, stage)

    def replace(self, **changes: Any) -> Self:
        """A copy with other parameters."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Written:
    """What programming leaves behind: enough to know the array at any later time.

    Args:
        mapped: how the weight lies on its cells, and the way back from their conductances.
        cells: target and programmed conductances with their range.
        drawn: for each effect of the chain, what its cells keep for life.
        faults: a map of cells known to be stuck, like the conductances: int8 of `STUCK_OFF` and `STUCK_ON`, or the
            conductances of stuck cells and NaN elsewhere; None for none.
    """

    mapped: MappedWeight
    cells: Cells
    drawn: tuple[State, ...]
    faults: Tensor | None = None

    @property
    def largest(self) -> Tensor:
        """The weight that stands at ``g_max``, broadcastable."""
        return self.mapped.largest

    @property
    def layout(self) -> Layout | None:
        """The blocks that the weight lies in; None for a single one."""
        return self.mapped.layout

    @property
    def ndim(self) -> int:
        """Number of axes of the weight."""
        return self.mapped.ndim

    @property
    def programmed(self) -> Tensor:
        """The conductances that were written, ``(cells, out (+ reference columns), ...)``, µS."""
        if self.cells.programmed is None:  # pragma: no cover - DeviceModel.program always sets it
            raise OperationError("cells were never programmed")
        return self.cells.programmed


def _chain_of(effects: Any) -> tuple[Effect, ...]:
    """The chain that a device model is given, if it is one."""
    if isinstance(effects, Effect | str):
        raise InvalidTypeError(
            f"device model: effects must be a sequence of effects, got {effects!r}; analogsim.as_device_model takes a "
            "single effect or a name"
        )
    chain = tuple(effects)
    for effect in chain:
        if not isinstance(effect, Effect):
            raise InvalidTypeError(f"device model: every element must be an Effect, got {effect!r}")
        _check_stages(type(effect))
    if not chain:
        raise InvalidValueError("device model: the chain of effects is empty; give at least one")
    return chain


def _own_methods(kind: type[Effect]) -> dict[str, Callable[..., Any]]:
    """Public methods that a class of effects adds to those of `Effect`."""
    bases = [base for base in kind.__mro__ if issubclass(base, Effect) and base is not Effect]
    methods = {name: value for base in bases for name, value in vars(base).items() if inspect.isfunction(value)}
    return {name: value for name, value in methods.items() if not name.startswith("_") and not hasattr(Effect, name)}


def _meant(name: str, method: Callable[..., Any], kind: type[Effect]) -> str:
    """The stage or question, which the class does not answer, that a method was to be; empty for a helper's own."""
    free = [hook for hook in (*STAGES, "check", "cell_levels") if not kind.implements(hook)]
    near = difflib.get_close_matches(name.lower(), free, n=1, cutoff=0.7)
    # A name alone may be a helper's: whoever misspells a stage still gives it the stage's arguments.
    arguments = [len(inspect.signature(one).parameters) for one in (method, *(getattr(Effect, hook) for hook in near))]
    return near[0] if near and arguments[0] == arguments[1] else ""


def _refusal(kind: type[Effect]) -> str:
    """Why a class of effects cannot be meant as it stands: a method that no stage is; empty if nothing is wrong."""
    own = _own_methods(kind)
    for name, method in own.items():
        meant = _meant(name, method, kind)
        if meant:
            return f"has a method {name!r}, which is no stage and never called; did you mean {meant!r}?"
    if own and not any(kind.implements(stage) for stage in STAGES):
        return f"overrides no stage, so that {', '.join(own)} are never called; the stages are {', '.join(STAGES)}"
    return ""


_sound: WeakSet[type[Effect]] = WeakSet()
"""Classes of effects that were looked at, and are what they say."""


def _check_stages(kind: type[Effect]) -> None:
    """Raise TypeError for a class of effects that cannot be meant as it stands."""
    if kind in _sound:
        return
    refusal = _refusal(kind)
    if refusal:
        raise InvalidTypeError(f"device model: the effect {kind.__name__} {refusal}")
    _sound.add(kind)


def _conductance(end: str, value: object) -> float:
    """One end of the range, if it is a number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise InvalidTypeError(f"device model: {end} must be a number (µS), got {value!r}")
    return as_number(value)


def _usual_mapping(effects: Sequence[Effect]) -> Mapping:
    """The mapping of a chain that was given none."""
    weight_noise = all(effect.signed for effect in effects)
    return Mapping("signed", "tensor") if weight_noise else Mapping("pair", "column")


@dataclass(frozen=True)
class DeviceModel:
    """A chain of effects over a conductance range, and how weights are laid on it.

    Args:
        effects: the chain, in physical order.
        g_min: conductance of a cell that stands for zero, µS.
        g_max: conductance of the largest weight, µS.
        mapping: how weights are laid on cells. Default: signed values, scaled by the tensor's largest weight, if every
            effect is a noise on weights (``Effect.signed``); otherwise differential pairs, scaled per column.
        name: what reports call it; by default made from the effects.
        unit: the unit of the range, for those who read it; all formulas are in this unit.

    Raises:
        ValueError: an empty chain, an impossible range, or an effect that cannot work on it.
        TypeError: a field of the wrong type.

    Example:
        >>> from analogsim import DeviceModel, Drift, Quantization
        >>> DeviceModel((Quantization(levels=16), Drift(nu=0.05))).name
        'Quantization+Drift'
    """

    effects: tuple[Effect, ...]
    g_min: float = 0.0
    g_max: float = 25.0
    mapping: Mapping | None = None
    name: str = ""
    unit: str = "µS"

    def __post_init__(self) -> None:
        object.__setattr__(self, "effects", _chain_of(self.effects))
        for end in ("g_min", "g_max"):
            object.__setattr__(self, end, _conductance(end, getattr(self, end)))
        if not (0 <= self.g_min < self.g_max < math.inf):
            raise InvalidValueError(
                f"device model: need 0 <= g_min < g_max in µS, got g_min={self.g_min!r}, g_max={self.g_max!r}"
            )
        if not isinstance(self.mapping, Mapping | None):
            raise InvalidTypeError(
                f"device model: mapping must be a Mapping, such as Mapping('pair'), got {self.mapping!r}"
            )
        for text in ("name", "unit"):
            if not isinstance(getattr(self, text), str):
                raise InvalidTypeError(f"device model: {text} must be text, got {getattr(self, text)!r}")
        if self.mapping is None:
            object.__setattr__(self, "mapping", _usual_mapping(self.effects))
        if not self.name:
            object.__setattr__(self, "name", self._made_name)
        for effect in self.effects:
            if self.signed and not effect.signed:
                raise InvalidValueError(
                    f"device model: {type(effect).__name__} acts on conductances and needs Mapping('pair') or "
                    "another mapping on cells, got Mapping('signed')"
                )
            effect.check(self)

    @property
    def _made_name(self) -> str:
        return "+".join(type(effect).__name__ for effect in self.effects)

    @property
    def laid(self) -> Mapping:
        """How weights are laid on cells: ``mapping``, or its default."""
        if self.mapping is None:  # pragma: no cover - set in __post_init__
            raise OperationError("no mapping")
        return self.mapping

    def replace(self, **changes: Any) -> DeviceModel:
        """A copy with other fields. A name that was made from the effects is made anew with them."""
        if "effects" in changes and self.name == self._made_name:
            changes.setdefault("name", "")
        return replace(self, **changes)

    def parameters(self) -> dict[str, Any]:
        """Every parameter under a dotted name, for logging."""
        seen = Counter(type(effect).__name__ for effect in self.effects)
        values: dict[str, Any] = {"g_min": self.g_min, "g_max": self.g_max, **asdict(self.laid)}
        if self.laid.cells != "offset":  # others have no reference
            del values["reference"]
        for key, effect in zip(self._keys, self.effects, strict=True):
            prefix = key if seen[type(effect).__name__] > 1 else type(effect).__name__
            values |= {f"{prefix}.{name}": value for name, value in asdict(effect).items()}
        return values

    @cached_property
    def _keys(self) -> tuple[str, ...]:
        # A stream is named by effect and occurrence, so that another effect in the chain changes no one else's draws.
        seen: Counter[str] = Counter()
        keys = []
        for effect in self.effects:
            name = type(effect).__name__
            keys.append(f"{name}#{seen[name]}")
            seen[name] += 1
        return tuple(keys)

    @cached_property
    def _stages(self) -> dict[str, tuple[tuple[int, str, Effect], ...]]:
        """For each stage, the effects that take part in it with their place and their key."""
        places = list(zip(range(len(self.effects)), self._keys, self.effects, strict=True))
        return {stage: tuple(place for place in places if place[2].implements(stage)) for stage in STAGES}

    @property
    def signed(self) -> bool:
        """Whether a weight is one value of either sign instead of cells."""
        return self.laid.cells == "signed"

    @property
    def cells_per_weight(self) -> int:
        """Number of cells that hold one weight."""
        return self.laid.cells_per_weight

    @property
    def slices(self) -> int:
        """Over how many slices a weight's digits are spread."""
        return self.laid.slices

    @property
    def significance(self) -> tuple[float, ...]:
        """Share of each slice in the full scale, see `Mapping.significance`."""
        return self.laid.significance

    @cached_property
    def levels(self) -> int | None:
        """How many levels a cell holds, the fewest that an effect leaves; None for any conductance."""
        held = [levels for effect in self.effects if (levels := effect.cell_levels()) is not None]
        return min(held, default=None)

    @cached_property
    def drifts(self) -> bool:
        """Whether the device changes with time, so that a compensation has something to compensate."""
        return bool(self._stages["age"] or self._stages["read"])

    @cached_property
    def is_noisy_in_use(self) -> bool:
        """Whether white read noise is drawn in each use."""
        return bool(self._stages["read_std"])

    def prepare(self) -> None:
        """Work out all that is worked out once, behind a lock that torch.compile cannot trace (Python 3.11)."""
        _ = self._stages, self.drifts, self.moves, self.additive, self.cellwise, self.levels

    @cached_property
    def moves(self) -> bool:
        """Whether conductances come to be others than what was asked for; white read noise alone moves none."""
        return any(stages for stage, stages in self._stages.items() if stage != "read_std")

    @cached_property
    def additive(self) -> Effect | None:
        """The one effect of a chain whose whole story is an error added to a signed weight; None for any other."""
        later = ("draw", "hold", "age", "read", "read_std")
        simple = self.signed and len(self.effects) == 1 and self.effects[0].implements("error")
        return self.effects[0] if simple and not any(self._stages[stage] for stage in later) else None

    @cached_property
    def cellwise(self) -> bool:
        """Whether each cell can be drawn as if there were no others, and none is held."""
        return (
            self.slices == 1
            and all(effect.cellwise for effect in self.effects)
            and not self._stages["held"] + self._stages["hold"]
        )

    @cached_property
    def times(self) -> tuple[float, float]:
        """The ages (s) for which every effect's formula is valid; 0 is always allowed."""
        spans = [effect.times for effect in self.effects]
        return max(span[0] for span in spans), min(span[1] for span in spans)

    def check_time(self, t: float) -> None:
        """Raise ValueError for an age that an effect has no formula for."""
        for effect in self.effects:
            first, last = effect.times
            if t != 0 and not first <= t <= last:
                raise InvalidValueError(
                    f"{self.name}: {type(effect).__name__} is valid from {label(first)} to {label(last)} after "
                    f"programming, got {label(t)}; choose times within"
                )

    def largest(self, weight: Tensor, layout: Layout | None = None) -> Tensor:
        """The weight that is laid on ``g_max``, see `Mapping.largest`."""
        return self.laid.largest(weight, layout)

    def map_weight(self, largest: Tensor, ndim: int, layout: Layout | None = None) -> MappedWeight:
        """How a weight of ``ndim`` axes lies on the cells of this device, with ``largest`` on ``g_max``."""
        return MappedWeight(self.laid, layout, self.g_min, self.g_max, largest, ndim, self.levels)

    def lay_out(self, weight: Tensor, layout: Layout | None = None) -> Written:
        """The cells of a weight as if they had been written without any error, and keep what they got."""
        mapped = self.map_weight(self.largest(weight, layout), weight.ndim, layout)
        target = mapped.targets(weight)
        g_max = mapped.largest if self.signed else self.g_max
        cells = Cells(target, self.g_min, g_max, self.signed, target, self.laid)
        return Written(mapped, cells, ({},) * len(self.effects))

    def program(
        self, weight: Tensor, noise: Noise, layout: Layout | None = None, faults: Tensor | None = None
    ) -> Written:
        """Write a weight into fresh cells.

        Args:
            weight: ``(out, ...)``, finite, float32 or float64.
            noise: where every draw comes from.
            layout: the blocks that it lies in; None for a single one.
            faults: a map of cells known to be stuck, besides those that effects draw; the others are written around
                them, see `Mapping.around`.
        """
        clean = self.lay_out(weight, layout)
        if faults is not None:
            target = clean.mapped.around(clean.cells.target, faults)
            clean = replace(clean, cells=replace(clean.cells, target=target), faults=faults)
        return self.written(clean, noise)

    def written(self, clean: Written, noise: Noise) -> Written:
        """Fresh cells written towards the targets of ``clean``, by which known faults it has."""
        faults, cells = clean.faults, replace(clean.cells, programmed=None)
        drawn: list[State] = [{} for _ in self.effects]
        for place, key, effect in self._stages["draw"]:
            drawn[place] = effect.draw(cells, noise.fold(key, "draw"))
        g = cells.target
        for _, key, effect in self._stages["program"]:
            g = effect.program(g, cells, noise.fold(key, "program"))
        g = self._hold(g, cells, drawn, faults)
        return replace(clean, cells=replace(cells, programmed=g), drawn=tuple(drawn))

    def _hold(self, g: Tensor, cells: Cells, drawn: Sequence[State], faults: Tensor | None) -> Tensor:
        for place, _, effect in self._stages["hold"]:
            g = effect.hold(g, cells, drawn[place])
        return g if faults is None else held_by(faults, g, cells)

    def age(self, written: Written, t: float | Tensor) -> Tensor:
        """Conductances ``t`` seconds after programming, µS, without read noise."""
        g = written.programmed
        for place, _, effect in self._stages["age"]:
            g = effect.age(g, t, written.cells, written.drawn[place])
        return self._hold(g, written.cells, written.drawn, written.faults)

    def read(self, written: Written, t: float | Tensor, noise: Noise) -> Tensor:
        """Conductances as inputs find them at time ``t``, µS: aged, with the slow noise of that time.

        A cell that is stuck outside the range (a short, an open) is no cell that formulas were fitted to, and has no
        slow noise.
        """
        g = aged = self.age(written, t)
        for _, key, effect in self._stages["read"]:
            g = effect.read(g, t, written.cells, noise.fold(key, "read"))
        held = self._held(written) if self._stages["read"] else None
        return g if held is None else torch.where(held & ((aged < self.g_min) | (aged > self.g_max)), aged, g)

    def _held(self, written: Written) -> Tensor | None:
        """Mask of the cells that no longer follow their target; None if there are none."""
        held = None if written.faults is None else stuck_cells(written.faults)
        for place, _, effect in self._stages["held"]:
            mask = effect.held(written.drawn[place])
            if mask is not None:
                held = mask if held is None else held | mask
        return held

    def culprit(self, written: Written, t: float) -> str:
        """Which effect made conductances NaN or infinite, by stage; for an error, and no draw is made anew."""
        if not written.programmed.isfinite().all():
            kinds = [type(effect).__name__ for _, _, effect in (*self._stages["program"], *self._stages["hold"])]
            return f"its program or hold ({', '.join(kinds)})"
        g = written.programmed
        for place, _, effect in self._stages["age"]:
            g = effect.age(g, t, written.cells, written.drawn[place])
            if not g.isfinite().all():
                return f"{type(effect).__name__}.age"
        return f"its read ({', '.join(type(effect).__name__ for _, _, effect in self._stages['read'])}), or wires"

    def around(self, target: Tensor, faults: Tensor) -> Tensor:
        """Targets that make the best of known faults, see `Mapping.around`."""
        return self.laid.around(target, faults, self.g_min, self.g_max)

    def to_weight(self, g: Tensor, written: Written) -> Tensor:
        """The weight that conductances stand for, see `MappedWeight.to_weight`."""
        return written.mapped.to_weight(g)

    def to_slices(self, g: Tensor, written: Written) -> Tensor:
        """The weight that each slice stands for at full scale, see `MappedWeight.to_slices`."""
        return written.mapped.to_slices(g)

    def join(self, slices: Tensor) -> Tensor:
        """The weight ``(out, ...)`` that slices ``(slices, out, ...)`` hold together."""
        return self.laid.join(slices)

    def cell_variance(self, g: Tensor, written: Written) -> Tensor | None:
        """Variance (µS²) of each cell from white read noise in one use; None for a device without."""
        total: Tensor | None = None
        for _, _, effect in self._stages["read_std"]:
            std = effect.read_std(g, written.cells)
            if std is not None:
                total = std.square() if total is None else total + std.square()
        return total

    def read_variance(self, g: Tensor, written: Written) -> Tensor | None:
        """Variance of each weight from white read noise in one use; None for a device without."""
        variance = self.cell_variance(g, written)
        return None if variance is None else written.mapped.to_variance(variance)

    def slice_variance(self, g: Tensor, written: Written) -> Tensor | None:
        """Variance of each slice's weight at full scale, ``(slices, out, ...)``; None for a device without."""
        variance = self.cell_variance(g, written)
        return None if variance is None else written.mapped.to_slice_variances(variance)

    def following(self, weight: Tensor, written: Written) -> Tensor | None:
        """How far the array follows each weight (0 to 1, like the weight); None if it follows all.

        A weight whose carrying cell is stuck no longer moves the output, so its gradient is zero; nor does one beyond
        the range.
        """
        return written.mapped.following(weight, self._held(written))
