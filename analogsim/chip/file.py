"""Chips on disk: safetensors, no pickle."""

from __future__ import annotations

import ast
import json
import math
import os
import warnings
from collections.abc import Iterable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from analogsim.chip.adapters.files import facts_of, read_adapter, tensors_of, tensors_under
from analogsim.chip.compensation import COMPENSATIONS, Gain
from analogsim.chip.layer_chip import LayerChip, MeasuredGain, OutputCorrection, layer_chips
from analogsim.crossbar.stages import Affine
from analogsim.device.model import Cells, Written
from analogsim.errors import InvalidValueError, MissingKeyError
from analogsim.layers.matrix import AnalogMatrix
from analogsim.layers.module import matrices_of
from analogsim.utils.checks import as_number
from analogsim.utils.tensor_files import read_tensors, write_tensors

_FORMAT = "analogsim-chip-5"
_UNADAPTED = "analogsim-chip-4"  # its chips had no adapters, and those without are still written so
_UNCORRECTED = "analogsim-chip-3"  # its chips had no corrections of outputs
_BEFORE = "analogsim-chip-2"  # its chips were drawn from torch's generator, and had 1/f noise without memory


def _tensors(name: str, chip: LayerChip) -> dict[str, Tensor]:
    written = chip.written
    tensors = {
        "source": chip.source,
        "largest": written.largest,
        "target": written.cells.target,
        "programmed": written.programmed,
    }
    if written.faults is not None:
        tensors["faults"] = written.faults
    if chip.reference is not None:
        tensors["reference"] = chip.reference
    if chip.correction is not None:
        parts = {"output_scale": chip.correction.stage.scale, "output_offset": chip.correction.stage.offset}
        tensors |= {key: part for key, part in parts.items() if part is not None}
    for index, drawn in enumerate(written.drawn):
        tensors |= {f"drawn.{index}.{key}": value for key, value in drawn.items()}
    # A copy each: safetensors refuses tensors that share memory, as the target and the programmed weight may.
    return {f"{name}/{key}": value.detach().cpu().clone().contiguous() for key, value in tensors.items()}


def _numbers(value: Tensor | None) -> Any:
    """As JSON holds them: a number, or lists of them."""
    return None if value is None else value.detach().tolist()


def _tensor(value: Any, place: torch.device, *, requires_grad: bool = False) -> Tensor | None:
    return None if value is None else torch.tensor(value, device=place, requires_grad=requires_grad)


def _name_of(gain: MeasuredGain | None) -> str | None:
    if gain is None:
        return None
    known = COMPENSATIONS.get(gain.name)
    if not isinstance(known, Gain) or known != gain:
        raise InvalidValueError(
            f"save_chip: the file holds a gain by its name, and {gain.name!r} is none that is known; put it into "
            "analogsim.chip.COMPENSATIONS under its name, here and where the chip is loaded"
        )
    return gain.name


def _gain_named(gain: str | None, layer: str) -> Gain | None:
    if gain is None:
        return None
    found = COMPENSATIONS.get(gain)
    if not isinstance(found, Gain):
        raise InvalidValueError(
            f"load_chip: layer {layer!r} has the gain {gain!r}, which is not known here; put it into "
            "analogsim.chip.COMPENSATIONS first"
        )
    return found


