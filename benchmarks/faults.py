"""What it is worth to know which cells are stuck.

A trained network (a checkpoint of ``analogsim train``) on chips with stuck cells and no other error: faults that nobody
knows of, faults that pairs are written around, and lines exchanged such that weights meet few of them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import analogsim
from analogsim import DeviceModel, Mapping, Quantization
from analogsim.chip.lifecycle import Faults
from analogsim.evaluation.report import compare_table
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.stored import from_stored
from analogsim.recipes.tasks import data_sets, networks
from analogsim.recipes.training.checkpoint import load_checkpoint, load_weights
from analogsim.recipes.training.setup import load_data


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate the network three times on as many chips, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--faults", default="stuck-at", help="what draws them (default: stuck-at)")
    parser.add_argument("--chips", type=int, default=10)
    options = parser.parse_args(arguments)
    content = load_checkpoint(options.checkpoint)
    config = from_stored(Config, content["config"], str(options.checkpoint))
    data = load_data(config)
    model = networks.make_network(config.model, data.facts, seed=config.seed)
    load_weights(model, content["model"], str(options.checkpoint))
    batches = list(data_sets.batches(data.test, 1000))
    # Levels far finer than any fault: a device that is exact, but has cells.
    exact = DeviceModel((Quantization(levels=2**20),), mapping=Mapping("pair"), name=f"exact, {options.faults}")
    analog = analogsim.convert(model, exact)
    spent = []

    def known(seed: int) -> Faults:
        return analogsim.draw_faults(analog, options.faults, seed)

    def laid(seed: int) -> Faults:
        start = time.process_time()
        result = analogsim.remap(analog, known(seed))
        spent.append(time.process_time() - start)
        return result

    unknown = analogsim.convert(model, [exact, options.faults])
    reports = {
        "unknown": analogsim.evaluate(unknown, batches, chips=options.chips, times=(0.0,)),
        "written around": analogsim.evaluate(analog, batches, chips=options.chips, times=(0.0,), faults=known),
        "and remapped": analogsim.evaluate(analog, batches, chips=options.chips, times=(0.0,), faults=laid),
    }
    print(compare_table(reports))
    print(f"remapping: {sum(spent) / len(spent):.1f} s of processor time for a chip")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
