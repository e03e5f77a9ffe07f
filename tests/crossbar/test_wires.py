"""Effective conductances against two independent nodal analyses: one of our own below, and badcrossbar's."""

import itertools
import logging
import math
import warnings

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve

from analogsim.crossbar import wires as module
from analogsim.crossbar.wires import Wires, effective_conductance

UNEQUAL = Wires(row=3.0, col=11.0, source=40.0, sink=25.0)
SHAPES = [(6, 9), (9, 6), (1, 7), (7, 1), (1, 1), (12, 12)]
# Every set of resistances that are 0, so that each short circuit is met alone and with the others.
PRESENT = [
    dict(zip(("row", "col", "source", "sink"), bits, strict=True)) for bits in itertools.product((0, 1), repeat=4)
]


def conductances(*shape, g_max=250.0, empty=0.2):
    """Uniform up to g_max µS, with some cells of exactly 0."""
    generator = torch.Generator().manual_seed(sum(shape))
    g = g_max * torch.rand(shape, generator=generator, dtype=torch.float64)
    return g * (torch.rand(shape, generator=generator) >= empty)


def nodal(g, wires):
    """Kirchhoff's law for every node; nodes without a resistance between them are one. Any resistance may be 0."""
    rows, cols = g.shape
    word = np.arange(g.size).reshape(rows, cols)
    bit = word + g.size
    driver = 2 * g.size + np.arange(rows)
    ground = 2 * g.size + rows
    resistors = [(driver, word[:, 0], wires.source + wires.row), (word[:, :-1], word[:, 1:], wires.row)]
    resistors += [(bit[-1], np.full(cols, ground), wires.sink + wires.col), (bit[:-1], bit[1:], wires.col)]
    joined = sparse.lil_matrix((ground + 1, ground + 1))
    edges = [(word.ravel(), bit.ravel(), 1e-6 * g.ravel())]
    for start, end, ohm in resistors:
        if ohm == 0:
            joined[start.ravel(), end.ravel()] = 1
        else:
            edges.append((start.ravel(), end.ravel(), np.full(start.size, 1 / ohm)))
    count, node = connected_components(joined, directed=False)
    start, end, siemens = (np.concatenate(parts) for parts in zip(*edges, strict=True))
    start, end = node[start], node[end]
    index = (np.r_[start, end, start, end], np.r_[start, end, end, start])
    law = sparse.coo_matrix((np.r_[siemens, siemens, -siemens, -siemens], index), (count, count)).tocsr()
    held = np.r_[node[driver], node[ground]]
    free = np.setdiff1d(np.arange(count), held)
    voltage = np.zeros((count, rows))
    voltage[node[driver], np.arange(rows)] = 1
    if free.size:
        solved = spsolve(law[free][:, free].tocsc(), -(law[free][:, held] @ voltage[held]))
        voltage[free] = np.reshape(solved, (free.size, rows))
    across = voltage[node[word]] - voltage[node[bit]]
    return np.einsum("ij,ijk->kj", g, across)


def rounding(side, roundings=1):
    """What the rounding of float32 may do to the largest number, however a processor sums.

    The numbers are rounded once for each line that they pass, and what was rounded before does not grow.
    """
    return roundings * side * 2**-24


def error(ours, reference):
    """Largest deviation over the largest effective conductance."""
    reference = torch.as_tensor(reference)
    return float((ours.double() - reference).abs().max() / reference.abs().max())


@pytest.mark.parametrize(
    "present", PRESENT, ids=lambda present: "+".join(k for k, v in present.items() if v) or "ideal"
)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_exact_is_nodal_analysis(shape, present):
    g = conductances(*shape)
    wires = Wires(**{name: bit * getattr(UNEQUAL, name) for name, bit in present.items()})
    assert error(effective_conductance(g, wires), nodal(g.numpy(), wires)) < 1e-12


@pytest.mark.parametrize(("rows", "cols", "ohm"), [(32, 32, 0.1), (32, 32, 10.0), (64, 32, 1.0), (32, 96, 10.0)])
def test_precision(rows, cols, ohm):
    g = conductances(rows, cols)
    wires = Wires(row=ohm, col=2 * ohm)
    reference = nodal(g.numpy(), wires)
    assert error(effective_conductance(g, wires), reference) < 1e-11
    assert error(effective_conductance(g.float(), wires), reference) < rounding(max(rows, cols))


