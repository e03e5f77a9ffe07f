"""What each compensation gives back to a trained network on chips that age.

A checkpoint of ``analogsim train`` is evaluated on the same chips with every kind of drift compensation, with outputs
matched to the digital network's (at each age, and at one hour for all), and where there is batch norm with it estimated
anew on each chip at each time, and with both. The data for that are inputs of the training set.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

import analogsim
from analogsim.chip.batch_norm import has_batch_norm
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.stored import from_stored
from analogsim.recipes.tasks import data_sets, networks
from analogsim.recipes.training.checkpoint import load_checkpoint, load_weights
from analogsim.recipes.training.setup import load_data
from analogsim.utils.text import table


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate the network with each compensation, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compensation", description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--device", help="device model (default: the run's)")
    parser.add_argument("--crossbar", help="array, converters and wires (default: the run's)")
    parser.add_argument("--chips", type=int, default=10)
    parser.add_argument("--times", default="1s,1d,1y", help="since programming (default: 1s,1d,1y)")
    parser.add_argument("--only", help="compensations, joined by commas (default: all)")
    parser.add_argument("--samples", type=int, default=512, help="inputs for the estimates (default: 512)")
    options = parser.parse_args(arguments)
    content = load_checkpoint(options.checkpoint)
    config = from_stored(Config, content["config"], str(options.checkpoint))
    data = load_data(config)
    model = networks.make_network(config.model, data.facts, seed=config.seed)
    load_weights(model, content["model"], str(options.checkpoint))
    analog = analogsim.convert(model, options.device or config.device, crossbar=options.crossbar or config.crossbar)
    inputs = data.train.tensors[0][: options.samples]
    kinds = ["none", "global", "crossbar", "column", "global+bias", "global+affine", "global+affine@1h"]
    if has_batch_norm(model):
        kinds += ["batch-norm", "global+batch-norm", "column+batch-norm", "global+affine+batch-norm"]
    kinds = options.only.split(",") if options.only else kinds
    reports = {
        kind: analogsim.evaluate(
            analog,
            data_sets.batches(data.test, config.evaluation.batch_size),
            chips=options.chips,
            times=options.times.split(","),
            compensation=None if kind == "none" else kind,
            calibration=torch.split(inputs, 128),
        )
        for kind in kinds
    }
    first = next(iter(reports.values()))
    rows = [
        (kind, *(f"{100 * mean:.2f} ± {100 * std:.2f}" for mean, std in zip(report.mean, report.std, strict=True)))
        for kind, report in reports.items()
    ]
    print(table(("accuracy [%]", *(f"after {label}" for label in first.labels)), rows))
    print(f"clean {100 * first.clean:.2f}; mean ± std over chips: {first.device}, {len(first.seeds)} chips")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
