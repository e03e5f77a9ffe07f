"""Each error: one of ours, one of Python's besides, and the same after a way through pickle."""

from __future__ import annotations

import copy
import inspect
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

import analogsim
from analogsim import errors

CLASSES = [
    one
    for _, one in inspect.getmembers(errors, inspect.isclass)
    if issubclass(one, errors.AnalogsimError) and one is not errors.AnalogsimError
]


def raise_one(text: str) -> None:
    raise errors.InvalidValueError(text)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_it_is_one_of_pythons_besides(kind: type[errors.AnalogsimError]) -> None:
    assert [one for one in kind.__mro__ if one.__module__ == "builtins"][:-3], "no built-in type but Exception"
    assert (kind.__doc__ or "").strip().endswith(".")


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("way", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy], ids=["pickle", "copy"])
def test_it_goes_through_pickle(kind: type[errors.AnalogsimError], way: object) -> None:
    error = kind("std: must be >= 0, got -1")
    error.add_note("layer 'a'")
    again = way(error)  # type: ignore[operator]
    assert type(again) is kind
    assert str(again) == "std: must be >= 0, got -1"
    assert again.__notes__ == ["layer 'a'"]


def test_a_worker_sends_it() -> None:
    with (
        ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool,
        pytest.raises(analogsim.AnalogsimError) as told,
    ):
        pool.submit(raise_one, "std: got -1").result()
    assert type(told.value) is errors.InvalidValueError
    assert str(told.value) == "std: got -1"


def test_what_is_missing_stands_there_without_quotes() -> None:
    assert str(errors.MissingKeyError("no parameter 'a'")) == "no parameter 'a'"


def test_what_was_caught_before_is_caught() -> None:
    with pytest.raises(ValueError, match="std"):
        analogsim.Gaussian(std=-1)
    with pytest.raises(TypeError, match="std"):
        analogsim.Gaussian(std="a")
    with pytest.raises(analogsim.AnalogsimError, match="std"):
        analogsim.Gaussian(std=-1)
