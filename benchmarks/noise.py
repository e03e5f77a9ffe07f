"""What a normal number costs, and a draw of phase-change memory for training, by where they come from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import analogsim
from analogsim.device.parse import as_device_model
from analogsim.draws.noisy_weight import noisy_weight
from analogsim.noise import counter_based
from analogsim.utils.text import table
from benchmarks.harness.timing import Spread, interleave

COUNTS = (2**10, 2**14, 2**17, 2**20, 2**22)
_TOLERANCE = 5.0  # standard errors


def _torch_compiled() -> Callable[[Tensor], Tensor]:
    compiled: Callable[[Tensor], Tensor] = torch.compile(torch.randn_like, dynamic=True)
    return compiled


def _check(name: str, numbers: Tensor) -> None:
    count = numbers.numel()
    for what, found, spread in (("mean", numbers.mean(), 1.0), ("mean square", numbers.square().mean() - 1, 2.0)):
        if not abs(float(found)) <= _TOLERANCE * (spread / count) ** 0.5:
            raise RuntimeError(f"{name}: the {what} of {count} numbers is off by {float(found):.1e}: do not time it")


def _drawn(count: int, device: torch.device, compiled: bool) -> Callable[[], Tensor]:
    """Draws ``count`` weights on phase-change memory in 32 columns: programming, drift, read noise, compensation."""
    weight = torch.linspace(-1, 1, count, device=device).view(32, -1)
    memory = as_device_model("pcm")

    def draw() -> Tensor:
        analogsim.use_compiled_noise(compiled)
        noisy, _ = noisy_weight(weight, memory, 1.0, (3600.0, 86400.0))
        analogsim.use_compiled_noise(False)
        return noisy

    return draw


def run(
    device: torch.device, *, rounds: int, steps: int | None, say: Callable[[str], object] = print
) -> list[dict[str, Any]]:
    """Time normal numbers from several sources; print the table and return its rows for JSON."""
    torch.manual_seed(0)
    own, theirs = counter_based.compiled_normal(), _torch_compiled()
    records, rows = [], []
    for count in COUNTS:
        like = torch.empty(count, device=device)
        calls: dict[str, Callable[[], Tensor]] = {
            "torch.randn_like": partial(torch.randn_like, like),
            "torch.randn_like, compiled": partial(theirs, like),
            "counter, eager": lambda count=count: counter_based.normal((count,), counter_based.fresh_key(device)),  # type: ignore[misc]
            "counter, compiled": lambda count=count: own(count, counter_based.fresh_key(device)),  # type: ignore[misc]
        }
        for name, call in calls.items():
            _check(name, call())
        calls |= {f"pcm, {'compiled' if fast else 'eager'}": _drawn(count, device, fast) for fast in (False, True)}
        seconds = interleave(dict(calls), rounds=rounds, steps=steps, device=device)
        for name, values in seconds.items():
            each = Spread.of(values / count * 1e9)
            records.append({"benchmark": "noise", "count": count, "source": name, "nanoseconds": each.as_dict()})
            rows.append((f"{count:,}", name, f"{each.median:.2f}", f"{each.low:.2f}-{each.high:.2f}"))
    threads = torch.get_num_threads()
    say(f"Normal numbers, and weights drawn on pcm, on {device.type}, {threads} threads: median of {rounds} rounds\n")
    say(table(("count", "source", "ns each", "quartiles"), rows) + "\n")
    return records
