from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim.evaluation.kept_digital import Selection, Share, by_loss_per_share, search, sum_shares
from analogsim.evaluation.layer_sensitivity import Sensitivity, sensitivity

Batches = list[tuple[Tensor, Tensor]]


def trained(norm: bool = False) -> tuple[nn.Sequential, Batches]:
    """A network of three layers that knows which of four corners of a plane has the most points."""
    torch.manual_seed(0)
    x = torch.randn(300, 12)
    y = (x[:, :4].sum(1) > 0).long() + 2 * (x[:, 4:8].sum(1) > 0).long()
    middle: list[nn.Module] = [nn.BatchNorm1d(16)] if norm else []
    model = nn.Sequential(nn.Linear(12, 16), *middle, nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, list(zip(x.split(100), y.split(100), strict=True))


MODEL, DATA = trained()


def noisy() -> Sensitivity:
    return sensitivity(analogsim.convert(MODEL, "gaussian(std=0.25)"), DATA, t=0, chips=3)


def test_keep_digital_evaluates_each_combination() -> None:
    result = noisy()
    target = result.clean - 0.05
    kept = result.keep_digital(target)
    assert kept.steps[0].digital == ()
    np.testing.assert_array_equal(kept.steps[0].values, result.everything.values[:, 0])
    assert [len(step.digital) for step in kept.steps] == list(range(len(kept.steps)))
    assert all(step.mean < target for step in kept.steps[:-1])
    assert kept.mean >= target
    assert 0 < len(kept.layers) < 3
    # Handed to convert, the mapping gives the network that was evaluated.
    assert list(kept.device) == [*kept.layers, "*"]
    again = analogsim.convert(MODEL, dict(kept.device), crossbar=kept.crossbar)
    values = analogsim.evaluate(again, DATA, chips=3, times=(0,)).values[:, 0]
    np.testing.assert_array_equal(kept.steps[-1].values, values)
    worth = {name: max(result.mean(name), 0) / result.shares[name].macs for name in result.reports}
    assert kept.layers[0] == max(worth, key=worth.__getitem__)


def test_the_order_is_by_loss_per_share() -> None:
    result = noisy()
    # One of the layers as small as can be: it costs least for what it loses.
    smallest = replace(result, shares={**result.shares, result.ranking[1]: Share(1e-6, 1e-6)})
    assert smallest.keep_digital(result.clean - 0.001).layers[0] == result.ranking[1]
    by_macs = replace(result, shares={name: Share(0.1, 0.9 if name == result.ranking[0] else 1e-3) for name in "024"})
    assert by_macs.keep_digital(result.clean - 0.001, per="macs").layers[0] != result.ranking[0]
    assert by_macs.keep_digital(result.clean - 0.001, per="parameters").layers[0] == result.ranking[0]


def test_a_target_that_is_reached_anyway_and_one_that_takes_everything() -> None:
    result = noisy()
    assert result.keep_digital(float(result.everything.mean[0])).layers == ()
    worse = replace(result, everything=replace(result.everything, values=result.everything.values - 1))

    class Never:
        def __getattr__(self, name: str) -> Any:
            return getattr(result._setting, name)

        def report(self, names: Any) -> Any:
            return worse.everything

    kept = replace(worse, _setting=Never()).keep_digital(result.clean)
    assert set(kept.layers) == {"0", "2", "4"}
    assert (kept.mean, kept.std) == (result.clean, 0)
    assert kept.share == Share(0.0, 0.0)
    assert kept.device == {**dict.fromkeys(kept.layers), "*": None}


def test_weights_that_changed_meanwhile_are_refused() -> None:
    model, data = trained()
    result = sensitivity(analogsim.convert(model, "gaussian(std=0.25)"), data, t=0, chips=2)
    with torch.no_grad():
        model[4].weight.neg_()
    with pytest.raises(ValueError, match="its weights have changed"):
        result.keep_digital(result.clean)


def selection(digital: Sequence[str], *values: float) -> Selection:
    return Selection(tuple(digital), np.array(values), Share(0.0, 0.0))


def test_the_search_stops_at_the_first_step_that_will_do() -> None:
    scores = {1: 0.6, 2: 0.8, 3: 0.9}
    asked = []

    def measure(digital: Sequence[str]) -> Selection:
        asked.append(tuple(digital))
        return selection(digital, scores[len(digital)], scores[len(digital)])

    steps = search("cab", selection((), 0.5), lambda mean: mean >= 0.8, measure)
    assert [step.digital for step in steps] == [(), ("c",), ("c", "a")]
    assert asked == [("c",), ("c", "a")]
    assert search("cab", selection((), 0.5), lambda mean: mean >= 0.5, measure)[-1].digital == ()
    assert search("cab", selection((), 0.5), lambda mean: False, measure)[-1].digital == ("c", "a", "b")


def test_the_order_of_layers() -> None:
    losses = {"large": 0.4, "small": 0.3, "harmless": 0.0, "better": -0.2, "free": 0.1}
    shares = {"large": 0.8, "small": 0.1, "harmless": 0.07, "better": 0.03, "free": 0.0}
    assert by_loss_per_share(losses, shares) == ["free", "small", "large", "better", "harmless"]
    assert by_loss_per_share({"a": 0.0}, {"a": 0.0}) == ["a"]


def test_shares_add_up() -> None:
    assert sum_shares([Share(0.25, 0.5), Share(0.5, 0.125)]) == Share(0.75, 0.625)
    assert sum_shares(()) == Share(0.0, 0.0)


def test_a_loss_is_to_be_reached_from_above() -> None:
    model, data = trained()
    result = sensitivity(analogsim.convert(model, "gaussian(std=0.25)"), data, t=0, chips=2, metric="cross_entropy")
    assert result.mean() > 0
    target = (result.clean + float(result.everything.mean[0])) / 2
    kept = result.keep_digital(target)
    assert kept.mean <= target < kept.steps[-2].mean
    assert str(kept).split()[:3] == ["kept", "digital", "cross_entropy"]
    with pytest.raises(ValueError, match=r"the digital network has cross_entropy .* does not reach"):
        result.keep_digital(result.clean / 2)
