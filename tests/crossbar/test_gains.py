import pytest
import torch

from analogsim import DeviceModel, Drift
from analogsim.crossbar.gains import column_gains, crossbar_gains, global_gain, layer_gain, measured_sums
from analogsim.devices import pcm
from analogsim.mapping.layout import Layout
from analogsim.noise import KeyedNoise


def weight_of(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("gain", [0.25, 1.0, 3.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_gain_of_all_cells_is_undone(gain, dtype):
    weight = weight_of(6, 5).to(dtype)
    measured = global_gain(weight.abs().sum(), weight / gain)
    assert measured.shape == ()
    assert measured.dtype == dtype
    assert float(measured) == pytest.approx(gain, rel=1e-5)


def test_signs_do_not_cancel():
    weight = torch.tensor([1.0, -1.0])
    assert global_gain(weight.abs().sum(), weight / 2) == 2


def test_an_array_that_reads_zero_is_left_alone():
    zero = torch.zeros(3, 4)
    for reference in (0.0, 1.0):
        assert global_gain(torch.tensor(reference), zero) == 1


def test_arguments_are_not_written_into():
    reference, now = torch.tensor(3.0), weight_of(3, 4)
    global_gain(reference, now)
    assert reference == 3
    assert torch.equal(now, weight_of(3, 4))


def test_one_exponent_for_all_cells_is_undone_exactly():
    device = DeviceModel((Drift(nu=0.05, nu_std=0.0),))
    weight = weight_of(50, 40)
    written = device.program(weight, KeyedNoise("drift"))
    fresh, old = (device.to_weight(device.age(written, t), written) for t in (0.0, 3.15e7))
    torch.testing.assert_close(old * global_gain(fresh.abs().sum(), old), fresh)


def test_the_mean_decay_of_pcm_is_undone_and_its_spread_is_not():
    """The gain is measured, not known: it knows no exponent, and what is left of the error is the spread."""
    device = pcm()
    weight = weight_of(200, 200)
    written = device.program(weight, KeyedNoise("pcm"))
    fresh, old = (device.to_weight(device.age(written, t), written) for t in (0.0, 3.15e7))
    gain = global_gain(fresh.abs().sum(), old)

    def error(now):
        return float((now - weight).norm() / weight.norm())

    assert 1.5 < gain < 3
    assert float((old * gain).abs().sum()) == pytest.approx(float(fresh.abs().sum()), rel=1e-5)
    assert 1.5 * error(fresh) < error(old * gain) < 0.5 * error(old)


def faded(weight, layout):
    """A layer of which every column of every crossbar has faded by a factor of its own."""
    factors = torch.rand(len(weight), len(layout.rows), generator=torch.Generator().manual_seed(1)) * 0.5 + 0.4
    return factors, weight * layout.spread(factors, weight)


def test_each_kind_of_gain_undoes_what_it_can_measure():
    weight = weight_of(6, 10)
    layout = Layout.of(weight.shape, rows=4, cols=2)
    factors, now = faded(weight, layout)
    before, after = measured_sums(weight, layout), measured_sums(now, layout)
    torch.testing.assert_close(column_gains(before, after, layout), 1 / factors)
    assert layer_gain(before, after, layout) == pytest.approx(float(weight.abs().sum() / now.abs().sum()))
    crossbar = crossbar_gains(before, after, layout)
    for left, right in layout.cols:
        for block, (top, bottom) in enumerate(layout.rows):
            part = (slice(left, right), slice(top, bottom))
            wanted = weight[part].abs().sum() / now[part].abs().sum()
            torch.testing.assert_close(crossbar[left:right, block], wanted.expand(right - left))
    assert column_gains(before, torch.zeros_like(after), layout).eq(1).all()
