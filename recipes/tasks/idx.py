"""The IDX files in which MNIST and its kin come: two of images and two of labels, plain or packed with gzip."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

from analogsim.errors import InvalidValueError

_FILES = {part: (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte") for part in ("train", "t10k")}


def missing(folder: Path) -> list[str]:
    """Those of the four files that are not in `folder`."""
    return [name for names in _FILES.values() for name in names if not _path(folder, name).is_file()]


def read_part(folder: Path, which: str, classes: int) -> tuple[Tensor, Tensor]:
    """Images `(N, 1, H, W)` (uint8) and labels `(N,)` (int64) of the part "train" or "t10k".

    Raises:
        ValueError: A file that is not IDX, damaged or empty, files that do not go together, or labels that are not
            below `classes`.
    """
    image_path, label_path = (_path(folder, name) for name in _FILES[which])
    images, labels = _read(image_path, 3), _read(label_path, 1)
    if len(images) != len(labels):
        raise InvalidValueError(
            f"{image_path} has {len(images)} images but {label_path} has {len(labels)} labels; "
            "take both from one data set"
        )
    if int(labels.max()) >= classes:
        raise InvalidValueError(
            f"{label_path}: labels must be in 0..{classes - 1}, found {int(labels.max())}; is this the right file?"
        )
    return images.unsqueeze(1), labels.long()


def _path(folder: Path, name: str) -> Path:
    """The file `name` in its spelling there (`-idx3` or `.idx3`, plain or .gz), or as it should be called."""
    spellings = (name, name.replace("-idx", ".idx"))
    paths = (folder / (spelling + end) for end in ("", ".gz") for spelling in spellings)
    return next((path for path in paths if path.is_file()), folder / name)


def _read(path: Path, dims: int) -> Tensor:
    """One IDX file as a uint8 tensor of `dims` dimensions.

    The format: two zero bytes, a type code (8: unsigned byte), the number of dimensions, each size as a
    big-endian uint32, then the values.
    """
    content, fault = _content(path)
    header = 4 + 4 * dims
    if len(content) >= 4 and content[:4] != bytes((0, 0, 8, dims)):
        raise InvalidValueError(
            f"{path}: magic number is 0x{content[:4].hex()}, expected 0x000008{dims:02x} "
            f"(IDX, type code 08 for unsigned bytes, {dims} dimensions); is this the right file?"
        )
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, header, 4)]
    complete = len(content) >= header
    size = header + math.prod(shape) if complete else header
    if not complete or fault or len(content) != size:
        raise InvalidValueError(
            f"{path}: truncated or corrupt{fault}: expected {'' if complete else 'at least '}{size} bytes, "
            f"found {len(content)}; remove it and fetch it again"
        )
    if 0 in shape:
        raise InvalidValueError(f"{path}: holds no values, its dimensions are {shape}; is this the right file?")
    return torch.frombuffer(content, dtype=torch.uint8, offset=header).reshape(shape)


def _content(path: Path) -> tuple[bytearray, str]:
    """The unpacked bytes of a file, as far as they can be read, and what stopped the reading."""
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":  # by content, as browsers unpack without renaming; IDX begins with zeros
            file.seek(0)
            return bytearray(file.read()), ""
    content = bytearray()
    with gzip.open(path, "rb") as packed:
        try:
            while chunk := packed.read1(1 << 20):
                content += chunk
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            return content, f" gzip ({error})"
    return content, ""
