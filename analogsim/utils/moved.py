"""Paths of modules that have moved: what device packages were written with leads on, others say where to look now."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

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
