"""The cells of a weight as they lie on crossbars with wires: which lines they share, and what these leave of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from analogsim.crossbar.wires import Wires, effective_conductance, solved
from analogsim.mapping.layout import Layout

Block = tuple[slice, tuple[slice, ...]]
"""The inputs of a block, and its outputs: those of its columns, and that of its reference column."""


def wired(g: Tensor, ndim: int, layout: Layout, wires: Wires | None, *, fast: bool = False) -> Tensor:
    """Effective conductances of cells behind their wires.

    The cells of a weight lie side by side on its word line (interleaved pairs), a reference column behind the columns
    of its block.

    Args:
        g: conductances ``(cells, out (+ references), ...)``, µS.
        ndim: number of axes of the weight.
        layout: where they lie.
        wires: their resistances; None for ideal ones.
        fast: take the approximation in any case, and the conductances as given: in training nothing waits for a check.

    Returns:
        Shaped like ``g``; ``g`` itself if the wires are ideal.
    """
    if wires is None:
        return g
    solve = effective_conductance
    if fast:
        wires, solve = replace(wires, mode="fast"), solved
    cells = g.shape[0]
    flat = g.reshape(cells, g.shape[1], -1)
    result = torch.empty_like(flat)
    for (rows, columns), blocks in _alike(layout, references=g.shape[1] > layout.cols[-1][1]).items():
        # (cells, columns, rows) to (rows, columns * cells): the order of bit lines.
        tiles = torch.stack([torch.cat([flat[:, part, span] for part in own], 1) for span, own in blocks])
        lines = tiles.permute(0, 3, 2, 1).reshape(len(blocks), rows, columns * cells)
        seen = solve(lines, wires).view(len(blocks), rows, columns, cells).permute(0, 3, 2, 1)
        for (span, own), tile in zip(blocks, seen, strict=True):
            pieces = tile.split([part.stop - part.start for part in own], 1)
            for part, piece in zip(own, pieces, strict=True):
                result[:, part, span] = piece
    return result.view(g.shape)


def _alike(layout: Layout, *, references: bool) -> Mapping[tuple[int, int], Sequence[Block]]:
    """The blocks by their rows and columns, so that those of one size are solved at once."""
    blocks: defaultdict[tuple[int, int], list[Block]] = defaultdict(list)
    out = layout.cols[-1][1]
    for place, (left, right) in enumerate(layout.cols):
        # Slices, since a tensor of indices would be copied to a GPU, and waited for.
        own = (slice(left, right), *([slice(out + place, out + place + 1)] if references else []))
        for top, bottom in layout.rows:
            blocks[(bottom - top, right - left + references)].append((slice(top, bottom), own))
    return blocks
