"""The networks that are timed, with random data: MLPs, LeNet-5, a ResNet-18 for 32x32 images, a transformer block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analogsim.recipes.tasks import networks

CLASSES = 10

_Shape = tuple[int, ...]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm beside a shortcut, which is a 1x1 convolution where the shape changes.

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        stride: of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        # Made in the order in which forward uses them: then all ways of training draw the same noise for a layer.
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut.append(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H / stride, W / stride)``."""
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + self.shortcut(x))


def resnet18(channels: int = 3, classes: int = CLASSES, width: int = 64) -> nn.Module:
    """ResNet-18 with a 3x3 stem and no max-pooling, as is usual for 32x32 images.

    He, Zhang, Ren, Sun: Deep residual learning for image recognition, CVPR 2016, table 1. Departure: the stem, which
    for 224x224 images is a 7x7 convolution with stride 2 and max-pooling.

    Args:
        channels: of an image.
        classes: number of outputs.
        width: channels of the first stage, 64 in the paper; each further stage has twice as many.
    """
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inputs = width
    for outputs in (width, 2 * width, 4 * width, 8 * width):
        layers.append(ResidualBlock(inputs, outputs, stride=1 if outputs == width else 2))
        layers.append(ResidualBlock(outputs, outputs, stride=1))
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


class TransformerBlock(nn.Module):
    """A transformer's encoder block: attention of every token to all, then two layers for each token.

    Vaswani et al.: Attention is all you need, NeurIPS 2017, section 3. Departures: norms stand before attention and
    before the two layers (pre-norm), GELU instead of ReLU, no dropout.

    Args:
        width: numbers of a token.
        heads: of the attention; they share the width.
        hidden: width between the two layers.
    """

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        # Plain layers, in the order in which forward uses them: every converter finds them and draws alike.
        self.norm1 = nn.LayerNorm(width)
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, tokens, width)`` to the same."""
        y = self.norm1(x)
        heads = [part(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)]
        x = torch.add(x, self.out(F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)))
        return torch.add(x, self.down(F.gelu(self.up(self.norm2(x)))))


class MeanToken(nn.Module):
    """The mean over the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """``(N, tokens, width)`` to ``(N, width)``."""
        return torch.mean(x, 1)


def mlp(widths: Sequence[int]) -> nn.Module:
    """Linear layers with ReLU between them.

    Args:
        widths: of the inputs, between the layers, and of the outputs.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def transformer(width: int, heads: int, hidden: int, classes: int = CLASSES) -> nn.Module:
    """One transformer block, and a classifier of the mean token.

    Args:
        width: numbers of a token.
        heads: of the attention.
        hidden: width between the block's two last layers.
        classes: number of outputs.
    """
    return nn.Sequential(TransformerBlock(width, heads, hidden), MeanToken(), nn.Linear(width, classes))


def _seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """A network with weights that are always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return build()


@dataclass(frozen=True)
class Case:
    """A network with the size of its batches.

    Args:
        name: what the tables call it.
        shape: of one sample: an image ``(C, H, W)``, or ``(tokens, width)``.
        batch: samples in a batch.
        build: makes the network for a shape, always with the same weights.
    """

    name: str
    shape: _Shape
    batch: int
    build: Callable[[_Shape], nn.Module]

    def model(self, device: torch.device) -> nn.Module:
        """A fresh network with the weights that it always starts from."""
        return self.build(self.shape).to(device)

    def data(self, device: torch.device, batch: int | None = None) -> tuple[Tensor, Tensor]:
        """Random samples and labels, always the same ones."""
        generator = torch.Generator().manual_seed(0)
        size = batch or self.batch
        images = torch.randn(size, *self.shape, generator=generator)
        labels = torch.randint(CLASSES, (size,), generator=generator)
        return images.to(device), labels.to(device)


_DIGIT = (1, 28, 28)

CASES = {
    case.name: case
    for case in (
        Case("mlp", _DIGIT, 64, lambda _: networks.build("mlp", _DIGIT, CLASSES, seed=0)),
        Case("mlp-1024", _DIGIT, 256, lambda _: _seeded(lambda: mlp((784, 1024, 1024, CLASSES)))),
        Case("lenet5", _DIGIT, 64, lambda _: networks.build("lenet5", _DIGIT, CLASSES, seed=0)),
        Case("resnet18", (3, 32, 32), 32, lambda shape: _seeded(lambda: resnet18(shape[0]))),
        Case("transformer", (128, 768), 8, lambda shape: _seeded(lambda: transformer(shape[1], 12, 4 * shape[1]))),
    )
}
