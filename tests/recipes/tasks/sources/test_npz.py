import pickle
import warnings

import numpy as np
import pytest
import torch

from analogsim.recipes.tasks import data_sets
from analogsim.recipes.tasks.sources import npz
from analogsim.recipes.tasks.sources.parts import DataWarning

LABELS = np.array([0, 1, 0, 1])


@pytest.fixture
def save(tmp_path):
    def saved(**arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        return str(tmp_path / "data.npz")

    return saved


def with_inputs(save, x, y=LABELS, **more):
    return save(x_train=x, y_train=y, **more)


def numbered(shape, dtype="uint8"):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@pytest.mark.parametrize("called", ["x_valid", "x_validation", "X_dev", "valid_x", "val_images"])
def test_no_array_of_a_part_is_lost(save, called):
    x = numbered((4, 2), "float64")
    target = called.replace("x", "y").replace("X", "Y").replace("images", "labels")
    more = {called: x[:2], target: LABELS[:2]}
    parts = npz.read(save(train_x=x, train_y=LABELS, test_x=x[:3], test_y=LABELS[:3], **more))
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [4, 2, 3]


def test_arrays_of_no_part_are_told(save):
    x = numbered((4, 2), "float64")
    with pytest.warns(DataWarning, match="left out, as they are called as no part: x_holdout, mean"):
        npz.read(with_inputs(save, x, x_holdout=x, mean=x[0]))
    with pytest.raises(ValueError, match="names differ in capital letters alone"):
        npz.read(save(x=x, X=x, y=LABELS))


def test_all_parts(save):
    x = numbered((4, 2), "float64")
    parts = npz.read(save(x_train=x, y_train=LABELS, x_val=x[:1], y_val=LABELS[:1], x_test=x[:3], y_test=LABELS[:3]))
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [4, 1, 3]
    assert parts.facts == {"shape": (2,), "classes": 2, "outputs": 2, "class_names": ("0", "1")}
    assert parts.task == "classification"
    assert parts.labels.tolist() == LABELS.tolist()
    assert parts.train[1][0].dtype == torch.float32
    assert parts.train[1][0].tolist() == [2, 3]


@pytest.mark.parametrize("names", [("X_train", "Y_train"), ("train_images", "train_labels"), ("x", "y")])
def test_other_spellings(save, names):
    parts = npz.read(save(**dict(zip(names, (numbered((4, 3, 3)), LABELS), strict=True))))
    assert (len(parts.train), parts.validation, parts.test) == (4, None, None)


@pytest.mark.parametrize(
    ("shape", "options", "found"),
    [
        ((4, 5, 6), "", (1, 5, 6)),
        ((4, 3, 5, 6), "", (3, 5, 6)),
        ((4, 5, 6, 3), "", (3, 5, 6)),
        ((4, 5, 6, 1), "", (1, 5, 6)),
        ((4, 3, 5, 3), "(layout='CHW')", (3, 5, 3)),
        ((4, 3, 5, 3), "(layout='HWC')", (3, 3, 5)),
        ((4, 13, 5, 6), "(layout='CHW')", (13, 5, 6)),
    ],
)
def test_images_of_bytes(save, shape, options, found):
    x = numbered(shape)
    parts = npz.read(with_inputs(save, x) + options)
    assert parts.facts["shape"] == found
    assert parts.train.tensors[0].dtype == torch.uint8
    assert parts.train.tensors[0].is_contiguous()
    channels_last = found != shape[1:] and len(shape) == 4
    expected = x.reshape(4, *shape[1:]) if not channels_last else x.transpose(0, 3, 1, 2)
    assert np.array_equal(parts.train.tensors[0].numpy(), expected.reshape(4, *found))


def test_images_of_floats(save):
    x = numbered((4, 5, 6, 3), "float32") / 360
    parts = npz.read(with_inputs(save, x))
    assert parts.facts["shape"] == (3, 5, 6)
    assert np.array_equal(parts.train.tensors[0].numpy(), x.transpose(0, 3, 1, 2))
    assert npz.read(with_inputs(save, x[..., 0])).facts["shape"] == (5, 6)  # could be 5 steps of 6 values
    assert npz.read(with_inputs(save, x[..., 0]) + "(layout='HW')").facts["shape"] == (1, 5, 6)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "float64", "bool", ">f4"])
