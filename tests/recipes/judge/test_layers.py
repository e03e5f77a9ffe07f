import pytest
import torch
from torch import nn

import analogsim
from analogsim.evaluation.metrics import METRICS
from analogsim.recipes.judge.bench import Bench, Part
from analogsim.recipes.judge.clock import Clock
from analogsim.recipes.judge.layers import Cost, by_harm, find_costs, shares_of
from analogsim.recipes.judge.paired import Difference
from analogsim.recipes.judge.samples import Samples
from analogsim.recipes.judge.variant import Subject, Variant


def test_every_layer_as_sensitivity_has_it(bench, part, subject, samples):
    costs, whole = find_costs(bench, Variant(), part, 2, most=10, reserve=0.0)
    expected = analogsim.sensitivity(subject.analog, samples, chips=2, t="1y", seed=5)
    assert whole
    assert {cost.name: pytest.approx(cost.loss.mean) for cost in costs} == {
        name: expected.mean(name) for name in expected.ranking
    }


def deep(worst: int) -> tuple[Bench, Part]:
    """Twenty layers that pass their inputs on; all but one lie on cells without errors."""
    torch.manual_seed(0)
    layers = [nn.Linear(4, 4, bias=False) for _ in range(20)]
    for layer in layers:
        nn.init.eye_(layer.weight)
    model = nn.Sequential(*layers)
    device = {str(worst): "gaussian(std=0.5)", "*": "gaussian(std=0.0)"}
    x = torch.randn(200, 4)
    subject = Subject(analogsim.convert(model, device), [], device, "ideal")
    return Bench(subject, METRICS["accuracy"], Clock(1e6)), Part(Samples([(x, x.argmax(1))]), 0, (0.0,))


@pytest.mark.parametrize("worst", [0, 7, 19])
def test_the_worst_of_many_is_found_with_few_measurements(worst):
    bench, part = deep(worst)
    costs, whole = find_costs(bench, Variant(), part, 2, most=12, reserve=0.0)
    assert not whole
    assert sum(len(cost.layers) for cost in costs) == 20
    assert max(costs, key=lambda cost: cost.loss.mean).layers == (str(worst),)


def test_a_layer_without_a_part_is_said(samples):
    class Idle(nn.Sequential):
        def forward(self, x):
            return self[1](x.flatten(1))

    torch.manual_seed(0)
    model = Idle(nn.Linear(2, 2), nn.Linear(36, 3))
    subject = Subject(analogsim.convert(model, "pcm"), [], "pcm", "ideal")
    bench = Bench(subject, METRICS["accuracy"], Clock(1e6))
    costs, _ = find_costs(bench, Variant(), Part(samples, 0, ("1y",)), 2, most=10, reserve=0.0)
    assert [cost.idle for cost in costs] == [True, False]


def test_shares_of_the_work(subject, samples):
    shares = shares_of(subject, samples.batches[0][0])
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["0"] == pytest.approx(16 * 36 / (16 * 36 + 4 * 36 + 48))


def test_the_order_in_which_layers_become_digital():
    costs = [
        Cost(("a",), Difference(0.1, 0.0)),
        Cost(("b", "c"), Difference(0.1, 0.0)),
        Cost(("d",), Difference(-1, 0)),
    ]
    assert by_harm(costs, {"a": 0.9, "b": 0.05, "c": 0.01, "d": 0.04})[0] == "c"
    assert by_harm(costs, {})[0] == "a"
    assert by_harm(costs, {})[-1] == "d"
