from __future__ import annotations

from dataclasses import fields

import pytest

import analogsim
from analogsim.recipes.config import options
from analogsim.recipes.config.options import SHORT, STUDY_SHORT, Config, StudyConfig
from analogsim.recipes.config.toml import flatten, from_mapping, to_mapping


def test_short_options_stand_for_settings() -> None:
    for config, short in ((Config(), SHORT), (StudyConfig(), STUDY_SHORT)):
        known = flatten(config)
        assert [key for key, _ in short.values() if key not in known] == []
        assert from_mapping(type(config), to_mapping(config)) == config


def test_sections_keep_their_names_in_files() -> None:
    sections = ["data", "optimization", "noise", "evaluation", "calibration", "tracking"]
    assert [part.name for part in fields(Config)][-6:] == sections
    assert [part.name for part in fields(StudyConfig)][-2:] == ["study", "search"]


def test_no_section_has_the_name_of_something_in_the_core() -> None:
    own = {name for name in vars(options) if isinstance(getattr(options, name), type)}
    core = {name for part in (analogsim, analogsim.noise, analogsim.device) for name in vars(part)}
    assert own & core == set()


@pytest.mark.parametrize("seed", [2**32, 10**30, -1])
def test_seeds_that_torch_cannot_tell_apart_are_refused(seed: int) -> None:
    """Its generator of the CPU takes 32 bits; of more it would forget some, or overflow."""
    assert from_mapping(Config, {"seed": 2**32 - 1}).seed == 2**32 - 1
    for config, given, name in (
        (Config, {"seed": seed}, "seed"),
        (StudyConfig, {"study": {"seed": seed}}, "study.seed"),
    ):
        with pytest.raises(ValueError, match=rf"{name}.* {seed}"):
            from_mapping(config, given)