def test_features(save, dtype):
    parts = npz.read(with_inputs(save, numbered((4, 6), dtype)))
    assert parts.train.tensors[0].dtype == torch.float32
    assert np.array_equal(parts.train.tensors[0].numpy(), numbered((4, 6), dtype).astype("float32"))


def test_regression_and_several_labels(save):
    x = numbered((4, 6), "float32")
    parts = npz.read(with_inputs(save, x, np.array([0.5, 1.5, 2, 3])))
    assert (parts.task, parts.labels, parts.facts["outputs"]) == ("regression", None, 1)
    parts = npz.read(with_inputs(save, x, np.array([[1, 1], [0, 0], [0, 1], [1, 1]])))
    assert (parts.task, parts.labels, parts.facts["outputs"]) == ("multi-label", None, 2)
    assert npz.read(with_inputs(save, x) + "(task='regression')").task == "regression"
    assert npz.read(with_inputs(save, x) + "(classes=10)").facts["classes"] == 10


def test_a_task_that_was_said_elsewhere(save):
    name = "npz:" + with_inputs(save, numbered((60, 6)), np.arange(60) + 3)
    data = data_sets.load(name, task="regression")
    assert (data.task.name, data.facts["outputs"]) == ("regression", 1)
    assert data.train.tensors[1].dtype == torch.float32
    with pytest.raises(ValueError, match="60 distinct whole numbers in 60 samples"):
        data_sets.load(name)


def test_labels_from_one_on_are_said_to_be_numbered(save):
    with pytest.warns(DataWarning, match="npz: y_train has the labels 1, 2"):
        parts = npz.read(with_inputs(save, numbered((4, 6)), LABELS + 1))
    assert parts.labels.tolist() == LABELS.tolist()


def test_words_by_their_numbers(save):
    x = numbered((4, 6), "int32")
    parts = npz.read(with_inputs(save, x) + "(tokens=True)")
    assert parts.train[0][0].dtype == torch.int64
    assert (parts.task, parts.facts["vocabulary"], parts.facts["scaled"]) == ("classification", 24, True)
    y = (x % 5).astype("int64")
    y[0, 0] = -100
    parts = npz.read(with_inputs(save, x, y, x_test=x[:2], y_test=y[:2]))
    assert (parts.task, parts.facts["classes"], parts.facts["vocabulary"]) == ("language-modelling", 5, 24)
    assert parts.test[0][1].tolist() == y[0].tolist()


