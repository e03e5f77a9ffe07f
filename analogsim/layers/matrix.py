"""One weight matrix on crossbars, and how inputs go through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from analogsim.crossbar.converters import drive
from analogsim.crossbar.crossbar import IDEAL, Crossbar
from analogsim.crossbar.signal_path import Array, convert_product
from analogsim.device.model import DeviceModel
from analogsim.draws.noisy_weight import noisy_array, noisy_weight
from analogsim.errors import NotCalibratedError, NotProgrammedError
from analogsim.mapping.layout import Layout
from analogsim.noise.sources import GlobalNoise, Noise, Scale, StreamNoise, TrainingNoise
from analogsim.utils.recompute import Recipe, can_seed, fresh_seed, keeping

if TYPE_CHECKING:
    from analogsim.chip import LayerChip

_GLOBAL = GlobalNoise()


@dataclass
class AnalogState:
    """What is known of an analog matrix beyond its weights; it is in no state dict.

    Args:
        name: the matrix's name in the network, which keys its share of a chip: that of its layer, with a name of its
            own behind it where the layer has several.
        device: the device model its weights are written to.
        train_times: range of drift times in training, seconds.
        shape: of the matrix, ``(out, ...)``.
        layout: the blocks of crossbars in which it lies.
        crossbar: their size, converters and wires.
        noise_scale: how much of the device's errors a training forward sees.
        compiled_scale: the same as a scalar where the weights are, one for all layers there, which compiled forwards
            take; None before it is set, and where it is 0.
        recompute: whether backward makes a training draw again instead of keeping it.
        chip: the programmed array, or None.
        input_range: full scale of the input converter, from calibration; None before, or if it needs none.
        output_bound: full scale of the output converter, from calibration; None before, or if it needs none.
        used: whether it had a part in a forward since this was last set to False.
        observe: during calibration, is shown what reaches the converters: ``"input"`` or ``"output"``, and the values.
    """

    name: str
    device: DeviceModel
    train_times: tuple[float, float]
    shape: torch.Size
    layout: Layout
    crossbar: Crossbar = IDEAL
    noise_scale: float = 1.0
    compiled_scale: Tensor | None = None
    recompute: bool = False
    chip: LayerChip | None = None
    input_range: Tensor | None = None
    output_bound: Tensor | None = None
    used: bool = False
    observe: Callable[[str, Tensor], None] | None = None

    def __post_init__(self) -> None:
        self.device.prepare()

    @property
    def title(self) -> str:
        """The name for messages."""
        return self.name or "(the model itself)"

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


@dataclass(frozen=True)
class Slot:
    """Where a matrix lies in the Parameters of its module.

    Args:
        weight: name of the Parameter.
        bias: name of the Parameter of its bias; None for a matrix without.
        rows: the part of both, ``(start, end)`` along the first axis; None for all. A Parameter that is just as long as
            the part is all of it.
        transposed: the Parameter is ``(in, out / groups, ...)``.
        groups: of outputs with inputs of their own.
    """

    weight: str = "weight"
    bias: str | None = "bias"
    rows: tuple[int, int] | None = None
    transposed: bool = False
    groups: int = 1

    def matrix(self, module: nn.Module) -> Tensor:
        """The matrix ``(out, ...)``, one row per output; a view of the Parameter but for transposed groups."""
        weight = self._part(getattr(module, self.weight))
        return self.turned(weight) if self.transposed else weight

    def _part(self, tensor: Tensor) -> Tensor:
        if self.rows is None or len(tensor) == self.rows[1] - self.rows[0]:
            return tensor
        return tensor[slice(*self.rows)]

    def turned(self, weight: Tensor) -> Tensor:
        """``(in, out / groups, ...)`` as ``(out, in / groups, ...)`` and back: it is its own inverse."""
        if self.groups == 1:
            return weight.transpose(0, 1)
        grouped = weight.view(self.groups, -1, *weight.shape[1:])
        return grouped.transpose(1, 2).flatten(0, 1)

    def bias_of(self, module: nn.Module) -> Tensor | None:
        """The bias ``(out,)``, or None."""
        bias: Tensor | None = None if self.bias is None else getattr(module, self.bias, None)
        return None if bias is None else self._part(bias)

    def parameters(self, module: nn.Module) -> list[nn.Parameter]:
        """The Parameters in which weight and bias lie, or from which they are computed (pruning, weight norm)."""
        found = []
        for name in (self.weight, self.bias):
            own = None if name is None else module._parameters.get(name)
            if own is not None:
                found.append(own)
            elif name is not None and parametrize.is_parametrized(module, name):
                found += cast(nn.ModuleDict, module.parametrizations)[name].parameters()
            elif name is not None:  # torch's older ways call them weight_orig, weight_g, weight_v
                hidden = module.named_parameters(recurse=False)
                found += [tensor for entry, tensor in hidden if entry.startswith(f"{name}_")]
        return found

    def size(self, tensor: Tensor) -> int:
        """How many elements of one of these Parameters belong to the matrix and its bias."""
        return self._part(tensor).numel()

    @torch.no_grad()
    def put(self, module: nn.Module, matrix: Tensor, bias: Tensor | None = None) -> None:
        """Write a matrix (and a bias) into the Parameters of a module."""
        self._part(getattr(module, self.weight)).copy_(self.turned(matrix) if self.transposed else matrix)
        own = self.bias_of(module)
        if bias is not None and own is not None:
            own.copy_(bias)


@torch.no_grad()
def still(module: nn.Module, slot: Slot) -> tuple[Tensor, Tensor | None]:
    """Matrix and bias as they are now, detached. Reading them changes nothing, as spectral norm would in training."""
    rules = getattr(module, "parametrizations", None)
    modes = [(part, part.training) for part in (module, *(() if rules is None else rules.modules()))]
    try:
        for part, _ in modes:
            part.training = False
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, _OLDER_RULES):  # what they compute lags behind until the next forward
                hook(module, None)
        bias = slot.bias_of(module)
        return slot.matrix(module).detach(), None if bias is None else bias.detach()
    finally:
        for part, mode in modes:
            part.training = mode


# torch's older ways to compute a weight, which do it before each forward.
_OLDER_RULES = (WeightNorm, SpectralNorm, BasePruningMethod)


class AnalogMatrix:
    """A matrix whose products run on crossbars.

    What has one implements `product`; converters ask for the rest. In training every draw is a fresh one of the device;
    in eval the matrix is what the programmed chip holds.
    """

    autocasts: ClassVar[bool] = False
    """Whether autocast takes the product in lower precision, as it does linear maps and convolutions."""

    analog: AnalogState
    bias: Any
    training: bool

    @property
    def matrix(self) -> Tensor:
        """The clean weights ``(out, ...)``, differentiable down to the Parameters."""
        raise NotImplementedError(f"{type(self).__name__} must have a matrix")

    def still(self) -> tuple[Tensor, Tensor | None]:
        """The clean weights and the bias, detached; reading them changes nothing."""
        raise NotImplementedError(f"{type(self).__name__} must have a matrix")

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        raise NotImplementedError(f"{type(self).__name__} must have a matrix")

    @property
    def computed(self) -> bool:
        """Whether its weights are computed from other Parameters (weight norm, pruning)."""
        raise NotImplementedError(f"{type(self).__name__} must say whether its matrix is computed")

    def put(self, matrix: Tensor) -> None:
        """Write other clean weights into the Parameters."""
        raise NotImplementedError(f"{type(self).__name__} must write into its Parameters")

    def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The linear map with another weight ``(out, ...)``; everything else comes from the layer."""
        raise NotImplementedError(f"{type(self).__name__} must implement product(input, weight, bias)")

    def partial(self, input: Tensor, rows: Tensor, start: int, end: int) -> Tensor:
        """The product of the inputs from ``start`` to ``end`` (in the order of ``matrix.flatten(1)``) alone.

        Args:
            input: the layer's input.
            rows: the weights of these inputs, ``(out, end - start)``.
            start: the first of them.
            end: the one behind the last.
        """
        shape = self.analog.shape
        missing = start, shape[1:].numel() - end
        whole = functional.pad(rows, missing) if any(missing) else rows  # padding with nothing would copy
        return self.product(input, whole.reshape(shape), None)

    def per_output(self, values: Tensor) -> Tensor:
        """Values ``(out,)`` so that they broadcast against the output; by default its last axis holds the outputs."""
        return values

    def per_vector(self, input: Tensor) -> Tensor:
        """Largest magnitude of what is driven at once; by default of each sample, the first axis being the batch."""
        return largest_magnitude(input, tuple(range(1, input.ndim)))

    def draw(self) -> Drawn:
        """What the inputs of one forward find on the crossbars: a fresh draw in training, the chip in eval.

        Raises:
            NotProgrammedError: eval, and there is no chip.
            StaleChipError: the weights changed since it was programmed.
        """
        return Drawn(self)

    def _fresh_scale(self) -> Scale | None:
        """How much of a fresh draw a forward sees; None where the chip answers."""
        if self.training:
            state = self.analog
            if torch.compiler.is_compiling() and state.compiled_scale is not None:
                return state.compiled_scale
            return state.noise_scale
        return 0.0 if self.analog.observe is not None and self.analog.chip is None else None

    def _chip(self) -> LayerChip:
        chip = self.analog.chip
        if chip is None:
            raise NotProgrammedError(
                f"layer {self.analog.title!r} is in eval mode and no chip is programmed: call "
                "analogsim.program(analog, seed=...) first, or use the digital model for its clean answer"
            )
        return chip


