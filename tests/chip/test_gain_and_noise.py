"""What a digital gain makes of noise, and what noise makes of the measurement that the gain comes from."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar, DeviceModel, Drift, Gaussian, Mapping, ReadNoise
from analogsim.chip.layer_chip import LayerChip
from analogsim.devices import FittedSlowNoise
from tests.hardware import LARGE

K = 4.5  # standard errors
PAIR = Mapping("pair")
YEAR = 365 * 86400.0


def weight_at(analog: nn.Module, t: float | str, compensation: str | None) -> Tensor:
    analogsim.drift(analog, t, compensation=compensation)
    return analogsim.to_digital(analog, "programmed").weight.detach()


@pytest.mark.parametrize("crossbar", [Crossbar(), LARGE, LARGE.replace(rows=4)], ids=["ideal", "converters", "cut"])
@pytest.mark.parametrize("compensation", ["global", "column"])
def test_the_gain_amplifies_read_noise(crossbar: Crossbar, compensation: str) -> None:
    """Variance over 20,000 uses: gain^2 sum_j s^2 x_j^2, with s of the two cells of each weight."""
    layer, uses = nn.Linear(8, 3, bias=False), 20_000
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 1, 24).view(3, 8))
        layer.weight[:, ::4] = 1.0  # every block has the same scale
    device = DeviceModel((Drift(0.1, 0.0), ReadNoise(0.05)), mapping=PAIR)
    analog = analogsim.convert(layer, device, crossbar=crossbar).eval()
    analogsim.program(analog, seed=0)
    gain = weight_at(analog, "1y", compensation) / weight_at(analog, "1y", None)
    assert (gain > 2).all()  # (1 + a year / 20 s) ** 0.1 = 4.2, measured on as few as four noisy weights
    x = torch.randn(8)
    with torch.no_grad():
        for kind, factor in ((compensation, gain), (None, torch.ones(3, 8))):
            analogsim.drift(analog, "1y", compensation=kind)
            variance = analog(x.expand(uses, 8)).var(0)
            expected = 2 * 0.05**2 * factor.square() @ x.square()
            assert ((variance / expected - 1).abs() < K * math.sqrt(2 / uses)).all()


def test_gains_are_measured_through_read_noise() -> None:
    """Of chips that differ in nothing else the gain scatters by the noise of its two measurements."""
    layer, chips = nn.Linear(10, 10, bias=False), 400
    nn.init.constant_(layer.weight, 1.0)
    device = DeviceModel((Drift(0.02, 0.0), ReadNoise(0.05)), mapping=PAIR)
    analog = analogsim.convert(layer, device)
    found = []
    for seed in range(chips):
        analogsim.program(analog, seed=seed)
        found.append(float((weight_at(analog, "1h", "global") / weight_at(analog, "1h", None)).mean()))
    gains = torch.tensor(found, dtype=torch.float64)
    decay = (1 + 3600 / 20) ** 0.02
    # 10 columns of 10 weights, with 5 % of noise of each of two cells, and 1,024 vectors that each drive all of them:
    # now the weights are smaller, by the decay, and the noise is not.
    relative = 0.05 * math.sqrt(2 * 10 / 1024 / 100) * math.sqrt(1 + decay**2)
    assert float(gains.std() / (decay * relative)) == pytest.approx(1, abs=K / math.sqrt(2 * chips))
    assert float(gains.mean() / decay) == pytest.approx(1, abs=K * relative / math.sqrt(chips) + relative**2)


def test_a_column_of_few_weights_has_its_gain_within_one_percent() -> None:
    """The worst of 256 columns of 256 cells, 90 % of which are pruned, on cells with 1 % of white read noise."""
    torch.manual_seed(0)
    layer = nn.Linear(256, 64, bias=False)
    weight = layer.weight.data
    weight[weight.abs() <= weight.abs().flatten().kthvalue(int(0.9 * weight.numel())).values] = 0
    analog = analogsim.convert(layer, "reram-wan2022")
    worst = 0.0
    for seed in range(4):
        analogsim.program(analog, seed=seed)
        fresh, now, corrected = (weight_at(analog, *at) for at in ((0, None), ("1s", None), ("1s", "column")))
        needed = (weight * fresh).sum(1) / (weight * now).sum(1)
        found = (weight * corrected).sum(1) / (weight * now).sum(1)
        worst = max(worst, float((found / needed - 1).abs().max()))
    assert worst < 0.01


def test_a_measurement_is_not_the_noise_of_programming_and_the_same_when_repeated() -> None:
    layer = nn.Linear(10, 10, bias=False)
    analog = analogsim.convert(layer, DeviceModel((Gaussian(0.02), Drift(0.05), ReadNoise(0.05)), mapping=PAIR))
    analogsim.program(analog, seed=0)
    first, other = weight_at(analog, "1h", "global"), weight_at(analog, "1d", "global")
    assert torch.equal(weight_at(analog, "1h", "global"), first)
    assert not torch.equal(first, other)


def test_slow_noise_at_times_far_apart_is_independent() -> None:
    layer = nn.Linear(100, 100, bias=False)
    nn.init.constant_(layer.weight, 1.0)
    analog = analogsim.convert(layer, DeviceModel((FittedSlowNoise((0.05,)),), mapping=PAIR))
    analogsim.program(analog, seed=0)
    errors = torch.stack([(weight_at(analog, t, None) - 1).flatten() for t in (1.0, YEAR)])
    # One cell of each pair stands at zero, and its noise with it.
    assert float(errors.std() / 0.05) == pytest.approx(1, abs=K / math.sqrt(2 * 20_000))
    assert abs(float(torch.corrcoef(errors)[0, 1])) < K / 100


# --- measured against needed ----------------------------------------------------------------------------------------

KINDS = ("global", "crossbar", "column")
STANDARD = Crossbar(rows=96, cols=64, dac_bits=8, adc_bits=8, output_bound=12.0, output_noise=0.04)
CROSSBARS = {
    "ideal": Crossbar(rows=96, cols=64),
    "standard": STANDARD,
    "mismatch": STANDARD.replace(gain_mismatch=0.05, offset_mismatch=0.05),
    "unsigned": STANDARD.replace(dac="unsigned"),
    "bit-serial": STANDARD.replace(bit_serial=True, dac_bits=4),
    "narrow": STANDARD.replace(output_bound=1.5, output_noise=0.01),
    "uncalibrated": STANDARD.replace(input_range="calibrated", output_bound="calibrated"),
}


def weights_of(kind: str) -> Tensor:
    """48 columns of 180 weights, in two blocks of rows."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(48, 180, generator=generator)
    if kind == "sparse":
        kept = torch.rand(weight.shape, generator=generator) < 0.1
        kept[:, [0, 100]] = True  # a column of zeros in one block has no gain of its own
        return weight * kept
    return weight.abs() if kind == "one-sided" else 1e-6 * weight if kind == "low" else weight