def test_compressed(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x_train=numbered((4, 6)), y_train=LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(npz.read(str(tmp_path / "a.npz")).train) == 4


X = numbered((4, 6), "float32")
NAN = np.where(np.arange(24).reshape(4, 6) == 9, np.nan, X)


@pytest.mark.parametrize(
    ("arrays", "options", "why"),
    [
        ({"x_train": X}, "", r"there is no y_train; it holds x_train \(4, 6\)\. Needed are x_train and y_train"),
        ({"images": X, "labels": LABELS}, "", r"no x_train; it holds images \(4, 6\), labels \(4,\)"),
        ({"x_train": X, "y_train": LABELS, "x_test": X}, "", "there is no y_test"),
        ({}, "", "no x_train; it holds nothing"),
        ({"x_train": X, "y_train": LABELS[:3]}, "", r"x_train \(4, 6\) and y_train \(3,\) must have as many samples"),
        ({"x_train": X[:0], "y_train": LABELS[:0]}, "", "as many samples, one or more"),
        ({"x_train": np.float32(3), "y_train": LABELS}, "", "as many samples"),
        ({"x_train": NAN, "y_train": LABELS}, "", r"x_train has 1 values that are NaN.* the first at \(1, 3\)"),
        ({"x_train": X.astype("f8") * 1e300, "y_train": LABELS}, "", "beyond float32"),
        ({"x_train": X.astype(str), "y_train": LABELS}, "", "x_train has the type <U"),
        ({"x_train": X + 1j, "y_train": LABELS}, "", "x_train has the type complex64"),
        ({"x_train": LABELS, "y_train": LABELS}, "", r"samples of shape \(\)"),
        (
            {"x_train": X, "y_train": LABELS, "x_test": X[:, :5], "y_test": LABELS},
            "",
            r"x_test has samples of shape \(5,",
        ),
        (
            {"x_train": X.astype("u1"), "y_train": LABELS, "x_test": X, "y_test": LABELS},
            "",
            "x_test is float32, x_train uint8: bytes in one only",
        ),
        ({"x_train": X, "y_train": LABELS, "x_test": X, "y_test": LABELS + 1}, "", "y_test has the label 2"),
        ({"x_train": numbered((4, 3, 9, 3)), "y_train": LABELS}, "", "say layout='HWC' or layout='CHW'"),
        ({"x_train": numbered((4, 9, 9, 9)), "y_train": LABELS}, "", "channels cannot be told"),
        ({"x_train": X, "y_train": LABELS}, "(layout='HW')", "does not go with layout='HW'"),
        ({"x_train": X, "y_train": LABELS}, "(layout='WH')", "layout must be 'HWC' or 'CHW' or 'HW', got 'WH'"),
        ({"x_train": X, "y_train": LABELS}, "(task='ranking')", "task must be 'classification' or .*, got 'ranking'"),
        ({"x_train": X, "y_train": LABELS}, "(classes=1)", "classes must be a whole number >= 2"),
        ({"x_train": X, "y_train": LABELS}, "(tokens=1)", "tokens must be True or False, got 1"),
        ({"x_train": X, "y_train": LABELS}, "(tokens=True)", "whole numbers from 0 on for tokens=True, got float32"),
        (
            {"x_train": LABELS[:, None] - 1, "y_train": LABELS[:, None] - 3},
            "",
            "y_train has -3; targets are >= 0, or -100",
        ),
    ],
)
def test_arrays_that_will_not_do(save, arrays, options, why):
    with pytest.raises(ValueError, match=why) as error:
        npz.read(save(**arrays) + options)
    assert "\n" not in str(error.value)


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("code of the file was run",))


@pytest.mark.parametrize("kind", ["array", "pickle"])
def test_objects_are_never_read(tmp_path, kind):
    path = tmp_path / "data.npz"
    if kind == "array":
        np.savez(path, x_train=np.array([Harmful()] * 4, dtype=object), y_train=LABELS)
    else:
        path.write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(ValueError, match=r"data.npz: cannot be read: .*Python objects, which are never read"):
        npz.read(str(path))


def test_files_that_are_no_npz(tmp_path):
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(ValueError, match=r"it is one array, not several; save them by numpy.savez"):
        npz.read(str(tmp_path / "one.npy"))
    np.savez(tmp_path / "cut.npz", x_train=X, y_train=LABELS)
    content = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[:-40])
    with pytest.raises(ValueError, match=r"cut.npz: cannot be read: "):
        npz.read(str(tmp_path / "cut.npz"))
    (tmp_path / "cut.npz").write_bytes(content.replace(X.tobytes(), X.tobytes()[::-1]))  # a checksum that fails
    with pytest.raises(ValueError, match="cannot be read: Bad CRC-32"):
        npz.read(str(tmp_path / "cut.npz"))
    (tmp_path / "empty.npz").touch()
    with pytest.raises(ValueError, match=r"empty.npz: cannot be read: "):
        npz.read(str(tmp_path / "empty.npz"))
    with pytest.raises(FileNotFoundError, match=r"no such file; did you mean 'empty.npz'\?"):
        npz.read(str(tmp_path / "empt.npz"))
