"""What of a network runs analog, what does not, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from analogsim.layers.candidates import UNREGISTERED, asked_digital, weight_rules, why_digital
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import AnalogModule
from analogsim.utils.checks import check_module
from analogsim.utils.copying import Contents
from analogsim.utils.modules import find_unregistered, names_of
from analogsim.utils.text import table


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
        aliases: its other names.
        adapter: of an analog matrix: the digital numbers behind it (`add_adapters`); 0 without.
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
    adapter: int = 0


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
        head: tuple[str, ...] = (
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
        body: list[tuple[str, ...]] = [
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
        adapters = sum(row.adapter for row in self.rows)
        if adapters:
            head = (*head, "adapter")
            body = [
                (*line, f"{row.adapter:,}" if row.adapter else "") for line, row in zip(body, self.rows, strict=True)
            ]
            last += f", {adapters:,} digital numbers in adapters"
        return f"{table(head, body, right=5)}\n{last}"


def cells_of(matrix: AnalogMatrix) -> int:
    """Number of cells of a matrix's crossbars: those of its weights, bias rows and reference columns."""
    return matrix.analog.cells


def summary(analog: nn.Module) -> Summary:
    """Every module with Parameters of its own: analog or digital, device, cells, share of the parameters.

    A module with several matrices has a row for each that is analog, and one for the rest of its Parameters. What the
    network holds in plain lists, dictionaries, objects or functions, where torch does not see it, has rows too.

    Args:
        analog: the twin (a digital model gives a table with nothing analog).

    Raises:
        TypeError: it is no module.
    """
    check_module(analog, "the twin that analogsim.convert(model, ...) returned, or a digital network")
    modules = names_of(analog)
    outside = find_unregistered(Contents(analog), modules)
    total = sum(parameter.numel() for parameter in analog.parameters()) + sum(map(_numbers, outside.values()))
    count = _Count()
    rows: list[SummaryRow] = []
    inside: set[nn.Module] = set()  # they hold what a weight is computed from, which counts in its layer
    for module, names in modules.items():
        left = {tensor: tensor.numel() for tensor in module.parameters(recurse=False)}
        if isinstance(module, AnalogModule):
            rows += _analog_rows(module, names, left, count, total)
            inside |= weight_rules(module)
        if module not in inside and any(left.values()):
            rows.append(_digital_row(module, names, left, count, total))
    rows += [_outside_row(path, found, total) for path, found in outside.items()]
    return Summary(type(analog).__name__, tuple(rows))


def _numbers(found: nn.Module | nn.Parameter) -> int:
    """How many elements the Parameters of a module, without those in it, have; or a Parameter."""
    held = [found] if isinstance(found, nn.Parameter) else found.parameters(recurse=False)
    return sum(parameter.numel() for parameter in held)


def _outside_row(path: str, found: nn.Module | nn.Parameter, total: int) -> SummaryRow:
    """The row of what a network holds where torch does not see it."""
    weight = found if isinstance(found, nn.Parameter) else getattr(found, "weight", None)
    shape = tuple(weight.shape) if isinstance(weight, Tensor) else ()
    numbers = _numbers(found)
    return SummaryRow(path, type(found).__name__, False, UNREGISTERED, shape, numbers, 0, 0, numbers / total)


class _Count:
    """Counts the elements of Parameters, each once though several modules share it."""

    def __init__(self) -> None:
        self._counted: set[tuple[int, object]] = set()

    def fresh(self, tensor: Tensor, part: tuple[int, int] | None, numbers: int) -> int:
        """How many elements of a Parameter, or of a part of it, were not counted before."""
        if {(id(tensor), None), (id(tensor), part)} & self._counted:
            return 0
        self._counted.add((id(tensor), part))
        return numbers


def _analog_rows(
    module: AnalogModule, names: list[str], left: dict[nn.Parameter, int], count: _Count, total: int
) -> Iterator[SummaryRow]:
    """A row for each matrix of a module; its elements are taken from what is ``left`` of the module's Parameters."""
    slots = module.slots(module)
    for label, matrix in module.matrices.items():
        matrix.check_intact()
        slot, state = slots[label], matrix.analog
        sizes = {tensor: slot.size(tensor) for tensor in slot.parameters(module)}
        numbers = sum(count.fresh(tensor, slot.part, size) for tensor, size in sizes.items())
        left |= {tensor: number - sizes.get(tensor, 0) for tensor, number in left.items()}
        name, *aliases = (".".join(part for part in (name, label) if part) for name in names)
        yield SummaryRow(
            name=name,
            kind=module.stands_for.__name__,
            analog=True,
            device=state.device.name,
            shape=tuple(state.shape),
            parameters=numbers,
            cells=cells_of(matrix),
            crossbars=state.layout.crossbars,
            share=numbers / total,
            aliases=tuple(aliases),
            adapter=0 if state.adapter is None else state.adapter.numbers,
        )


def _digital_row(
    module: nn.Module, names: list[str], left: dict[nn.Parameter, int], count: _Count, total: int
) -> SummaryRow:
    """The row of what of a module's Parameters runs digital."""
    shape: tuple[int, ...] = ()
    if isinstance(module, AnalogModule):
        kind, why = module.stands_for.__name__, "no weight of a product, or asked to stay digital"
    else:
        kind = type(module).__name__
        why = "asked to stay digital, or no pattern" if asked_digital(module) else why_digital(module)
        if isinstance(weight := getattr(module, "weight", None), Tensor):
            shape = tuple(weight.shape)
    numbers = sum(count.fresh(tensor, None, number) for tensor, number in left.items() if number)
    name, *aliases = names
    return SummaryRow(name, kind, False, why, shape, numbers, 0, 0, numbers / total, tuple(aliases))