@pytest.mark.slow
@pytest.mark.parametrize("ohm", [0.1, 10.0])
@pytest.mark.parametrize("side", [128, 256])
def test_precision_of_large_crossbars(side, ohm):
    g = conductances(side, side)
    wires = Wires(row=ohm, col=ohm)
    reference = nodal(g.numpy(), wires)
    assert error(effective_conductance(g, wires), reference) < 1e-11
    assert error(effective_conductance(g.float(), wires), reference) < rounding(side)
    assert error(effective_conductance(g, Wires(row=ohm, col=ohm, mode="fast")), reference) < 0.02


@pytest.mark.parametrize("ohm", [0.1, 10.0])
@pytest.mark.parametrize("side", [32, pytest.param(128, marks=pytest.mark.slow)])
def test_precision_of_gradients(side, ohm):
    """In float32 against float64; the adjoint rounds its states up to four times for each line."""
    weight = torch.rand(side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    double = conductances(side, side).requires_grad_()
    single = double.detach().float().requires_grad_()
    wires = Wires(row=ohm, col=2 * ohm)
    (reference,) = torch.autograd.grad((effective_conductance(double, wires) * weight).sum(), double)
    (ours,) = torch.autograd.grad((effective_conductance(single, wires) * weight.float()).sum(), single)
    assert error(ours, reference) < rounding(side, 4)


@pytest.fixture(scope="module")
def badcrossbar():
    # Its import sets up logging for the whole process, and misses a drawing library that is not needed here.
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with warnings.catch_warnings(record=True):
        found = pytest.importorskip("badcrossbar")
    yield found
    root.handlers[:] = handlers
    root.setLevel(level)


class TestBadcrossbar:
    @pytest.mark.parametrize(("row", "col"), [(1.0, 7.0), (7.0, 1.0), (0.0, 5.0), (5.0, 0.0)])
    @pytest.mark.parametrize("shape", [(12, 20), (20, 12), (2, 9), (9, 2)], ids=str)
    def test_the_same_currents(self, badcrossbar, shape, row, col):
        g = conductances(*shape, empty=0)
        solution = badcrossbar.compute(
            np.eye(shape[0]),
            1e6 / g.numpy(),
            r_i_word_line=row,
            r_i_bit_line=col,
            node_voltages=False,
            all_currents=False,
        )
        ours = effective_conductance(g, Wires(row=row, col=col))
        assert error(ours, 1e6 * solution.currents.output) < 1e-11
        # The other way round would be far off, so neither axis nor end can be confused.
        assert error(effective_conductance(g, Wires(row=col, col=row)), 1e6 * solution.currents.output) > 1e-3

    def test_empty_cells(self, badcrossbar):
        g = conductances(8, 11)
        with np.errstate(divide="ignore"):
            solution = badcrossbar.compute(np.eye(8), 1e6 / g.numpy(), r_i_word_line=2.0, r_i_bit_line=5.0)
        assert error(effective_conductance(g, Wires(row=2.0, col=5.0)), 1e6 * solution.currents.output) < 1e-11


def test_one_cell_is_a_series():
    for g in (0.0, 40.0, 250.0):
        found = effective_conductance(torch.tensor([[g]], dtype=torch.float64), UNEQUAL).item()
        assert found == pytest.approx(g / (1 + 1e-6 * g * (3 + 11 + 40 + 25)), rel=1e-14)


def test_a_uniform_ladder():
    """One word line alone with ideal bit lines: u'' = r g u, so the voltages follow a hyperbolic cosine."""
    cells, ohm, g = 50, 20.0, 100.0
    found = effective_conductance(torch.full((1, cells), g, dtype=torch.float64), Wires(row=ohm))
    # 2 cosh(q) = 2 + r g, and no current beyond the last cell.
    q = math.acosh(1 + 0.5e-6 * ohm * g)
    place = torch.arange(1, cells + 1, dtype=torch.float64)
    expected = g * torch.cosh(q * (cells + 0.5 - place)) / math.cosh(q * (cells + 0.5))
    torch.testing.assert_close(found[0], expected, rtol=1e-12, atol=0)
    turned = effective_conductance(torch.full((cells, 1), g, dtype=torch.float64), Wires(col=ohm))
    torch.testing.assert_close(turned[:, 0], expected.flip(0), rtol=1e-12, atol=0)


def test_an_end_resistance_divides_the_voltage():
    """With a source alone, row i is a divider: every cell of it sees 1 / (1 + source * sum g)."""
    g = conductances(5, 8)
    expected = g / (1 + 1e-6 * 50 * g.sum(1, keepdim=True))
    torch.testing.assert_close(effective_conductance(g, Wires(source=50.0)), expected, rtol=1e-13, atol=0)
    expected = g / (1 + 1e-6 * 50 * g.sum(0, keepdim=True))
    torch.testing.assert_close(effective_conductance(g, Wires(sink=50.0)), expected, rtol=1e-13, atol=0)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_reciprocity(mode):
    """Driver and ground may change places: word lines for bit lines, and both ends turned."""
    g = conductances(40, 70)
    there = effective_conductance(g, Wires(3.0, 11.0, 40.0, 25.0, mode))
    back = effective_conductance(g.mT.flip(-1, -2), Wires(11.0, 3.0, 25.0, 40.0, mode)).mT.flip(-1, -2)
    torch.testing.assert_close(there, back, rtol=1e-11, atol=1e-11)


def test_only_the_product_of_conductance_and_resistance_counts():
    g = conductances(6, 9)
    stronger = effective_conductance(g / 8, Wires(24.0, 88.0, 320.0, 200.0))
    torch.testing.assert_close(8 * stronger, effective_conductance(g, UNEQUAL), rtol=1e-12, atol=0)


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("name", ["row", "col", "source", "sink"])
def test_more_resistance_passes_less(name, mode):
    """Driving all rows, no current grows with any resistance."""
    g = conductances(40, 36)
    total = [effective_conductance(g, Wires(**{name: ohm}, mode=mode)).sum(0) for ohm in (0.0, 0.1, 1.0, 10.0, 100.0)]
    assert all((more < less).all() for less, more in itertools.pairwise(total))


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_small_resistance_loses_in_proportion(mode):
    """To first order a cell loses g_ij (sum over its row and its column of g times the shared resistance)."""
    g = conductances(40, 36)
    rows, cols = g.shape
    row, col = torch.arange(cols, dtype=torch.float64) + 1, rows - torch.arange(rows, dtype=torch.float64)
    shared_row = 3 * torch.minimum(row[:, None], row) + 40
    shared_col = 11 * torch.minimum(col[:, None], col) + 25
    slope = -1e-6 * g * (g @ shared_row + shared_col @ g)
    for scale, limit in ((1e-3, 2e-3), (1e-5, 2e-5)):
        wires = Wires(3 * scale, 11 * scale, 40 * scale, 25 * scale, mode)
        assert error((effective_conductance(g, wires) - g) / scale, slope) < limit


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_never_more_than_the_cells(mode):
    g = conductances(40, 36)
    g[3] = 0
    g[:, 5] = 0
    found = effective_conductance(g, Wires(3.0, 11.0, 40.0, 25.0, mode))
    assert (found >= 0).all()
    assert (found.sum(0) <= g.sum(0)).all()
    assert (found.sum(1) <= g.sum(1)).all()
    assert (found[3] == 0).all()
    assert (found[:, 5] == 0).all()


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_a_line_without_cells_at_its_far_end_is_not_there(mode):
    g = conductances(30, 28)
    wires = Wires(3.0, 11.0, 40.0, 25.0, mode)
    padded = torch.nn.functional.pad(g, (0, 3, 2, 0))
    torch.testing.assert_close(
        effective_conductance(padded, wires)[2:, :-3], effective_conductance(g, wires), rtol=0.01, atol=0.1
    )
    exact = effective_conductance(padded, UNEQUAL)
    torch.testing.assert_close(exact[2:, :-3], effective_conductance(g, UNEQUAL), rtol=1e-12, atol=0)


class TestFast:
    @pytest.mark.parametrize("shape", [(32, 32), (5, 30), (31, 1)], ids=str)
    def test_small_crossbars_are_exact(self, shape):
        g = conductances(*shape)
        assert torch.equal(
            effective_conductance(g, Wires(3.0, 11.0, mode="fast")), effective_conductance(g, Wires(3.0, 11.0))
        )

    # Limits are about half more than what is found; the product of both lines' losses alone is off by up to 25 %.
    @pytest.mark.parametrize(
        ("shape", "wires", "limit"),
        [
            ((64, 64), Wires(1.0, 1.0), 0.003),
            ((64, 64), Wires(10.0, 10.0), 0.02),
            ((40, 100), Wires(3.0, 11.0, 40.0, 25.0), 0.03),
            ((100, 40), Wires(11.0, 3.0, 25.0, 40.0), 0.03),
            ((3, 90), Wires(3.0, 11.0), 0.0015),
            ((64, 64), Wires(col=10.0), 1e-12),
            ((64, 64), Wires(row=10.0), 1e-12),
        ],
        ids=str,
    )
    def test_error(self, shape, wires, limit):
        g = conductances(*shape)
        reference = effective_conductance(g, wires)
        ours = effective_conductance(g, Wires(wires.row, wires.col, wires.source, wires.sink, "fast"))
        assert error(ours, reference) < limit
        assert error(g, reference) > 20 * limit

    def test_pairs_in_neighbouring_columns(self):
        weight = torch.randn(64, 48, dtype=torch.float64).clamp(-2.5, 2.5) / 2.5
        g = 100 * torch.stack((weight, -weight), -1).clamp(min=0).flatten(-2)
        reference = effective_conductance(g, Wires(2.0, 2.0))
        assert error(effective_conductance(g, Wires(2.0, 2.0, mode="fast")), reference) < 0.01
        assert error(g, reference) > 0.1

    def test_an_array_without_conductance(self):
        g = torch.zeros(2, 40, 50, requires_grad=True)
        found = effective_conductance(g, Wires(1.0, 1.0, mode="fast"))
        assert (found == 0).all()
        found.sum().backward()
        torch.testing.assert_close(g.grad, torch.ones_like(g))


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("shape", [(5, 34, 7), (2, 3, 6, 40)], ids=str)
def test_batched_is_one_by_one(shape, mode, monkeypatch):
    wires = Wires(3.0, 11.0, 40.0, 25.0, mode)
    g = conductances(*shape)
    weight = torch.rand(shape, dtype=torch.float64)

    def both(g, weight):
        g = g.clone().requires_grad_()
        found = effective_conductance(g, wires)
        (found * weight).sum().backward()
        return found.detach(), g.grad

    single = [both(a, b) for a, b in zip(g.flatten(0, -3), weight.flatten(0, -3), strict=True)]
    single = [torch.stack(parts).view(shape) for parts in zip(*single, strict=True)]
    for numbers in (1, 30_000, 1 << 24):  # one crossbar at once, a few, all
        monkeypatch.setattr(module, "_CHUNK", numbers)
        for ours, reference in zip(both(g, weight), single, strict=True):
            torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "present", PRESENT, ids=lambda present: "+".join(k for k, v in present.items() if v) or "ideal"
)
def test_gradient(present):
    # Strong losses, so that every term of the gradient is there.
    wires = Wires(**{name: 500 * bit * getattr(UNEQUAL, name) for name, bit in present.items()})
    for shape in ((2, 2, 3), (3, 2), (1, 3), (3, 1)):
        g = conductances(*shape, g_max=100.0).add_(1).requires_grad_()
        assert torch.autograd.gradcheck(lambda g: effective_conductance(g, wires), (g,))


