"""What starting costs: imports, `convert`, the first forward and the first compiled step, each in a fresh process.

A process pays for much only once: files that are read, kernels that are chosen, code that is compiled. So each number
is that of a process of its own, and processes that are compared take turns. Medians leave out the first ones, which may
find no bytecode and an empty file cache. What compilation makes is kept nowhere between processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import analogsim
from analogsim.utils.text import table
from benchmarks.harness.methods import answer, descend
from benchmarks.harness.networks import CASES
from benchmarks.harness.timing import Seconds, Spread, duration

DEVICE = "gaussian"
KINDS = ("digital", "analog")
COMPILED = ("mlp", "lenet5")
_ROOT = Path(__file__).resolve().parents[1]

Found = dict[str, float]
Say = Callable[[str], object]


class Blocks(nn.Module):
    """A stack of transformer blocks: attention and two linear layers in each, without dropout.

    Args:
        layers: how many blocks.
        width: of the model; four times as much between the two linear layers.
        heads: of attention.
    """

    def __init__(self, layers: int = 24, width: int = 256, heads: int = 4) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True)
        self.stack = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, tokens, width)`` to the same shape."""
        y: Tensor = self.stack(x)
        return y


def _resnet50() -> nn.Module:
    from torchvision.models import resnet50

    network: nn.Module = resnet50()
    return network


@dataclass(frozen=True)
class Network:
    """A network that is converted.

    Args:
        title: what the table calls it.
        build: makes it.
        shape: of its input, with the batch.
        needs: a package that it comes from, beside torch.
    """

    title: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    needs: str = ""


NETWORKS = {
    "resnet50": Network("ResNet-50, 4x3x64x64", _resnet50, (4, 3, 64, 64), "torchvision"),
    "transformer": Network("24 transformer blocks of width 256, 4x32 tokens", Blocks, (4, 32, 256)),
}
QUICK = {"tiny": Network("2 transformer blocks of width 8", lambda: Blocks(2, 8, 2), (1, 3, 8))}

# The programs of the processes. Each prints seconds by name, as JSON.

_TORCH_THEN_OURS = """\
import json, time
start = time.perf_counter()
import torch
middle = time.perf_counter()
import analogsim
print(json.dumps({"import": middle - start, "then analogsim": time.perf_counter() - middle}))
"""
_OURS = """\
import json, time
start = time.perf_counter()
import analogsim
print(json.dumps({"import": time.perf_counter() - start}))
"""


def _program(function: Callable[..., Found], *arguments: str) -> str:
    """One of the two functions below, as a program."""
    call = f"startup.{function.__name__}({', '.join(map(repr, arguments))})"
    return f"import json\nfrom benchmarks import startup\nprint(json.dumps({call}))\n"


def first_forward(name: str, kind: str, device: str) -> Found:
    """Convert a network twice (the analog kind), and take a batch through it twice, eagerly, in training mode."""
    network = (NETWORKS | QUICK)[name]
    torch.manual_seed(0)
    model = network.build().to(device).train()
    inputs = torch.randn(network.shape).to(device)
    found: Found = {}
    trained = model
    if kind == "analog":
        for what in ("convert", "convert again"):
            with _timed(found, what, device):
                trained = analogsim.convert(model, DEVICE).train()
    for what in ("forward", "forward again"):
        with _timed(found, what, device):
            trained(inputs)
    if kind == "analog":
        analogsim.set_noise_scale(trained, 0.0)
    _check(f"{kind} {name}", trained, model, inputs)
    return found


def first_compiled(name: str, kind: str, device: str, backend: str) -> Found:
    """Compile a network and take two steps (forward and backward); torch has taken one eagerly before."""
    case = CASES[name]
    model = case.model(torch.device(device)).train()
    images, labels = case.data(torch.device(device))
    trained = model if kind == "digital" else analogsim.convert(model, DEVICE).train()
    descend(trained, images, labels)
    found: Found = {}
    with _timed(found, "step", device):
        compiled: Any = torch.compile(trained, backend=backend)
        descend(compiled, images, labels)
    with _timed(found, "step again", device):
        descend(compiled, images, labels)
    if kind == "analog":
        analogsim.set_noise_scale(trained, 0.0)
    _check(f"compiled {kind} {name}", compiled, model, images)
    return found


@contextmanager
def _timed(found: Found, name: str, device: str) -> Iterator[None]:
    """Time the block, all work of the torch device included."""

    def now() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    start = now()
    yield
    found[name] = now() - start


def _check(what: str, trained: nn.Module, model: nn.Module, inputs: Tensor) -> None:
    """Without noise the network that was timed must answer as the model does.

    Raises:
        RuntimeError: it does not.
    """
    wanted = answer(model, inputs)
    error = float((answer(trained, inputs) - wanted).norm() / wanted.norm())
    if not error <= 1e-4:
        raise RuntimeError(f"{what} without noise and the model differ by {error:.1e}: do not time it")


