r"""The signal path of a product: inputs through converters, partial sums through converters, digital sum.

Everything is relative to full scale: inputs to the input range r, weights to the largest weight of their column. The
gradient of rounding is that of the identity (straight through); where a converter saturates there is none. A range
that is learned gets its gradient by the same rule, which is that of Esser et al., ICLR (2020), without their factor
1/sqrt(N Q) on it: with plain SGD give ranges a learning rate of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from analogsim.crossbar import Crossbar
from analogsim.device import DeviceModel, Written
from analogsim.layout import Layout
from analogsim.noise import Noise


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
        slices: weights relative to the largest, ``(slices, out, inputs + bias rows)``.
        significance: share of each slice in the full scale.
        scale: the weight at full scale, digital gain included, ``(out, row blocks)``.
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

    def to(self, device: torch.device) -> Array:
        """The same array on another torch device."""
        variances = None if self.variances is None else self.variances.to(device)
        mismatch = None if self.mismatch is None else (self.mismatch[0].to(device), self.mismatch[1].to(device))
        moved = replace(self, slices=self.slices.to(device), scale=self.scale.to(device), variances=variances)
        return replace(moved, mismatch=mismatch)

    def with_mismatch(self, crossbar: Crossbar, noise: Noise, scale: float | Tensor = 1.0) -> Array:
        """The same array with output converters that differ from one another.

        Args:
            crossbar: says by how much.
            noise: where the converters come from.
            scale: factor on how much.
        """
        if not crossbar.mismatched or (not isinstance(scale, Tensor) and scale == 0):
            return self
        like = self.scale.expand(len(self.significance), *self.scale.shape)
        gain = noise.normal_like(like, crossbar.gain_mismatch) * scale
        return replace(self, mismatch=(gain, noise.normal_like(like, crossbar.offset_mismatch) * scale))


def array_of(
    slices: Tensor,
    variances: Tensor | None,
    written: Written,
    layout: Layout,
    device: DeviceModel,
    gain: Tensor | None,
    dtype: torch.dtype,
) -> Array:
    """The array as converters see it, of slices (and variances) in units of the weight, ``(slices, out, ...)``.

    Args:
        slices: the weights that each slice stands for at full scale, wires included.
        variances: of their white read noise, or None.
        written: what is in the cells; its largest weights set the full scale.
        layout: the blocks.
        device: its mapping says what each slice counts.
        gain: digital gain on the outputs, or None.
        dtype: of the products.
    """
    largest = written.largest
    relative = (slices / largest).flatten(2) if slices.ndim > 2 else (slices / largest).unsqueeze(2)
    if variances is not None:
        variances = (variances / largest.square()).reshape(relative.shape)
    if largest.ndim == 0:
        scale = largest.expand(slices.shape[1], len(layout.rows))
    else:
        columns = largest.flatten(1) if largest.ndim > 1 else largest.unsqueeze(1)
        starts = [start for start, _ in layout.rows] if columns.shape[1] > 1 else [0] * len(layout.rows)
        scale = torch.stack([columns[:, start] for start in starts], 1)  # an index by a list would wait for a GPU
    if gain is not None:
        scale = scale * gain
    return Array(relative.to(dtype), device.significance, scale, layout, variances)


def _code(value: Tensor, lowest: int, highest: int) -> Tensor:
    """The nearest code, with the gradient of the identity up to a quarter of a step beyond the last one.

    The margin lets the largest input of a vector, which sets the range, keep its gradient whatever it rounds to.
    """
    within = value.clamp(lowest - 0.25, highest + 0.25)
    return within + (within.round() - within).detach()


def largest_code(crossbar: Crossbar) -> int:
    """The digital value of the input converter at full scale."""
    bits = crossbar.dac_bits or 0
    return (1 << bits) - 1 if crossbar.dac == "unsigned" else (1 << (bits - 1)) - 1


def drive(input: Tensor, input_range: Tensor | float, crossbar: Crossbar) -> Tensor:
    """What the word lines get for inputs: in [-1, 1], whole steps of the converter."""
    relative = input / input_range
    if crossbar.dac_bits is None:
        return relative
    codes = largest_code(crossbar)
    return _code(relative * codes, 0 if crossbar.dac == "unsigned" else -codes, codes) / codes


def read_out(current: Tensor, bound: Tensor | float | None, bits: int | None) -> Tensor:
    """What the converter at the foot of a bit line says."""
    if bound is None:
        return current
    if bits is None:
        if isinstance(bound, Tensor):
            return torch.minimum(torch.maximum(current, -bound), bound)
        return current.clamp(-bound, bound)
    codes = (1 << (bits - 1)) - 1
    return _code(current * (codes / bound), -codes, codes) * (bound / codes)


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
    noise_scale: float | Tensor = 1.0,
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
        observe: is shown what the bit lines carry, as ``"output"``.
    """
    driven, one = drive(input, input_range, crossbar), drive(input.new_ones(()), input_range, crossbar)
    if crossbar.bit_serial:
        pairs = zip(_bits_of(driven, crossbar), _bits_of(one, crossbar), strict=True)
        planes = [(factor, plane, bias) for (factor, plane), (_, bias) in pairs]
    else:
        planes = [(1.0, driven, one)]
    total: Tensor | None = None
    kind = input.dtype
    for block, (start, end) in enumerate(array.layout.rows):
        partial: Tensor | None = None
        for place, share in enumerate(array.significance):
            for factor, plane, bias in planes:
                current = _current(layer, plane, bias, array, place, start, end, noise)
                kind = current.dtype  # under autocast not the input's
                if observe is not None:
                    observe("output", current)
                if crossbar.output_noise and (isinstance(noise_scale, Tensor) or noise_scale):
                    current = current + noise.normal_like(current, crossbar.output_noise).mul_(noise_scale)
                if array.mismatch is not None:
                    gain, offset = (layer.per_output(error[place, :, block]) for error in array.mismatch)
                    current = (current * (1 + gain) + offset).to(kind)
                said = read_out(current, output_bound, crossbar.adc_bits)
                weighed = said if share * factor == 1 else said * (share * factor)
                partial = weighed if partial is None else partial + weighed
        if partial is None:  # pragma: no cover - there is always a slice and a plane
            raise RuntimeError("no slices")
        scaled = partial * layer.per_output(array.scale[:, block])
        total = scaled if total is None else total + scaled
    if total is None:  # pragma: no cover - there is always a block
        raise RuntimeError("no blocks")
    return (total * input_range).to(kind)


