"""Networks of published tables, how they are trained, and which of their weights matter."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.utils import parametrize

import analogsim
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import to_mapping
from analogsim.recipes.tasks import networks
from analogsim.recipes.tasks.data_sets import Splits
from analogsim.recipes.training.loop import Training
from analogsim.utils.files import write_whole

HERE = "benchmarks.harness.published_networks"


def mlp_150(shape: tuple[int, ...], classes: int) -> nn.Module:
    """One hidden layer of 150: 784-150-10 on images of 28 x 28.

    Args:
        shape: of an image.
        classes: how many logits.
    """
    pixels = int(torch.Size(shape).numel())
    return nn.Sequential(
        OrderedDict(flatten=nn.Flatten(), fc1=nn.Linear(pixels, 150), act1=nn.ReLU(), fc2=nn.Linear(150, classes))
    )


def cnn_7018(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Three convolutions of 3 x 3 with batch norm and pooling: 8, 20 and 20 channels.

    On MNIST it has 7,018 parameters: 5,112 weights of convolutions without bias, 96 of batch norm, 1,810 of the linear
    layer. With channels in multiples of four it is the only network of its kind that has.

    Args:
        shape: ``(channels, height, width)``, 8 pixels a side at least.
        classes: how many logits.
    """
    channels, height, width = shape
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for place, wide in enumerate((8, 20, 20), 1):
        parts[f"conv{place}"] = nn.Conv2d(channels, wide, 3, padding=1, bias=False)
        parts[f"norm{place}"] = nn.BatchNorm2d(wide)
        parts[f"act{place}"] = nn.ReLU()
        parts[f"pool{place}"] = nn.MaxPool2d(2)
        channels, height, width = wide, height // 2, width // 2
    return nn.Sequential(parts | {"flatten": nn.Flatten(), "fc": nn.Linear(channels * height * width, classes)})


class Ternary(nn.Module):
    """Weights of three values, and a gradient as if they were the ones behind.

    Source: F. Li, B. Zhang, B. Liu, arXiv 1605.04711 (2016): 0 below 0.7 of the mean magnitude, else plus or minus the
    mean magnitude of those above.
    """

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that is used, of the same shape."""
        magnitude = weight.abs()
        above = (magnitude > 0.7 * magnitude.mean()).to(weight.dtype)
        value = (magnitude * above).sum() / above.sum().clamp(min=1)
        return (value * weight.sign() * above).detach() + (weight - weight.detach())  # exactly the three values


def _path(config: Config, kind: str, work: Path) -> Path:
    versions = [analogsim.__version__, torch.__version__]
    asked = json.dumps([to_mapping(config), kind, versions], sort_keys=True)
    return work / "networks" / hashlib.sha256(asked.encode()).hexdigest()[:16] / "checkpoint.pt"


def train(config: Config, data: Splits, work: Path, *, aware: bool) -> nn.Module:
    """The digital network that `analogsim train` makes of a configuration, from ``work`` if it is there.

    Args:
        config: of the recipes.
        data: that it names.
        work: the folder of trained networks.
        aware: under noise, or plainly.
    """
    path = _path(config, "aware" if aware else "plain", work)
    training = Training(config, data, aware=aware, path=path)
    training.set_random_state()
    training.save()
    while not training.done:
        training.run_epoch(lambda _: None)
    return training.model.eval()


def train_ternary(config: Config, data: Splits, work: Path) -> nn.Module:
    """A network of ternary weights, plainly trained with Adam along a cosine; see `train`."""
    path = _path(config, "ternary", work)
    torch.manual_seed(config.seed)
    model = networks.make_network(config.model, data.facts, seed=config.seed)
    if path.is_file():
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", Ternary())
    rule = config.optimization
    loader = data.batches(data.train, config.data.batch_size, generator=torch.Generator().manual_seed(config.seed))
    optimizer = torch.optim.Adam(model.parameters(), lr=rule.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, rule.epochs * len(loader)))
    for _ in range(rule.epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    for layer in layers:
        parametrize.remove_parametrizations(layer, "weight")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda place: torch.save(model.state_dict(), place))
    return model.eval()


def importance(model: nn.Module, by: str, inputs: Tensor, *, seed: int = 0) -> dict[str, Tensor]:
    """How much each weight matters, by layers, shaped like their weights.

    ``"magnitude"``: relative to the largest of the layer. ``"curvature"``: the second derivative of the loss, times the
    square of the largest weight of the layer, which is what an error relative to that costs. It is the diagonal of
    the Fisher matrix, estimated with one label drawn from the network's own answer to each input. ``"random"``: no
    matter.

    Args:
        model: the digital network, in eval.
        by: which.
        inputs: without labels.
        seed: of what is drawn.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    largest = {name: layer.weight.detach().abs().max() for name, layer in layers.items()}
    generator = torch.Generator().manual_seed(seed)
    if by == "random":
        return {name: torch.rand(layer.weight.shape, generator=generator) for name, layer in layers.items()}
    if by == "magnitude":
        return {name: layer.weight.detach().abs() / largest[name] for name, layer in layers.items()}
    if by != "curvature":
        raise ValueError(f"importance: by must be magnitude, curvature or random, got {by!r}")
    curved = _curvature(model, inputs, generator)
    return {name: curved[f"{name}.weight"] * largest[name] ** 2 for name in layers}


def _curvature(model: nn.Module, inputs: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Mean square of the gradient of each Parameter, sample by sample."""
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    with torch.no_grad():
        labels = torch.multinomial(model(inputs).softmax(1), 1, generator=generator).squeeze(1)

    def loss(values: Mapping[str, Tensor], x: Tensor, label: Tensor) -> Tensor:
        logits: Any = functional_call(model, dict(values), (x.unsqueeze(0),))
        return nn.functional.cross_entropy(logits, label.unsqueeze(0))

    each = vmap(grad(loss), in_dims=(None, 0, 0))
    total = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for part, told in zip(torch.split(inputs, 32), torch.split(labels, 32), strict=True):
        for name, gradient in each(parameters, part, told).items():
            total[name] += gradient.square().sum(0) / len(inputs)
    return total


def chosen(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Masks of the weights with the highest scores over all layers.

    Args:
        scores: by layers.
        share: of all weights, from 0 to 1.
    """
    flat = torch.cat([score.flatten() for score in scores.values()])
    mask = torch.zeros(len(flat), dtype=torch.bool)
    mask[flat.argsort(descending=True, stable=True)[: round(share * len(flat))]] = True
    parts = torch.split(mask, [score.numel() for score in scores.values()])
    return {name: part.view(score.shape) for (name, score), part in zip(scores.items(), parts, strict=True)}
