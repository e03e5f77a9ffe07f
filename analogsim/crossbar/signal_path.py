"""The signal path of a product: inputs through converters, partial sums through converters, digital sum.

To converters everything is relative to full scale: inputs to the input range r, weights to the largest weight of their
column. The product is taken in units of the weight, and what it is relative to goes into a factor on its outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import repeat
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional

from analogsim.crossbar.converters import OfRange, drive, gets_gradient_alone, largest_code, slope_of
from analogsim.crossbar.crossbar import Crossbar
from analogsim.crossbar.foot import Foot, Observe, draw_converter_errors
from analogsim.device.model import DeviceModel
from analogsim.errors import OperationError
from analogsim.mapping.layout import Layout
from analogsim.noise.sources import Noise, Scale
from analogsim.utils.recompute import keeping_source


class Product(Protocol):
    """What the signal path asks of a layer."""

    def partial(self, input: Tensor, rows: Tensor, start: int, end: int) -> Tensor:
        """The product of inputs ``start`` to ``end`` with their rows ``(out, end - start)`` of the matrix."""
        ...

    def word_lines(self, input: Tensor, start: int, end: int) -> tuple[Tensor, int]:
        """The part of an input that the rows from ``start`` to ``end`` get, and the row that it begins with.

        `partial` takes it in place of the whole input, with rows counted from where it begins.
        """
        ...

    def per_output(self, values: Tensor) -> Tensor:
        """Values ``(out,)`` so that they broadcast against the layer's output."""
        ...


InputRange = Tensor | float | Sequence[Tensor | float]
"""r: one for all blocks of rows, or a sequence with that of each; a scalar, or one of each vector, shaped to broadcast
against input and output."""


class Table(Protocol):
    """What the signal path asks of a layer that is looked up."""

    def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The columns of ``weight`` that indices ``(...)`` name, as ``(..., features)``."""
        ...


@dataclass(frozen=True)
class Array:
    """What the converters of a layer see.

    Args:
        slices: the weights that each slice stands for at full scale, digital gain included,
            ``(slices, out, inputs + bias rows)``.
        significance: share of each slice in the full scale.
        scale: the weight at full scale, digital gain included, ``(out, row blocks)``; to a converter all is relative
            to it.
        layout: the blocks.
        variances: of white read noise, like ``slices``; None without.
        converter_errors: of each output converter by name, ``(slices, out, row blocks)`` each; empty if all are alike.
    """

    slices: Tensor
    significance: tuple[float, ...]
    scale: Tensor
    layout: Layout
    variances: Tensor | None = None
    converter_errors: Mapping[str, Tensor] = field(default_factory=dict)

    def slice(self, place: int) -> Tensor:
        """The weights of one slice, ``(out, inputs + bias rows)``."""
        # Backward of an index makes zeros for all slices and fills one in.
        return self.slices.squeeze(0) if len(self.slices) == 1 else self.slices[place]

    def to(self, device: torch.device) -> Array:
        """The same array on another torch device."""
        return replace(
            self,
            slices=self.slices.to(device),
            scale=self.scale.to(device),
            variances=None if self.variances is None else self.variances.to(device),
            converter_errors={name: error.to(device) for name, error in self.converter_errors.items()},
        )

    def with_gain(self, gain: Tensor) -> Array:
        """The same array with a digital gain on its outputs, scalar or ``(out, row blocks)``."""
        spread = gain if gain.ndim == 0 else self.layout.spread(gain, self.slices[0])
        variances = None if self.variances is None else self.variances * spread.square()
        return replace(self, slices=self.slices * spread, scale=self.scale * gain, variances=variances)

    def with_converter_errors(self, crossbar: Crossbar, noise: Noise, scale: Scale = 1.0) -> Array:
        """The same array with output converters that differ from one another; see `draw_converter_errors`."""
        like = self.scale.expand(len(self.significance), *self.scale.shape)
        errors = draw_converter_errors(crossbar, like, noise, scale)
        return replace(self, converter_errors=errors) if errors else self


def array_of(
    slices: Tensor,
    variances: Tensor | None,
    largest: Tensor,
    layout: Layout,
    device: DeviceModel,
    gain: Tensor | None,
    dtype: torch.dtype,
) -> Array:
    """The array as converters see it.

    Args:
        slices: the weights that each slice stands for, wires and digital gain included, ``(slices, out, ...)``.
        variances: of their white read noise, or None.
        largest: the weight at full scale, as `Mapping.largest` gives it.
        layout: the blocks.
        device: its mapping says what each slice counts.
        gain: digital gain on the outputs, scalar or ``(out, row blocks)``; or None.
        dtype: of the products.
    """

    def flat(values: Tensor) -> Tensor:
        return values.flatten(2) if values.ndim > 2 else values.unsqueeze(2)

    if largest.ndim == 0:
        scale = largest.expand(slices.shape[1], len(layout.rows))
    else:
        columns = largest.flatten(1) if largest.ndim > 1 else largest.unsqueeze(1)
        starts = [start for start, _ in layout.rows] if columns.shape[1] > 1 else [0] * len(layout.rows)
        scale = torch.stack([columns[:, start] for start in starts], 1)  # an index by a list would wait for a GPU
    if gain is not None:
        scale = scale * gain
    return Array(
        flat(slices).to(dtype), device.significance, scale, layout, None if variances is None else flat(variances)
    )


def _bits_of(driven: Tensor, crossbar: Crossbar) -> Iterator[tuple[float, Tensor]]:
    """The bits of the magnitude one after the other, with their share in the full scale; the sign rides along."""
    codes = largest_code(crossbar)
    code = (driven.detach() * codes).round()
    magnitude, sign = code.abs().to(torch.int32), code.sign()
    for bit in range(codes.bit_length()):
        yield 2**bit / codes, sign * ((magnitude >> bit) & 1)


def sum_blocks(readings: Iterator[Tensor]) -> Tensor:
    """A layer's product without its digital bias: what all blocks of rows read, see `block_readings`, added up."""
    total = next(readings)  # there is always a block
    for reading in readings:
        total = total + reading
    return total


