"""Timing that holds on a busy machine: calls take turns in short bursts, and are compared round by round."""

from __future__ import annotations

import gc
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import analogsim
from analogsim.utils.files import write_whole

Call = Callable[[], object]
Seconds = npt.NDArray[np.float64]  # one number per round

_BURST = 0.05  # seconds that a burst aims at: short beside what disturbs a machine, long beside a synchronisation
_MOST = 1000  # calls in a burst


@dataclass(frozen=True)
class Spread:
    """What is left of one number per round.

    Args:
        median: the middle one.
        low: first quartile.
        high: third quartile.
        least: the least one: of times, what the machine can do when nothing disturbs it.
    """

    median: float
    low: float
    high: float
    least: float

    @classmethod
    def of(cls, values: Seconds) -> Spread:
        """The spread of one number per round."""
        least, low, median, high = map(float, np.quantile(values, (0.0, 0.25, 0.5, 0.75)))
        return cls(median, low, high, least)

    def as_ratio(self) -> tuple[str, str]:
        """The median and the quartiles, as two cells of a table."""
        return f"{self.median:.2f}x", f"{self.low:.2f}-{self.high:.2f}"

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def duration(seconds: float) -> str:
    """A duration with three digits and a unit that fits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        value = seconds / size
        if value >= 0.9995:  # what three digits round up to one is no 1e+03 of the unit below
            return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _burst(call: Call, count: int, device: torch.device) -> float:
    """Seconds that ``count`` calls take, all work of the device included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(count):
        call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _count(call: Call, device: torch.device) -> int:
    """How many calls make a burst of the length aimed at."""
    count, elapsed = 1, _burst(call, 1, device)
    while elapsed < _BURST / 4 and count < _MOST:
        count *= 4
        elapsed = _burst(call, count, device)
    return min(_MOST, max(1, round(_BURST * count / elapsed)))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _settle_allocator() -> None:
    """Let the C library keep freed memory, as it does by itself once a larger block was freed.

    Before that, glibc gives the top of the heap back to the system whenever about two of the largest blocks seen so far
    are free there, and what is timed is page faults. Which network runs into it depends on what ran before it; in real
    training, one large batch ends it. This block is just under the size up to which glibc learns, and never touched.
    """
    torch.empty(31 << 20, dtype=torch.uint8, device="cpu")


def interleave(
    calls: Mapping[str, Call], *, rounds: int, steps: int | None, device: torch.device
) -> dict[str, Seconds]:
    """Seconds per call of each call in each round.

    A round runs one burst of each call, in an order that turns by one from round to round and is reversed in every
    other one. What slows the machine for a while then hits all calls alike and cancels in the ratios of a round.

    Args:
        calls: by name.
        rounds: how many.
        steps: calls in a burst; None: as many as take about 50 ms, found out for each call on its own.
        device: synchronised around each burst if it is a GPU.
    """
    names = list(calls)
    seconds = {name: np.empty(rounds) for name in names}
    _settle_allocator()
    with _no_garbage_collection():
        for call in calls.values():
            _burst(call, 1, device)  # pays for what is made ready once
        counts = {name: steps or _count(call, device) for name, call in calls.items()}
        for index in range(rounds):
            turn = index % len(names)
            order = names[turn:] + names[:turn]
            for name in order if index % 2 == 0 else reversed(order):
                if counts[name] > 1:
                    calls[name]()  # brings its own data back into the caches, untimed
                seconds[name][index] = _burst(calls[name], counts[name], device) / counts[name]
    return seconds


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def environment(device: torch.device) -> dict[str, Any]:
    """Date, hardware and versions: what a number means nothing without."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {
            "device": device.type,
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        },
        "versions": {
            "analogsim": analogsim.__version__,
            "torch": str(torch.__version__),
            "cuda": torch.version.cuda if device.type == "cuda" else None,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.machine()}",
        },
    }


def write(path: Path, document: Mapping[str, Any]) -> None:
    """Write a document as JSON, making the folder if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
