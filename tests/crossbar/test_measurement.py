"""The measurement of columns: what vectors are driven, and what comes of it through every kind of converter."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from analogsim import Crossbar, DeviceModel, Gaussian, Mapping
from analogsim.crossbar.measurement import (
    LEAST_VECTORS,
    MOST_VECTORS,
    Measurement,
    measure_cells,
    measure_outputs,
    sign_vectors,
)
from analogsim.crossbar.signal_path import Array, array_of
from analogsim.mapping.layout import Layout
from analogsim.noise import KeyedNoise

K = 4.5  # standard errors


def weight_of(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def arrays(
    clean: Tensor,
    weight: Tensor,
    layout: Layout,
    crossbar: Crossbar,
    *,
    mapping: Mapping | None = None,
    variance: Tensor | None = None,
) -> tuple[Tensor, Array]:
    """What the slices stand for without errors, and the array with a weight, with converters of chip 0."""
    device = DeviceModel((Gaussian(0.0),), mapping=mapping or Mapping("pair", "column"))
    ideal, now = (device.lay_out(each, layout) for each in (clean, weight))
    slices = ideal.mapped.to_slices(now.cells.target * now.largest / ideal.largest)
    variances = None if variance is None else variance.unsqueeze(0)
    array = array_of(slices, variances, ideal.largest, layout, device, None, torch.float64)
    array = array.with_converter_errors(crossbar, KeyedNoise("converters"))
    return ideal.mapped.to_slices(ideal.cells.target).view(array.slices.shape), array


def measure(
    clean: Tensor, weight: Tensor, layout: Layout, crossbar: Crossbar, *, seed: int = 0, **more: object
) -> Measurement:
    ideal, array = arrays(clean, weight, layout, crossbar, **more)  # type: ignore[arg-type]
    bound = crossbar.output_bound
    assert not isinstance(bound, str)
    return measure_outputs(clean, ideal, array, crossbar, bound, KeyedNoise(str(seed)))


# --- vectors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [0, 1, 3])
@pytest.mark.parametrize("lines", [1, 2, 3, 100, 255, 256, 300, 512])
def test_vectors_are_orthogonal(lines: int, parts: int) -> None:
    """All word lines are driven as often, and over all vectors no two of them alike, as the sum of x x' says."""
    layout = Layout.of(torch.Size((1, lines)))
    chunks = list(sign_vectors(torch.empty(0), lines, torch.tensor(float(parts)), layout, 100))
    vectors = torch.cat(chunks)
    count = len(vectors)
    assert count == max(LEAST_VECTORS, 2 ** math.ceil(math.log2(lines)))
    assert all(len(chunk) <= 100 for chunk in chunks)
    assert set(vectors.unique().tolist()) <= {-1.0, 0.0, 1.0}
    torch.testing.assert_close(vectors.t() @ vectors, torch.eye(lines) * count / 2**parts)
    alike = int((vectors.sum(0) != 0).sum())
    assert alike <= 2**parts if lines + 2**parts > count else alike == 0  # so that no offset of a converter is in it
    assert 0.2 < float((vectors[vectors != 0] > 0).float().mean()) < 0.8


def test_signs_differ_from_block_to_block_and_not_from_time_to_time() -> None:
    layout = Layout.of(torch.Size((1, 60)), rows=30)
    first, again = (torch.cat(list(sign_vectors(torch.empty(0), 30, torch.zeros(()), layout, 512))) for _ in range(2))
    assert torch.equal(first, again)
    one, other = first.split(30, 1)
    assert 5 < int((one * other).eq(1).all(0).sum()) < 25  # by column, one sign for each


