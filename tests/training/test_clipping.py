from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import analogsim
from analogsim import clip_weights


def test_clip_weights() -> None:
    model = nn.Sequential(nn.Linear(50, 40), nn.Conv2d(4, 5, 3), nn.Linear(4, 4))
    with torch.no_grad():
        for layer in model:
            layer.weight[0, 0] = 10.0
            layer.bias.fill_(10.0)
    analog = analogsim.convert(model, {"2": None, "*": "pcm"})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    analogsim.clip_weights(analog, 2.0)
    for name in ("0.weight", "1.weight"):
        limit = 2 * before[name].std(correction=0)
        now = model.state_dict()[name]
        assert torch.equal(now, before[name].clamp(-limit, limit))
        assert not torch.equal(now, before[name])
    for name in ("0.bias", "1.bias", "2.weight", "2.bias"):
        assert torch.equal(model.state_dict()[name], before[name])
    for bad in (0, -1, float("nan"), float("inf"), "2", None):
        with pytest.raises(ValueError, match="clip_weights: sigmas must be finite and > 0"):
            analogsim.clip_weights(analog, bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no analog layer"):
        analogsim.clip_weights(model, 2.0)


def test_each_matrix_is_clipped_to_its_own_spread() -> None:
    model = nn.Sequential(nn.Linear(50, 40), nn.Linear(40, 30))
    with torch.no_grad():
        model[0].weight.normal_()
        model[1].weight.normal_(std=0.01)
    before = [layer.weight.detach().clone() for layer in model]
    analog = analogsim.convert(model, "pcm")
    clip_weights(analog, 1.5)
    for layer, old in zip(model, before, strict=True):
        limit = 1.5 * (old - old.mean()).square().mean().sqrt()
        inside = old.abs() <= limit
        assert 0.8 < inside.float().mean() < 0.95  # 1.5 standard deviations hold 87 % of normal numbers
        assert torch.equal(layer.weight[inside], old[inside])
        torch.testing.assert_close(layer.weight[~inside], limit * old[~inside].sign(), rtol=1e-6, atol=0)


def test_a_mean_apart_from_zero_is_no_spread() -> None:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 3.0], [5.0, 5.0]]))
    clip_weights(analogsim.convert(layer, "pcm"), 2.0)
    assert torch.equal(layer.weight, torch.full((2, 2), 2.0))  # twice a standard deviation of 1, about zero


def test_every_matrix_of_a_recurrent_layer_counts_by_itself() -> None:
    model = nn.LSTM(8, 16, 2)
    with torch.no_grad():
        for place, weight in enumerate(model.parameters()):
            weight.mul_(place + 1)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    clip_weights(analogsim.convert(model, "pcm"), 1.0)
    for name, old in before.items():
        limit = old.std(correction=0)
        wanted = old.clamp(-limit, limit) if name.startswith("weight") else old
        torch.testing.assert_close(getattr(model, name), wanted, rtol=1e-6, atol=0)


def test_the_optimizer_goes_on_with_its_parameters() -> None:
    model = nn.Linear(20, 20)
    analog = analogsim.convert(model, "pcm")
    weight, memory = model.weight, model.weight.data_ptr()
    optimizer = torch.optim.Adam(analog.parameters(), 0.1)
    analog(torch.randn(4, 20)).square().sum().backward()
    optimizer.step()
    version = weight._version
    clip_weights(analog, 1.0)
    assert model.weight is analog.weight is weight
    assert weight.data_ptr() == memory
    assert weight._version > version  # the chip of other weights is stale
    assert weight.is_leaf
    assert weight.requires_grad
    before = weight.detach().clone()
    optimizer.step()
    assert not torch.equal(weight, before)


@pytest.mark.parametrize(
    "computed",
    [parametrizations.weight_norm, lambda layer: prune.l1_unstructured(layer, "weight", 0.5)],
    ids=["weight norm", "pruning"],
)
def test_computed_weights_are_refused_before_any_is_clipped(computed: object) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    computed(model[1])  # type: ignore[operator]
    analog = analogsim.convert(model, "pcm")
    before = model[0].weight.detach().clone()
    with pytest.raises(
        ValueError, match=r"clip_weights: the weight of layer '1' is computed .*make it permanent first"
    ):
        clip_weights(analog, 0.1)
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize("kind", ["linear", "conv", "transposed", "grouped", "recurrent"])
def test_columns_have_limits_of_their_own(kind: str) -> None:
    torch.manual_seed(0)
    layers: dict[str, nn.Module] = {
        "linear": nn.Linear(30, 4),
        "conv": nn.Conv2d(3, 4, 3),
        "transposed": nn.ConvTranspose2d(3, 4, 3),
        "grouped": nn.ConvTranspose1d(4, 8, 3, groups=2),
        "recurrent": nn.GRU(5, 4),
    }
    analog = analogsim.convert(layers[kind], "pcm")
    matrices = analogsim.layers.matrices_of(analog)
    before = [matrix.still()[0].clone() for matrix in matrices]
    clip_weights(analog, 1.0, per="column")
    for matrix, old in zip(matrices, before, strict=True):
        for output, column in enumerate(old):
            limit = column.square().mean().sqrt()
            torch.testing.assert_close(matrix.still()[0][output], column.clamp(-limit, limit))
        assert not torch.equal(matrix.still()[0], old)


def test_a_column_of_one_weight_stays() -> None:
    layer = nn.Linear(1, 3)
    before = layer.weight.detach().clone()
    clip_weights(analogsim.convert(layer, "pcm"), 1.0, per="column")
    torch.testing.assert_close(layer.weight.detach(), before)


def test_what_shares_a_limit() -> None:
    with pytest.raises(ValueError, match="clip_weights: per must be one of layer, column, got 'tensor'"):
        clip_weights(analogsim.convert(nn.Linear(2, 2), "pcm"), 2.0, per="tensor")  # type: ignore[arg-type]
