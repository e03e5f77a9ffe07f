r"""Accuracy that is left on chips: networks of aihwkit-lightning at the settings of its guide beside ours.

    peers/bin/python -m benchmarks.beside train fashion-narrow --limit 27000 --lr 7e-3 3e-3 --seeds 2
    python -m benchmarks.beside judge fashion-narrow --limit 27000 --samples 2000 --lr 7e-3 3e-3 --seeds 2 --chips 10
    peers/bin/python -m benchmarks.beside time fashion-narrow

``train`` needs aihwkit-lightning, which wants an environment of its own, made as ``python -m benchmarks.peers`` says,
and leaves a file for each network in ``--peers``: weights and input ranges. ``judge`` trains ours and puts both on the
same chips: from the same first weights, through the same batches, with the same optimizer, steps and learning rates;
theirs runs on ``standard(input_range='learned')`` with the ranges that it has learned. Of several learning rates each
row has the one that is best for the first seed, on validation data and on chips that no table shows; the other seeds
need no other. ``time`` takes the processor time of a training step of plain torch, of theirs and of ours, in turns.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time as clock
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor, nn

import analogsim
from analogsim.recipes.config.hardware import array_of
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import load_toml
from analogsim.recipes.tasks.networks import make_network
from analogsim.recipes.training.loop import Training
from analogsim.recipes.training.processes import ALONE
from analogsim.recipes.training.ranges import calibration_batches
from analogsim.recipes.training.setup import load_data
from analogsim.recipes.training.step import Stepper, noise_schedule
from analogsim.training import plain_step
from analogsim.utils.batches import split
from analogsim.utils.text import table
from benchmarks.harness import peer_methods
from benchmarks.harness.ladder import DEVICES, LADDER, settings_of
from benchmarks.harness.peer_networks import PeerNetwork, path_of, question
from benchmarks.harness.timing import Spread, duration
from benchmarks.robust import ROWS, Ladder, Row, tables

PEERS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "lightning": peer_methods.RECOMMENDED,
        "lightning-0.04": MappingProxyType({**peer_methods.RECOMMENDED, "forward.out_noise": 0.04}),
    }
)
"""Rows of the other tool: as its guide has it, and with the output noise of the crossbar that it will run on."""

_STEPS = 20  # that are timed together
_CHIPS = 5  # on which a learning rate is chosen
_MISSING = f"""\
{peer_methods.LIGHTNING} is not installed, and this trains with it. Make an environment with it, as

    python -m benchmarks.peers

says (digits want scikit-learn besides), and start this there; python -m benchmarks.beside judge takes the files that it
leaves."""


class Asked:
    """What a command line asks for.

    Args:
        options: as parsed.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.tasks: list[str] = options.tasks
        self.rows = [row_of(text) for text in (*options.rows, *options.row)]
        self.seeds: int = options.seeds
        self.peers: Path = options.peers
        self.work: Path = options.work
        self.rates: list[float] = options.lr
        self.settings = list(options.set)
        self.settings += [] if options.epochs is None else [f"optimization.epochs={options.epochs}"]
        self.settings += [] if options.limit is None else [f"data.limit={options.limit}"]

    def rates_of(self, task: str) -> list[float]:
        """The learning rates of a task; its own where none is said."""
        return self.rates or [self.config(task, 0).optimization.lr]

    def config(self, task: str, seed: int, *more: str) -> Config:
        """The options of a training."""
        return load_toml(Config, None, [*settings_of(LADDER[task], self.work), *self.settings, f"seed={seed}", *more])

    def networks(self) -> Iterator[tuple[str, str, Config]]:
        """Each task, row of the other tool, and training."""
        names = [row.name for row in self.rows if row.name in PEERS]
        for task, seed, name in itertools.product(self.tasks, range(self.seeds), names):
            for rate in self.rates_of(task):
                yield task, name, self.config(task, seed, f"optimization.lr={rate!r}")

    def file_of(self, name: str, config: Config) -> Path:
        """Where the network of a row of the other tool lies."""
        return path_of(self.peers, question(config, peer_methods.LIGHTNING, PEERS[name]))

    def find(self, name: str, config: Config) -> Path:
        """The same, where it is there.

        Raises:
            FileNotFoundError: it is not.
        """
        path = self.file_of(name, config)
        if not path.is_file():
            raise FileNotFoundError(
                f"beside: {str(self.peers)!r} has no network of {name} with lr {config.optimization.lr:g} and seed "
                f"{config.seed} ({path.name}); train it with the same arguments: python -m benchmarks.beside train"
            )
        return path


