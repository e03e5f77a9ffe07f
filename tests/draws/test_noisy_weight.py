from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import analogsim
from analogsim import (
    AnalogLayer,
    Crossbar,
    DeviceModel,
    Drift,
    Effect,
    Gaussian,
    Mapping,
    Quantization,
    ReadNoise,
    StuckAt,
    set_noise_scale,
)
from analogsim.draws.noisy_weight import noisy_weight
from analogsim.noise import GlobalNoise
from tests.hardware import IDEAL

SERIAL = Crossbar(dac_bits=4, adc_bits=8, output_bound=4.0, bit_serial=True)
YEARS = (1.0, 365 * 86400.0)
ALL = [Quantization(16), Gaussian(0.05), StuckAt(0.1, 0.05), Drift(0.05, 0.02), ReadNoise(0.02)]


def model_of(device: object) -> DeviceModel:
    return analogsim.as_device_model(device)


# --- fresh, scaled --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [*analogsim.available_devices(), ALL], ids=str)
def test_every_forward_is_a_fresh_draw_steered_by_the_torch_seed(device: object) -> None:
    analog = analogsim.convert(nn.Linear(20, 10), device)
    x = torch.randn(3, 20)
    torch.manual_seed(1)
    first, second = analog(x), analog(x)
    torch.manual_seed(1)
    assert torch.equal(analog(x), first)
    deterministic = device == "quantization"
    assert torch.equal(first, second) is deterministic


@pytest.mark.parametrize("device", [*analogsim.available_devices(), ALL], ids=str)
def test_scale_zero_is_exactly_clean(device: object) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    analog = analogsim.convert(model, device)
    set_noise_scale(analog, 0)
    x = torch.randn(3, 6)
    state = torch.get_rng_state()
    assert torch.equal(analog(x), model(x))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("device", ["gaussian", "pcm", "gaussian(std=0.1, law='proportional')", ALL], ids=str)
def test_the_error_is_linear_in_the_scale(device: object) -> None:
    weight = torch.randn(8, 6)
    errors, variances = [], []
    for scale in (1.0, 0.5, 2.0):
        torch.manual_seed(3)
        noisy, variance = noisy_weight(weight, model_of(device), scale, YEARS)
        errors.append(noisy - weight)
        variances.append(variance)
    # Rounding: the error is what is left of the sum with the weight.
    torch.testing.assert_close(errors[1], errors[0] / 2, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(errors[2], errors[0] * 2, rtol=1e-4, atol=1e-6)
    if device is ALL:
        torch.testing.assert_close(variances[1], variances[0] / 4)
        torch.testing.assert_close(variances[2], variances[0] * 4)
    else:
        assert variances == [None] * 3


def test_read_noise_in_training_has_its_size_and_its_scale() -> None:
    layer = nn.Linear(6, 4)
    analog = analogsim.convert(layer, ReadNoise(0.1))
    set_noise_scale(analog, 0.5)
    x = torch.randn(6)
    uses = 20_000
    with torch.no_grad():
        error = analog(x.expand(uses, 6)) - layer(x)
    expected = (0.05 * layer.weight.abs().max()) ** 2 * x.square().sum()
    # 5 standard errors of a variance
    assert ((error.var(0) / expected - 1).abs() < 5 * (2 / uses) ** 0.5).all()


# --- the gradient ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["gaussian", "pcm", "drift", "quantization"])
def test_gradient_is_that_of_the_digital_net_at_the_noisy_weights(device: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 4), nn.Tanh(), nn.Linear(4, 2))
    analog = analogsim.convert(model, device)
    x = torch.randn(5, 1, 4, 4)
    torch.manual_seed(7)
    output = analog(x)
    output.square().sum().backward()
    mine = {name: parameter.grad for name, parameter in model.named_parameters()}
    # The same draws, layer by layer in the order of the forward.
    torch.manual_seed(7)
    state = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for layer in analog.modules():
        if isinstance(layer, AnalogLayer):
            noisy, _ = noisy_weight(layer.weight.detach(), layer.analog.device, 1.0, layer.analog.train_times)
            assert not torch.equal(noisy, layer.weight)
            state[f"{layer.analog.name}.weight"] = noisy
    for value in state.values():
        value.requires_grad_(True)
    expected = functional_call(model, state, (x,))
    torch.testing.assert_close(output, expected)
    expected.square().sum().backward()
    for name, value in state.items():
        torch.testing.assert_close(mine[name], value.grad)


