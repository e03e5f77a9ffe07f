"""Which rows and columns of a matrix a product takes that meets a view of its weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from analogsim.layers.products.views import Steps, View, merged, places

Pick = range | tuple[int, ...] | None
"""Some places along an axis, in an order; None for all as they are."""


@dataclass(frozen=True)
class Part:
    """A part of a product, with one matrix.

    Args:
        matrix: which of those that lie in the weight.
        rows: its outputs that are read.
        cols: its inputs that are driven.
    """

    matrix: int
    rows: Pick = None
    cols: Pick = None


Fit = tuple[tuple[Part, ...], ...]
"""For each place of a batch the parts along the outputs; a single one where one matrix answers to all of the batch."""


def fit(matrices: tuple[View, ...], batch: Steps, outputs: Steps, inputs: Steps, offset: int) -> Fit | None:
    """Find what of some matrices a product takes.

    Args:
        matrices: where in the weight each lies: its first axis has the outputs, all others the inputs.
        batch: places in the weight that have an input and an output each.
        outputs: places with an output.
        inputs: places that the product sums over.
        offset: the first place.

    Returns:
        None where these are no rows and columns of them.
    """
    simple = _simple(matrices, merged((*batch, *outputs)), merged(inputs), offset)
    if simple is not None:
        return ((simple,),)
    search = _search if torch.compiler.is_compiling() else _searched
    return search(matrices, batch, outputs, inputs, offset)


def _search(matrices: tuple[View, ...], batch: Steps, outputs: Steps, inputs: Steps, offset: int) -> Fit | None:
    """`fit`, element by element."""
    driven = places(inputs)
    if len(set(driven)) < len(driven):
        return None
    columns: dict[tuple[int, int], Pick] = {}
    rows: list[list[tuple[int, int, Pick]]] = []
    for first in places(batch):
        rows.append([])
        for place in places(outputs):
            found = _find(matrices, offset + first + place)
            if found is None:
                return None
            matrix, row, column = found
            if (matrix, column) not in columns:
                cols = _columns(matrices[matrix], offset + first + place, driven, row)
                if cols is None:
                    return None
                columns[matrix, column] = _pick(cols, math.prod(matrices[matrix].shape[1:]))
            rows[-1].append((matrix, row, columns[matrix, column]))
    return _parts(rows, [matrix.shape[0] for matrix in matrices])


_searched = lru_cache(maxsize=4096)(_search)


def _simple(matrices: Sequence[View], rows: Steps, columns: Steps, offset: int) -> Part | None:
    """A run of rows of one matrix with all of its columns."""
    for place in reversed(range(len(matrices))):  # of many in a row that which begins last before the offset
        matrix = matrices[place]
        if matrix.offset > offset:
            continue
        own = merged(matrix.axes[0])
        if merged([step for axis in matrix.axes[1:] for step in axis]) != columns:
            continue
        if rows == own and offset == matrix.offset:
            return Part(place)
        if len(own) == len(rows) == 1 and own[0][1] == rows[0][1]:
            start, odd = divmod(offset - matrix.offset, own[0][1])
            if not odd and 0 <= start <= own[0][0] - rows[0][0]:
                return Part(place, range(start, start + rows[0][0]))
    return None


def _find(matrices: Sequence[View], place: int) -> tuple[int, int, int] | None:
    """The matrix that a place of the weight belongs to, its row and its column."""
    for index, matrix in enumerate(matrices):
        found = _locate(matrix, place)
        if found is not None:
            return index, *found
    return None


def _locate(matrix: View, place: int) -> tuple[int, int] | None:
    left = place - matrix.offset
    if left < 0:
        return None
    loops = [(size, stride, axis == 0) for axis, steps in enumerate(matrix.axes) for size, stride in steps]
    digits: dict[int, int] = {}
    for at in sorted(range(len(loops)), key=lambda at: -loops[at][1]):
        size, stride, _ = loops[at]
        digits[at] = min(left // stride, size - 1)
        left -= digits[at] * stride
    if left:
        return None
    number = [0, 0]
    for at, (size, _, is_row) in enumerate(loops):
        number[is_row] = number[is_row] * size + digits[at]
    return number[True], number[False]


def _columns(matrix: View, first: int, driven: Sequence[int], row: int) -> list[int] | None:
    """The column of each input; None where they are not in one row."""
    found = [_locate(matrix, first + place) for place in driven]
    if any(at is None or at[0] != row for at in found):
        return None
    return [at[1] for at in found if at is not None]


def _pick(found: Sequence[int], size: int) -> Pick:
    run = range(found[0], found[0] + len(found))
    if list(found) != list(run):
        return tuple(found)
    return None if len(run) == size else run


def _parts(rows: list[list[tuple[int, int, Pick]]], sizes: Sequence[int]) -> Fit:
    if len({(matrix, cols) for line in rows for matrix, _, cols in line}) == 1:
        matrix, _, cols = rows[0][0]
        return ((Part(matrix, _pick([row for line in rows for _, row, _ in line], sizes[matrix]), cols),),)
    return tuple(_runs(line, sizes) for line in rows)


def _runs(line: list[tuple[int, int, Pick]], sizes: Sequence[int]) -> tuple[Part, ...]:
    """The parts of one place of a batch, each with one matrix."""
    parts: list[Part] = []
    begun = 0
    for place in range(1, len(line) + 1):
        if place == len(line) or (line[place][0], line[place][2]) != (line[begun][0], line[begun][2]):
            matrix, _, cols = line[begun]
            parts.append(Part(matrix, _pick([row for _, row, _ in line[begun:place]], sizes[matrix]), cols))
            begun = place
    return tuple(parts)


def picked(values: Tensor, pick: Pick, axis: int = 0) -> Tensor:
    """Some places along an axis of a tensor."""
    if pick is None:
        return values
    if isinstance(pick, range):
        return values.narrow(axis, pick.start, len(pick))
    return values.index_select(axis, _index(pick, values.device))


def widened(values: Tensor, pick: Pick, size: int) -> Tensor:
    """Values of some places along the last axis among zeros for the others."""
    if pick is None:
        return values
    if isinstance(pick, range):
        return functional.pad(values, (pick.start, size - pick.stop))
    if len(pick) == size:
        back = tuple(sorted(range(size), key=pick.__getitem__))
        return values.index_select(-1, _index(back, values.device))
    whole = values.new_zeros((*values.shape[:-1], size))
    return whole.index_copy(-1, _index(pick, values.device), values)


def _index(places: tuple[int, ...], device: torch.device) -> Tensor:
    # Made of a list, it waits for a GPU: once.
    return torch.tensor(places, device=device) if torch.compiler.is_compiling() else _kept_index(places, device)


@lru_cache(maxsize=256)
def _kept_index(places: tuple[int, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(places, device=device)
