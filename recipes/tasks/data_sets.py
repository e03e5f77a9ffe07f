"""The data that recipes run on: data sets by name, sources of files, and whatever a user's own code gives."""

import difflib
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from analogsim.errors import InvalidValueError, MissingFileError, MissingPackageError
from analogsim.recipes.tasks import idx
from analogsim.recipes.tasks.loaders import Adapted, Collate, Loader, take
from analogsim.recipes.tasks.loaders import batches as batches
from analogsim.recipes.tasks.own_data import PARTS, Found, taken_from
from analogsim.recipes.tasks.references import call_factory, is_reference, load_object, named
from analogsim.recipes.tasks.standardised import is_bytes, standardised
from analogsim.recipes.tasks.task import TASKS, Classification, Task, as_task, targets_of, task_for
from analogsim.utils.packages import how_to_install

DATA_NAMES: tuple[str, ...] = ("digits", "mnist", "fashion-mnist", "cifar10")
SOURCES: tuple[str, ...] = ("folder", "npz", "audio", "text")

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
_TEST_SHARE = 0.2  # of the training samples, where a source has no test part


@dataclass(frozen=True)
class Splits:
    """Data in three parts, each of samples ``(input, target)`` by their place; tensors where it fits.

    The data sets in `DATA_NAMES` have float32 images `(N, C, H, W)` and int64 labels `(N,)`; images are standardised:
    mean 0 and standard deviation 1 per channel over the train part.

    Attributes:
        name: where they are from, as `load` was told.
        train: What the network learns from.
        validation: Held out of the train part, to choose between runs.
        test: For the reported number only.
        task: What is to be learned.
        facts: What factories of networks may ask for by name: ``shape`` of one input, ``classes``, ``outputs``,
            ``vocabulary``, ``class_names``, ..., as far as they are known.
        collate: Makes a batch of a list of samples; None: torch's own way.
        notes: What was decided on the way, a line each, for people to read.
    """

    name: str
    train: Any
    validation: Any
    test: Any
    task: Task = TASKS["classification"]
    facts: Mapping[str, Any] = field(default_factory=dict)
    collate: Collate | None = None
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        """How many labels there are.

        Raises:
            ValueError: that is not known.
        """
        return cast(int, self._known("classes"))

    @property
    def shape(self) -> tuple[int, ...]:
        """One input, such as ``(C, H, W)``.

        Raises:
            ValueError: that is not known.
        """
        return tuple(self._known("shape"))

    def _known(self, fact: str) -> Any:
        if self.facts.get(fact) is None:
            raise InvalidValueError(
                f"data: {self.name} have no {fact}; known are {', '.join(self.facts) or 'no facts'}"
            )
        return self.facts[fact]

    def batches(self, part: Any, batch_size: int, *, generator: torch.Generator | None = None) -> Loader:
        """A loader of a part, or of some samples of one, whose batches are inputs and target; see `batches`."""
        loader = batches(part, batch_size, generator=generator, collate=self.collate)
        return loader if type(self.task).batch is Task.batch else Adapted(loader, self.task.batch)


class Samples(NamedTuple):
    """Images `(N, C, H, W)` as stored (uint8) and their labels `(N,)` (int64)."""

    images: Tensor
    labels: Tensor

    def take(self, index: Tensor) -> "Samples":
        """Those at some places."""
        return Samples(self.images[index], self.labels[index])