def gains_of(analog: nn.Module, t: float, kind: str) -> tuple[Tensor, Tensor]:
    """What chips of an age are multiplied with, and what their cells need, ``(out, row blocks)`` each.

    Needed is the ratio of sums over the cells as they are, without any noise of reading: of w w(0) and of w w(t).
    """
    chip = analog.analog.chip  # type: ignore[union-attr]
    assert isinstance(chip, LayerChip)
    layout, clean = chip.layout, chip.source.double()
    fresh, now = (chip_weight(analog, time).double() for time in (0.0, t))
    sums = [layout.column_sums(clean * weight) for weight in (fresh, now)]
    if kind == "crossbar":
        sums = [layout.block_sums(each) for each in sums]
    elif kind == "global":
        sums = [each.sum().expand_as(each) for each in sums]
    analogsim.drift(analog, t, compensation=kind)
    found = layout.column_sums(chip.effective[0].double().abs()) / layout.column_sums(now.abs())
    return found, sums[0] / sums[1]


def chip_weight(analog: nn.Module, t: float) -> Tensor:
    analogsim.drift(analog, t, compensation=None)
    return analog.analog.chip.effective[0]  # type: ignore[union-attr, no-any-return]


def compare(device: str, weights: str, crossbar: str, t: float, kind: str, chips: int) -> None:
    """The mean over chips is within 1 % of what is needed, and so is each gain, but for the noise of reading."""
    weight = weights_of(weights)
    layer = nn.Linear(180, 48, bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)
    analog = analogsim.convert(layer, device, crossbar=CROSSBARS[crossbar]).eval()
    ratios = []
    for seed in range(chips):
        analogsim.program(analog, seed=seed)
        found, needed = gains_of(analog, t, kind)
        assert found.isfinite().all()
        ratios.append(found / needed)
    off = torch.stack(ratios) - 1
    scatter = float(off.std()) / math.sqrt(off.numel() if kind == "column" else chips)
    assert abs(float(off.mean())) < 0.01 + K * scatter
    assert scatter < 0.002  # so that this says something
    assert float(off.abs().max()) < {"global": 0.01, "crossbar": 0.015, "column": 0.06}[kind]


