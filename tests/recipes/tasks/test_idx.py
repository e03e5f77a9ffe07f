import re

import numpy as np
import pytest
import torch

from analogsim.recipes.tasks import data_sets
from tests.recipes.tasks.idx_files import idx, same, write


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files_plain_and_packed_are_the_same(tmp_path, name):
    plain = data_sets.load(name, write(tmp_path / "plain"))
    packed = data_sets.load(name, str(write(tmp_path / "packed", pack=True)))
    assert same(plain, packed)
    assert (plain.shape, plain.classes) == ((1, 5, 5), 10)
    assert [len(p) for p in (plain.train, plain.validation, plain.test)] == [36, 4, 20]


def test_idx_values_arrive_where_they_belong(tmp_path):
    folder = write(tmp_path / "m")
    stored = np.frombuffer((folder / "t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8).reshape(20, 1, 5, 5)
    images, labels = data_sets.load("mnist", folder).test.tensors
    flat, values = images.flatten(), torch.from_numpy(stored.copy()).flatten().float()
    slope = (flat[1] - flat[0]) / (values[1] - values[0])
    torch.testing.assert_close(flat, flat[0] + slope * (values - values[0]), rtol=1e-4, atol=1e-5)
    assert labels.tolist() == [*range(10), *range(10)]


def test_other_spellings_and_unpacked_files_that_kept_their_gz(tmp_path):
    expected = data_sets.load("mnist", write(tmp_path / "a"))
    folder = write(tmp_path / "b")
    for path in list(folder.iterdir()):
        path.rename(folder / (path.name.replace("-idx", ".idx") + (".gz" if "t10k" in path.name else "")))
    assert same(data_sets.load("mnist", folder), expected)


def test_truncated_plain_file(tmp_path):
    path = write(tmp_path) / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte: truncated.*expected 1016 bytes, found 1009"):
        data_sets.load("mnist", tmp_path)


def test_a_file_that_is_too_long(tmp_path):
    path = write(tmp_path) / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte: .*expected 28 bytes, found 29"):
        data_sets.load("mnist", tmp_path)


@pytest.mark.parametrize("size", [0, 3, 9])
def test_a_file_without_a_whole_header(tmp_path, size):
    path = write(tmp_path) / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=f"expected at least 16 bytes, found {size};"):
        data_sets.load("mnist", tmp_path)


@pytest.mark.parametrize("keep", [0.3, 0.8, 0.99])
def test_truncated_gzip(tmp_path, keep):
    path = write(tmp_path, side=28, train=300, pack=True) / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ValueError, match=r"ubyte.gz: truncated or corrupt gzip .*expected \d+ bytes, found \d+;") as e:
        data_sets.load("mnist", tmp_path)
    expected, found = map(int, re.findall(r"expected (\d+) bytes, found (\d+)", str(e.value))[0])
    assert expected == 16 + 300 * 28 * 28
    assert 16 < found <= expected


def test_corrupt_gzip(tmp_path):
    path = write(tmp_path, pack=True) / "train-labels-idx1-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # the checksum
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"labels-idx1-ubyte.gz: truncated or corrupt gzip \(CRC check failed"):
        data_sets.load("mnist", tmp_path)


@pytest.mark.parametrize(
    ("start", "shown"),
    [(b"<htm", "0x3c68746d"), (b"\0\0\x0d\x03", "0x00000d03"), (b"\0\0\x08\x01", "0x00000801")],
)
def test_wrong_magic_number(tmp_path, start, shown):
    path = write(tmp_path) / "train-images-idx3-ubyte"
    path.write_bytes(start + path.read_bytes()[4:])
    with pytest.raises(ValueError, match=rf"train-images.*magic number is {shown}, expected 0x00000803"):
        data_sets.load("mnist", tmp_path)


def test_an_idx_file_without_values(tmp_path):
    write(tmp_path, test=0)
    with pytest.raises(ValueError, match=r"t10k-images-idx3-ubyte: holds no values.*\[0, 5, 5\]"):
        data_sets.load("mnist", tmp_path)


def test_labels_that_do_not_match_the_images(tmp_path):
    (write(tmp_path) / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(39, dtype=np.uint8)))
    with pytest.raises(ValueError, match=r"40 images but .*labels-idx1-ubyte has 39 labels"):
        data_sets.load("mnist", tmp_path)


def test_labels_out_of_range(tmp_path):
    (write(tmp_path) / "train-labels-idx1-ubyte").write_bytes(idx(np.full(40, 10, dtype=np.uint8)))
    with pytest.raises(ValueError, match=r"labels must be in 0..9, found 10"):
        data_sets.load("mnist", tmp_path)
