"""The networks that a GPU is timed on, made of torch alone, and tiny ones of the same kinds for a dry run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness.networks import Case, MeanToken, TransformerBlock, resnet18

_CLASSES = 10


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 and a 1x1 convolution with batch norm beside a shortcut.

    He, Zhang, Ren, Sun: Deep residual learning for image recognition, CVPR 2016, figure 5; the stride is in the 3x3
    convolution, as torchvision has it.

    Args:
        inputs: channels that come in.
        width: channels in between; four times as many go out.
        stride: of the 3x3 convolution.
    """

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
            *(nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != 4 * width:
            self.shortcut.append(nn.Conv2d(inputs, 4 * width, 1, stride=stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, inputs, H, W)`` to ``(N, 4 width, H / stride, W / stride)``."""
        return torch.relu(torch.add(self.branch(x), self.shortcut(x)))


def resnet50(width: int = 64, depths: tuple[int, ...] = (3, 4, 6, 3)) -> nn.Module:
    """ResNet-50 for 224x224 images (table 1 of the same paper): 25.6 million weights with 1000 classes.

    Args:
        width: channels of the stem.
        depths: blocks of each stage.
    """
    layers: list[nn.Module] = [
        *(nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        nn.MaxPool2d(3, 2, padding=1),
    ]
    inputs = width
    for stage, depth in enumerate(depths):
        for block in range(depth):
            layers.append(Bottleneck(inputs, width << stage, 2 if stage and not block else 1))
            inputs = 4 * width << stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, _CLASSES))


class Tokens(nn.Module):
    """Patches of an image as tokens with learned positions."""

    def __init__(self, width: int, patch: int, tokens: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 3, H, W)`` to ``(N, tokens, width)``."""
        return torch.add(self.patches(x).flatten(2).transpose(1, 2), self.positions)


def vision_transformer(
    width: int = 768, heads: int = 12, depth: int = 12, size: int = 224, patch: int = 16
) -> nn.Module:
    """ViT-B/16 (Dosovitskiy et al., ICLR 2021, table 1), a mean token in place of a class token: 86 million weights.

    Args:
        width: numbers of a token.
        heads: of each attention.
        depth: blocks.
        size: of the square image.
        patch: of the square patches.
    """
    tokens = (size // patch) ** 2
    blocks = [TransformerBlock(width, heads, 4 * width) for _ in range(depth)]
    norm = nn.LayerNorm(width)
    return nn.Sequential(Tokens(width, patch, tokens), *blocks, norm, MeanToken(), nn.Linear(width, _CLASSES))


def block_stack(width: int = 2048, heads: int = 16, depth: int = 20) -> nn.Module:
    """Transformer blocks one after the other: 50 million weights each at this width, a billion in all."""
    blocks = [TransformerBlock(width, heads, 4 * width) for _ in range(depth)]
    return nn.Sequential(*blocks, MeanToken(), nn.Linear(width, _CLASSES))


def _seeded(build: Callable[..., nn.Module], **sizes: Any) -> Callable[[tuple[int, ...]], nn.Module]:
    def make(_: tuple[int, ...]) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            return build(**sizes)

    return make


CASES = {
    case.name: case
    for case in (
        Case("resnet18", (3, 32, 32), 512, _seeded(resnet18)),
        Case("resnet50", (3, 224, 224), 128, _seeded(resnet50)),
        Case("vit-b", (3, 224, 224), 128, _seeded(vision_transformer)),
        Case("blocks-1b", (1024, 2048), 4, _seeded(block_stack)),
    )
}
TINY = {
    case.name: case
    for case in (
        Case("resnet18", (3, 8, 8), 2, _seeded(resnet18, width=4)),
        Case("resnet50", (3, 32, 32), 2, _seeded(resnet50, width=4, depths=(1, 1, 1, 1))),
        Case("vit-b", (3, 32, 32), 2, _seeded(vision_transformer, width=16, heads=2, depth=1, size=32)),
        Case("blocks-1b", (8, 16), 2, _seeded(block_stack, width=16, heads=2, depth=1)),
    )
}
"""The same kinds, as small as they can be: what a dry run takes."""