def test_of_long_lines_some_vectors_are_driven() -> None:
    lines = 2 * MOST_VECTORS
    layout = Layout.of(torch.Size((1, lines)))
    vectors = torch.cat(list(sign_vectors(torch.empty(0), lines, torch.zeros(()), layout, 300)))
    assert vectors.shape == (MOST_VECTORS, lines)
    between = (vectors.t() @ vectors / MOST_VECTORS).fill_diagonal_(0)
    assert float(between.square().mean().sqrt()) == pytest.approx(MOST_VECTORS**-0.5, rel=0.4)


# --- what is measured -----------------------------------------------------------------------------------------------

LAYOUTS = {
    "whole": Layout.of(torch.Size((6, 40))),
    "cut": Layout.of(torch.Size((6, 40)), rows=16, cols=2),
    "bias": Layout.of(torch.Size((6, 37)), rows=16, bias_rows=3),
    "groups": Layout.of(torch.Size((6, 40)), groups=3, rows=16),
    "one line": Layout.of(torch.Size((6, 1))),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize(
    "crossbar",
    [
        Crossbar(dac_bits=6),
        Crossbar(dac_bits=6, bit_serial=True),
        Crossbar(dac_bits=4, dac="unsigned"),
        Crossbar(output_bound=4.0),
        Crossbar(output_bound=0.3),
        Crossbar(dac_bits=5, output_bound=1.0),
        Crossbar(output_bound=50.0, offset_mismatch=0.1),
    ],
    ids=str,
)
@pytest.mark.parametrize("slices", [1, 3])
def test_without_noise_it_is_exact(name: str, crossbar: Crossbar, slices: int) -> None:
    """Whatever is driven, it is the sum of the clean weights times those that are there."""
    layout = LAYOUTS[name]
    clean = weight_of(6, layout.rows[-1][1])
    now = clean * 0.5 + 0.05 * weight_of(*clean.shape, seed=1)
    mapping = Mapping("pair", "column", slices=slices) if slices > 1 else None
    found = measure(clean, now, layout, crossbar, mapping=mapping)
    torch.testing.assert_close(found.sums, layout.column_sums(clean * now))
    exact = measure_cells(clean, now, None, layout, KeyedNoise())
    torch.testing.assert_close(exact.sums, found.sums)
    torch.testing.assert_close(exact.error, found.error, rtol=0.3, atol=1e-6)


def test_a_gain_of_a_converter_is_in_it_and_an_offset_is_not() -> None:
    layout, clean = LAYOUTS["cut"], weight_of(6, 40)
    crossbar = Crossbar(output_bound=50.0, gain_mismatch=0.1, offset_mismatch=0.1)
    _, array = arrays(clean, clean, layout, crossbar)
    found = measure(clean, clean, layout, crossbar)
    wanted = layout.column_sums(clean.square()) * (1 + array.converter_errors["gain"][0])
    torch.testing.assert_close(found.sums, wanted)


@pytest.mark.parametrize("dac", ["symmetric", "unsigned"])
@pytest.mark.parametrize("size", [(4, 3), (4, 100)])
def test_steps_and_noise_of_converters_make_it_scatter_and_do_not_shift_it(size: tuple[int, int], dac: str) -> None:
    """Mean and scatter of 120 measurements: sigma |w| / sqrt(K), of both readings where there are two."""
    layout, clean = Layout.of(torch.Size(size)), weight_of(*size)
    crossbar = Crossbar(dac_bits=8, adc_bits=8, output_bound=30.0, output_noise=0.2, dac=dac)  # type: ignore[arg-type]
    found = torch.stack([measure(clean, clean, layout, crossbar, seed=seed).sums for seed in range(120)])
    step = 30 / 127
    sigma = clean.abs().amax(1, keepdim=True) * math.sqrt((0.2**2 + step**2 / 12) * (1 + (dac == "unsigned")))
    expected = sigma * clean.norm(dim=1, keepdim=True) / LEAST_VECTORS**0.5
    assert ((found.std(0) / expected - 1).abs() < 0.05 + K / math.sqrt(240)).all()
    wanted = layout.column_sums(clean.square())
    assert ((found.mean(0) - wanted).abs() < K * expected / 120**0.5).all()


@pytest.mark.parametrize("crossbar", [Crossbar(), Crossbar(output_bound=1e9)], ids=["ideal", "converters"])
def test_white_read_noise_is_that_of_all_lines(crossbar: Crossbar) -> None:
    """Every line is driven in every vector, so each answer has the noise of all its cells: |w|^2 sum s^2 / K."""
    layout, clean = Layout.of(torch.Size((4, 100))), weight_of(4, 100)
    variance = 0.04 * (1 + clean.square())
    if crossbar.converts:
        found = torch.stack(
            [measure(clean, clean, layout, crossbar, seed=k, variance=variance).sums for k in range(120)]
        )
    else:
        found = torch.stack(
            [measure_cells(clean, clean, variance, layout, KeyedNoise(str(k))).sums for k in range(120)]
        )
    count = LEAST_VECTORS if crossbar.converts else MOST_VECTORS
    expected = (clean.square().sum(1) * variance.sum(1) / count).sqrt().unsqueeze(1)
    assert ((found.std(0) / expected - 1).abs() < K / math.sqrt(240)).all()
    assert ((found.mean(0) - clean.square().sum(1, keepdim=True)).abs() < K * expected / 120**0.5).all()


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_no_converter_saturates(scale: float) -> None:
    """Weights that are all alike make the largest currents; a bound that is far too small would cut them."""
    clean = scale * torch.ones(8, 400, dtype=torch.float64)
    layout = Layout.of(clean.shape)
    for bound in (0.1, 2.0, 12.0):
        crossbar = Crossbar(dac_bits=8, adc_bits=10, output_bound=bound)
        found = measure(clean, clean / 2, layout, crossbar)
        torch.testing.assert_close(found.sums, layout.column_sums(clean.square()) / 2, rtol=0.01, atol=0.0)


def test_more_lines_than_vectors() -> None:
    """A choice of the vectors: off by the errors of cells over sqrt(K), while what has faded alike cancels out."""
    clean = weight_of(300, 2 * MOST_VECTORS)
    now = clean / 2 + 0.2 * weight_of(*clean.shape, seed=1)
    layout = Layout.of(clean.shape)
    fresh, later = (measure(clean, weight, layout, Crossbar(dac_bits=8)).sums for weight in (clean, now))
    off = later / fresh / (layout.column_sums(clean * now) / layout.column_sums(clean.square())) - 1
    error = 0.4 / math.sqrt(2 * MOST_VECTORS)  # half of the vectors is there, so half of the squared error
    assert float(off.std()) == pytest.approx(error, rel=K / math.sqrt(600))
    assert abs(float(off.mean())) < K * error / math.sqrt(300)


# --- what is made of it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("converters", [False, True])
def test_a_column_that_reads_noise_fades_as_its_crossbar_does(converters: bool) -> None:
    clean = weight_of(8, 50)
    clean[2] *= 1e-3  # tiny beside the errors of its cells
    layout = Layout.of(clean.shape, cols=4)
    fresh = clean + 0.02 * weight_of(8, 50, seed=1)
    now = clean / 2 + 0.02 * weight_of(8, 50, seed=2)
    now[:4] /= 2
    now[1] = 0.02 * weight_of(50, seed=3)  # its line is broken
    found = []
    for weight in (fresh, now):
        if converters:
            found.append(measure(clean, weight, layout, Crossbar(output_bound=1e9)))
        else:
            found.append(measure_cells(clean, weight, None, layout, KeyedNoise()))
    reference, sums = found[0].sums, found[1].beside(found[0].sums, layout)
    left = found[1].sums[:4].sum() / reference[:4].sum()
    torch.testing.assert_close(sums[1:3], reference[1:3] * left)
    sound = [0, 3, 4, 5, 6, 7]
    assert torch.equal(sums[sound], found[1].sums[sound])
