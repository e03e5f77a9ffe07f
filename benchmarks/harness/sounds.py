"""Sounds that pretrained networks are tried on, spoken digits, digits within noise, tones; and what networks get.

Recordings are those of the Free Spoken Digit Dataset, read from ``spoken-digits.tar.gz`` in the folder that
`benchmarks.harness.ladder.FOLDER` names. Sounds are arrays of 16,000 samples a second from -1 to 1.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness.ladder import FOLDER, folder

RATE = 16_000
ARCHIVE = "spoken-digits.tar.gz"
_TEST_TAKES = 5  # the official split: takes 0 to 4 of each speaker and digit are the test
_FLOOR = 1e-3  # of the power of a recording's loudest part: below it is silence

Sound = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, eq=False)
class Recording:
    """One spoken digit.

    Args:
        sound: the samples ``(N,)``.
        digit: that was said.
        speaker: who said it.
        take: the how manieth time.
    """

    sound: Sound
    digit: int
    speaker: str
    take: int

    @property
    def is_test(self) -> bool:
        """Whether it is of the official test set."""
        return self.take < _TEST_TAKES


@cache
def recordings() -> tuple[Recording, ...]:
    """All 3,000 recordings, resampled from 8 kHz.

    Raises:
        FileNotFoundError: the archive is not there.
    """
    from scipy.io import wavfile
    from scipy.signal import resample_poly

    source = folder() / ARCHIVE
    if not source.is_file():
        raise FileNotFoundError(f"no {ARCHIVE} in {str(source.parent)!r}; name the folder that has it by {FOLDER}")
    found = []
    with tarfile.open(source) as packed:
        for member in sorted(packed.getmembers(), key=lambda member: member.name):
            path = PurePosixPath(member.name)
            held = packed.extractfile(member) if path.suffix == ".wav" else None
            if held is None:
                continue
            digit, speaker, take = path.stem.split("_")
            rate, samples = wavfile.read(io.BytesIO(held.read()))
            sound = resample_poly(samples / 2**15, RATE // rate, 1).astype(np.float32)
            found.append(Recording(sound, int(digit), speaker, int(take)))
    return tuple(found)


def louder(sound: Sound, level: float = -30.0) -> Sound:
    """A sound, raised to a mean power of ``level`` dB of full scale if it is below."""
    power = 10 * np.log10(np.square(sound, dtype=np.float64).mean() + 1e-20)
    return sound if power >= level else (sound * 10 ** ((level - power) / 20)).astype(np.float32)


def spoken_part(sound: Sound) -> slice:
    """From where to where a recording is above -30 dB of its loudest 16 ms."""
    window = RATE * 16 // 1000
    power = np.convolve(np.square(sound, dtype=np.float64), np.ones(window) / window, mode="same")
    (loud,) = np.nonzero(power > _FLOOR * power.max())
    return slice(int(loud[0]), int(loud[-1]) + 1)


@cache
def mel_filters(bands: int = 40, size: int = 400) -> Tensor:
    """Triangular filters of equal area on Slaney's mel scale up to half the rate, ``(bands, size // 2 + 1)``.

    Source: as ``librosa.filters.mel`` has them by default.
    """
    linear, step = 1000.0 / (200.0 / 3), np.log(6.4) / 27.0  # of the scale: mels at 1 kHz, and per octave above
    most = linear + np.log(RATE / 2 / 1000.0) / step
    mels = np.linspace(0.0, most, bands + 2)
    edges = np.where(mels < linear, mels * 200.0 / 3, 1000.0 * np.exp(step * (mels - linear)))
    bins = np.linspace(0.0, RATE / 2, size // 2 + 1)
    rises = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falls = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.maximum(0.0, np.minimum(rises, falls)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(filters.astype(np.float32))


def mel_spectrogram(sound: Sound) -> Tensor:
    """The power in 40 mel bands in windows of 25 ms, every 10 ms, ``(frames, 40)``.

    Source: as ``resemblyzer.audio.wav_to_mel_spectrogram`` has it of librosa.
    """
    size, step = RATE * 25 // 1000, RATE // 100
    spectrum = torch.stft(
        torch.from_numpy(sound),
        size,
        step,
        window=torch.hann_window(size),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    return (mel_filters(40, size) @ spectrum.abs().square()).T.contiguous()


def utterances(test: bool, each: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Spectrograms of 1.6 s full of digits that one speaker says, and who it was.

    Args:
        test: of the recordings of the test, or of the training.
        each: how many of each speaker.
        generator: which are said.

    Returns:
        Spectrograms ``(6 * each, 160, 40)``, and numbers of speakers in the order of their names.
    """
    of_part = [one for one in recordings() if one.is_test == test]
    spectra, numbers = [], []
    for number, speaker in enumerate(sorted({one.speaker for one in of_part})):
        own = [one for one in of_part if one.speaker == speaker]
        for _ in range(each):
            sound = np.zeros(0, np.float32)
            while len(sound) < RATE * 16 // 10:
                said = own[int(torch.randint(len(own), (), generator=generator))].sound
                sound = np.concatenate([sound, said[spoken_part(said)]])
            spectra.append(mel_spectrogram(louder(sound[: RATE * 16 // 10]))[:160])
            numbers.append(number)
    return torch.stack(spectra), torch.tensor(numbers)


def streams(
    test: bool, count: int, generator: torch.Generator, chunks: int = 64, chunk: int = 512
) -> tuple[Tensor, Tensor]:
    """Noise in which two digits are said, and in which chunks.

    Noise has equal power in each octave and is 0 to 15 dB below what is said.

    Args:
        test: of the recordings of the test, or of the training.
        count: how many streams.
        generator: of what, where and how loud.
        chunks: of each stream.
        chunk: samples of a chunk.

    Returns:
        Sounds ``(count, chunks * chunk)``, and whether most of a chunk lies within a digit ``(count, chunks)``.
    """
    of_part = [one for one in recordings() if one.is_test == test]
    length = chunks * chunk
    sounds, truths = [], []
    for _ in range(count):
        bins = torch.fft.rfftfreq(length, 1 / RATE).clamp(min=50.0)
        noise = torch.fft.irfft(torch.fft.rfft(torch.randn(length, generator=generator)) / bins.sqrt(), n=length)
        noise = noise / noise.square().mean().sqrt()
        sound, spoken = torch.zeros(length), torch.zeros(length)
        for place in range(2):
            one = of_part[int(torch.randint(len(of_part), (), generator=generator))]
            said = torch.from_numpy(one.sound[spoken_part(one.sound)])[: length // 2]
            free = length // 2 - len(said)
            start = place * length // 2 + int(torch.randint(free + 1, (), generator=generator))
            sound[start : start + len(said)] = 0.05 * said / said.square().mean().sqrt()
            spoken[start : start + len(said)] = 1.0
        below = 15.0 * float(torch.rand((), generator=generator))
        sounds.append(sound + 0.05 * 10 ** (-below / 20) * noise)
        truths.append(spoken.view(chunks, chunk).mean(1) > 0.5)
    return torch.stack(sounds), torch.stack(truths)


def normalised_frames(frames: Tensor) -> Tensor:
    """Frames ``(count, samples)`` of mean 0 and standard deviation 1."""
    frames = frames - frames.mean(1, keepdim=True)
    return frames / frames.std(1, keepdim=True).clamp(min=1e-10)


def tones(count: int, generator: torch.Generator, size: int = 1024) -> tuple[Tensor, Tensor]:
    """Tones of up to ten harmonics within white noise 5 to 30 dB below, and their pitch.

    Args:
        count: how many.
        generator: of pitches (log-uniform from 60 to 900 Hz), harmonics (of random phase, their amplitude
            falling with a power of the number between 0.5 and 2) and noise.
        size: samples of each.

    Returns:
        Frames ``(count, size)`` of mean 0 and standard deviation 1, and pitches ``(count,)``, Hz.
    """
    pitch = 60.0 * 15.0 ** torch.rand(count, generator=generator)
    number = torch.arange(1, 11.0)
    amplitude = number ** -(0.5 + 1.5 * torch.rand(count, 1, generator=generator))
    amplitude = torch.where(number * pitch[:, None] < 0.45 * RATE, amplitude, 0.0)
    phase = 2 * torch.pi * torch.rand(count, 10, 1, generator=generator)
    time = torch.arange(size) / RATE
    turns = 2 * torch.pi * (number * pitch[:, None])[:, :, None] * time + phase
    sound = (amplitude[:, :, None] * turns.sin()).sum(1)
    sound = sound / sound.std(1, keepdim=True)
    below = 5.0 + 25.0 * torch.rand(count, 1, generator=generator)
    return normalised_frames(sound + 10 ** (-below / 20) * torch.randn(count, size, generator=generator)), pitch


def speech_frames(test: bool, count: int, generator: torch.Generator, size: int = 1024) -> Tensor:
    """Frames from within spoken digits, ``(count, size)``, of mean 0 and standard deviation 1."""
    of_part = [one for one in recordings() if one.is_test == test]
    frames = []
    for _ in range(count):
        one = of_part[int(torch.randint(len(of_part), (), generator=generator))]
        said = one.sound[spoken_part(one.sound)]
        said = np.pad(said, (0, max(0, size - len(said))))
        start = int(torch.randint(len(said) - size + 1, (), generator=generator))
        frames.append(torch.from_numpy(said[start : start + size]))
    return normalised_frames(torch.stack(frames))
