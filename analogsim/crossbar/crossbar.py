"""The crossbar that weights lie on: its size, its converters, its wires."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch

from analogsim.crossbar.wires import Wires
from analogsim.device.model import DeviceModel
from analogsim.errors import InvalidTypeError, InvalidValueError
from analogsim.mapping.layout import Layout
from analogsim.mapping.mapping import Mapping
from analogsim.utils.checks import MOST, as_number, check_flag
from analogsim.utils.text import named_call, nearest

RANGES = ("dynamic", "calibrated", "learned")


def _check_whole(name: str, value: Any, least: int, most: int | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= (most or MOST):
        limits = f">= {least}" if most is None else f"from {least} to {most}"
        raise InvalidValueError(f"crossbar: {name} must be an integer {limits} or None, got {value!r}")


def _check_positive(name: str, value: Any, others: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < as_number(value) < math.inf:
        raise InvalidValueError(f"crossbar: {name} must be a number > 0 {others}, got {value!r}")


def _check_spread(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= as_number(value) < math.inf:
        raise InvalidValueError(f"crossbar: {name} must be a finite number >= 0, got {value!r}")


@dataclass(frozen=True)
class Crossbar:
    r"""One crossbar array with its periphery. Without arguments: as large as needed, and ideal.

    An input x in :math:`[-r, r]` drives its word line with the digital-to-analog converter's nearest level to
    :math:`x / r`; a bit line sums up :math:`u_i = \sum_j \hat w_{ij} \hat x_j` with weights relative to the largest
    weight of the column; the analog-to-digital converter reads :math:`u_i`, plus its noise, within
    :math:`[-b, b]`, and the digital part multiplies by r and by the largest weight, and adds the partial sums of the
    crossbars that one layer is spread over.

    Args:
        rows: word lines of one crossbar; None: as many as a layer has inputs.
        cols: bit lines of one crossbar, where every cell of a weight takes one; None: as many as needed.
        dac_bits: resolution of the inputs; None: an ideal converter, without steps and without a limit. ``n`` bits have
            ``2**n - 1`` levels from -r to r (``"symmetric"``) or ``2**n`` levels from 0 to r (``"unsigned"``).
        dac: ``"symmetric"``, or ``"unsigned"`` for inputs that are never negative; negative ones become 0 (`calibrate`
            refuses them).
        input_range: r, in units of the layer's input. ``"dynamic"``: the largest magnitude of each input vector (each
            sample of a convolution), found digitally. ``"calibrated"``: from `calibrate`. ``"learned"``: the same, and
            then trained with the weights (`range_parameters`). A number: that range for every layer. Inputs beyond it
            saturate, and get no gradient.
        bit_serial: drive the inputs bit by bit: one product and one conversion for each bit of the magnitude, shifted
            and added digitally. Needs ``dac_bits``.
        adc_bits: resolution of the outputs; None: ideal. ``n`` bits have ``2**n - 1`` levels from -b to b.
        output_bound: b, in units of (input range x largest weight). Outputs beyond it saturate, and get no gradient.
            ``"calibrated"``: from `calibrate`. None: no bound, or 12 where ``adc_bits`` is given.
        ranges_per: ``"block"``: each block of rows of a layer has an input range of its own (of the inputs that it
            gets), and each slice of it an output bound of its own, as its converters are its own. ``"layer"``: all
            share one of each.
        output_noise: standard deviation of white noise at the converter, in the same unit.
        gain_mismatch: standard deviation of the gain from converter to converter, relative to 1; drawn once for a chip.
            Each bit line of each crossbar has a converter of its own.
        offset_mismatch: standard deviation of their offsets, in the unit of the output bound.
        wire_resistance: ohm per segment of both wires, or a `Wires` that says more. In training the wires are taken in
            their fast approximation.

    Source: the setting of Rasch et al., Nat. Commun. 14 (2023): 8 bits, a bound of 10 to 12, noise of 0.04.
    """

    rows: int | None = None
    cols: int | None = None
    dac_bits: int | None = None
    adc_bits: int | None = None
    dac: Literal["symmetric", "unsigned"] = "symmetric"
    input_range: float | Literal["dynamic", "calibrated", "learned"] = "dynamic"
    bit_serial: bool = False
    output_bound: float | Literal["calibrated"] | None = None
    ranges_per: Literal["block", "layer"] = "block"
    output_noise: float = 0.0
    gain_mismatch: float = 0.0
    offset_mismatch: float = 0.0
    wire_resistance: float | Wires = 0.0

    def __post_init__(self) -> None:
        for name, least, most in (("rows", 1, None), ("cols", 1, None), ("dac_bits", 2, 24), ("adc_bits", 2, 24)):
            _check_whole(name, getattr(self, name), least, most)
        for name in ("output_noise", "gain_mismatch", "offset_mismatch"):
            _check_spread(name, getattr(self, name))
        self._check_inputs()
        if self.output_bound is not None and self.output_bound != "calibrated":
            _check_positive("output_bound", self.output_bound, 'or "calibrated" or None')
        if not isinstance(self.wire_resistance, Wires):
            ohm = self.wire_resistance
            object.__setattr__(self, "wire_resistance", Wires(row=ohm, col=ohm) if ohm != 0 else 0.0)
        if self.output_bound is None and self.adc_bits is not None:
            object.__setattr__(self, "output_bound", 12.0)
        # Once, since every forward asks for it.
        object.__setattr__(self, "_converts", self._finds_converters())

    def _check_inputs(self) -> None:
        if self.dac not in ("symmetric", "unsigned"):
            raise InvalidValueError(f'crossbar: dac must be "symmetric" or "unsigned", got {self.dac!r}')
        if self.input_range not in RANGES:
            _check_positive("input_range", self.input_range, f"or one of {', '.join(RANGES)}")
        if self.ranges_per not in ("block", "layer"):
            raise InvalidValueError(f'crossbar: ranges_per must be "block" or "layer", got {self.ranges_per!r}')
        check_flag(self.bit_serial, "crossbar: bit_serial")
        if self.bit_serial and self.dac_bits is None:
            raise InvalidValueError("crossbar: bit_serial needs dac_bits: how many bits to drive one after the other")

    @property
    def wires(self) -> Wires | None:
        """The wires; None for ideal ones."""
        return self.wire_resistance if isinstance(self.wire_resistance, Wires) else None

    @property
    def converts(self) -> bool:
        """Whether inputs or outputs are converted, so that a product is more than one matrix product."""
        converts: bool = self._converts  # type: ignore[attr-defined]
        return converts

    def _finds_converters(self) -> bool:
        exact = self.dac_bits is None and self.output_bound is None and self.output_noise == 0
        return not exact or self.mismatched or bool(self.further())

    @property
    def mismatched(self) -> bool:
        """Whether converters differ from one another."""
        return bool(self.gain_mismatch or self.offset_mismatch)

    @property
    def needs_range(self) -> bool:
        """Whether the input range comes from `calibrate`."""
        return self.converts and self.input_range in ("calibrated", "learned")

    @property
    def learns(self) -> bool:
        """Whether the input range is trained."""
        return self.needs_range and self.input_range == "learned"

    @property
    def needs_bound(self) -> bool:
        """Whether the output bound comes from `calibrate`."""
        return self.output_bound == "calibrated"

    @property
    def calibrates(self) -> bool:
        """Whether `calibrate` can set a range of it again; one that is learned is left to training."""
        return self.needs_bound or (self.needs_range and not self.learns)

    def __str__(self) -> str:
        """What is not ideal, in a few words."""
        parts = []
        if self.rows is not None or self.cols is not None:
            parts.append(f"crossbars of {self.rows or 'any number of'} rows x {self.cols or 'any number of'} columns")
        parts += self._told_of_converters()
        wires = self.wires
        if wires is not None:
            parts.append(f"wires of {wires.row:g} and {wires.col:g} ohm per cell")
        parts += [f"{name.replace('_', ' ')} {value}" for name, value in self.further().items()]
        return ", ".join(parts) or "ideal"

    def _told_of_converters(self) -> list[str]:
        parts = []
        for bits, kind in ((self.dac_bits, "DAC"), (self.adc_bits, "ADC")):
            if bits is not None:
                serial = "bit-serial " if kind == "DAC" and self.bit_serial else ""
                parts.append(f"{serial}{bits}-bit {kind}")
        if self.converts and self.ranges_per == "layer":
            parts.append("one range per layer")
        if self.output_noise:
            parts.append(f"output noise {self.output_noise:g}")
        if self.mismatched:
            parts.append(f"converters apart by {self.gain_mismatch:g} in gain, {self.offset_mismatch:g} in offset")
        return parts

    def further(self) -> dict[str, Any]:
        """Fields of which nothing is known here but that they are not as by default: those of new converters."""
        values = {spec.name: (getattr(self, spec.name), spec.default) for spec in fields(self)}
        return {name: value for name, (value, default) in values.items() if name not in _KNOWN and value != default}

    def replace(self, **changes: Any) -> Crossbar:
        """A copy with other fields."""
        return replace(self, **changes)

    def check(self, device: DeviceModel) -> None:
        """Raise ValueError if weights of ``device`` cannot lie on this crossbar, or their digits on its cells."""
        if device.levels is not None:
            device.laid.check_levels(device.levels)
        if self.wires is None:
            return
        if device.signed:
            raise InvalidValueError(
                f"crossbar: wire_resistance acts on conductances, and {device.name!r} has none; give the device model "
                "mapping=Mapping('pair')"
            )
        if device.unit != "µS":
            raise InvalidValueError(
                f"crossbar: wire_resistance needs conductances in µS, {device.name!r} is in {device.unit}"
            )

    def layout(self, shape: torch.Size, groups: int, mapping: Mapping) -> Layout:
        """The blocks in which a weight ``(out, ...)`` lies."""
        columns = None
        if self.cols is not None:
            reserved = 1 if mapping.has_references else 0
            columns = (self.cols - reserved) // mapping.cells_per_weight
            if columns < 1:
                raise InvalidValueError(
                    f"crossbar: cols={self.cols} are too few for one weight of {mapping.cells_per_weight} cells"
                    + (" and a reference column" if reserved else "")
                )
        return Layout.of(shape, groups=groups, rows=self.rows, cols=columns, bias_rows=mapping.bias_rows)


# What the text of a crossbar says in words of its own, or leaves out.
_KNOWN = {
    "rows",
    "cols",
    "dac_bits",
    "adc_bits",
    "dac",
    "input_range",
    "bit_serial",
    "output_bound",
    "ranges_per",
    "output_noise",
} | {
    "gain_mismatch",
    "offset_mismatch",
    "wire_resistance",
}

IDEAL = Crossbar()
STANDARD = Crossbar(rows=512, dac_bits=8, adc_bits=8, output_bound=12.0, output_noise=0.04)
"""The setting at which most papers of the field compare: Rasch et al., Nat. Commun. 14 (2023).