class Drawn:
    """One draw of a matrix, through which any number of inputs go: read noise and converters act on each anew.

    Args:
        owner: the matrix.
    """

    def __init__(self, owner: AnalogMatrix) -> None:
        state = owner.analog
        if not torch.compiler.is_compiling():
            state.used = True
        self._owner = owner
        # Read once: it may be computed (weight norm), and computing it may have effects (spectral norm).
        weight, bias = owner.matrix, owner.bias
        self._array: Array | None = None
        self._linear: Tensor | None = None
        self._variance: Tensor | None = None
        self._recipe: Recipe | None = None
        self._noise: Noise = _GLOBAL
        layout, crossbar = state.layout, state.crossbar
        scale = self._scale = owner._fresh_scale()
        if scale is not None:
            weight = self._draw(weight, bias, state, scale)
        else:
            chip = owner._chip()
            self._noise = _use_noise(chip)
            if crossbar.converts:
                self._array = chip.array_for(weight, bias)
            else:
                weight, self._variance = chip.weight_for(weight, bias)
        if self._array is not None:
            self._weight, self._bias = weight, None if layout.bias_rows else bias
        else:
            self._weight, self._bias = layout.lift(weight, state.shape) if layout.bias_rows else (weight, bias)

    def _draw(self, weight: Tensor, bias: Tensor | None, state: AnalogState, scale: Scale) -> Tensor:
        """Make the draw that training sees, and return what stands in the place of the weight."""
        circumstances = state.device, scale, state.train_times, state.layout, state.crossbar
        noise: TrainingNoise = _GLOBAL
        if state.recompute and can_seed():
            seed = fresh_seed()
            noise = StreamNoise(str(seed))
            clean = weight.detach(), None if bias is None else bias.detach()
            held = [tensor for tensor in clean if tensor is not None]
            self._recipe = Recipe(partial(_again, clean, circumstances, state.shape, seed), held, state.title)
        laid = state.layout.lay(weight, bias)
        if state.crossbar.converts:
            self._array, self._linear = noisy_array(laid, *circumstances, noise)
            return weight
        noisy, self._variance = noisy_weight(laid, *circumstances, noise)
        return noisy

    @property
    def plain(self) -> tuple[Tensor, Tensor | None] | None:
        """Weight and bias where a product with them is the whole answer; None behind converters or read noise."""
        return (self._weight, self._bias) if self._array is None and self._variance is None else None

    def __call__(self, input: Tensor) -> Tensor:
        """The answer to an input, as the layer takes it."""
        if self._recipe is None or not torch.is_grad_enabled():
            return self._answer(input, self._weight)
        weight = self._weight
        if self._owner.autocasts and torch.is_autocast_enabled(input.device.type) and weight.dtype != torch.float64:
            weight = weight.to(torch.get_autocast_dtype(input.device.type))  # which the product would do out of sight
        drawn = (weight,) if self._array is None else (self._array.slices, self._linear)
        with keeping(self._recipe, [tensor for tensor in drawn if tensor is not None]):
            return self._answer(input, weight)

    def _answer(self, input: Tensor, weight: Tensor) -> Tensor:
        if self._array is not None:
            return self._converted(input, self._array)
        output = self._owner.product(input, weight, self._bias)
        return output if self._variance is None else self._with_read_noise(output, input, self._variance)

    def _converted(self, input: Tensor, array: Array) -> Tensor:
        """The answer through the converters."""
        owner, state = self._owner, self._owner.analog
        crossbar = state.crossbar
        full, bound = (
            value.to(input.device) if isinstance(value, Tensor) else value for value in state.ranges
        )  # they do not move with the network
        if full is None:
            full = owner.per_vector(input.detach())
            if state.layout.bias_rows:
                full = full.clamp(min=1.0)  # the input 1 of the bias must fit
        if state.observe is not None:
            state.observe("input", input)
        output = convert_product(
            owner,
            input,
            array,
            crossbar,
            self._noise,
            input_range=full,
            output_bound=bound,
            noise_scale=1.0 if self._scale is None else self._scale,
            recompute=self._recipe is not None and torch.is_grad_enabled(),
            observe=state.observe,
        )
        if self._linear is not None:
            # Digits of inputs and weights are steps, so that the sum of their products has no gradient of its own: it
            # gets that of the plain product of the driven inputs.
            weight, bias = state.layout.lift(self._linear, state.shape)
            plain = owner.product(drive(input, full, crossbar) * full, weight, bias)
            output = plain + (output - plain).detach()
        if self._bias is None:
            return output
        return output + owner.per_output(self._bias).to(output.dtype)

    def _with_read_noise(self, output: Tensor, input: Tensor, variance: Tensor) -> Tensor:
        # Independent Gaussian noise of every weight in every product sums up to N(0, sum_j s_ij^2 x_j^2): exact, and
        # one product instead of one weight matrix per row. In float32, since squares leave the range of float16.
        if input.is_nested:  # torch's encoder packs sequences with padding, and knows few operations on them
            rows = zip(output.unbind(), input.unbind(), strict=True)
            return torch.nested.as_nested_tensor([self._with_read_noise(*row, variance) for row in rows])
        state = self._owner.analog
        with torch.no_grad(), torch.autocast(input.device.type, enabled=False):
            variance, of_bias = state.layout.lift(variance, state.shape)
            power = self._owner.product(input.detach().to(variance.dtype).square(), variance, of_bias)
            disturbance = self._noise.normal_like(power) * power.clamp(min=0).sqrt()
        return output + disturbance.to(output.dtype)


