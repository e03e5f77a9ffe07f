"""What all analog layers share, and the registry from digital to analog types."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from analogsim.converters import convert_product, drive
from analogsim.crossbar import IDEAL, Crossbar
from analogsim.device import DeviceModel
from analogsim.errors import NotCalibratedError, NotProgrammedError
from analogsim.layout import Layout
from analogsim.noise import GlobalNoise, Noise
from analogsim.training import noisy_array, noisy_weight

if TYPE_CHECKING:
    from analogsim.chip import LayerChip

_GLOBAL = GlobalNoise()


@dataclass
class AnalogState:
    """What an analog layer knows beyond its digital twin; it is in no state dict.

    Args:
        name: the layer's name in the network, which keys its share of a chip.
        device: the device model its weights are written to.
        train_times: range of drift times in training, seconds.
        layout: the blocks of crossbars in which its weight lies.
        crossbar: their size, converters and wires.
        noise_scale: how much of the device's errors a training forward sees.
        chip: the programmed array, or None.
        input_range: full scale of the input converter, from calibration; None before, or if it needs none.
        output_bound: full scale of the output converter, from calibration; None before, or if it needs none.
        observe: during calibration, is shown what reaches the converters: ``"input"`` or ``"output"``, and the values.
    """

    name: str
    device: DeviceModel
    train_times: tuple[float, float]
    layout: Layout
    crossbar: Crossbar = IDEAL
    noise_scale: float = 1.0
    chip: LayerChip | None = None
    input_range: Tensor | None = None
    output_bound: Tensor | None = None
    observe: Callable[[str, Tensor], None] | None = None

    def __post_init__(self) -> None:
        # The device works these out once, behind a lock that torch.compile cannot trace (Python 3.11).
        _ = self.device.additive, self.device.drifts

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
                    f"layer {self.name or '(the model itself)'!r} has converters without a range: call "
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


class AnalogLayer(nn.Module):
    """A layer whose matrix-vector products run on a crossbar.

    Subclasses also derive from the digital layer and implement `product`. In training every forward draws the device
    afresh; in eval the layer answers as the programmed chip does.
    """

    analog: AnalogState
    weight: Tensor
    bias: Any

    def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's linear map with another weight; everything else comes from the layer."""
        raise NotImplementedError(f"{type(self).__name__} must implement product(input, weight, bias)")

    def partial(self, input: Tensor, rows: Tensor, start: int, end: int) -> Tensor:
        """The product of the inputs from ``start`` to ``end`` (in the order of ``weight.flatten(1)``) alone.

        Args:
            input: the layer's input.
            rows: the weights of these inputs, ``(out, end - start)``.
            start: the first of them.
            end: the one behind the last.
        """
        inputs = self.weight.shape[1:].numel()
        return self.product(input, functional.pad(rows, (start, inputs - end)).view(self.weight.shape), None)

    def per_output(self, values: Tensor) -> Tensor:
        """Values ``(out,)`` so that they broadcast against the output; by default its last axis holds the outputs."""
        return values

    def per_vector(self, input: Tensor) -> Tensor:
        """Largest magnitude of what is driven at once; by default of each sample, the first axis being the batch."""
        return largest_magnitude(input, tuple(range(1, input.ndim)))

    def forward(self, input: Tensor) -> Tensor:
        """The layer's answer: fresh noise in training, the programmed chip in eval."""
        state = self.analog
        if state.crossbar.converts:
            return self._converted(input)
        scale, layout = self._fresh_scale(), state.layout
        noise: Noise = _GLOBAL
        bias = self.bias
        if scale is not None:
            laid = layout.lay(self.weight, bias)
            weight, variance = noisy_weight(laid, state.device, scale, state.train_times, layout, state.crossbar)
        else:
            chip = self._chip()
            weight, variance = chip.weight_for(self.weight, bias)
            noise = chip.use_noise
        if layout.bias_rows:
            weight, bias = layout.lift(weight, self.weight.shape)
        output = self.product(input, weight, bias)
        return output if variance is None else self._with_read_noise(output, input, variance, noise)

    def _fresh_scale(self) -> float | None:
        """How much of a fresh draw this forward sees; None where the chip answers."""
        if self.training:
            return self.analog.noise_scale
        return 0.0 if self.analog.observe is not None and self.analog.chip is None else None

    def _chip(self) -> LayerChip:
        chip = self.analog.chip
        if chip is None:
            raise NotProgrammedError(
                f"layer {self.analog.name or '(the model itself)'!r} is in eval mode and no chip is programmed: call "
                "analogsim.program(analog, seed=...) first, or use the digital model for its clean answer"
            )
        return chip

    def _converted(self, input: Tensor) -> Tensor:
        """The answer through the converters."""
        state = self.analog
        scale, crossbar = self._fresh_scale(), state.crossbar
        linear = None
        noise: Noise = _GLOBAL
        if scale is not None:
            laid = state.layout.lay(self.weight, self.bias)
            array, linear = noisy_array(laid, state.device, scale, state.train_times, state.layout, crossbar)
        else:
            chip = self._chip()
            array, noise = chip.array_for(self.weight, self.bias), chip.use_noise
        full, bound = state.ranges
        if full is None:
            full = self.per_vector(input.detach())
            if state.layout.bias_rows:
                full = full.clamp(min=1.0)  # the input 1 of the bias must fit
        if state.observe is not None:
            state.observe("input", input)
        output = convert_product(
            self,
            input,
            array,
            crossbar,
            noise,
            input_range=full,
            output_bound=bound,
            noise_scale=1.0 if scale is None else scale,
            observe=state.observe,
        )
        if linear is not None:
            output = self._straight_through(output, drive(input, full, crossbar) * full, linear)
        if self.bias is None or state.layout.bias_rows:
            return output
        return output + self.per_output(self.bias).to(output.dtype)

    def _straight_through(self, output: Tensor, driven: Tensor, linear: Tensor) -> Tensor:
        """``output`` with the gradient of the plain product of the driven inputs.

        Digits of inputs and weights are steps, so that the sum of their products has no gradient of its own.
        """
        weight, bias = self.analog.layout.lift(linear, self.weight.shape)
        plain = self.product(driven, weight, bias)
        return plain + (output - plain).detach()

    def _with_read_noise(self, output: Tensor, input: Tensor, variance: Tensor, noise: Noise) -> Tensor:
        # Independent Gaussian noise of every weight in every product sums up to N(0, sum_j s_ij^2 x_j^2): exact, and
        # one product instead of one weight matrix per row. In float32, since squares leave the range of float16.
        if input.is_nested:  # torch's encoder packs sequences with padding, and knows few operations on them
            rows = zip(output.unbind(), input.unbind(), strict=True)
            return torch.nested.as_nested_tensor([self._with_read_noise(*row, variance, noise) for row in rows])
        with torch.no_grad(), torch.autocast(input.device.type, enabled=False):
            variance, of_bias = self.analog.layout.lift(variance, self.weight.shape)
            power = self.product(input.detach().to(variance.dtype).square(), variance, of_bias)
            disturbance = noise.normal_like(power).mul_(power.clamp_(min=0).sqrt_())
        return output + disturbance.to(output.dtype)

    def train(self, mode: bool = True) -> Self:
        """As in torch; a programmed chip is compared with the weights again at the next eval forward."""
        if self.analog.chip is not None:
            self.analog.chip.suspect()
        return super().train(mode)

    def extra_repr(self) -> str:
        """The digital layer's own, with the device and the state of the chip."""
        chip = self.analog.chip
        state = "no chip" if chip is None else chip.describe()
        return f"{super().extra_repr()}, device={self.analog.device.name}, {state}"


