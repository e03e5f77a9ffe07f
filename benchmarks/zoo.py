"""Networks that people have: what of each runs analog, what not and why, and what a training step costs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

import analogsim
from analogsim.evaluation.operations import analog_macs, macs
from analogsim.utils.modules import names_of
from benchmarks.harness.timing import Spread, interleave
from benchmarks.harness.zoo_families import ZOO
from benchmarks.harness.zoo_networks import Example, Network, Perfect, deviation, loss_of, tensors

DEVICE = "gaussian"
_ELEMENT_WISE = "element-wise, no matrix"


@dataclass(frozen=True)
class Place:
    """Where a network computes.

    Args:
        parameters: how many it has.
        analog_parameters: share of them that analog layers hold.
        macs: multiply-accumulates of one sample.
        analog_macs: share of them that ran on crossbars.
        digital: shares of the parameters that stay digital, by what holds them and why.
        digital_macs: shares of the multiply-accumulates that stay digital, by the type of the module.
    """

    parameters: int
    analog_parameters: float
    macs: float
    analog_macs: float
    digital: dict[str, float]
    digital_macs: dict[str, float]


def place(model: nn.Module, example: Example) -> Place:
    """Where a network computes: by its twin's summary, and by what runs on crossbars in one forward."""
    analog = analogsim.convert(model, DEVICE)
    summary = analogsim.summary(analog)
    digital: dict[str, float] = {}
    for row in summary.rows:
        if not row.analog:
            what = _ELEMENT_WISE if row.device == _ELEMENT_WISE else f"{row.kind}: {row.device}"
            digital[what] = digital.get(what, 0.0) + row.share
    counted = macs(model, *example.args, **example.kwargs)
    on_crossbars = analog_macs(analog, *example.args, **example.kwargs)
    total = sum(counted.values())
    left = dict(counted)
    for name, count in on_crossbars.items():
        holder = name
        while holder not in left and holder:  # one of several matrices of a module has a name below it
            holder = holder.rpartition(".")[0]
        if count:
            left[holder] -= count
    digital_macs: dict[str, float] = {}
    kinds = {names[0]: type(module).__name__ for module, names in names_of(model).items()}
    for name, count in left.items():
        if count:
            digital_macs[kinds[name]] = digital_macs.get(kinds[name], 0.0) + count / total
    return Place(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        analog_parameters=summary.analog_share,
        macs=total / example.samples,
        analog_macs=sum(on_crossbars.values()) / total,
        digital=digital,
        digital_macs=digital_macs,
    )


@torch.no_grad()
def agreement(model: nn.Module, example: Example) -> float:
    """The largest relative deviation of a chip of perfect cells from the model, in float64."""
    exact = example.to(torch.float64)
    wanted = list(tensors(exact.run(model.double().eval())))
    chip = analogsim.convert(model, Perfect())
    analogsim.program(chip)
    found = deviation(list(tensors(exact.run(chip))), wanted)
    model.float()
    return found


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, example: Example) -> None:
    optimizer.zero_grad()
    loss_of(example.run(network)).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _measure(network: Network, device: torch.device, full: bool, rounds: int, steps: int | None) -> dict[str, Any]:
    model, example = network.build(full=full)
    model, example = model.to(device), example.to(torch.get_default_dtype(), device)
    found = place(model, example)
    largest = agreement(model, example)
    # Twin and model share Parameters, and so the optimizer and its state.
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    contenders = {"digital": model.train(), "analog": analogsim.convert(model, DEVICE).train()}
    calls = {name: partial(_step, each, optimizer, example) for name, each in contenders.items()}
    seconds = interleave(calls, rounds=rounds, steps=steps, device=device)
    return {
        "benchmark": "zoo",
        "network": network.name,
        "title": (network.known if full else "") or network.name,
        "batch": example.samples,
        **asdict(found),
        "largest_deviation": largest,
        "digital_seconds": Spread.of(seconds["digital"]).as_dict(),
        "analog_seconds": Spread.of(seconds["analog"]).as_dict(),
        "ratio": Spread.of(seconds["analog"] / seconds["digital"]).as_dict(),
    }


HEAD = ("network", "parameters", "analog", "MACs", "analog", "stays digital", "deviation", "batch", "training step")


def row(record: Mapping[str, Any]) -> str:
    """One network's line of the table, in Markdown."""
    held = [(f"{share:.1%} {what}", share) for what, share in record["digital"].items()]
    made = [(f"{share:.1%} of the MACs: {kind}", share) for kind, share in record["digital_macs"].items()]
    digital = "; ".join(text for text, share in (*held, *made) if share >= 0.0005)
    ratio, quartiles = Spread(**record["ratio"]).as_ratio()
    return _line(
        record["title"],
        _number(record["parameters"]),
        f"{record['analog_parameters']:.1%}",
        _number(record["macs"]),
        f"{record['analog_macs']:.1%}",
        digital,
        f"{record['largest_deviation']:.1e}",
        str(record["batch"]),
        f"{ratio} ({quartiles})",
    )


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    """A number of things with three digits."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def run(
    networks: Sequence[str],
    device: torch.device,
    *,
    full: bool,
    rounds: int,
    steps: int | None,
    say: Callable[[str], object] = print,
) -> list[dict[str, Any]]:
    """Measure networks of the zoo; print the table line by line, in Markdown, and return its rows for JSON.

    Args:
        networks: by name; one whose library is not installed is named and left out.
        device: where.
        full: as people know them; else the tiny ones.
        rounds: of the timing.
        steps: calls in a burst.
        say: prints.
    """
    say(f"The zoo on {device.type}, {DEVICE}: median of {rounds} rounds (quartiles)\n")
    say(f"{_line(*HEAD)}\n{_line(*['---'] * len(HEAD))}")
    records, missing = [], []
    for name in networks:
        network = ZOO[name]
        if not network.available:
            missing.append(f"{name}: needs {network.needs}, which is not installed")
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", analogsim.ConversionWarning)  # the table says it
            warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")  # torch's encoder, of itself
            records.append(_measure(network, device, full, rounds, steps))
        say(row(records[-1]))
    say("".join(f"\n{line}" for line in missing))
    return records
