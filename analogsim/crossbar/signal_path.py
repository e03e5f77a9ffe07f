"""The signal path of a product: inputs through converters, partial sums through converters, digital sum.

To converters everything is relative to full scale: inputs to the input range r, weights to the largest weight of their
column. The product is taken in units of the weight, and what it is relative to goes into a factor on its outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from typing import Protocol, cast

import torch
from torch import Tensor

from analogsim.crossbar.converters import (
    _alone,
    _by_hand,
    _Convert,
    _OfRange,
    _slope,
    drive,
    largest_code,
    read_out,
    steps_of,
)
from analogsim.crossbar.crossbar import Crossbar
from analogsim.device.model import DeviceModel
from analogsim.mapping.layout import Layout
from analogsim.noise.sources import Noise, Scale, is_silent
from analogsim.utils.recompute import keeping_source


class Product(Protocol):
    """What the signal path asks of a layer."""

    def partial(self, input: Tensor, rows: Tensor, start: int, end: int) -> Tensor:
        """The product of inputs ``start`` to ``end`` with their rows ``(out, end - start)`` of the matrix."""
        ...

    def per_output(self, values: Tensor) -> Tensor:
        """Values ``(out,)`` so that they broadcast against the layer's output."""
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
        mismatch: error of the gain and offset of each output converter, two of ``(slices, out, row blocks)``; None if
            all are alike.
    """

    slices: Tensor
    significance: tuple[float, ...]
    scale: Tensor
    layout: Layout
    variances: Tensor | None = None
    mismatch: tuple[Tensor, Tensor] | None = None

    def slice(self, place: int) -> Tensor:
        """The weights of one slice, ``(out, inputs + bias rows)``."""
        # Backward of an index makes zeros for all slices and fills one in.
        return self.slices.squeeze(0) if len(self.slices) == 1 else self.slices[place]

    def to(self, device: torch.device) -> Array:
        """The same array on another torch device."""
        variances = None if self.variances is None else self.variances.to(device)
        mismatch = None if self.mismatch is None else (self.mismatch[0].to(device), self.mismatch[1].to(device))
        moved = replace(self, slices=self.slices.to(device), scale=self.scale.to(device), variances=variances)
        return replace(moved, mismatch=mismatch)

    def with_mismatch(self, crossbar: Crossbar, noise: Noise, scale: Scale = 1.0) -> Array:
        """The same array with output converters that differ from one another.

        Args:
            crossbar: says by how much.
            noise: where the converters come from.
            scale: factor on how much.
        """
        if not crossbar.mismatched or is_silent(scale):
            return self
        like = self.scale.expand(len(self.significance), *self.scale.shape)
        gain = noise.normal_like(like, crossbar.gain_mismatch) * scale
        return replace(self, mismatch=(gain, noise.normal_like(like, crossbar.offset_mismatch) * scale))


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


def convert_product(
    layer: Product,
    input: Tensor,
    array: Array,
    crossbar: Crossbar,
    noise: Noise,
    *,
    input_range: Tensor | float,
    output_bound: Tensor | float | None,
    noise_scale: Scale = 1.0,
    recompute: bool = False,
    observe: Callable[[str, Tensor], None] | None = None,
) -> Tensor:
    """A layer's product through its converters, without its digital bias.

    Args:
        layer: takes partial products.
        input: the layer's input.
        array: what is on the crossbars.
        crossbar: the converters.
        noise: where read and output noise come from.
        input_range: r.
        output_bound: b; None for none.
        noise_scale: factor on the output noise.
        recompute: whether backward makes the codes of the inputs again instead of finding them kept.
        observe: is shown what the bit lines carry, as ``"output"``.
    """
    full, ones = input_range, input.new_ones(()) if array.layout.bias_rows else None
    slopes = None
    if isinstance(full, Tensor) and not input.requires_grad and _alone(full, crossbar):
        # Nobody but the range needs the gradient of the first layer's inputs. A product with their slope is cheaper: of
        # a convolution's two gradients, that of its input is the dear one.
        slopes = _slope(input, full, crossbar), None if ones is None else _slope(ones, full, crossbar)
        full = full.detach()
    driven = drive(input, full, crossbar)
    one = None if ones is None else drive(ones, full, crossbar)
    if crossbar.bit_serial:
        bits = _bits_of(driven, crossbar)
        biases = repeat(None) if one is None else (plane for _, plane in _bits_of(one, crossbar))
        planes = [(factor, plane, bias) for (factor, plane), bias in zip(bits, biases, strict=False)]
    else:
        planes = [(1.0, driven, one)]

    def keeping_input() -> AbstractContextManager[None]:
        if not recompute or crossbar.bit_serial:
            return nullcontext()
        fixed = full.detach() if isinstance(full, Tensor) else full
        return keeping_source(driven, input.detach(), partial(drive, input_range=fixed, crossbar=crossbar))

    # A range of all inputs goes into the scale of the outputs, one of each vector onto the sum.
    common = not isinstance(input_range, Tensor) or input_range.ndim == 0
    line = _Line(layer, array, crossbar, noise, output_bound, noise_scale, input_range if common else 1.0)
    total: Tensor | None = None
    for block, (start, end) in enumerate(array.layout.rows):
        for place, share in enumerate(array.significance):
            for factor, plane, bias in planes:
                with keeping_input():
                    current = _current(layer, plane, bias, array, place, start, end, noise)
                if slopes is not None:
                    with torch.no_grad():
                        slope = _summed(layer, *slopes, array.slice(place), array.layout, start, end)
                    current = _OfRange.apply(current, input_range, slope)
                if observe is not None:
                    observe("output", current / layer.per_output(array.scale[:, block]))
                said = line.read(current, place, block, share * factor)
                total = said if total is None else total + said
    if total is None:  # pragma: no cover - there is always a block
        raise RuntimeError("no blocks")
    return total if common else (total * input_range).to(total.dtype)


@dataclass(frozen=True)
class _Line:
    """What happens at the foot of the bit lines; see `convert_product`."""

    layer: Product
    array: Array
    crossbar: Crossbar
    noise: Noise
    bound: Tensor | float | None
    noise_scale: Scale
    input_range: Tensor | float

    def read(self, current: Tensor, place: int, block: int, share: float) -> Tensor:
        """What currents in units of the weight, of one slice and block, count in the output."""
        crossbar, bits = self.crossbar, self.crossbar.adc_bits
        kind = current.dtype  # under autocast not the input's
        noisy = crossbar.output_noise and not is_silent(self.noise_scale)
        mismatch = self.array.mismatch
        if self.bound is None and not noisy and mismatch is None:
            return (current * self.input_range * share if share != 1 else current * self.input_range).to(kind)
        steps = steps_of(bits, self.bound)
        # The vector first: two scalars of float32 would make its product in a network of float64 one of float32.
        step = self.layer.per_output(self.array.scale[:, block])
        if self.bound is not None:
            step = step * (self.bound / (1 if bits is None else (1 << (bits - 1)) - 1))
        unit = step.reciprocal().clamp(max=torch.finfo(step.dtype).max)  # a column may hold denormal numbers
        disturbance = None
        if noisy:
            size = crossbar.output_noise * self.noise_scale * steps
            disturbance = self.noise.normal_like(current).mul_(size)
        if mismatch is not None:
            gain, offset = (self.layer.per_output(error[place, :, block]) for error in mismatch)
            unit = unit * (1 + gain)
            disturbance = offset * steps if disturbance is None else disturbance * (1 + gain) + offset * steps
        step = step if share == 1 else step * share
        if bits is not None and self.bound is not None and _by_hand():
            added = () if disturbance is None else (disturbance,)
            codes = (1 << (bits - 1)) - 1
            return cast(Tensor, _Convert.apply(current, unit, added, step, self.input_range, codes))
        value = current * unit if disturbance is None else current * unit + disturbance
        return (read_out(value, bits, self.bound) * (step * self.input_range)).to(kind)


def _current(
    layer: Product, driven: Tensor, one: Tensor | None, array: Array, place: int, start: int, end: int, noise: Noise
) -> Tensor:
    """What the bit lines of one block of rows carry, read noise included."""
    current = _summed(layer, driven, one, array.slice(place), array.layout, start, end)
    if array.variances is None:
        return current
    # In float32 at least: squares leave the range of float16.
    with torch.no_grad(), torch.autocast(driven.device.type, enabled=False):
        variances = array.variances[place]
        squares = driven.detach().to(variances.dtype).square()
        of_one = None if one is None else one.detach().to(variances.dtype).square()
        power = _summed(layer, squares, of_one, variances, array.layout, start, end)
        disturbance = noise.normal_like(power) * power.clamp(min=0).sqrt()
    return current + disturbance.to(current.dtype)


def _summed(
    layer: Product, driven: Tensor, one: Tensor | None, matrix: Tensor, layout: Layout, start: int, end: int
) -> Tensor:
    inputs = matrix.shape[1] - layout.bias_rows
    last = min(end, inputs)
    if start < last:
        current = layer.partial(driven, matrix[:, start:last], start, last)
    else:  # nothing but bias rows; the output has its shape from the inputs all the same
        current = layer.partial(driven, torch.zeros_like(matrix[:, :1]), 0, 1)
    if end <= inputs or one is None:
        return current
    return current + one * layer.per_output(matrix[:, max(start, inputs) : end].sum(1))
