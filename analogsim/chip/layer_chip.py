"""One layer's share of a chip: what its cells hold, followed through time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from analogsim.crossbar.crossbar import Crossbar
from analogsim.crossbar.measurement import Measurement, measure_cells, measure_outputs
from analogsim.crossbar.signal_path import Array, array_of
from analogsim.crossbar.stages import Affine, Stage
from analogsim.crossbar.wired_blocks import wired
from analogsim.device.model import STUCK_OFF, STUCK_ON, DeviceModel, Written
from analogsim.draws.noisy_weight import in_compute_dtype
from analogsim.errors import InvalidTypeError, InvalidValueError, StaleChipError
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import chips_of
from analogsim.layers.state import AnalogState, held_array
from analogsim.mapping.layout import Layout
from analogsim.noise.sources import KeyedNoise, StreamNoise
from analogsim.utils.tensors import Stamp, stamp_of
from analogsim.utils.times import label
from analogsim.utils.torch_private import is_batched


@contextmanager
def outside_autograd() -> Iterator[None]:
    """No graph, and ordinary tensors also where the caller runs in inference mode: a later use may want gradients."""
    with torch.inference_mode(False), torch.no_grad():
        yield


class MeasuredGain(Protocol):
    """A rule for digital gains from measurements; see `analogsim.chip.Gain`."""

    @property
    def name(self) -> str:
        """Stands in reports."""
        ...

    def gains(self, reference: Tensor, now: Tensor, layout: Layout) -> Tensor:
        """What the rule says of sums over columns ``(out, row blocks)``: a scalar, or shaped like them."""
        ...


@dataclass(frozen=True)
class OutputCorrection:
    """What a chip's outputs are multiplied by and what is added to them, digitally.

    Args:
        stage: scale and offset of each output.
        time: how old the chip was when they were measured, seconds.
    """

    stage: Affine
    time: float


class LayerChip:
    """One layer's share of a chip.

    Attributes:
        correction: of its outputs; it stays whatever the age, until another is measured. None where none was.

    Args:
        name: the layer's name, part of the key of every draw.
        seed: the chip.
        device: the device model.
        source: the weight that was programmed, as it was then; with bias rows, the matrix with them.
        written: what programming left behind.
        layout: the blocks of crossbars in which it lies.
        crossbar: their wires and converters.
        bound: full scale of the output converters as it was known while programming; None for none.
        reference: what was measured right after programming, if that is known; see `measurement`.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        device: DeviceModel,
        source: Tensor,
        written: Written,
        layout: Layout,
        crossbar: Crossbar,
        bound: Tensor | float | None = None,
        reference: Tensor | None = None,
    ) -> None:
        self.name = name
        self.seed = seed
        self.device = device
        self.source = source
        self.written = written
        self.layout = layout
        self.crossbar = crossbar
        self._checked: tuple[tuple[Tensor, ...], Stamp] | None = None
        self._array: Array | None = None
        self._reference = reference
        self._through = bound
        self.correction: OutputCorrection | None = None
        self.set_time(0.0, None, bound)

    def __getstate__(self) -> dict[str, object]:
        # A copy's weights lie elsewhere: it compares them by value first.
        return {**self.__dict__, "_checked": None}

    @classmethod
    @outside_autograd()
    def program(cls, layer: AnalogMatrix, seed: int, faults: Tensor | None = None) -> LayerChip:
        """Write a layer's weight into fresh cells, some of which are known to be stuck."""
        state = layer.analog
        weight, bias = layer.still()
        if type(weight).__name__ == "DTensor":
            raise InvalidValueError(
                f"program: the weight of layer {state.title!r} is spread over processes (FSDP); call unshard() on the "
                "FSDP modules first"
            )
        source = state.layout.lay(weight, bias).clone()
        finite = source.isfinite().all()
        told = f"program: the weight of layer {state.name!r} holds NaN or infinite values"
        if finite.device.type == "cpu" and not finite:
            raise InvalidValueError(told)
        noise = KeyedNoise(str(seed), state.name)
        if faults is not None:
            faults = checked_faults(faults, state, source)
        written = state.device.program(in_compute_dtype(source), noise, state.layout, faults)
        chip = cls(state.name, seed, state.device, source, written, state.layout, state.crossbar, state.known_bound)
        # One question for both, since a GPU is waited for.
        if not finite & chip.effective[0].isfinite().all():
            raise InvalidValueError(told) if not finite else chip._diverged(0.0)
        return chip

    def _diverged(self, t: float) -> ValueError:
        """The error about conductances that are no numbers, with the effect that made them."""
        return InvalidValueError(
            f"layer {self.name!r}: device {self.device.name!r} made NaN or infinite conductances at {label(t)}: "
            f"{self.device.culprit(self.written, t)}"
        )

    def _conductances(self, t: float) -> Tensor:
        """What inputs find at time t: cells behind their wires, µS."""
        noise = KeyedNoise(str(self.seed), self.name).at(t)
        g = self.device.read(self.written, t, noise)
        return wired(g, self.written.ndim, self.layout, self.crossbar.wires)

    @outside_autograd()
    def set_time(self, t: float, compensation: MeasuredGain | None, bound: Tensor | float | None = None) -> None:
        """Let the array be ``t`` seconds old, with the gain that was measured then.

        Args:
            t: seconds after programming.
            compensation: the gain; None for none.
            bound: full scale of the output converters, through which it is measured; None for none.
        """
        self.device.check_time(t)
        weight, variance, array = self._found(t)
        if t and not weight.isfinite().all():  # `program` asks for both at once
            raise self._diverged(t)
        # What it is right after programming is measured on every chip, first of all.
        if self.device.drifts and (compensation is not None or self._reference is None):
            found = self._measured(t, weight, variance, array, bound)
            if t == 0:
                self._reference, self._through = found.sums, bound
            elif self._reference is None or self._through is not bound:
                # Converters were calibrated since: what they would have said then, so that a chip is the same whether
                # it was programmed before or after.
                self._reference, self._through = self._measured(0.0, *self._found(0.0), bound).sums, bound
            if compensation is not None:
                now = found.beside(self._reference, self.layout)
                gain = compensation.gains(self._reference, now, self.layout)
                spread = gain if gain.ndim == 0 else self.layout.spread(gain, weight)
                weight = weight * spread
                variance = None if variance is None else variance * spread.square()
                array = None if array is None else array.with_gain(gain)
        self.time = t
        self.compensation = compensation
        self._weight = weight.to(self.source.dtype)
        self._variance = variance
        self._array = None if array is None else replace(array, slices=array.slices.to(self.source.dtype))
        self.use_noise = StreamNoise(str(self.seed), self.name, f"t={t!r}", "use")

    def _found(self, t: float) -> tuple[Tensor, Tensor | None, Array | None]:
        """Weight, variance of its white read noise, and what converters see, at time t without any gain."""
        g = self._conductances(t)
        noise = self.device.cell_variance(g, self.written)
        variance = None if noise is None else self.written.mapped.to_variance(noise)
        array = self._converted(g, noise) if self.crossbar.converts else None
        return self.written.mapped.to_weight(g), variance, array

    def _measured(
        self, t: float, weight: Tensor, variance: Tensor | None, array: Array | None, bound: Tensor | float | None
    ) -> Measurement:
        """What the columns say at time t."""
        clean = in_compute_dtype(self.source)
        noise = KeyedNoise(str(self.seed), self.name, f"t={t!r}", "measure")
        if array is None:
            return measure_cells(clean, weight, variance, self.layout, noise)
        ideal = self.written.mapped.to_slices(self.written.cells.target).reshape(array.slices.shape)
        return measure_outputs(clean, ideal, array, self.crossbar, bound, noise)

    def _converted(self, g: Tensor, noise: Tensor | None) -> Array:
        """What converters see of conductances and of their white read noise (variance of each cell)."""
        mapped = self.written.mapped
        slices, variances = mapped.to_slices(g), None if noise is None else mapped.to_slice_variances(noise)
        array = array_of(slices, variances, mapped.largest, self.layout, self.device, None, slices.dtype)
        return array.with_converter_errors(self.crossbar, KeyedNoise(str(self.seed), self.name, "converters"))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The digital stages behind it: its correction of outputs, if it has one."""
        return () if self.correction is None else (self.correction.stage,)

    def suspect(self) -> None:
        """Compare the weights by value at the next use."""
        self._checked = None

    @property
    def effective(self) -> tuple[Tensor, Tensor | None]:
        """Effective weight and read-noise variance as they are held, with bias rows of the matrix."""
        return self._weight, self._variance

    @property
    def array(self) -> Array | None:
        """What converters see; None without any."""
        return self._array

    @property
    def reference(self) -> Tensor | None:
        """What was measured right after programming, ``(out, row blocks)``; None of a device that does not drift."""
        return self._reference

    def weight_for(self, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Effective weight and read-noise variance, where and as ``weight`` is; with bias rows, of the matrix.

        Raises:
            StaleChipError: ``weight`` (or a bias on the crossbar) is no longer the one that was programmed.
        """
        self._follow(weight, bias)
        return self._weight.to(weight.dtype), self._variance

    def array_for(self, weight: Tensor, bias: Tensor | None = None) -> Array:
        """What converters see, where ``weight`` is; see `weight_for`."""
        self._follow(weight, bias)
        return held_array(self._array)

    def _follow(self, weight: Tensor, bias: Tensor | None) -> None:
        self.check(weight, bias)
        if self._weight.device != weight.device:
            self._move(weight.device)

    def check(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """Raise StaleChipError unless ``weight`` (and a bias on the crossbar) still holds what was programmed."""
        if torch.compiler.is_compiling():
            return
        # Address, version counter and optimizer steps are free to compare and change with nearly every write; values
        # are compared when they did, and whenever the chip became suspect (a change of mode), since writes through
        # .data leave no trace.
        on_cells = (weight,) if bias is None or not self.layout.bias_rows else (weight, bias)
        if any(is_batched(tensor) for tensor in on_cells):
            raise StaleChipError(
                f"layer {self.name!r}: vmap gives it many weights, and one is on the chip; in eval map over inputs"
            )
        stamp = stamp_of(*on_cells)
        if self._checked is not None and stamp == self._checked[1]:
            return
        held = tuple(tensor.detach() for tensor in on_cells)
        laid = self.layout.lay(held[0], held[-1] if len(held) == 2 else None)
        same = laid.shape == self.source.shape and torch.equal(laid, self.source.to(laid.device, laid.dtype))
        if not same:
            raise StaleChipError(
                f"layer {self.name!r}: its weight changed after the chip was programmed; call analogsim.program again "
                "for a chip with the new weights, or analogsim.erase"
            )
        self._checked = held, stamp  # held, so that no other tensor gets the address

    @outside_autograd()
    def _move(self, device: torch.device) -> None:
        written = self.written
        cells = written.cells
        g_max = cells.g_max.to(device) if isinstance(cells.g_max, Tensor) else cells.g_max
        self.written = replace(
            written,
            mapped=replace(written.mapped, largest=written.mapped.largest.to(device)),
            cells=replace(cells, target=cells.target.to(device), g_max=g_max, programmed=written.programmed.to(device)),
            drawn=tuple({key: value.to(device) for key, value in drawn.items()} for drawn in written.drawn),
            faults=None if written.faults is None else written.faults.to(device),
        )
        self.source = self.source.to(device)
        self._weight = self._weight.to(device)
        self._variance = None if self._variance is None else self._variance.to(device)
        self._array = None if self._array is None else self._array.to(device)
        self._reference = None if self._reference is None else self._reference.to(device)
        if self.correction is not None:
            self.correction = replace(self.correction, stage=self.correction.stage.to(device))

    def describe(self) -> str:
        """For ``print(analog)``."""
        corrected = "" if self.correction is None else f", outputs matched at {label(self.correction.time)}"
        return f"chip {self.seed} at {label(self.time)}{corrected}"


def checked_faults(faults: Tensor, state: AnalogState, weight: Tensor) -> Tensor:
    """A layer's map of faults where the weight is, if it is one."""
    name, device = state.name, state.device
    if device.signed:
        raise InvalidValueError(
            f"program: layer {name!r} has no cells that could be stuck: {device.name!r} acts on weights"
        )
    columns = len(weight) + device.laid.references(state.layout)
    shape = (device.cells_per_weight, columns, *weight.shape[1:])
    if not isinstance(faults, Tensor) or tuple(faults.shape) != shape:
        got = tuple(faults.shape) if isinstance(faults, Tensor) else faults
        raise InvalidValueError(f"program: the map of faults of layer {name!r} must be a tensor {shape}, got {got!r}")
    # A map of floating numbers is one of codes only where it holds nothing else: without NaN, all cells are stuck.
    if faults.is_floating_point() and not bool(
        ((faults >= 0) & (faults <= STUCK_ON) & (faults == faults.round())).all()
    ):
        known = in_compute_dtype(faults.to(weight.device))
        if not ((known >= 0) | known.isnan()).all() or known.isinf().any():
            ends = f"{faults.nan_to_num().min():g} to {faults.nan_to_num().max():g}"
            raise InvalidValueError(
                f"program: the map of faults of layer {name!r} holds conductances of stuck cells and NaN for those "
                f"that work, got negative or infinite ones, {ends}"
            )
        return known
    known = faults.to(weight.device, torch.int8)
    if not (known == faults.to(weight.device)).all() or not ((known >= 0) & (known <= STUCK_ON)).all():
        raise InvalidValueError(
            f"program: the map of faults of layer {name!r} holds 0 (works), {STUCK_OFF} (stuck at g_min) or {STUCK_ON} "
            "(stuck at g_max), or conductances and NaN where cells work; got "
            f"{sorted(set(faults.flatten().tolist()))[:10]}"
        )
    return known


def layer_chips(analog: nn.Module, action: str) -> list[tuple[AnalogMatrix, LayerChip]]:
    """Every analog matrix with its programmed chip; see `chips_of`."""
    pairs = []
    for matrix, chip in chips_of(analog, action):
        if not isinstance(chip, LayerChip):
            raise InvalidTypeError(
                f"{action}: layer {matrix.analog.name!r} holds {chip.describe()} for the moment, no chip"
            )
        pairs.append((matrix, chip))
    return pairs
