"""Small made-up data for the tests of sources."""

import wave
from pathlib import Path

import numpy as np


def image(path: Path, size=(6, 5), colour=(10, 20, 30), mode="RGB", **options) -> Path:
    """One image of width and height `size`, of one colour."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    made = Image.new("RGB", size, colour)
    (made if mode == "RGB" else made.convert(mode)).save(path, **options)
    return path


def tree(root: Path, **classes) -> Path:
    """Folders of so many images each: ``tree(root, cat=3)``; names with a stroke by ``**{"train/cat": 3}``."""
    for at, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            image(root / name / f"{number}.png", colour=(at, number, 7))
    return root


def wav(path: Path, rate=8000, seconds=0.2, tone=440.0, channels=1, level=0.5) -> Path:
    """A tone of 16 bits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(seconds * rate)) / rate
    sound = (level * 32767 * np.sin(2 * np.pi * tone * times)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(sound, channels).tobytes())
    return path
