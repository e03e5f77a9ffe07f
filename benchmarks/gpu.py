"""All that wants a GPU in one command: checks first, then training steps, chips and Monte Carlo, in minutes.

    python -m benchmarks gpu --out gpu.json
    python -m benchmarks gpu --out gpu.json --dry       # on the CPU, as tiny as can be: the same code
    python -m benchmarks gpu --table gpu.json

From a bare checkout, with torch and what `analogsim` itself needs. Each step is a process of its own with a time limit;
what it has found until then is kept, and the file is whole after each step.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import analogsim
from analogsim.utils.text import table
from benchmarks import chip
from benchmarks.harness import gpu_networks
from benchmarks.harness.gpu_checks import CHECKS
from benchmarks.harness.methods import HandWritten, Method, Twin, relative
from benchmarks.harness.networks import CASES as SMALL_CASES
from benchmarks.harness.networks import Case
from benchmarks.harness.timing import Spread, duration, environment, interleave, write

Row = dict[str, Any]
_COPIED = 2**26  # float32: more than the caches of a card hold
_ROW = "row "  # begins a line of a step's output that holds one
_CHIPS, _SAMPLES, _TIMES = 1000, 2000, ("1s", "1y")


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        cases: networks by name.
        rounds: of each comparison.
        steps: calls in a burst; None: as many as take about 50 ms.
        seconds: how long chips are drawn and judged.
        samples: on which chips are judged.
        judged: networks whose chips are judged.
    """

    cases: Mapping[str, Case]
    rounds: int
    steps: int | None
    seconds: float
    samples: int
    judged: tuple[Case, ...]


_FULL = Scale(gpu_networks.CASES, 8, None, 15.0, _SAMPLES, (SMALL_CASES["lenet5"], SMALL_CASES["resnet18"]))
DRY = Scale(gpu_networks.TINY, 1, 1, 0.1, 4, (gpu_networks.TINY["resnet18"],))


class InHalf(Method):
    """A method whose forward runs in bfloat16 by torch's autocast, over weights in float32.

    Args:
        model: the network.
        make: the method.
        backend: of torch.compile; None: the network stays eager.
    """

    def __init__(self, model: nn.Module, make: Callable[[nn.Module], Method], backend: str | None = None) -> None:
        super().__init__(model)
        method = make(model)
        network: nn.Module = getattr(method, "analog", method.model)
        self.network: Any = network if backend is None else torch.compile(network, backend=backend)

    def backward(self, images: Tensor, labels: Tensor) -> None:
        """See `Method.backward`."""
        with torch.autocast(images.device.type, torch.bfloat16):
            loss = nn.functional.cross_entropy(self.network(images), labels)
        torch.autograd.backward(loss)


METHODS: dict[str, Callable[[nn.Module], Method]] = {
    "plain": Method,
    "hand-written": lambda model: HandWritten(model, relative),
    "gaussian": lambda model: Twin(model, analogsim.Gaussian(0.05)),
    "pcm": lambda model: Twin(model, "pcm"),
}


def _check(place: torch.device, _: Scale) -> Iterator[Row]:
    """Every check that only a GPU can make, by name."""
    for name, check in CHECKS.items():
        begun = time.perf_counter()
        try:
            check(place)
        except Exception as error:
            yield {"check": name, "passed": False, "told": f"{type(error).__name__}: {error}"[:500]}
        else:
            yield {"check": name, "passed": True, "seconds": time.perf_counter() - begun}


def _second_of_a_float(place: torch.device, scale: Scale) -> float:
    """Seconds in which one float32 is read and written: the bandwidth, as copying finds it."""
    source = torch.zeros(_COPIED if scale is _FULL else 1024, device=place)
    calls = {"copy": partial(torch.empty_like(source).copy_, source)}
    return float(interleave(calls, rounds=3, steps=10, device=place)["copy"].min()) / source.numel()


