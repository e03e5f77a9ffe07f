r"""What the columns of crossbars read when a few fixed vectors are driven: the measurement behind digital gains.

Vectors :math:`x_k` of signs are driven on the word lines of all blocks, right after programming and again later; each
column of each block answers :math:`y_k`. The clean weights would give :math:`y^*_k = \sum_j w_j x_{kj}`, which whoever
programs the chip knows. A measurement is the one number

.. math:: \frac{1}{K} \sum_k y^*_k y_k

for each column of each block. The vectors are columns of a Hadamard matrix with random signs, so that over all K of
them no cell speaks for another: the sum is :math:`\sum_j w_j w_j(t)`, as if every cell had been read by itself, and a
constant offset of a converter is not in it. K is the number of word lines, made a power of two, and not below 256, or
1,024 without converters. It is linear in every reading: noise makes it scatter, and never larger.

What is kept: the first measurement, one number for each column of each block. What belongs to the network and is the
same for all chips of it: the weights, or instead of them the :math:`y^*_k`, K numbers for each column.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from analogsim.crossbar.converters import largest_code
from analogsim.crossbar.crossbar import Crossbar
from analogsim.crossbar.signal_path import Array, block_readings
from analogsim.mapping.layout import Layout
from analogsim.noise.sources import KeyedNoise, Noise

LEAST_VECTORS = 256
"""So many also for a small block, so that noise of reading averages out; without converters `MOST_VECTORS`."""
MOST_VECTORS = 1024
"""Of a block with more word lines a fixed random choice of the vectors is driven through the converters."""
_HEADROOM = 0.8
"""Share of a converter's range that the largest current of a clean array is to take."""
_STANDS_OUT = 5.0
"""From how many standard errors on a column's measurement says something of the column itself."""
_AT_ONCE = 2**22
"""How many numbers a step of a measurement may hold."""


@dataclass(frozen=True)
class Measurement:
    """What the columns of all blocks say.

    Args:
        sums: the measurement, ``(out, row blocks)``, in units of the weight squared.
        error: its standard error as the scatter of the answers tells it, like ``sums``; infinite for columns of zeros.
    """

    sums: Tensor
    error: Tensor

    def beside(self, reference: Tensor, layout: Layout) -> Tensor:
        """The sums, those that do not stand out of their scatter replaced by what the rest of their crossbar says.

        A column that reads little but noise, as a dead one or one of tiny weights does, would get a gain at random; so
        it is taken to have faded as its crossbar did.

        Args:
            reference: the sums right after programming.
            layout: the blocks.
        """
        before = layout.block_sums(reference)
        left = torch.where(before > 0, layout.block_sums(self.sums) / before, 0.0)
        return torch.where(self.sums > _STANDS_OUT * self.error, self.sums, reference * left)


def _lines(layout: Layout) -> int:
    return max(end - start for start, end in layout.rows)


def _bits(lines: int) -> int:
    """K, as a power of two."""
    return (max(lines, LEAST_VECTORS) - 1).bit_length()


def _error(total: Tensor, product: Tensor, power: Tensor, lines: int, noisy: Tensor | float = 0.0) -> Tensor:
    """The standard error of the product of two columns, the first of which is known.

    Args:
        total: the square of the second.
        product: the product.
        power: the square of the first.
        lines: over how many lines the part of the second that is no multiple of the first is scattered.
        noisy: the variance that comes on top.
    """
    left = (total - product.square() / power).clamp(min=0)
    return torch.where(power > 0, (power * left / lines + noisy).sqrt(), math.inf)


