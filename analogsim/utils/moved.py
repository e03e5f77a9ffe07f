"""Where modules are: parts of a checkout that has lost its links, and paths of before.

What device packages were written with leads on, others say where to look now. Nothing heavy is imported here: it comes
before all of analogsim.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from analogsim.errors import MissingPackageError

# Devices of ours used these themselves, so that packages made after them do too.
LEADING_ON = {
    "analogsim.registry": "analogsim.device",
    "analogsim.inplace": "analogsim.utils.tensors",
    "analogsim.times": "analogsim.utils.times",
    "analogsim.layout": "analogsim.mapping",
}

MOVED = {
    "ablate": "evaluation.ablation",
    "audit": "inspection.carrying",
    "batches": "utils.batches",
    "calibrate": "chip.calibration",
    "chipfile": "chip.file",
    "clipping": "training.clipping",
    "compensate": "chip.compensation and analogsim.crossbar.gains",
    "convert": "conversion",
    "converters": "crossbar.converters and analogsim.crossbar.signal_path",
    "counter": "noise.counter_based",
    "devicefile": "device.file",
    "evaluate": "evaluation.monte_carlo",
    "faults": "chip.faults",
    "fused": "draws.compiled",
    "macs": "evaluation.operations",
    "metrics": "evaluation.metrics",
    "pairs": "draws.pairs",
    "ranges": "chip.ranges",
    "recompute": "utils.recompute",
    "report": "evaluation.report",
    "schedule": "training.schedule",
    "sensitivity": "evaluation.layer_sensitivity",
    "stamps": "utils.tensors",
    "summary": "inspection.overview",
    "text": "utils.text",
    "together": "chip.stacked_chips",
    "tree": "utils.modules",
    "wires": "crossbar",
    "layers.base": "layers.module and analogsim.layers.registry",
    "layers.route": "layers.routing",
}


LINKED = ("devices", "recipes")
"""Parts of analogsim that lie beside it in a checkout, with links to them."""


def find_parts(package: Path) -> list[str]:
    """Where besides to look for parts of analogsim: nowhere, but in a checkout whose links are not there.

    Windows without the right to make links (``core.symlinks=false``), and some archives, have files of text in place of
    links, or nothing.

    Args:
        package: the folder of analogsim.

    Raises:
        ImportError: a part is in neither place.
    """
    lost = [name for name in LINKED if not (package / name / "__init__.py").is_file()]
    beside = package.parent
    missing = [name for name in lost if not (beside / name / "__init__.py").is_file()]
    if missing:
        raise MissingPackageError(
            f"analogsim: {package} lacks its {' and '.join(missing)}, which in a checkout lie beside it, in {beside}: "
            "copy the whole checkout, or install it: pip install ."
        )
    return [str(beside)] if lost else []


class Signpost:
    """The last of Python's finders, which is asked for what no other one finds."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Nothing, but for a path that was ours.

        Raises:
            ModuleNotFoundError: with the path that it has now.
        """
        now = MOVED.get(name.removeprefix("analogsim.")) if name.startswith("analogsim.") else None
        if now is None:
            return None
        raise ModuleNotFoundError(
            f"No module named {name!r}: what was there is in analogsim.{now} now; what analogsim itself exports has "
            "not moved",
            name=name,
        )


def put_signposts() -> None:
    """Let paths of before lead on, or say where to look; once all of analogsim is imported."""
    for old, new in LEADING_ON.items():
        sys.modules.setdefault(old, sys.modules[new])
    if not any(isinstance(finder, Signpost) for finder in sys.meta_path):
        sys.meta_path.append(Signpost())
