import itertools
import math

import pytest
import torch
from torch import nn

import analogsim
from analogsim import Cells, DeviceModel, Drift, Gaussian, Quantization, ReadNoise, StuckAt
from analogsim.device.file import load_device, save_device
from analogsim.devices import PCMDrift, PCMProgramming
from analogsim.noise import KeyedNoise

K = 5  # standard errors
OFF, ON = 1, 2


def faults(stuck, *shape, key="stuck"):
    return stuck.draw(Cells(torch.zeros(shape), 0.0, 25.0), KeyedNoise(key))["fault"]


@pytest.mark.parametrize(("p_off", "p_on"), [(0.0904, 0.0175), (0.5, 0.0), (0.0, 0.3), (0.3, 0.7)])
def test_fractions(p_off, p_on):
    fault = faults(StuckAt(p_off, p_on), 2, 400, 400)
    n = fault.numel()
    for kind, p in ((OFF, p_off), (ON, p_on)):
        share = float((fault == kind).double().mean())
        assert abs(share - p) <= K * math.sqrt(p * (1 - p) / n)


def test_defaults_are_the_measured_pair():
    assert (StuckAt().p_off, StuckAt().p_on) == (0.0904, 0.0175)


def test_cells_fail_independently():
    stuck = (faults(StuckAt(0.3, 0.2), 2, 400, 400) != 0).double()
    for one, other in ((stuck[0], stuck[1]), (stuck[:, 1:], stuck[:, :-1]), (stuck[..., 1:], stuck[..., :-1])):
        correlation = torch.corrcoef(torch.stack((one.flatten(), other.flatten())))[0, 1]
        assert abs(correlation) < K / math.sqrt(one.numel())


@pytest.mark.parametrize(("p_off", "p_on", "kind"), [(0, 0, 0), (1, 0, OFF), (0, 1, ON)])
def test_none_and_all(p_off, p_on, kind):
    assert (faults(StuckAt(p_off, p_on), 100, 100) == kind).all()


@pytest.mark.parametrize("g_min", [0.0, 2.0])
def test_stuck_cells_stand_at_the_ends_of_the_range(g_min):
    device = DeviceModel((StuckAt(0.3, 0.3),), g_min=g_min, g_max=40.0)
    written = device.program(torch.linspace(-1, 1, 400).view(20, 20), KeyedNoise("ends"))
    fault = written.drawn[0]["fault"]
    assert (written.programmed[fault == OFF] == g_min).all()
    assert (written.programmed[fault == ON] == 40.0).all()
    assert torch.equal(written.programmed[fault == 0], written.cells.target[fault == 0])


CHAIN = (Quantization(levels=16), Gaussian(0.05), Drift(nu=0.05, nu_std=0.02), StuckAt(0.2, 0.2))


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))), ids=str)
def test_stuck_cells_take_neither_noise_nor_drift_wherever_it_stands(order):
    device = DeviceModel(tuple(CHAIN[place] for place in order))
    weight = torch.linspace(-1, 1, 900).view(30, 30) + 0.01
    written = device.program(weight, KeyedNoise("order"))
    fault = written.drawn[order.index(3)]["fault"]
    reference = DeviceModel(CHAIN).program(weight, KeyedNoise("order")).drawn[3]["fault"]
    assert torch.equal(fault, reference), "the same cells are stuck whatever the order"
    for t in (0.0, 3600.0, 3.15e7):
        g = device.age(written, t)
        assert (g[fault == OFF] == 0).all()
        assert (g[fault == ON] == 25.0).all()
    free = (fault == 0) & (written.cells.target > 5)
    # All but a few, which quantisation after the noise brought back to their target.
    assert (written.programmed[free] != written.cells.target[free]).double().mean() > 0.9
    assert (device.age(written, 3.15e7)[free] != written.programmed[free]).all()


def test_stuck_cells_on_pcm():
    device = DeviceModel((StuckAt(0.2, 0.2), PCMProgramming(), PCMDrift()))
    written = device.program(torch.linspace(-1, 1, 900).view(30, 30), KeyedNoise("pcm"))
    g = device.age(written, 3.15e7)
    fault = written.drawn[0]["fault"]
    assert (g[fault == OFF] == 0).all()
    assert (g[fault == ON] == 25.0).all()


def test_stuck_cells_have_the_noise_of_reading():
    device = DeviceModel((StuckAt(0.5, 0.5), ReadNoise(0.01)))
    written = device.program(torch.ones(4, 4), KeyedNoise("read"))
    variance = device.read_variance(written.programmed, written)
    torch.testing.assert_close(variance, torch.full((4, 4), 2 * 0.01**2))


