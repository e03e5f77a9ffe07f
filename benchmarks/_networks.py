"""The networks that are timed, with random data: the thread's MLP, LeNet-5 and a ResNet-18 for 32x32 images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from analogsim.recipes import _models

CLASSES = 10

_Shape = tuple[int, int, int]


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


def _resnet18(shape: _Shape) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return resnet18(shape[0])


@dataclass(frozen=True)
class Case:
    """A network with the size of its batches.

    Args:
        name: what the tables call it.
        shape: of one image, ``(C, H, W)``.
        batch: images in a batch.
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
        """Random images and labels, always the same ones."""
        generator = torch.Generator().manual_seed(0)
        size = batch or self.batch
        images = torch.randn(size, *self.shape, generator=generator)
        labels = torch.randint(CLASSES, (size,), generator=generator)
        return images.to(device), labels.to(device)


CASES = {
    case.name: case
    for case in (
        Case("mlp", (1, 28, 28), 64, lambda shape: _models.build("mlp", shape, CLASSES, seed=0)),
        Case("lenet5", (1, 28, 28), 64, lambda shape: _models.build("lenet5", shape, CLASSES, seed=0)),
        Case("resnet18", (3, 32, 32), 32, _resnet18),
    )
}
