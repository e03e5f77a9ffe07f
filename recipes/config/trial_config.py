"""What the trials of a study are told: the training of its configuration, with other values of what is searched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from analogsim.recipes.config.options import Config, StudyConfig
from analogsim.recipes.config.toml import from_mapping, to_mapping


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
