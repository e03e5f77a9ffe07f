"""The tasks on which robustness is shown: which data, which network, how long it trains, which devices it runs on.

Data that no package brings lie in one folder (`FOLDER`): ``spoken-digits.tar.gz``, ``cifar10-jpeg.tar.gz``,
``cifar-resnet20-12fca82f.th``, ``tiny-shakespeare.txt``. Archives are unpacked beside the trained networks.
"""

from __future__ import annotations

import os
import tarfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from analogsim.recipes.tasks import networks
from analogsim.utils.files import write_whole

HERE = "benchmarks.harness.ladder"
FOLDER = "ANALOGSIM_TEST_DATA"
"""The environment variable that names the folder; default: ``../shared/data`` beside the checkout."""

TEN_YEARS = ("1s", "1h", "1d", "1mo", "1y", "10y")
DEVICES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "pcm": ("pcm", TEN_YEARS),
    "pcm-hermes": ("pcm-hermes", TEN_YEARS),
    "reram-wan2022": ("reram-wan2022", ("1h", "1d", "2d")),
    "stuck-at": ("stuck-at", ("0s",)),
    "4-bit": ("quantization(levels=16)", ("0s",)),
}
"""Device models by their names here, and the times at which networks on them are judged."""


@dataclass(frozen=True)
class Rung:
    """One task.

    Args:
        data: as ``data.name`` takes it; ``{folder}`` stands for the folder of the data, ``{work}`` for that of what is
            unpacked.
        model: as ``model`` takes it.
        settings: others of its training.
        archive: of the folder of the data, to be unpacked; "" for none.
        metric: what it is judged by; None: what its data say.
        weights: of the folder of the data, from which it starts; "" for none.
    """

    data: str
    model: str
    settings: tuple[str, ...]
    archive: str = ""
    metric: str | None = None
    weights: str = ""


