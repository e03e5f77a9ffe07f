import pytest
import torch

from analogsim import DeviceModel, Drift
from analogsim.crossbar.gains import column_gains, crossbar_gains, global_gain, layer_gain
from analogsim.devices import pcm
from analogsim.mapping.layout import Layout
from analogsim.noise import KeyedNoise


def weight_of(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("gain", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gain_of_all_cells_is_undone(gain, dtype):
    weight = weight_of(6, 5).to(dtype)
    measured = global_gain(weight, weight, weight / gain)
    assert measured.shape == ()
    assert measured.dtype == dtype
    assert float(measured) == pytest.approx(gain, rel=1e-5)


def test_signs_do_not_cancel():
    weight = torch.tensor([1.0, -1.0])
    assert global_gain(weight, weight, weight / 2) == 2


def test_errors_are_no_signal():
    """Nine tenths of the weights are zero; noise of all cells, more of it later, only makes the gain scatter."""
    generator = torch.Generator().manual_seed(1)
    weight = weight_of(500, 400) * (torch.rand(500, 400, generator=generator) < 0.1)
    fresh, now = (w + s * torch.randn(w.shape, generator=generator) for w, s in ((weight, 0.1), (weight / 2, 0.3)))
    # Relative, of the two sums: s / |w| over 20,000 weights of about 1, of which half is left.
    error = (0.1**2 + (2 * 0.3) ** 2) ** 0.5 / float(weight.norm())
    assert float(global_gain(weight, fresh, now) / 2) == pytest.approx(1, abs=4.5 * error)
    assert error < 0.005
    rectified = fresh.abs().sum() / now.abs().sum()  # the sum of magnitudes
    assert float(rectified) < 1


def test_an_array_that_reads_zero_is_left_alone():
    zero, one = torch.zeros(3, 4), torch.ones(3, 4)
    for clean, fresh, now in (
        (zero, zero, zero),
        (one, one, zero),
        (one, zero, one),
        (one, one, -one),
        (zero, one, one),
    ):
        assert global_gain(clean, fresh, now) == 1


def test_arguments_are_not_written_into():
    parts = [weight_of(3, 4) for _ in range(3)]
    global_gain(*parts)
    assert all(torch.equal(part, weight_of(3, 4)) for part in parts)


def test_one_exponent_for_all_cells_is_undone_exactly():
    device = DeviceModel((Drift(nu=0.05, nu_std=0.0),))
    weight = weight_of(50, 40)
    written = device.program(weight, KeyedNoise("drift"))
    fresh, old = (device.to_weight(device.age(written, t), written) for t in (0.0, 3.15e7))
    torch.testing.assert_close(old * global_gain(weight, fresh, old), fresh)


def test_the_mean_decay_of_pcm_is_undone_and_its_spread_is_not():
    """The gain is measured, not known: it knows no exponent, and what is left of the error is the spread."""
    device = pcm()
    weight = weight_of(200, 200)
    written = device.program(weight, KeyedNoise("pcm"))
    fresh, old = (device.to_weight(device.age(written, t), written) for t in (0.0, 3.15e7))
    gain = global_gain(weight, fresh, old)

    def error(now):
        return float((now - weight).norm() / weight.norm())

    assert 1.5 < gain < 3
    assert float((old * gain * weight).sum()) == pytest.approx(float((fresh * weight).sum()), rel=1e-5)
    assert 1.5 * error(fresh) < error(old * gain) < 0.5 * error(old)


def faded(weight, layout):
    """A layer of which every column of every crossbar has faded by a factor of its own."""
    factors = torch.rand(len(weight), len(layout.rows), generator=torch.Generator().manual_seed(1)) * 0.5 + 0.4
    return factors, weight * layout.spread(factors, weight)


def test_each_kind_of_gain_undoes_what_it_can_measure():
    weight = weight_of(6, 10)
    layout = Layout.of(weight.shape, rows=4, cols=2)
    factors, now = faded(weight, layout)
    before, after = (layout.column_sums(weight * part) for part in (weight, now))
    torch.testing.assert_close(column_gains(before, after, layout), 1 / factors)
    assert layer_gain(before, after, layout) == pytest.approx(float(global_gain(weight, weight, now)))
    crossbar = crossbar_gains(before, after, layout)
    for left, right in layout.cols:
        for block, (top, bottom) in enumerate(layout.rows):
            part = (slice(left, right), slice(top, bottom))
            wanted = weight[part].square().sum() / (weight * now)[part].sum()
            torch.testing.assert_close(crossbar[left:right, block], wanted.expand(right - left))


def test_what_reads_nothing_has_the_gain_of_what_is_around_it():
    """A column that of its crossbar, a crossbar that of the layer, a layer none."""
    layout = Layout.of(torch.Size((6, 10)), rows=5, cols=2)
    before = torch.rand(6, 2, generator=torch.Generator().manual_seed(2)) + 0.5
    after = before / 2
    after[:2] = before[:2] / 4
    after[1, 0] = 0.0  # of a crossbar that is faded to a quarter otherwise
    after[4, 1] = -0.1
    before[5, 0], after[5, 0] = 0.0, 0.0  # a column of zeros
    after[2:4, 1] = 0.0  # a crossbar
    columns, crossbars = column_gains(before, after, layout), crossbar_gains(before, after, layout)
    layer = layer_gain(before, after, layout)
    assert columns[0, 0] == pytest.approx(4.0)
    assert columns[1, 0] == crossbars[1, 0] == pytest.approx(float(before[:2, 0].sum() / after[:2, 0].sum()))
    assert columns[4, 1] == crossbars[4, 1]
    assert columns[5, 0] == crossbars[5, 0] == pytest.approx(2.0)
    assert (crossbars[2:4, 1] == layer).all()
    assert (columns[2:4, 1] == layer).all()
    zero = torch.zeros_like(after)
    for rule in (column_gains, crossbar_gains, layer_gain):
        for pair in ((before, zero), (zero, before), (zero, zero), (before, -before)):
            assert rule(*pair, layout).eq(1).all()