def block_readings(
    layer: Product,
    input: Tensor,
    array: Array,
    crossbar: Crossbar,
    noise: Noise,
    *,
    input_range: InputRange,
    output_bound: Tensor | float | None,
    noise_scale: Scale = 1.0,
    recompute: bool = False,
    observe: Observe | None = None,
) -> Iterator[Tensor]:
    """What each block of rows reads, one after the other: the numbers that a layer's digital sum is made of.

    Each is shaped as the output and in its unit, with what its slices and the bits of the inputs count added up: that
    part of the answer which comes from the inputs of the block (and its bias rows). Read and output noise are drawn as
    the readings are asked for.

    Args:
        layer: takes partial products.
        input: the layer's input.
        array: what is on the crossbars.
        crossbar: the converters.
        noise: where read and output noise come from.
        input_range: r, see `InputRange`.
        output_bound: b; one for all, or ``(slices, row blocks)``; None for none.
        noise_scale: factor on the output noise.
        recompute: whether backward makes the codes of the inputs again instead of finding them kept.
        observe: is shown what the bit lines carry, as ``"output"``.

    Example:
        What the columns of each crossbar say to a few vectors ``(vectors, in)``, as ``(vectors, out, row blocks)``::

            torch.stack(list(block_readings(matrix, vectors, array, crossbar, noise, ...)), -1)
    """
    layout, inputs = array.layout, array.slices.shape[2] - array.layout.bias_rows
    own = isinstance(input_range, Sequence)
    lines = None if own else _word_lines(input, 0, cast(Any, input_range), bool(layout.bias_rows), crossbar, recompute)
    for block, (start, end) in enumerate(layout.rows):
        full = input_range[block] if isinstance(input_range, Sequence) else input_range
        if own or lines is None:
            lines = _word_lines(*_part_of(layer, input, inputs, start, end), full, end > inputs, crossbar, recompute)
        # A range of all inputs goes into the scale of the outputs; one of each vector onto the sum, unless outputs lie
        # along an axis of their own, and it makes a small tensor with their scale.
        common = not isinstance(full, Tensor) or full.ndim == 0 or layer.per_output(array.scale[:, block]).ndim > 1
        counts = full if common else 1.0
        foot = Foot(
            array.scale, array.converter_errors, crossbar, noise, output_bound, noise_scale, counts, observe=observe
        )
        reading = _read_block(layer, lines, array, foot, block)
        yield reading if common else (reading * full).to(reading.dtype)