def load(
    name: Any,
    folder: str | Path | None = None,
    *,
    download: bool = False,
    validation: float = 0.1,
    seed: int = 0,
    limit: int | None = None,
    task: str | Task | None = None,
) -> Splits:
    """Read data and split them; the network is never used unless `download` is set.

    Args:
        name: One of `DATA_NAMES`; a source of files, ``"folder:PATH"``, ``"npz:FILE"``, ``"audio:PATH"`` or
            ``"text:FILE"``; ``"package.module:factory"`` or ``"file.py:factory"``; in Python also what a factory may
            return. That is two or three parts (train, validation if any, test) in a tuple, or in a dict by these names,
            or a `Splits`. A part is a data set with samples by their place, a DataLoader, of which data set and collate
            are taken, or a pair of tensors or arrays. A dict may also hold ``task``, ``facts`` and ``collate``. The
            factory may ask by name for ``folder``, ``seed``, ``limit``, ``download``.
        folder: Where the files lie; "digits" needs none. Default: `data/<name>` in the working directory,
            then where torchvision puts them in `data/`, then where the system's package puts them.
        download: Let torchvision fetch files that are not there, into `folder` or `data/`.
        validation: Share of the training samples to hold out, in (0, 1), stratified by label; where data come with a
            validation part, that is taken.
        seed: Selects the validation part, and the samples that `limit` keeps.
        limit: Keep at most this many samples of each part, for quick tries.
        task: What is to be learned; default: what the data say, or look like.

    Returns:
        The three parts. Those of `DATA_NAMES` and of sources are standardised by the mean and standard deviation of the
        train part, per channel of images and per column of a table; a user's own are left as they are, but for images
        in bytes.

    Raises:
        ValueError: An unknown name, a setting out of range, or data that are not what they should be.
        TypeError: A factory that gives something else.
        FileNotFoundError: The files are not there; the message says how to get them.
        ImportError: scikit-learn ("digits") or torchvision ("cifar10", `download`) is not installed.
    """
    check_name(name)
    if not 0 < validation < 1:
        raise InvalidValueError(f"data: validation must be a fraction in (0, 1), got {validation}")
    if limit is not None and limit < 1:
        raise InvalidValueError(f"data: limit must be >= 1, or None for all samples, got {limit}")
    place = None if folder is None else Path(folder)
    called = named(name) if isinstance(name, str) or callable(name) else "your own"
    if isinstance(name, str) and name in READERS:
        whole, test = READERS[name](name, place, download)
        facts = {"shape": tuple(whole.images.shape[1:]), "classes": _CLASSES, "outputs": _CLASSES}
        parts = {"train": TensorDataset(*whole), "validation": None, "test": TensorDataset(*test)}
        found = Found(parts, "classification", facts, whole.labels, scale=True)
    elif source_of(name) is not None:
        found = _from_source(cast(str, name), place, task)
    else:
        given = load_object(name, "data") if isinstance(name, str) else name
        if callable(given):
            asked = {"folder": folder, "seed": seed, "limit": limit, "download": download, "validation": validation}
            given = call_factory(given, "data", asked)
        found = _of_splits(given) if isinstance(given, Splits) else taken_from(given, called)
    return _finished(called, found, validation, seed, limit, task)


