from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analogsim.recipes.tasks.references import call_factory, is_reference, load_object, named, refuse_unnamed, short

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def modules_as_they_were() -> Any:
    """What a test imports is gone after it."""
    known, places = dict(sys.modules), list(sys.path)
    yield
    for name in sys.modules.keys() - known.keys():
        del sys.modules[name]
    sys.path[:] = places


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def file(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return file


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("nets.py:build", True),
        ("/a b/my.nets.py:Net", True),
        ("package.module:factory", True),
        ("package.module:Holder.factory", True),
        ("C:\\nets\\mine.py:build", True),
        ("digits", False),
        ("nets.py", False),
        ("nets.py:", False),
        (":build", False),
        ("folder:/data/images", False),
        ("nets.py:build()", False),
        ("http://host:80", False),
        (None, False),
    ],
)
def test_what_names_code(text: Any, is_one: bool) -> None:
    assert is_reference(text) == is_one


def test_a_file_finds_its_neighbours_from_any_directory(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("project/reftest_helper.py", "VALUE = 41")
    write("project/reftest_net.py", "def build():\n    import reftest_late\n    return reftest_late.VALUE\n")
    write("project/reftest_late.py", "from reftest_helper import VALUE")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    before = sys.path[:1]
    assert call_factory(load_object("../project/reftest_net.py:build", "model"), "model", {}) == 41
    assert sys.path[:1] == before  # what is found there later stands behind all else
    with pytest.raises(FileNotFoundError, match=r"model: no file 'reftest_net.py' \(in .*elsewhere\); give the path"):
        load_object("reftest_net.py:build", "model")


def test_a_module_of_the_working_directory(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("refpackage/__init__.py", "")
    write("refpackage/nets.py", "class Holder:\n    @staticmethod\n    def build():\n        return 7\n")
    monkeypatch.chdir(tmp_path)
    assert load_object("refpackage.nets:Holder.build", "model")() == 7
    with pytest.raises(ImportError, match=r"model: there is no module 'refpackage.other', neither installed nor in"):
        load_object("refpackage.other:build", "model")


def test_a_file_is_one_module_until_it_changes(write: Write) -> None:
    path = write("reftest_once.py", "class Net: pass")
    first = load_object(f"{path}:Net", "model")
    assert load_object(f"{path}:Net", "model") is first
    write("reftest_once.py", "class Net:\n    new = True")
    assert load_object(f"{path}:Net", "model").new


def test_two_files_of_one_name_and_their_neighbours(write: Write) -> None:
    for folder in ("one", "two"):
        write(f"{folder}/reftest_utils.py", f"WHERE = {folder!r}")
        write(f"{folder}/reftest_same.py", "from reftest_utils import WHERE\nclass Net: where = WHERE")
    one, two = (
        load_object(f"{write('one/x', '').parent.parent / at}/reftest_same.py:Net", "model") for at in ("one", "two")
    )
    assert (one.where, two.where) == ("one", "two")
    assert one.__module__ != two.__module__


def test_what_is_defined_in_a_file_pickles(write: Write) -> None:
    path = write("reftest_pickled.py", "from dataclasses import dataclass\n@dataclass\nclass Net:\n    size: int = 3\n")
    content = pickle.dumps(load_object(f"{path}:Net", "model")(5))
    assert pickle.loads(content).size == 5
    # as a spawned process does, which is given sys.path
    script = f"import sys, pickle; sys.path[:] = {sys.path!r}; print(pickle.loads({content!r}).size)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["5"]


def test_a_file_named_as_a_library_does_not_hide_it(write: Write) -> None:
    path = write("json.py", "def build(): return 'mine'")
    assert load_object(f"{path}:build", "model")() == "mine"
    import json

    assert json.loads("1") == 1


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            "import nothing_of_this_name",
            r"importing .*refbad.py raised ModuleNotFoundError in .*line 1: No module named",
        ),
        ("def broken(:", "raised SyntaxError"),
        ("1 / 0", "raised ZeroDivisionError in .*refbad.py, line 1: division by zero; analogsim --debug"),
        ("import sys\nsys.exit(3)", "raised SystemExit"),
    ],
)
def test_an_import_that_fails_says_so_in_a_line_and_keeps_the_error(write: Write, source: str, words: str) -> None:
    path = write("refbad.py", source)
    with pytest.raises(ValueError, match=words) as told:
        load_object(f"{path}:build", "model")
    assert "\n" not in str(told.value)
    assert told.value.__cause__ is not None
    assert "refbad" not in sys.modules


