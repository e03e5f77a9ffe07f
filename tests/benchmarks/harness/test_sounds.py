import numpy as np
import pytest
import torch

from benchmarks.harness import sounds


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def digits() -> tuple[sounds.Recording, ...]:
    try:
        return sounds.recordings()
    except FileNotFoundError as error:
        pytest.skip(str(error))


def test_a_missing_archive_is_told_with_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("ANALOGSIM_TEST_DATA", str(tmp_path))
    sounds.recordings.cache_clear()
    with pytest.raises(FileNotFoundError, match="ANALOGSIM_TEST_DATA"):
        sounds.recordings()


def test_a_tone_is_in_the_mel_band_of_its_pitch() -> None:
    time = np.arange(sounds.RATE) / sounds.RATE
    for pitch in (300.0, 1500.0, 6000.0):
        spectrum = sounds.mel_spectrogram(np.sin(2 * np.pi * pitch * time).astype(np.float32))
        assert spectrum.shape == (101, 40)
        bins = torch.linspace(0, sounds.RATE / 2, 201)
        centres = (sounds.mel_filters() * bins).sum(1) / sounds.mel_filters().sum(1)
        found = spectrum[50].argmax()
        assert (centres - pitch).abs().argmin() == found


def test_filters_have_equal_area() -> None:
    # Wide ones, whose triangles the bins resolve.
    area = sounds.mel_filters()[20:].sum(1) * 40.0
    torch.testing.assert_close(area, torch.ones(20), rtol=0.02, atol=0)


def test_tones_have_their_pitch() -> None:
    frames, pitch = sounds.tones(20, generator(), size=8192)
    torch.testing.assert_close(frames.mean(1), torch.zeros(20), atol=1e-5, rtol=0)
    torch.testing.assert_close(frames.std(1), torch.ones(20))
    for frame, f in zip(frames, pitch.tolist(), strict=True):
        # The sound is itself again after a period, but for the noise.
        lag = round(sounds.RATE / f)
        spectrum = torch.fft.rfft(frame * torch.hann_window(8192)).abs()
        first = round(f * 8192 / sounds.RATE)
        assert spectrum[first - 1 : first + 2].max() > 20 * spectrum.median()
        assert spectrum[: max(1, first - 4)].max() < 0.2 * spectrum.max()
        assert lag > 0


def test_a_quiet_sound_is_raised_and_a_loud_one_left() -> None:
    quiet, loud = np.full(100, 1e-3, np.float32), np.full(100, 0.5, np.float32)
    assert 20 * np.log10(sounds.louder(quiet)[0]) == pytest.approx(-30, abs=1e-3)
    assert sounds.louder(loud) is loud


def test_the_spoken_part_is_without_silence() -> None:
    sound = np.zeros(16_000, np.float32)
    sound[4_000:8_000] = 0.3
    part = sounds.spoken_part(sound)
    assert abs(part.start - 4_000) < 256
    assert abs(part.stop - 8_000) < 256


def test_recordings_are_parted_as_they_are_officially(digits) -> None:
    assert len(digits) == 3000
    assert sum(one.is_test for one in digits) == 300
    assert {one.digit for one in digits} == set(range(10))
    assert len({one.speaker for one in digits}) == 6


def test_utterances_streams_and_frames(digits) -> None:
    spectra, speakers = sounds.utterances(True, 2, generator())
    assert spectra.shape == (12, 160, 40)
    assert (spectra[:, 4:-4].sum(2) > 0).all()  # without silence
    assert speakers.tolist() == [one for one in range(6) for _ in range(2)]
    found, spoken = sounds.streams(True, 3, generator())
    assert found.shape == (3, 64 * 512)
    assert spoken.shape == (3, 64)
    power = found.view(3, 64, 512).square().mean(2)
    assert power[spoken].mean() > 2 * power[~spoken].mean()
    frames = sounds.speech_frames(True, 5, generator())
    assert frames.shape == (5, 1024)
    torch.testing.assert_close(frames.std(1), torch.ones(5))
