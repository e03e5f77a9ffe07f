from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim.training import SeveralDraws, plain_step

X, Y = torch.randn(32, 6, generator=torch.Generator().manual_seed(1)), torch.arange(32) % 3


def twin() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    return model, analogsim.convert(model, "gaussian(std=0.3)").train()


def loss_of(network: nn.Module) -> Tensor:
    return nn.functional.cross_entropy(network(X), Y)


def by_hand(count: int, ranks: range) -> tuple[float, list[Tensor]]:
    """The mean loss and gradient of the draws at these ranks, from the worst on, each with a backward of its own."""
    model, analog = twin()
    torch.manual_seed(5)
    found = []
    for _ in range(count):
        model.zero_grad()
        value = loss_of(analog)
        value.backward()  # type: ignore[no-untyped-call]
        found.append((value.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    chosen = [sorted(found, key=lambda each: -each[0])[rank] for rank in ranks]
    gradients = [torch.stack(parts).mean(0) for parts in zip(*(each[1] for each in chosen), strict=True)]
    return sum(each[0] for each in chosen) / len(chosen), gradients


@pytest.mark.parametrize(
    ("step", "ranks"),
    [
        (SeveralDraws(4), range(4)),
        (SeveralDraws(4, "worst"), range(1)),
        (SeveralDraws(4, "cvar", share=0.5), range(2)),
        (SeveralDraws(5, "cvar", share=0.5), range(3)),
        (SeveralDraws(3, "cvar", share=1.0), range(3)),
        (SeveralDraws(1, "cvar", share=0.01), range(1)),
    ],
    ids=str,
)
def test_gradients_are_those_of_the_draws_that_count(step: SeveralDraws, ranks: range) -> None:
    wanted, gradients = by_hand(step.count, ranks)
    model, analog = twin()
    torch.manual_seed(5)
    value = step(analog, lambda: loss_of(analog))
    assert value.item() == pytest.approx(wanted, rel=1e-5)
    assert not value.requires_grad
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-6)


def test_one_draw_is_a_plain_step() -> None:
    grads = []
    for step in (SeveralDraws(1), plain_step):
        model, analog = twin()
        torch.manual_seed(3)
        step(analog, lambda analog=analog: loss_of(analog))
        grads.append([p.grad for p in model.parameters()])
    assert all(map(torch.equal, *grads))


def test_it_is_what_its_text_says() -> None:
    step = SeveralDraws(4, "cvar", share=0.25)
    assert eval(repr(step)) == step


def test_a_share_that_is_a_whole_number_of_draws_is_that_number() -> None:
    """0.07 of 100 and 0.14 of 50 are 7, though the products come out a little larger."""
    for share, count in ((0.07, 100), (0.14, 50)):
        assert share * count > 7
        step, losses = SeveralDraws(count, "cvar", share=share), torch.arange(float(count), requires_grad=True)
        drawn = iter(losses)
        assert float(step(nn.Linear(1, 1), lambda: next(drawn))) == sum(range(count - 7, count)) / 7  # noqa: B023


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"count": 0}, "count must be an integer >= 1, got 0"),
        ({"count": True}, "count must be an integer"),
        ({"of": "median"}, "of must be one of mean, worst, cvar, got 'median'"),
        ({"share": 0.0}, r"share must be in \(0, 1\], got 0.0"),
        ({"share": math.nan}, "share must be in"),
        ({"share": "0.5"}, r"share must be in \(0, 1\], got '0.5'"),
    ],
)
def test_bad_settings(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=f"SeveralDraws: {told}"):
        SeveralDraws(**changes)  # type: ignore[arg-type]
