from __future__ import annotations

import pytest

from analogsim.recipes.config.options import Config, StudyConfig, StudyOptions
from analogsim.recipes.config.stored import completed, from_stored
from analogsim.recipes.config.toml import flatten, from_mapping, to_mapping

BEFORE = {"calibration.learn_ranges": False, "noise.begin": 0.0, "noise.clip_per": "layer", "training.step": "one-draw"}


def test_what_was_written_now_is_read_as_it_is() -> None:
    config = Config()
    assert from_stored(Config, to_mapping(config), "checkpoint") == config


def test_an_option_that_did_not_exist_stands_for_what_was_done_then() -> None:
    written = to_mapping(Config())
    for name in BEFORE:
        section, leaf = name.split(".")
        del written[section][leaf]
    values = flatten(from_stored(Config, written, "checkpoint"))
    assert {name: values[name] for name in BEFORE} == BEFORE
    # what a person writes leaves out what is by default
    assert from_mapping(Config, {"noise": {"end": 1.0}}).calibration.learn_ranges


def test_a_study_of_before_goes_on_by_what_it_judged_by() -> None:
    for percentile, over in ((None, "mean"), (5.0, "percentile")):
        written = to_mapping(StudyConfig(study=StudyOptions(percentile=percentile)))
        del written["study"]["over_chips"]
        assert from_stored(StudyConfig, written, "study").study.over_chips == over


def test_what_is_given_stays_as_it_is() -> None:
    given = {"noise": {"end": 1.0}}
    whole = completed(given)
    assert given == {"noise": {"end": 1.0}}
    assert whole["noise"]["end"] == 1.0
    assert completed({"calibration": {"learn_ranges": True}})["calibration"]["learn_ranges"] is True


def test_what_is_wrong_is_told_with_the_place() -> None:
    with pytest.raises(ValueError, match="study 'x': no option 'nois'"):
        from_stored(Config, {"nois": {}}, "study 'x'")
