"""What the trials of a study are told: the training of its configuration, with other values of what is searched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from analogsim.recipes.config.options import Config, StudyConfig
from analogsim.recipes.config.toml import from_mapping, to_mapping
from analogsim.recipes.training.setup import in_order, report_times
from analogsim.utils.times import seconds


def training_config(config: StudyConfig, values: Mapping[str, Any] | None = None) -> Config:
    """The training of a study's configuration, with other values of some settings; its tracking is the study's matter.

    Raises:
        ValueError: a value that its setting does not take.
    """
    own = {part.name: getattr(config, part.name) for part in fields(Config)}
    # an address may hold a password, and configurations are kept where others read them
    plain = to_mapping(Config(**{**own, "tracking": replace(config.tracking, uri=None)}))
    for name, value in (values or {}).items():
        *parents, leaf = name.split(".")
        node = plain
        for parent in parents:
            node = node[parent]
        node[leaf] = "none" if value is None else value
    return from_mapping(Config, plain, "trial")


def all_times(config: Config) -> tuple[str, ...]:
    """The times of the drift curve, and among them the one at which networks are judged."""
    rule = config.evaluation
    judged = seconds(rule.validation_time)
    others = [time for time in report_times(config) if seconds(time) != judged]
    return in_order((*others, rule.validation_time))
