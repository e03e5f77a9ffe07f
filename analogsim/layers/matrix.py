"""One weight matrix on crossbars, and how inputs go through it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from analogsim.crossbar.adapter import Adapter
from analogsim.crossbar.converters import drive
from analogsim.crossbar.crossbar import Crossbar
from analogsim.crossbar.foot import Observe, with_read_noise
from analogsim.crossbar.signal_path import Array, InputRange, block_readings, driven_product, sum_blocks
from analogsim.crossbar.stages import Stage, fold
from analogsim.device.model import DeviceModel
from analogsim.draws.noisy_weight import noisy_array, noisy_weight
from analogsim.errors import NotProgrammedError, StaleTwinError
from analogsim.layers.slot import still
from analogsim.layers.state import AnalogState, Answering, Look, MatrixChip
from analogsim.mapping.layout import Layout
from analogsim.noise.sources import GlobalNoise, Noise, Scale, StreamNoise, TrainingNoise, is_silent
from analogsim.utils.gradient_notices import tied_answer, tied_constant
from analogsim.utils.recompute import Recipe, can_seed, fresh_seed, keeping
from analogsim.utils.torch_private import is_exporting, own_parameters

_GLOBAL = GlobalNoise()


class Pausable(Protocol):
    """What follows weights through a forward."""

    paused: int


class AnalogMatrix:
    """A matrix whose products run on crossbars.

    What has one implements `product`; converters ask for the rest. In training every draw is a fresh one of the device;
    in eval the matrix is what the programmed chip holds.
    """

    autocasts: ClassVar[bool] = False
    """Whether autocast takes the product in lower precision, as it does linear maps and convolutions."""

    routings: tuple[Pausable, ...] = ()
    """What follows the weight through a forward that is running, and must not where the matrix itself is at work."""

    analog: AnalogState
    bias: Any
    training: bool

    def __delattr__(self, name: str) -> None:
        # Where an attribute comes and goes in compiled code, as in `product_as`, torch 2.11 deletes what never came.
        if name != "product" or name in self.__dict__:
            super().__delattr__(name)

    @property
    def holder(self) -> nn.Module:
        """The module in whose Parameters it lies."""
        raise NotImplementedError(f"{type(self).__name__} must say which module holds its matrix")

    def check_intact(self) -> None:
        """Raise unless weight and bias lie in the module as they did when it was converted.

        Raises:
            StaleTwinError: one was pruned or parametrized since, or made whole again.
        """
        own = own_parameters(self.holder)
        for name, whole in self.analog.entries:
            if (name in own) is not whole:
                now = ", ".join(repr(entry) for entry in own) or "no Parameters"
                raise StaleTwinError(
                    f"layer {self.analog.title!r}: its {name!r} was {'taken apart' if whole else 'made whole'} after "
                    f"convert (pruning, weight norm, a parametrization), and the module has {now} now; call "
                    "analogsim.convert again"
                )

    def check_shape(self, weight: Tensor) -> None:
        """Raise StaleTwinError unless the weights are of the shape for which crossbars were laid out."""
        if weight.shape != self.analog.shape:
            raise StaleTwinError(
                f"layer {self.analog.title!r}: its weight is {tuple(weight.shape)} and was {tuple(self.analog.shape)} "
                "at convert; call analogsim.convert again"
            )

    @property
    def told(self) -> str | None:
        """Which product it takes now, so that the inputs that it takes are remembered; None where nobody knows."""
        other = self.__dict__.get("product")
        return "its own" if other is None else getattr(other, "told", None)

    @property
    def matrix(self) -> Tensor:
        """The clean weights ``(out, ...)``, differentiable down to the Parameters."""
        return self.analog.slot.matrix(self.holder)

    @property
    def own_weight(self) -> Tensor:
        """The weight as a forward finds it in its module, not turned into a matrix."""
        self.check_intact()
        return self.analog.slot.weight_of(self.holder)

    def still(self) -> tuple[Tensor, Tensor | None]:
        """The clean weights and the bias, detached; reading them changes nothing."""
        self.check_intact()
        weight, bias = still(self.holder, self.analog.slot)
        self.check_shape(weight)
        return weight, bias

    @property
    def torch_device(self) -> torch.device:
        """Where its weights are."""
        return self.analog.slot.parameters(self.holder)[0].device

    @property
    def computed(self) -> bool:
        """Whether its weights are computed from Parameters: before the forward (weight norm, pruning) or in it."""
        slot = self.analog.slot
        return slot.computed or slot.weight not in own_parameters(self.holder)

    def put(self, matrix: Tensor) -> None:
        """Write other clean weights into the Parameters."""
        self.check_intact()
        self.analog.slot.put(self.holder, matrix)

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

    def word_lines(self, input: Tensor, start: int, end: int) -> tuple[Tensor, int]:
        """The part of an input that the rows from ``start`` to ``end`` get, and the row that it begins with.

        `partial` takes it in place of the whole input, with rows counted from where it begins. By default all of it.
        """
        return input, 0

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

    @property
    def answering(self) -> Answering | None:
        """What answers in eval in the place of the chip; None where that does, and in training."""
        return None if self.training else self.analog.answering

    def _fresh_scale(self) -> Scale | None:
        """How much of a fresh draw a forward sees; None where the chip answers."""
        if self.training:
            state = self.analog
            if torch.compiler.is_compiling() and state.compiled_scale is not None:
                return state.compiled_scale
            return state.noise_scale
        answering = self.answering
        return None if answering is None else answering.scale

    def _chip(self) -> MatrixChip:
        chip = self.analog.chip
        if chip is None:
            raise NotProgrammedError(
                f"layer {self.analog.title!r} is in eval mode and no chip is programmed: call "
                "analogsim.program(analog, seed=...) first, or use the digital model for its clean answer"
            )
        return chip


class Taking(Protocol):
    """How a product with a matrix is taken: what an `AnalogMatrix` says of itself, or a call of its own."""

    @property
    def autocasts(self) -> bool:
        """See `AnalogMatrix.autocasts`."""
        ...

    @property
    def analog(self) -> AnalogState:
        """What is known of the matrix."""
        ...

    def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `AnalogMatrix.product`."""
        ...

    @property
    def told(self) -> str | None:
        """See `AnalogMatrix.told`."""
        ...

    def partial(self, input: Tensor, rows: Tensor, start: int, end: int) -> Tensor:
        """See `AnalogMatrix.partial`."""
        ...

    def word_lines(self, input: Tensor, start: int, end: int) -> tuple[Tensor, int]:
        """See `AnalogMatrix.word_lines`."""
        ...

    def per_output(self, values: Tensor) -> Tensor:
        """See `AnalogMatrix.per_output`."""
        ...

    def per_vector(self, input: Tensor) -> Tensor:
        """See `AnalogMatrix.per_vector`."""
        ...


