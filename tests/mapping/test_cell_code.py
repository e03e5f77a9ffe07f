from typing import Literal

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


@pytest.mark.parametrize(("slices", "bits"), [(1, 4), (2, 3), (3, 2), (5, 1), (2, 1), (4, 4)])
def test_digits_are_those_of_the_nearest_code(slices: int, bits: int) -> None:
    """What the code leaves over is on the last digit, or by its share on one before: half a step in all."""
    code = Mapping(slices=slices, slice_bits=bits)
    part = torch.rand((2, 400, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    part[:, :3, 0] = torch.tensor([0.0, 1.0, 0.5])
    steps = 2**bits - 1
    digits = code.digits(part).unflatten(0, (2, slices)) * steps
    assert digits.min() >= 0
    assert digits.max() <= steps
    torch.testing.assert_close(torch.stack([code.join(plane / steps) for plane in digits]), part, rtol=0, atol=1e-14)
    if slices > 1:
        rounded = digits.round()
        off = (digits - rounded).abs()
        assert off[:, -1].max() <= 0.5
        assert off[:, :-1].max() <= 0.5 / 2**bits + 1e-9, "upper digits are whole, but for what the last cannot hold"
        ends = (rounded[:, -1] == 0) | (rounded[:, -1] == steps)
        assert not (off[:, :-1].amax(1)[~ends] > 0).any()
        whole = sum(digit * 2 ** (bits * place) for place, digit in enumerate(reversed(rounded.unbind(1))))
        assert torch.equal(whole, (part * code.largest_code).round())


def test_the_share_of_a_slice_is_that_of_its_digit_in_the_code() -> None:
    for slices, bits in ((1, 4), (2, 4), (4, 2), (8, 1), (3, 3)):
        code = Mapping(slices=slices, slice_bits=bits)
        base, top = 2**bits, 2 ** (slices * bits) - 1
        expected = [base ** (slices - 1 - k) * (base - 1) / top for k in range(slices)]
        assert code.significance == pytest.approx(expected, rel=1e-15)
        assert sum(code.significance) == pytest.approx(1.0)


def test_codes_beyond_the_dtype_stay_in_range() -> None:
    """32 bits in float32, whose numbers have 24: the largest code rounds up past itself."""
    code = Mapping(slices=8, slice_bits=4)
    part = torch.tensor([[1.0, 0.0, 0.3, 1 - 2**-24]])
    digits = code.digits(part)
    assert digits[:, 0].tolist() == [1.0] * 8
    assert digits[:, 1].tolist() == [0.0] * 8
    torch.testing.assert_close(code.join(digits), part[0], rtol=2**-23, atol=0)


def test_digits_must_be_levels_of_the_cells() -> None:
    Mapping(slices=2, slice_bits=2).check_levels(4)
    Mapping(slices=2, slice_bits=2).check_levels(16)  # 15 steps, three of each digit
    Mapping(slices=1, slice_bits=2).check_levels(7)
    with pytest.raises(ValueError, match=r"slice_bits=4 makes digits from 0 to 15.*hold 8; take slice_bits=1 or 3, or"):
        Mapping(slices=2).check_levels(8)


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


@pytest.mark.parametrize("cells", ["pair", "two-sided"])
@pytest.mark.parametrize("copies", [1, 2, 3, 6])
@pytest.mark.parametrize("outside", [False, True])
def test_working_copies_come_as_near_as_the_range_lets_them(
    cells: Literal["pair", "two-sided"], copies: int, outside: bool
) -> None:
    low, high = 5.0, 25.0
    mapping = Mapping(cells, copies=copies)
    torch.manual_seed(0)
    weight = torch.randn(7, 40, dtype=torch.float64)
    target = mapping.to_conductance(weight, mapping.largest(weight), low, high)
    stuck = torch.rand(target.shape, dtype=torch.float64) < 0.5
    ends = torch.tensor([0.0, 60.0] if outside else [low, high], dtype=torch.float64)
    held = ends[torch.randint(0, 2, target.shape)]
    faults = torch.where(stuck, held, torch.nan) if outside else stuck * (1 + (held == high).to(torch.int8))
    written = mapping.around(target, faults, low, high)
    assert torch.equal(written[stuck], held[stuck])
    assert float(written[~stuck].min()) >= low
    assert float(written[~stuck].max()) <= high

    def difference(values: torch.Tensor) -> torch.Tensor:
        sides = values.view(2, copies, *weight.shape).sum(1)
        return sides[0] - sides[1]

    up, down = torch.ones_like(target), torch.ones_like(target)
    up[:copies], up[copies:] = high, low
    down[:copies], down[copies:] = low, high
    least, most = (difference(torch.where(stuck, held, free)) for free in (down, up))
    best = torch.minimum(torch.maximum(difference(target), least), most)
    torch.testing.assert_close(difference(written), best)
    whole = ~stuck.view(2, copies, *weight.shape).any(1).any(0)
    untouched = whole.expand(2 * copies, *weight.shape)
    assert torch.equal(written[untouched], target[untouched])
