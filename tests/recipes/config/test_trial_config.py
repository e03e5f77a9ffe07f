from __future__ import annotations

import pytest

from analogsim.recipes.config.options import Config, StudyConfig
from analogsim.recipes.config.toml import load_toml
from analogsim.recipes.config.trial_config import training_config


def study(*settings: str) -> StudyConfig:
    return load_toml(StudyConfig, None, list(settings))


def test_the_training_of_a_trial_has_the_suggested_settings() -> None:
    config = study("noise.end=3", "tracking.uri=http://me:secret@host")
    found = training_config(config, {"optimization.lr": 0.25, "noise.clip_sigmas": None})
    assert type(found) is Config
    assert (found.optimization.lr, found.noise.clip_sigmas, found.noise.end) == (0.25, None, 3)
    assert found.tracking.uri is None  # an address may hold a password
    with pytest.raises(ValueError, match=r"trial: noise\.ramp: wanted a value <= 1"):
        training_config(config, {"noise.ramp": 2.0})


def test_a_text_is_one_of_the_choices_of_the_search() -> None:
    config = study("search.model=['mlp', 'nets.py:build']")
    assert training_config(config, {"model": "nets.py:build", "noise.shape": "step"}).model == "nets.py:build"
    for name, value in (("model", "other.py:build"), ("noise.shape", "exponential"), ("data.name", "other.py:data")):
        with pytest.raises(ValueError, match=rf"trial: {name}='{value}' is not among what this study searches"):
            training_config(config, {name: value})