def _read_block(layer: Product, lines: _WordLines, array: Array, foot: Foot, block: int) -> Tensor:
    """What all slices and bits of the inputs of one block of rows count together."""
    layout, (start, end) = array.layout, array.layout.rows[block]
    of_outputs = partial(_of_block, layer, block)
    reading: Tensor | None = None
    for place, share in enumerate(array.significance):
        for factor, plane, bias in lines.planes:
            current = lines.current(layer, plane, bias, array.slice(place), layout, start, end)
            power = None
            if array.variances is not None:
                power = partial(lines.power, layer, plane, bias, array.variances[place], layout, start, end)
            said = foot.read(current, power, of_outputs, place=place, block=block, share=share * factor)
            reading = said if reading is None else reading + said
    if reading is None:  # pragma: no cover - there is always a slice, and a bit
        raise OperationError("no slices")
    return reading


@dataclass(frozen=True)
class _WordLines:
    """What the word lines get during one product.

    Args:
        planes: what is driven at once, with its share in the full scale: inputs, and the 1 of the bias rows.
        begin: the row that the first of these inputs is driven on.
        kept: gives the context in which backward keeps the input, and makes what is driven again.
        input_range: r, a scalar that gets its gradient from the slopes; None where it gets it with the product's.
        slopes: how much what inputs and bias rows get changes with it.
    """

    planes: list[tuple[float, Tensor, Tensor | None]]
    begin: int
    kept: Callable[[], AbstractContextManager[None]]
    input_range: Tensor | None
    slopes: tuple[Tensor, Tensor | None] | None

    def current(
        self, layer: Product, driven: Tensor, one: Tensor | None, matrix: Tensor, layout: Layout, start: int, end: int
    ) -> Tensor:
        """What the bit lines of one block of rows carry without noise, in units of the weight."""
        with self.kept():
            current = _summed(layer, driven, one, matrix, layout, start, end, self.begin)
        if self.slopes is None:
            return current
        with torch.no_grad():
            slope = _summed(layer, *self.slopes, matrix, layout, start, end, self.begin)
        return cast(Tensor, OfRange.apply(current, self.input_range, slope))

    def power(
        self,
        layer: Product,
        driven: Tensor,
        one: Tensor | None,
        variances: Tensor,
        layout: Layout,
        start: int,
        end: int,
    ) -> Tensor:
        """What variances of read noise sum up to in one block of rows."""
        squares = driven.detach().to(variances.dtype).square()
        of_one = None if one is None else one.detach().to(variances.dtype).square()
        return _summed(layer, squares, of_one, variances, layout, start, end, self.begin)


def _part_of(layer: Product, input: Tensor, inputs: int, start: int, end: int) -> tuple[Tensor, int]:
    """What a block of rows gets; one of nothing but bias rows has the shape of its answer from the first input."""
    return layer.word_lines(input, start, min(end, inputs)) if start < inputs else layer.word_lines(input, 0, 1)


def _word_lines(
    input: Tensor, begin: int, input_range: Tensor | float, with_bias: bool, crossbar: Crossbar, recompute: bool
) -> _WordLines:
    full, ones = input_range, input.new_ones(()) if with_bias else None
    learned, slopes = None, None
    if isinstance(full, Tensor) and not input.requires_grad and gets_gradient_alone(full, crossbar):
        # Nobody but the range needs the gradient of the first layer's inputs. A product with their slope is cheaper: of
        # a convolution's two gradients, that of its input is the dear one.
        slopes = slope_of(input, full, crossbar), None if ones is None else slope_of(ones, full, crossbar)
        learned, full = full, full.detach()
    driven = drive(input, full, crossbar)
    planes = _planes(driven, None if ones is None else drive(ones, full, crossbar), crossbar)
    kept = partial(_keeping, input, driven, full, crossbar) if recompute and not crossbar.bit_serial else nullcontext
    return _WordLines(planes, begin, kept, learned, slopes)


def _planes(driven: Tensor, one: Tensor | None, crossbar: Crossbar) -> list[tuple[float, Tensor, Tensor | None]]:
    if not crossbar.bit_serial:
        return [(1.0, driven, one)]
    bits = _bits_of(driven, crossbar)
    biases = repeat(None) if one is None else (plane for _, plane in _bits_of(one, crossbar))
    return [(factor, plane, bias) for (factor, plane), bias in zip(bits, biases, strict=False)]


