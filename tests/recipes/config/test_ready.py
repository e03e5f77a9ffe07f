from __future__ import annotations

from pathlib import Path

import pytest

import analogsim.recipes
from analogsim.recipes.config.ready import ready_file, ready_names


def test_every_configuration_has_a_name() -> None:
    files = sorted((Path(analogsim.recipes.__file__).parent / "configs").iterdir(), key=lambda file: file.stem)
    assert [file.stem for file in files] == list(ready_names())
    assert [ready_file(name).name for name in ready_names()] == [file.name for file in files]


@pytest.mark.parametrize(
    ("name", "meant"), [("digits-lenet", "; did you mean 'digits-lenet5'?"), ("../configs/digits-mlp", ""), ("", "")]
)
def test_another_name_is_none(name: str, meant: str) -> None:
    with pytest.raises(ValueError, match="Known are digits-lenet5,") as told:
        ready_file(name)
    assert meant in str(told.value)
