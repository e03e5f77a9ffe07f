from __future__ import annotations

import importlib
import sys

import pytest

import analogsim
from analogsim.utils.moved import LEADING_ON, MOVED, Signpost, put_signposts


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
