import pytest
import torch

from analogsim import DeviceModel, Gaussian, Mapping
from analogsim.mapping.layout import Layout
from analogsim.noise import KeyedNoise

G_MIN, G_MAX = 2.0, 25.0
SHAPES = [(7,), (6, 5), (4, 3, 5), (3, 2, 2, 3), (2, 3, 2, 2, 2)]
MAPPINGS = [
    *(Mapping(cells, scale) for cells in ("pair", "two-sided", "offset", "signed") for scale in ("column", "tensor")),
    *(Mapping(cells, slices=3, slice_bits=2, copies=2) for cells in ("pair", "two-sided", "offset")),
    Mapping("pair", "crossbar"),
]


def weight_of(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def there(mapping, weight, g_min=G_MIN, g_max=G_MAX):
    largest = mapping.largest(weight)
    return largest, mapping.to_conductance(weight, largest, g_min, g_max)


def back(mapping, weight, g_min=G_MIN, g_max=G_MAX):
    largest, g = there(mapping, weight, g_min, g_max)
    return mapping.to_weight(g, weight.ndim, largest, g_min, g_max)


@pytest.mark.parametrize("mapping", MAPPINGS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("g_min", [0.0, G_MIN])
def test_round_trip(mapping, shape, g_min):
    weight = weight_of(*shape)
    largest, g = there(mapping, weight, g_min)
    references = 1 if mapping.cells == "offset" else 0
    assert g.shape == (mapping.cells_per_weight, shape[0] + references, *shape[1:])
    assert torch.broadcast_shapes(largest.shape, weight.shape) == weight.shape
    torch.testing.assert_close(back(mapping, weight, g_min), weight, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("scale", ["column", "tensor"])
def test_signed_weights_are_themselves(scale):
    weight = weight_of(6, 5)
    assert torch.equal(back(Mapping("signed", scale), weight), weight)


def test_a_pair_holds_the_parts_of_each_sign():
    weight = torch.tensor([[2.0, -1.0], [0.0, 0.5]])
    _, (positive, negative) = there(Mapping("pair", "tensor"), weight, 0.0, 20.0)
    assert positive.tolist() == [[20.0, 0.0], [0.0, 5.0]]
    assert negative.tolist() == [[0.0, 10.0], [0.0, 0.0]]


def test_both_cells_of_a_two_sided_pair_move():
    weight = torch.tensor([[2.0, -1.0], [0.0, 0.5]])
    _, (positive, negative) = there(Mapping("two-sided", "tensor"), weight, 0.0, 20.0)
    assert positive.tolist() == [[20.0, 5.0], [10.0, 12.5]]
    assert negative.tolist() == [[0.0, 15.0], [10.0, 7.5]]


def test_a_reference_column_stands_in_the_middle():
    weight = torch.tensor([[2.0, -1.0], [0.0, 0.5]])
    _, (g,) = there(Mapping("offset", "tensor"), weight, 0.0, 20.0)
    assert g.tolist() == [[20.0, 5.0], [10.0, 12.5], [10.0, 10.0]]


def test_each_block_of_columns_is_read_against_its_own_reference():
    layout = Layout.of(torch.Size((5, 4)), rows=2, cols=2)
    mapping, weight = Mapping("offset", "tensor"), weight_of(5, 4)
    largest = mapping.largest(weight, layout)
    g = mapping.to_conductance(weight, largest, 0.0, 1.0, layout)
    assert g.shape == (1, 5 + 3, 4)
    torch.testing.assert_close(mapping.to_weight(g, 2, largest, 0.0, 1.0, layout), weight)
    assert layout.cols[1] == (1, 3)
    g[0, 6] += 0.25  # its reference
    moved = mapping.to_weight(g, 2, largest, 0.0, 1.0, layout) - weight
    torch.testing.assert_close(moved[1:3], (-0.5 * largest).expand(2, 4))
    assert moved[[0, 3, 4]].abs().max() < 1e-12


def test_slices_hold_digits():
    mapping = Mapping(slices=3, slice_bits=2)
    weight = torch.tensor([[1.0, -(2 * 16 + 3 * 4 + 1.5) / 63, 0.0, 7 / 63, 7.4 / 63]], dtype=torch.float64)
    largest, g = there(mapping, weight, 0.0, 1.0)
    positive, negative = g.unflatten(0, (2, 3))
    # The last cell cannot hold 3.4 of 3: the rest is a tenth of the digit before, which counts four times as much.
    expected = torch.tensor([[1, 1, 1], [0, 0, 0], [0, 0, 0], [0, 1 / 3, 1], [0, 1.1 / 3, 1]], dtype=torch.float64)
    torch.testing.assert_close(positive[:, 0].T, expected)
    expected = torch.tensor([[0, 0, 0], [2 / 3, 1, 1.5 / 3], *[[0, 0, 0]] * 3], dtype=torch.float64)
    torch.testing.assert_close(negative[:, 0].T, expected)
    assert mapping.significance == (48 / 63, 12 / 63, 3 / 63)
    slices = mapping.slice_weights(g, 2, largest, 0.0, 1.0)
    torch.testing.assert_close(mapping.join(slices), weight)


@pytest.mark.parametrize("cells", ["pair", "two-sided", "offset"])
def test_an_error_on_a_slice_counts_its_share(cells):
    mapping = Mapping(cells, slices=2, slice_bits=3)
    weight = weight_of(4, 3)
    largest, g = there(mapping, weight, 0.0, 1.0)
    for place, share in enumerate(mapping.significance):
        wrong = g.clone()
        wrong[place, :4] += 0.1
        error = mapping.to_weight(wrong, 2, largest, 0.0, 1.0) - weight
        gain = 2.0 if cells == "offset" else 1.0
        torch.testing.assert_close(error, (0.1 * share * gain * largest).expand(4, 3))


@pytest.mark.parametrize("cells", ["pair", "two-sided", "offset"])
def test_the_error_of_n_copies_falls_as_one_over_the_root_of_n(cells):
    """Within 5 standard errors of a standard deviation, 1/sqrt(2n)."""
    weight = weight_of(200, 50) if cells != "offset" else weight_of(2000, 5)
    errors = []
    for copies in (1, 4, 16):
        device = DeviceModel((Gaussian(std=0.01),), g_min=5.0, mapping=Mapping(cells, "tensor", copies=copies))
        written = device.program(weight, KeyedNoise("copies", str(copies)))
        errors.append(float((device.to_weight(written.programmed, written) - weight).std()))
    # Of the offset mapping only five reference cells draw: their part of the error is as good as fixed.
    tolerance = 5 / (2 * weight.numel()) ** 0.5 if cells != "offset" else 0.35
    assert errors[0] / errors[1] == pytest.approx(2, rel=2 * tolerance)
    assert errors[1] / errors[2] == pytest.approx(2, rel=2 * tolerance)


def test_a_percentile_lets_the_largest_weights_saturate():
    weight = torch.arange(1.0, 101).reshape(1, 100) * torch.tensor([[1.0], [-2.0]])
    mapping = Mapping("pair", percentile=90)
    largest, g = there(mapping, weight, 0.0, 1.0)
    assert largest.flatten().tolist() == [90, 180]
    assert g.max() == 1
    read = mapping.to_weight(g, 2, largest, 0.0, 1.0)
    torch.testing.assert_close(read[0], weight[0].clamp(max=90))
    saturated = mapping.saturated(weight, largest)
    assert saturated.sum(1).tolist() == [10, 10]
    whole = Mapping("pair", "tensor", percentile=90).largest(weight)
    assert whole == torch.cat((torch.arange(1.0, 101), 2 * torch.arange(1.0, 101))).kthvalue(180).values
    assert Mapping("pair").saturated(weight, mapping.largest(weight)) is None


def test_scale_of_each_crossbar():
    weight = weight_of(5, 4).abs() + 1
    layout = Layout.of(torch.Size((5, 4)), rows=2, cols=3)
    column = Mapping("pair", "column").largest(weight, layout)
    assert torch.equal(column[:, 0], weight[:, :2].amax(1))
    assert torch.equal(column[:, 3], weight[:, 2:].amax(1))
    crossbar = Mapping("pair", "crossbar").largest(weight, layout)
    for left, right in layout.cols:
        for top, bottom in layout.rows:
            block = (slice(left, right), slice(top, bottom))
            assert (crossbar[block] == weight[block].max()).all()
    assert Mapping("pair", "tensor").largest(weight, layout) == weight.max()
    part = Mapping("pair", "crossbar", percentile=50).largest(weight, layout)
    left, right = layout.cols[0]
    block = weight[left:right, :2].flatten()
    assert part[0, 0] == block.sort().values[-(-len(block) // 2) - 1]


def test_zero_stands_at_g_min():
    _, g = there(Mapping("pair"), torch.tensor([[0.0, 1.0]]))
    assert g[:, 0, 0].tolist() == [G_MIN, G_MIN]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scale_by_column_or_tensor(shape):
    weight = weight_of(*shape)
    column = Mapping("pair", "column").largest(weight)
    assert column.shape == (shape[0], *(1,) * (len(shape) - 1))
    assert torch.equal(column.flatten(), weight.abs().flatten(1).amax(1) if len(shape) > 1 else weight.abs())
    tensor = Mapping("pair", "tensor").largest(weight)
    assert tensor.shape == ()
    assert tensor == weight.abs().max()


def test_each_column_fills_the_range():
    weight = weight_of(6, 5) * torch.logspace(-3, 3, 6)[:, None]
    _, g = there(Mapping("pair", "column"), weight)
    torch.testing.assert_close(g.amax((0, 2)), torch.full((6,), G_MAX).double())


@pytest.mark.parametrize("mapping", MAPPINGS, ids=str)
def test_a_column_of_zeros_takes_the_scale_of_the_tensor(mapping):
    weight = weight_of(6, 5)
    weight[2] = 0
    largest = mapping.largest(weight)
    if mapping.scale == "column":
        assert largest[2] == weight.abs().max()
        assert torch.equal(largest[:2, 0], weight[:2].abs().amax(1))
    torch.testing.assert_close(back(mapping, weight), weight)


@pytest.mark.parametrize("mapping", MAPPINGS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_tensor_of_zeros_takes_the_bound_of_initialisation(mapping, shape):
    largest = mapping.largest(torch.zeros(shape))
    inputs = torch.zeros(shape).numel() / shape[0]
    torch.testing.assert_close(largest, torch.full_like(largest, inputs**-0.5))
    assert not back(mapping, torch.zeros(shape)).any()


@pytest.mark.parametrize("scale", ["column", "tensor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("g_min", [0.0, 0.1, 9.0])
def test_the_largest_weight_never_exceeds_g_max(scale, dtype, g_min):
    # One rounding error past the range, and formulas that end there are asked beyond their end.
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(2000, 8, generator=generator, dtype=dtype) * 10 ** torch.randn(2000, 1, generator=generator)
    for g_max in (20.7, 25.0, 39.26, 88.2):
        _, g = there(Mapping("pair", scale), weight, g_min, g_max)
        assert g.max() <= g_max
        assert g.min() >= g_min


@pytest.mark.parametrize("scale", ["column", "tensor"])
@pytest.mark.parametrize("size", [1e-45, 1e-41, 1e-38, 1e37])
def test_weights_at_the_ends_of_float32(scale, size):
    # The range over a denormal number is infinite: a column that weight decay starved must not become NaN.
    weight = torch.tensor([[size, 0.0, -size], [1.0, 0.5, -1.0]])
    if scale == "tensor":
        weight = weight[:1]
    _, g = there(Mapping("pair", scale), weight)
    assert g[:, 0].tolist() == [[G_MAX, G_MIN, G_MIN], [G_MIN, G_MIN, G_MAX]]


@pytest.mark.parametrize("mapping", MAPPINGS, ids=str)
def test_chip_dimensions_stay_in_front(mapping):
    weight = weight_of(6, 5)
    largest, g = there(mapping, weight)
    chips = torch.stack((g, g, g)).unsqueeze(0)
    weights = mapping.to_weight(chips, 2, largest, G_MIN, G_MAX)
    torch.testing.assert_close(weights, weight.expand(1, 3, 6, 5))
    assert mapping.to_weight_variance(chips, 2, largest, G_MIN, G_MAX).shape == (1, 3, 6, 5)


@pytest.mark.parametrize("mapping", MAPPINGS, ids=str)
def test_variance_is_that_of_the_weights(mapping):
    """Against a sample, within 5 standard errors."""
    n, weight = 100_000, weight_of(3, 2)
    largest, g = there(mapping, weight)
    std = torch.rand(g.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    xi = torch.randn((n, *g.shape), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    sample = mapping.to_weight(g + std * xi, 2, largest, G_MIN, G_MAX).var(0)
    variance = mapping.to_weight_variance(std.square(), 2, largest, G_MIN, G_MAX)
    assert ((sample - variance).abs() < 5 * variance * (2 / n) ** 0.5).all()


def test_the_weight_is_not_written_into():
    for mapping in MAPPINGS:
        weight = weight_of(6, 5)
        there(mapping, weight)
        assert torch.equal(weight, weight_of(6, 5))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"cells": "triple"}, 'cells must be one of "pair", "two-sided", "offset", "signed", got \'triple\''),
        ({"scale": "row"}, 'mapping: scale must be one of "column", "crossbar", "tensor", got \'row\''),
        ({"scale": None}, 'scale must be one of "column", "crossbar", "tensor", got None'),
        ({"slices": 0}, "mapping: slices must be an integer >= 1, got 0"),
        ({"slice_bits": 2.0}, "mapping: slice_bits must be an integer >= 1, got 2.0"),
        ({"copies": True}, "mapping: copies must be an integer >= 1, got True"),
        ({"bias_rows": -1}, "mapping: bias_rows must be an integer >= 0, got -1"),
        ({"percentile": 0}, r"mapping: percentile must be in \(0, 100\], got 0"),
        ({"percentile": 100.1}, r"mapping: percentile must be in \(0, 100\], got 100.1"),
        ({"cells": "signed", "copies": 2}, 'with cells="signed" both must be 1'),
    ],
)
def test_illegal_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        Mapping(**parameters)


def test_a_mapping_is_a_value():
    mapping = Mapping("pair", "tensor")
    assert eval(repr(mapping)) == mapping
    assert hash(Mapping("pair", "tensor")) == hash(mapping)
    assert (Mapping("pair").cells_per_weight, Mapping("signed").cells_per_weight) == (2, 1)


@pytest.mark.parametrize("scale", ["column", "tensor", "crossbar"])
@pytest.mark.parametrize(
    ("percentile", "rank"), [(50, 4), (57, 4), (58, 5), (85, 6), (86, 7), (99, 7), (1, 1), (14.2, 1)]
)
def test_at_least_the_percentile_of_the_weights_fits(scale, percentile, rank):
    """Of seven weights, seven sevenths of which make 100 %: never a weight less than was asked for."""
    weight = torch.tensor([[3.0, -7.0, 1.0, 5.0, -2.0, 6.0, -4.0]])
    layout = Layout.of(weight.shape)
    assert float(Mapping("pair", scale, percentile=percentile).largest(weight, layout).max()) == rank
    assert (weight.abs() <= rank).double().mean() >= percentile / 100


# A reference that is a number


IDEAL = Mapping("offset", "tensor", reference="ideal")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("mapping", [IDEAL, IDEAL.__class__("offset", slices=3, copies=2, reference="ideal")], ids=str)
def test_an_ideal_reference_has_no_cells(mapping, shape):
    weight = weight_of(*shape)
    layout = Layout.of(weight.shape, rows=2, cols=2)
    _, g = there(mapping, weight)
    assert g.shape == (mapping.cells_per_weight, *weight.shape)
    assert mapping.references(layout) == 0
    assert not mapping.has_references
    torch.testing.assert_close(back(mapping, weight), weight, rtol=1e-13, atol=1e-13)


def test_an_ideal_reference_adds_no_variance():
    weight = weight_of(6, 5)
    largest, g = there(IDEAL, weight)
    own = IDEAL.to_weight_variance(torch.ones_like(g), 2, largest, G_MIN, G_MAX)
    torch.testing.assert_close(own, (2 * largest / (G_MAX - G_MIN)).square().expand_as(weight))
    cells = Mapping("offset", "tensor")
    with_cells = cells.to_weight_variance(torch.ones_like(there(cells, weight)[1]), 2, largest, G_MIN, G_MAX)
    torch.testing.assert_close(with_cells, 2 * own)


def test_a_reference_is_of_offset_cells():
    with pytest.raises(ValueError, match='reference="ideal" is of cells="offset", got cells="pair"'):
        Mapping("pair", reference="ideal")
    with pytest.raises(ValueError, match='reference must be one of "cells", "ideal", got \'none\''):
        Mapping("offset", reference="none")


@pytest.mark.parametrize(("levels", "middle"), [(None, 0.5), (2, 1.0), (3, 0.5), (16, 8 / 15), (17, 0.5)])
def test_reference_cells_stand_at_a_level(levels, middle):
    assert Mapping("offset").middle(levels) == middle
    assert Mapping("offset", slices=2).middle(levels) == (0.5 if levels is None else 128 / 255)


# Percentiles


@pytest.mark.parametrize(
    ("percentile", "kept"), [(50, 4), (57, 4), (58, 5), (14, 1), (15, 2), (99, 7), (86, 7), (85.7, 6)]
)
def test_the_percentile_of_seven_weights_is_the_least_that_reaches_the_share(percentile, kept):
    """Of 1 to 7: four of seven are 57.1 %, so 58 % needs the fifth; rounding down would take the fourth."""
    weight = torch.tensor([[3.0, -7.0, 1.0, 5.0, -2.0, 6.0, 4.0]])
    for scale in ("column", "tensor", "crossbar"):
        assert float(Mapping("pair", scale, percentile=percentile).largest(weight)) == kept
