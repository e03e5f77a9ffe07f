"""A weight laid on cells leads back from its conductances by itself, and says what the older methods say."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from analogsim import DeviceModel, Drift, Gaussian, Mapping, Quantization, ReadNoise
from analogsim.mapping import Layout, MappedWeight
from analogsim.noise import KeyedNoise

G_MIN, G_MAX = 2.0, 25.0
SHAPES = [(7,), (6, 5), (4, 3, 5), (3, 2, 2, 3)]
ON_CELLS = [
    Mapping(cells, scale, slices=slices, slice_bits=bits, copies=copies, bias_rows=bias_rows)
    for cells, scale, (slices, bits), copies, bias_rows in itertools.product(
        ("pair", "two-sided", "offset"), ("column", "crossbar", "tensor"), ((1, 4), (3, 2)), (1, 2), (0, 2)
    )
]
SIGNED = [
    Mapping("signed", scale, bias_rows=bias_rows)
    for scale, bias_rows in itertools.product(("column", "crossbar", "tensor"), (0, 2))
]
CROSSBARS = {"one": (None, None), "four by three": (4, 3)}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def laid(mapping: Mapping, shape: tuple[int, ...], most: tuple[int | None, int | None]) -> tuple[Tensor, Layout]:
    """A weight with its bias rows, and the blocks that it lies in."""
    rows, cols = most
    layout = Layout.of(torch.Size(shape), rows=rows, cols=cols, bias_rows=mapping.bias_rows)
    return layout.lay(draw(*shape), draw(shape[0], seed=1)), layout


def mapped_of(mapping: Mapping, weight: Tensor, layout: Layout | None, g_min: float = G_MIN) -> MappedWeight:
    return MappedWeight(mapping, layout, g_min, G_MAX, mapping.largest(weight, layout), weight.ndim)


@pytest.mark.parametrize("most", CROSSBARS.values(), ids=CROSSBARS.keys())
@pytest.mark.parametrize("mapping", [*ON_CELLS, *SIGNED], ids=str)
def test_targets_stand_for_the_weight(mapping: Mapping, most: tuple[int | None, int | None]) -> None:
    for shape in SHAPES[1:] if mapping.bias_rows else SHAPES:  # a bias lies beside a matrix
        weight, layout = laid(mapping, shape, most)
        for g_min in (0.0, G_MIN):
            mapped = mapped_of(mapping, weight, layout, g_min)
            g = mapped.targets(weight)
            columns = len(weight) + mapping.references(layout)
            assert g.shape == (mapping.cells_per_weight, columns, *weight.shape[1:])
            if mapping.cells != "signed":
                assert g.min() >= g_min
                assert g.max() <= G_MAX
            torch.testing.assert_close(mapped.to_weight(g), weight, rtol=1e-13, atol=1e-13)
            slices = mapped.to_slices(g)
            assert slices.shape == (mapping.slices, *weight.shape)
            torch.testing.assert_close(mapping.join(slices), weight, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("most", CROSSBARS.values(), ids=CROSSBARS.keys())
@pytest.mark.parametrize("mapping", [*ON_CELLS, *SIGNED], ids=str)
def test_every_method_says_what_those_of_the_mapping_say(mapping: Mapping, most: tuple[int | None, int | None]) -> None:
    weight, layout = laid(mapping, (6, 5), most)
    mapped = mapped_of(mapping, weight, layout)
    largest, g = mapped.largest, mapped.targets(weight)
    assert torch.equal(g, mapping.to_conductance(weight, largest, G_MIN, G_MAX, layout))
    g = g + draw(*g.shape, seed=2)
    place = (2, largest, G_MIN, G_MAX, layout)
    for one, other in (
        (mapped.to_weight, mapping.to_weight),
        (mapped.to_slices, mapping.slice_weights),
        (mapped.to_variance, mapping.to_weight_variance),
        (mapped.to_slice_variances, mapping.slice_variances),
    ):
        assert torch.equal(one(g), other(g, *place))
    faults = torch.randint(0, 3, g.shape, generator=torch.Generator().manual_seed(3))
    assert torch.equal(mapped.around(g, faults), mapping.around(g, faults, G_MIN, G_MAX))
    follows = mapped.following(weight, faults != 0)
    assert follows is not None
    assert torch.equal(follows, mapping.following(weight, faults != 0))
    assert mapped.following(weight, None) is None
    assert mapped.saturated(weight) is None


def test_a_percentile_takes_the_gradient_of_what_is_beyond() -> None:
    weight = draw(6, 40)
    mapped = mapped_of(Mapping(percentile=90.0), weight, None)
    saturated = mapped.saturated(weight)
    assert saturated is not None
    assert torch.equal(saturated, weight.abs() > mapped.largest)
    assert saturated.any(1).all()
    follows = mapped.following(weight, None)
    assert follows is not None
    assert torch.equal(follows == 0, saturated)
    held = torch.zeros(2, 6, 40, dtype=torch.bool)
    held[:, 0] = True
    follows = mapped.following(weight, held)
    assert follows is not None
    assert not follows[0].any()
    assert torch.equal(follows[1:] == 0, saturated[1:])


@pytest.mark.parametrize(
    "mapping",
    [Mapping(), Mapping("offset", slices=2), Mapping("two-sided", copies=2), Mapping("pair", "crossbar", 90.0, 2)],
    ids=str,
)
def test_what_a_device_writes_knows_the_way_back(mapping: Mapping) -> None:
    chain = (Quantization(8), Gaussian(0.05), Drift(0.05), ReadNoise(0.02))
    device = DeviceModel(chain, g_min=1.0, g_max=20.0, mapping=mapping)
    weight = draw(6, 5)
    layout = Layout.of(weight.shape, rows=4, cols=3)
    written = device.program(weight, KeyedNoise("chip"), layout)
    mapped = written.mapped
    assert (mapped.mapping, mapped.g_min, mapped.g_max) == (mapping, 1.0, 20.0)
    assert written.layout is mapped.layout is layout
    assert written.largest is mapped.largest
    assert torch.equal(mapped.largest, device.largest(weight, layout))
    assert written.ndim == mapped.ndim == 2
    assert torch.equal(mapped.targets(weight), written.cells.target)
    g = device.read(written, 100.0, KeyedNoise("read"))
    assert torch.equal(mapped.to_weight(g), device.to_weight(g, written))
    assert torch.equal(mapped.to_slices(g), device.to_slices(g, written))
    variance = device.cell_variance(g, written)
    for one, other in (
        (mapped.to_variance, device.read_variance(g, written)),
        (mapped.to_slice_variances, device.slice_variance(g, written)),
    ):
        assert other is not None
        assert torch.equal(one(variance), other)


def test_chips_in_one_tensor_are_the_chips_one_by_one() -> None:
    weight = draw(6, 5)
    for mapping in ON_CELLS:
        mapped = mapped_of(mapping, weight, None)
        g = mapped.targets(weight)
        chips = torch.stack((g, g + 0.5, 0.9 * g)).unsqueeze(0)
        for read in (mapped.to_weight, mapped.to_slices, mapped.to_variance, mapped.to_slice_variances):
            together = read(chips)
            for place, chip in enumerate(chips[0]):
                torch.testing.assert_close(together[0, place], read(chip), rtol=1e-14, atol=1e-14)