@pytest.mark.parametrize("mapping", [Mapping("pair"), Mapping("pair", "tensor")], ids=["column", "tensor"])
def test_stuck_weights_get_no_gradient_and_all_others_do(mapping: Mapping) -> None:
    device = DeviceModel((StuckAt(0.2, 0.2),), mapping=mapping)
    layer = nn.Linear(30, 20, bias=False)
    analog = analogsim.convert(layer, device)
    torch.manual_seed(5)
    analog(torch.ones(1, 30)).sum().backward()
    torch.manual_seed(5)
    written = device.program(layer.weight.detach(), GlobalNoise())
    positive, negative = written.drawn[0]["fault"].unbind(0)
    stuck = torch.where(layer.weight >= 0, positive, negative) != 0
    assert 0.3 < stuck.float().mean() < 0.5
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, (~stuck).float())


def test_stuck_weights_do_not_move_the_output() -> None:
    """The mask agrees with what a finite difference of the forward says."""
    layer = nn.Linear(4, 3, bias=False).double()
    analog = analogsim.convert(layer, DeviceModel((StuckAt(0.3, 0.1),), mapping=Mapping("pair", "tensor")))
    with torch.no_grad():
        layer.weight[0, 0] = 2.0  # the largest, which sets the scale of all others, is left alone
    x = torch.rand(1, 4, dtype=torch.float64) + 1

    def total() -> Tensor:
        torch.manual_seed(2)
        return analog(x).sum()

    total().backward()
    difference = torch.zeros_like(layer.weight)
    step = 1e-6
    for index in range(1, layer.weight.numel()):
        with torch.no_grad():
            before = total()
            layer.weight.view(-1)[index] += step
            difference.view(-1)[index] = (total() - before) / step
            layer.weight.view(-1)[index] -= step
    assert layer.weight.grad is not None
    torch.testing.assert_close(difference.view(-1)[1:], layer.weight.grad.view(-1)[1:], rtol=1e-4, atol=1e-4)
    assert (layer.weight.grad == 0).any()
    assert (layer.weight.grad != 0).any()


def test_two_forwards_before_a_backward_are_two_draws() -> None:
    analog = analogsim.convert(nn.Linear(4, 3), "pcm")
    x = torch.randn(2, 4)
    first, second = analog(x), analog(x)
    torch.manual_seed(0)
    (first.square().sum() + second.square().sum()).backward()
    assert analog.weight.grad.isfinite().all()


def test_frozen_weights_still_see_noise() -> None:
    model = nn.Linear(4, 3)
    model.weight.requires_grad_(False)
    analog = analogsim.convert(model, "gaussian")
    x = torch.randn(2, 4)
    assert not torch.equal(analog(x), model(x))
    analog(x).sum().backward()
    assert model.bias.grad is not None


# --- drift in training ----------------------------------------------------------------------------------------------


def test_the_mean_drift_is_removed() -> None:
    """Over many draws the noisy weight is the clean one, within 5 SE and 1 %.

    The bound of 1 % is for the ratio of sums that the gain is: of order (spread/mean)^2 over the number of weights.
    """
    weight = torch.randn(30, 20)
    device = DeviceModel((Drift(nu=0.05, nu_std=0.02),))
    draws = torch.stack([noisy_weight(weight, device, 1.0, YEARS)[0] for _ in range(400)])
    error = (draws.mean(0) - weight).abs()
    assert (error < 5 * draws.std(0) / 20 + 0.01 * weight.abs()).all()
    # The spread stays: it is the point.
    assert (draws.std(0) / weight.abs()).median() > 0.05
    # Without the gain half the weight would be gone.
    total = (draws * weight).sum((1, 2)) / weight.square().sum()
    torch.testing.assert_close(total, torch.ones(400), rtol=1e-4, atol=1e-4)


def test_one_exponent_for_all_leaves_the_weight_as_it_is() -> None:
    weight = torch.randn(6, 5)
    noisy, _ = noisy_weight(weight, DeviceModel((Drift(nu=0.05, nu_std=0.0),)), 1.0, YEARS)
    torch.testing.assert_close(noisy, weight)


