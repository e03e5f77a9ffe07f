import builtins
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from analogsim.recipes.tasks import data_sets
from tests.recipes.tasks.idx_files import idx, same, tensors, write

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture
def without(monkeypatch):
    """Call it with the name of a package that then cannot be imported."""
    real = builtins.__import__

    def block(package: str) -> None:
        def fake(name, *args, **kwargs):
            if name.split(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {package!r}")
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", fake)

    return block


def test_digits_are_standardised_and_split():
    splits = data_sets.load("digits")
    assert (splits.name, splits.classes, splits.shape) == ("digits", 10, (1, 8, 8))
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [1294, 144, 359]
    images, labels = splits.train.tensors
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert images.mean().item() == pytest.approx(0, abs=1e-5)
    assert images.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    # Together the parts are the whole set, each sample once.
    everything = torch.cat([p.tensors[0] for p in (splits.train, splits.validation, splits.test)])
    assert len(everything.flatten(1).unique(dim=0)) == 1797


def test_each_part_has_its_share_of_each_class():
    splits = data_sets.load("digits", validation=0.25)
    counts = [torch.bincount(p.tensors[1]) for p in (splits.train, splits.validation, splits.test)]
    whole = sum(counts)
    assert (counts[2] - whole * 0.2).abs().max() <= 1
    assert (counts[1] - (whole - counts[2]) * 0.25).abs().max() <= 1.01  # 360 of 1438 are not quite a quarter


def test_the_seed_selects_the_validation_part_but_not_the_test_part():
    first, again, other = data_sets.load("digits"), data_sets.load("digits"), data_sets.load("digits", seed=1)
    assert same(first, again)
    assert not torch.equal(first.validation.tensors[1], other.validation.tensors[1])
    assert torch.equal(first.test.tensors[1], other.test.tensors[1])


def test_loading_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    data_sets.load("digits", limit=10)
    assert torch.equal(torch.get_rng_state(), before)


def test_limit_keeps_so_many_at_most_and_a_smaller_one_keeps_a_part_of_them():
    small, large = data_sets.load("digits", limit=20), data_sets.load("digits", limit=200)
    assert [len(p) for p in (small.train, small.validation, small.test)] == [20, 20, 20]
    assert [len(p) for p in (large.train, large.validation, large.test)] == [200, 144, 200]
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(small, part).tensors[1], getattr(large, part).tensors[1][:20])
    assert len(small.test.tensors[1].unique()) > 5  # shuffled, not the first of a sorted file


def test_one_sample_is_enough():
    assert all(t.isfinite().all() for t in tensors(data_sets.load("digits", limit=1)))


def test_images_without_contrast_stay_finite(tmp_path):
    folder = write(tmp_path / "m")
    for part, count in (("train", 40), ("t10k", 20)):
        path = folder / f"{part}-images-idx3-ubyte"
        path.write_bytes(idx(np.full((count, 5, 5), 7 if part == "train" else 255, dtype=np.uint8)))
    splits = data_sets.load("mnist", folder)
    assert splits.train.tensors[0].unique().tolist() == [0]
    assert splits.test.tensors[0].unique().item() == pytest.approx(248 / 255)


@pytest.mark.parametrize("place", ["data/fashion-mnist", "data/FashionMNIST/raw", "system"])
def test_default_places(tmp_path, place):
    write(tmp_path / place)
    assert len(data_sets.load("fashion-mnist").test) == 20


def test_a_folder_as_torchvision_lays_it(tmp_path):
    write(tmp_path / "root" / "MNIST" / "raw")
    assert len(data_sets.load("mnist", tmp_path / "root").test) == 20


def test_an_incomplete_folder_does_not_hide_a_complete_one(tmp_path):
    (write(tmp_path / "data" / "mnist") / "t10k-labels-idx1-ubyte").unlink()
    write(tmp_path / "data" / "MNIST" / "raw", test=30)
    assert len(data_sets.load("mnist").test) == 30


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_the_real_fashion_mnist():
    splits = data_sets.load("fashion-mnist", DEBIAN)
    assert splits.shape == (1, 28, 28)
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [54000, 6000, 10000]
    assert torch.bincount(splits.validation.tensors[1]).tolist() == [600] * 10
    assert splits.train.tensors[0].mean().item() == pytest.approx(0, abs=1e-4)


def test_train_and_test_images_of_different_size(tmp_path):
    write(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((20, 6, 6), dtype=np.uint8)))
    with pytest.raises(ValueError, match=r"differ in size, \[\(5, 5\), \(6, 6\)\]"):
        data_sets.load("mnist", tmp_path)


def test_missing_files_are_named_with_what_to_do(tmp_path):
    (write(tmp_path / "m") / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"m \(lacks t10k-labels-idx1-ubyte\).*--download") as error:
        data_sets.load("mnist", tmp_path / "m")
    assert "dataset-fashion-mnist" not in str(error.value)
    with pytest.raises(FileNotFoundError, match="Debian's package dataset-fashion-mnist") as error:
        data_sets.load("fashion-mnist")
    for place in ("data/fashion-mnist", "data/FashionMNIST/raw", "system"):
        assert place in str(error.value)


def test_download_goes_through_torchvision_and_only_when_needed(tmp_path, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    calls = []

    def fake(root, download):
        calls.append((Path(root), download))
        write(Path(root) / "MNIST" / "raw")

    monkeypatch.setattr(datasets, "MNIST", fake)
    assert len(data_sets.load("mnist", download=True).test) == 20
    assert len(data_sets.load("mnist", download=True).test) == 20
    assert len(data_sets.load("mnist", tmp_path / "mine", download=True).test) == 20
    assert calls == [(Path("data"), True), (tmp_path / "mine", True)]


def write_cifar(base: Path) -> np.ndarray:
    """The files torchvision reads, four images each; returns those of the test batch."""
    base.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        images = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
        (base / name).write_bytes(pickle.dumps({"data": images, "labels": [0, 1, 2, 9]}))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(i) for i in range(10)]}))
    return images.reshape(4, 3, 32, 32)