def save_chip(analog: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the programmed chip to a file: every cell, the seed, the time, corrected outputs.

    Beside it what of the twin it answers by: ranges of converters and adapters. The network's weights are saved apart.

    Args:
        analog: the twin, programmed.
        path: the file (safetensors); written whole or not at all.

    Raises:
        NotProgrammedError, StaleChipError: there is no valid chip.
        OSError: the file cannot be written.
        ValueError: the chip has a gain of the user's own that is not known by its name.
    """
    tensors: dict[str, Tensor] = {}
    layers: dict[str, Any] = {}
    for layer, chip in layer_chips(analog, "save_chip"):
        name = layer.analog.name
        tensors |= _tensors(name, chip)
        layers[name] = {
            "device": repr(chip.device),
            "crossbar": repr(chip.crossbar),
            "input_range": _numbers(layer.analog.input_range),
            "output_bound": _numbers(layer.analog.output_bound),
            "seed": chip.seed,
            "time": chip.time,
            "compensation": _name_of(chip.compensation),
            "outputs_matched_at": None if chip.correction is None else chip.correction.time,
        }
        if (adapter := layer.analog.adapter) is not None:
            tensors |= tensors_of(name, adapter)
            layers[name]["adapter"] = facts_of(adapter)
    adapted = any("adapter" in layer for layer in layers.values())
    about = {"format": _FORMAT if adapted else _UNADAPTED, "layers": json.dumps(layers)}
    write_tensors(path, tensors, about, "save_chip")


def _describes(text: ast.expr, value: Any) -> bool:
    """Whether what ``repr`` said of a value is true of this one, fields that did not exist then being as by default."""
    if isinstance(text, ast.Tuple | ast.List) and isinstance(value, tuple | list):
        return len(text.elts) == len(value) and all(map(_describes, text.elts, value))
    if not (isinstance(text, ast.Call) and is_dataclass(value)):
        return ast.unparse(text) == ast.unparse(ast.parse(repr(value), mode="eval"))
    told = {keyword.arg: keyword.value for keyword in text.keywords}
    shown = {spec.name: spec for spec in fields(value) if spec.repr}
    if ast.unparse(text.func) != type(value).__qualname__ or not told.keys() <= shown.keys():
        return False
    for name, spec in shown.items():
        own = getattr(value, name)
        if not (_describes(told[name], own) if name in told else spec.default is not MISSING and own == spec.default):
            return False
    return True


def _is_of(text: str, value: Any) -> bool:
    """Whether a file's text is that of a device model or crossbar, by this version or by one with fewer fields."""
    if text == repr(value):
        return True
    try:
        return _describes(ast.parse(text, mode="eval").body, value)
    except SyntaxError:  # of a repr of somebody's own, on either side
        return False


def _restore(layer: AnalogMatrix, entry: dict[str, Any], tensors: dict[str, Tensor]) -> LayerChip:
    state = layer.analog
    weight, bias = layer.still()
    name, device = state.name, state.device
    for what, ours in (("device", device), ("crossbar", state.crossbar)):
        if not _is_of(entry[what], ours):
            raise InvalidValueError(
                f"load_chip: layer {name!r} is on {ours!r}, the file has it on {entry[what]}; convert the model with "
                f"the {what} the chip was made of"
            )
    source = tensors["source"]
    laid = state.layout.lay(weight, bias)
    if source.shape != laid.shape or not torch.equal(source.to(laid), laid):
        raise InvalidValueError(
            f"load_chip: layer {name!r} has other weights than those on the chip; load the network's state dict that "
            "belongs to the chip first"
        )
    tensors = {key: tensor.to(weight.device) for key, tensor in tensors.items()}
    _check_values(layer, entry, tensors)
    largest = tensors["largest"]
    g_max = largest if device.signed else device.g_max
    cells = Cells(tensors["target"], device.g_min, g_max, device.signed, tensors["programmed"])
    drawn = tuple(
        {
            key.removeprefix(f"drawn.{index}."): value
            for key, value in tensors.items()
            if key.startswith(f"drawn.{index}.")
        }
        for index in range(len(device.effects))
    )
    mapped = device.map_weight(largest, source.ndim, state.layout)
    written = Written(mapped, cells, drawn, tensors.get("faults"))
    bound = _tensor(entry["output_bound"], weight.device) if state.crossbar.needs_bound else state.known_bound
    # Files of versions that measured in another way hold no reference; it is measured again then.
    reference = tensors.get("reference")
    chip = LayerChip(
        name, entry["seed"], device, tensors["source"], written, state.layout, state.crossbar, bound, reference
    )
    chip.set_time(entry["time"], _gain_named(entry["compensation"], name), bound)
    chip.correction = _correction(entry, tensors, len(source))
    return chip


def _check_values(layer: AnalogMatrix, entry: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Refuse what no chip has, which a file without a digest may hold for one bit that flipped.

    Raises:
        KeyError: what it should have had.
    """
    for key, value in tensors.items():
        # The first two are looked at where they are put together; in a map of faults NaN is a cell that works.
        elsewhere = key.startswith(("output_", "adapter.", "faults"))
        if value.is_floating_point() and not elsewhere and not torch.equal(value, value.nan_to_num(0, 0, 0)):
            raise MissingKeyError(f"finite numbers in {key!r}")
    for key in ("source", "largest", "target", "programmed"):
        if not tensors[key].is_floating_point():
            raise MissingKeyError(f"real numbers in {key!r}")
    largest = tensors["largest"]
    if tensors["programmed"].shape != tensors["target"].shape or not torch.equal(largest, largest.abs()):
        raise MissingKeyError("one conductance for each that was aimed at, and a largest weight")
    if type(entry["seed"]) is not int or not 0 <= as_number(entry["time"]) < math.inf:
        raise MissingKeyError("a seed and a time")
    for kind in ("input_range", "output_bound"):
        if entry[kind] is not None:
            found = np.asarray(entry[kind], dtype=np.float64)
            if found.shape not in ((), layer.analog.range_shape(kind)) or not (np.isfinite(found) & (found != 0)).all():
                raise MissingKeyError(f"{kind} of finite numbers, one for each of its blocks")


def _correction(entry: dict[str, Any], tensors: dict[str, Tensor], outputs: int) -> OutputCorrection | None:
    """The correction of outputs that a file holds; None where it holds none."""
    time = entry.get("outputs_matched_at")
    if time is None:
        return None
    scale, offset = tensors.get("output_scale"), tensors.get("output_offset")
    parts = [part for part in (scale, offset) if part is not None]
    if not parts or any(part.shape != (outputs,) or not part.isfinite().all() for part in parts):
        raise MissingKeyError("its correction of outputs")
    return OutputCorrection(Affine(scale, offset), time)


def _warn_of_new_draws(path: str, chips: Iterable[LayerChip]) -> None:
    """Say what a file of `_BEFORE` does not hold, and comes from another source of random numbers now."""
    anew: dict[str, list[str]] = {}
    for chip in chips:
        effects = chip.device.effects
        of = {
            "1/f noise": any(effect.implements("read") for effect in effects),
            "the errors of converters": chip.crossbar.mismatched,
            "the read noise of measured gains": chip.device.drifts
            and any(effect.implements("read_std") for effect in effects),
        }
        for what in (what for what, there in of.items() if there):
            anew.setdefault(what, []).append(chip.name)
    if anew:
        told = "; ".join(f"{what} (layers {', '.join(map(repr, names))})" for what, names in anew.items())
        warnings.warn(
            f"load_chip: {path!r} was written by a version with another source of random numbers. What was written "
            "into the cells, their drift and their faults are those of the file; drawn anew, by the same laws, is what "
            f"it does not hold: {told}. Save the chip again to keep it as it is now",
            stacklevel=3,
        )


def load_chip(analog: nn.Module, path: str | os.PathLike[str]) -> None:
    """Put a saved chip under a twin: the same answers as when it was saved, at the same age.

    Ranges of converters and adapters are those of the file afterwards; adapters that it does not hold are taken off.

    Args:
        analog: a twin of the same network, with the same weights, converted with the same devices.
        path: a file that `save_chip` wrote.

    Warns:
        UserWarning: the file is of a version with another source of random numbers; what it does not hold (1/f noise,
            the errors of converters) is drawn anew.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a chip, is damaged, or belongs to another network, other weights or another device. The
            chip that was there stays.
    """
    everything, metadata = read_tensors(path, "load_chip", "is not a chip")
    if metadata.get("format") not in (_FORMAT, _UNADAPTED, _UNCORRECTED, _BEFORE):
        raise InvalidValueError(f"load_chip: {os.fspath(path)!r} is a safetensors file, but not a chip ({_FORMAT})")
    try:
        entries = json.loads(metadata["layers"])
    except (KeyError, json.JSONDecodeError) as error:
        raise InvalidValueError(
            f"load_chip: {os.fspath(path)!r} is damaged: its list of layers cannot be read"
        ) from error
    layers = {layer.analog.name: layer for layer in matrices_of(analog)}
    if entries.keys() != layers.keys():
        odd = sorted(entries.keys() ^ layers.keys())
        raise InvalidValueError(
            f"load_chip: the chip belongs to another network: layers {odd} are in one and not the other"
        )
    chips, adapters = {}, {}
    for name, layer in layers.items():
        tensors = tensors_under(name, everything)
        try:
            chips[name] = _restore(layer, entries[name], tensors)
            facts = entries[name].get("adapter")
            adapters[name] = None if facts is None else read_adapter(layer, facts, tensors)
        except KeyError as error:
            raise InvalidValueError(
                f"load_chip: {os.fspath(path)!r} is damaged: layer {name!r} lacks {error}"
            ) from error
    if metadata["format"] == _BEFORE:
        _warn_of_new_draws(os.fspath(path), chips.values())
    for name, layer in layers.items():
        state, place = layer.analog, layer.still()[0].device
        state.chip, state.adapter = chips[name], adapters[name]
        state.input_range = _tensor(entries[name]["input_range"], place, requires_grad=state.crossbar.learns)
        state.output_bound = _tensor(entries[name]["output_bound"], place)