def test_train_times_set_the_range() -> None:
    model = nn.Linear(50, 40)
    device = DeviceModel((Drift(nu=0.05, nu_std=0.03),))
    x = torch.randn(20, 50)
    spread = {}
    for times in ((1.0, 1.0), ("1y", "1y"), ("1s", "1y")):
        analog = analogsim.convert(model, device, train_times=times)
        with torch.no_grad():
            spread[times] = torch.stack([(analog(x) - model(x)).std() for _ in range(20)])
    assert spread[1.0, 1.0].max() < 0.05 * spread["1y", "1y"].min()
    assert spread["1s", "1y"].max() < 1.2 * spread["1y", "1y"].max()
    assert spread["1s", "1y"].min() < 0.7 * spread["1y", "1y"].min()


# --- fast paths against slow ones -----------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["constant", "proportional", "absolute"])
@pytest.mark.parametrize("distribution", ["normal", "uniform"])
@pytest.mark.parametrize("scale", ["tensor", "column"])
def test_additive_path_gives_the_numbers_of_the_general_one(law: str, distribution: str, scale: str) -> None:
    device = DeviceModel((Gaussian(0.1, law, distribution),), mapping=Mapping("signed", scale))  # type: ignore[arg-type]
    assert device.additive is device.effects[0]
    for weight in (torch.randn(20, 10), torch.randn(4, 3, 2, 2), torch.zeros(3, 5), torch.randn(3, 5).double()):
        torch.manual_seed(1)
        fast, variance = noisy_weight(weight, device, 1.0, YEARS)
        torch.manual_seed(1)
        written = device.program(weight, GlobalNoise())
        torch.testing.assert_close(fast, device.to_weight(written.programmed, written))
        assert variance is None


@pytest.mark.parametrize("device", ["pcm", "drift", "stuck-at", "quantization", ALL], ids=str)
def test_general_path_is_program_and_read(device: object) -> None:
    chain = model_of(device)
    weight = torch.randn(7, 5)
    torch.manual_seed(1)
    fast, variance = noisy_weight(weight, chain, 1.0, (3600.0, 3600.0))
    torch.manual_seed(1)
    noise = GlobalNoise()
    written = chain.program(weight, noise)
    fresh = chain.to_weight(written.programmed, written)
    if chain.drifts:
        torch.rand(())  # the time
        g = chain.read(written, 3600.0, noise)
        slow = chain.to_weight(g, written)
        gain = (weight * fresh).sum() / (weight * slow).sum()
    else:
        g, slow, gain = written.programmed, fresh, torch.tensor(1.0)
    torch.testing.assert_close(fast, slow * gain)
    if device is ALL:
        torch.testing.assert_close(variance, chain.read_variance(g, written) * gain**2)


@dataclass(frozen=True)
class Lazy(Effect):
    """An effect on signed weights that hands back views of what it was given, at every stage."""

    signed: ClassVar[bool] = True

    def program(self, g: Tensor, cells: object, noise: object) -> Tensor:
        return g.view_as(g)

    def age(self, g: Tensor, t: object, cells: object, drawn: object) -> Tensor:
        return g.view_as(g)


def test_effects_that_hand_back_views_do_not_write_into_the_weight() -> None:
    """Trap 16, for a third party's effect."""
    model = nn.Linear(4, 3)
    before = model.weight.detach().clone()
    for device in (Lazy(), [Lazy(), ReadNoise(0.1, law="proportional")], [Lazy(), Gaussian(0.1)]):
        analog = analogsim.convert(model, device)
        for _ in range(3):
            analog(torch.ones(1, 4)).sum().backward()
        analogsim.program(analog)
        analogsim.drift(analog, "1y")
        analog.eval()(torch.ones(1, 4))
        assert torch.equal(model.weight, before)


@dataclass(frozen=True)
class Halving(Effect):
    """A signed value that halves with time."""

    signed: ClassVar[bool] = True

    def age(self, g: Tensor, t: object, cells: object, drawn: object) -> Tensor:
        return g * 0.5


def test_gain_counts_once_in_the_variance_of_signed_values() -> None:
    weight = torch.randn(4, 3)
    _, variance = noisy_weight(weight, DeviceModel((Halving(), ReadNoise(0.1, law="proportional"))), 1.0, YEARS)
    torch.testing.assert_close(variance, (0.1 * weight).square())