def times_of(device: str) -> list[float]:
    span = analogsim.as_device_model(device).times
    return [t for t in (1.0, 3600.0, 86400.0, 30 * 86400.0, YEAR) if t <= span[1]] + [min(span[1], YEAR)]


DRIFTING = [name for name in analogsim.available_devices() if analogsim.as_device_model(name).drifts]


@pytest.mark.parametrize(
    ("device", "weights", "crossbar", "kind"),
    [
        ("pcm", "sparse", "ideal", "global"),
        ("pcm", "one-sided", "ideal", "column"),
        ("reram-cmo", "sparse", "ideal", "crossbar"),
        ("reram-wan2022", "low", "ideal", "column"),
        ("pcm", "sparse", "standard", "global"),
        ("pcm", "dense", "mismatch", "column"),
        ("sonos", "sparse", "standard", "crossbar"),
        ("pcm-hermes", "dense", "unsigned", "global"),
        ("pcm", "one-sided", "narrow", "global"),
        ("pcm", "one-sided", "bit-serial", "crossbar"),
        ("pcm", "dense", "uncalibrated", "column"),
    ],
)
def test_the_measured_gain_is_the_needed_one(device: str, weights: str, crossbar: str, kind: str) -> None:
    compare(device, weights, crossbar, times_of(device)[-1], kind, chips=2)


@pytest.mark.slow
@pytest.mark.parametrize("crossbar", CROSSBARS)
@pytest.mark.parametrize("weights", ["dense", "sparse", "one-sided", "low"])
@pytest.mark.parametrize("device", DRIFTING)
def test_the_measured_gain_is_the_needed_one_everywhere(device: str, weights: str, crossbar: str) -> None:
    for t in times_of(device):
        for kind in KINDS:
            compare(device, weights, crossbar, t, kind, chips=2)


def test_zero_weights_do_not_count() -> None:
    """Nine tenths of the weights are pruned: after a year on pcm 2.01 is needed; a sum of magnitudes says 2.11."""
    torch.manual_seed(0)
    layer = nn.Linear(784, 256, bias=False)
    with torch.no_grad():
        layer.weight.normal_().mul_(torch.rand_like(layer.weight) < 0.1)
    analog, clean = analogsim.convert(layer, "pcm"), layer.weight.detach()
    gains = []
    for seed in range(3):
        analogsim.program(analog, seed=seed)
        fresh, now = chip_weight(analog, 0.0), chip_weight(analog, YEAR)
        gains.append(float((weight_at(analog, YEAR, "global") / now).nanmean()))
        assert gains[-1] == pytest.approx(float((clean * fresh).sum() / (clean * now).sum()), rel=1e-4)
        assert float(fresh.abs().sum() / now.abs().sum()) > 1.03 * gains[-1]


