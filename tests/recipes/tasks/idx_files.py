"""What tests of data in IDX files share: small files of that form, and data sets compared."""

import gzip
import struct
from pathlib import Path

import numpy as np
import torch

from analogsim.recipes.tasks import data_sets


def idx(values: np.ndarray) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write(folder: Path, *, train: int = 40, test: int = 20, side: int = 5, pack: bool = False) -> Path:
    """The four IDX files, random images with labels 0..9 in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        for kind, values in (
            ("images-idx3", rng.integers(0, 256, (count, side, side), dtype=np.uint8)),
            ("labels-idx1", (np.arange(count) % 10).astype(np.uint8)),
        ):
            path = folder / f"{part}-{kind}-ubyte{'.gz' if pack else ''}"
            path.write_bytes(gzip.compress(idx(values)) if pack else idx(values))
    return folder


def tensors(splits: data_sets.Splits) -> list[torch.Tensor]:
    return [t for part in (splits.train, splits.validation, splits.test) for t in part.tensors]


def same(a: data_sets.Splits, b: data_sets.Splits) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))