def test_cifar10(tmp_path, monkeypatch):
    cifar = pytest.importorskip("torchvision.datasets.cifar")
    monkeypatch.setattr(cifar, "check_integrity", lambda *_: True)  # ours are not the real files
    stored = write_cifar(tmp_path / "data" / "cifar10" / "cifar-10-batches-py")
    splits = data_sets.load("cifar10", validation=0.2)
    assert splits.shape == (3, 32, 32)
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [16, 4, 4]
    images, labels = splits.train.tensors
    assert images.is_contiguous()
    assert labels.dtype == torch.int64
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(images.std((0, 2, 3), correction=0), torch.ones(3), rtol=0, atol=1e-5)
    for channel in range(3):  # the same line for each pixel of a channel
        pairs = np.stack([stored[:, channel].ravel(), splits.test.tensors[0][:, channel].numpy().ravel()])
        assert np.corrcoef(pairs)[0, 1] == pytest.approx(1, abs=1e-5)


def test_missing_and_damaged_cifar10(tmp_path):
    pytest.importorskip("torchvision")
    with pytest.raises(FileNotFoundError, match=r"data.cifar10.cifar-10-batches-py is not there.*--download"):
        data_sets.load("cifar10")
    write_cifar(tmp_path / "c" / "cifar-10-batches-py")  # wrong checksums
    with pytest.raises(FileNotFoundError, match="damaged"):
        data_sets.load("cifar10", tmp_path / "c")


def test_a_failed_download_says_so_itself(monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")

    def fail(self):
        raise RuntimeError("the mirror is down")

    monkeypatch.setattr(datasets.CIFAR10, "download", fail)
    with pytest.raises(RuntimeError, match="mirror is down"):
        data_sets.load("cifar10", download=True)


def test_unknown_names():
    with pytest.raises(ValueError, match=r"'FashionMNIST', known are digits, .*did you mean 'fashion-mnist'\?"):
        data_sets.load("FashionMNIST")
    with pytest.raises(
        ValueError, match=r"'zzz', known are digits, mnist, fashion-mnist, cifar10; of your own: .*factory$"
    ):
        data_sets.load("zzz")


@pytest.mark.parametrize("value", [0, 1, -0.1, 10, float("nan")])
def test_validation_out_of_range(value):
    with pytest.raises(ValueError, match=rf"validation must be a fraction in \(0, 1\), got {value}"):
        data_sets.load("digits", validation=value)


@pytest.mark.parametrize("value", [0.001, 0.999])
def test_too_few_samples_for_the_fraction(tmp_path, value):
    with pytest.raises(ValueError, match=f"fraction of {value} of 40 samples leaves one part empty"):
        data_sets.load("mnist", write(tmp_path), validation=value)


def test_limit_out_of_range():
    with pytest.raises(ValueError, match="limit must be >= 1, or None for all samples, got 0"):
        data_sets.load("digits", limit=0)


def test_digits_from_a_folder():
    with pytest.raises(ValueError, match="digits: comes with scikit-learn, not from a folder; got 'here'"):
        data_sets.load("digits", "here")


@pytest.mark.parametrize(
    ("package", "name", "download"),
    [("sklearn", "digits", False), ("torchvision", "cifar10", False), ("torchvision", "mnist", True)],
)
def test_a_missing_package_is_named_with_the_extra(without, package, name, download):
    without(package)
    with pytest.raises(ImportError, match=r'pip install "analogsim-torch\[recipes\]"'):
        data_sets.load(name, download=download)


def numbered(count: int) -> TensorDataset:
    return TensorDataset(torch.arange(count).float().reshape(count, 1, 1, 1), torch.arange(count))


def epoch(loader) -> list[list[int]]:
    return [labels.tolist() for _, labels in loader]


def test_batches_in_order():
    loader = data_sets.batches(numbered(7), 3)
    assert len(loader) == 3
    assert epoch(loader) == epoch(loader) == [[0, 1, 2], [3, 4, 5], [6]]
    for images, labels in loader:
        assert images.shape == (len(labels), 1, 1, 1)
        assert torch.equal(images.flatten().long(), labels)


def test_batches_index_the_data_once_each():
    class Counted(TensorDataset):
        calls = 0

        def __getitem__(self, index):
            self.calls += 1
            return super().__getitem__(index)

    data = Counted(*numbered(100).tensors)
    epoch(data_sets.batches(data, 25))
    assert data.calls == 4


def test_shuffled_batches_resume_from_the_state_of_the_generator():
    generator = torch.Generator().manual_seed(3)
    loader = data_sets.batches(numbered(50), 8, generator=generator)
    first = epoch(loader)
    state = generator.get_state()
    second, third = epoch(loader), epoch(loader)
    assert sorted(i for batch in second for i in batch) == list(range(50))
    assert first != second != third
    resumed = torch.Generator()
    resumed.set_state(state)
    loader = data_sets.batches(numbered(50), 8, generator=resumed)
    assert [epoch(loader), epoch(loader)] == [second, third]


@pytest.mark.parametrize("shuffled", [False, True])
def test_batches_leave_the_global_random_state_alone(shuffled):
    before = torch.get_rng_state()
    epoch(data_sets.batches(numbered(5), 2, generator=torch.Generator() if shuffled else None))
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_of_nothing():
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        data_sets.batches(numbered(5), 0)
    with pytest.raises(ValueError, match="the data set is empty"):
        data_sets.batches(numbered(0), 5)