def check_name(name: object) -> None:
    """Whether data can be meant by a name, without a look at them; code that it names is imported.

    Raises:
        ValueError: an unknown name.
        ImportError, FileNotFoundError: see `load_object`.
    """
    if not isinstance(name, str) or name in READERS or source_of(name) is not None:
        return
    if is_reference(name):
        load_object(name, "data")
        return
    near = difflib.get_close_matches(name.lower(), DATA_NAMES, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    others = "" if near else f"; of your own: {', '.join(f'{kind}:PATH' for kind in SOURCES)}, file.py:factory"
    raise InvalidValueError(f"data: unknown name {name!r}, known are {', '.join(DATA_NAMES)}{hint or others}")


def source_of(name: object) -> str | None:
    """Which of the `SOURCES` a name asks for; None for none."""
    kind = name.partition(":")[0] if isinstance(name, str) and ":" in name else None
    return kind if kind in SOURCES else None


def names_code(name: object) -> bool:
    """Whether a name of data is that of code, which is run to get them."""
    return source_of(name) is None and is_reference(name)


def _from_source(name: str, folder: Path | None, task: str | Task | None) -> Found:
    kind, _, path = name.partition(":")
    if folder is not None:
        raise InvalidValueError(f"data: {name!r} says itself where the data lie; leave out data.folder={str(folder)!r}")
    read = importlib.import_module(f"analogsim.recipes.tasks.sources.{kind}").read
    # Arrays alone may be for several tasks: which one says what their targets become.
    given = read(path, getattr(task, "name", task)) if kind == "npz" else read(path)
    return Found(
        {which: getattr(given, which) for which in PARTS},
        given.task,
        given.facts,
        given.labels,
        scale=not given.facts.get("scaled", False),
    )


def _of_splits(given: Splits) -> Found:
    parts = {which: getattr(given, which) for which in PARTS}
    return Found(parts, given.task, given.facts, None, given.collate, notes=list(given.notes))


def _finished(
    called: str, found: Found, validation: float, seed: int, limit: int | None, task: str | Task | None
) -> Splits:
    """The parts with the shares that were lacking, the task, and what samples tell."""
    chosen, facts = _learned(found, task)
    generator = torch.Generator().manual_seed(seed)
    if found.parts["test"] is None:
        # The test part is the same samples for everybody: drawn by its own generator, not by the caller's seed.
        _hold_out(found, "test", _TEST_SHARE, torch.Generator().manual_seed(0))
        found.notes.append(f"data: {called} have no test part; {_TEST_SHARE:.0%} of the samples are taken for it")
    if found.parts["validation"] is None:
        _hold_out(found, "validation", validation, generator)
        if called not in READERS:
            found.notes.append(
                f"data: {validation:.0%} of the training samples of {called} are held out for validation"
            )
    parts = [found.parts[which] for which in PARTS]
    if limit is not None:
        shuffled = (torch.randperm(len(part), generator=generator) for part in parts)
        parts = [take(part, index[:limit]) for part, index in zip(parts, shuffled, strict=True)]
    if not found.scale and is_bytes(parts[0]):
        found.notes.append("data: images in bytes are standardised by the train part")
    if found.scale or is_bytes(parts[0]):
        parts = standardised(*parts)
    train, held_out, test = parts
    splits = Splits(called, train, held_out, test, chosen, facts, found.collate, tuple(found.notes))
    _check(splits)
    return splits


def _learned(found: Found, task: str | Task | None) -> tuple[Task, dict[str, Any]]:
    """What is to be learned, and what is known of the samples."""
    train = found.parts["train"]
    wanted = found.task if task is None else task
    if wanted is None:
        wanted = task_for(train)
        found.notes.append(f"task: {wanted.name}, as the targets look; say task=... for another one")
    chosen, facts = as_task(wanted), dict(found.facts)
    if task is not None and found.task is not None and chosen.name != as_task(found.task).name:
        return chosen, facts | chosen.facts(train)  # what the data say is of another task
    if isinstance(train, TensorDataset) or facts.keys().isdisjoint(("classes", "vocabulary", "outputs")):
        facts = {**chosen.facts(train), **facts}  # else every sample would be read, for what is known
    # A class that the train part happens not to have is a class all the same, where somebody says how many there are.
    counted = chosen.counted if isinstance(chosen, Classification) else "classes"
    if "outputs" not in found.facts and facts.get(counted) is not None:
        facts["outputs"] = facts[counted]
    return chosen, facts


def _hold_out(found: Found, which: str, share: float, generator: torch.Generator) -> None:
    """Take a share of the train part for another one, as large of each class where there are classes."""
    train = found.parts["train"]
    labels = found.labels
    if labels is None:
        targets = targets_of(train)
        classes = targets is not None and targets.ndim == 1 and not targets.is_floating_point()
        labels = cast(Tensor, targets) if classes else torch.zeros(len(train), dtype=torch.int64)
    kept, held = _stratified(labels, share, generator)
    found.parts["train"], found.parts[which], found.labels = take(train, kept), take(train, held), labels[kept]


def _check(splits: Splits) -> None:
    """Whether a batch can be made of each part, and classes are those that the train part has.

    Raises:
        ValueError: not.
    """
    for which in PARTS:
        part = getattr(splits, which)
        try:
            splits.task.batch(next(iter(splits.batches(take(part, torch.tensor([0])), 1))))
        except Exception as error:
            raise InvalidValueError(
                f"data: no batch can be made of the {which} samples of {splits.name}: {' '.join(str(error).split())}; "
                "give pairs (input, target) of tensors or numbers, a collate for anything else, or a task with its own "
                "batch"
            ) from error
        classes, own = splits.facts.get("classes"), isinstance(part, TensorDataset) and len(part.tensors) == 2
        if own and classes is not None and type(splits.task) is Classification and which != "train":
            largest = int(part.tensors[1].max())
            if largest >= classes:
                raise InvalidValueError(
                    f"data: the {which} part of {splits.name} has class {largest}, and the train part classes from 0 "
                    f"to {classes - 1} only; say facts={{'classes': ...}} if there are more"
                )


def _stratified(labels: Tensor, fraction: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Sorted indices of (the rest, the `fraction`); each class's share is exact to less than one sample."""
    total = len(labels)
    count = round(total * fraction)
    if not 0 < count < total:
        raise InvalidValueError(
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
        raise InvalidValueError(
            f"{name}: comes with scikit-learn, not from a folder; got {str(folder)!r}, leave it out"
        )
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingPackageError(f"{name}: needs scikit-learn: {how_to_install('recipes')}") from error
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
        raise InvalidValueError(f"{place}: train and test images differ in size, {sizes}; take both from one data set")
    return train, test


def _idx_folder(name: str, folder: Path | None, download: bool) -> Path:
    """The first folder that has all four files, or the one into which they are fetched."""
    root = _ROOT if folder is None else folder
    places = _idx_places(name, folder)
    for place in places:
        if not idx.missing(place):
            return place
    if not download:
        looked = "; ".join(f"{place} (lacks {', '.join(idx.missing(place))})" for place in places)
        package = ", install Debian's package dataset-fashion-mnist" if name in _SYSTEM else ""
        raise MissingFileError(
            f"{name}: the four IDX files, plain or .gz, were not found; looked in {looked}. "
            f"Fetch them with --download (download=True){package}, or name a folder that holds them"
        )
    try:
        from torchvision import datasets
    except ImportError as error:
        raise MissingPackageError(f"{name}: the download needs torchvision: {how_to_install('recipes')}") from error
    getattr(datasets, _TORCHVISION[name])(root, download=True)
    return root / _TORCHVISION[name] / "raw"


def _idx_places(name: str, folder: Path | None) -> list[Path]:
    """The folders where the four files are looked for."""
    root = _ROOT if folder is None else folder
    places = [root / name if folder is None else root, root / _TORCHVISION[name] / "raw"]
    return [*places, _SYSTEM[name]] if folder is None and name in _SYSTEM else places


def found_at(name: str) -> str | None:
    """Where one of `DATA_NAMES` lies, without reading it; None where it is not there."""
    if name == "digits":
        return "scikit-learn" if importlib.util.find_spec("sklearn") else None
    if name == "cifar10":
        place = _ROOT / name / "cifar-10-batches-py"
        return str(place) if place.is_dir() else None
    return next((str(place) for place in _idx_places(name, None) if not idx.missing(place)), None)


def _cifar10(name: str, folder: Path | None, download: bool) -> tuple[Samples, Samples]:
    try:
        from torchvision import datasets
    except ImportError as error:
        raise MissingPackageError(f"{name}: needs torchvision: {how_to_install('recipes')}") from error
    root = _ROOT / name if folder is None else folder
    parts = []
    for train in (True, False):
        try:
            data = datasets.CIFAR10(root, train=train, download=download and train)
        except RuntimeError as error:
            if download:
                raise  # torchvision says what went wrong on the way
            raise MissingFileError(
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
