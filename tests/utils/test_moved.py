from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import analogsim
from analogsim.utils.moved import LEADING_ON, LINKED, MOVED, Signpost, find_parts, put_signposts


@pytest.mark.parametrize(
    ("path", "name", "now"),
    [
        ("analogsim.registry", "register", analogsim.register),
        ("analogsim.registry", "as_device_model", analogsim.as_device_model),
        ("analogsim.registry", "available_devices", analogsim.available_devices),
        ("analogsim.times", "seconds", analogsim.seconds),
        ("analogsim.inplace", "clamp_own", importlib.import_module("analogsim.utils.tensors").clamp_own),
        ("analogsim.layout", "Layout", analogsim.device.Layout),
    ],
)
def test_what_devices_were_written_with_leads_on(path: str, name: str, now: object) -> None:
    assert getattr(importlib.import_module(path), name) is now


@pytest.mark.parametrize("old", MOVED)
def test_other_paths_say_where_to_look(old: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=rf"analogsim\.{old}.*is in analogsim\.{MOVED[old]} now") as caught:
        importlib.import_module(f"analogsim.{old}")
    assert caught.value.name == f"analogsim.{old}"
    for place in MOVED[old].split(" and "):
        importlib.import_module(f"analogsim.{place.removeprefix('analogsim.')}")


@pytest.mark.parametrize("name", ["analogsim.nowhere", "wires", "another.analogsim.wires"])
def test_nothing_else_is_said_to_have_moved(name: str) -> None:
    assert Signpost().find_spec(name) is None


def test_there_is_one_signpost_and_the_modules_are_themselves() -> None:
    put_signposts()
    assert sum(isinstance(finder, Signpost) for finder in sys.meta_path) == 1
    for old, new in LEADING_ON.items():
        assert sys.modules[old] is sys.modules[new]
        assert sys.modules[new].__name__ == new


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A checkout of nothing but the folders that links lead to, and without the links."""
    for name in ("analogsim", *LINKED):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    return tmp_path / "analogsim"


def test_parts_are_found_where_the_links_are_lost(package: Path) -> None:
    assert find_parts(package) == [str(package.parent)]
    for name in LINKED:  # as git writes them for core.symlinks=false
        (package / name).write_text(f"../{name}")
    assert find_parts(package) == [str(package.parent)]


def test_nowhere_else_is_looked_where_the_parts_are_in_place(package: Path) -> None:
    for name in LINKED:
        shutil.copytree(package.parent / name, package / name)
    assert find_parts(package) == []
    assert find_parts(Path(analogsim.__file__).parent) == []


def test_a_part_that_is_in_neither_place_is_told_at_once(package: Path) -> None:
    shutil.rmtree(package.parent / "recipes")
    with pytest.raises(ImportError, match=r"lacks its recipes, which in a checkout lie beside it.*pip install \.$"):
        find_parts(package)


def test_a_checkout_without_links_runs(tmp_path: Path) -> None:
    place = Path(analogsim.__file__).resolve().parent
    shutil.copytree(place, tmp_path / "analogsim", ignore=shutil.ignore_patterns("__pycache__", *LINKED))
    for name in LINKED:
        shutil.copytree(place / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        (tmp_path / "analogsim" / name).write_text(f"../{name}")
    code = (
        "import analogsim.recipes.cli as c, pickle; c.main(['devices', 'pcm']); print(pickle.dumps(analogsim.Drift()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", f"import analogsim; {code}; print(analogsim.devices.__file__)"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "analogsim.devices.drift" in done.stdout  # one class, whatever way it was found
    assert done.stdout.splitlines()[-1] == str(tmp_path / "devices" / "__init__.py")
