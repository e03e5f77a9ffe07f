r"""What a few labels or a teacher bring after training: adapters fine-tuned while the analog weights stay.

    python -m benchmarks.adapters --out adapters.json
    python -m benchmarks.adapters --task fashion --rows plain,affine,scales,rank4 --seeds 2 --out adapters.json
    python -m benchmarks.adapters --rows plain,own,kept,ages --out adapters.json
    python -m benchmarks.adapters --table --out adapters.json

``digits``: a 64-24-24-10 network on 8 x 8 digits, 40 epochs. ``fashion``: a narrow convolutional network on pooled
images of Fashion-MNIST, 27,000 for training, 5 epochs, and the first 2,000 of the test. Trained plainly (Adam, cosine),
and judged on chips of the standard crossbar with the global gain: ``pcm`` after one hour, day and year, ``stuck-at``
(10.8 % of the cells). Inputs for calibration and fine-tuning are some of the training samples, in batches of 256 at
most, 200 steps. Each row is of the same networks and chips; what FILE has is not measured again. Scores in percent:
mean, standard deviation and 5th percentile over the chips of a network, means over networks; seconds are those of the
processor for one fine-tuning.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import analogsim
from analogsim.utils.text import table
from benchmarks.harness.small_tasks import TASKS, Task, batches_of
from benchmarks.harness.timing import environment, write

CROSSBAR = "standard"
AFTER = {"pcm": ("1h", "1d", "1y"), "stuck-at": ("1s",)}
BATCH = 256
OF_CLASSES = partial(analogsim.distillation_loss, temperature=2.0)


@dataclass(frozen=True)
class Row:
    """What is done to a chip, or to all.

    Args:
        told: in the table.
        affine: whether outputs are matched first (`analogsim.calibrate_outputs`).
        tuned: how adapters of each chip are fine-tuned; None: not.
        everyone: how adapters of all chips are fine-tuned before; None: not.
        at: the age of the chip at which its adapters are fine-tuned for good; None: each age of the table.
        ages: for which they have vectors.
        followed: whether chips are fine-tuned at all ages, and not at the last one alone.
    """

    told: str
    affine: bool = False
    tuned: Mapping[str, Any] | None = None
    everyone: Mapping[str, Any] | None = None
    at: str | None = None
    ages: tuple[str, ...] = ()
    followed: bool = False

    def times(self, device: str) -> tuple[str, ...]:
        """The ages at which chips of a device are judged."""
        return AFTER[device] if self.followed or self.tuned is None else AFTER[device][-1:]


_LABELS: dict[str, Any] = {"teacher": None}
_TEACHER: dict[str, Any] = {"loss": OF_CLASSES}

ROWS = {
    "plain": Row("as it is"),
    "affine": Row("outputs matched", affine=True),
    "scales-alone": Row("scales and offsets, teacher, nothing matched", tuned={"rank": 0, **_TEACHER}),
    "scales-labels": Row("+ scales and offsets, labels", affine=True, tuned={"rank": 0, **_LABELS}),
    "scales-square": Row("+ scales and offsets, teacher, squared error", affine=True, tuned={"rank": 0}),
    "scales": Row("+ scales and offsets, teacher", affine=True, tuned={"rank": 0, **_TEACHER}),
    "rank1": Row("+ rank 1, teacher", affine=True, tuned={"rank": 1, **_TEACHER}),
    "rank4-labels": Row("+ rank 4, labels", affine=True, tuned={"rank": 4, **_LABELS}),
    "rank4": Row("+ rank 4, teacher", affine=True, tuned={"rank": 4, **_TEACHER}),
    "all-scales": Row("for all chips: scales and offsets, teacher", everyone={"rank": 0, **_TEACHER}),
    "all-rank4": Row("for all chips: rank 4, teacher", everyone={"rank": 4, **_TEACHER}),
    "all-rank4-affine": Row(
        "for all chips: rank 4, teacher; then outputs matched", affine=True, everyone={"rank": 4, **_TEACHER}
    ),
    "own": Row("rank 1, teacher, at each age anew", tuned={"rank": 1, **_TEACHER}, followed=True),
    "kept": Row("rank 1, teacher, at one hour for good", tuned={"rank": 1, **_TEACHER}, at="1h", followed=True),
    "ages": Row(
        "rank 1, teacher, vectors of one hour and one year", tuned=_TEACHER, at="1h", ages=("1h", "1y"), followed=True
    ),
}


@dataclass
class OnChip:
    """What `analogsim.evaluate` calls with each chip.

    Args:
        row: what is done.
        data: batches (inputs, targets).
        folder: where adapters of a chip are kept.
        seconds: of each fine-tuning.
    """

    row: Row
    data: list[tuple[Tensor, Tensor]]
    folder: Path
    seconds: list[float] = field(default_factory=list)

    def __call__(self, analog: nn.Module, seed: int, t: float) -> None:
        """Do it to one chip at one age."""
        if self.row.affine:
            analogsim.calibrate_outputs(analog, self.data)
        if self.row.tuned is None:
            return
        kept = self.folder / str(seed)
        if self.row.at is not None and kept.exists():
            analogsim.load_adapters(analog, kept)
            return
        if self.row.at is not None and analogsim.seconds(self.row.at) != t:
            raise ValueError(f"the first age must be {self.row.at}, got {t}")
        if self.row.ages:
            analogsim.add_adapters(analog, 1, ages=self.row.ages)
        begun = time.process_time()
        analogsim.fine_tune(analog, self.data, **self.row.tuned)
        self.seconds.append(time.process_time() - begun)
        if self.row.at is not None:
            analogsim.save_adapters(analog, kept)


def train(task: Task, seed: int, epoch: Callable[[torch.Generator], Any], facts: Any) -> nn.Module:
    """A network trained plainly."""
    torch.manual_seed(seed)
    model = task.model(facts["shape"], facts["classes"])
    shuffle = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=task.lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, task.epochs * len(epoch(shuffle)))
    for _ in range(task.epochs):
        for inputs, targets in epoch(shuffle):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            decay.step()
    return model.eval()


def some(epoch: Callable[[torch.Generator], Any], samples: int) -> list[tuple[Tensor, Tensor]]:
    """So many samples of the training."""
    pairs: list[tuple[Tensor, Tensor]] = []
    for inputs, targets in epoch(torch.Generator().manual_seed(1000)):
        pairs.append((inputs, targets))
        if sum(len(each) for _, each in pairs) >= samples:
            break
    inputs, targets = (torch.cat(parts)[:samples] for parts in zip(*pairs, strict=True))
    return [(inputs[at : at + BATCH], targets[at : at + BATCH]) for at in range(0, len(targets), BATCH)]


def judge(
    model: nn.Module, name: str, row: Row, data: list[tuple[Tensor, Tensor]], test: Any, chips: int
) -> dict[str, Any]:
    """The scores of a row on chips of a device, by ages."""
    twin = analogsim.convert(model, name, crossbar=CROSSBAR).eval()
    if row.everyone is not None:
        analogsim.fine_tune(twin, data, **row.everyone)
    times = row.times(name)
    with tempfile.TemporaryDirectory() as folder:
        on_chip = OnChip(row, data, Path(folder))
        report = analogsim.evaluate(twin, test, chips=chips, times=times, on_chip=on_chip)
    tails = report.quantile(0.05)
    scores = {
        t: {"mean": float(report.mean[i]), "std": float(report.std[i]), "tail": float(tails[i])}
        for i, t in enumerate(times)
    }
    seconds = float(np.median(on_chip.seconds)) if on_chip.seconds else None
    return {"scores": scores, "clean": report.clean, "chance": report.chance, "seconds": seconds}


def summary(rows: Sequence[Mapping[str, Any]], task: str, samples: int, device: str) -> str:
    """The table of a device."""
    mine = [row for row in rows if (row["task"], row["samples"], row["device"]) == (task, samples, device)]
    times = AFTER[device]
    lines = []
    for key in ROWS:
        found = [row for row in mine if row["row"] == key]
        if not found:
            continue
        line = [ROWS[key].told, str(len(found)), f"{100 * np.mean([row['clean'] for row in found]):.2f}"]
        for t in times:
            line += _cells([row for row in found if t in row["scores"]], t)
        seconds = [row["seconds"] for row in found if row["seconds"] is not None]
        lines.append([*line, f"{np.median(seconds):.1f}" if seconds else ""])
    head = ["", "seeds", "clean"]
    for t in times:
        head += [t, "std", "5th pct.", "normalised"]
    return f"{task}, {samples} samples, {device}\n{table([*head, 's'], lines)}"


def _cells(rows: Sequence[Mapping[str, Any]], t: str) -> list[str]:
    """What stands of rows under an age."""
    if not rows:
        return [""] * 4
    cells = [f"{100 * np.mean([row['scores'][t][what] for row in rows]):.2f}" for what in ("mean", "std", "tail")]
    return [*cells, f"{np.mean([_normalised(row, t) for row in rows]):.3f}"]


def _normalised(row: Mapping[str, Any], t: str) -> float:
    return float((row["scores"][t]["mean"] - row["chance"]) / (row["clean"] - row["chance"]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and judge what is missing, and print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.adapters", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=tuple(TASKS), default="digits")
    parser.add_argument("--devices", default=",".join(AFTER), help="of %(default)s")
    parser.add_argument("--rows", default=",".join(ROWS), help="of %(default)s")
    parser.add_argument("--samples", type=int, default=256, help="for calibration and fine-tuning")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--chips", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("adapters.json"))
    parser.add_argument("--table", action="store_true", help="print what FILE has")
    options = parser.parse_args(arguments)
    names, devices = options.rows.split(","), options.devices.split(",")
    for given, known in ((names, ROWS), (devices, AFTER)):
        unknown = [name for name in given if name not in known]
        if unknown:
            parser.error(f"there is no {unknown[0]!r}; there are {', '.join(known)}")
    document = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {"rows": []}
    rows: list[dict[str, Any]] = document["rows"]
    if not options.table:
        _measure(rows, options, names, devices)
    for group in dict.fromkeys((row["task"], row["samples"], row["device"]) for row in rows):
        print(summary(rows, *group))
    return 0


def _measure(rows: list[dict[str, Any]], options: argparse.Namespace, names: list[str], devices: list[str]) -> None:
    """What is missing, written as it comes."""
    task = TASKS[options.task]
    epoch, test, facts = batches_of(task)
    data, test = some(epoch, options.samples), test[:1]
    done = {(row["task"], row["samples"], row["device"], row["row"], row["seed"]) for row in rows}
    for seed in range(options.seeds):
        wanted = [
            (device, name)
            for device in devices
            for name in names
            if (options.task, options.samples, device, name, seed) not in done
            and (len(AFTER[device]) > 1 or not ROWS[name].followed)
        ]
        if not wanted:
            continue
        model = train(task, seed, epoch, facts)
        for device, name in wanted:
            found = judge(model, device, ROWS[name], data, test, options.chips)
            key = {"task": options.task, "samples": options.samples, "device": device, "row": name, "seed": seed}
            rows.append({**key, **found})
            write(options.out, {**environment(torch.device("cpu")), "rows": rows})


if __name__ == "__main__":
    raise SystemExit(main())