def measure_cells(clean: Tensor, weight: Tensor, variance: Tensor | None, layout: Layout, noise: Noise) -> Measurement:
    """The measurement where nothing is between cells and digital sum.

    Worked out from the weights that the cells stand for: so it is exact, and none of the vectors is driven.

    Args:
        clean: the weights as they were to be written, laid, in at least float32.
        weight: those that the cells stand for now.
        variance: of white read noise; None without.
        layout: the blocks.
        noise: where the noise of this measurement comes from.
    """
    sums, power = layout.column_sums(clean * weight), layout.column_sums(clean.square())
    noisy: Tensor | float = 0.0
    if variance is not None:
        # Vectors cost nothing here, so that a column of few weights is read through as many as longest ones are.
        noisy = power * layout.column_sums(variance) / max(1 << _bits(_lines(layout)), MOST_VECTORS)
        sums = sums + noise.normal_like(sums) * noisy.sqrt()
    return Measurement(sums, _error(layout.column_sums(weight.square()), sums, power, _lines(layout), noisy))


class _Columns:
    """The word lines of all blocks, each with an input of its own."""

    def partial(self, input: Tensor, rows: Tensor, start: int, end: int) -> Tensor:
        """See `Product`."""
        return functional.linear(input[..., start:end], rows)

    def word_lines(self, input: Tensor, start: int, end: int) -> tuple[Tensor, int]:
        """See `Product`."""
        return input[..., start:end], start

    def per_output(self, values: Tensor) -> Tensor:
        """See `Product`."""
        return values


