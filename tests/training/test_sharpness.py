from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim.training import SharpnessAware, same_noise
from analogsim.training.weight_spread import spread_of_parameters

X, Y = torch.randn(32, 6, generator=torch.Generator().manual_seed(1)), torch.arange(32) % 3


def twin(crossbar: str = "ideal") -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    analog = analogsim.convert(model, "pcm", crossbar=crossbar).train()
    analogsim.calibrate(analog, [X])
    return model, analog


def loss_of(network: nn.Module) -> Tensor:
    return nn.functional.cross_entropy(network(X), Y)


def test_the_gradient_is_taken_where_the_device_would_move_the_weights_worst() -> None:
    """By hand: a first gradient, a step of two standard deviations along it in units of the device's own, a second."""
    model, analog = twin()
    step = SharpnessAware(radius=2.0, draws=8)
    spreads = dict(spread_of_parameters(analog, draws=8))
    weights = [model[0].weight, model[2].weight]
    torch.manual_seed(4)
    with same_noise(analog):
        slopes = torch.autograd.grad(loss_of(analog), weights)
        scaled = torch.cat([(spreads[w] * g).flatten() for w, g in zip(weights, slopes, strict=True)])
        old = [w.detach().clone() for w in weights]
        with torch.no_grad():
            for w, g in zip(weights, slopes, strict=True):
                w.add_(2.0 * spreads[w] ** 2 * g / scaled.norm())
        length = torch.cat([((w - o) / spreads[w]).flatten() for w, o in zip(weights, old, strict=True)]).norm()
        assert float(length.detach()) == pytest.approx(2.0, rel=1e-3)
        value = loss_of(analog)
        value.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for w, o in zip(weights, old, strict=True):
                w.copy_(o)
    wanted = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    torch.manual_seed(4)
    found = step(analog, lambda: loss_of(analog))
    assert found.item() == pytest.approx(value.item(), rel=1e-5)
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("draws", "length"), [(4, 1.291), (32, 1.032)])
def test_few_draws_bias_no_step_and_make_it_longer(draws: int, length: float) -> None:
    """Of a device that moves all weights by one standard deviation, of a loss that is linear in them."""
    torch.manual_seed(0)
    model = nn.Linear(200, 200, bias=False)
    analog = analogsim.convert(model, "gaussian(std=0.05)")
    sigma = 0.05 * float(model.weight.detach().abs().max())
    slope, clean = torch.randn(200, 200), model.weight.detach().clone()
    places = []

    def loss() -> Tensor:
        places.append(model.weight.detach().clone())
        return (slope * analog(torch.eye(200)).t()).sum()

    SharpnessAware(radius=2.0, draws=draws)(analog, loss)
    step = (places[1] - clean) / sigma
    # Of 40,000 weights the relative standard error of both is below 1 %: four of them.
    assert float((step * slope).sum() / slope.norm()) == pytest.approx(2.0, rel=0.04)
    assert float(step.norm()) == pytest.approx(2.0 * length, rel=0.04)


def test_weights_are_exactly_where_they_were_and_gradients_add_up() -> None:
    model, analog = twin("standard(input_range='learned')")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ranges = analogsim.range_parameters(analog)

    def grads() -> list[Tensor | None]:
        return [tensor.grad for tensor in (*model.parameters(), *ranges)]

    torch.manual_seed(4)
    SharpnessAware()(analog, lambda: loss_of(analog))
    first = [None if g is None else g.clone() for g in grads()]
    assert all(g is not None for g in first), "of ranges too"
    torch.manual_seed(4)
    SharpnessAware()(analog, lambda: loss_of(analog))
    for one, two in zip(first, grads(), strict=True):
        torch.testing.assert_close(two, 2 * one)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_error_leaves_weights_and_gradients() -> None:
    model, analog = twin()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model[0].bias.grad = kept = torch.ones(8)
    calls = []

    def fail() -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("stop")
        return loss_of(analog)

    with pytest.raises(RuntimeError, match="stop"):
        SharpnessAware()(analog, fail)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[0].bias.grad is kept
    assert model[0].weight.grad is None


def test_it_goes_uphill() -> None:
    model, analog = twin()
    losses = []
    for radius in (1e-6, 3.0):
        torch.manual_seed(4)
        losses.append(SharpnessAware(radius=radius)(analog, lambda: loss_of(analog)).item())
        model.zero_grad()
    assert losses[1] > losses[0] * 1.005


def test_what_it_cannot_do() -> None:
    for radius in (0.0, -1.0, math.inf, "1", None):
        with pytest.raises(ValueError, match="SharpnessAware: radius must be finite and > 0"):
            SharpnessAware(radius=radius)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="SharpnessAware: draws must be an integer >= 2, got 1"):
        SharpnessAware(draws=1)
    model, analog = twin()
    for weight in (model[0].weight, model[2].weight):
        weight.requires_grad_(False)
    with pytest.raises(ValueError, match="SharpnessAware: no Parameter holds an analog weight that is trained"):
        SharpnessAware()(analog, lambda: loss_of(analog))
    assert eval(repr(SharpnessAware(2.0))) == SharpnessAware(radius=2.0)