def test_gradient_of_empty_cells():
    """A cell cannot go below 0, so that the difference is taken to one side."""
    g = conductances(4, 5, g_max=100.0, empty=0.0)
    g[1] = 0
    g[:, 2] = 0
    g.requires_grad_()
    wires = Wires(*(500 * ohm for ohm in (3.0, 11.0, 40.0, 25.0)))
    weight = torch.rand(4, 5, dtype=torch.float64)

    def value(g):
        return (effective_conductance(g, wires) * weight).sum()

    (gradient,) = torch.autograd.grad(value(g), g)
    for cell in ((1, 0), (1, 2), (3, 2)):
        first, second = g.detach().clone(), g.detach().clone()
        first[cell], second[cell] = 1e-3, 2e-3
        difference = (4 * value(first) - 3 * value(g.detach()) - value(second)) / 2e-3
        assert gradient[cell].item() == pytest.approx(difference.item(), rel=1e-6)


def test_fast_gradient():
    g = conductances(34, 3, empty=0.0).add_(1).requires_grad_()
    wires = Wires(30.0, 110.0, 400.0, 250.0, "fast")
    assert torch.autograd.gradcheck(lambda g: effective_conductance(g, wires), (g,), fast_mode=True)


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_shape_dtype_and_layout(dtype, mode):
    g = conductances(2, 50, 40).to(dtype).mT
    kept = g.clone()
    found = effective_conductance(g, Wires(1.0, 2.0, mode=mode))
    assert (found.shape, found.dtype, found.device) == (g.shape, dtype, g.device)
    assert found.is_contiguous()
    assert torch.equal(g, kept)
    reference = effective_conductance(g.double(), Wires(1.0, 2.0, mode=mode))
    assert error(found, reference) < 4 * torch.finfo(dtype).eps ** (1 if dtype.itemsize == 2 else 0.7)


