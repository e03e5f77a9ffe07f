import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import analogsim
from analogsim import Cells, DeviceModel, Effect, Gaussian, Mapping, Quantization
from analogsim.noise import KeyedNoise

K = 5  # standard errors
PAIR = Mapping("pair", "tensor")


def programmed(quantization, weight, key="levels", **model):
    device = DeviceModel((quantization,), mapping=PAIR, **model)
    return device, device.program(weight, KeyedNoise(key))


@pytest.mark.parametrize("g_min", [0.0, 5.0])
@pytest.mark.parametrize("levels", [2, 3, 16, 255])
@pytest.mark.parametrize("stochastic", [False, True])
def test_cells_stand_on_levels(levels, g_min, stochastic):
    weight = torch.linspace(-1, 1, 1001).double()
    _, written = programmed(Quantization(levels, stochastic), weight, g_min=g_min)
    level = (written.programmed - g_min) / (25.0 - g_min) * (levels - 1)
    torch.testing.assert_close(level, level.round())
    assert level.round().min() == 0
    assert level.round().max() == levels - 1
    step = (25.0 - g_min) / (levels - 1)
    furthest = (written.programmed - written.cells.target).abs().max()
    assert furthest <= step * (1 if stochastic else 0.5) * (1 + 1e-6)


@pytest.mark.parametrize("levels", [2, 5, 16])
def test_a_pair_holds_twice_the_levels_but_one(levels):
    device, written = programmed(Quantization(levels), torch.linspace(-3, 3, 5001))
    values = device.to_weight(written.programmed, written).unique()
    torch.testing.assert_close(values, torch.linspace(-3, 3, 2 * levels - 1))


def test_two_levels_are_the_ends_of_the_range():
    _, written = programmed(Quantization(levels=2), torch.tensor([-1.0, -0.51, -0.49, 0.0, 0.49, 0.51, 1.0]))
    assert written.programmed.tolist() == [[0, 0, 0, 0, 0, 25, 25], [25, 25, 0, 0, 0, 0, 0]]


@pytest.mark.parametrize("stochastic", [False, True])
def test_weights_on_levels_are_kept(stochastic):
    weight = torch.linspace(-1, 1, 31)  # the signed values of 16 levels
    device, written = programmed(Quantization(16, stochastic), weight.repeat(100, 1))
    # In float32 a level may come out a rounding error too low and then fall: at most once in a million.
    kept = (device.to_weight(written.programmed, written) - weight).abs() < 1e-5
    assert kept.all()


@pytest.mark.parametrize("x", [0.01, 0.25, 0.5, 0.9])
def test_stochastic_rounding_keeps_the_mean(x):
    levels, n = 4, 200_000
    weight = torch.full((n,), x).double()
    weight[0] = 1.0
    _, written = programmed(Quantization(levels, stochastic=True), weight)
    position = x * (levels - 1)
    up = position - math.floor(position)
    level = written.programmed[0, 1:] / 25.0 * (levels - 1)
    assert abs(level.mean() - position) < K * math.sqrt(up * (1 - up) / n)
    assert level.round().unique().tolist() == [math.floor(position), math.floor(position) + 1]


def test_there_is_no_level_beyond_the_range():
    device = DeviceModel((Gaussian(0.5), Quantization(levels=4)), g_min=5.0, mapping=PAIR)
    written = device.program(torch.linspace(-1, 1, 1001), KeyedNoise("beyond"))
    assert written.programmed.amin() == 5.0
    assert written.programmed.amax() == 25.0


def test_nearest_rounding_draws_nothing():
    weight = torch.linspace(-1, 1, 1001)
    one, other = (programmed(Quantization(7), weight, key)[1].programmed for key in ("a", "b"))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"levels": 1}, ValueError, "Quantization: levels must be >= 2, got 1"),
        ({"levels": 15.5}, TypeError, "Quantization: levels must be an integer, got 15.5"),
        ({"levels": True}, TypeError, "Quantization: levels must be an integer, got True"),
        ({"stochastic": 1}, TypeError, "Quantization: stochastic must be True or False, got 1"),
    ],
)
def test_illegal_parameters(parameters, error, message):
    with pytest.raises(error, match=message):
        Quantization(**parameters)


def test_signed_weights_have_no_levels():
    with pytest.raises(ValueError, match=r"Quantization acts on conductances and needs Mapping\('pair'\)"):
        DeviceModel((Quantization(),), mapping=Mapping("signed"))


# Bit slices on cells of levels: digits of the integer code