def test_the_gradient_is_masked_where_the_carrying_cell_is_stuck():
    device = DeviceModel((Gaussian(0.01), StuckAt(0.3, 0.2)))
    weight = torch.linspace(-1, 1, 900).view(30, 30)
    written = device.program(weight, KeyedNoise("mask"))
    positive, negative = written.drawn[1]["fault"] == 0
    expected = torch.where(weight >= 0, positive, negative).float()
    following = device.following(weight, written)
    assert torch.equal(following, expected)
    assert 0 < following.mean() < 1


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"p_off": -0.1}, "StuckAt: p_off must be >= 0, got -0.1"),
        ({"p_on": 1.5}, "StuckAt: p_on must be <= 1, got 1.5"),
        ({"p_off": 0.6, "p_on": 0.5}, r"StuckAt: p_off \+ p_on must be <= 1, got 0.6 \+ 0.5"),
        ({"p_off": math.nan}, "StuckAt: p_off must be finite, got nan"),
    ],
)
def test_illegal_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        StuckAt(**parameters)


@pytest.mark.parametrize("shape", [(30, 45), (30, 15, 3), (30,)])
def test_whole_blocks_are_stuck(shape):
    fault = faults(StuckAt(0.2, 0.1, cluster="block", block=4), 2, *shape)
    flat = fault.flatten(2) if fault.ndim > 2 else fault.unsqueeze(2)
    for plane in flat:
        for top in range(0, plane.shape[0], 4):
            for left in range(0, plane.shape[1], 4):
                assert len(plane[top : top + 4, left : left + 4].unique()) == 1


def test_blocks_are_stuck_as_often_as_cells():
    """Within 5 standard errors of a share over independent blocks."""
    fault = faults(StuckAt(0.2, 0.1, cluster="block", block=4), 2, 400, 400)
    for code, share in ((1, 0.2), (2, 0.1)):
        error = (share * (1 - share) / (2 * 100 * 100)) ** 0.5
        assert float((fault == code).float().mean()) == pytest.approx(share, abs=5 * error)


@pytest.mark.parametrize(("cluster", "line"), [("row", (0, 0)), ("column", (..., 0, 0))])
def test_whole_lines_are_stuck(cluster, line):
    # Cells (2, out, in, kernel): a row is one input position, a column one output of one side of the pairs.
    fault = faults(StuckAt(0.2, 0.1, cluster), 2, 150, 150, 3)
    lines = fault[line]
    assert lines.shape == ((150, 3) if cluster == "row" else (2, 150))
    assert torch.equal(fault, (lines if cluster == "row" else lines[..., None, None]).expand_as(fault))
    for kind, p in ((OFF, 0.2), (ON, 0.1)):
        assert abs((lines == kind).double().mean() - p) < K * math.sqrt(p * (1 - p) / lines.numel())
    stuck = (lines != 0).double().flatten()
    correlation = torch.corrcoef(torch.stack((stuck[1:], stuck[:-1])))[0, 1]
    assert abs(correlation) < K / math.sqrt(len(stuck)), "one line says nothing of the next"


def test_a_weight_with_one_axis_is_one_row():
    assert len(faults(StuckAt(0.5, 0.3, "row"), 2, 1000).unique()) == 1
    assert len(faults(StuckAt(0.5, 0.3, "column"), 2, 1000).unique()) == 3


class Least:
    """The least numbers that a source of noise may give."""

    def uniform_like(self, like):
        return torch.zeros_like(like)


@pytest.mark.parametrize("cluster", ["cell", "row", "column", "block"])
@pytest.mark.parametrize(("p_off", "p_on", "kind"), [(0.0, 0.0, 0), (0.0, 0.1, ON), (0.1, 0.0, OFF)])
def test_what_never_happens_does_not_at_zero(cluster, p_off, p_on, kind):
    fault = StuckAt(p_off, p_on, cluster=cluster).draw(Cells(torch.zeros(2, 9, 9), 0.0, 25.0), Least())["fault"]
    assert (fault == kind).all()


# Shorts and opens


