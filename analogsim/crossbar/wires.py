r"""Ohmic wires: what a crossbar multiplies by when its lines have resistance.

The word lines (rows) are driven at their head, in front of column 0; the bit lines (columns) are held at ground at
their foot, below the last row, and the current that leaves there is read. Each cell sits between its word line and
its bit line, with a segment of either before the next::

    V_0 --source--row--o------row--o------row--o           o  a cell: g_ij between word line i
                       |           |           |              and bit line j
                      col         col         col
                       |           |           |
    V_1 --source--row--o------row--o------row--o
                       |           |           |
                      col         col         col
                       |           |           |
                      sink        sink        sink
                       |           |           |
                      I_0         I_1         I_2

The network is linear, so the currents are :math:`I_j = \sum_i V_i \, G^\text{eff}_{ij}` whatever the voltages. One
solve for each programmed crossbar gives :math:`G^\text{eff}`; after that an MVM is a plain matmul.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.utils.checks import as_number

Mode = Literal["exact", "fast"]

_BLOCKS = 32  # blocks along each side of the coarse crossbar of the fast mode
_CHUNK = 1 << 24  # numbers that may be held at once besides the result: 64 MiB in float32


@dataclass(frozen=True)
class Wires:
    """Resistances of a crossbar's lines.

    Args:
        row: of one segment of a word line: between two cells, and from the driver to the first cell, ohm.
        col: of one segment of a bit line: between two cells, and from the last cell to the ground, ohm.
        source: of the driver of each word line, in series with its first segment, ohm.
        sink: of what reads each bit line, in series with its last segment, ohm.
        mode: ``"exact"``: nodal analysis by elimination. ``"fast"``: an approximation, see `effective_conductance`.

    Raises:
        ValueError: a resistance that is negative or not finite, or an unknown mode.
        TypeError: a resistance that is not a number.

    Example:
        >>> g = torch.full((128, 64), 20.0)
        >>> effective_conductance(g, Wires(row=1.0, col=1.0))[0, -1].item() < 17  # the corner that loses most
        True
    """

    row: float = 0.0
    col: float = 0.0
    source: float = 0.0
    sink: float = 0.0
    mode: Mode = "exact"

    def __post_init__(self) -> None:
        for spec in fields(self)[:-1]:
            value = getattr(self, spec.name)
            if isinstance(value, bool) or not isinstance(value, int | float | np.number):
                raise InvalidTypeError(f"wires: {spec.name} must be a number (ohm), got {value!r}")
            if not 0 <= as_number(value) < math.inf:
                raise InvalidValueError(f"wires: {spec.name} must be finite and >= 0 ohm, got {value!r}")
            object.__setattr__(self, spec.name, float(value))
        if self.mode not in get_args(Mode):
            raise InvalidValueError(f'wires: mode must be "exact" or "fast", got {self.mode!r}')

    @property
    def ideal(self) -> bool:
        """Whether no wire has any resistance."""
        return not (self.row or self.col or self.source or self.sink)


def effective_conductance(g: Tensor, wires: Wires) -> Tensor:
    r"""What a crossbar multiplies by: :math:`G^\text{eff}_{ij}`, the current out of column j for 1 V on row i alone.

    ``"exact"`` eliminates the nodes column by column from the far end, keeping the admittance matrix Y that the word
    lines see beyond: with :math:`K_j = (D_j^{-1} + B)^{-1}` of a bit line (cells :math:`D_j`, resistances B to ground),

    .. math:: Y_j = K_j + (I + r_\text{row} Y_{j+1})^{-1} Y_{j+1}

    and the same solve carries the output currents along. :math:`K_j` has a closed form of ladder resistances without a
    difference of close numbers, so that any of the four resistances may be 0, and float32 stays float32. About 4 n³ m
    operations for sides n <= m; no more than a matrix of n (n + m) numbers is kept. The gradient is that of the
    exact solution, by the adjoint of this elimination.

    ``"fast"`` takes :math:`g_{ij} a_{ij} b_{ij}`, where a is the loss of a word line alone (every bit line at ground)
    and b that of a bit line alone (every word line at its driver's voltage), which is right to first order in the
    resistances. What is missing, the currents that take a detour over other cells, varies slowly over the array: it is
    the exact solution less this product on a coarse crossbar of at most 32 by 32 blocks of cells, spread over the cells
    between the blocks' centres, and within each block in proportion to the conductance of row and column. Arrays of at
    most 32 by 32 cells are exact. Errors are in ``docs/wires.md``.

    Args:
        g: conductances of one crossbar or many, ``(..., rows, cols)``, µS; finite and >= 0.
        wires: resistances, and which of the two.

    Returns:
        Effective conductances in µS: shape, dtype and device of ``g``; ``g`` itself if the wires are ideal.

    Raises:
        TypeError: ``g`` is not a floating-point tensor.
        ValueError: it has no rows and columns, or a conductance that is negative or not finite.
    """
    if not isinstance(g, Tensor) or not g.is_floating_point():
        given = g.dtype if isinstance(g, Tensor) else type(g).__name__
        raise InvalidTypeError(f"effective conductance: g must be a floating-point tensor, got {given}")
    if g.ndim < 2:
        raise InvalidValueError(f"effective conductance: g must be (..., rows, cols), got shape {tuple(g.shape)}")
    low, high = g.detach().aminmax() if g.numel() else (0.0, 0.0)
    if not (low >= 0 and high < math.inf):
        raise InvalidValueError(
            f"effective conductance: g must be finite and >= 0 µS, got values from {float(low):g} to {float(high):g}"
        )
    return solved(g, wires)


def solved(g: Tensor, wires: Wires) -> Tensor:
    """`effective_conductance` of values that need no check, which would wait for a GPU."""
    if wires.ideal or not g.numel():
        return g
    # Neither a factorisation nor 1e-3 can be had in half precision, whoever asks for it.
    with torch.autocast(g.device.type, enabled=False):
        flat = g.reshape(-1, *g.shape[-2:])
        if flat.dtype not in (torch.float32, torch.float64):
            flat = flat.float()
        # Megaohm times microsiemens is 1.
        row, col, source, sink = (1e-6 * value for value in (wires.row, wires.col, wires.source, wires.sink))
        solve = _exact if wires.mode == "exact" else _fast
        return solve(flat, row, source + row, col, sink + col).to(g.dtype).contiguous().view(g.shape)


# In all that follows g is (crossbars, rows, cols) in µS, resistances are in megaohm: `row` and `col` of a segment,
# `head` and `foot` of all that lies between the line's first (last) cell and its driver (ground).


def _ladder(g: Tensor, col: float, foot: float) -> tuple[Tensor, Tensor]:
    """Each bit line alone: conductance that a node sees above it, resistance to ground below it."""
    rows = g.unbind(-2)
    above, below = [torch.zeros_like(rows[0])], [torch.full_like(rows[0], foot)]
    for cell in rows[:-1]:
        shunt = above[-1] + cell
        above.append(shunt / (1 + col * shunt))
    for cell in rows[:0:-1]:
        below.append(col + below[-1] / (1 + cell * below[-1]))
    return torch.stack(above, -2), torch.stack(below[::-1], -2)


def _loss(g: Tensor, col: float, foot: float) -> Tensor:
    """The part of each cell's current that is read if only the bit lines have resistance."""
    above, below = _ladder(g, col, foot)
    shared = (g * below).log1p().cumsum(-2)
    return torch.exp(shared - shared[..., -1:, :]) / (1 + below * (g + above))


def _turned(g: Tensor) -> Tensor:
    """The crossbar with word lines for bit lines. By reciprocity its effective conductances are the same, turned."""
    return g.flip(-1, -2).mT


def _exact(g: Tensor, row: float, head: float, col: float, foot: float) -> Tensor:
    """Nodal analysis, along the side that costs less."""

    def cost(segment: float, end: float, lines: int) -> tuple[bool, bool, int]:
        return segment > 0, end > 0 and not segment, lines

    if cost(col, foot, g.shape[-1]) < cost(row, head, g.shape[-2]):
        return _turned(_exact(_turned(g), col, foot, row, head))
    if not row and not head:
        return g * _loss(g, col, foot)
    result: Tensor = _Elimination.apply(g, row, head, col, foot)
    return result


def _fast(g: Tensor, row: float, head: float, col: float, foot: float) -> Tensor:
    """Lines alone, corrected by the exact solution for blocks of cells."""
    rows, cols = g.shape[-2:]
    high, wide = -(-rows // _BLOCKS), -(-cols // _BLOCKS)  # cells in a block
    if high == wide == 1:
        return _exact(g, row, head, col, foot)

    def alone(g: Tensor, row: float, head: float, col: float, foot: float) -> Tensor:
        return g * _turned(_loss(_turned(g), row, head)) * _loss(g, col, foot)

    def blocks(values: Tensor) -> Tensor:
        return functional.avg_pool2d(values.unsqueeze(1), (high, wide), divisor_override=1).squeeze(1)

    # Empty cells at the far ends of the lines fill up the last blocks; no current flows there.
    filled = functional.pad(g, (0, -cols % wide, -rows % high, 0))
    # The lines of a block are parallel, and its node is at the mean distance of its cells.
    line = (
        row * wide / high,
        (head + row * (wide - 1) / 2) / high,
        col * high / wide,
        (foot + col * (high - 1) / 2) / wide,
    )
    coarse = blocks(filled)
    share = filled.sum(-1, keepdim=True) * filled.sum(-2, keepdim=True)
    whole = blocks(share)
    detour = (_exact(coarse, *line) - alone(coarse, *line)) / torch.where(whole > 0, whole, 1)
    detour = functional.interpolate(detour.unsqueeze(1), share.shape[-2:], mode="bilinear").squeeze(1) * share
    return alone(g, row, head, col, foot) + detour[..., -rows:, :cols]


class _BitLines:
    """The admittance matrices of bit lines, as the word lines see them.

    With N the inverse of a bit line's nodal matrix (its cells tied to ground), E = I - N D and K = D E. Below the
    diagonal N_ab is the product of what goes down at b, of the shares that stay on the line from b to a, and of the
    resistance at a; all factors are positive.
    """

    def __init__(self, g: Tensor, col: float, foot: float) -> None:
        above, self.below = _ladder(g, col, foot)
        self.g = g
        self.down = 1 / (1 + self.below * (g + above))
        self.own = (1 + self.below * above) * self.down
        self.shared = (g * self.below).log1p().cumsum(-2)
        self.total = torch.exp(self.shared - self.shared[..., -1:, :]) * self.down

    def voltages(self, j: int) -> Tensor:
        """E of bit line j, ``(crossbars, rows, rows)``: the voltage across cell a for 1 V on word line b alone."""
        shared = self.shared[..., j]
        kept = (shared.unsqueeze(-2) - shared.unsqueeze(-1)).clamp_(max=0).exp_()
        kept = kept.mul_(self.below[..., j, None]).mul_(self.down[..., None, :, j]).tril_(-1)
        e = (kept + kept.mT).mul_(-self.g[..., None, :, j])
        e.diagonal(dim1=-2, dim2=-1).copy_(self.own[..., j])
        return e

    def admittance(self, j: int) -> Tensor:
        """K of bit line j, ``(crossbars, rows, rows)``, µS."""
        return self.voltages(j).mul_(self.g[..., j, None])

    def output(self, j: int) -> Tensor:
        """Column sums of K: current out of bit line j for 1 V on each word line alone, ``(crossbars, rows)``, µS."""
        return self.g[..., j] * self.total[..., j]


class _Elimination(torch.autograd.Function):
    r"""Exact effective conductances, one column after the other from the far end to the drivers.

    The state is ``(crossbars, rows, rows + cols)``: Z, the admittance that the word lines see beyond the next segment,
    and X, the currents out of the columns so far for 1 V on each word line there. A column adds K to Z and its own
    output to X; a segment multiplies both by :math:`M = (I + A)^{-1}, A = r (Z + K)`, which is symmetric and whose
    condition number is at most 2 + r g.

    What is taken is :math:`X - N X` with :math:`N = I - M = M A`, the part that a segment loses: N is small where r is,
    while M is nearly I, and rounding the ones on its diagonal would take (or give) the same part of the state step
    after step. Off the diagonal N is -M; on it, it is the sum of products of M and A. So a step rounds each number of
    the state once, and, as no row of M sums to more than 1, what was rounded before does not grow.
    """

    @staticmethod
    def forward(ctx: Any, g: Tensor, row: float, head: float, col: float, foot: float) -> Tensor:
        ctx.save_for_backward(g)
        ctx.wires = row, head, col, foot
        rows, cols = g.shape[-2:]
        results = []
        for part in _parts(g, 5 * rows * (rows + cols)):
            lines = _BitLines(part, col, foot)
            state = part.new_zeros(len(part), rows, rows + cols)
            for step in range(cols):
                _eliminate(state, lines, step, row if step < cols - 1 else head)
            results.append(state[..., rows:].flip(-1))
        return torch.cat(results)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = ctx.saved_tensors
        rows, cols = g.shape[-2:]
        stride = math.isqrt(cols - 1) + 1
        # The states every `stride` steps, and for one stretch N and X of each step.
        numbers = (2 * stride + 8) * rows * (rows + cols)
        parts = zip(_parts(g, numbers), _parts(grads[0], numbers), strict=True)
        with torch.autocast(g.device.type, enabled=False):
            result = [_adjoint(part, grad, *ctx.wires, stride=stride) for part, grad in parts]
        return torch.cat(result), None, None, None, None


def _parts(crossbars: Tensor, numbers: int) -> list[Tensor]:
    """As many crossbars at once as memory is meant for, if each takes so many numbers."""
    count = max(1, _CHUNK // numbers)
    return [crossbars[start : start + count] for start in range(0, len(crossbars), count)]


def _eliminate(state: Tensor, lines: _BitLines, step: int, r: float) -> Tensor | None:
    """One column and the segments in front of it, in place; returns N, or None if they have no resistance."""
    rows = state.shape[-2]
    j = lines.g.shape[-1] - 1 - step
    state[..., :rows] += lines.admittance(j)
    state[..., rows + step] = lines.output(j)
    if not r:
        return None
    used = state[..., : rows + step + 1]
    lost = _lost(r * used[..., :rows])
    used -= lost @ used  # not in one call: some processors' libraries then round the state again and again in between
    return lost


def _lost(a: Tensor) -> Tensor:
    """N = I - (I + A)^-1, to rounding of its own numbers however small A is."""
    matrix = a.clone()
    matrix.diagonal(dim1=-2, dim2=-1).add_(1)
    m = torch.cholesky_inverse(torch.linalg.cholesky_ex(matrix).L)
    own = (m * a).sum(-1)
    m.neg_().diagonal(dim1=-2, dim2=-1).copy_(own)
    return m


def _adjoint(g: Tensor, grad: Tensor, row: float, head: float, col: float, foot: float, *, stride: int) -> Tensor:
    r"""The elimination backwards: from the gradient of the result to that of g.

    With bars for gradients, :math:`\bar X = M \bar X'` and :math:`\bar Y = M \bar Z' M - r \bar X X'^T`, where X' and
    Z' leave a step and X, Y = Z + K enter it; the column's cells take the diagonal of :math:`E \bar Y E^T`. Here too a
    product with M = I - N is a difference.
    """
    rows, cols = g.shape[-2:]
    lines = _BitLines(g, col, foot)
    state = g.new_zeros(len(g), rows, rows + cols)
    starts = []
    for step in range(cols):
        if step % stride == 0:
            starts.append(state[..., : rows + step].clone())
        if step < stride * ((cols - 1) // stride):
            _eliminate(state, lines, step, row)
    result = torch.empty_like(g)
    x, z = grad.flip(-1), g.new_zeros(len(g), rows, rows)
    while starts:
        start = starts.pop()
        first = start.shape[-1] - rows
        state[..., : rows + first] = start
        last = min(first + stride, cols)
        kept = []
        for step in range(first, last):
            r = row if step < cols - 1 else head
            lost = _eliminate(state, lines, step, r)
            kept.append((r, lost, state[..., rows : rows + step + 1].clone()))
        for step in reversed(range(first, last)):
            r, lost, currents = kept.pop()
            if lost is not None:
                x = x - lost @ x
                z = z - lost @ z
                z = z - z @ lost
                z -= r * x @ currents.mT
            j = cols - 1 - step
            e = lines.voltages(j)
            own = (e @ x[..., step, None]).squeeze(-1) * lines.total[..., j]
            result[..., j] = ((e @ z) * e).sum(-1) + own
            x = x[..., :step]
    return result