@contextmanager
def _paused(routings: tuple[Pausable, ...]) -> Iterator[None]:
    """Within the block, nobody takes the operations of a crossbar for a product of the forward."""
    for routing in routings:
        routing.paused += 1
    try:
        yield
    finally:
        for routing in routings:
            routing.paused -= 1


class Drawn:
    """One draw of a matrix, through which any number of inputs go: read noise and converters act on each anew.

    Args:
        owner: the matrix.
        weight: the clean weights where a forward has just computed them; else they are read from the Parameters.
    """

    def __init__(self, owner: AnalogMatrix, weight: Tensor | None = None) -> None:
        state = owner.analog
        if torch.compiler.is_compiling():
            state.trace()
            if not is_exporting():  # a program that stands by itself marks nothing
                state.traced = True  # by the graph, each time it runs: another twin may take one that was made before
        else:
            state.uses += 1
        self.owner = owner
        self._owner: AnalogMatrix | Taking = owner
        if not owner.routings:
            self._begin(owner, weight)
        else:
            with _paused(owner.routings):
                self._begin(owner, weight)

    def _find_nothing(self) -> None:
        """What a draw is that adds nothing to a weight."""
        self._array: Array | None = None
        self._linear: Tensor | None = None
        self._variance: Tensor | None = None
        self._recipe: Recipe | None = None
        self._zero: Tensor | None = None
        self._noise: Noise = _GLOBAL

    def _begin(self, owner: AnalogMatrix, computed: Tensor | None) -> None:
        state = owner.analog
        # Read once: it may be computed (weight norm), and computing it may have effects (spectral norm).
        try:
            weight, bias = owner.matrix if computed is None else computed, owner.bias
        except AttributeError:
            owner.check_intact()
            raise
        if state.watched or (bias is None and state.biased):  # else what is not as it was could not be read
            owner.check_intact()
        self._own_bias: Tensor | None = bias
        self._find_nothing()
        self._stages: tuple[Stage, ...] = state.stages
        layout = state.layout
        self._clean = weight, bias
        scale = self._scale = owner._fresh_scale()
        if state.adapter is not None:
            self._stages = (*state.stages, self._adapted(state.adapter, weight.device))
        if scale is not None:
            weight = self._draw(weight, bias, state, scale)
        else:
            weight = self._found(owner._chip(), weight, bias, state)
        if self._array is not None:
            self._weight, self._bias = weight, None if layout.bias_rows else bias
        else:
            self._weight, self._bias = layout.lift(weight, state.shape) if layout.bias_rows else (weight, bias)
        self._tie = self._zero
        if self._zero is not None and self._bias is not None:
            self._bias, self._zero = self._bias + self._zero, None  # the cheapest way to tie what comes out

    def _found(self, chip: MatrixChip, weight: Tensor, bias: Tensor | None, state: AnalogState) -> Tensor:
        """Take what a chip holds, and return what stands in the place of the weight."""
        self._noise = _use_noise(chip)
        self._zero = state.tie.zero(weight, bias if state.layout.bias_rows else None, state.fixed)
        if not state.crossbar.converts:
            weight, self._variance = chip.weight_for(weight, bias)
        else:
            self._array = chip.array_for(weight, bias)
            # Bits have no gradient, and digital parts before want one.
            if state.crossbar.bit_serial and torch.is_grad_enabled():
                self._linear = chip.weight_for(weight, bias)[0]
        self._stages = (*chip.stages, *self._stages)
        return weight

    def _adapted(self, adapter: Adapter, place: torch.device) -> Stage:
        """The adapter as it is at the age of what is drawn."""
        state = self.owner.analog
        if self._scale is None:
            return adapter.at(self.owner._chip().time, place)
        return adapter.at(adapter.age_of_draw(state.train_times, self._scale, state.title), place)

    def _draw(self, weight: Tensor, bias: Tensor | None, state: AnalogState, scale: Scale) -> Tensor:
        """Make the draw that training sees, and return what stands in the place of the weight."""
        self.owner.check_shape(weight)  # a chip knows its own
        circumstances = state.device, scale, state.train_times, state.layout, state.crossbar
        noise: TrainingNoise = _GLOBAL
        # An exact answer draws nothing, and leaves torch's generator where it is.
        if state.recompute and (self.owner.training or not is_silent(scale)) and can_seed():
            seed = fresh_seed()
            noise = StreamNoise(str(seed))
            clean = weight.detach(), None if bias is None else bias.detach()
            held = [tensor for tensor in clean if tensor is not None]
            self._recipe = Recipe(partial(_again, clean, circumstances, state.shape, seed), held, state.title)
        answering = self.owner.answering
        laid = state.layout.lay(weight, bias) if answering is None or answering.laid is None else answering.laid
        if state.crossbar.converts:
            self._array, self._linear = noisy_array(laid, *circumstances, noise)
            return weight
        noisy, self._variance = noisy_weight(laid, *circumstances, noise)
        return noisy

    def _copied(self) -> Self:
        """What ``copy.copy`` makes, which older compilers do not follow."""
        other = object.__new__(type(self))
        for name in _OF_A_DRAW:
            setattr(other, name, getattr(self, name))
        return other

    def taken_by(self, taking: Taking) -> Self:
        """The same draw with products of another form, and without a bias that is not on the crossbar."""
        other = self._copied()
        other._owner, other._own_bias = taking, None
        if not taking.analog.layout.bias_rows:
            other._bias, other._zero = None, self._tie
            other._clean = self._clean[0], None
        return other

    def clean(self, input: Tensor) -> Tensor:
        """The answer of the digital network to an input, as the layer takes it."""
        return self._owner.product(input, *self._clean)

    def on(self, chip: MatrixChip, input: Tensor) -> Tensor:
        """The answer of a chip that is not in its place to an input, through the converters that there are now."""
        other = self._copied()
        weight, bias = self._clean
        state = self._owner.analog
        other._scale, other._recipe, other._linear, other._zero, other._stages = None, None, None, None, ()
        other._noise, other._array, other._variance = chip.use_noise, None, None
        other._weight, other._bias = weight, None if state.layout.bias_rows else bias
        if state.crossbar.converts:
            other._array = chip.array_for(*self.owner.still())
        else:
            held, other._variance = chip.weight_for(*self.owner.still())
            if state.layout.bias_rows:
                held, other._bias = state.layout.lift(held, state.shape)
            other._weight = held.to(weight.dtype)
        return other._answer(input, other._weight)

    def cut(self) -> Self:
        """The same draw as a constant: no gradient reaches the Parameters."""
        other = self._copied()
        other._recipe = None
        other._weight = self._weight.detach()
        other._bias = None if self._bias is None else self._bias.detach()
        other._linear = None if self._linear is None else self._linear.detach()
        if self._array is not None:
            other._array = replace(self._array, slices=self._array.slices.detach(), scale=self._array.scale.detach())
        return other

    @property
    def staged(self) -> bool:
        """Whether anything digital stands behind it, but its bias."""
        return bool(self._stages)

    @property
    def _look(self) -> Look | None:
        """What is shown the inputs."""
        answering = self.owner.answering
        return None if answering is None else answering.look

    @property
    def plain(self) -> tuple[Tensor, Tensor | None] | None:
        """Weight and bias where a product with them is the whole answer.

        None behind converters or read noise, where a digital stage is more than a scale and an offset, and where each
        product is looked at.
        """
        if self._array is not None or self._variance is not None or self._look is not None:
            return None
        weight, bias = self._weight, self._bias
        for stage in self._stages:
            folded = fold(stage, weight, bias, on_array=bool(self.owner.analog.layout.bias_rows))
            if folded is None:
                return None
            weight, bias = folded
        return weight if self._zero is None else tied_constant(weight, self._zero), bias

    def __call__(self, input: Tensor) -> Tensor:
        """The answer to an input, as the layer takes it."""
        if not self.owner.routings:
            return self._read(input)
        with _paused(self.owner.routings):
            return self._read(input)

    def _read(self, input: Tensor) -> Tensor:
        look = self._look
        if look is not None:
            look(self, input)
        if self._zero is not None:
            return tied_answer(self._answer(input, self._weight), self._zero)
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
            self._check(input)
            return self._through_converters(input, self._array)
        bias = None if self._stages and not self.owner.analog.layout.bias_rows else self._bias
        output = self._owner.product(input, weight, bias)
        output = output if self._variance is None else self._with_read_noise(output, input, self._variance)
        return self._finished(output, input) if self._stages else output

    def _finished(self, output: Tensor, input: Tensor) -> Tensor:
        """What digital stages and the digital bias make of a product."""
        if output.is_nested:
            rows = zip(output.unbind(), input.unbind(), strict=True)
            return torch.nested.as_nested_tensor([self._finished(*row) for row in rows], layout=output.layout)
        output = self._staged(output, input)
        if self._bias is None or self.owner.analog.layout.bias_rows:  # on the array it is part of the product
            return output
        return output + self._owner.per_output(self._bias).to(output.dtype)

    def _staged(self, output: Tensor, input: Tensor) -> Tensor:
        for stage in self._stages:
            output = stage.after(output, input, self._owner)
        return output

    def _check(self, input: Tensor) -> None:
        """Raise what the digital product raises for an input that it does not take.

        The products of blocks take their part of an input, whatever there is of it. So the digital product itself is
        asked, once for each kind of input: its errors come as early and are as clear, and whatever it takes is taken.
        """
        owner = self._owner
        told = owner.told
        owner.analog.taken.ask(lambda: owner.product(input, self._weight, self._own_bias), told, input, self._weight)

    def _through_converters(self, input: Tensor, array: Array) -> Tensor:
        """The answer through the converters to an input that was checked."""
        if input.is_nested:
            rows = [self._through_converters(row, array) for row in input.unbind()]
            return torch.nested.as_nested_tensor(rows, layout=input.layout)
        return self._converted(input if input.layout is torch.strided else input.to_dense(), array)

    def _converted(self, input: Tensor, array: Array) -> Tensor:
        """The answer through the converters to a dense input."""
        owner, state = self._owner, self._owner.analog
        crossbar = state.crossbar
        full, bound = self._ranges(input)
        if state.observe is not None:
            self._show(input, state.observe)
        readings = block_readings(
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
        output = sum_blocks(readings)
        if self._linear is not None:
            output = self._straight_through(output, input, full, self._linear)
        return self._finished(output, input)

    def _ranges(self, input: Tensor) -> tuple[InputRange, Tensor | float | None]:
        """Those of the converters where the input is: they do not move with the network."""
        owner, state = self._owner, self._owner.analog
        full, bound = (value.to(input.device) if isinstance(value, Tensor) else value for value in state.ranges)
        if full is None:
            seen = input.detach()
            if not state.own_ranges:
                full = owner.per_vector(seen)
                # The input 1 of the bias must fit.
                return (full.clamp(min=1.0) if state.layout.bias_rows else full), bound
            return [self._range_of(seen, block) for block in range(len(state.layout.rows))], bound
        return (full.unbind() if isinstance(full, Tensor) and full.ndim else full), bound

    def _range_of(self, input: Tensor, block: int) -> Tensor | float:
        """The largest magnitude of what a block of rows gets, for each vector."""
        state = self._owner.analog
        inputs, (start, end) = _inputs(state), state.layout.rows[block]
        if start >= inputs:
            return 1.0  # nothing but bias rows
        largest = self._owner.per_vector(self._owner.word_lines(input, start, min(end, inputs))[0])
        return largest.clamp(min=1.0) if end > inputs else largest

    def _show(self, input: Tensor, observe: Observe) -> None:
        """Let calibration see the inputs, those of each block by themselves where its range is its own."""
        state = self._owner.analog
        if not state.own_ranges:
            observe("input", input, 0, None)
            return
        inputs = _inputs(state)
        for block, (start, end) in enumerate(state.layout.rows):
            if start < inputs:
                observe("input", self._owner.word_lines(input, start, min(end, inputs))[0], 0, block)

    def _straight_through(self, output: Tensor, input: Tensor, full: InputRange, linear: Tensor) -> Tensor:
        """An output with the gradient of the plain product of what is driven.

        Digits of inputs and weights are steps, so that the sum of their products has no gradient of its own.
        """
        owner, state = self._owner, self._owner.analog
        if isinstance(full, Sequence):
            matrix = linear.flatten(1) if linear.ndim > 1 else linear.unsqueeze(1)
            plain = driven_product(owner, input, matrix, state.layout, state.crossbar, full)
        else:
            driven = drive(input, full, state.crossbar) * full
            plain = owner.product(driven, *state.layout.lift(linear, state.shape))
        return plain + (output - plain).detach()

    def _with_read_noise(self, output: Tensor, input: Tensor, variance: Tensor) -> Tensor:
        if input.is_nested:  # torch's encoder packs sequences with padding, and knows few operations on them
            rows = zip(output.unbind(), input.unbind(), strict=True)
            return torch.nested.as_nested_tensor([self._with_read_noise(*row, variance) for row in rows])
        return with_read_noise(output, partial(self._power, input, variance), self._noise)

    def _power(self, input: Tensor, variance: Tensor) -> Tensor:
        """What variances sum up to for an input."""
        variance, of_bias = self._owner.analog.layout.lift(variance, self._owner.analog.shape)
        return self._owner.product(input.detach().to(variance.dtype).square(), variance, of_bias)


def _inputs(state: AnalogState) -> int:
    """How many rows hold weights and not a bias."""
    return max(1, state.shape[1:].numel())


_OF_A_DRAW = (
    *("owner", "_owner", "_own_bias", "_array", "_linear", "_variance", "_recipe"),
    *("_zero", "_noise", "_scale", "_weight", "_bias", "_tie", "_stages", "_clean"),
)

Circumstances = tuple[DeviceModel, Scale, tuple[float, ...], Layout, Crossbar]


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


def _use_noise(chip: MatrixChip) -> Noise:
    # What is new in every use identifies no chip, so that a compiled graph, which holds no generator, may draw it from
    # torch's own.
    return _GLOBAL if torch.compiler.is_compiling() else chip.use_noise


class LinearMatrix(AnalogMatrix):
    """A matrix ``(out, in)`` for inputs ``(..., in)``."""

    autocasts = True

    def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `AnalogMatrix.product`."""
        return functional.linear(input, weight, bias)

    def word_lines(self, input: Tensor, start: int, end: int) -> tuple[Tensor, int]:
        """See `AnalogMatrix.word_lines`."""
        return input[..., start:end], start

    def partial(self, input: Tensor, rows: Tensor, start: int, end: int) -> Tensor:
        """See `AnalogMatrix.partial`."""
        return functional.linear(input[..., start:end], rows)

    def per_vector(self, input: Tensor) -> Tensor:
        """See `AnalogMatrix.per_vector`."""
        return largest_magnitude(input, (-1,))


class ConvolutionMatrix(AnalogMatrix):
    """A matrix ``(out, in / groups, *kernel)`` for inputs ``(batch, in, *size)``; without axes of a kernel, linear."""

    autocasts = True

    def partial(self, input: Tensor, rows: Tensor, start: int, end: int) -> Tensor:
        """See `AnalogMatrix.partial`: a convolution over the channels that these rows belong to."""
        kernel = self.analog.shape[2:]
        part, begin = self.word_lines(input, start, end)
        if self.analog.slot.groups == 1 and not kernel:
            return self.product(part, rows, None)
        size = kernel.numel()
        channels = -(-end // size) - begin // size
        missing = start - begin, begin + channels * size - end
        whole = functional.pad(rows, missing) if any(missing) else rows  # padding with nothing would copy
        return self.product(part, whole.reshape(-1, channels, *kernel), None)

    def word_lines(self, input: Tensor, start: int, end: int) -> tuple[Tensor, int]:
        """See `AnalogMatrix.word_lines`: whole channels, of each group."""
        kernel, groups = self.analog.shape[2:], self.analog.slot.groups
        if groups == 1 and not kernel:
            return input[..., start:end], start
        size, axis = kernel.numel(), input.ndim - len(kernel) - 1
        first, last = start // size, -(-end // size)
        if groups == 1:
            return input.narrow(axis, first, last - first), first * size
        grouped = input.reshape(*input.shape[:axis], groups, input.shape[axis] // groups, *input.shape[axis + 1 :])
        return grouped.narrow(axis + 1, first, last - first).flatten(axis, axis + 1), first * size

    def per_output(self, values: Tensor) -> Tensor:
        """See `AnalogMatrix.per_output`."""
        axes = len(self.analog.shape) - 2
        return values.view(-1, *(1,) * axes) if axes else values

    def per_vector(self, input: Tensor) -> Tensor:
        """See `AnalogMatrix.per_vector`."""
        return largest_magnitude(input, tuple(range(1 - len(self.analog.shape), 0)))


class ModuleMatrix(ConvolutionMatrix):
    """One of several matrices of a module: linear, or with the product that its `Slot` says.

    Args:
        holder: the module.
        state: what is known of it.
    """

    def __init__(self, holder: nn.Module, state: AnalogState) -> None:
        self._holder = holder
        self.analog = state

    @property
    def holder(self) -> nn.Module:
        """See `AnalogMatrix.holder`."""
        return self._holder

    def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """See `AnalogMatrix.product`."""
        return self.analog.slot.taken(input, weight, bias)

    @property
    def bias(self) -> Tensor | None:
        """Its bias ``(out,)``, or None."""
        return self.analog.slot.bias_of(self._holder)

    @property
    def training(self) -> bool:  # type: ignore[override]
        """The mode of the module."""
        return self._holder.training


def largest_magnitude(input: Tensor, axes: tuple[int, ...]) -> Tensor:
    """The largest magnitude over some axes, which stay with length 1; a little above 0 where all is 0."""
    return input.abs().amax(axes, keepdim=True).clamp(min=torch.finfo(input.dtype).tiny)