def test_autocast_changes_nothing():
    g = conductances(12, 12).float().requires_grad_()
    found = effective_conductance(g, UNEQUAL)
    (gradient,) = torch.autograd.grad(found.sum(), g)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = effective_conductance(g, UNEQUAL)
        assert torch.equal(again, found)
        assert torch.equal(torch.autograd.grad(again.sum(), g)[0], gradient)


def test_float32_stands_a_resistance_that_no_wire_has():
    for wires in (Wires(1e4, 1e4, 1e5, 1e5), Wires(0.0, 1e6, 1e6, 0.0), Wires(1e-6, 1e-6)):
        g = conductances(24, 32)
        assert error(effective_conductance(g.float(), wires), effective_conductance(g, wires)) < 1e-3


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_ideal_wires_return_the_array_itself(mode):
    g = conductances(3, 4)
    assert Wires(mode=mode).ideal
    assert effective_conductance(g, Wires(mode=mode)) is g
    assert not any(Wires(**{name: 1.0}).ideal for name in ("row", "col", "source", "sink"))


@pytest.mark.parametrize("shape", [(0, 4, 5), (4, 0), (0, 4)], ids=str)
def test_nothing_of_nothing(shape):
    assert effective_conductance(torch.zeros(shape), UNEQUAL).shape == shape


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"row": -1}, ValueError, "row must be finite and >= 0 ohm, got -1"),
        ({"col": math.inf}, ValueError, "col must be finite and >= 0 ohm, got inf"),
        ({"source": math.nan}, ValueError, "source must be finite and >= 0 ohm, got nan"),
        ({"sink": "1"}, TypeError, r"sink must be a number \(ohm\), got '1'"),
        ({"row": True}, TypeError, r"row must be a number \(ohm\), got True"),
        ({"mode": "approximate"}, ValueError, 'mode must be "exact" or "fast", got \'approximate\''),
    ],
)
def test_impossible_wires(values, kind, message):
    with pytest.raises(kind, match=message):
        Wires(**values)


def test_equal_wires_have_equal_reprs():
    assert repr(Wires(row=np.float32(1), col=2)) == repr(Wires(row=1.0, col=2.0))
    assert hash(Wires(row=1)) == hash(Wires(row=1.0))


@pytest.mark.parametrize(
    ("g", "kind", "message"),
    [
        (torch.ones(3), ValueError, r"must be \(\.\.\., rows, cols\), got shape \(3,\)"),
        (torch.ones(3, 4, dtype=torch.int64), TypeError, "must be a floating-point tensor, got torch.int64"),
        ([[1.0]], TypeError, "must be a floating-point tensor, got list"),
        (torch.tensor([[1.0, -2.0]]), ValueError, "finite and >= 0 µS, got values from -2 to 1"),
        (torch.tensor([[1.0, math.inf]]), ValueError, "finite and >= 0 µS, got values from 1 to inf"),
        (torch.tensor([[1.0, math.nan]]), ValueError, "finite and >= 0 µS, got values from nan to nan"),
    ],
)
def test_impossible_conductances(g, kind, message):
    with pytest.raises(kind, match=message):
        effective_conductance(g, UNEQUAL)
