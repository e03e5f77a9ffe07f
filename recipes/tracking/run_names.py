"""What runs and their folders are called: in a list of many the beginning of a name is all that is seen."""

from __future__ import annotations

import re
from zlib import crc32

from analogsim.device.parse import as_device_model
from analogsim.evaluation.display import COLORS
from analogsim.recipes.config.options import Config
from analogsim.recipes.tasks.references import short
from analogsim.recipes.tracking.mlflow_private import RUN_COLOR

_LONGEST = 60  # letters of a device, which may be a chain of many effects


def folder_end(config: Config) -> str:
    """The end of the name of a run's folder, ``digits-lenet5-pcm``, for any file system."""
    name = f"{short(config.data.name)}-{short(config.model)}-{_device(config)}"
    return re.sub(r"[^\w.-]", "_", name)


def facts_of(config: Config, kind: str) -> str:
    """What tells a network from others, the most telling first: ``hardware-aware, pcm, lenet5, digits``.

    Args:
        config: its options.
        kind: "plain" or "hardware-aware".
    """
    return ", ".join([kind, _device(config), short(config.model), short(config.data.name)])


def run_name(config: Config, kind: str, folder: str) -> str:
    """The name of a network's run: what it is, and its folder, of which what is said already is left out.

    Args:
        config: as in `facts_of`, as is `kind`.
        kind: of the network.
        folder: the name of the run's folder.
    """
    return f"{facts_of(config, kind)}, {folder.replace(f'-{folder_end(config)}', '', 1)}"


def run_color(group: str, place: int) -> dict[str, str]:
    """The tag with the colour of a run in MLflow's charts, which any two of a group of eight do not share.

    Args:
        group: the name of the folder or study that the run is of.
        place: of the run in it.
    """
    return {RUN_COLOR: COLORS[(crc32(group.encode()) + place) % len(COLORS)]}


def _device(config: Config) -> str:
    try:
        return as_device_model(config.device).name[:_LONGEST]
    except ValueError:  # one that is registered nowhere here
        return config.device.partition("(")[0]
