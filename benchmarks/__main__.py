"""The command line: ``python -m benchmarks train|chip|hardware|...``, at the checkout's root."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import chip, compiled, draws, gpu, growth, hardware, memory, montecarlo, noise, startup, train, zoo
from benchmarks.harness.networks import CASES
from benchmarks.harness.options import add_options, begin
from benchmarks.harness.timing import write
from benchmarks.harness.zoo_families import ZOO

# Of each of the models that are asked for; those of "all", and others.
_BENCHMARKS = {"train": train.run, "chip": chip.run, "hardware": hardware.run, "montecarlo": montecarlo.run}
_OF_MODELS = {**_BENCHMARKS, "compiled": compiled.run, "draws": draws.run}
# On networks of their own.
_ON_THEIR_OWN: dict[str, Callable[..., list[dict[str, Any]]]] = {
    "noise": lambda options, times: noise.run(options.device, **times),
    "zoo": lambda options, times: zoo.run(options.networks, options.device, full=not options.quick, **times),
    "startup": lambda options, times: startup.run(options.device, quick=options.quick, **times),
    "growth": lambda options, times: growth.run(options.device, quick=options.quick, file=options.plot, **times),
}

_DESCRIPTION = """\
What training on noisy weights costs beside plain training, and what a chip and its periphery cost.

  train  one training step (forward, backward, Adam): plain torch, the ways to train on noisy weights that a forum
         thread knew, and analogsim.convert. Methods that draw the same noise are checked for the same gradients first.
  chip   program a chip and let it age a day, beside training, the memory's bandwidth and the loading of data; a forward
         on it beside a plain forward.
  hardware
         converters, partial sums, read noise, bit slices: a forward of a chip and a training step with each of them.
  montecarlo
         forwards of many chips, one after the other and several at once.
  all    all of these.
  memory
         bytes that a training step keeps for its backward pass; nothing is timed.
  compiled
         training steps under torch.compile.
  draws  training steps in eager code, with draws by eager and by compiled code.
  noise  what a normal number and a draw of phase-change memory cost, by where they come from.
  zoo    networks that people have: what of each runs analog, and what a training step costs.
  startup
         imports, convert, the first forward and the first compiled step, in fresh processes.
  gpu    all that wants a GPU, in minutes: python -m benchmarks gpu --help.
  growth cost against parameters, chips, times, batch, crossbar size and workers, with the slopes that are expected.

Methods take turns in short bursts, and each ratio is taken within one round, so that a busy machine spoils little.
Each network has random data and its own batch size."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = (*_BENCHMARKS, "all", "memory", "compiled", "draws", "noise", "zoo", "startup", "growth")
    parser.add_argument("benchmark", choices=kinds, help="what to measure")
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=ZOO,
        default=list(ZOO),
        metavar="NAME",
        help=f"of the zoo: {', '.join(ZOO)} (default: all)",
    )
    parser.add_argument("--quick", action="store_true", help="zoo, startup, growth: as tiny as the tests take them")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw what growth finds")
    add_options(parser)
    return parser


def _measured(options: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What the benchmark found, and with which settings it was measured."""
    device, kind = options.device, options.benchmark
    times = {"rounds": options.rounds, "steps": options.steps}
    rounds = {"rounds": options.rounds}
    if kind in _ON_THEIR_OWN:
        measure, settings = _ON_THEIR_OWN[kind], rounds if kind == "startup" else times
        return measure(options, settings), settings
    if kind == "memory":
        return [row for name in options.models for row in memory.run(CASES[name], device)], {}
    results = []
    for each in _BENCHMARKS if kind == "all" else (kind,):
        for name in options.models:
            results += _OF_MODELS[each](CASES[name], device, **times)
    return results, times


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that the command line asks for."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["gpu"]:
        return gpu.main(given[1:])
    options = _parser().parse_args(given)
    document = begin(options)
    results, settings = _measured(options)
    if options.json is not None:
        document["settings"] = settings
        document["results"] = results
        write(options.json, document)
        print(f"written: {options.json}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