def largest_magnitude(input: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The largest magnitude over some axes, which stay with length 1; a little above 0 where all is 0."""
    return input.abs().amax(axes, keepdim=True).clamp(min=torch.finfo(input.dtype).tiny)


A = TypeVar("A", bound=type[AnalogLayer])

_analog_types: dict[type[nn.Module], type[AnalogLayer]] = {}


def register_layer(digital: type[nn.Module]) -> Callable[[A], A]:
    """Register an analog layer for a digital type. Conversion matches the exact type, never a subclass.

    Args:
        digital: the type that `convert` replaces; its instances need a Parameter ``weight`` of shape ``(out, ...)``.

    Raises:
        TypeError: the analog class is not a subclass of both `AnalogLayer` and ``digital``.
        ValueError: another analog class has the digital type already.
    """

    def add(analog: A) -> A:
        if not (issubclass(analog, AnalogLayer) and issubclass(analog, digital)):
            raise TypeError(f"register_layer: {analog.__name__} must subclass AnalogLayer and {digital.__name__}")
        if any(known is analog and kind is not digital for kind, known in _analog_types.items()):
            raise ValueError(f"register_layer: {analog.__name__} stands for another type already; subclass it")
        if _analog_types.get(digital, analog) is not analog:
            raise ValueError(f"register_layer: {digital.__name__} already becomes {_analog_types[digital].__name__}")
        _analog_types[digital] = analog
        return analog

    return add


def analog_type(module: nn.Module) -> type[AnalogLayer] | None:
    """The analog class for a digital module's exact type; None for one without, or with a ``forward`` of its own."""
    return None if "forward" in vars(module) else _analog_types.get(type(module))


def digital_type(layer: AnalogLayer) -> type[nn.Module]:
    """The digital class that an analog layer stands for."""
    return next(digital for digital, analog in _analog_types.items() if analog is type(layer))


def holds_matrix(module: nn.Module) -> bool:
    """Whether a module has Parameters of its own that could be meant for a crossbar."""
    element_wise = isinstance(module, nn.LayerNorm | nn.RMSNorm)
    return not element_wise and any(parameter.ndim >= 2 for parameter in module.parameters(recurse=False))


def why_digital(module: nn.Module) -> str:
    """Why a module with Parameters of its own stays digital when nobody asked for it."""
    if analog_type(module) is not None:
        return "no pattern matches it"
    if not holds_matrix(module):
        return "element-wise, no matrix"
    if "forward" in vars(module):
        return "its forward was replaced, which may compute something else"
    if isinstance(module, nn.MultiheadAttention):
        return "attention keeps its projections as bare Parameters"
    base = next((kind.__name__ for kind in type(module).__mro__[1:] if kind in _analog_types), None)
    if base is not None:
        return f"a subclass of {base}, which may compute something else (register_layer)"
    return f"no analog layer for {type(module).__name__} (register_layer)"


def analog_layers(model: nn.Module) -> list[AnalogLayer]:
    """The analog layers of a twin, each once.

    Raises:
        ValueError: there are none; the model is not what `convert` returned.
    """
    layers = [module for module in model.modules() if isinstance(module, AnalogLayer)]
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no analog layer: give the twin that analogsim.convert(model, ...) returned"
        )
    return layers
