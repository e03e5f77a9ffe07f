import os

import pytest

from analogsim.recipes.tasks.sources.class_folders import Kind, list_files
from analogsim.recipes.tasks.sources.parts import DataWarning

IMAGES = Kind("folder", "images", (".png", ".jpg"))
SOUNDS = Kind("audio", "wav files", (".wav",), lambda path: path.stem.partition("_")[0] if "_" in path.stem else None)


@pytest.fixture
def make(tmp_path):
    """Empty files under a folder, by their paths; a path that ends in a stroke is a folder."""

    def made(*paths):
        for path in paths:
            place = tmp_path / "data" / path
            (place if path.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
            if not path.endswith("/"):
                place.touch()
        return tmp_path / "data"

    (tmp_path / "data").mkdir()
    return made


def told(listing, root):
    return {
        part: [(str(file.relative_to(root)), listing.classes[label]) for file, label in zip(files, labels, strict=True)]
        for part, files in listing.files.items()
        if (labels := listing.labels[part].tolist()) is not None
    }


def test_class_folders(make):
    root = make("dog/1.png", "cat/b.png", "cat/a.JPG", "dog/deep/er/0.png")
    listing = list_files(root, IMAGES)
    assert listing.classes == ("cat", "dog")
    assert told(listing, root) == {
        "train": [("cat/a.JPG", "cat"), ("cat/b.png", "cat"), ("dog/1.png", "dog"), ("dog/deep/er/0.png", "dog")]
    }


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("Train", "val", "test"),
        ("train", "valid", "TEST"),
        ("training", "Validation", "testing"),
        ("train", "dev", "test"),
    ],
)
def test_split_folders(make, train, validation, test):
    root = make(
        f"{train}/cat/1.png", f"{train}/dog/1.png", f"{validation}/dog/2.png", f"{test}/cat/3.png", f"{test}/dog/"
    )
    listing = list_files(root, IMAGES)
    assert told(listing, root) == {
        "train": [(f"{train}/cat/1.png", "cat"), (f"{train}/dog/1.png", "dog")],
        "validation": [(f"{validation}/dog/2.png", "dog")],
        "test": [(f"{test}/cat/3.png", "cat")],
    }


def test_the_only_folder_is_entered(make):
    root = make("archive/set/train/cat/1.png", "archive/set/train/dog/1.png", "README.txt")
    assert list_files(root, IMAGES).classes == ("cat", "dog")


@pytest.mark.parametrize("names", [("train", "car", "plane"), ("test", "train", "valid", "x")])
def test_a_class_may_be_called_as_a_split(make, names):
    assert list_files(make(*(f"{name}/1.png" for name in names)), IMAGES).classes == tuple(sorted(names))


def test_classes_named_by_numbers(make):
    root = make(*(f"{number}/1.png" for number in (0, 2, 9, 10)))
    assert list_files(root, IMAGES).classes == ("0", "2", "9", "10")
    assert list_files(root, IMAGES, "text").classes == ("0", "10", "2", "9")
    with pytest.raises(ValueError, match="order must be 'numbers' or 'text', got 'names'"):
        list_files(root, IMAGES, "names")


def test_what_systems_leave_behind_is_passed_over(make):
    root = make(".DS_Store", "cat/1.png", "cat/._1.png", "cat/Thumbs.db", "dog/1.png", ".git/x/1.png", "__MACOSX/1.png")
    assert len(list_files(root, IMAGES).files["train"]) == 2


def test_other_files_are_left_out_with_a_warning(make):
    root = make("cat/1.png", "dog/1.png", "dog/notes.txt", "labels.csv")
    with pytest.warns(DataWarning, match=r"left out, as they are no images of a class: labels.csv, dog.notes.txt"):
        assert len(list_files(root, IMAGES).files["train"]) == 2
    root = make("train/cat/1.png", "train/dog/1.png", "extra/cat/1.png")
    with pytest.warns(DataWarning, match="extra"):
        list_files(root, IMAGES)


def test_links_are_followed_but_not_in_circles(make, tmp_path):
    root = make("cat/1.png", "dog/1.png")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "2.png").touch()
    try:
        os.symlink(tmp_path / "elsewhere", root / "horse", target_is_directory=True)
        os.symlink(root / "cat", root / "cat" / "again", target_is_directory=True)
        os.symlink(root, root / "cat" / "all", target_is_directory=True)  # or the dogs would be cats too
        os.symlink(tmp_path / "elsewhere" / "2.png", root / "dog" / "linked.png")
    except OSError:
        pytest.skip("this system makes no links")
    listing = list_files(root, IMAGES)
    assert listing.classes == ("cat", "dog", "horse")
    assert [len([x for x in listing.labels["train"] if x == at]) for at in range(3)] == [1, 2, 1]


def test_a_class_that_the_test_part_lacks_is_no_fault(make):
    listing = list_files(make("train/cat/1.png", "train/dog/1.png", "test/dog/1.png"), IMAGES)
    assert listing.labels["test"].tolist() == [1]


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        ((), "no images found"),
        (("cat/", "dog/"), "no images found"),
        (("notes.txt",), "no images found"),
        (("cat/1.png", "dog/"), "no images of class dog to train on; fill the folder, or take it away"),
        (("cat/1.png",), "data: has images in no class folder|one class only"),
        (("1.png", "2.png"), r"has images in no class folder, such as 1.png"),
        (("train/cat/1.png",), "one class only, 'cat'"),
        (("train/1.png", "test/1.png"), r"train: has images in no class folder"),
        (("train/cat/1.png", "train/dog/1.png", "test/1.png"), "test: has images in no class folder"),
        (
            ("train/cat/1.png", "train/dog/1.png", "test/Cat/1.png"),
            r"'Cat', which the train part lacks; did you .*'cat'",
        ),
        (("train/cat/1.png", "train/dog/1.png", "val/emu/1.png"), "val: has class 'emu', which .* it has cat, dog"),
        (("train/cat/1.png", "train/dog/1.png", "test/cat/"), "test: has no images; fill it, or take the folder away"),
        (("train/a/1.png", "train/b/1.png", "val/a/1.png", "valid/a/1.png"), "val and valid are both the validation"),
        (("test/a/1.png", "test/b/1.png", "val/a/1.png"), "there is test, val but no folder train"),
    ],
)
def test_layouts_that_will_not_do(make, paths, why):
    with pytest.raises(ValueError, match=why) as error:
        list_files(make(*paths), IMAGES)
    assert "\n" not in str(error.value)


def test_names_of_files_tell_the_class(make):
    root = make("7_a_0.wav", "3_a_0.wav", "7_b_0.WAV")
    listing = list_files(root, SOUNDS)
    assert told(listing, root) == {"train": [("3_a_0.wav", "3"), ("7_a_0.wav", "7"), ("7_b_0.WAV", "7")]}
    assert listing.flat


def test_names_of_files_in_split_folders(make):
    root = make("train/7_a.wav", "train/3_a.wav", "test/3_b.wav")
    listing = list_files(root, SOUNDS)
    assert listing.labels["test"].tolist() == [0]
    with pytest.warns(DataWarning, match="noise.wav"):
        list_files(make("train/noise.wav"), SOUNDS)


def test_class_folders_come_before_names(make):
    listing = list_files(make("yes/7_a.wav", "no/3_a.wav"), SOUNDS)
    assert listing.classes == ("no", "yes")
    assert not listing.flat
