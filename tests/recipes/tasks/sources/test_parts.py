import pytest

from analogsim.recipes.tasks.sources.parts import class_order, first_few, is_whole


def test_numbers_are_sorted_as_numbers_unless_asked_otherwise():
    names = ["10", "9", "2", "0"]
    assert class_order(names) == ["0", "2", "9", "10"]
    assert class_order(names, "text") == ["0", "10", "2", "9"]
    assert class_order(["b", "10", "9"]) == ["10", "9", "b"]  # one that is none: all as text
    assert class_order(["-1", "1", "007"]) == ["-1", "1", "007"]


@pytest.mark.parametrize(("name", "whole"), [("7", True), ("-12", True), ("1.5", False), ("", False), ("٣", False)])
def test_whole_numbers(name, whole):
    assert is_whole(name) is whole


def test_a_few_of_many():
    assert first_few([1, 2, 3]) == "1, 2, 3"
    assert first_few([1, 2, 3, 4], 2) == "1, 2 and 2 more"
