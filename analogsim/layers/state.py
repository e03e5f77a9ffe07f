"""What is known of an analog matrix beyond its weights."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from torch import Tensor

from analogsim.crossbar.adapter import Adapter
from analogsim.crossbar.crossbar import IDEAL, Crossbar
from analogsim.crossbar.foot import Observe
from analogsim.crossbar.signal_path import Array
from analogsim.crossbar.stages import Stage
from analogsim.device.model import DeviceModel
from analogsim.errors import BypassedError, ChipGradientWarning, ConversionWarning, NotCalibratedError, OperationError
from analogsim.layers.products.inputs import TakenInputs
from analogsim.layers.slot import Slot
from analogsim.mapping.layout import Layout
from analogsim.noise.sources import Noise
from analogsim.utils.gradient_notices import Notice, Tie
from analogsim.utils.torch_private import call_while_tracing


class MatrixChip(Protocol):
    """What a matrix asks of the chip in its place: the programmed one, or what stands in for it meanwhile.

    Attributes:
        name: the matrix's name, part of the key of every draw.
    """

    name: str

    @property
    def use_noise(self) -> Noise:
        """Where the noise comes from that is new in every use."""
        ...

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The digital stages behind it, where the weights were that were asked for last."""
        ...

    @property
    def time(self) -> float:
        """Its age, seconds."""
        ...

    def weight_for(self, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Effective weight and read-noise variance for a clean weight; with bias rows, of the matrix."""
        ...

    def array_for(self, weight: Tensor, bias: Tensor | None = None) -> Array:
        """What converters see for a clean weight; RuntimeError where there are none."""
        ...

    def check(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Raise StaleChipError unless a clean weight still is what was programmed."""
        ...

    def suspect(self) -> None:
        """Compare the weights by value at the next use."""
        ...

    def describe(self) -> str:
        """For ``print(analog)``."""
        ...


def held_array(array: Array | None) -> Array:
    """What converters see, of a chip that is asked for it.

    Raises:
        RuntimeError: the chip holds no such thing, since its crossbar has no converters.
    """
    if array is None:
        raise OperationError("a chip whose crossbar has no converters was asked what they see")
    return array


def weights_are_fixed() -> Notice:
    """What is said to a backward that comes to weights on a chip."""
    return Notice(
        "backward in eval mode: weights of analog layers are on the chip, where no gradient moves them, and get none. "
        "Call analog.train() to train them under noise. To train digital parts with the chip in the loop, say "
        "requires_grad_(False) of these weights; for gradients of the inputs alone take "
        "torch.autograd.grad(loss, inputs) or backward(inputs=...)",
        ChipGradientWarning,
    )


class Look(Protocol):
    """Is shown each product of a matrix while that is looked into, whatever takes it."""

    def __call__(self, drawn: Any, input: Tensor) -> None:
        """Look at an input that is about to be answered.

        Args:
            drawn: the `analogsim.layers.matrix.Drawn` that is asked, whose ``clean`` and ``on`` give answers.
            input: as the layer takes it.
        """
        ...


@dataclass(frozen=True, eq=False)
class Answering:
    """What a matrix in eval answers with in the place of its chip: a draw made for each forward, as in training.

    Args:
        scale: how much of the device's errors it sees; with 0 the weights are as they were to be written.
        laid: the weights, laid with their bias rows, in a tensor of which others hold nothing; None: the module's own.
        look: is shown the inputs.
    """

    scale: float
    laid: Tensor | None = None
    look: Look | None = None


@dataclass
class AnalogState:
    """What is known of an analog matrix beyond its weights; it is in no state dict.

    Args:
        name: the matrix's name in the network, which keys its share of a chip: that of its layer, with a name of its
            own behind it where the layer has several.
        device: the device model its weights are written to.
        train_times: ends of the range of drift times in training, seconds; three or more: the times themselves.
        shape: of the matrix, ``(out, ...)``.
        layout: the blocks of crossbars in which it lies.
        crossbar: their size, converters and wires.
        slot: where it lies in the Parameters of its module; set by `AnalogModule.attach`.
        entries: the names of its weight and its bias, each with whether it is a Parameter of the module or None, and
            not computed from others; set with the slot.
        watched: whether one of them is computed.
        biased: whether it had a bias then.
        beside: names of tensors that are mere attributes of its module, such as a mask that is no buffer.
        noise_scale: how much of the device's errors a training forward sees.
        compiled_scale: the same as a scalar where the weights are, one for all layers there, which compiled forwards
            take; None before it is set, and where it is 0.
        recompute: whether backward makes a training draw again instead of keeping it.
        chip: the programmed array, or None.
        stages: digital stages behind every draw, behind those of the chip; they belong to the twin, and are in no file.
        adapter: the last of the digital stages, trained apart from the weights; see `add_adapters`. None without.
        input_range: full scale of the input converters, from calibration, shaped as `range_shape` says, or a scalar for
            all; None before, or if it needs none.
        output_bound: full scale of the output converters, likewise.
        taken: which kinds of inputs the digital product takes, as far as it was asked.
        uses: in how many draws of forwards it had a part so far, those of compiled graphs left out.
        traced: whether it has a part in a graph of ``torch.compile``, whose runs nobody counts.
        fixed: says that weights on a chip have no gradient, once for all matrices of a twin.
        tie: of the chip's answers to the clean weights, for who asks for their gradient.
        observe: is shown what reaches the converters, which need no ranges meanwhile.
        answering: what answers in eval in place of the chip; None: the chip does.
    """

    name: str
    device: DeviceModel
    train_times: tuple[float, ...]
    shape: torch.Size
    layout: Layout
    crossbar: Crossbar = IDEAL
    slot: Slot = field(default_factory=Slot)
    entries: tuple[tuple[str, bool], ...] = ()
    watched: bool = False
    beside: tuple[str, ...] = ()
    biased: bool = False
    noise_scale: float = 1.0
    compiled_scale: Tensor | None = None
    recompute: bool = False
    chip: MatrixChip | None = None
    stages: tuple[Stage, ...] = ()
    adapter: Adapter | None = field(default=None, compare=False)
    input_range: Tensor | None = None
    output_bound: Tensor | None = None
    taken: TakenInputs = field(default_factory=TakenInputs, repr=False, compare=False)
    uses: int = 0
    traced: bool = False
    fixed: Notice = field(default_factory=weights_are_fixed)
    tie: Tie = field(default_factory=Tie)
    observe: Observe | None = None
    answering: Answering | None = None

    def __post_init__(self) -> None:
        self.device.prepare()

    @call_while_tracing
    def trace(self) -> None:
        """It comes into a graph that ``torch.compile`` makes."""
        self.traced = True

    @property
    def title(self) -> str:
        """The name for messages."""
        return self.name or "(the model itself)"

    @property
    def cells(self) -> int:
        """Number of cells of its crossbars: those of its weights, bias rows and reference columns."""
        mapping = self.device.laid
        return (self.shape[0] + mapping.references(self.layout)) * self.layout.rows[-1][1] * mapping.cells_per_weight

    def put_on(self, device: DeviceModel, crossbar: Crossbar) -> None:
        """Let it lie on other hardware; a chip of the old one is gone, ranges stay as far as there are blocks for them.

        Raises:
            ValueError: its weights cannot lie there. It lies where it did then.
        """
        crossbar.check(device)
        layout = crossbar.layout(self.shape, self.slot.groups, device.laid)
        device.prepare()
        held = self.input_range, self.output_bound
        self.device, self.crossbar, self.layout, self.chip = device, crossbar, layout, None
        for kind, value in zip(("input_range", "output_bound"), held, strict=True):
            fits = value is None or not value.ndim or tuple(value.shape) == self.range_shape(kind)
            setattr(self, kind, value if fits or value is None else value.detach().abs().max())

    @property
    def own_ranges(self) -> bool:
        """Whether each block of rows has an input range of its own."""
        return self.crossbar.ranges_per == "block" and len(self.layout.rows) > 1

    def range_shape(self, kind: str) -> tuple[int, ...]:
        """The shape of ranges from calibration: of ``"input_range"`` or of ``"output_bound"``.

        ``(row blocks,)`` and ``(slices, row blocks)``; ``()`` where there is only one, or one is shared by all.
        """
        blocks, slices = len(self.layout.rows), self.device.slices
        if self.crossbar.ranges_per == "layer" or blocks * (1 if kind == "input_range" else slices) == 1:
            return ()
        return (blocks,) if kind == "input_range" else (slices, blocks)

    def take_ranges(self, other: AnalogState) -> None:
        """Take over the ranges of a layer on other crossbars; where there are fewer here, the largest of them."""
        for kind in ("input_range", "output_bound"):
            value = getattr(other, kind)
            if value is not None and value.ndim and tuple(value.shape) != self.range_shape(kind):
                value = value.detach().abs().max()
            setattr(self, kind, value)

    @property
    def known_bound(self) -> Tensor | float | None:
        """Full scale of the output converter as far as it is known; None for no bound, or none yet."""
        return self.output_bound if self.crossbar.needs_bound else cast("float | None", self.crossbar.output_bound)

    @property
    def ranges(self) -> tuple[Tensor | float | None, Tensor | float | None]:
        """Full scale of the input converter (None: of each vector) and of the output converter (None: no bound).

        Raises:
            NotCalibratedError: one of them comes from calibration, which has not been made.
        """
        crossbar = self.crossbar
        for wanted, known in ((crossbar.needs_range, self.input_range), (crossbar.needs_bound, self.output_bound)):
            if wanted and known is None and self.observe is None:
                raise NotCalibratedError(
                    f"layer {self.title!r} has converters without a range: call "
                    "analogsim.calibrate(analog, loader) first, or give the crossbar a fixed range"
                )
        entry = crossbar.input_range
        full: Tensor | float | None = None
        if isinstance(entry, int | float):
            full = entry
        elif crossbar.needs_range and self.input_range is not None:
            full = self.input_range.abs()  # an optimizer may step a small one past zero
        bound = crossbar.output_bound
        return full, self.output_bound if isinstance(bound, str) else bound


_REMEDY = (
    "something reads their weights and takes the products digitally: a forward put into an instance, a closure that "
    "holds the original layers, one functional call for several layers. analogsim.audit(analog, inputs) says what uses "
    "each weight, analogsim.summary(analog) what runs analog; analogsim.register_routed is for a type whose forward "
    "takes products by itself"
)


class Uses:
    """What was used of analog matrices since this was made.

    Args:
        states: of the matrices.
        ever: since they were made instead.
    """

    def __init__(self, states: Sequence[AnalogState], *, ever: bool = False) -> None:
        self._before = [(state, 0 if ever else state.uses) for state in states]

    @property
    def idle(self) -> list[AnalogState]:
        """Those that had no part; one that lies in a graph of ``torch.compile`` counts as used."""
        return [state for state, before in self._before if state.uses == before and not state.traced]

    @property
    def none(self) -> bool:
        """Whether none of them had."""
        return all(state.uses == before and not state.traced for state, before in self._before)

    def credit(self, idle: Collection[str]) -> None:
        """Count a part that all but some had elsewhere: in another process, or in an earlier one.

        Args:
            idle: the names of those that had none.
        """
        for state, _ in self._before:
            if state.name not in idle:
                state.uses += 1

    def check(self, action: str) -> None:
        """Raise BypassedError, in the name of an action, if none of them had."""
        if self.none:
            raise BypassedError(
                f"{action}: none of the {len(self._before)} analog layers had a part in the answers, which are those "
                f"of the digital network: {_REMEDY}"
            )

    def warn(self, action: str, *, stacklevel: int) -> None:
        """Warn of those that had none, once for all.

        Args:
            action: in whose name.
            stacklevel: where the warning is shown, from the caller's place.
        """
        idle = self.idle
        if idle:
            names = ", ".join(repr(state.title) for state in idle[:5]) + (", ..." if len(idle) > 5 else "")
            warnings.warn(
                f"{action}: analog layers without a part in the answers: {names}. Either the network does not use them "
                "here (experts, heads and branches that were not chosen: then this is as it should be), or "
                f"{_REMEDY}",
                ConversionWarning,
                stacklevel=stacklevel + 1,
            )
