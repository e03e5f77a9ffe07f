"""The options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness.networks import CASES
from benchmarks.harness.timing import environment


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


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what to time, where, how often, and the file to write."""
    everything = ",".join(CASES)
    parser.add_argument(
        "--models", type=_models, default=everything, metavar="A,B", help=f"networks to time (default: {everything})"
    )
    parser.add_argument("--device", type=_device, default="cpu", metavar="cpu|cuda", help="where (default: cpu)")
    parser.add_argument("--rounds", type=_positive, default=24, metavar="N", help="rounds (default: 24)")
    parser.add_argument(
        "--steps", type=_positive, metavar="N", help="calls in a burst (default: as many as take about 50 ms)"
    )
    parser.add_argument("--threads", type=_positive, metavar="N", help="CPU threads of torch (default: torch's own)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write results, hardware and versions to this file")


def begin(options: argparse.Namespace, **versions: str) -> dict[str, Any]:
    """Set the number of threads, print where it runs, and return the document that results go into.

    Args:
        options: as parsed.
        versions: of what else is compared.
    """
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    document = environment(options.device)
    document["versions"] |= versions
    hardware = document["hardware"]
    where = f"{hardware['cpu']}, {hardware['threads']} threads" + (f", {hardware['gpu']}" if hardware["gpu"] else "")
    named = {name: document["versions"][name] for name in ("torch", "analogsim", *versions)}
    print(f"{where}; {', '.join(f'{name} {value}' for name, value in named.items())}\n", flush=True)
    return document