def _keeping(input: Tensor, driven: Tensor, full: Tensor | float, crossbar: Crossbar) -> AbstractContextManager[None]:
    """Where what is driven would be kept for backward, keep the input, and make it again."""
    fixed = full.detach() if isinstance(full, Tensor) else full
    return keeping_source(driven, input.detach(), partial(drive, input_range=fixed, crossbar=crossbar))


def _of_block(layer: Product, block: int, values: Tensor) -> Tensor:
    """Those of values ``(out, row blocks)`` that belong to a block, so that they broadcast to the outputs."""
    return layer.per_output(values[:, block])


def _summed(
    layer: Product,
    driven: Tensor,
    one: Tensor | None,
    matrix: Tensor,
    layout: Layout,
    start: int,
    end: int,
    begin: int = 0,
) -> Tensor:
    inputs = matrix.shape[1] - layout.bias_rows
    last = min(end, inputs)
    if start < last:
        current = layer.partial(driven, matrix[:, start:last], start - begin, last - begin)
    else:  # nothing but bias rows; the output has its shape from the inputs all the same
        current = layer.partial(driven, torch.zeros_like(matrix[:, :1]), 0, 1)
    if end <= inputs or one is None:
        return current
    return current + one * layer.per_output(matrix[:, max(start, inputs) : end].sum(1))


def driven_product(
    layer: Product, input: Tensor, matrix: Tensor, layout: Layout, crossbar: Crossbar, ranges: Sequence[Tensor | float]
) -> Tensor:
    """The plain product of what the word lines get, where each block of rows has a range of its own.

    Args:
        layer: takes partial products.
        input: the layer's input.
        matrix: the weights ``(out, inputs + bias rows)``.
        layout: the blocks.
        crossbar: the input converters.
        ranges: r of each block.
    """
    inputs, one = matrix.shape[1] - layout.bias_rows, input.new_ones(())
    total: Tensor | None = None
    for (start, end), full in zip(layout.rows, ranges, strict=True):
        part, begin = _part_of(layer, input, inputs, start, end)
        driven = drive(part, full, crossbar) * full
        current = _summed(layer, driven, one, matrix, layout, start, end, begin)
        total = current if total is None else total + current
    if total is None:  # pragma: no cover - there is always a block
        raise OperationError("no blocks")
    return total


def convert_lookup(
    table: Table,
    index: Tensor,
    array: Array,
    crossbar: Crossbar,
    noise: Noise,
    *,
    output_bound: Tensor | float | None,
    noise_scale: Scale = 1.0,
    observe: Observe | None = None,
) -> Tensor:
    """Vectors that are read from a table through the converters, one word line at full scale at a time.

    Args:
        table: takes look-ups.
        index: which entries, ``(...)``; each is read from the block of rows that it lies in. Rows of bias are not
            driven.
        array: what is on the crossbars.
        crossbar: the converters.
        noise: where read and output noise come from.
        output_bound: b; one for all, or ``(slices, row blocks)``; None for none.
        noise_scale: factor on the output noise.
        observe: is shown what the bit lines carry, as ``"output"``.

    Returns:
        The vectors, ``(..., features)``.
    """
    rows, entries = array.layout.rows, array.slices.shape[2] - array.layout.bias_rows
    # Block k ends at entry rows * k // blocks (`cut`); a tensor of the ends would have to be copied to a GPU.
    blocks = ((index.long() + 1) * len(rows) - 1) // rows[-1][1]
    scale = functional.embedding(blocks, array.scale.t())

    def of_outputs(values: Tensor) -> Tensor:
        return scale if values is array.scale else functional.embedding(blocks, values.t())

    foot = Foot(array.scale, array.converter_errors, crossbar, noise, output_bound, noise_scale, observe=observe)
    total: Tensor | None = None
    for place, share in enumerate(array.significance):
        current = table.product(index, array.slice(place)[:, :entries], None)
        power = None
        if array.variances is not None:
            power = partial(table.product, index, array.variances[place, :, :entries], None)
        said = foot.read(current, power, of_outputs, place=place, share=share)
        total = said if total is None else total + said
    if total is None:  # pragma: no cover - there is always a slice
        raise OperationError("no slices")
    return total
