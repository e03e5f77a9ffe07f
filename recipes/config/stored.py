"""Settings that a program wrote into a checkpoint, a run's folder or a study, maybe before some options existed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeVar

from analogsim.recipes.config.toml import from_mapping

T = TypeVar("T")

# Programs write every option, but for those that are None. One that is not there did not exist when the settings were
# written, and means what was done then, whatever its default is now.
_THEN: Mapping[str, Any] = {
    "calibration.learn_ranges": False,
    "noise.begin": 0.0,
    "noise.clip_per": "layer",
    "training.step": "one-draw",
}


def completed(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings that a program wrote, with what was done then for options that did not exist yet."""
    whole = copy.deepcopy(dict(mapping))
    for name, value in _THEN.items():
        *parents, leaf = name.split(".")
        node = whole
        for parent in parents:
            node = node.setdefault(parent, {})
        node.setdefault(leaf, value)
    if "study" in whole:
        whole["study"].setdefault("over_chips", "percentile" if "percentile" in whole["study"] else "mean")
    return whole


def from_stored(cls: type[T], mapping: Mapping[str, Any], source: str) -> T:
    """The configuration that a program wrote, as it was meant then.

    Args:
        cls: the configuration dataclass.
        mapping: what was written.
        source: where, for error messages.

    Raises:
        ValueError: see `from_mapping`.
    """
    return from_mapping(cls, completed(mapping), source)