def measure_outputs(
    clean: Tensor, ideal: Tensor, array: Array, crossbar: Crossbar, bound: Tensor | float | None, noise: Noise
) -> Measurement:
    """The measurement through the converters: vectors are driven, and what the converters say is weighted.

    Word lines are driven at full scale. Where the currents of the clean array would leave the range of the output
    converters, every second, fourth, ... line is driven at once; where those of a single line would, at a lower code.
    An unsigned input converter drives the positive and the negative part one after the other.

    Args:
        clean: the weights as they were to be written, laid, in at least float32.
        ideal: the weights that the slices would stand for without any error, ``(slices, out, inputs + bias rows)``.
        array: what is on the crossbars, without any digital gain.
        crossbar: the converters.
        bound: full scale of the output converters; None if there is none, or none yet: then nothing is limited.
        noise: where the noise of this measurement comes from.
    """
    layout = replace(array.layout, bias_rows=0)  # their word lines are driven like all others
    array, flat = replace(array, layout=layout), clean.flatten(1) if clean.ndim > 1 else clean.unsqueeze(1)
    lines, out = _lines(layout), len(flat)
    count = min(1 << _bits(lines), MOST_VECTORS)
    parts, code = _driven_at_once(ideal, array, crossbar, bound, count * out)
    product, total, mean = torch.zeros(3, out, len(layout.rows), dtype=flat.dtype, device=flat.device)
    with torch.autocast(flat.device.type, enabled=False):
        for signs in sign_vectors(flat, lines, parts, layout, max(1, _AT_ONCE // max(flat.shape))):
            said = _read(signs * code, array, crossbar, bound, noise)
            for block, ((start, end), answers) in enumerate(zip(layout.rows, said, strict=True)):
                known = functional.linear(signs[:, start:end], flat[:, start:end])
                product[:, block] += (known * answers).sum(0)
                total[:, block] += answers.square().sum(0)
                mean[:, block] += answers.mean(0) * (len(answers) / count)
    share = 2.0**parts / count  # of the vectors, that each line is driven in
    sums, power = product * (share / code), layout.column_sums(flat.square())
    total = (total - count * mean.square()) * (share / code.square())  # without the offset of the converter
    return Measurement(sums, _error(total, sums, power, lines))


def _read(
    driven: Tensor, array: Array, crossbar: Crossbar, bound: Tensor | float | None, noise: Noise
) -> Iterator[Tensor]:
    """What each block of rows reads, with signs also where the word lines have none."""

    def readings(driven: Tensor) -> Iterator[Tensor]:
        return block_readings(_Columns(), driven, array, crossbar, noise, input_range=1.0, output_bound=bound)

    if crossbar.dac == "symmetric" or crossbar.dac_bits is None:
        return readings(driven)
    pairs = zip(readings(driven.clamp(min=0)), readings((-driven).clamp(min=0)), strict=True)
    return (positive - negative for positive, negative in pairs)


def _driven_at_once(
    ideal: Tensor, array: Array, crossbar: Crossbar, bound: Tensor | float | None, answers: int
) -> tuple[Tensor, Tensor]:
    """Into how many parts the word lines are divided, as the exponent of two, and what is driven on them, in (0, 1].

    Numbers of no fixed value, so that nothing waits for a GPU.

    Args:
        ideal: see `measure_outputs`.
        array: see `measure_outputs`.
        crossbar: the converters.
        bound: see `measure_outputs`.
        answers: how many currents must fit at once.
    """
    if bound is None:
        return ideal.new_zeros(()), ideal.new_ones(())
    room = _HEADROOM * (bound.to(ideal) if isinstance(bound, Tensor) else ideal.new_full((), bound))
    code = room.clamp(max=1.0).amin()
    if crossbar.dac_bits is not None:
        codes = largest_code(crossbar)
        code = (code * codes).floor().clamp(min=1.0) / codes
    room = room.clamp(min=1.0)  # in units of what a single line of the largest weight carries
    norms = [ideal[..., start:end].square().sum(-1).sqrt() for start, end in array.layout.rows]
    norm = (torch.stack(norms, -1) / array.scale).nan_to_num(0.0, 0.0, 0.0).amax(1)
    # With random signs a current is nearly normal, and the largest of so many hardly larger than this.
    largest = norm * math.sqrt(2 * math.log(2 * answers * len(ideal) * len(array.layout.rows)))
    halvings = 2 * (largest / room).amax().log2()
    lines = _lines(array.layout)
    most = (lines / room.amin()).log2()  # so few lines that their currents fit whatever their signs
    return torch.minimum(halvings, most).ceil().clamp(0, _bits(lines)), code


def sign_vectors(like: Tensor, lines: int, parts: Tensor, layout: Layout, at_once: int) -> Iterator[Tensor]:
    r"""The vectors, a few at a time, ``(vectors, inputs of all blocks)``: -1, 0 or 1 on each word line.

    A Hadamard matrix of :math:`2^n` rows has the sign :math:`(-1)^{|r \wedge c|}` in row r and column c, where
    :math:`|r \wedge c|` counts the bits that both have. With :math:`2^p` parts, word line j belongs to part :math:`j
    \bmod 2^p` and has column :math:`\lfloor j / 2^p \rfloor + 1`, so that it is driven in each :math:`2^p`-th vector
    and is orthogonal to all others of its part.

    Args:
        like: has their dtype and place.
        lines: of the largest block.
        parts: p.
        layout: the blocks; all are driven with the same columns, and signs of their own.
        at_once: how many vectors.
    """
    bits, noise = _bits(lines), KeyedNoise("measurement", str(lines))
    row = torch.arange(1 << bits, device=like.device)
    if len(row) > MOST_VECTORS:
        row = noise.uniform_like(row.to(like.dtype)).argsort()[:MOST_VECTORS]
    inputs = layout.rows[-1][1]
    column = torch.cat([torch.arange(end - start, device=like.device) for start, end in layout.rows])
    turned = (noise.uniform_like(like.new_empty(inputs)) < 0.5).to(like.dtype)
    groups = (2.0**parts).to(torch.int64)
    powers = 2 ** torch.arange(bits, device=like.device)

    def digits(number: Tensor) -> Tensor:
        return (number.unsqueeze(-1) // powers % 2).to(like.dtype)

    of_column = digits(column // groups + 1).t().contiguous()
    for some in torch.split(row, at_once):
        odd = (digits(some // groups) @ of_column).add_(turned).remainder_(2)
        yield odd.mul_(-2).add_(1).mul_(some.unsqueeze(1) % groups == column % groups)
