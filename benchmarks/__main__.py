"""The command line: ``python -m benchmarks train|chip|hardware|montecarlo|all|zoo``, from the root of the checkout."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import chip, hardware, montecarlo, train, zoo
from benchmarks._networks import CASES
from benchmarks._timing import environment, write
from benchmarks._zoo import NETWORKS

_BENCHMARKS = {"train": train.run, "chip": chip.run, "hardware": hardware.run, "montecarlo": montecarlo.run}

_DESCRIPTION = """\
What training on noisy weights costs beside plain training, and what a chip and its periphery cost.

  train  one training step (forward, backward, Adam): plain torch, the ways to train on noisy weights that a forum
         thread knew, and analogsim.convert. Methods that draw the same noise are checked for the same gradients first.
  chip   program a chip and let it age a day; a forward on it beside a plain forward.
  hardware
         converters, partial sums, read noise, bit slices: a forward of a chip and a training step with each of them.
  montecarlo
         forwards of many chips, one after the other and several at once.
  all    all of these.
  zoo    networks that people have: what of each runs analog, and what a training step costs.

Methods take turns in short bursts, and each ratio is taken within one round, so that a busy machine spoils little.
Each network has random data and its own batch size."""


def _models(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in CASES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"must be some of {','.join(CASES)}, got {text!r}")
    return list(dict.fromkeys(names))


def _device(text: str) -> torch.device:
    if text not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"must be cpu or cuda, got {text!r}")
    if text == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError("this torch sees no GPU; use cpu")
    return torch.device(text)


def _positive(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmark", choices=(*_BENCHMARKS, "all", "zoo"), help="what to time")
    everything = ",".join(CASES)
    parser.add_argument(
        "--models", type=_models, default=everything, metavar="A,B", help=f"networks to time (default: {everything})"
    )
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=NETWORKS,
        default=list(NETWORKS),
        metavar="NAME",
        help=f"of the zoo: {', '.join(NETWORKS)} (default: all)",
    )
    parser.add_argument("--quick", action="store_true", help="the zoo's networks as tiny as the tests take them")
    parser.add_argument("--device", type=_device, default="cpu", metavar="cpu|cuda", help="where (default: cpu)")
    parser.add_argument("--rounds", type=_positive, default=24, metavar="N", help="rounds (default: 24)")
    parser.add_argument(
        "--steps", type=_positive, metavar="N", help="calls in a burst (default: as many as take about 50 ms)"
    )
    parser.add_argument("--threads", type=_positive, metavar="N", help="CPU threads of torch (default: torch's own)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write results, hardware and versions to this file")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that the command line asks for."""
    options = _parser().parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    kinds = list(_BENCHMARKS) if options.benchmark == "all" else [options.benchmark]
    document = environment(options.device)
    hardware, versions = document["hardware"], document["versions"]
    where = f"{hardware['cpu']}, {hardware['threads']} threads" + (f", {hardware['gpu']}" if hardware["gpu"] else "")
    print(f"{where}; torch {versions['torch']}, analogsim {versions['analogsim']}\n", flush=True)
    results: list[dict[str, Any]] = []
    times: dict[str, Any] = {"rounds": options.rounds, "steps": options.steps}
    if options.benchmark == "zoo":
        results = zoo.run(options.networks, options.device, full=not options.quick, **times)
        kinds = []
    for kind in kinds:
        for name in options.models:
            results += _BENCHMARKS[kind](CASES[name], options.device, **times)
    if options.json is not None:
        document["settings"] = times
        document["results"] = results
        write(options.json, document)
        print(f"written: {options.json}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
