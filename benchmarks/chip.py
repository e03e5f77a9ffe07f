"""What a chip costs: programming it, letting it age, and running a network on it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import analogsim
from analogsim.utils.text import table
from benchmarks.harness.methods import answer, forward_backward
from benchmarks.harness.networks import Case
from benchmarks.harness.timing import Seconds, Spread, duration, interleave

DEVICES = ("pcm", "gaussian")
_TIME = "1d"
_SAMPLES = 256  # that a data loader hands out while it is timed
_EPOCH = 60_000
_COPIED = 2**24  # float32, more than caches hold


def _program_and_drift(analog: nn.Module) -> None:
    analogsim.program(analog)
    analogsim.drift(analog, _TIME)


def cells_of(analog: nn.Module) -> int:
    """How many cells the network's weights take."""
    return sum(row.cells for row in analogsim.summary(analog).rows)


def _loading(images: Tensor) -> Callable[[], None]:
    """Hands out some hundred samples, shuffled, in batches."""
    samples = images.cpu()[torch.arange(_SAMPLES) % len(images)]
    loader = DataLoader(TensorDataset(samples), batch_size=len(images), shuffle=True)

    def load() -> None:
        for _ in loader:
            pass

    return load


def check(analog: nn.Module, images: Tensor) -> None:
    """A chip must be the same one each time, and answer as a plain network with the weights that it holds.

    Raises:
        RuntimeError: it does not.
    """
    answers = []
    for _ in range(2):
        with analogsim.programmed(analog, seed=1, t=_TIME):
            plain = analogsim.to_digital(analog, weights="programmed")
            answers += [answer(analog, images), answer(plain, images)]
    for other in answers[1:]:
        error = float((other - answers[0]).norm() / answers[0].norm())
        if not error <= 1e-4:
            raise RuntimeError(f"two answers of one chip differ by {error:.1e}: do not time it")


def _time(
    case: Case, device: torch.device, rounds: int, steps: int | None
) -> tuple[dict[str, Seconds], dict[str, int]]:
    """Seconds of each call in each round, and the number of cells for each device model."""
    model = case.model(device)
    twins = {name: analogsim.convert(model, name) for name in DEVICES}
    images, labels = case.data(device)
    calls: dict[str, Callable[[], object]] = {"train": partial(forward_backward, model, images, labels)}
    for name, analog in twins.items():
        check(analog, images)
        analogsim.program(analog)
        calls[f"program {name}"] = partial(analogsim.program, analog)
        calls[f"drift {name}"] = partial(analogsim.drift, analog, _TIME)
        calls[f"both {name}"] = partial(_program_and_drift, analog)
    source = torch.zeros(_COPIED, device=device)
    calls["copy"] = partial(torch.empty_like(source).copy_, source)
    calls["load"] = _loading(images)
    seconds = interleave(calls, rounds=rounds, steps=steps, device=device)
    model.eval()
    calls = {"forward": partial(answer, model, images)}
    for name, analog in twins.items():
        calls[f"forward {name}"] = partial(answer, analog.eval(), images)
    seconds |= interleave(calls, rounds=rounds, steps=steps, device=device)
    return seconds, {name: cells_of(analog) for name, analog in twins.items()}


def run(
    case: Case, device: torch.device, *, rounds: int, steps: int | None, say: Callable[[str], object] = print
) -> list[dict[str, Any]]:
    """Time the chips of one network; print the table and return its rows for JSON."""
    seconds, cells = _time(case, device, rounds, steps)
    records, rows = [], []
    for name in DEVICES:
        chip = Spread.of(seconds[f"both {name}"])
        to_train = Spread.of(seconds[f"both {name}"] / seconds["train"])
        to_copy = Spread.of(seconds[f"both {name}"] / (seconds["copy"] * cells[name] / _COPIED))
        to_epoch = Spread.of(seconds[f"both {name}"] / seconds["load"] * _SAMPLES / _EPOCH)
        forward = Spread.of(seconds[f"forward {name}"])
        to_forward = Spread.of(seconds[f"forward {name}"] / seconds["forward"])
        per_cell = {
            stage: 1e9 * Spread.of(seconds[f"{stage} {name}"]).median / cells[name]
            for stage in ("program", "drift", "both")
        }
        records.append(
            {
                "benchmark": "chip",
                "model": case.name,
                "batch": case.batch,
                "device": name,
                "cells": cells[name],
                "program_ns_per_cell": per_cell["program"],
                "drift_ns_per_cell": per_cell["drift"],
                "program_and_drift_ns_per_cell": per_cell["both"],
                "program_and_drift_seconds": chip.as_dict(),
                "program_and_drift_to_forward_backward": to_train.as_dict(),
                "program_and_drift_to_copy": to_copy.as_dict(),
                "program_and_drift_to_loading_60000_samples": to_epoch.as_dict(),
                "forward_seconds": forward.as_dict(),
                "forward_to_plain_forward": to_forward.as_dict(),
            }
        )
        cost = (*(f"{value:.1f}" for value in per_cell.values()), duration(chip.median))
        beside = (f"{to_copy.median:.0f}x", f"{to_epoch.median:.2g}x")
        rows.append((name, f"{cells[name]:,}", *cost, *to_train.as_ratio(), *beside, *to_forward.as_ratio()))
    say(f"A chip of {case.name}, batch {case.batch}, on {device.type}: median of {rounds} rounds\n")
    head = ("device", "cells", "program", "drift", "both", "a chip", "to training", "quartiles", "to copy", "to epoch")
    say(table((*head, "forward", "quartiles"), rows) + "\n")
    say(
        f"program, drift, both: ns per cell to write a chip, to age one to {_TIME} again, to write one and age it.\n"
        "a chip: both, for all cells; to training: beside one plain forward and backward of a batch; to copy: beside\n"
        "copying as many float32 from memory to memory; to epoch: beside a data loader's way through "
        f"{_EPOCH:,} samples.\n"
        "forward: a forward on a programmed chip beside a plain one.\n"
    )
    return records