def test_a_module_that_lacks_another_one_is_not_said_to_be_missing(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("refneeds.py", "import nothing_of_this_name")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="importing refneeds raised ModuleNotFoundError"):
        load_object("refneeds:build", "model")


def test_a_name_that_is_not_there(write: Write) -> None:
    path = write("reftest_names.py", "import os\ndef build(): ...\nclass Net: ...")
    with pytest.raises(ImportError, match=r"has no 'biuld'; did you mean 'build'\? it has build, Net$"):
        load_object(f"{path}:biuld", "model")
    with pytest.raises(ValueError, match=r"names no code; write .*name, such as .*reftest_names.py:build$"):
        load_object(str(path), "model")


def test_a_factory_gets_what_it_names() -> None:
    def build(shape: Any, *, classes: int, width: int = 8, dropout: float = 0.0, **rest: Any) -> Any:
        return shape, classes, width, dropout, rest

    facts = {"shape": (1, 2, 3), "classes": 10, "width": None, "vocabulary": 5}
    assert call_factory(build, "model", facts) == ((1, 2, 3), 10, 8, 0.0, {})
    assert call_factory(dict, "model", facts) == {}
    with pytest.raises(TypeError, match=r"model: .*build asks for shape; known here: classes. Give other parameters"):
        call_factory(build, "model", {"classes": 3})
    with pytest.raises(TypeError, match="data: builtins:int must be a function or a class, got int"):
        call_factory(3, "data", {})


def test_what_a_factory_raises_is_told_and_kept() -> None:
    def build() -> None:
        raise KeyError("no such size")

    with pytest.raises(
        ValueError, match=r"model: .*build raised KeyError in .*test_references.py, line \d+: 'no such"
    ) as told:
        call_factory(build, "model", {})
    assert isinstance(told.value.__cause__, KeyError)


def test_names_for_people() -> None:
    assert named("nets.py:build") == "nets.py:build"
    assert named(Path) == f"{Path.__module__}:Path"
    assert named(Path()).endswith("Path")
    assert (short("my/nets.py:build"), short("digits"), short("folder:/a/pictures")) == (
        "nets-build",
        "digits",
        "folder-pictures",
    )


def test_stored_code_is_refused_with_the_command_to_type() -> None:
    refuse_unnamed({"model": "lenet5", "task": None}, "analogsim evaluate run", "the run")
    stored = {"model": "nets.py:build", "data": "digits", "task": "tasks.py:Mine"}
    with pytest.raises(ValueError, match="only run when you name it yourself") as told:
        refuse_unnamed(stored, "analogsim evaluate run", "'run'")
    assert "analogsim evaluate run --model nets.py:build --task tasks.py:Mine (or --trust" in str(told.value)


def test_a_factory_may_take_what_it_needs_by_place_alone() -> None:
    def placed(classes: int, width: int = 8, /, *others: int, shape: int, **more: int) -> tuple[Any, ...]:
        return classes, width, others, shape, more

    assert call_factory(placed, "model", {"classes": 3, "shape": 2, "outputs": 3}) == (3, 8, (), 2, {})
    with pytest.raises(TypeError, match="asks for classes, shape; known here: nothing"):
        call_factory(placed, "model", {})


def test_a_factory_that_is_async_is_refused_without_a_warning() -> None:
    async def build() -> int:
        return 3

    with pytest.raises(TypeError, match=r"build is async, and nobody waits for what it gives; write def"):
        call_factory(build, "model", {})


def test_a_file_that_is_no_python_is_told_by_its_line(write: Write) -> None:
    path = write("reftest_syntax.py", "a = 1\ndef f(:\n")
    with pytest.raises(ValueError, match=r"raised SyntaxError in .*reftest_syntax\.py, line 2: invalid syntax;"):
        load_object(f"{path}:f", "model")
