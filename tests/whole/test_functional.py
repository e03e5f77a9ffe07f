"""torch.func with a twin: `functional_call`, `grad` and `vmap` over weights, inputs and draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, stack_module_state, vmap

import analogsim
from analogsim import Drift, Gaussian, ReadNoise, StuckAt

ALL = [Gaussian(0.05), StuckAt(0.1, 0.05), Drift(0.05, 0.02), ReadNoise(0.02)]
DEVICES = [*analogsim.available_devices(), ALL]


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def detached(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_functional_call_takes_other_weights_and_leaves_the_own_ones(device: object) -> None:
    model, other = mlp(), mlp(1)
    analog, twin = analogsim.convert(model, device), analogsim.convert(other, device)
    before = detached(model)
    x = torch.randn(4, 6)
    torch.manual_seed(2)
    called = functional_call(analog, detached(other), (x,))
    torch.manual_seed(2)
    assert torch.equal(called, twin(x))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    torch.manual_seed(2)
    assert not torch.equal(called, analog(x))


def test_a_chip_does_not_answer_for_other_weights() -> None:
    analog = analogsim.convert(mlp(), "pcm").eval()
    analogsim.program(analog)
    x = torch.randn(4, 6)
    torch.testing.assert_close(functional_call(analog, detached(analog), (x,)), analog(x))
    with pytest.raises(analogsim.StaleChipError):
        functional_call(analog, detached(mlp(1)), (x,))


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_func_grad_is_that_of_backward(device: object) -> None:
    analog = analogsim.convert(mlp(), device)
    x = torch.randn(4, 6)

    def loss(weights: dict[str, Tensor]) -> Tensor:
        output: Tensor = functional_call(analog, weights, (x,))
        return output.square().sum()

    torch.manual_seed(3)
    functional = grad(loss)(detached(analog))
    torch.manual_seed(3)
    analog(x).square().sum().backward()
    for name, parameter in analog.named_parameters():
        torch.testing.assert_close(functional[name], parameter.grad)


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_vmap_over_draws_sees_one_of_its_own_in_each(device: object) -> None:
    """With randomness "different" each lane is a draw like those of single forwards; with "same" all are one draw.

    Means and mean squares over 500 lanes and over 500 single forwards agree within 5 standard errors.
    """
    analog = analogsim.convert(mlp(), device)
    x, draws = torch.randn(6), torch.arange(500)

    def answer(_: Tensor) -> Tensor:
        output: Tensor = analog(x)
        return output

    with torch.no_grad():
        lanes = vmap(answer, randomness="different")(draws)
        single = torch.stack([answer(draw) for draw in draws])
        one = vmap(answer, randomness="same")(draws[:3])
    assert torch.equal(one[0], one[2])
    if device == "quantization":  # draws nothing
        torch.testing.assert_close(lanes, single)
        return
    assert len(lanes.unique(dim=0)) > len(draws) / 2  # of stuck cells there may be few
    centre = single.mean(0)
    for a, b in ((lanes, single), ((lanes - centre).square(), (single - centre).square())):
        error = (a.var(0) + b.var(0)).div(len(draws)).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() < 5 * error + 1e-7).all()


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_vmap_over_weights_is_a_loop_over_them(device: object) -> None:
    """An ensemble through one twin: without noise each lane is its own network's answer, with noise it differs."""
    models = [mlp(seed) for seed in range(3)]
    weights, _ = stack_module_state(models)
    analog = analogsim.convert(models[0], device)
    x = torch.randn(4, 6)

    def answers() -> Tensor:
        return vmap(lambda own: functional_call(analog, own, (x,)), randomness="different")(weights)

    noisy = answers()
    analogsim.set_noise_scale(analog, 0)
    clean = torch.stack([model(x) for model in models])
    torch.testing.assert_close(answers(), clean)
    assert (noisy - clean).flatten(1).norm(dim=1).min() > 1e-3


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_gradients_of_single_samples(device: object) -> None:
    """``vmap(grad(...))``: one draw for all ("same"), so that the samples' gradients add up to that of the batch."""
    analog = analogsim.convert(mlp(), device)
    x = torch.randn(4, 6)

    def loss(weights: dict[str, Tensor], sample: Tensor) -> Tensor:
        output: Tensor = functional_call(analog, weights, (sample,))
        return output.square().sum()

    weights = detached(analog)
    torch.manual_seed(4)
    each = vmap(grad(loss), in_dims=(None, 0), randomness="same")(weights, x)
    assert each["0.weight"].shape == (4, 5, 6)
    assert all(value.isfinite().all() for value in each.values())
    if device is ALL or device in ("read-noise", "reram-wan2022", "sonos"):
        return  # white read noise is drawn for each sample of a batch
    torch.manual_seed(4)
    total = grad(loss)(weights, x)
    for name, value in each.items():
        torch.testing.assert_close(value.sum(0), total[name])


def test_a_chip_under_vmap_and_jacrev() -> None:
    analog = analogsim.convert(mlp(), "pcm").eval()
    analogsim.program(analog)
    analogsim.drift(analog, "1d")
    x = torch.randn(4, 6)
    torch.testing.assert_close(vmap(analog)(x), analog(x))
    plain = analogsim.to_digital(analog, "programmed")
    torch.testing.assert_close(jacrev(analog)(x[0]), jacrev(plain)(x[0]))
