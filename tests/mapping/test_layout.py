import itertools

import pytest
import torch
from torch import nn

from analogsim.mapping.layout import Layout, cut


@pytest.mark.parametrize(
    ("length", "most", "unit", "blocks"),
    [
        (10, None, 1, [(0, 10)]),
        (10, 10, 1, [(0, 10)]),
        (10, 9, 1, [(0, 5), (5, 10)]),
        (10, 4, 1, [(0, 3), (3, 6), (6, 10)]),
        (3, 1, 1, [(0, 1), (1, 2), (2, 3)]),
        (27, 20, 9, [(0, 9), (9, 27)]),  # whole channels
        (27, 8, 9, [(0, 6), (6, 13), (13, 20), (20, 27)]),  # a channel does not fit
        (28, 20, 9, [(0, 14), (14, 28)]),  # bias rows are no channel
    ],
)
def test_cuts(length, most, unit, blocks):
    assert cut(length, most, unit) == tuple(blocks)


def test_blocks_cover_all_and_none_is_too_large():
    for length, most, unit in itertools.product(range(1, 40), range(1, 40, 3), (1, 3)):
        blocks = cut(length, most, unit)
        assert [start for start, _ in blocks[1:]] == [end for _, end in blocks[:-1]]
        assert (blocks[0][0], blocks[-1][1]) == (0, length)
        sizes = [end - start for start, end in blocks]
        assert 0 < min(sizes) <= max(sizes) <= most
        if unit == 1:
            assert len(blocks) == -(-length // most)
            assert max(sizes) - min(sizes) <= 1


def test_groups_share_no_crossbar():
    layout = Layout.of(torch.Size((6, 4, 3, 3)), groups=2, rows=20, cols=2)
    assert layout.cols == ((0, 1), (1, 3), (3, 4), (4, 6))
    assert layout.rows == ((0, 18), (18, 36))
    assert layout.crossbars == 8


def test_bias_rows_come_back_as_the_bias():
    layer = nn.Conv2d(2, 3, 2)
    layout = Layout.of(layer.weight.shape, bias_rows=4, rows=5)
    laid = layout.lay(layer.weight, layer.bias)
    assert laid.shape == (3, 8 + 4)
    torch.testing.assert_close(laid[:, 8:], layer.bias[:, None].expand(3, 4) / 4)
    weight, bias = layout.lift(torch.stack((laid, 2 * laid)), layer.weight.shape)
    torch.testing.assert_close(weight[1], 2 * layer.weight)
    torch.testing.assert_close(bias[1], 2 * layer.bias)
    assert not layout.lay(layer.weight, None)[:, 8:].any()


def test_without_bias_rows_nothing_is_copied():
    layer = nn.Linear(3, 2)
    layout = Layout.of(layer.weight.shape)
    assert layout.lay(layer.weight, layer.bias) is layer.weight
    assert layout.lift(layer.weight, layer.weight.shape) == (layer.weight, None)


def test_values_of_blocks_spread_over_the_weight():
    layout = Layout.of(torch.Size((2, 5)), rows=3)
    like = torch.zeros(2, 5)
    values = layout.columns(torch.tensor([[1.0, 5, 2, 3, 4], [9, 8, 7, 6, 5]]))
    assert values.tolist() == [[5, 4], [9, 7]]
    assert layout.spread(values, like).tolist() == [[5, 5, 4, 4, 4], [9, 9, 7, 7, 7]]
    assert layout.over_columns(values).tolist() == [[9, 7], [9, 7]]
