import os
import warnings
from pathlib import Path

import pytest
import torch

from analogsim.recipes.tasks.sources import audio
from analogsim.recipes.tasks.sources.parts import DataWarning
from tests.recipes.tasks.sources.files import wav

DATA = Path(os.environ.get("ANALOGSIM_TEST_DATA", Path(__file__).parents[5] / "shared" / "data"))


def named(root, *names, **options):
    for name in names:
        wav(root / f"{name}.wav", **options)
    return str(root)


def test_class_folders(tmp_path):
    parts = audio.read(named(tmp_path, "train/yes/a", "train/no/a", "train/no/b", "test/yes/c"))
    assert (parts.task, parts.validation) == ("classification", None)
    assert parts.facts == {
        "shape": (1, 40, 64),
        "classes": 2,
        "outputs": 2,
        "class_names": ("no", "yes"),
        "mels": 40,
        "frames": 64,
        "rate": 8000,
    }
    features, labels = parts.train.tensors
    assert (features.shape, features.dtype) == ((3, 1, 40, 64), torch.float32)
    assert labels.tolist() == parts.labels.tolist() == [0, 0, 1]
    assert parts.test[0][1] == 1
    assert features.isfinite().all()


def test_sequences_are_images_on_their_side(tmp_path):
    root = named(tmp_path, "7_a", "3_a", tone=1000)
    image, sequence = (audio.read(f"{root}(mels=20, frames=30, layout='{name}')") for name in ("image", "sequence"))
    assert image.facts["shape"] == (1, 20, 30)
    assert sequence.facts["shape"] == (30, 20)
    assert torch.equal(image.train[0][0][0].T, sequence.train[0][0])


def test_what_is_short_is_followed_by_silence_and_what_is_long_is_cut(tmp_path):
    root = named(tmp_path, "7_a", "3_a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = audio.read(root).train.tensors[0]
    floor = features.min().item()
    assert (features[:, :, :, 16:] == floor).all()  # 0.2 s are 12.5 frames of 16 ms
    assert not (features[:, :, :, :12] == floor).all(2).any()
    wav(tmp_path / "7_b.wav", seconds=0.5)
    with pytest.warns(
        DataWarning, match=r"1 of 3 recordings are longer than 0.256 s and cut; frames=32 would hold the l"
    ):
        cut = audio.read(f"{root}(frames=16)")
    assert cut.train[0][0].shape == (1, 40, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        audio.read(f"{root}(frames=32)")


def test_the_official_split_is_recognised(tmp_path):
    names = [f"{digit}_{who}_{index}" for digit in (3, 7) for who in ("a_b", "c") for index in range(7)]
    parts = audio.read(named(tmp_path, *names))
    assert (len(parts.train), len(parts.test)) == (8, 20)
    assert parts.labels.tolist() == [0] * 4 + [1] * 4
    assert parts.test.tensors[1].tolist() == [0] * 10 + [1] * 10
    assert audio.read(f"{tmp_path}(test_index=0)").test is None
    assert len(audio.read(f"{tmp_path}(test_index=2)").test) == 8
    (tmp_path / "7_c_1.wav").unlink()  # not every speaker has the first five now
    assert audio.read(str(tmp_path)).test is None
    assert len(audio.read(f"{tmp_path}(test_index=5)").test) == 19


@pytest.mark.parametrize(
    ("names", "options", "why"),
    [
        (("7_a", "3_a"), "(test_index=3)", "needs files named {label}_{speaker}_{index}.wav"),
        (("train/7_a_1", "train/3_a_1", "test/7_a_2"), "(test_index=3)", "no folder test"),
        (("7_a_1", "3_a_1"), "(test_index=9)", "test_index=9 leaves a part, or a class to train on, without files"),
        (("7_a_1", "3_a_9"), "(test_index=5)", "test_index=5 leaves a part"),
        (("7_a_1", "3_a_9"), "(test_index=-1)", "test_index must be a whole number >= 0, got -1"),
        (("7_a", "3_a"), "(mels=0)", "mels must be a whole number >= 1, got 0"),
        (("7_a", "3_a"), "(mels=400)", "mels=400 is too many for windows of 256 samples"),
        (("7_a", "3_a"), "(frames='x')", "frames must be a whole number >= 1, got 'x'"),
        (("7_a", "3_a"), "(hop=0)", "hop must be a number above 0, got 0"),
        (("7_a", "3_a"), "(rate=0)", "rate must be a whole number >= 1, got 0"),
        (("7_a", "3_a"), "(layout='wide')", "layout must be 'image' or 'sequence', got 'wide'"),
        (("7_a", "3_a"), "(order='size')", "order must be 'numbers' or 'text'"),
        (("7_a", "3_a"), "(mel=3)", r"no option 'mel'; did you mean 'mels'\?"),
        (("a", "b"), "", r"no wav files found \(.*files named {label}_\*.wav"),
        (("7_a", "7_b"), "", "one class only, '7'"),
    ],
)
def test_what_is_refused(tmp_path, names, options, why):
    with pytest.raises(ValueError, match=why) as error:
        audio.read(named(tmp_path, *names) + options)
    assert "\n" not in str(error.value)


def test_sampling_rates_that_differ(tmp_path):
    root = named(tmp_path, "7_a", "7_b", tone=1000)
    named(tmp_path, "3_a", tone=1000, rate=16000)
    with pytest.raises(
        ValueError, match=r"2 sampling rates: .*3_a.wav has 16000 Hz, .*7_a.wav has 8000 Hz; .*rate=8000"
    ):
        audio.read(root)
    parts = audio.read(f"{root}(rate=8000)")
    assert parts.facts["rate"] == 8000
    three, seven, _ = parts.train.tensors[0]
    loud = seven > seven.max() - 2  # what the filter of the resampling leaves elsewhere is 60 dB down
    torch.testing.assert_close(three[loud], seven[loud], rtol=0, atol=0.05)


def test_stereo_and_mono_and_silence(tmp_path):
    named(tmp_path, "7_a")
    named(tmp_path, "7_b", channels=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts = audio.read(named(tmp_path, "3_a"))
    assert torch.equal(parts.train[1][0], parts.train[2][0])
    named(tmp_path, "3_b", level=0)
    with pytest.warns(DataWarning, match=r"nothing but zeros in 3_b.wav"):
        parts = audio.read(str(tmp_path))
    assert (parts.train[1][0] == -10).all()


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    root = named(tmp_path, "7_a", "3_a")
    (tmp_path / "3_b.wav").write_bytes(b"no sound")
    with pytest.raises(ValueError, match=r"3_b.wav: cannot be read as a wav file \("):
        audio.read(root)


@pytest.mark.slow
def test_the_spoken_digits(tmp_path):
    import tarfile

    packed = DATA / "spoken-digits.tar.gz"
    if not packed.is_file():
        pytest.skip(f"needs {packed.name}, in the folder that ANALOGSIM_TEST_DATA names")
    with tarfile.open(packed) as file:
        file.extractall(tmp_path, filter="data")
    with pytest.warns(DataWarning, match="17 of 3000 recordings"):
        parts = audio.read(str(tmp_path / "spoken-digits"))
    assert (len(parts.train), len(parts.test)) == (2700, 300)
    assert torch.bincount(parts.test.tensors[1]).tolist() == [30] * 10