def stood(effect, *, key="values", cells=200_000, g_min=2.0):
    """Conductances of the cells that are stuck off and on."""
    device = DeviceModel((Gaussian(0.05), effect, Drift(0.05)), g_min=g_min, g_max=25.0)
    written = device.program(torch.linspace(-1, 1, cells // 2, dtype=torch.float64).view(2, -1), KeyedNoise(key))
    g, fault = device.age(written, 3.15e7), written.drawn[1]["fault"]
    assert torch.equal(g[fault != 0], written.programmed[fault != 0])
    return g[fault == OFF], g[fault == ON]


def test_opens_and_shorts_stand_where_they_are_said_to():
    off, on = stood(StuckAt(0.3, 0.3, off=0.0, on=500.0))
    assert (off == 0).all()
    assert (on == 500).all()
    off, on = stood(StuckAt(0.3, 0.3, off=1.0))
    assert (off == 1).all()
    assert (on == 25).all(), "g_max"


@pytest.mark.parametrize("distribution", ["lognormal", "normal", "uniform"])
def test_values_have_the_distribution(distribution):
    """Mean and standard deviation within 5 standard errors."""
    effect = StuckAt(0.3, 0.3, on=200.0, off_spread=0.1, on_spread=0.2, distribution=distribution)
    for found, value, spread in zip(stood(effect), (2.0, 200.0), (0.1, 0.2), strict=True):
        count = len(found)
        if distribution == "lognormal":
            found, value = found.log(), math.log(value)
            std = spread
        else:
            std = value * spread / (math.sqrt(3) if distribution == "uniform" else 1)
        assert float(found.mean()) == pytest.approx(value, abs=K * std / count**0.5)
        assert float(found.std()) == pytest.approx(std, rel=K / (2 * count) ** 0.5)
        if distribution == "uniform":
            assert (found - value).abs().max() <= value * spread * (1 + 1e-9)
        assert found.min() > -math.inf if distribution == "lognormal" else found.min() >= 0


def test_values_are_of_the_chip():
    effect = StuckAt(0.3, 0.3, on=200.0, on_spread=0.5)
    assert torch.equal(stood(effect)[1], stood(effect)[1])
    assert not torch.equal(stood(effect)[1][:100], stood(effect, key="other")[1][:100])
    plain = StuckAt(0.3, 0.3).draw(Cells(torch.zeros(2, 9, 9), 0.0, 25.0), KeyedNoise("same"))["fault"]
    spread = effect.draw(Cells(torch.zeros(2, 9, 9), 0.0, 25.0), KeyedNoise("same"))["fault"]
    assert torch.equal(plain, spread), "which cells are stuck does not depend on where"


def test_text_and_file_say_where(tmp_path):
    device = analogsim.as_device_model("pcm+stuck-at(p_off=0.01, off=0, p_on=0.02, on=200, on_spread=0.5)")
    effect = device.effects[-1]
    assert (effect.off, effect.on, effect.on_spread) == (0.0, 200.0, 0.5)
    assert "on=200.0" in repr(device)
    save_device(device, tmp_path / "shorts.toml")
    assert load_device(tmp_path / "shorts.toml") == device
    default = analogsim.as_device_model("stuck-at")
    save_device(default, tmp_path / "default.toml")
    assert load_device(tmp_path / "default.toml") == default


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"off": "g_max"}, TypeError, "StuckAt: off must be a number or 'g_min', got 'g_max'"),
        ({"on": -1.0}, ValueError, "StuckAt: on must be >= 0, got -1"),
        ({"on": math.inf}, ValueError, "StuckAt: on must be finite, got inf"),
        ({"on_spread": -0.1}, ValueError, "StuckAt: on_spread must be >= 0"),
        ({"distribution": "gamma"}, ValueError, "StuckAt: distribution must be one of lognormal, normal, uniform"),
    ],
)
def test_illegal_values(parameters, error, message):
    with pytest.raises(error, match=message):
        StuckAt(**parameters)


@pytest.mark.parametrize("device", ["reram-cmo", "pcm", "sonos", "reram-wan2022"])
def test_reading_leaves_shorts_and_opens_where_they_are(device):
    """The read noise of reram-cmo is clipped to the measured range, which is none for a short."""
    model = analogsim.as_device_model([device, StuckAt(0.2, 0.2, off=0.0, on=5000.0)])
    written = model.program(torch.linspace(-1, 1, 900).view(30, 30), KeyedNoise("short"))
    g, fault = model.read(written, 3600.0, KeyedNoise("read")), written.drawn[-1]["fault"]
    assert (g[fault == OFF] == 0).all()
    assert (g[fault == ON] == 5000).all()


@pytest.mark.parametrize(
    "crossbar", [None, "standard", analogsim.Crossbar(rows=8, cols=8, wire_resistance=1.0)], ids=str
)
def test_a_chip_with_shorts_lives(tmp_path, crossbar):
    torch.manual_seed(0)
    layer, x = nn.Linear(12, 9), torch.randn(4, 12)
    device = "pcm+stuck-at(p_off=0.1, off=0, p_on=0.1, on=400, on_spread=0.5)"
    analog = analogsim.convert(nn.Sequential(layer), device, **({} if crossbar is None else {"crossbar": crossbar}))
    analog.train()(x).square().sum().backward()
    assert layer.weight.grad.isfinite().all()
    analogsim.program(analog, seed=2)
    analogsim.drift(analog, "1d")
    answer = analog.eval()(x)
    assert answer.isfinite().all()
    if crossbar is None:
        largest = layer.weight.detach().abs().amax(1)
        seen = analogsim.to_digital(analog, "programmed").state_dict()["0.weight"].abs().amax(1)
        assert seen.median() > 10 * largest.max(), "a short counts far beyond the largest weight"
    analogsim.save_chip(analog, tmp_path / "chip.safetensors")
    analogsim.erase(analog)
    analogsim.load_chip(analog, tmp_path / "chip.safetensors")
    assert torch.equal(analog.eval()(x), answer)
