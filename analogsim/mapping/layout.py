"""Where a layer's weight lies: which inputs share word lines, which outputs share a crossbar.

A weight ``(out, ...)`` is a matrix with one column of the crossbar per output and one row (word line) per input, a
convolution's kernel unrolled to rows. A layer too large for one crossbar is cut into blocks of rows, whose partial
sums are added digitally, and blocks of columns. The groups of a grouped convolution have inputs of their own, so they
lie in blocks of their own, without cells for the zeros between them.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

Blocks = tuple[tuple[int, int], ...]


def cut(length: int, most: int | None, unit: int = 1) -> Blocks:
    """Cut ``length`` into as few blocks of at most ``most`` as possible, about equal ones, as ``(start, end)``.

    Cuts fall between units (the kernel positions of one channel) where a unit fits into a block.
    """
    if most is None or length <= most:
        return ((0, length),)
    if unit > most or length % unit:
        unit = 1
    units, most = length // unit, most // unit
    blocks = -(-units // most)
    ends = [unit * (units * k // blocks) for k in range(blocks + 1)]
    return tuple(itertools.pairwise(ends))


@dataclass(frozen=True)
class Layout:
    """The blocks that a layer's weight lies in.

    Args:
        rows: blocks of the inputs of one output, in the order of ``weight.flatten(1)``, bias rows last.
        cols: blocks of the outputs.
        bias_rows: how many rows at the end hold the bias, each an equal part of it, driven by the input 1.
        groups: of outputs with inputs of their own.
    """

    rows: Blocks
    cols: Blocks
    bias_rows: int = 0
    groups: int = 1

    @classmethod
    def of(
        cls,
        shape: torch.Size,
        *,
        groups: int = 1,
        rows: int | None = None,
        cols: int | None = None,
        bias_rows: int = 0,
    ) -> Layout:
        """The layout of a weight ``(out, ...)`` on crossbars of at most ``rows`` inputs and ``cols`` outputs each."""
        out, inputs = shape[0], max(1, shape[1:].numel())
        unit = shape[2:].numel() if len(shape) > 2 else 1
        per_group = out // groups
        row_blocks = cut(inputs + bias_rows, rows, 1 if bias_rows else unit)
        col_blocks = tuple(
            (group * per_group + start, group * per_group + end)
            for group in range(groups)
            for start, end in cut(per_group, cols)
        )
        return cls(row_blocks, col_blocks, bias_rows, groups)

    @property
    def crossbars(self) -> int:
        """Number of blocks."""
        return len(self.rows) * len(self.cols)

    def lay(self, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The weight with its bias rows: itself without any, else the matrix ``(out, inputs + bias_rows)``."""
        if not self.bias_rows:
            return weight
        part = (weight.new_zeros(len(weight)) if bias is None else bias) / self.bias_rows
        return torch.cat((weight.flatten(1), part.unsqueeze(1).expand(-1, self.bias_rows).to(weight.dtype)), 1)

    def lift(self, laid: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor | None]:
        """The inverse of `lay`: weight ``(..., *shape)`` and bias ``(..., out)`` of ``(..., out, inputs + bias_rows)``.

        The bias is what its rows sum up to; None where the layout has none.
        """
        if not self.bias_rows:
            return laid, None
        inputs = laid.shape[-1] - self.bias_rows
        return laid[..., :inputs].reshape(*laid.shape[:-2], *shape), laid[..., inputs:].sum(-1)

    def columns(self, laid: Tensor) -> Tensor:
        """Largest value of each column in each block of rows, ``(out, row blocks)``, of a non-negative ``laid``."""
        flat = laid.flatten(1) if laid.ndim > 1 else laid.unsqueeze(1)
        return torch.stack([flat[:, start:end].amax(1) for start, end in self.rows], 1)

    def column_sums(self, laid: Tensor) -> Tensor:
        """Sum over each column in each block of rows, ``(out, row blocks)``."""
        flat = laid.flatten(1) if laid.ndim > 1 else laid.unsqueeze(1)
        return torch.stack([flat[:, start:end].sum(1) for start, end in self.rows], 1)

    def block_sums(self, values: Tensor) -> Tensor:
        """The sum over each block of columns, for all columns of it; ``(out, row blocks)`` in and out."""
        parts = [values[start:end].sum(0, keepdim=True).expand(end - start, -1) for start, end in self.cols]
        return torch.cat(parts)

    def over_columns(self, values: Tensor) -> Tensor:
        """The largest over each block of columns, for all columns of it; ``(out, row blocks)`` in and out."""
        parts = [values[start:end].amax(0, keepdim=True).expand(end - start, -1) for start, end in self.cols]
        return torch.cat(parts)

    def spread(self, values: Tensor, like: Tensor) -> Tensor:
        """Values ``(out, row blocks)`` so that they broadcast against a laid weight ``like``."""
        if len(self.rows) == 1:
            return values.view(-1, *(1,) * (like.ndim - 1))
        # No tensor of their lengths: making one on a GPU waits for it.
        parts = [values[:, k : k + 1].expand(-1, end - start) for k, (start, end) in enumerate(self.rows)]
        return torch.cat(parts, 1).view(like.shape)
