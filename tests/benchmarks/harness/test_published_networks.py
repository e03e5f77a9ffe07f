from pathlib import Path

import pytest
import torch
from torch import nn

from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import load_toml
from analogsim.recipes.training.setup import load_data
from benchmarks.harness.published_networks import (
    HERE,
    Ternary,
    chosen,
    cnn_7018,
    importance,
    mlp_150,
    train_ternary,
)


def test_networks_have_as_many_numbers_as_were_published() -> None:
    images = torch.randn(2, 1, 28, 28)
    cnn, mlp = cnn_7018((1, 28, 28), 10).eval(), mlp_150((1, 28, 28), 10)
    assert sum(value.numel() for value in cnn.parameters()) == 7018
    assert [layer.weight.shape for layer in mlp if isinstance(layer, nn.Linear)] == [(150, 784), (10, 150)]
    assert cnn(images).shape == mlp(images).shape == (2, 10)


def test_ternary_weights_have_three_values_and_the_gradient_of_those_behind() -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, 7, requires_grad=True)
    used = Ternary()(weight)
    assert len(used.detach().unique()) == 3
    above = weight.detach().abs() > 0.7 * weight.detach().abs().mean()
    torch.testing.assert_close(used.detach().abs().max(), weight.detach().abs()[above].mean())
    used.mul(torch.arange(7.0)).sum().backward()
    torch.testing.assert_close(weight.grad, torch.arange(7.0).expand(5, 7))


def test_a_ternary_network_learns_and_is_kept(tmp_path: Path) -> None:
    settings = (f"model={HERE}:mlp_150", "data.limit=600", "optimization.epochs=6")
    config: Config = load_toml(Config, None, settings)
    data = load_data(config)
    model = train_ternary(config, data, tmp_path)
    assert all(len(layer.weight.unique()) == 3 for layer in model.modules() if isinstance(layer, nn.Linear))
    (inputs, targets) = next(iter(data.batches(data.test, 300)))
    assert float((model(inputs).argmax(1) == targets).float().mean()) > 0.8
    (file,) = (tmp_path / "networks").rglob("*.pt")
    stamp = file.stat().st_mtime_ns
    again = train_ternary(config, data, tmp_path)
    kept = again.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    assert file.stat().st_mtime_ns == stamp


def test_second_derivatives_are_those_of_the_loss() -> None:
    """Of a linear classifier with two classes: p (1 - p) x^2, with p from the network, estimated from labels drawn."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2))
    inputs = torch.randn(3, 3).repeat(1000, 1)
    found = importance(model, "curvature", inputs)["0"] / model[0].weight.detach().abs().max() ** 2
    p = model(inputs[:3]).softmax(1)[:, 0].detach()
    exact = (p * (1 - p)).unsqueeze(1).mul(inputs[:3] ** 2).mean(0)
    torch.testing.assert_close(found, exact.expand(2, 3), rtol=0.1, atol=0)  # 3000 labels: 0.03 at most, three times


def test_the_highest_of_all_layers_are_chosen() -> None:
    scores = {"a": torch.tensor([[1.0, 5.0], [2.0, 0.0]]), "b": torch.tensor([4.0, 3.0])}
    masks = chosen(scores, 0.5)
    assert masks["a"].tolist() == [[False, True], [False, False]]
    assert masks["b"].tolist() == [True, True]
    assert not any(mask.any() for mask in chosen(scores, 0.0).values())
    assert all(mask.all() for mask in chosen(scores, 1.0).values())


def test_magnitudes_are_relative_to_the_largest_of_a_layer() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    scores = importance(model, "magnitude", torch.empty(0))
    assert [float(score.max()) for score in scores.values()] == [1.0, 1.0]
    assert importance(model, "random", torch.empty(0)).keys() == scores.keys()
    with pytest.raises(ValueError, match="by must be magnitude, curvature or random, got 'size'"):
        importance(model, "size", torch.empty(0))
