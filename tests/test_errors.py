"""Each error: one of ours, one of Python's besides, and the same after a way through pickle."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
import runpy
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

import analogsim
from analogsim import errors

ROOT = Path(__file__).resolve().parents[1]
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


def test_the_page_of_errors_is_of_these_classes() -> None:
    if not (ROOT / "docs").is_dir():  # the tests of an installed wheel, away from the checkout
        pytest.skip("not in a checkout")
    made = runpy.run_path(str(ROOT / "docs" / "make_errors.py"))
    page = made["page"]()
    assert page == (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"), "python docs/make_errors.py makes it anew"
    named = {kind.__name__ for kind in made["classes"]()}
    assert {kind.__name__ for kind in CLASSES} <= named
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) == len(named) - 1, "all but AnalogsimError"
    for row in rows:
        assert all(cell.strip() for cell in row.split(" | ")), f"cause and cure are missing: {row}"


def test_the_page_has_every_class_of_ours() -> None:
    """Wherever it stands."""
    if not (ROOT / "docs").is_dir():
        pytest.skip("not in a checkout")
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    kinds = {*(kind.__name__ for kind in CLASSES), "AnalogsimError", "UserWarning"}
    for file in (*ROOT.glob("analogsim/**/*.py"), *ROOT.glob("recipes/**/*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and {getattr(base, "id", "") for base in node.bases} & kinds:
                assert f"| `{node.name}` |" in page, f"{file}: {node.name}: add its module to docs/make_errors.py"
