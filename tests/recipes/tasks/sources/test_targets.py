import warnings

import numpy as np
import pytest
import torch

from analogsim.recipes.tasks.sources.parts import DataWarning
from analogsim.recipes.tasks.sources.targets import read_targets


def targets(train, test=None, **options):
    arrays = {"y_train": np.asarray(train)}
    return read_targets(arrays if test is None else {**arrays, "y_test": np.asarray(test)}, **options)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int64", "uint64"])
def test_whole_numbers_are_classes(dtype):
    found = targets(np.array([2, 0, 1, 1, 0, 2], dtype=dtype), np.array([1], dtype=dtype))
    assert found.task == "classification"
    assert found.facts == {"classes": 3, "outputs": 3, "class_names": ("0", "1", "2")}
    assert found.parts["y_train"].dtype == torch.int64
    assert found.parts["y_train"].tolist() == [2, 0, 1, 1, 0, 2]
    assert found.parts["y_test"].tolist() == [1]


def test_a_column_is_a_vector():
    assert targets([[0], [1], [1], [0]]).parts["y_train"].tolist() == [0, 1, 1, 0]


def test_a_small_gap_is_a_class_that_is_rare():
    found = targets([0, 1, 3, 0, 1, 3, 3, 3])
    assert found.facts["classes"] == 4
    assert found.parts["y_train"].tolist() == [0, 1, 3, 0, 1, 3, 3, 3]


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        ([1, 2, 3, 1, 2, 3], [0, 1, 2, 0, 1, 2], ("1", "2", "3")),
        ([-1, 1, 1, -1], [0, 1, 1, 0], ("-1", "1")),
        ([0, 100, 200, 0, 100, 200], [0, 1, 2, 0, 1, 2], ("0", "100", "200")),
        ([7, 5, 5, 7], [1, 0, 0, 1], ("5", "7")),
    ],
)
def test_other_labels_are_numbered_and_it_is_said(labels, numbers, names):
    with pytest.warns(DataWarning, match=rf"has the labels {names[0]}, .* the classes 0 to {len(names) - 1} in their"):
        found = targets(labels, labels[:2])
    assert found.parts["y_train"].tolist() == numbers
    assert found.parts["y_test"].tolist() == numbers[:2]
    assert found.facts["class_names"] == names


def test_class_numbers_that_are_said_to_be_such():
    found = targets([1, 2, 3, 1], [0, 9], classes=10)
    assert found.parts["y_train"].tolist() == [1, 2, 3, 1]
    assert found.parts["y_test"].tolist() == [0, 9]
    assert found.facts["classes"] == 10
    with pytest.raises(ValueError, match="y_test has the label 10, which is none of the classes 0 to 9"):
        targets([1, 2, 3, 1], [0, 10], classes=10)


def test_text_and_bools_are_classes():
    found = targets(["dog", "cat", "dog"], ["cat"])
    assert found.facts["class_names"] == ("cat", "dog")
    assert found.parts["y_train"].tolist() == [1, 0, 1]
    assert found.parts["y_test"].tolist() == [0]
    assert targets(np.array([b"10", b"9", b"9"])).facts["class_names"] == ("9", "10")
    assert targets([True, False, True]).parts["y_train"].tolist() == [1, 0, 1]


def test_floats_are_numbers():
    found = targets([0.5, 1.0, -3.0], [2.0])
    assert (found.task, found.facts) == ("regression", {"outputs": 1})
    assert found.parts["y_train"].dtype == torch.float32
    assert found.parts["y_train"].tolist() == [0.5, 1.0, -3.0]
    assert targets(np.ones((4, 3)) * 0.5).facts == {"outputs": 3}
    assert targets([151.0, 75.0, 141.0, 206.0]).task == "regression"  # whole, but no numbers of classes
    assert targets([3.0, 4.0, 5.0, 3.0, 4.0, 5.0]).task == "regression"


@pytest.mark.parametrize(("labels", "numbers"), [([0.0, 1, 2, 1, 0, 2], [0, 1, 2, 1, 0, 2]), ([-1.0, 1, 1], [0, 1, 1])])
def test_floats_that_are_classes(labels, numbers):
    with pytest.warns(DataWarning, match="taken as (the )?classes.*task='regression'"):
        found = targets(labels)
    assert found.task == "classification"
    assert found.parts["y_train"].tolist() == numbers
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert targets(labels, task="regression").parts["y_train"].tolist() == labels
    assert targets([0.0, 1.0, 0.0, 1.0], [0.5]).task == "regression"  # the test part tells


def test_matrices_of_zeros_and_ones():
    found = targets([[1, 1, 0], [0, 0, 0]], [[1, 0, 0]])
    assert (found.task, found.facts) == ("multi-label", {"outputs": 3})
    assert found.parts["y_train"].dtype == torch.float32
    one_hot = [[0, 1, 0], [1, 0, 0], [0, 0, 1]]
    found = targets(one_hot)
    assert found.task == "classification"
    assert found.parts["y_train"].tolist() == [1, 0, 2]
    assert targets(one_hot, [[1, 1, 0]]).task == "multi-label"
    assert targets(one_hot, task="multi-label").task == "multi-label"
    assert targets(np.array([[1.0, 0.0], [1.0, 1.0]])).task == "multi-label"


def test_numbers_that_could_be_either():
    ages = [31, 45, 27, 88, 52, 61]
    with pytest.raises(
        ValueError, match="6 distinct whole numbers in 6 samples; say task='classification' or task='reg"
    ):
        targets(ages)
    assert targets(ages, task="regression").parts["y_train"].tolist() == ages


@pytest.mark.parametrize(
    ("train", "test", "options", "why"),
    [
        ([0.0, float("nan")], None, {}, "1 values that are NaN or infinite"),
        ([0, 1, 0, 1], [2], {}, "y_test has the label 2, which is none of those of y_train"),
        (["a", "b"], ["c"], {}, "y_test has the label 'c'"),
        ([3, 3], None, {}, "one class only, 3"),
        ([1 + 2j, 3], None, {}, "has the type complex128"),
        (5, None, {}, r"has the shape \(\)"),
        (np.zeros((2, 2, 2)), None, {}, r"has the shape \(2, 2, 2\)"),
        ([[1, 5], [2, 3]], None, {}, "a matrix of whole numbers, but not of zeros and ones"),
        ([["a", "b"]], None, {}, "a matrix of text"),
        ([0, 1], [[0, 1]], {}, r"y_test has targets of shape \(2,\), y_train of \(\)"),
        (["a", "b"], None, {"task": "regression"}, "is text"),
        ([0, 1], None, {"task": "multi-label"}, "must be a matrix"),
        ([[1, 1], [0, 1]], None, {"task": "classification"}, "not one 1 in each row"),
        ([0.5, 1.5], None, {"task": "classification"}, "classes that are no whole numbers, such as 0.5"),
        ([1e300, 1.5], None, {}, "beyond what float32 holds"),
        ([0, 1], None, {"task": "regression", "classes": 3}, "classes=3 goes with task='classification'"),
    ],
)
def test_what_is_refused(train, test, options, why):
    with pytest.raises(ValueError, match=why), np.errstate(over="ignore"):
        targets(train, test, **options)
