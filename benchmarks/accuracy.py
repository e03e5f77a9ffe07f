"""The tables of docs/results.md: plain and hardware-aware training of the bundled configurations, on chips.

    OMP_NUM_THREADS=1 python -m benchmarks.accuracy --networks digits-mlp,digits-lenet5 --devices pcm --seeds 0,1,2

Each row is what `analogsim train NAME --seed SEED` prints, with the settings of `DEVICES` for
another device than phase-change memory. One thread: with another number of them sums round differently, and training
runs apart from there, as with another seed or another version of torch.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from analogsim.evaluation.report import Report
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import load_toml
from analogsim.recipes.train import train
from benchmarks.harness.timing import environment, write

CONFIGS = Path(__file__).resolve().parents[1] / "recipes" / "configs"
NETWORKS = {
    "digits-mlp": "digits, MLP",
    "digits-lenet5": "digits, LeNet-5",
    "fashion-mnist-mlp": "Fashion-MNIST, MLP",
    "fashion-mnist-lenet5": "Fashion-MNIST, LeNet-5",
}
DEVICES: dict[str, tuple[str, tuple[str, ...]]] = {
    "pcm": ("pcm", ()),
    "gaussian": ("gaussian, 5 %", ("device=gaussian(std=0.05)", 'evaluation.times=["1s"]')),
    "quantization": (
        "quantization, 16 levels (4 bit)",
        ("device=quantization(levels=16)", "noise.end=1", 'evaluation.times=["1s"]'),
    ),
    "stuck-at": (
        "stuck-at 9.04 % off, 1.75 % on",
        ("device=stuck-at", "noise.end=1", 'evaluation.times=["1s"]'),
    ),
}
"""Their titles, and the settings that go with them."""


def reports_of(network: str, device: str, seed: int, *settings: str) -> dict[str, Report]:
    """Train both networks of a row and put them on chips.

    Args:
        network: of `NETWORKS`.
        device: of `DEVICES`.
        seed: of training.
        settings: others, as ``"evaluation.chips=5"``.

    Returns:
        The reports of ``"plain"`` and ``"hardware-aware"``.
    """
    asked = [*DEVICES[device][1], f"seed={seed}", "tracking.enabled=false", *settings]
    return train(load_toml(Config, CONFIGS / f"{network}.toml", asked), show=False).reports


def cells_of(report: Report) -> list[str]:
    """Clean accuracy, that at each time, and the last time's 5th percentile, in percent."""
    on_chips = [f"{100 * mean:.2f} ± {100 * std:.2f}" for mean, std in zip(report.mean, report.std, strict=True)]
    return [f"{100 * report.clean:.2f}", *on_chips, f"{100 * float(report.quantile(0.05)[-1]):.2f}"]


def circumstances() -> str:
    """What rounding, and so training, depends on."""
    threads = torch.get_num_threads()
    version, capability = torch.__version__.split("+")[0], torch.backends.cpu.get_cpu_capability()
    return f"torch {version}, {capability}, {threads} CPU thread{'s' if threads > 1 else ''}"


def _chosen(known: dict[str, Any]) -> Any:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        if not set(names) <= set(known):
            raise argparse.ArgumentTypeError(f"must be some of {','.join(known)}, got {text!r}")
        return names

    return parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is asked for, and print a row for each network as it is done."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", type=_chosen(NETWORKS), default=list(NETWORKS), metavar="A,B")
    parser.add_argument("--devices", type=_chosen(DEVICES), default=list(DEVICES), metavar="A,B")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further settings of all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write scores, hardware and versions to this file")
    options = parser.parse_args(arguments)
    print(circumstances())
    results = []
    for device in options.devices:
        for network in options.networks:
            for seed in options.seeds:
                reports = reports_of(network, device, seed, *options.set)
                for training, report in reports.items():
                    row = (NETWORKS[network], DEVICES[device][0], f"seed {seed}", training, *cells_of(report))
                    print(f"| {' | '.join(row)} |", flush=True)
                    results.append({"network": network, "device": device, "seed": seed, "training": training})
                    results[-1] |= {"clean": report.clean, "values": report.values.tolist()}
    if options.json is not None:
        write(options.json, {**environment(torch.device("cpu")), "results": results})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
