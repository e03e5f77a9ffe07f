import pickle
import warnings

import numpy as np
import pytest
import torch

from analogsim.recipes.tasks import data_sets
from analogsim.recipes.tasks.sources import folder
from analogsim.recipes.tasks.sources.parts import DataWarning
from tests.recipes.tasks.sources.files import image, tree

Image = pytest.importorskip("PIL.Image")


def test_class_folders_are_read_as_bytes(tmp_path):
    parts = folder.read(str(tree(tmp_path, cat=3, dog=2)))
    assert parts.facts == {"shape": (3, 5, 6), "classes": 2, "outputs": 2, "class_names": ("cat", "dog")}
    assert (parts.task, parts.validation, parts.test) == ("classification", None, None)
    images, labels = parts.train.tensors
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert torch.equal(labels, parts.labels)
    assert labels.tolist() == [0, 0, 0, 1, 1]
    assert images[:, :, 4, 5].tolist() == [[0, 0, 7], [0, 1, 7], [0, 2, 7], [1, 0, 7], [1, 1, 7]]


def test_split_folders(tmp_path):
    root = tree(tmp_path, **{"train/a": 3, "train/b": 2, "val/a": 1, "test/b": 2})
    parts = folder.read(str(root))
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [5, 1, 2]
    assert parts.test[0][1] == 1


def test_rows_and_columns_stay_what_they_are(tmp_path):
    pixels = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    tree(tmp_path, a=0, b=0)
    for name in "ab":
        Image.fromarray(pixels).save(tmp_path / name / "x.png")
    parts = folder.read(str(tmp_path))
    assert np.array_equal(parts.train[0][0].numpy(), pixels.transpose(2, 0, 1))


def grey_and(tmp_path, mode, ending="png", **options):
    """One image of that mode in each of two classes, colour (10, 20, 30)."""
    for name in "ab":
        image(tmp_path / name / f"x.{ending}", mode=mode, **options)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("mode", "ending", "value"),
    [
        ("L", "png", [18]),
        ("1", "png", [0]),
        ("RGB", "bmp", [10, 20, 30]),
        ("P", "png", [0, 0, 51]),
        ("P", "gif", [0, 0, 51]),
        ("RGB", "webp", [10, 20, 30]),
        ("RGB", "tif", [10, 20, 30]),
        ("L", "pgm", [18]),
        ("RGB", "ppm", [10, 20, 30]),
        ("CMYK", "jpg", [10, 20, 30]),
        ("YCbCr", "jpg", [10, 20, 30]),
        ("L", "jpg", [18]),
    ],
)
def test_kinds_of_images(tmp_path, mode, ending, value):
    parts = folder.read(grey_and(tmp_path, mode, ending))
    assert parts.facts["shape"] == (len(value), 5, 6)
    assert parts.train[0][0][:, 0, 0].tolist() == pytest.approx(value, abs=3)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_dropped_and_said(tmp_path, mode):
    with pytest.warns(DataWarning, match=r"2 of 2 images have transparency, which is dropped: .*x.png and 1 more"):
        parts = folder.read(grey_and(tmp_path, mode))
    assert parts.train[0][0][:, 0, 0].tolist() == ([10, 20, 30] if mode == "RGBA" else [18])


