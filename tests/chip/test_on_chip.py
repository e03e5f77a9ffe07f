from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import analogsim
from tests.evaluation.test_monte_carlo import batches

DAY = 86400.0


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 4))


def shift(analog: nn.Module, seed: int, t: float) -> None:
    """Every answer becomes class 1."""
    with torch.no_grad():
        analog[3].bias[1] += 100.0


@dataclass
class Seen:
    """What it was called with, and the answers of the chip then."""

    calls: list[tuple[int, float]] = field(default_factory=list)
    answers: list[Tensor] = field(default_factory=list)

    def __call__(self, analog: nn.Module, seed: int, t: float) -> None:
        assert not analog.training
        self.calls.append((seed, t))
        self.answers.append(analog(batches()[0][0]).detach())


def test_it_is_called_for_each_chip_at_each_age_and_finds_that_chip() -> None:
    analog, seen = analogsim.convert(net(), "pcm"), Seen()
    plain = analogsim.evaluate(analog, batches(), chips=2, times=("1s", "1d"), seed=3)
    watched = analogsim.evaluate(analog, batches(), chips=2, times=("1s", "1d"), seed=3, on_chip=seen)
    assert watched.to_dict() == plain.to_dict()
    assert seen.calls == [(3, 1.0), (3, DAY), (4, 1.0), (4, DAY)]
    with analogsim.programmed(analog, 4, "1d"):
        assert torch.equal(analog(batches()[0][0]), seen.answers[-1])


def test_what_it_changes_is_judged_and_undone() -> None:
    model = net()
    analog = analogsim.convert(model, "pcm", crossbar="standard(input_range='learned')")
    analogsim.calibrate(analog, batches())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ranges = analogsim.get_ranges(analog)
    model[0].bias.grad = kept = torch.ones(16)

    def tune(analog: nn.Module, seed: int, t: float) -> None:
        assert torch.equal(analog[3].bias, before["3.bias"])  # nothing is left of the chips and ages before
        analog[0].weight.requires_grad_(False)
        analog[3].weight.requires_grad_(False)
        model[1].running_mean.add_(1.0)
        analog[0].analog.input_range.data.mul_(2)
        shift(analog, seed, t)
        nn.functional.cross_entropy(analog(batches()[0][0]), batches()[0][1]).backward()
        analog.train()  # which is undone: chips are judged in eval mode

    report = analogsim.evaluate(analog, batches(), chips=2, times=("1s", "1d"), on_chip=tune)
    share = float(torch.cat([y for _, y in batches()]).eq(1).float().mean())
    np.testing.assert_allclose(report.values, share, atol=1e-6)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert analogsim.get_ranges(analog) == ranges
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model[0].bias.grad is kept
    assert model[3].bias.grad is None


def test_it_comes_after_the_compensations() -> None:
    model = net()
    analog = analogsim.convert(model, "pcm")
    means = []
    analogsim.evaluate(
        analog,
        batches(),
        chips=1,
        times=("1d",),
        compensation="global+batch-norm",
        calibration=batches(),
        on_chip=lambda analog, seed, t: means.append(analog[1].running_mean.clone()),
    )
    assert not torch.equal(means[0], model[1].running_mean)


def test_an_error_in_it_leaves_the_network_as_it_was() -> None:
    model = net()
    analog = analogsim.convert(model, "pcm")
    bias = model[3].bias.detach().clone()

    def fail(analog: nn.Module, seed: int, t: float) -> None:
        shift(analog, seed, t)
        raise RuntimeError("no chip today")

    with pytest.raises(RuntimeError, match="no chip today"):
        analogsim.evaluate(analog, batches(), chips=1, on_chip=fail)
    assert torch.equal(model[3].bias, bias)
    assert analog[0].analog.chip is None


def test_weights_that_are_on_the_chip_cannot_be_moved() -> None:
    analog = analogsim.convert(net(), "pcm")

    def move(analog: nn.Module, seed: int, t: float) -> None:
        with torch.no_grad():
            analog[0].weight.mul_(2)

    with pytest.raises(analogsim.StaleChipError):
        analogsim.evaluate(analog, batches(), chips=1, on_chip=move)


def test_workers_call_it_too() -> None:
    analog = analogsim.convert(net(), "pcm")
    alone = analogsim.evaluate(analog, batches(), chips=3, times=("1d",), on_chip=shift)
    with ThreadPoolExecutor(2) as pool:
        shared = analogsim.evaluate(analog, batches(), chips=3, times=("1d",), on_chip=shift, executor=pool)
        assert shared.to_dict() == alone.to_dict()
        lock = threading.Lock()  # cannot be pickled

        with pytest.raises(TypeError, match="the on_chip cannot be sent to workers"):
            analogsim.evaluate(
                analog, batches(), chips=1, on_chip=lambda analog, seed, t: lock.release(), executor=pool
            )


def test_a_journal_tells_chips_with_it_from_chips_without(tmp_path: Path) -> None:
    analog = analogsim.convert(net(), "pcm")
    given = {"chips": 1, "times": ("1d",), "journal": tmp_path / "chips.jsonl"}
    first = analogsim.evaluate(analog, batches(), **given, on_chip=shift)
    assert analogsim.evaluate(analog, batches(), **given, on_chip=shift).to_dict() == first.to_dict()
    with pytest.raises(ValueError, match="another correction"):
        analogsim.evaluate(analog, batches(), **given)


def test_what_it_cannot_be() -> None:
    analog = analogsim.convert(net(), "pcm")
    with pytest.raises(TypeError, match="on_chip must be a function of"):
        analogsim.evaluate(analog, batches(), on_chip=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="together=2 with on_chip"):
        analogsim.evaluate(analog, batches(), on_chip=shift, together=2)
    with pytest.raises(TypeError, match="on_chip must return nothing, got int"):
        analogsim.evaluate(analog, batches(), chips=1, on_chip=lambda analog, seed, t: 3)  # type: ignore
