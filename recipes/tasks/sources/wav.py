"""WAV files as samples from -1 to 1."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from analogsim.errors import InvalidValueError

Sound = np.ndarray[Any, np.dtype[np.float32]]

_ZERO_AND_FULL = {"uint8": (128, 2**7), "int16": (0, 2**15), "int32": (0, 2**31), "int64": (0, 2**63)}


def read_wav(path: Path) -> tuple[int, Sound]:
    """The sampling rate, Hz, and the samples ``(N,)`` of one file; of several channels their mean.

    Whole numbers of 8 (unsigned), 16, 24, 32 and 64 bits are divided by their full scale; floats are taken as they are.

    Raises:
        ValueError: the file cannot be read, is cut off, is compressed, holds nothing, or values that are not finite.
    """
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks with titles and the like
            warnings.filterwarnings("error", "Reached EOF prematurely", wavfile.WavFileWarning)
            rate, samples = wavfile.read(path)
    except (ValueError, OSError, EOFError, ArithmeticError, LookupError, wavfile.WavFileWarning, struct.error) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise InvalidValueError(
            f"audio:{path}: cannot be read as a wav file ({why}); mend it, or take it away"
        ) from error
    if not samples.size:
        raise InvalidValueError(f"audio:{path}: holds no sound; take it away")
    if rate < 1:
        raise InvalidValueError(f"audio:{path}: has a sampling rate of {rate} Hz; mend it, or take it away")
    if samples.dtype.kind == "f":
        sound = samples.astype(np.float32)
        if not np.isfinite(sound).all():
            raise InvalidValueError(f"audio:{path}: has samples that are NaN or infinite; mend it, or take it away")
    else:
        zero, full = _ZERO_AND_FULL[samples.dtype.name]
        sound = ((samples.astype(np.float64) - zero) / full).astype(np.float32)
    return int(rate), sound if sound.ndim == 1 else sound.mean(1)
