"""What logging costs: the time an epoch spends on MLflow, on Optuna's storage and on its checkpoint.

Each epoch of a real training is timed, and within it each thing that is not training. Everything is written to SQLite
files and a folder in a temporary place, as the defaults do it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import load_toml
from analogsim.recipes.study.samplers import pruner
from analogsim.recipes.study.storages import open_storage
from analogsim.recipes.tracking.log_report import parameters
from analogsim.recipes.tracking.tracked_run import Run
from analogsim.recipes.training.loop import Training
from analogsim.recipes.training.setup import load_data
from analogsim.utils.text import table

NETWORKS = {
    "digits, MLP": ["data.name=digits", "model=mlp"],
    "digits, LeNet-5": ["data.name=digits", "model=lenet5"],
    "Fashion-MNIST, LeNet-5": ["data.name=fashion-mnist", "model=lenet5", "data.batch_size=128"],
}


@dataclass
class Epochs:
    """Seconds of each epoch, and of its parts that are not training."""

    whole: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time the block, as part `name`."""
        began = time.perf_counter()
        yield
        self.parts.setdefault(name, []).append(time.perf_counter() - began)


class _Timed(Training):
    """A training that tells how long its checkpoints take."""

    epochs: Epochs | None = None

    def save(self) -> None:
        with contextlib.nullcontext() if self.epochs is None else self.epochs.timed("checkpoint"):
            super().save()


def measure(settings: list[str], epochs: int) -> Epochs:
    """Train with everything on, in the working directory, which should be an empty one."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    config = load_toml(Config, None, [*settings, f"optimization.epochs={epochs + 1}"])
    training = _Timed(config, load_data(config), aware=True, path=Path("trial/checkpoint.pt"))
    tracker = Run.start(
        experiment="benchmark", name="benchmark", params=parameters(training.config, training.analog, "hardware-aware")
    )
    storage = open_storage(f"sqlite:///{Path.cwd()}/optuna.db", heartbeat=30, on_dead=lambda *_: None)
    study = optuna.create_study(storage=storage, direction="maximize", pruner=pruner("median", epochs))
    for value in range(10):  # that the pruner has something to compare with
        study.add_trial(
            optuna.create_trial(state=optuna.trial.TrialState.COMPLETE, value=value / 10, intermediate_values={1: 0.5})
        )
    found = Epochs()

    def objective(trial: optuna.Trial) -> float:
        training.set_random_state()
        metrics = training.run_epoch(lambda _: None)  # the first one pays for what is done once
        tracker.metrics(metrics, step=0)
        training.epochs = found
        while not training.done:
            began = time.perf_counter()
            metrics = training.run_epoch(lambda _: None)
            with found.timed("MLflow"):
                tracker.metrics(metrics, step=training.epoch)
            with found.timed("Optuna"):
                trial.report(metrics["validation/accuracy/drifted_1d"], training.epoch)
                trial.should_prune()
            found.whole.append(time.perf_counter() - began)
        return 0.0

    study.optimize(objective, n_trials=1)
    tracker.end()
    return found


def row(name: str, found: Epochs) -> tuple[str, ...]:
    """Median seconds of an epoch, and of its parts in milliseconds and percent of it."""
    whole = statistics.median(found.whole)
    cells = [f"{1000 * statistics.median(times):.0f} ms" for times in found.parts.values()]
    total = sum(statistics.median(times) for times in found.parts.values())
    return name, f"{whole:.2f} s", *cells, f"{100 * total / (whole - total):.2f} %"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracking", description=__doc__)
    parser.add_argument("--epochs", type=int, default=10, help="timed epochs of each network")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    options = parser.parse_args()
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    rows = []
    for name in options.networks:
        with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
            rows.append(row(name, measure(NETWORKS[name], options.epochs)))
    print(table(("hardware-aware training, pcm", "epoch", "checkpoint", "MLflow", "Optuna", "overhead"), rows))


if __name__ == "__main__":
    main()
