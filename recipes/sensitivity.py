"""Which layers of a trained network a chip costs most, and which to keep digital.

Example:
analogsim sensitivity runs/20260101-120000-digits-resnet20-pcm/plain/checkpoint.pt --keep 0.97
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Unpack

import analogsim
from analogsim import KeptDigital, Report, Sensitivity
from analogsim.errors import InvalidValueError
from analogsim.evaluation.kept_digital import Per
from analogsim.evaluation.metrics import check_share
from analogsim.recipes.config.arguments import Program
from analogsim.recipes.config.outputs import keep_result
from analogsim.recipes.training.restored import Asked, Restored, add_judging, asked_by, judging, restored
from analogsim.recipes.training.sharing import Sharing, add_sharing, sharing

# Chips far away from those that the layers are chosen by.
_OTHER_CHIPS = 1_000_000


@dataclass(frozen=True)
class Found:
    """What one network's layers cost.

    Args:
        layers: each of them alone, on validation data.
        kept: which to keep digital, chosen on the same data and chips; None if no target was given.
        before: the whole network on test data and other chips; None if no target was given.
        after: the same with these layers digital.
    """

    layers: Sensitivity
    kept: KeptDigital | None = None
    before: Report | None = None
    after: Report | None = None

    def to_dict(self) -> dict[str, Any]:
        """What was found, as JSON can hold it."""
        found: dict[str, Any] = {
            "everything": self.layers.everything.to_dict(),
            "layers": {
                name: {"report": report.to_dict(), "share": asdict(self.layers.shares[name])}
                for name, report in self.layers.reports.items()
            },
        }
        if self.kept is not None and self.before is not None and self.after is not None:
            found |= {"digital": list(self.kept.layers), "before": self.before.to_dict(), "after": self.after.to_dict()}
        return found

    def __str__(self) -> str:
        parts = [str(self.layers)]
        if self.kept is not None and self.before is not None and self.after is not None:
            both = analogsim.compare_table({"everything analog": self.before, "these digital": self.after})
            parts += [str(self.kept), f"On test data and chips that had no part in the choice:\n\n{both}"]
        return "\n\n".join(parts)


def sensitivity(
    path: Path,
    *,
    keep: float | None = None,
    per: Per = "macs",
    tell: Callable[[str], None] = lambda _: None,
    done: Callable[[str, Found], None] = lambda _, __: None,
    shared: Sharing = Sharing(),  # noqa: B008  a value that nothing changes
    **asked: Unpack[Asked],
) -> dict[str, Found]:
    """Take the layers of a run's networks one by one, see `analogsim.sensitivity`.

    Args:
        path: a run's folder, or one checkpoint file.
        keep: the score to reach by keeping layers digital, such as 0.97; None to leave it at the table.
        per: share of what a layer is weighed by, see `Sensitivity.keep_digital`.
        tell: told a line where ranges of converters are not those of the run.
        done: given a network's name and what was found of it as soon as it is, also where an error ends it there.
        shared: who judges the chips, and where they are kept.
        asked: see `Asked`; the last of its times counts.

    Returns:
        What was found, for each network by its name.

    Raises:
        ValueError: what is asked for cannot be; a share in percent among it.
    """
    if keep is not None and not math.isfinite(keep):
        raise InvalidValueError(f"sensitivity: keep must be a score, such as 0.97, got {keep!r}")
    results = {}
    for name, network in restored(path, asked, tell, "sensitivity", place=shared.place):
        how, where = judging(network, asked), shared.options(name)
        if keep is not None:
            check_share(keep, how["metric"].unit, "sensitivity: keep")
        *_, time = how.pop("times")
        layers = analogsim.sensitivity(network.analog, network.validation, t=time, **how, **where)
        if keep is None:
            results[name] = Found(layers)
            done(name, results[name])
            continue
        try:
            results[name] = _chosen(layers, keep, per, name, network, how, time, shared)
        except BaseException:
            done(name, Found(layers))
            raise
        done(name, results[name])
    return results


def _chosen(
    layers: Sensitivity,
    keep: float,
    per: Per,
    name: str,
    network: Restored,
    how: dict[str, Any],
    time: float | str,
    shared: Sharing,
) -> Found:
    """Which layers to keep digital, and what that brings on test data."""
    kept = layers.keep_digital(keep, per=per, **shared.options(name))
    how |= {"times": (time,), "seed": how["seed"] + _OTHER_CHIPS}
    judged = shared.options(f"{name}, on test data")
    before = analogsim.evaluate(network.analog, network.test, clean=network.clean, **how, **judged)
    chosen = analogsim.convert(analogsim.to_digital(network.analog), kept.device, crossbar=kept.crossbar)
    ranges = analogsim.get_ranges(network.analog)
    left = {matrix.analog.name for matrix in analogsim.layers.matrices_of(chosen)}
    analogsim.set_ranges(chosen, {layer: ranges[layer] for layer in ranges if layer in left})
    if judged["journal"] is not None:
        judged["journal"] = judged["journal"].of(f"digital: {', '.join(map(repr, kept.layers))}")
    after = analogsim.evaluate(chosen, network.test, clean=network.clean, **how, **judged)
    return Found(layers, kept, before, after)


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.description = "Make the layers of a trained network analog one at a time, on validation data."
    add_judging(parser)
    add_sharing(parser)
    parser.add_argument("--time", default="1d", help="since programming, as 90 (seconds), 1h, 1w; default: 1d")
    parser.add_argument(
        "--keep",
        type=float,
        metavar="SCORE",
        help="keep layers digital until the mean over chips reaches this, such as 0.97; and judge that on test data",
    )
    parser.add_argument(
        "--per", choices=("macs", "parameters"), default="macs", help="what a digital layer costs; default: macs"
    )


def _run_command(options: argparse.Namespace) -> object:
    asked = asked_by(options, (options.time,))
    with sharing(options, "sensitivity") as shared:
        gap, known = "", dict[str, object]()

        def done(name: str, found: Found) -> None:
            nonlocal gap
            known[name] = found.to_dict()
            if shared.main:
                keep_result(options, known)
            shared.tell(f"{gap}{name} network\n\n{found}")
            gap = "\n"

        how = {"keep": options.keep, "per": options.per, "tell": shared.tell, "done": done, "shared": shared}
        sensitivity(Path(options.run), **how, **asked)
        return known if shared.main else None


PROGRAM = Program(
    "sensitivity",
    "which layers cost most, and which to keep digital",
    _declare,
    _run_command,
    examples=("sensitivity runs/RUN --time 1w", "sensitivity runs/RUN/plain/checkpoint.pt --keep 0.97"),
    result="what each layer costs",
)
