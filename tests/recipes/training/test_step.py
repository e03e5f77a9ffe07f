from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim.recipes.config.options import Config
from analogsim.recipes.tasks import data_sets, networks
from analogsim.recipes.train import AWARE, resume_config, train
from analogsim.recipes.training.checkpoint import load_checkpoint
from analogsim.recipes.training.loop import Training
from analogsim.recipes.training.setup import load_data
from analogsim.recipes.training.state import name_of
from analogsim.training import plain_step, same_noise

Tiny = Callable[..., Config]


@dataclass(frozen=True)
class SharpnessAware:
    """The gradient at the worst weights within a distance, under one draw (Foret et al., ICLR 2021)."""

    distance: float = 0.05

    def __call__(self, network: nn.Module, loss: Callable[[], Tensor]) -> Tensor:
        trained = list(network.parameters())
        with same_noise(network):
            plain_step(network, loss)
            slopes = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in trained]
            factor = self.distance / float(torch.cat([slope.flatten() for slope in slopes]).norm())
            kept = [weight.detach().clone() for weight in trained]
            with torch.no_grad():
                for weight, slope in zip(trained, slopes, strict=True):
                    weight.add_(slope, alpha=factor)
                    weight.grad = None
            value = plain_step(network, loss)
        with torch.no_grad():
            for weight, old in zip(trained, kept, strict=True):
                weight.copy_(old)
        return value


def mean_of_two(network: nn.Module, loss: Callable[[], Tensor]) -> Tensor:
    return (plain_step(network, lambda: loss() / 2)) + plain_step(network, lambda: loss() / 2)


def trained(config: Config, path: Path, **options: object) -> Training:
    training = Training(config, load_data(config), aware=True, path=path, **options)  # type: ignore[arg-type]
    training.set_random_state()
    while not training.done:
        training.run_epoch(lambda _: None)
    return training


@pytest.mark.parametrize("step", [SharpnessAware(), mean_of_two])
def test_a_method_of_ones_own_trains_in_a_recipe_as_in_a_loop_by_hand(
    tiny: Tiny, tmp_path: Path, step: Callable[[nn.Module, Callable[[], Tensor]], Tensor]
) -> None:
    config = tiny("device=gaussian(std=0.05)", "noise.start=1", "noise.end=1", "noise.jitter=0", "data.limit=1000")
    training = trained(config, tmp_path / "own.pt", step=step)
    plain = trained(config, tmp_path / "plain.pt")
    assert training.history[-1]["validation/accuracy/clean"] > 0.7
    assert training.history[-1]["train/loss"] != plain.history[-1]["train/loss"]

    data = load_data(config)
    model = networks.build("mlp", data.shape, data.classes, seed=0)
    analog = analogsim.convert(model, "gaussian(std=0.05)").train()
    loader = data_sets.batches(data.train, 16, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3 * len(loader))
    torch.manual_seed(0)
    for inputs, targets in (batch for _ in range(3) for batch in loader):
        optimizer.zero_grad()
        step(analog, lambda x=inputs, y=targets: nn.functional.cross_entropy(analog(x), y))
        optimizer.step()
        schedule.step()
        analogsim.clip_weights(analog, 2.5)
    for ours, theirs in zip(training.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_learned_ranges_are_moved_by_such_a_step(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("crossbar=standard(input_range='learned')", "optimization.epochs=1")
    training = Training(
        config, load_data(config), aware=True, path=tmp_path / "c.pt", step=lambda net, loss: plain_step(net, loss)
    )
    before = [value.item() for value in training._ranges.learned]
    training.set_random_state()
    training.run_epoch(lambda _: None)
    plain = trained(config, tmp_path / "plain.pt")
    after = [value.item() for value in training._ranges.learned]
    assert after == [value.item() for value in plain._ranges.learned] != before


def test_a_run_goes_on_by_the_same_steps(tiny: Tiny, alone: Path) -> None:
    config = tiny()
    whole = train(config, Path("whole"), show=False, step=SharpnessAware())

    class Stop(Exception):  # noqa: N818
        pass

    def stopping(network: nn.Module, loss: Callable[[], Tensor]) -> Tensor:
        raise Stop

    stopping.__module__, stopping.__qualname__ = SharpnessAware.__module__, SharpnessAware.__qualname__
    with pytest.raises(Stop):
        train(config, Path("run"), show=False, step=stopping)
    with pytest.raises(ValueError, match=r"was trained by steps of .*SharpnessAware, now they are of .*plain_step"):
        train(resume_config(Path("run")), Path("run"), show=False)
    again = train(resume_config(Path("run")), Path("run"), show=False, step=SharpnessAware())
    one, two = (load_checkpoint(result.folder / AWARE / "checkpoint.pt") for result in (whole, again))
    assert all(torch.equal(one["model"][name], two["model"][name]) for name in one["model"])
    assert one["history"] == two["history"]


def test_the_name_of_a_step() -> None:
    assert name_of(plain_step) == "analogsim.training.step.plain_step"
    assert name_of(SharpnessAware()) == name_of(SharpnessAware(1.0))
    assert name_of(SharpnessAware()).endswith("test_step.SharpnessAware")


def test_what_is_no_step_is_refused_before_anything_is_read(tiny: Tiny) -> None:
    with pytest.raises(TypeError, match=r"step: must be a callable \(network, loss\) .*, got 'plain'; see analogsim"):
        train(tiny("data.folder=/nowhere"), show=False, step="plain")  # type: ignore[arg-type]


def graph_kept(network: nn.Module, loss: Callable[[], Tensor]) -> Tensor:
    value = loss()
    value.backward()
    return value


def nothing_returned(network: nn.Module, loss: Callable[[], Tensor]) -> None:
    plain_step(network, loss)


def number_returned(network: nn.Module, loss: Callable[[], Tensor]) -> float:
    return float(plain_step(network, loss))


def vector_returned(network: nn.Module, loss: Callable[[], Tensor]) -> Tensor:
    return plain_step(network, loss).reshape(1)


def no_backward(network: nn.Module, loss: Callable[[], Tensor]) -> Tensor:
    return loss()


@pytest.mark.parametrize(
    ("step", "kind", "message"),
    [
        (nothing_returned, TypeError, r"step .*nothing_returned must return the loss, a scalar tensor, got None"),
        (number_returned, TypeError, r"step .*number_returned must return the loss, a scalar tensor, got \d"),
        (vector_returned, TypeError, r"step .*vector_returned must return .*, got a tensor of shape \(1,\)"),
        (no_backward, RuntimeError, r"step .*no_backward left no gradient in the Parameters"),
    ],
)
def test_a_step_that_does_not_do_its_part_is_told_so(
    tiny: Tiny, tmp_path: Path, step: Callable[..., object], kind: type[Exception], message: str
) -> None:
    config = tiny("optimization.epochs=1", "data.limit=1000")
    with pytest.raises(kind, match=message):
        trained(config, tmp_path / "own.pt", step=step)


def test_the_graph_of_a_loss_is_let_go(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("optimization.epochs=1", "data.limit=1000")
    kept, plain = (trained(config, tmp_path / f"{step.__name__}.pt", step=step) for step in (graph_kept, plain_step))
    inputs, targets = next(iter(kept._loader))
    assert not kept._stepper.step(kept._loss(kept._net, 0, inputs, targets)).requires_grad
    assert kept.history == plain.history