@pytest.mark.parametrize("crossbar", ["ideal", "standard"])
@pytest.mark.parametrize(("device", "t"), [("reram-cmo", YEAR), ("reram-wan2022", 2 * 86400.0), ("sonos", 86400.0)])
def test_no_gain_harms_what_does_not_decay(device: str, t: float, crossbar: str) -> None:
    """The error of weights nine tenths of which are pruned is that without a gain, to 2 %; of pcm at 1 s too."""
    layer = nn.Linear(180, 48, bias=False)
    with torch.no_grad():
        layer.weight.copy_(weights_of("sparse"))
    for name, age in ((device, t), ("pcm", 1.0)):
        analog = analogsim.convert(layer, name, crossbar=CROSSBARS[crossbar])
        analogsim.program(analog, seed=0)
        clean = layer.weight.detach()
        plain = (chip_weight(analog, age) - clean).norm()
        for kind in KINDS:
            with_gain = (weight_at(analog, age, kind) - clean).norm()
            assert float(with_gain / plain) < 1.02


TINY = {
    "one weight": [[0.7]],
    "two inputs": [[0.3, -0.2], [1e-6, 1e-6], [0.0, 0.0]],
    "zeros": [[0.0, 0.0, 0.0]],
    "one of a thousand": [[0.0] * 999 + [1.0]],
    "columns far apart": [[1.0, -1.0, 0.5], [1e-9, -1e-9, 1e-9], [1e-30, 0.0, 0.0]],
}


@pytest.mark.parametrize("scale", ["column", "tensor"])
@pytest.mark.parametrize("crossbar", ["ideal", "standard"])
@pytest.mark.parametrize("name", TINY)
def test_gains_of_tiny_layers_are_finite_and_near_the_decay(name: str, crossbar: str, scale: str) -> None:
    weight = torch.tensor(TINY[name])
    layer = nn.Linear(weight.shape[1], len(weight), bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)
    device = DeviceModel((Gaussian(0.02), Drift(0.05, 0.0)), mapping=Mapping("pair", scale))  # type: ignore[arg-type]
    analog = analogsim.convert(layer, device, crossbar=CROSSBARS[crossbar])
    decay = (1 + YEAR / 20) ** 0.05
    for seed in range(5):
        analogsim.program(analog, seed=seed)
        chip = analog.analog.chip
        for kind in KINDS:
            now = chip_weight(analog, YEAR)
            gain = weight_at(analog, YEAR, kind)[now != 0] / now[now != 0]
            assert ((gain / decay - 1).abs() < 0.2).all() or not weight.any()
            assert gain.isfinite().all()
    assert chip is not None


@pytest.mark.parametrize("crossbar", ["ideal", "standard"])
def test_the_same_chip_at_the_same_time_has_the_same_gain(crossbar: str) -> None:
    layer = nn.Linear(180, 48, bias=False)
    analog = analogsim.convert(layer, "reram-wan2022", crossbar=CROSSBARS[crossbar])
    analogsim.program(analog, seed=0)
    first, other = weight_at(analog, "1d", "column"), weight_at(analog, "1h", "column")
    assert not torch.equal(first, other)
    analogsim.program(analog, seed=1)
    analogsim.program(analog, seed=0)
    assert torch.equal(weight_at(analog, "1d", "column"), first)
    assert torch.equal(weight_at(analog, 0, "column"), weight_at(analog, 0, None)), "its own reference: nothing to undo"


def test_ranges_that_come_later_change_the_gain_by_no_more_than_noise() -> None:
    """Programmed before it was calibrated, the first measurement knows no bound, and the second one does."""
    layer = nn.Linear(180, 48, bias=False)
    analog = analogsim.convert(layer, "pcm", crossbar=CROSSBARS["uncalibrated"])
    analogsim.program(analog, seed=0)
    before = weight_at(analog, "1y", "global")
    analogsim.calibrate(analog, [torch.randn(100, 180)])
    after = weight_at(analog, "1y", "global")
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, before, rtol=0.005, atol=0.0)
