"""What the trials of a study are told: the training of its configuration, with other values of what is searched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from analogsim.errors import InvalidValueError
from analogsim.recipes.config.options import Config, StudyConfig
from analogsim.recipes.config.space import Choice
from analogsim.recipes.config.toml import from_mapping, to_mapping


def training_config(config: StudyConfig, values: Mapping[str, Any] | None = None) -> Config:
    """The training of a study's configuration, with other values of some settings; its tracking is the study's matter.

    A text is one of the search's own choices: trials come from a database that others write too, and it may name code.

    Raises:
        ValueError: a value that its setting does not take, or a text that is no choice of the search.
    """
    searched = dict(config.search.parts)
    own = {part.name: getattr(config, part.name) for part in fields(Config)}
    # an address may hold a password, and configurations are kept where others read them
    plain = to_mapping(Config(**{**own, "tracking": replace(config.tracking, uri=None)}))
    for name, value in (values or {}).items():
        part = searched.get(name)
        if isinstance(value, str) and not (isinstance(part, Choice) and part.holds(value)):
            raise InvalidValueError(f"trial: {name}={value!r} is not among what this study searches; see search.{name}")
        *parents, leaf = name.split(".")
        node = plain
        for parent in parents:
            node = node[parent]
        node[leaf] = "none" if value is None else value
    return from_mapping(Config, plain, "trial")