def _peak(place: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated(place) if place.type == "cuda" else None


def _train(place: torch.device, scale: Scale, *, network: str, compiled: bool) -> Iterator[Row]:
    """Training steps of one network, each method beside plain training alone, so that two networks fit into memory.

    The floor is that of the noise: each weight is read and each noisy weight written once more in a step.
    """
    case, copied = scale.cases[network], _second_of_a_float(place, scale)
    # A dry run makes the same graphs; their kernels take the CPU's compiler minutes.
    backend = None if not compiled else "inductor" if place.type == "cuda" else "aot_eager"
    images, labels = case.data(place)
    for name, make in METHODS.items():
        gc.collect()
        if place.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(place)
        torch.compiler.reset()
        row: Row = {"network": network, "method": name, "batch": case.batch, "compiled": compiled}
        try:
            begun = time.perf_counter()
            method = InHalf(case.model(place), make, backend)
            weights = sum(parameter.numel() for parameter in method.model.parameters() if parameter.ndim > 1)
            for _ in range(2):
                method.step(images, labels)
            row |= {"weights": weights, "ready_seconds": time.perf_counter() - begun, "peak_bytes": _peak(place)}
            calls: dict[str, Callable[[], object]] = {name: partial(method.step, images, labels)}
            if name != "plain":
                plain = InHalf(case.model(place), Method, backend)
                calls["plain"] = partial(plain.step, images, labels)
                calls["plain"]()
            seconds = interleave(calls, rounds=scale.rounds, steps=scale.steps, device=place)
        except torch.OutOfMemoryError as error:
            yield {**row, "failed": f"out of memory: {error}"[:200]}
            continue
        step, base = Spread.of(seconds[name]), Spread.of(seconds["plain"])
        row |= {"seconds": step.as_dict(), "ratio": Spread.of(seconds[name] / seconds["plain"]).as_dict()}
        yield {**row, "floor_ratio": 1 + (name != "plain") * weights * copied / base.median}


def _draw(place: torch.device, scale: Scale) -> Iterator[Row]:
    """Programming and drift, in ns a cell beside the card's bandwidth."""
    said: list[str] = []
    rounds = 1 if scale is DRY else 3
    yield from chip.run(scale.cases["resnet18"], place, rounds=rounds, steps=1, say=said.append)


def _judge(place: torch.device, scale: Scale) -> Iterator[Row]:
    """A thousand chips: as many as come in some seconds, and what a thousand would take."""
    for case in scale.judged:
        model = case.model(place).eval()
        analog = analogsim.convert(model, "pcm")
        batch = [case.data(place, scale.samples)]
        analogsim.evaluate(analog, batch, chips=1, times=_TIMES)
        chips, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < scale.seconds or not chips:
            analogsim.evaluate(analog, batch, chips=4, times=_TIMES)
            chips += 4
        took = (time.perf_counter() - begun) / chips
        yield {
            "network": case.name,
            "samples": scale.samples,
            "times": len(_TIMES),
            "chips_measured": chips,
            "seconds_per_chip": took,
            "seconds_per_1000_chips": took * _CHIPS,
        }


@dataclass(frozen=True)
class Step:
    """A part of the whole, in a process of its own.

    Args:
        run: gives rows as it finds them.
        limit: seconds, with the start of its process.
    """

    run: Callable[[torch.device, Scale], Iterator[Row]]
    limit: float


STEPS = {
    "checks": Step(_check, 80),
    **{f"train {name}": Step(partial(_train, network=name, compiled=False), 30) for name in gpu_networks.CASES},
    "chip": Step(_draw, 30),
    "chips": Step(_judge, 50),
    **{f"compiled {name}": Step(partial(_train, network=name, compiled=True), 50) for name in gpu_networks.CASES},
}
"""In the order of what is wanted most; their limits are eight minutes in all."""


def _run_one(name: str, *, dry: bool) -> None:
    """In the process of a step: print each row as soon as it is there."""
    place = torch.device("cpu" if dry else "cuda")
    for row in STEPS[name].run(place, DRY if dry else _FULL):
        print(_ROW + json.dumps(row), flush=True)


def _called(name: str, *, dry: bool, limit: float) -> Row:
    """Run a step in a process of its own, for so long at most."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--step", name, *["--dry"] * dry]
    begun, told = time.perf_counter(), ""
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired as error:
        status, output = f"ended after {limit:g} s", error.stdout or b""
    else:
        status, output = ("done" if done.returncode == 0 else f"failed with {done.returncode}"), done.stdout
        if done.returncode:
            told = (done.stderr.decode(errors="replace").strip().splitlines() or ["no word why"])[-1][:500]
    # A process that was ended may leave half a line.
    lines = [line for line in output.decode(errors="replace").splitlines(keepends=True) if line.endswith("\n")]
    rows = [json.loads(line.removeprefix(_ROW)) for line in lines if line.startswith(_ROW)]
    seconds = round(time.perf_counter() - begun, 1)
    return {"status": status, "seconds": seconds, "rows": rows, **({"told": told} if told else {})}


def tables(document: Mapping[str, Any]) -> str:
    """What a file holds, as text."""
    hardware, versions = document["hardware"], document["versions"]
    parts = [f"{hardware['gpu'] or hardware['cpu']}; torch {versions['torch']}; {document['date']}"]
    found = document["steps"]
    overview = [
        (name, step["status"], f"{step['seconds']:.0f} s", step.get("told", "")) for name, step in found.items()
    ]
    parts.append(table(("step", "status", "took", ""), overview, right=2))
    checks = [(row["check"], "passed" if row["passed"] else row["told"]) for row in _rows(found, "check")]
    training = [_training_row(row) for row in _rows(found, "method")]
    drawn = [
        (row["device"], f"{row['program_ns_per_cell']:.2f}", f"{row['drift_ns_per_cell']:.2f}", f"{row['cells']:,}")
        for row in _rows(found, "program_ns_per_cell")
    ]
    judged = [
        (row["network"], str(row["chips_measured"]), duration(row["seconds_per_1000_chips"]))
        for row in _rows(found, "chips_measured")
    ]
    heads = (
        (("check", ""), checks),
        (("network", "method", "step", "to plain", "floor", "peak memory"), training),
        (("chip of resnet18", "program, ns a cell", "drift, ns a cell", "cells"), drawn),
        (("chips of", "measured", f"{_CHIPS} at {len(_TIMES)} times"), judged),
    )
    parts += [table(head, rows) for head, rows in heads if rows]
    return "\n\n".join(parts)


def _rows(found: Mapping[str, Any], key: str) -> list[Row]:
    return [row for step in found.values() for row in step["rows"] if key in row]


def _training_row(row: Row) -> tuple[str, ...]:
    name = row["network"] + (", compiled" if row["compiled"] else "")
    if "failed" in row:
        return (name, row["method"], row["failed"], "", "", "")
    memory = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**30:.2f} GiB"
    ratio, floor = f"{row['ratio']['median']:.2f}x", f"{row['floor_ratio']:.2f}x"
    return (name, row["method"], duration(row["seconds"]["median"]), ratio, floor, memory)


def run(out: Path, *, dry: bool, names: Sequence[str], say: Callable[[str], object] = print) -> int:
    """Take the steps, one after the other; the file is written after each.

    Returns:
        The exit status: 0 where every check passed and no step failed; a step that its time limit ended is no failure.
    """
    document: dict[str, Any] = environment(torch.device("cpu" if dry else "cuda"))
    document |= {"dry": dry, "steps": {}}
    for name in names:
        limit = STEPS[name].limit * (10 if dry else 1)  # on a CPU that others use as well
        document["steps"][name] = step = _called(name, dry=dry, limit=limit)
        write(out, document)
        say(f"{name}: {step['status']}, {len(step['rows'])} rows, {step['seconds']:.0f} s")
    say("\n" + tables(document) + f"\n\nwritten: {out}")
    failed = any(step["status"].startswith("failed") for step in document["steps"].values())
    return int(failed or not all(row["passed"] for row in _rows(document["steps"], "check")))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), metavar="FILE", help="default: gpu.json")
    parser.add_argument("--dry", action="store_true", help="on the CPU, as tiny as can be")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--table", type=Path, metavar="FILE", help="only print the tables of a file")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.table is not None:
        print(tables(json.loads(options.table.read_text(encoding="utf-8"))))
        return 0
    if not options.dry and not torch.cuda.is_available():
        parser.error("this torch sees no GPU; --dry takes the same steps on the CPU, as tiny as can be")
    if options.step is not None:
        _run_one(options.step, dry=options.dry)
        return 0
    return run(options.out, dry=options.dry, names=options.steps)


if __name__ == "__main__":
    raise SystemExit(main())
