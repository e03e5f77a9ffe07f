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
    sections = ["data", "optimization", "noise", "training", "evaluation", "calibration", "tracking"]
    assert [part.name for part in fields(Config)][-7:] == sections
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


BORDERS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "seed": ((0, 2**32 - 1), (-1, 2**32)),
    "data.batch_size": ((1,), (0,)),
    "data.validation": ((0.001, 0.999), (0.0, 1.0)),
    "data.limit": ((1,), (0,)),
    "optimization.epochs": ((0,), (-1,)),
    "optimization.lr": ((1e-9,), (0.0, -1.0)),
    "optimization.weight_decay": ((0.0,), (-1e-9,)),
    "noise.start": ((0.0, 0.5), (-1e-9,)),
    "noise.end": ((0.0, 0.5), (-1e-9,)),
    "noise.ramp": ((1e-9, 1.0), (0.0, 1.001)),
    "noise.warmup": ((0.0, 1.0), (-1e-9, 1.001)),
    "noise.jitter": ((0.0, 1.0), (-1e-9, 1.001)),
    "noise.clip_sigmas": ((1e-9,), (0.0,)),
    "noise.begin": ((0.0, 0.999), (-1e-9, 1.0)),
    "evaluation.chips": ((1,), (0,)),
    "evaluation.precision": ((1e-9,), (0.0, -0.1)),
    "evaluation.most_chips": ((16,), (15,)),
    "evaluation.samples_per_chip": ((1,), (0,)),
    "evaluation.validation_chips": ((1,), (0,)),
    "evaluation.batch_size": ((1,), (0,)),
    "calibration.samples": ((1,), (0,)),
    "calibration.percentile": ((1e-9, 100.0), (0.0, 100.001)),
    "study.trials": ((1,), (0,)),
    "study.percentile": ((0.0, 100.0), (-0.001, 100.001)),
    "study.min_clean": ((0.001, 0.999), (0.0, 1.0)),
    "study.clean_limit": ((-1e9, 0.0, 1e9), ()),
    "study.chips": ((1,), (0,)),
    "study.seed": ((0, 2**32 - 1), (-1, 2**32)),
    "study.final_seeds": ((1,), (0,)),
    "study.heartbeat": ((1,), (0,)),
    "study.retries": ((0,), (-1,)),
}


def test_the_borders_of_every_number() -> None:
    """What is said in the help of a setting holds: the last value that is taken, and the first that is not."""

    def given(key: str, value: float) -> StudyConfig:
        *sections, name = key.split(".")
        return from_mapping(StudyConfig, {sections[0]: {name: value}} if sections else {name: value})

    numbers = {key for key, value in flatten(StudyConfig()).items() if isinstance(value, int | float)}
    numbers = {key for key in numbers if not isinstance(flatten(StudyConfig())[key], bool)}
    assert numbers <= set(BORDERS)
    for key, (taken, refused) in BORDERS.items():
        for value in taken:
            assert flatten(given(key, value))[key] == value
        for value in refused:
            with pytest.raises(ValueError, match=key.rpartition(".")[2]):
                given(key, value)


def test_what_is_not_told_is_what_it_always_was() -> None:
    """A file that leaves a setting out goes on to mean the same run."""
    assert {key: value for key, value in flatten(StudyConfig()).items() if not key.startswith("search")} == {
        **{"device": "pcm", "crossbar": "ideal", "model": "lenet5", "weights": None, "task": None, "metric": None},
        **{"seed": 0, "run_on": "auto", "out": "runs", "baseline": True},
        **{"data.name": "digits", "data.folder": None, "data.download": False, "data.batch_size": 32},
        **{"data.validation": 0.1, "data.limit": None},
        **{"optimization.epochs": 30, "optimization.optimizer": "adam", "optimization.lr": 0.003},
        **{"optimization.weight_decay": 0.0},
        **{"noise.device": None, "noise.shape": "linear", "noise.start": 0.0, "noise.end": 1.0, "noise.ramp": 0.5},
        **{"noise.warmup": 0.0, "noise.jitter": 0.0, "noise.clip_sigmas": 2.5},
        **{"noise.begin": 0.0, "noise.clip_start": None, "noise.clip_per": "layer", "noise.times": None},
        **{"training.step": "one-draw"},
        **{"evaluation.precision": None, "evaluation.most_chips": 10_000, "evaluation.samples_per_chip": None},
        **{"evaluation.chips": 25, "evaluation.times": ("1s", "1h", "1d", "1mo", "1y")},
        **{"evaluation.compensation": "auto", "evaluation.validation_chips": 3, "evaluation.validation_time": "1d"},
        **{"evaluation.batch_size": 1000, "calibration.samples": 1024, "calibration.percentile": 99.99},
        **{"calibration.learn_ranges": True},
        **{"tracking.enabled": True, "tracking.uri": None, "tracking.experiment": "analogsim"},
        **{"study.name": None, "study.storage": None, "study.trials": 50, "study.timeout": None},
        **{"study.pareto": False, "study.percentile": None, "study.min_clean": None, "study.clean_limit": None},
        **{"study.over_chips": "auto"},
        **{"study.chips": 10, "study.sampler": "tpe", "study.pruner": "median", "study.seed": 0},
        **{"study.default_first": True, "study.final_seeds": 1, "study.heartbeat": 30, "study.retries": 3},
    }
