from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from analogsim.evaluation.metrics import METRICS, Metric
from analogsim.evaluation.scoring import Ask, ask_alone, score_networks
from analogsim.utils.batches import Data, Inputs

CPU = torch.device("cpu")


def data(*sizes: int) -> Data:
    return Data([(torch.randn(size, 3), torch.randint(3, (size,))) for size in sizes], CPU)


def test_several_networks_are_scored_apart() -> None:
    batches = data(5, 4)
    models = [nn.Linear(3, 3), nn.Linear(3, 3)]

    def both(inputs: Inputs, ask: Ask) -> list[Tensor]:
        return [ask(model, inputs) for model in models]

    found = score_networks(both, batches, METRICS["cross_entropy"])
    assert found.values == [
        score_networks(ask_alone(model), batches, METRICS["cross_entropy"]).values[0] for model in models
    ]
    assert found.values[0] != found.values[1]
    assert (found.samples, found.classes) == (9, 3)
    assert all(type(value) is float for value in found.values)


def test_the_mean_is_that_of_all_samples_in_the_order_of_batches() -> None:
    batches = data(7, 2, 1)
    model = nn.Linear(3, 3)
    total = 0.0
    with torch.no_grad():
        for x, y in batches:
            total += float(METRICS["cross_entropy"].score(model(x), y).double().mean()) * len(y)  # type: ignore[operator]
    assert score_networks(ask_alone(model), batches, METRICS["cross_entropy"]).values == [total / 10]


def test_no_gradients_are_recorded_and_answers_without_classes_have_none() -> None:
    seen = []

    def metric(output: Tensor, target: Tensor) -> Tensor:
        seen.append((output.requires_grad, torch.is_grad_enabled()))
        return output

    found = score_networks(lambda inputs, ask: [ask(nn.Linear(3, 1), inputs)[:, 0]], data(4), Metric("first", metric))
    assert seen == [(False, False)]
    assert found.classes is None


def test_a_networks_own_loss_needs_labels_by_name() -> None:
    with pytest.raises(TypeError, match="give batches that are mappings with 'labels', got a pair of Tensor"):
        score_networks(ask_alone(nn.Linear(3, 3)), data(4), METRICS["loss"])