def train(asked: Asked, show: Callable[[str], object]) -> None:
    """Train the networks of the other tool that nobody has trained."""
    for task, name, config in asked.networks():
        path = asked.file_of(name, config)
        if not path.is_file():
            network = peer_methods.train_peer(config, load_data(config), PEERS[name])
            network.save(asked.peers)
            told = f"{task} {name} lr {config.optimization.lr:g} seed {config.seed}"
            ranges = ", ".join(f"{float(value.max()):.3g}" for value in network.ranges.values())
            show(f"{told}: {network.seconds:.0f} s, input ranges {ranges}; written: {path}")


def _bring(asked: Asked, name: str, training: Training) -> float:
    asked.find(name, training.config)
    network = PeerNetwork.load(asked.peers, question(training.config, peer_methods.LIGHTNING, PEERS[name]))
    network.give_to(training)
    return network.seconds


def judge(asked: Asked, options: argparse.Namespace, show: Callable[[str], object]) -> list[dict[str, Any]]:
    """Put all rows on the same chips, those of several learning rates with the one that validation chooses.

    Raises:
        FileNotFoundError: networks of the other tool are missing.
    """
    for _, name, config in asked.networks():
        if config.seed == 0:  # of the others only those are needed whose learning rate is chosen
            asked.find(name, config)
    brought = {name: partial(_bring, asked, name) for name in PEERS}
    where: dict[str, Any] = {"crossbar": options.crossbar, "remedies": options.remedies, "chips": options.chips}
    make = partial(Ladder, settings=asked.settings, brought=brought, show=show)
    choosing = make(options.out.with_suffix(".chosen.json"), asked.work, chosen=True, samples=options.samples)
    final = make(options.out, asked.work, samples=options.samples)
    for task, row, device in itertools.product(asked.tasks, asked.rows, options.device):
        rate = _chosen(choosing, asked, task, row, device, options.crossbar, show) if row.aware else None
        for seed in range(asked.seeds):
            final.measure(task, row if rate is None else _at(row, rate), seed, device=device, **where)
    return final.cells


def _at(row: Row, rate: float) -> Row:
    return Row(row.name, (*row.settings, f"optimization.lr={rate!r}"))


def _chosen(
    ladder: Ladder, asked: Asked, task: str, row: Row, device: str, crossbar: str, show: Callable[[str], object]
) -> float:
    """The learning rate with the best mean over chips and times on validation data, of the first training seed."""
    rates = asked.rates_of(task)
    if len(rates) == 1:
        return rates[0]
    means = []
    for rate in rates:
        where: dict[str, Any] = {"device": device, "crossbar": crossbar, "remedies": ("auto",), "chips": _CHIPS}
        (cell,) = ladder.measure(task, _at(row, rate), 0, **where)
        means.append(np.mean(cell["mean"]))
    better = np.argmax if LADDER[task].metric is None else np.argmin  # accuracy, or bits per character
    best = int(better(means))
    told = ", ".join(f"{rate:g} ({mean:.4f})" for rate, mean in zip(rates, means, strict=True))
    show(f"{task} {row.name} {device}: of learning rates {told}: {rates[best]:g}")
    return rates[best]


def time(asked: Asked, options: argparse.Namespace, show: Callable[[str], object]) -> list[dict[str, Any]]:
    """Processor time of a training step of plain torch, of the other tool and of ours, which take turns."""
    cells = []
    for task in asked.tasks:
        # Steps so small that every round does the same arithmetic.
        config = asked.config(task, 0, "optimization.lr=1e-6", f"crossbar={options.crossbar}")
        calls = _steps(config)
        found = [{name: _burst(call) for name, call in calls.items()} for _ in range(options.rounds)]
        seconds = {name: np.array([one[name] for one in found]) for name in calls}
        rows = []
        for name, values in seconds.items():
            step, ratio = Spread.of(values), Spread.of(values / seconds["plain"])
            cells.append({"task": task, "row": name, "seconds": step.as_dict(), "ratio": ratio.as_dict()})
            rows.append((name, duration(step.median), *ratio.as_ratio()))
        batch = f"batch {config.data.batch_size}, median of {options.rounds} rounds"
        show(f"Processor time of a training step of {task}, {batch}\n")
        show(table(("row", "step", "to plain", "quartiles"), rows) + "\n")
    return cells