@pytest.mark.parametrize("crossbar", ["ideal", "standard"])
@pytest.mark.parametrize("device", ["pcm", "gaussian", "read-noise"])
def test_channels_last_stays_so(device: str, crossbar: str) -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 8, 8).to(memory_format=torch.channels_last)
    analog = analogsim.convert(model, device, crossbar=crossbar)
    assert analog(x).is_contiguous(memory_format=torch.channels_last)
    with analogsim.programmed(analog):
        assert analog.eval()(x).is_contiguous(memory_format=torch.channels_last)


# --- dtypes (trap 13) -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [*analogsim.available_devices(), ALL], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes(device: object, dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)).to(dtype)
    analog = analogsim.convert(model, device)
    output = analog(torch.randn(2, 1, 4, 4, dtype=dtype))
    assert output.dtype == dtype
    output.sum().backward()
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == dtype
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("device", [*analogsim.available_devices(), ALL], ids=str)
def test_autocast(device: object) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    analog = analogsim.convert(model, device)
    with torch.autocast("cpu", torch.bfloat16):
        output = analog(torch.randn(2, 1, 4, 4))
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("cast", [False, True], ids=["weights", "autocast"])
@pytest.mark.parametrize("device", ["pcm", "reram-wan2022", "gaussian"])
@pytest.mark.parametrize("crossbar", ["standard", "standard(input_range='learned')", SERIAL], ids=str)
def test_converters_in_other_dtypes(device: str, crossbar: str | Crossbar, dtype: torch.dtype, cast: bool) -> None:
    """Training (with the scaled loss that float16 wants), calibration and a chip; read noise included."""
    if cast and dtype is torch.float64:
        pytest.skip("torch casts to half precision only")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    x = torch.randn(2, 1, 4, 4)
    if not cast:
        model, x = model.to(dtype), x.to(dtype)
    analog = analogsim.convert(model, device, crossbar=crossbar)
    scaler, optimizer = torch.amp.GradScaler("cpu", enabled=cast), torch.optim.SGD(model.parameters(), lr=0.01)
    with torch.autocast("cpu", dtype if cast else torch.bfloat16, enabled=cast):
        analogsim.calibrate(analog, [x])
        output = analog(x)
    assert output.dtype == dtype
    scaler.scale(output.float().square().sum()).backward()
    scaler.step(optimizer)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    with analogsim.programmed(analog, t="1d"), torch.autocast("cpu", dtype if cast else torch.bfloat16, enabled=cast):
        answer = analog.eval()(x)
    assert answer.dtype == dtype
    assert answer.isfinite().all()


@pytest.mark.parametrize("device", analogsim.available_devices())
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_trap_02_every_device_trains_with_any_optimizer(device: str, kind: type[torch.optim.Optimizer]) -> None:
    """No optimizer of ours."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    analog = analogsim.convert(model, device)
    optimizer = kind(model.parameters(), lr=0.1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    analog(torch.randn(4, 1, 4, 4)).square().sum().backward()
    optimizer.step()
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert parameter.isfinite().all()
        assert not torch.equal(parameter, old)


@pytest.mark.parametrize(
    "device", [IDEAL, DeviceModel((*IDEAL.effects, Drift(nu=0.05, nu_std=0.0)))], ids=["still", "drifts"]
)
def test_training_sees_the_wires(device: DeviceModel) -> None:
    """Cells that are written exactly: training's answer is that of the conductances behind their wires."""
    torch.manual_seed(0)
    model, x = nn.Linear(40, 30, bias=False), torch.randn(8, 40)
    behind = analogsim.convert(model, device, crossbar=Crossbar(wire_resistance=20.0)).train()
    ideal = analogsim.convert(model, device).train()
    lost = (ideal(x) - behind(x)).norm() / ideal(x).norm()
    chip = analogsim.convert(model, device, crossbar=Crossbar(wire_resistance=20.0)).eval()
    analogsim.program(chip, seed=0)
    clean = model(x)
    wanted = (clean - chip(x)).norm() / clean.norm()
    assert wanted > 0.01
    assert 0.5 < lost / wanted < 2
