"""The image data sets the recipes run on, as plain tensors."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

from analogsim.recipes.tasks import idx

DATA_NAMES: tuple[str, ...] = ("digits", "mnist", "fashion-mnist", "cifar10")

_CLASSES = 10  # in every data set above
_ROOT = Path("data")
SHAPES = {  # one image (C, H, W), and how many labels
    "digits": ((1, 8, 8), 10),
    "mnist": ((1, 28, 28), 10),
    "fashion-mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
}
_TORCHVISION = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
_SYSTEM = {"fashion-mnist": Path("/usr/share/datasets/fashion-mnist")}  # Debian's dataset-fashion-mnist
_EXTRA = 'pip install "analogsim-torch[recipes]"'


@dataclass(frozen=True)
class Splits:
    """One data set in three parts, each of (float32 images `(N, C, H, W)`, int64 labels `(N,)`).

    Images are standardised: mean 0 and standard deviation 1 per channel over the train part.

    Attributes:
        name: One of `DATA_NAMES`.
        train: What the network learns from.
        validation: Held out of the train part, to choose between runs.
        test: For the reported number only.
        classes: How many labels there are.
        shape: One image, `(C, H, W)`.
    """

    name: str
    train: TensorDataset
    validation: TensorDataset
    test: TensorDataset
    classes: int
    shape: tuple[int, int, int]


class Samples(NamedTuple):
    """Images `(N, C, H, W)` as stored (uint8) and their labels `(N,)` (int64)."""

    images: Tensor
    labels: Tensor

    def take(self, index: Tensor) -> "Samples":
        """Those at some places."""
        return Samples(self.images[index], self.labels[index])


def load(
    name: str,
    folder: str | Path | None = None,
    *,
    download: bool = False,
    validation: float = 0.1,
    seed: int = 0,
    limit: int | None = None,
) -> Splits:
    """Read a data set and split it; the network is never used unless `download` is set.

    Args:
        name: One of `DATA_NAMES`.
        folder: Where the files lie; "digits" needs none. Default: `data/<name>` in the working directory,
            then where torchvision puts them in `data/`, then where the system's package puts them.
        download: Let torchvision fetch files that are not there, into `folder` or `data/`.
        validation: Share of the training samples to hold out, in (0, 1), stratified by label.
        seed: Selects the validation part, and the samples that `limit` keeps.
        limit: Keep at most this many samples of each part, for quick tries.

    Returns:
        The three parts, standardised by the mean and standard deviation of the train part.

    Raises:
        ValueError: An unknown name, a setting out of range, or a file that is not what it should be.
        FileNotFoundError: The files are not there; the message says how to get them.
        ImportError: scikit-learn ("digits") or torchvision ("cifar10", `download`) is not installed.
    """
    if name not in READERS:
        near = difflib.get_close_matches(str(name).lower(), DATA_NAMES, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"data: unknown name {name!r}, known are {', '.join(DATA_NAMES)}{hint}")
    if not 0 < validation < 1:
        raise ValueError(f"data: validation must be a fraction in (0, 1), got {validation}")
    if limit is not None and limit < 1:
        raise ValueError(f"data: limit must be >= 1, or None for all samples, got {limit}")
    whole, test = READERS[name](name, None if folder is None else Path(folder), download)
    generator = torch.Generator().manual_seed(seed)
    kept, held = _stratified(whole.labels, validation, generator)
    parts = [whole.take(kept), whole.take(held), test]
    if limit is not None:
        shuffled = (torch.randperm(len(part.labels), generator=generator) for part in parts)
        parts = [part.take(index[:limit]) for part, index in zip(parts, shuffled, strict=True)]
    # Of the bytes as they are: scaling them to [0, 1] first would cancel.
    std, mean = torch.std_mean(parts[0].images.float(), dim=(0, 2, 3), correction=0, keepdim=True)
    std = torch.where(std > 1e-6, std, 255.0)  # a channel without contrast has no scale of its own
    train, held_out, test_set = (TensorDataset(part.images.float().sub_(mean).div_(std), part.labels) for part in parts)
    _, channels, height, width = whole.images.shape
    return Splits(name, train, held_out, test_set, _CLASSES, (channels, height, width))


def batches(
    data: TensorDataset, batch_size: int, *, generator: torch.Generator | None = None
) -> DataLoader[tuple[Tensor, ...]]:
    """A loader of whole batches, without the per-sample fetch and collate that dominate on small images.

    Args:
        data: The samples.
        batch_size: Samples in a batch; the last one may be smaller.
        generator: Shuffles anew in each epoch. Given its state as it was before `iter(loader)`, the epoch
            comes again in the same order, so that a run can be resumed. Default: in order.
    """
    if batch_size < 1:
        raise ValueError(f"batches: batch_size must be >= 1, got {batch_size}")
    if len(data) == 0:
        raise ValueError("batches: the data set is empty, got 0 samples; give at least one")
    order = SequentialSampler(data) if generator is None else RandomSampler(data, generator=generator)
    # At the start of each epoch the loader draws a seed for its workers. Without a generator of its own it
    # takes that from the global random state, and a look at the validation part would change the training.
    return DataLoader(
        data,
        sampler=BatchSampler(order, batch_size, drop_last=False),
        batch_size=None,
        generator=torch.Generator() if generator is None else generator,
    )


def _stratified(labels: Tensor, fraction: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sorted indices of (the rest, the `fraction`); each class's share is exact to less than one sample."""
    total = len(labels)
    count = round(total * fraction)
    if not 0 < count < total:
        raise ValueError(
            f"data: a fraction of {fraction} of {total} samples leaves one part empty; "
            "choose another fraction, or give more samples"
        )
    order = torch.randperm(total, generator=generator)
    order = order[torch.argsort(labels[order], stable=True)]  # by class, at random within a class
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[order[(torch.arange(count) * 2 + 1) * total // (2 * count)]] = True  # evenly spaced over the classes
    return (~chosen).nonzero().squeeze(1), chosen.nonzero().squeeze(1)


def _digits(name: str, folder: Path | None, download: bool) -> tuple[Samples, Samples]:
    if folder is not None:
        raise ValueError(f"{name}: comes with scikit-learn, not from a folder; got {str(folder)!r}, leave it out")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(f"{name}: needs scikit-learn: {_EXTRA}") from error
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).to(torch.uint8).unsqueeze(1)
    whole = Samples(images, torch.from_numpy(bunch.target).long())
    # The test part is the same samples for everybody: drawn by its own generator, not by the caller's seed.
    train, test = _stratified(whole.labels, 0.2, torch.Generator().manual_seed(0))
    return whole.take(train), whole.take(test)


def _mnist(name: str, folder: Path | None, download: bool) -> tuple[Samples, Samples]:
    place = _idx_folder(name, folder, download)
    train, test = (Samples(*idx.read_part(place, which, _CLASSES)) for which in ("train", "t10k"))
    if train.images.shape[1:] != test.images.shape[1:]:
        sizes = [tuple(part.images.shape[2:]) for part in (train, test)]
        raise ValueError(f"{place}: train and test images differ in size, {sizes}; take both from one data set")
    return train, test


def _idx_folder(name: str, folder: Path | None, download: bool) -> Path:
    """The first folder that has all four files, or the one into which they are fetched."""
    raw = Path(_TORCHVISION[name]) / "raw"
    root = _ROOT if folder is None else folder
    places = [root / name if folder is None else root, root / raw]
    if folder is None and name in _SYSTEM:
        places.append(_SYSTEM[name])
    for place in places:
        if not idx.missing(place):
            return place
    if not download:
        looked = "; ".join(f"{place} (lacks {', '.join(idx.missing(place))})" for place in places)
        package = ", install Debian's package dataset-fashion-mnist" if name in _SYSTEM else ""
        raise FileNotFoundError(
            f"{name}: the four IDX files, plain or .gz, were not found; looked in {looked}. "
            f"Fetch them with --download (download=True){package}, or name a folder that holds them"
        )
    try:
        from torchvision import datasets
    except ImportError as error:
        raise ImportError(f"{name}: the download needs torchvision: {_EXTRA}") from error
    getattr(datasets, _TORCHVISION[name])(root, download=True)
    return root / raw


def _cifar10(name: str, folder: Path | None, download: bool) -> tuple[Samples, Samples]:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise ImportError(f"{name}: needs torchvision: {_EXTRA}") from error
    root = _ROOT / name if folder is None else folder
    parts = []
    for train in (True, False):
        try:
            data = datasets.CIFAR10(root, train=train, download=download and train)
        except RuntimeError as error:
            if download:
                raise  # torchvision says what went wrong on the way
            raise FileNotFoundError(
                f"{name}: {root / datasets.CIFAR10.base_folder} is not there, incomplete or damaged. "
                "Fetch it with --download (download=True), or name the folder that holds it"
            ) from error
        images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
        parts.append(Samples(images, torch.tensor(data.targets, dtype=torch.int64)))
    return parts[0], parts[1]


READERS: dict[str, Callable[[str, Path | None, bool], tuple[Samples, Samples]]] = {
    "digits": _digits,
    "mnist": _mnist,
    "fashion-mnist": _mnist,
    "cifar10": _cifar10,
}