def _fresh(program: str) -> Found:
    """What a program prints, run in a fresh process with as many threads and an empty cache of compiled code.

    Raises:
        RuntimeError: it failed.
    """
    with tempfile.TemporaryDirectory() as caches:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
            "TORCHINDUCTOR_CACHE_DIR": f"{caches}/inductor",
            "TRITON_CACHE_DIR": f"{caches}/triton",
        }
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"startup: a process failed:\n{program}\n{done.stderr}")
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def _in_turn(programs: Mapping[str, str], rounds: int) -> dict[str, dict[str, Seconds]]:
    """What each program finds in each round; every other round is reversed."""
    names = list(programs)
    found: dict[str, list[Found]] = {name: [] for name in names}
    for index in range(rounds):
        for name in names if index % 2 == 0 else reversed(names):
            found[name].append(_fresh(programs[name]))
    return {
        name: {what: np.array([each[what] for each in every]) for what in every[0]} for name, every in found.items()
    }


def _cells(values: Seconds, reference: Seconds | None = None) -> tuple[str, ...]:
    """Median and quartiles; beside a reference the ratio to it and its quartiles."""
    spread = Spread.of(values)
    cells = (duration(spread.median), f"{duration(spread.low)} - {duration(spread.high)}")
    return cells if reference is None else (*cells, *Spread.of(values / reference).as_ratio())


def _record(what: str, name: str, kind: str, values: Seconds, reference: Seconds | None = None) -> dict[str, Any]:
    """A row for JSON."""
    ratio = {} if reference is None else {"ratio": Spread.of(values / reference).as_dict()}
    seconds = Spread.of(values).as_dict()
    return {"benchmark": "startup", "what": what, "name": name, "kind": kind, "seconds": seconds, **ratio}


def _imports(rounds: int, say: Say) -> list[dict[str, Any]]:
    found = _in_turn({"torch": _TORCH_THEN_OURS, "analogsim": _OURS}, rounds)
    torch_alone, added = found["torch"]["import"], found["torch"]["then analogsim"]
    timed = {
        "import torch": (torch_alone, None),
        "import analogsim": (found["analogsim"]["import"], torch_alone),
        "both, one after the other": (torch_alone + added, torch_alone),
    }
    rows = [(name, *_cells(*values), *([""] * 2 if values[1] is None else [])) for name, values in timed.items()]
    say(f"Imports, fresh processes: median of {rounds} rounds\n")
    say(table(("import", "time", "quartiles", "to torch", "quartiles"), rows) + "\n")
    return [_record("import", name, "", *values) for name, values in timed.items()]


def _forwards(networks: Mapping[str, Network], device: torch.device, rounds: int, say: Say) -> list[dict[str, Any]]:
    records, rows, missing = [], [], []
    for name, network in networks.items():
        if network.needs and find_spec(network.needs) is None:
            missing.append(f"{network.title}: needs {network.needs}, which is not installed\n")
            continue
        programs = {kind: _program(first_forward, name, kind, device.type) for kind in KINDS}
        found = _in_turn(programs, rounds)
        digital, analog = (found[kind] for kind in KINDS)
        for what in ("convert", "convert again"):
            records.append(_record(what, name, "analog", analog[what]))
            rows.append((network.title, what, "", *_cells(analog[what]), "", ""))
        for what in ("forward", "forward again"):
            records.append(_record(what, name, "digital", digital[what]))
            records.append(_record(what, name, "analog", analog[what], digital[what]))
            plain = duration(Spread.of(digital[what]).median)
            rows.append((network.title, what, plain, *_cells(analog[what], digital[what])))
    say(f"Conversion to {DEVICE} and the first training forward on {device.type}: median of {rounds} rounds\n")
    say(table(("network", "call", "digital", "analog", "quartiles", "ratio", "quartiles"), rows, right=2) + "\n")
    for line in missing:
        say(line)
    return records


def _compiled(names: Sequence[str], device: torch.device, backend: str, rounds: int, say: Say) -> list[dict[str, Any]]:
    records, rows = [], []
    for name in names:
        programs = {kind: _program(first_compiled, name, kind, device.type, backend) for kind in KINDS}
        found = _in_turn(programs, rounds)
        digital, analog = (found[kind] for kind in KINDS)
        for what in ("step", "step again"):
            records.append({**_record(f"compiled {what}", name, "digital", digital[what]), "backend": backend})
            records.append(
                {**_record(f"compiled {what}", name, "analog", analog[what], digital[what]), "backend": backend}
            )
            plain = duration(Spread.of(digital[what]).median)
            rows.append((name, what, plain, *_cells(analog[what], digital[what])))
    say(f"Steps of torch.compile(..., backend={backend!r}) on {device.type}: median of {rounds} rounds\n")
    say(table(("network", "call", "digital", "analog", "quartiles", "ratio", "quartiles"), rows, right=2) + "\n")
    return records


def run(device: torch.device, *, rounds: int, quick: bool, say: Say = print) -> list[dict[str, Any]]:
    """Time imports, conversion, first forwards and compilation; print the tables and return their rows for JSON.

    Args:
        device: where.
        rounds: the longer a process takes, the fewer of these: half for imports, a fourth for the first forward, an
            eighth for compilation, at least one.
        quick: tiny networks, and graphs that are traced but not compiled.
        say: prints.
    """
    networks, compiled, backend = (QUICK, COMPILED[:1], "eager") if quick else (NETWORKS, COMPILED, "inductor")
    records = _imports(max(1, rounds // 2), say)
    records += _forwards(networks, device, max(1, rounds // 4), say)
    return records + _compiled(compiled, device, backend, max(1, rounds // 8), say)
