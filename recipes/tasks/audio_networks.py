"""Networks for recordings, given as log-mel features: one that sees a picture, one that hears frame after frame."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

from analogsim.errors import InvalidValueError


def audio_cnn(shape: tuple[int, ...], classes: int) -> nn.Module:
    """Three 3x3 convolutions of 16, 32 and 64 channels with batch norm, each halved by max-pooling, and a linear layer.

    The mean over the frames keeps the bands apart, as a word is told by which bands sound, and hardly by when.

    Args:
        shape: ``(1, mels, frames)``, as ``audio:PATH`` gives it, each side at least 8.
        classes: how many logits.

    Raises:
        ValueError: another shape.
    """
    if len(shape) != 3 or min(shape[1:]) < 8:
        raise InvalidValueError(
            f"model: audio-cnn takes (channels, mels, frames) with sides of 8 or more, got {tuple(shape)}"
        )
    layers: list[tuple[str, nn.Module]] = []
    before = shape[0]
    for at, after in enumerate((16, 32, 64), 1):
        layers += [
            (f"conv{at}", nn.Conv2d(before, after, 3, padding=1, bias=False)),
            (f"bn{at}", nn.BatchNorm2d(after)),
            (f"act{at}", nn.ReLU()),
            (f"pool{at}", nn.MaxPool2d(2)),
        ]
        before = after
    layers += [
        ("mean", nn.AdaptiveAvgPool2d((shape[1] // 8, 1))),
        ("flatten", nn.Flatten()),
        ("fc", nn.Linear(before * (shape[1] // 8), classes)),
    ]
    return nn.Sequential(OrderedDict(layers))


class AudioGRU(nn.Module):
    """A recurrent network over the frames, and a linear layer on the mean of what it says after each.

    Args:
        bands: values of a frame.
        classes: how many logits.
        image: whether inputs are ``(N, 1, mels, frames)``; else ``(N, frames, mels)``.
        hidden: size of the state.
    """

    def __init__(self, bands: int, classes: int, *, image: bool, hidden: int = 96) -> None:
        super().__init__()
        self.image = image
        self.gru = nn.GRU(bands, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Features to logits ``(N, classes)``."""
        states, _ = self.gru(x.squeeze(1).transpose(1, 2) if self.image else x)
        logits: Tensor = self.fc(states.mean(1))
        return logits


def audio_gru(shape: tuple[int, ...], classes: int) -> nn.Module:
    """A GRU of 96 units over the frames, and a linear layer on the mean of its states.

    Args:
        shape: ``(1, mels, frames)`` or, of ``layout="sequence"``, ``(frames, mels)``.
        classes: how many logits.

    Raises:
        ValueError: another shape.
    """
    if len(shape) == 2:
        return AudioGRU(shape[1], classes, image=False)
    if len(shape) == 3 and shape[0] == 1:
        return AudioGRU(shape[1], classes, image=True)
    raise InvalidValueError(f"model: audio-gru takes (1, mels, frames) or (frames, mels), got {tuple(shape)}")


AUDIO_NETWORKS: dict[str, Callable[[tuple[int, ...], int], nn.Module]] = {
    "audio-cnn": audio_cnn,
    "audio-gru": audio_gru,
}
"""By the names that ``--model`` takes."""
