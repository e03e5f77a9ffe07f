"""What of a network runs analog, what does not, and why."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from analogsim.layers.base import AnalogLayer, analog_type, digital_type, why_digital
from analogsim.text import table
from analogsim.tree import names_of


@dataclass(frozen=True)
class SummaryRow:
    """One module with Parameters of its own.

    Args:
        name: its name in the network; other names it goes by are in ``aliases``.
        kind: the digital type.
        analog: whether it runs on a crossbar.
        device: the device model's name, or why it is digital.
        shape: of its weight; empty without one.
        parameters: number of its own Parameters' elements, ones it shares with a module above not counted again.
        cells: number of cells that hold them, reference columns included.
        crossbars: number of crossbars these lie on.
        share: of all parameters of the network.
    """

    name: str
    kind: str
    analog: bool
    device: str
    shape: tuple[int, ...]
    parameters: int
    cells: int
    crossbars: int
    share: float
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """Every module with Parameters: analog or digital, on which device, and why not. ``str()`` is a table."""

    model: str
    rows: tuple[SummaryRow, ...]

    @property
    def analog_share(self) -> float:
        """Share of the parameters that belong to analog layers (their biases, which stay digital, included)."""
        return sum(row.share for row in self.rows if row.analog)

    def __str__(self) -> str:
        head = (
            "layer",
            "type",
            "runs",
            "device, or why digital",
            "weight",
            "parameters",
            "cells",
            "crossbars",
            "share",
        )
        body = [
            (
                row.name or "(the model itself)",
                row.kind,
                "analog" if row.analog else "digital",
                row.device,
                "x".join(map(str, row.shape)),
                f"{row.parameters:,}",
                f"{row.cells:,}" if row.cells else "",
                f"{row.crossbars:,}" if row.crossbars else "",
                f"{row.share:.1%}",
            )
            for row in self.rows
        ]
        layers = sum(row.analog for row in self.rows)
        cells = sum(row.cells for row in self.rows)
        runs = "1 analog layer" if layers == 1 else f"{layers} analog layers"
        last = f"{self.model}: {runs}, {self.analog_share:.1%} of the parameters on {cells:,} cells"
        return f"{table(head, body, right=5)}\n{last}"


def cells_of(layer: AnalogLayer) -> int:
    """Number of cells of a layer's crossbars: those of its weights, bias rows and reference columns."""
    layout, mapping = layer.analog.layout, layer.analog.device.laid
    columns = len(layer.weight) + mapping.references(layout)
    return columns * layout.rows[-1][1] * mapping.cells_per_weight


def summary(analog: nn.Module) -> Summary:
    """Every module with Parameters of its own: analog or digital, device, cells, share of the parameters.

    Args:
        analog: the twin (a digital model gives a table with nothing analog).
    """
    total = sum(parameter.numel() for parameter in analog.parameters())
    counted: set[int] = set()
    rows = []
    for module, (name, *aliases) in names_of(analog).items():
        own = list(module.parameters(recurse=False))
        if not own:
            continue
        numbers = sum(parameter.numel() for parameter in own if id(parameter) not in counted)
        counted |= {id(parameter) for parameter in own}
        weight = getattr(module, "weight", None)
        shape = tuple(weight.shape) if isinstance(weight, Tensor) else ()
        share = numbers / total if total else 0.0
        if isinstance(module, AnalogLayer):
            kind, choice, device = digital_type(module), True, module.analog.device.name
            cells, crossbars = cells_of(module), module.analog.layout.crossbars
        else:
            kind, choice, cells, crossbars = type(module), False, 0, 0
            device = "asked to stay digital, or no pattern" if analog_type(module) else why_digital(module)
        rows.append(
            SummaryRow(name, kind.__name__, choice, device, shape, numbers, cells, crossbars, share, tuple(aliases))
        )
    return Summary(type(analog).__name__, tuple(rows))
