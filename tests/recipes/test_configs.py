from __future__ import annotations

import shlex
from pathlib import Path

import pytest

import analogsim.recipes
from analogsim.device.parse import as_device_model
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import load_toml
from analogsim.recipes.tasks import data_sets, networks
from analogsim.recipes.training.setup import check

FOLDER = Path(analogsim.recipes.__file__).parent / "configs"
FILES = sorted(FOLDER.rglob("*"))


def test_there_are_configurations_and_nothing_else() -> None:
    assert len(FILES) >= 4
    assert {path.suffix for path in FILES} == {".toml"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_configuration_is_one(path: Path) -> None:
    config = load_toml(Config, path)
    check(config)
    assert as_device_model(config.device).effects
    assert config.data.name in data_sets.DATA_NAMES
    shape, classes = data_sets.SHAPES[config.data.name]
    assert networks.build(config.model, shape, classes)
    assert path.stem == f"{config.data.name}-{config.model}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_configuration_opens_with_the_command_that_runs_it(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# ")
    program, command, file = shlex.split(first.removeprefix("# "))
    assert (program, command) == ("analogsim", "train")
    assert Path(file) == Path("recipes", "configs", path.relative_to(FOLDER))
