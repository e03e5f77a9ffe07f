"""What each part of the periphery costs beside plain torch: forward passes of a chip, and training steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

import analogsim
from analogsim import Crossbar, DeviceModel, Mapping, ReadNoise
from analogsim.utils.text import table
from benchmarks.harness.methods import answer, forward_backward
from benchmarks.harness.networks import Case
from benchmarks.harness.timing import Spread, duration, interleave


@dataclass(frozen=True)
class Part:
    """A part of the periphery, or several together.

    Args:
        name: what the table calls it.
        crossbar: the periphery.
        read_noise: white noise of the cells, as a fraction of g_max.
        slices: of each weight.
    """

    name: str
    crossbar: Crossbar
    read_noise: float = 0.0
    slices: int = 1

    @property
    def device(self) -> DeviceModel:
        """Cells without errors but read noise, so that nothing but the periphery is timed."""
        effect = ReadNoise(std=self.read_noise) if self.read_noise else _Quiet()
        return DeviceModel((effect,), mapping=Mapping("pair", slices=self.slices))


@dataclass(frozen=True)
class _Quiet(analogsim.Effect):
    """Cells without errors."""


_8_BIT = Crossbar(dac_bits=8, adc_bits=8)

PARTS = (
    Part("ideal", Crossbar()),
    Part("read noise", Crossbar(), read_noise=0.01),
    Part("8-bit DAC", Crossbar(dac_bits=8)),
    Part("8-bit ADC", Crossbar(adc_bits=8)),
    Part("8-bit DAC and ADC", _8_BIT),
    Part("the same, fixed range", _8_BIT.replace(input_range=4.0)),
    Part("the same, 128 rows", _8_BIT.replace(rows=128)),
    Part("output noise", Crossbar(output_noise=0.04)),
    Part("standard", analogsim.as_crossbar("standard")),
    Part("standard, read noise", analogsim.as_crossbar("standard"), read_noise=0.01),
    Part("standard, 2 slices", analogsim.as_crossbar("standard"), slices=2),
    Part("standard, bit-serial", analogsim.as_crossbar("standard(bit_serial=True)")),
)


def run(
    case: Case, device: torch.device, *, rounds: int, steps: int | None, say: Callable[[str], object] = print
) -> list[dict[str, Any]]:
    """Time forward passes and training steps of one network behind each part; print the table, return its rows."""
    images, labels = case.data(device)
    model = case.model(device)
    forwards: dict[str, Callable[[], object]] = {"plain": partial(answer, model.eval(), images)}
    trainings: dict[str, Callable[[], object]] = {
        "plain": partial(forward_backward, case.model(device), images, labels)
    }
    for part in PARTS:
        chip = analogsim.convert(model, part.device, crossbar=part.crossbar)
        analogsim.program(chip)
        forwards[part.name] = partial(answer, chip.eval(), images)
        twin = analogsim.convert(case.model(device), part.device, crossbar=part.crossbar).train()
        trainings[part.name] = partial(forward_backward, twin, images, labels)
    timed = {
        kind: interleave(calls, rounds=rounds, steps=steps, device=device)
        for kind, calls in (("forward", forwards), ("training", trainings))
    }
    records, rows = [], []
    for name in forwards:
        row = [name]
        record: dict[str, Any] = {"benchmark": "hardware", "model": case.name, "batch": case.batch, "part": name}
        for kind, seconds in timed.items():
            spread, ratio = Spread.of(seconds[name]), Spread.of(seconds[name] / seconds["plain"])
            record |= {f"{kind}_seconds": spread.as_dict(), f"{kind}_ratio": ratio.as_dict()}
            row += [duration(spread.median), *ratio.as_ratio()]
        records.append(record)
        rows.append(row)
    say(f"The periphery of {case.name}, batch {case.batch}, on {device.type}: median of {rounds} rounds\n")
    head = ("periphery", "forward", "to plain", "quartiles", "forward, backward", "to plain", "quartiles")
    say(table(head, rows) + "\n")
    return records
