import struct
import wave

import numpy as np
import pytest

from analogsim.recipes.tasks.sources.wav import read_wav
from tests.recipes.tasks.sources.files import wav

VALUES = np.array([0.0, 0.5, -0.5, 0.25, -1.0])


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_whole_numbers_of_every_width(tmp_path, bits):
    numbers = (VALUES * 2 ** (bits - 1)).astype(np.int64) + (128 if bits == 8 else 0)
    content = b"".join(int(number).to_bytes(bits // 8, "little", signed=bits > 8) for number in numbers)
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setparams((1, bits // 8, 11025, 0, "NONE", ""))
        file.writeframes(content)
    rate, sound = read_wav(tmp_path / "x.wav")
    assert (rate, sound.dtype) == (11025, np.float32)
    assert sound.tolist() == VALUES.tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats(tmp_path, dtype):
    from scipy.io import wavfile

    wavfile.write(tmp_path / "x.wav", 16000, VALUES.astype(dtype))
    rate, sound = read_wav(tmp_path / "x.wav")
    assert (rate, sound.tolist()) == (16000, VALUES.tolist())
    wavfile.write(tmp_path / "x.wav", 16000, np.array([0.0, np.nan], dtype=dtype))
    with pytest.raises(ValueError, match="samples that are NaN or infinite"):
        read_wav(tmp_path / "x.wav")


def test_of_several_channels_the_mean_is_taken(tmp_path):
    from scipy.io import wavfile

    wavfile.write(tmp_path / "x.wav", 8000, np.array([[1.0, 0.0], [0.5, -0.5]], dtype=np.float32))
    assert read_wav(tmp_path / "x.wav")[1].tolist() == [0.5, 0.0]


def test_chunks_with_other_things_are_passed_over(tmp_path):
    path = wav(tmp_path / "x.wav")
    content = path.read_bytes()
    whole = content + b"LIST" + struct.pack("<I", 8) + b"INFOabcd" + b"odd " + struct.pack("<I", 2) + b"ab"
    path.write_bytes(whole[:4] + struct.pack("<I", len(whole) - 8) + whole[8:])
    assert len(read_wav(path)[1]) == 1600


def refused():
    good = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36, b"WAVE", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16, b"data", 0)
    law = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 40, b"WAVE", b"fmt ", 16, 7, 1, 8000, 8000, 1, 8, b"data", 4)
    return {
        "empty": (b"", "cannot be read as a wav file"),
        "text": (b"this is no sound", "cannot be read as a wav file"),
        "head only": (good[:20], "cannot be read as a wav file"),
        "no sound": (good, "holds no sound|cannot be read"),
        "mu-law": (law + b"1234", "cannot be read as a wav file"),
        "no data": (good[:36], "cannot be read as a wav file"),
    }


@pytest.mark.parametrize("name", refused())
def test_what_is_no_wav_file_is_named(tmp_path, name):
    content, why = refused()[name]
    (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(ValueError, match=f"bad.wav: ({why})") as error:
        read_wav(tmp_path / "bad.wav")
    assert "\n" not in str(error.value)


def test_a_file_that_is_cut_off(tmp_path):
    path = wav(tmp_path / "x.wav")
    path.write_bytes(path.read_bytes()[:1001])
    with pytest.raises(ValueError, match=r"x.wav: cannot be read as a wav file \("):
        read_wav(path)


def test_a_file_that_is_gone(tmp_path):
    with pytest.raises(ValueError, match="cannot be read as a wav file"):
        read_wav(tmp_path / "gone.wav")