def _burst(call: Callable[[], object]) -> float:
    """Processor seconds of one of several steps: whoever else uses the machine counts little."""
    call()
    started = clock.process_time()
    for _ in range(_STEPS):
        call()
    return (clock.process_time() - started) / _STEPS


def _steps(config: Config) -> dict[str, Callable[[], object]]:
    """A training step of each by its name, on one batch."""
    data = load_data(config)
    inputs, targets = split(next(iter(data.batches(data.train, config.data.batch_size))))
    make = partial(make_network, config.model, data.facts, seed=0)

    def loss_of(network: nn.Module) -> Callable[[], Tensor]:
        return lambda: data.task.loss(network(inputs), targets)

    def stepper(model: nn.Module, net: nn.Module, **others: Any) -> Callable[[], object]:
        given: dict[str, Any] = {"learned": [], "clipped": None, "schedule": None, **others}
        steps = Stepper(config, model, net.train(), steps=1, begin=0, method=plain_step, group=ALONE, **given)
        return partial(steps.step, loss_of(net))

    plain, model = make(), make()
    twin = analogsim.convert(model, config.device, crossbar=array_of(config, aware=True))
    analogsim.calibrate(twin, calibration_batches(config, data))
    ours = {"learned": analogsim.range_parameters(twin), "clipped": twin, "schedule": noise_schedule(config, twin, 1)}
    theirs = peer_methods.Trainee(make(), peer_methods.RECOMMENDED, config, 1)
    return {
        "plain": stepper(plain, plain),
        "lightning": partial(theirs.step, loss_of(theirs.network)),
        "default": stepper(model, twin, **ours),
    }


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    found = argparse.ArgumentParser(
        prog="python -m benchmarks.beside", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("step", choices=("train", "judge", "time"), help="what to do")
    found.add_argument("tasks", nargs="+", choices=tuple(LADDER), metavar="TASK", help=f"of {', '.join(LADDER)}")
    found.add_argument("--seeds", type=int, default=3, help="training seeds, from 0 on")
    found.add_argument("--lr", type=float, nargs="+", default=[], help="learning rates (default: the task's own)")
    found.add_argument("--epochs", type=int, help="of all rows (default: the task's own)")
    found.add_argument("--limit", type=int, help="samples of each part of the data (default: all)")
    found.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings of all rows")
    found.add_argument("--peers", type=Path, default=Path("data/beside"), help="the other tool's networks")
    found.add_argument("--work", type=Path, default=Path("data/robust"), help="ours, and unpacked data")
    found.add_argument("--crossbar", default="standard", help="array, converters and wires")
    of_judge = found.add_argument_group("judge")
    of_judge.add_argument("--device", nargs="+", default=["pcm", "stuck-at"], help=f"of {', '.join(DEVICES)}, or text")
    found.add_argument("--rows", nargs="*", default=["plain", "default", *PEERS], help="how networks are trained")
    found.add_argument("--row", action="append", default=[], metavar="NAME:KEY=VALUE,...", help="one more row")
    of_judge.add_argument("--remedies", nargs="+", default=["auto", "prepare"], help="compensations, or prepare")
    of_judge.add_argument("--chips", type=int, default=25)
    of_judge.add_argument("--samples", type=int, help="of the test data (default: all)")
    of_judge.add_argument("--out", type=Path, default=Path("beside.json"), metavar="FILE", help="JSON of all cells")
    of_time = found.add_argument_group("time")
    of_time.add_argument("--rounds", type=int, default=24, help="of steps of each in turn")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one step of the comparison; 2 where aihwkit-lightning or its networks are missing."""
    options = parser().parse_args(arguments)
    show = partial(print, flush=True)
    if options.step != "judge" and not peer_methods.available():
        print(_MISSING, file=sys.stderr)
        return 2
    try:
        asked = Asked(options)
        if options.step == "train":
            train(asked, show)
        elif options.step == "time":
            time(asked, options, show)
        else:
            show(f"\n{tables(judge(asked, options, show))}")
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def row_of(text: str) -> Row:
    """A row of the other tool, or one of ours.

    Raises:
        ValueError: there is no such row.
    """
    try:
        return Row(text, ()) if text in PEERS else Row.read(text)
    except ValueError as error:
        known = ", ".join((*ROWS, *PEERS))
        raise ValueError(f"beside: there is no row {text!r}; there are {known}, or name:KEY=VALUE,...") from error


if __name__ == "__main__":
    raise SystemExit(main())
