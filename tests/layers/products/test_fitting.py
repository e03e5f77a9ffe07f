"""Rows and columns of matrices that a product takes: against a table of all elements."""

from __future__ import annotations

import math

import pytest
import torch

from analogsim.layers.products.fitting import Part, fit, picked, widened
from analogsim.layers.products.views import View


def test_all_of_a_matrix_and_runs_of_its_rows() -> None:
    whole = View.of((4, 6))
    assert fit((whole,), (), ((4, 6),), ((6, 1),), 0) == ((Part(0),),)
    assert fit((whole,), (), ((2, 6),), ((6, 1),), 6) == ((Part(0, range(1, 3)),),)
    assert fit((whole,), (), ((2, 12),), ((3, 2),), 1) == ((Part(0, (0, 2), (1, 3, 5)),),)
    assert fit((whole,), ((2, 12),), ((2, 6),), ((6, 1),), 0) == ((Part(0),),)


def test_several_matrices_in_one_weight() -> None:
    """One after the other along the outputs, or one for each place of a batch."""
    parts = [View.of((6, 3)).narrowed(0, start, 2) for start in (0, 2, 4)]
    matrices = tuple(part for part in parts if part is not None)
    assert fit(matrices, (), ((6, 3),), ((3, 1),), 0) == ((Part(0), Part(1), Part(2)),)
    assert fit(matrices, (), ((3, 3),), ((3, 1),), 9) == ((Part(1, range(1, 2)), Part(2)),)
    assert fit(matrices, ((3, 6),), ((2, 3),), ((3, 1),), 0) == ((Part(0),), (Part(1),), (Part(2),))


@pytest.mark.parametrize(
    ("outputs", "inputs", "offset"),
    [(((6, 1),), ((4, 6),), 0), (((5, 6),), ((6, 1),), 0), (((4, 6),), ((6, 0),), 0)],
    ids=["from the other side", "beyond the end", "one place again and again"],
)
def test_what_is_no_rows_and_columns(outputs: object, inputs: object, offset: int) -> None:
    assert fit((View.of((4, 6)),), (), outputs, inputs, offset) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
def test_every_element_is_where_it_is(order: tuple[int, ...]) -> None:
    """A matrix whose rows are any axis of a weight ``(2, 3, 4)``, and products with pieces of that."""
    weight = torch.arange(24.0).view(2, 3, 4)
    matrix, held = View.of((2, 3, 4)).permuted(order), weight.permute(order)
    for outputs, inputs in (((0,), (1, 2)), ((0,), (2, 1))):
        found = fit((matrix,), (), *(_steps(matrix, axes) for axes in (outputs, inputs)), 0)
        assert found is not None
        ((part,),) = found
        got = picked(picked(held.flatten(1), part.rows), part.cols, 1)
        assert torch.equal(got, held.permute(*outputs, *inputs).flatten(1))


def _steps(view: View, axes: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(step for axis in axes for step in view.axes[axis])


def test_values_among_zeros() -> None:
    values = torch.arange(1.0, 4.0)
    assert widened(values, None, 3) is values
    assert widened(values, range(1, 4), 5).tolist() == [0, 1, 2, 3, 0]
    assert widened(values, (4, 0, 2), 5).tolist() == [2, 0, 3, 0, 1]
    assert widened(values, (2, 0, 1), 3).tolist() == [2, 3, 1]
    assert picked(values, (2, 0)).tolist() == [3, 1]
    assert math.isclose(float(picked(values, range(1, 3)).sum()), 5)