def test_a_palette_of_greys_is_grey(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        made = Image.new("P", (4, 3), 2)
        made.putpalette([0, 0, 0, 100, 100, 100, 200, 200, 200])
        made.save(tmp_path / name / "x.png")
    parts = folder.read(str(tmp_path))
    assert parts.facts["shape"] == (1, 3, 4)
    assert parts.train.tensors[0].unique().tolist() == [200]


def test_grey_among_colour_gets_three_channels(tmp_path):
    tree(tmp_path, a=2, b=1)
    image(tmp_path / "b" / "grey.png", colour=(50, 50, 50), mode="L")
    with pytest.warns(DataWarning, match="1 of 4 images are grey among colour ones, and get three equal channels"):
        parts = folder.read(str(tmp_path))
    assert parts.train[3][0][:, 0, 0].tolist() == [50, 50, 50]


def test_asked_for_channels(tmp_path):
    tree(tmp_path, a=1, b=1)
    assert folder.read(f"{tmp_path}(channels=1)").facts["shape"] == (1, 5, 6)
    grey = tmp_path / "grey"
    assert folder.read(f"{grey_and(grey, 'L')}(channels=3)").train[0][0][:, 0, 0].tolist() == [18, 18, 18]


def test_sixteen_bits_lose_nothing(tmp_path):
    values = np.array([[0, 1, 257], [256, 40000, 65535]], dtype=np.uint16)
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.fromarray(values).save(tmp_path / name / "x.png")
    image(tmp_path / "b" / "y.png", size=(3, 2), colour=(9, 9, 9), mode="L")
    parts = folder.read(str(tmp_path))
    assert parts.train.tensors[0].dtype == torch.float32
    torch.testing.assert_close(parts.train[0][0][0], torch.tensor(values.astype(np.float32) / 257))
    assert parts.train[2][0].unique().tolist() == [9]


def test_pictures_are_turned_as_their_camera_says(tmp_path):
    pixels = np.zeros((2, 3, 3), dtype=np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right by a quarter
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "x.png", exif=exif)
    parts = folder.read(str(tmp_path))
    assert parts.facts["shape"] == (3, 3, 2)
    assert parts.train[0][0][0].nonzero().tolist() == [[0, 1]]


def test_of_several_frames_the_first_is_taken(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        first, second = (Image.new("RGB", (4, 4), (value, 0, 0)) for value in (200, 20))
        first.save(tmp_path / name / "x.png", save_all=True, append_images=[second])
    with pytest.warns(DataWarning, match="several frames, of which the first is taken"):
        parts = folder.read(str(tmp_path))
    assert parts.train[0][0][0].unique().tolist() == [200]


def test_sizes_that_differ_are_named_with_what_to_do(tmp_path):
    tree(tmp_path, a=2, b=2)
    image(tmp_path / "b" / "odd.png", size=(7, 9))
    with pytest.raises(ValueError, match=r"of 2 sizes .*a.0.png is 5x6 and .*b.odd.png is 9x7; .*\(size=32\)") as error:
        folder.read(str(tmp_path))
    assert "\n" not in str(error.value)
    assert folder.read(f"{tmp_path}(size=(4, 3))").train.tensors[0].shape == (5, 3, 4, 3)
    assert folder.read(f"{tmp_path}(size=8)").facts["shape"] == (3, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert folder.read(f"{tmp_path}(size=8)").train[4][0][:, 0, 0].tolist() == [10, 20, 30]


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", None])
def test_what_is_no_image_is_named(tmp_path, content):
    tree(tmp_path, a=2, b=2)
    bad = tmp_path / "b" / "bad.png"
    if content is None:  # cut off in the middle of its pixels
        noise = np.random.default_rng(0).integers(0, 255, (50, 60, 3), dtype=np.uint8)
        Image.fromarray(noise).save(bad)
        bad.write_bytes(bad.read_bytes()[:4000])
        for path in tmp_path.glob("*/?.png"):
            image(path, size=(60, 50))
    else:
        bad.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad.png: cannot be read as an image \(.*\); mend it") as error:
        folder.read(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_link_to_nothing(tmp_path):
    tree(tmp_path, a=1, b=1)
    try:
        (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    except OSError:
        pytest.skip("this system makes no links")
    with pytest.raises(ValueError, match=r"gone.png: cannot be read as an image"):
        folder.read(str(tmp_path))


def test_floats_are_for_npz(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.fromarray(np.ones((3, 3), dtype=np.float32)).save(tmp_path / name / "x.tif")
    with pytest.raises(ValueError, match="pixels that are floats; give such data as npz:FILE"):
        folder.read(str(tmp_path))
    for name in "ab":
        Image.fromarray(np.full((3, 3), 70000, dtype=np.int32)).save(tmp_path / name / "x.tif")
    with pytest.raises(ValueError, match="70000, which are no 16 bits"):
        folder.read(str(tmp_path))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("(size=0)", "size must be a whole number >= 1, got 0"),
        ("(size=(1, 2, 3))", r"size must be a number, or \(height, width\), got \(1, 2, 3\)"),
        ("(channels=2)", r"channels must be 1 \(grey\) or 3 \(colour\), got 2"),
        ("(channels=True)", "channels must be 1"),
        ("(crop=3)", "no option 'crop'; there are size, channels, order"),
    ],
)
def test_options_that_will_not_do(tmp_path, options, why):
    with pytest.raises(ValueError, match=why):
        folder.read(f"{tree(tmp_path, a=1, b=1)}{options}")


def test_an_archive_is_to_be_unpacked(tmp_path):
    (tmp_path / "set.tar.gz").touch()
    with pytest.raises(ValueError, match="is an archive; unpack it, and give the folder"):
        folder.read(str(tmp_path / "set.tar.gz"))


def test_many_images_stay_on_disk_and_have_the_same_numbers(tmp_path, monkeypatch):
    root = str(tree(tmp_path, **{"train/a": 70, "train/b": 3, "test/a": 2}))
    read = folder.read(root)
    monkeypatch.setattr(folder, "IN_MEMORY", 1000)
    lazy = folder.read(root)
    assert isinstance(lazy.train, folder.Images)
    assert [len(part) for part in (lazy.train, lazy.test)] == [73, 2]
    assert torch.equal(lazy.labels, read.labels)
    for index in ([0, 72, 5], list(range(73))):
        for at, (found, label) in zip(index, lazy.train.__getitems__(index), strict=True):
            assert torch.equal(found, read.train[at][0])
            assert label == read.train[at][1]
    one, label = lazy.train[-1]
    assert torch.equal(one, read.train[72][0])
    assert label == 1
    with pytest.raises(IndexError):
        lazy.train[73]
    again = pickle.loads(pickle.dumps(lazy.train))
    assert torch.equal(again[4][0], read.train[4][0])
    assert len(list(torch.utils.data.DataLoader(lazy.train, batch_size=50))) == 2


def test_an_image_that_changes_under_way(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "IN_MEMORY", 1)
    lazy = folder.read(str(tree(tmp_path, a=1, b=1)))
    image(tmp_path / "a" / "0.png", size=(9, 9))
    with pytest.raises(ValueError, match=r"0.png: cannot be read .*it was 5x6, and is 9x9 now"):
        lazy.train[0]


def test_images_on_disk_are_standardised_to_the_same_numbers(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    tree(tmp_path, a=0, b=0)
    for at in range(600):
        Image.fromarray(rng.integers(0, 256, (4, 3, 3), dtype=np.uint8)).save(tmp_path / "ab"[at % 2] / f"{at}.png")
    read = data_sets.load(f"folder:{tmp_path}")
    monkeypatch.setattr(folder, "IN_MEMORY", 1)
    lazy = data_sets.load(f"folder:{tmp_path}")
    for part in ("train", "validation", "test"):
        found, expected = (next(iter(one.batches(getattr(one, part), 200))) for one in (lazy, read))
        torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-5)
        assert torch.equal(found[1], expected[1])
