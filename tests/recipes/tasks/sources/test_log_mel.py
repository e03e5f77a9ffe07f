import math

import numpy as np
import pytest
import torch

from analogsim.recipes.tasks.sources.log_mel import log_mel, mel_filters


@pytest.mark.parametrize(("bands", "window", "rate"), [(40, 256, 8000), (64, 512, 16000), (10, 400, 22050)])
def test_the_filters_are_those_of_the_formula(bands, window, rate):
    """The slow obvious way, a number at a time, after the formula in the docstring."""
    filters = mel_filters(bands, window, rate)
    assert filters.shape == (bands, window // 2 + 1)

    def mel(f):
        return 2595 * math.log10(1 + f / 700)

    def hertz(m):
        return 700 * (10 ** (m / 2595) - 1)

    points = [hertz(k * mel(rate / 2) / (bands + 1)) for k in range(bands + 2)]
    for k in range(bands):
        left, top, right = points[k : k + 3]
        for bin in range(window // 2 + 1):
            f = bin * rate / window
            expected = (f - left) / (top - left) if f <= top else (right - f) / (right - top)
            assert filters[k, bin].item() == pytest.approx(max(0.0, expected), abs=1e-6)


def test_the_filters_are_those_of_transformers():
    audio = pytest.importorskip("transformers.audio_utils")
    other = audio.mel_filter_bank(129, 40, 0.0, 4000.0, 8000, norm=None, mel_scale="htk")
    np.testing.assert_allclose(mel_filters(40, 256, 8000).numpy(), other.T, atol=1e-6)


def test_filters_that_would_hear_nothing():
    with pytest.raises(ValueError, match=r"mels=128 is too many for windows of 256 samples at 8000 Hz: \d+ bands lie"):
        mel_filters(128, 256, 8000)


def test_a_tone_is_in_its_band():
    filters = mel_filters(40, 256, 8000)
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(4096) / 8000)  # 1000 Hz is frequency 32 of the transform
    features = log_mel(tone, filters, 128)
    assert features.shape == (40, 32)
    assert (features[:, 5:-5].argmax(0) == filters[:, 32].argmax()).all()
    # A power of 1/4 at 1000 Hz, and by the Hann window a quarter of it on either side.
    expected = math.log10(0.25 * (filters[:, 32] + (filters[:, 31] + filters[:, 33]) / 4).max())
    assert features[:, 5:-5].max().item() == pytest.approx(expected, abs=1e-3)


def test_it_is_the_transform_frame_by_frame():
    filters, hop = mel_filters(20, 256, 8000), 100
    sound = torch.randn(1000)
    padded = torch.cat([torch.zeros(128), sound, torch.zeros(512)])
    hann = torch.hann_window(256)
    features = log_mel(sound, filters, hop)
    assert features.shape == (20, 10)
    for frame in range(10):
        power = (torch.fft.rfft(padded[frame * hop :][:256] * hann).abs() / hann.sum()) ** 2
        torch.testing.assert_close(features[:, frame], (filters @ power).log10(), rtol=1e-4, atol=1e-4)


def test_silence_and_its_distance_from_the_loudest():
    filters = mel_filters(40, 256, 8000)
    assert (log_mel(torch.zeros(640), filters, 128) == -10).all()
    sound = torch.cat([torch.sin(torch.arange(2000.0)), torch.zeros(2000)])
    features = log_mel(sound, filters, 128)
    assert features.min().item() == pytest.approx(features.max().item() - 8, abs=1e-5)
    assert log_mel(torch.ones(1), filters, 128).shape == (40, 1)