Circumstances = tuple[DeviceModel, Scale, tuple[float, float], Layout, Crossbar]


def _again(
    clean: tuple[Tensor, Tensor | None], circumstances: Circumstances, shape: torch.Size, seed: int
) -> list[Tensor]:
    """What was drawn for a weight and its bias with a seed."""
    layout, crossbar = circumstances[-2:]
    laid, noise = layout.lay(*clean), StreamNoise(str(seed))
    if not crossbar.converts:
        return [layout.lift(noisy_weight(laid, *circumstances, noise)[0], shape)[0]]
    array, linear = noisy_array(laid, *circumstances, noise)
    return [array.slices] if linear is None else [array.slices, linear]


def _use_noise(chip: LayerChip) -> Noise:
    # What is new in every use identifies no chip, so that a compiled graph, which holds no generator, may draw it from
    # torch's own.
    return _GLOBAL if torch.compiler.is_compiling() else chip.use_noise


class LinearMatrix(AnalogMatrix):
    """A matrix ``(out, in)`` for inputs ``(..., in)``."""

    autocasts = True

    def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `AnalogMatrix.product`."""
        return functional.linear(input, weight, bias)

    def partial(self, input: Tensor, rows: Tensor, start: int, end: int) -> Tensor:
        """See `AnalogMatrix.partial`."""
        return functional.linear(input[..., start:end], rows)

    def per_vector(self, input: Tensor) -> Tensor:
        """See `AnalogMatrix.per_vector`."""
        return largest_magnitude(input, (-1,))


class Part(LinearMatrix):
    """One of several matrices of a module.

    Args:
        owner: the module.
        slot: where the matrix lies in it.
        state: what else is known of it.
    """

    def __init__(self, owner: nn.Module, slot: Slot, state: AnalogState) -> None:
        self._owner = owner
        self._slot = slot
        self.analog = state

    @property
    def matrix(self) -> Tensor:
        """See `AnalogMatrix.matrix`."""
        return self._slot.matrix(self._owner)

    def still(self) -> tuple[Tensor, Tensor | None]:
        """See `AnalogMatrix.still`."""
        return still(self._owner, self._slot)

    @property
    def device(self) -> torch.device:
        """See `AnalogMatrix.device`."""
        return self._slot.parameters(self._owner)[0].device

    @property
    def computed(self) -> bool:
        """See `AnalogMatrix.computed`."""
        return self._slot.weight not in self._owner._parameters

    def put(self, matrix: Tensor) -> None:
        """See `AnalogMatrix.put`."""
        self._slot.put(self._owner, matrix)

    @property
    def bias(self) -> Tensor | None:
        """Its bias ``(out,)``, or None."""
        return self._slot.bias_of(self._owner)

    @property
    def training(self) -> bool:  # type: ignore[override]
        """The mode of the module."""
        return self._owner.training


def largest_magnitude(input: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The largest magnitude over some axes, which stay with length 1; a little above 0 where all is 0."""
    return input.abs().amax(axes, keepdim=True).clamp(min=torch.finfo(input.dtype).tiny)
