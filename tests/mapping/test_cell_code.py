import pytest
import torch

from analogsim import Mapping


def test_stuck_cells_take_their_share_of_the_gradient():
    weight = torch.tensor([[1.0, -1.0]])
    held = torch.zeros(8, 1, 2, dtype=torch.bool)
    mapping = Mapping("pair", slices=2, slice_bits=2, copies=2)
    held[0, 0, 0] = True  # one copy of the upper slice of G+
    held[4, 0, 0] = True  # of G-, which carries nothing
    share = mapping.significance[0]
    torch.testing.assert_close(mapping.following(weight, held), torch.tensor([[1 - share / 2, 1.0]]))
    two = torch.zeros(2, 1, 2, dtype=torch.bool)
    two[0, 0, 0] = True
    assert Mapping("two-sided").following(weight, two).tolist() == [[0.5, 1.0]]
    assert Mapping("pair").following(weight, two).tolist() == [[0.0, 1.0]]
    one = torch.tensor([[[True, False], [True, True]]])  # the second row is the reference column
    assert Mapping("offset").following(weight, one).tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize(("slices", "bits"), [(1, 4), (2, 3), (3, 2), (5, 1)])
def test_digits_of_a_part_are_whole_but_the_last(slices, bits):
    code = Mapping(slices=slices, slice_bits=bits)
    part = torch.rand((2, 40, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    digits = code.digits(part).unflatten(0, (2, slices))
    steps = 2**bits - 1
    assert torch.equal(digits[:, :-1] * steps, (digits[:, :-1] * steps).round())
    torch.testing.assert_close(torch.stack([code.join(plane) for plane in digits]), part, rtol=1e-14, atol=1e-14)


def test_the_order_of_cells_is_plane_slice_copy():
    code = Mapping(slices=2, copies=3)
    cells = torch.arange(12.0).view(12, 1)
    assert code.cells_per_weight == 12
    assert code.by_plane(cells, 1).tolist() == [[[1.0], [4.0]], [[7.0], [10.0]]], "copies by their mean"


@pytest.mark.parametrize(
    ("cells", "parts"),
    [
        ("pair", [[[1.0, 0.0]], [[0.0, 0.5]]]),
        ("two-sided", [[[1.0, 0.25]], [[0.0, 0.75]]]),
        ("offset", [[[1.0, 0.25], [0.5, 0.5]]]),
    ],
)
def test_parts_are_between_zero_and_one(cells, parts):
    assert Mapping(cells).parts(torch.tensor([[1.0, -0.5]]), 1).tolist() == parts