Departure: they train the input ranges, which ``input_range="learned"`` does; here each vector sets its own.
"""

_NAMED = {"ideal": IDEAL, "standard": STANDARD}

CrossbarLike = Crossbar | str


def as_crossbar(crossbar: CrossbarLike) -> Crossbar:
    """The crossbar that is meant: one by name, with other fields in parentheses, or a `Crossbar` itself.

    Args:
        crossbar: ``"ideal"``, ``"standard"`` (8-bit converters, 512 rows, noisy outputs), or
            ``"standard(adc_bits=6)"``.

    Raises:
        ValueError: an unknown name or field, or a value that it cannot have.
        TypeError: something else was given.
    """
    if isinstance(crossbar, Crossbar):
        return crossbar
    if not isinstance(crossbar, str):
        raise InvalidTypeError(
            f"crossbar: give a name ({', '.join(_NAMED)}), a Crossbar, or a mapping of patterns to them, got "
            f"{crossbar!r}"
        )
    name, changes = named_call(crossbar, "crossbar", "adc_bits=6")
    if name not in _NAMED:
        raise InvalidValueError(f"crossbar: unknown name {name!r}; known: {', '.join(_NAMED)}{nearest(name, _NAMED)}")
    known = [spec.name for spec in fields(Crossbar)]
    for field in changes:
        if field not in known:
            raise InvalidValueError(
                f"crossbar: there is no {field!r}; it has {', '.join(known)}{nearest(field, known)}"
            )
    return _NAMED[name].replace(**changes)
