"""Log-mel features: how much power a sound has in each band of frequencies, frame by frame."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from analogsim.errors import InvalidValueError

_FLOOR = 1e-10  # power below which nothing is told apart, that of 16 bits' rounding being about 1e-9 of full scale
_DECADES = 8.0  # below the loudest value of a recording, at most


def mel_filters(bands: int, window: int, rate: int) -> Tensor:
    r"""The triangular filters of the mel scale, as rows over the frequencies of a Fourier transform.

    .. math::
        m(f) = 2595 \log_{10}(1 + f / 700)

    `bands + 2` points lie at equal distances of m from 0 to rate / 2; filter k rises from 0 at point k to 1 at point
    k + 1, and falls to 0 at point k + 2, along straight lines over f.

    Sources: the scale: O'Shaughnessy, Speech Communication, Addison-Wesley 1987, as the HTK Book has it (eq. 5.13); the
    triangles: Davis and Mermelstein, IEEE Trans. ASSP 28, 1980. Same numbers as torchaudio's
    ``melscale_fbanks(norm=None, mel_scale="htk")``.

    Args:
        bands: how many filters.
        window: samples of a Fourier transform.
        rate: sampling rate, Hz.

    Returns:
        Float32 ``(bands, window // 2 + 1)``.

    Raises:
        ValueError: a filter is so narrow that it lies between two frequencies of the transform.
    """
    most = 2595 * math.log10(1 + rate / 2 / 700)
    points = 700 * (10 ** (torch.linspace(0, most, bands + 2, dtype=torch.float64) / 2595) - 1)
    frequencies = torch.linspace(0, rate / 2, window // 2 + 1, dtype=torch.float64)
    rising = (frequencies - points[:-2, None]) / (points[1:-1] - points[:-2])[:, None]
    falling = (points[2:, None] - frequencies) / (points[2:] - points[1:-1])[:, None]
    filters = torch.minimum(rising, falling).clamp_(min=0)
    silent = int((filters.sum(1) == 0).sum())
    if silent:
        raise InvalidValueError(
            f"audio: mels={bands} is too many for windows of {window} samples at {rate} Hz: {silent} bands lie between "
            "two frequencies; take fewer, or a longer window"
        )
    return filters.float()


def log_mel(sound: Tensor, filters: Tensor, hop: int) -> Tensor:
    """The features of one sound: log10 of the power in each band, within 8 decades of the loudest value.

    Frames are centred on the samples 0, hop, 2 hop, ..., with silence before and behind the sound, under a Hann window
    scaled so that a tone of full scale has a power of 1/4 at its own frequency. Without the limit of 8 decades the
    silence of zeros and that of a room would lie further apart than any two words.

    Args:
        sound: samples from -1 to 1, ``(samples,)``.
        filters: of `mel_filters`, ``(bands, window // 2 + 1)``.
        hop: samples from frame to frame.

    Returns:
        ``(bands, ceil(samples / hop))``; at least -10.
    """
    window = 2 * (filters.shape[1] - 1)
    hann = torch.hann_window(window, device=sound.device)
    frames = -(-len(sound) // hop)
    padded = torch.nn.functional.pad(sound, (window // 2, window // 2 + hop))
    spectrum = torch.stft(padded, window, hop, window=hann, center=False, return_complex=True)[:, :frames]
    power = (spectrum.abs() / hann.sum()).square()
    logarithm = (filters @ power).clamp_(min=_FLOOR).log10()
    return torch.maximum(logarithm, logarithm.max() - _DECADES)