def ramp(cells: str, slices: int, bits: int, copies: int = 1, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
    """A fine ramp of weights from -1 to 1, and what is written of it."""
    mapping = Mapping(cells, "tensor", slices=slices, slice_bits=bits, copies=copies, **options)
    device = DeviceModel((Quantization(2**bits),), g_min=1.0, g_max=20.0, mapping=mapping)
    weight = torch.linspace(-1, 1, 40_001, dtype=torch.float64).unsqueeze(1)
    written = device.program(weight, KeyedNoise("ramp"))
    return weight[:, 0], device.to_weight(written.programmed, written)[:, 0]


SLICED = [(8, 1), (4, 2), (2, 4), (3, 3), (2, 1), (1, 4), (3, 1)]


@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize(("slices", "bits"), SLICED)
@pytest.mark.parametrize("cells", ["pair", "two-sided", "offset", "ideal"])
def test_all_codes_are_reached_and_the_error_is_half_a_step(cells: str, slices: int, bits: int, copies: int) -> None:
    """A pair has the codes of either sign, with zero in common; the others spread theirs over both.

    The two sides of a pair are rounded alike: midway between two codes, as zero is, they stand for the middle.
    """
    options = {"reference": "ideal"} if cells == "ideal" else {}
    weight, seen = ramp("offset" if cells == "ideal" else cells, slices, bits, copies, **options)
    codes = 2 ** (slices * bits)
    step = (1 if cells == "pair" else 2) / (codes - 1)
    assert (seen - weight).abs().max() <= step / 2 * (1 + 1e-9)
    assert (seen.diff() > -1e-12).all()
    levels = (seen / step * 2).round().unique()
    if cells == "two-sided":
        assert 0 in levels
        levels = levels[levels % 2 != 0]
    assert len(levels) == (2 * codes - 1 if cells == "pair" else codes)


def test_the_two_cases_of_the_issue() -> None:
    """Issue 18: 129 of 256 levels with eight slices of a bit, 193 of 256 with four of two."""
    for slices, bits in ((8, 1), (4, 2)):
        weight, seen = ramp("pair", slices, bits)
        positive = seen[weight >= 0]
        assert len((positive * 255).round().unique()) == 256


@pytest.mark.parametrize(("slices", "bits"), [(4, 2), (2, 4)])
def test_cells_of_more_levels_than_a_digit_has_are_no_worse(slices: int, bits: int) -> None:
    mapping = Mapping("pair", "tensor", slices=slices, slice_bits=bits)
    device = DeviceModel((Quantization(3 * (2**bits - 1) + 1),), mapping=mapping)
    weight = torch.linspace(-1, 1, 40_001, dtype=torch.float64).unsqueeze(1)
    written = device.program(weight, KeyedNoise("finer"))
    error = (device.to_weight(written.programmed, written) - weight).abs()
    assert error.max() <= 0.5 / 255
    assert error.mean() < 0.2 / 255, "the last cell holds thirds of a digit"


def test_a_percentile_keeps_the_error_within() -> None:
    weight = torch.linspace(-1, 1, 2001, dtype=torch.float64).unsqueeze(0)
    mapping = Mapping("pair", percentile=90, slices=4, slice_bits=2)
    device = DeviceModel((Quantization(4),), mapping=mapping)
    written = device.program(weight, KeyedNoise("percentile"))
    seen, top = device.to_weight(written.programmed, written), float(written.largest)
    assert (seen - weight.clamp(-top, top)).abs().max() <= top * 0.5 / 255 * (1 + 1e-9)


@pytest.mark.parametrize("cells", ["pair", "two-sided", "offset"])
@pytest.mark.parametrize(("slices", "bits"), SLICED)
def test_stochastic_rounding_is_of_the_code(cells: str, slices: int, bits: int) -> None:
    """The mean is kept, within 5 standard errors, and no error exceeds a step of a plane's code (two of two)."""
    mapping = Mapping(cells, "tensor", slices=slices, slice_bits=bits, copies=2, reference="cells")
    device = DeviceModel((Quantization(2**bits, stochastic=True),), mapping=mapping)
    top, draws = 2 ** (slices * bits) - 1, 4000
    values = torch.tensor([1.0, -1.0, 0.37, -0.6, (2**bits - 0.4) / top], dtype=torch.float64)
    weight = values.unsqueeze(1).expand(-1, draws).contiguous()
    written = device.program(weight, KeyedNoise("stochastic"))
    wanted = device.map_weight(written.largest, 2).to_weight(written.cells.target)
    error = device.to_weight(written.programmed, written) - wanted
    assert error.abs().max() <= (1 if cells == "pair" else 2) / top * (1 + 1e-9)
    spread = error.std(1)
    assert (error.mean(1).abs() <= 5 * spread / draws**0.5 + 1e-9).all()


def test_digits_that_are_no_levels_are_refused_at_convert() -> None:
    device = DeviceModel((Quantization(8),), mapping=Mapping(slices=2))
    with pytest.raises(ValueError, match="slice_bits=4 makes digits from 0 to 15"):
        analogsim.convert(nn.Linear(3, 2), device)
    analogsim.convert(nn.Linear(3, 2), device.replace(mapping=Mapping(slices=2, slice_bits=3)))


def test_another_effect_says_its_levels() -> None:
    @dataclass(frozen=True)
    class Ternary(Effect):
        """Three levels of somebody else."""

        def cell_levels(self) -> int:
            return 3

        def program(self, g: torch.Tensor, cells: Cells, noise: object) -> torch.Tensor:
            half = (cells.g_max - cells.g_min) / 2
            return ((g - cells.g_min) / half).round() * half + cells.g_min

    assert DeviceModel((Ternary(), Quantization(16))).levels == 3
    assert DeviceModel((Ternary(),), mapping=Mapping("offset")).laid.middle(3) == 0.5
    with pytest.raises(ValueError, match=r"hold 3; take slice_bits=1, or"):
        analogsim.convert(nn.Linear(3, 2), DeviceModel((Ternary(),), mapping=Mapping(slices=2)))
