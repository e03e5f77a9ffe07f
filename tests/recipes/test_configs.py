from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import analogsim.recipes
from analogsim.device.parse import as_device_model
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.ready import ready_file
from analogsim.recipes.config.toml import load_toml
from analogsim.recipes.tasks import data_sets, networks
from analogsim.recipes.training.setup import check

FOLDER = Path(analogsim.recipes.__file__).parent / "configs"
FILES = sorted(FOLDER.rglob("*"))
_TEXT = {"shape": (64,), "vocabulary": 65, "outputs": 65}
FACTS = {
    **{name: {"shape": shape, "outputs": classes} for name, (shape, classes) in data_sets.SHAPES.items()},
    "text:tiny-shakespeare.txt(context=64)": _TEXT,
    "analogsim.recipes.tasks.tagging:capitals": {**_TEXT, "outputs": 2},
    "audio:spoken-digits": {"shape": (1, 40, 64), "outputs": 10},
}
CALLED = {name: "spoken-digits" if name.startswith("audio:") else "shakespeare" for name in FACTS if ":" in name}


def test_there_are_configurations_and_nothing_else() -> None:
    assert len(FILES) >= 8
    assert {path.suffix for path in FILES} == {".toml"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_configuration_is_one(path: Path) -> None:
    config = load_toml(Config, path)
    check(config)
    assert as_device_model(config.device).effects
    assert networks.make_network(config.model, FACTS[config.data.name], seed=0)
    assert path.stem == f"{CALLED.get(config.data.name, config.data.name)}-{config.model}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_configuration_opens_with_the_command_that_runs_it(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    program, command, name = shlex.split(first.removeprefix("# "))
    assert (program, command) == ("analogsim", "train")
    assert ready_file(name).samefile(path)