def _current(
    layer: Product, driven: Tensor, one: Tensor, array: Array, place: int, start: int, end: int, noise: Noise
) -> Tensor:
    """What the bit lines of one block of rows carry, read noise included."""
    current = _summed(layer, driven, one, array.slices[place], array.layout, start, end)
    if array.variances is None:
        return current
    # In float32 at least: squares leave the range of float16.
    with torch.no_grad(), torch.autocast(driven.device.type, enabled=False):
        variances = array.variances[place]
        squares, of_one = (values.detach().to(variances.dtype).square() for values in (driven, one))
        power = _summed(layer, squares, of_one, variances, array.layout, start, end)
        disturbance = noise.normal_like(power) * power.clamp(min=0).sqrt()
    return current + disturbance.to(current.dtype)


def _summed(
    layer: Product, driven: Tensor, one: Tensor, matrix: Tensor, layout: Layout, start: int, end: int
) -> Tensor:
    inputs = matrix.shape[1] - layout.bias_rows
    last = min(end, inputs)
    if start < last:
        current = layer.partial(driven, matrix[:, start:last], start, last)
    else:  # nothing but bias rows; the output has its shape from the inputs all the same
        current = layer.partial(driven, torch.zeros_like(matrix[:, :1]), 0, 1)
    if end <= inputs:
        return current
    return current + one * layer.per_output(matrix[:, max(start, inputs) : end].sum(1))