def narrow(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A narrow convolutional network on pooled images: 8 and 16 channels without batch norm, 32 units.

    Args:
        shape: ``(channels, 28, 28)``.
        classes: how many logits.
    """
    return nn.Sequential(
        OrderedDict(
            pool=nn.AvgPool2d(2),
            conv1=nn.Conv2d(shape[0], 8, 3, padding=1),
            act1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(8, 16, 3, padding=1),
            act2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(16 * 9, 32),
            act3=nn.ReLU(),
            fc2=nn.Linear(32, classes),
        )
    )


def small_mlp(shape: tuple[int, ...], classes: int) -> nn.Module:
    """64-24-24-10 with ReLU, which loses more than a wide one.

    Args:
        shape: of 64 pixels in all.
        classes: how many logits.
    """
    pixels = int(torch.Size(shape).numel())
    return nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, classes)
    )


def separable(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Three depthwise-separable blocks behind a convolution, each product with batch norm.

    Args:
        shape: ``(channels, height, width)``.
        classes: how many logits.
    """

    def normed(layer: nn.Conv2d) -> list[nn.Module]:
        return [layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU()]

    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        return [
            *normed(nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False)),
            *normed(nn.Conv2d(inputs, outputs, 1, bias=False)),
        ]

    return nn.Sequential(
        *normed(nn.Conv2d(shape[0], 16, 3, 2, 1, bias=False)),
        *block(16, 32, 2),
        *block(32, 48, 1),
        *block(48, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )


class SmallViT(nn.Module):
    """torchvision's vision transformer with four blocks of 48 on patches of 4 x 4 pixels.

    Args:
        side: of the images.
        classes: how many logits.
    """

    def __init__(self, side: int, classes: int) -> None:
        super().__init__()
        from torchvision.models import VisionTransformer

        self.net = VisionTransformer(
            image_size=side,
            patch_size=4,
            num_layers=4,
            num_heads=4,
            hidden_dim=48,
            mlp_dim=96,
            num_classes=classes,
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(N, 1 or 3, side, side)`` to logits."""
        found: Tensor = self.net(x.expand(-1, 3, -1, -1))
        return found


def small_vit(shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A `SmallViT` for images of this shape."""
    return SmallViT(shape[1], classes)


class CharLSTM(nn.Module):
    """An LSTM over characters, and a linear layer on its states that says the next one.

    Args:
        vocabulary: how many characters.
        width: of embedding and state.
    """

    def __init__(self, vocabulary: int, width: int = 128) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        """Numbers of characters ``(N, places)`` to logits of the next ones."""
        states, _ = self.lstm(self.tokens(x))
        logits: Tensor = self.head(states)
        return logits


def char_lstm(vocabulary: int) -> nn.Module:
    """A `CharLSTM` of the usual width."""
    return CharLSTM(vocabulary)


_FASHION = ("data.batch_size=32", "optimization.lr=3e-3")
_BITS = "bits_per_character"
LADDER: Mapping[str, Rung] = {
    "digits-mlp": Rung("digits", f"{HERE}:small_mlp", ("optimization.epochs=40", "optimization.lr=5e-3")),
    "fashion-narrow": Rung(
        "fashion-mnist", f"{HERE}:narrow", ("data.batch_size=32", "optimization.epochs=5", "optimization.lr=7e-3")
    ),
    "fashion-lenet5": Rung("fashion-mnist", "lenet5", (*_FASHION, "optimization.epochs=5")),
    "fashion-separable": Rung("fashion-mnist", f"{HERE}:separable", ("data.batch_size=64", "optimization.epochs=5")),
    "fashion-resnet20": Rung("fashion-mnist", "resnet20", ("data.batch_size=64", "optimization.epochs=3")),
    "fashion-vit": Rung(
        "fashion-mnist", f"{HERE}:small_vit", ("data.batch_size=64", "optimization.epochs=5", "optimization.lr=2e-3")
    ),
    "spoken-cnn": Rung(
        "audio:{work}/spoken-digits", "audio-cnn", ("optimization.epochs=8",), archive="spoken-digits.tar.gz"
    ),
    "spoken-gru": Rung(
        "audio:{work}/spoken-digits", "audio-gru", ("optimization.epochs=8",), archive="spoken-digits.tar.gz"
    ),
    "cifar10-resnet20": Rung(
        "folder:{work}/cifar10-jpeg",
        "resnet20",
        ("data.batch_size=64", "optimization.epochs=2", "optimization.lr=1e-3"),
        archive="cifar10-jpeg.tar.gz",
        weights="cifar-resnet20-12fca82f.th",
    ),
    "text-gpt": Rung("text:{folder}/tiny-shakespeare.txt", "char-gpt", ("optimization.epochs=1",), metric=_BITS),
    "text-lstm": Rung(
        "text:{folder}/tiny-shakespeare.txt", f"{HERE}:char_lstm", ("optimization.epochs=1",), metric=_BITS
    ),
}
"""By their names, from the smallest up."""


def folder() -> Path:
    """Where the data of the ladder lie that no package brings."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    return Path(os.environ.get(FOLDER, beside))


def settings_of(rung: Rung, work: Path) -> list[str]:
    """What ``load_toml`` takes of a task; its archive is unpacked and its weights are made ours, if they are not yet.

    Args:
        rung: the task.
        work: a folder for that.

    Raises:
        FileNotFoundError: the data are not there.
    """
    source = folder()
    for name in (rung.archive, rung.weights):
        if name and not (source / name).is_file():
            raise FileNotFoundError(f"robust: no {name} in {str(source)!r}; name the folder that has it by {FOLDER}")
    if rung.archive:
        _unpack(source / rung.archive, work)
    named = rung.data.format(folder=source, work=work)
    settings = [f"data.name={named}", f"model={rung.model}", *rung.settings]
    if rung.metric is not None:
        settings.append(f"metric={rung.metric}")
    if rung.weights:
        settings.append(f"weights={_as_ours(source / rung.weights, work, rung.model)}")
    return settings


def _unpack(archive: Path, work: Path) -> None:
    done = work / f"{archive.name}.done"
    if done.exists():
        return
    work.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as packed:
        packed.extractall(work, filter="data")
    write_whole(done, "")


def _as_ours(weights: Path, work: Path, model: str) -> Path:
    """A state dict of others under the names of our network, whose layers come in the same order."""
    target = work / f"{weights.stem}.pt"
    if not target.exists():
        theirs: dict[str, Any] = torch.load(weights, map_location="cpu", weights_only=True)["state_dict"]
        theirs = {name: value for name, value in theirs.items() if not name.endswith("num_batches_tracked")}
        ours = networks.build(model, (3, 32, 32), 10, seed=0).state_dict()
        names = [name for name in ours if not name.endswith("num_batches_tracked")]
        if [theirs[name].shape for name in theirs] != [ours[name].shape for name in names]:
            raise ValueError(f"robust: {str(weights)!r} are not the weights of {model}")
        work.mkdir(parents=True, exist_ok=True)
        state = ours | dict(zip(names, theirs.values(), strict=True))
        write_whole(target, lambda place: torch.save(state, place))
    return target
