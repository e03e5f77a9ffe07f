"""Images in class folders, ``folder:PATH``, read into memory once, or decoded when asked where they are many."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from analogsim.errors import InvalidValueError, MissingPackageError
from analogsim.recipes.tasks.sources.class_folders import Kind, list_files
from analogsim.recipes.tasks.sources.options import check_whole, existing, path_and_options
from analogsim.recipes.tasks.sources.parts import DataWarning, Parts, first_few
from analogsim.recipes.tasks.sources.threads import in_threads
from analogsim.utils.packages import how_to_install

IN_MEMORY = 2**30
"""Bytes of decoded images up to which they are read at once."""

_KIND = Kind(
    "folder",
    "images",
    (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm"),
)
_GREY = ("1", "L", "LA", "La")
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # grey of 16 bits
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_TURNED = (5, 6, 7, 8)  # orientations of EXIF that swap height and width
_ORIENTATION = 0x0112

_Result = TypeVar("_Result")


def read(path: str) -> Parts:
    """Images in class folders: ``PATH/class/image`` or ``PATH/train/class/image`` with ``val`` and ``test`` beside it.

    Args:
        path: the folder, with options in parentheses if any: ``size=32`` or ``size=(32, 48)`` resizes all images to
            that height and width (bilinear, antialiased); ``channels=1`` or ``3`` makes them grey or colour;
            ``order="text"`` sorts classes that are named by numbers as ImageFolder does.

    Returns:
        The parts that there are, uint8 ``(C, H, W)`` (float32 from 0 to 255 where an image has 16 bits), and classes.

    Raises:
        ValueError: layout, sizes or an image that will not do; see `class_folders.list_files`.
        FileNotFoundError: there is no such folder.
        ImportError: Pillow is not installed.
    """
    place, options = path_and_options(path, "folder", _read)
    return _read(place, **options)


def _read(place: Path, *, size: Any = None, channels: Any = None, order: str = "numbers") -> Parts:
    if size is not None:
        sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
        if len(sides) != 2:
            raise InvalidValueError(f"folder: size must be a number, or (height, width), got {size!r}")
        size = (check_whole("folder", "size", sides[0], 1), check_whole("folder", "size", sides[1], 1))
    if channels not in (None, 1, 3) or isinstance(channels, bool):
        raise InvalidValueError(f"folder: channels must be 1 (grey) or 3 (colour), got {channels!r}")
    listing = list_files(existing(place, "folder", folder=True), _KIND, order)
    files = [file for part in listing.files.values() for file in part]
    form = _form(files, in_threads(_look, files), size, channels)
    lazy = form.bytes * len(files) > IN_MEMORY
    sets: dict[str, Dataset[Any]] = {}
    for part, paths in listing.files.items():
        images = Images(paths, listing.labels[part], form)
        sets[part] = images if lazy else TensorDataset(images.decoded(range(len(paths))), listing.labels[part])
    facts = {
        "shape": (form.channels, form.height, form.width),
        "classes": len(listing.classes),
        "outputs": len(listing.classes),
        "class_names": listing.classes,
    }
    return Parts(
        sets["train"], sets.get("validation"), sets.get("test"), "classification", facts, listing.labels["train"]
    )


@dataclass(frozen=True)
class Form:
    """What all images are brought to.

    Attributes:
        height: in pixels.
        width: in pixels.
        channels: 1 (grey) or 3.
        deep: float32 from 0 to 255 in place of uint8, as some have 16 bits.
        resize: whether images of other sizes are resized; else they were checked to have this one.
    """

    height: int
    width: int
    channels: int
    deep: bool
    resize: bool

    @property
    def bytes(self) -> int:
        """Of one decoded image."""
        return math.prod((self.channels, self.height, self.width)) * (4 if self.deep else 1)


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Images on disk that are decoded when asked for.

    One place gives one image ``(C, H, W)`` and its label; several are decoded by several threads.

    Args:
        paths: of the files.
        labels: their classes, int64 ``(N,)``.
        form: what they are brought to.
    """

    def __init__(self, paths: Sequence[Path], labels: Tensor, form: Form) -> None:
        self.paths = list(paths)
        self.labels = labels
        self.form = form

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.decoded([index])[0], self.labels[index]

    def __getitems__(self, index: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """The samples of several places, as torch's loaders ask for them."""
        return list(zip(self.decoded(index), self.labels[list(index)], strict=True))

    def decoded(self, index: Iterable[int]) -> Tensor:
        """The images of some places, ``(N, C, H, W)``."""
        form, paths = self.form, [self.paths[at] for at in index]
        shape = (len(paths), form.channels, form.height, form.width)
        images = np.empty(shape, dtype=np.float32 if form.deep else np.uint8)

        def fill(at: int) -> None:
            images[at] = _decode(paths[at], form)

        in_threads(fill, range(len(paths)))
        return torch.from_numpy(images)


@dataclass(frozen=True)
class _Look:
    """What the head of a file tells."""

    height: int
    width: int
    mode: str
    grey: bool
    alpha: bool
    frames: bool


def _opened(path: Path, use: Callable[[Any], _Result]) -> _Result:
    """What `use` makes of an opened image.

    Raises:
        ValueError: it cannot be read; the file is named.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingPackageError(f"folder: needs Pillow: {how_to_install('recipes')}") from error
    try:
        with Image.open(path) as image:
            return use(image)
    except (Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError) as error:
        why = " ".join(str(error).split())
        raise InvalidValueError(
            f"folder:{path}: cannot be read as an image ({why}); mend it, or take it away"
        ) from error


def _look(path: Path) -> _Look:
    def use(image: Any) -> _Look:
        width, height = image.size
        if image.getexif().get(_ORIENTATION) in _TURNED:
            width, height = height, width
        grey = image.mode in (*_GREY, *_DEEP) or (image.mode == "P" and _has_grey_palette(image))
        alpha = image.mode in _ALPHA or "transparency" in image.info
        return _Look(height, width, image.mode, grey, alpha, bool(getattr(image, "is_animated", False)))

    return _opened(path, use)


def _has_grey_palette(image: Any) -> bool:
    colours = np.frombuffer(bytes(image.getpalette("RGB") or b""), dtype=np.uint8).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _form(files: Sequence[Path], looks: Sequence[_Look], size: tuple[int, int] | None, channels: int | None) -> Form:
    """What the images are to be brought to.

    Raises:
        ValueError: they are of several sizes and no size is asked for, or of a kind that cannot be brought there.
    """
    if size is None:
        _check_sizes(files, looks)
    floats = [path for path, look in zip(files, looks, strict=True) if look.mode == "F"]
    if floats:
        raise InvalidValueError(f"folder:{floats[0]}: has pixels that are floats; give such data as npz:FILE")
    height, width = size or (looks[0].height, looks[0].width)
    grey = all(look.grey for look in looks)
    _say(files, looks, channels, grey)
    return Form(
        height, width, channels or (1 if grey else 3), any(look.mode in _DEEP for look in looks), size is not None
    )


def _check_sizes(files: Sequence[Path], looks: Sequence[_Look]) -> None:
    """Refuse several sizes."""
    sizes = Counter((look.height, look.width) for look in looks)
    if len(sizes) > 1:
        usual = sizes.most_common(1)[0][0]
        one, other = (
            next(at for at, look in enumerate(looks) if ((look.height, look.width) == usual) is same)
            for same in (True, False)
        )
        named = " and ".join(f"{files[at]} is {looks[at].height}x{looks[at].width}" for at in (one, other))
        raise InvalidValueError(
            f"folder: images of {len(sizes)} sizes (height x width): {named}; resize them, "
            "or let them be resized by an option: folder:PATH(size=32)"
        )


def _say(files: Sequence[Path], looks: Sequence[_Look], channels: int | None, grey: bool) -> None:
    """Warn of what is lost or added."""

    def those(rule: Callable[[_Look], bool]) -> list[Path]:
        return [path for path, look in zip(files, looks, strict=True) if rule(look)]

    said = [
        ("have transparency, which is dropped", those(lambda look: look.alpha)),
        ("have several frames, of which the first is taken", those(lambda look: look.frames)),
    ]
    if channels is None and not grey:
        said.append(("are grey among colour ones, and get three equal channels", those(lambda look: look.grey)))
    for what, found in said:
        if found:
            warnings.warn(f"folder: {len(found)} of {len(files)} images {what}: {first_few(found, 1)}", DataWarning, 5)


def _decode(path: Path, form: Form) -> np.ndarray[Any, Any]:
    """One image, ``(C, H, W)``."""
    from PIL import Image, ImageOps

    def use(image: Any) -> np.ndarray[Any, Any]:
        image = ImageOps.exif_transpose(image)
        if image.mode in _DEEP:
            image = _eight_bits(image)  # from 0 to 255, in floats
        else:
            image = image.convert("RGB" if form.channels == 3 or image.mode not in _GREY else "L")
            image = image if form.channels == 3 else image.convert("L")
        if (image.height, image.width) != (form.height, form.width):
            if not form.resize:
                raise InvalidValueError(f"it was {form.height}x{form.width}, and is {image.height}x{image.width} now")
            image = image.resize((form.width, form.height), Image.Resampling.BILINEAR)
        pixels = np.asarray(image, dtype=np.float32 if form.deep else np.uint8)
        if pixels.ndim == 2:
            return np.broadcast_to(pixels, (form.channels, *pixels.shape))
        return pixels.transpose(2, 0, 1)

    return _opened(path, use)


def _eight_bits(image: Any) -> Any:
    """Grey of 16 bits as floats on the scale of 8: 65535 is 255."""
    from PIL import Image

    pixels = np.asarray(image)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise InvalidValueError(
            f"values from {pixels.min()} to {pixels.max()}, which are no 16 bits; give them as npz:FILE"
        )
    return Image.fromarray(pixels.astype(np.float32) / 257)
