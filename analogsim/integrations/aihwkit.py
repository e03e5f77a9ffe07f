"""Hardware and networks of aihwkit and aihwkit-lightning, in our words.

    hardware = translate(rpu_config)          # of either package, or a mapping, or its JSON
    analog = analogsim.convert(model, hardware.device, crossbar=hardware.crossbar)
    network = read_state(torch.load("lightning.pt"))
    model.load_state_dict(network.weights)
    give_ranges(analog, network.ranges)

Neither package is imported. Written for aihwkit 1.0 and aihwkit-lightning 2.1.0; docs/coming-from.md has the words.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from analogsim.chip.ranges import set_ranges
from analogsim.crossbar.crossbar import Crossbar
from analogsim.crossbar.wires import Wires
from analogsim.device.model import DeviceModel
from analogsim.device.parse import as_device_model
from analogsim.devices.gaussian import Gaussian
from analogsim.devices.pcm import PCMDrift, PCMProgramming, PCMReadNoise
from analogsim.devices.quantization import Quantization
from analogsim.errors import ConversionWarning, InvalidTypeError, InvalidValueError
from analogsim.layers.module import matrices_of
from analogsim.mapping.mapping import Mapping as WeightMapping
from analogsim.mapping.mapping import SharedBy

_SILENT = Gaussian(0.0)


@dataclass(frozen=True)
class Hardware:
    """What an RPU configuration is here.

    Args:
        device: that weights are written to: the noise model of inference, or where the configuration has none, as in
            aihwkit-lightning, what its modifier does to weights.
        crossbar: size, converters, wires.
        training: what training sees, where that is another device: convert with it, and evaluate on ``device``.
        clip: arguments of `analogsim.ClipSchedule` and of callbacks; None where weights are not clipped.
        compensation: of drift, for `analogsim.evaluate` and `analogsim.drift`.
        missing: what has no counterpart, a sentence each.
    """

    device: DeviceModel
    crossbar: Crossbar
    training: DeviceModel | None = None
    clip: Mapping[str, Any] | None = None
    compensation: str | None = None
    missing: tuple[str, ...] = ()


def translate(config: object) -> Hardware:
    """The hardware that an RPU configuration describes.

    Args:
        config: a configuration of aihwkit or aihwkit-lightning for inference; or its fields as nested mappings, or
            these as JSON, with enumerations by name (``"ADD_NORMAL"``) or value (``"AddNormal"``) and the noise model
            as ``{"class": "PCMLikeNoiseModel", "g_max": 25.0}``. What is left out is as by default there.

    Raises:
        TypeError: it is no configuration.
        ValueError: it is no JSON, or has values that are impossible there as well.

    Warns:
        ConversionWarning: some of it has no counterpart; `Hardware.missing` says what.
    """
    reader = _Reader(_fields_of(config))
    found = reader.hardware()
    if found.missing:
        warnings.warn(f"aihwkit: no counterpart here: {'; '.join(found.missing)}", ConversionWarning, stacklevel=2)
    return found


def _fields_of(config: object) -> dict[str, Any]:
    """A configuration as nested mappings; of its objects with the names of their classes."""
    if isinstance(config, str):
        try:
            config = json.loads(config)
        except ValueError as error:
            raise InvalidValueError(f"aihwkit: the configuration is no JSON: {error}") from None
    plain = _plain(config)
    if not isinstance(plain, dict) or not any(isinstance(plain.get(part), dict) for part in _PARTS):
        raise InvalidTypeError(
            f"aihwkit: give an RPU configuration, its fields as a mapping or as JSON, with {', '.join(_PARTS)}; got "
            f"{type(config).__name__}"
        )
    return plain


_PARTS = ("forward", "modifier", "mapping", "pre_post", "clip", "noise_model")


def _plain(value: object) -> Any:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): _plain(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(held) for held in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    held = getattr(value, "__dict__", None)
    if held is None or isinstance(value, type):
        return value
    return {"class": type(value).__name__, **{name: _plain(one) for name, one in held.items() if name[:1] != "_"}}


def _word(value: object) -> str:
    """The name or the value of an enumeration's member, alike: ``"addnormal"``."""
    return "".join(letter for letter in str(value).lower() if letter.isalnum())


# What is off by default in aihwkit and would change answers, and what it does.
_UNKNOWN_HERE: dict[str, tuple[object, str]] = {
    "inp_noise": (0.0, "noise of the inputs behind their converters"),
    "inp_sto_round": (False, "input converters that round at random"),
    "inp_asymmetry": (0.0, "passes for negative inputs of another gain"),
    "out_noise_std": (0.0, "output noise whose size differs from column to column"),
    "out_sto_round": (False, "output converters that round at random"),
    "out_scale": (1.0, "a fixed factor on outputs"),
    "out_asymmetry": (0.0, "passes for negative inputs of another gain"),
    "out_nonlinearity": (0.0, "outputs that saturate softly"),
    "v_offset_std": (0.0, "voltage offsets of columns (gain_mismatch and offset_mismatch of a Crossbar are near)"),
    "r_series": (0.0, "a series resistance"),
    "w_read_asymmetry_dtod": (0.0, "cells that read differently for negative inputs"),
}


@dataclass
class _Reader:
    """One configuration on its way into our words."""

    fields: dict[str, Any]
    missing: list[str] = field(default_factory=list)

    def part(self, *names: str) -> dict[str, Any]:
        found: Any = self.fields
        for name in names:
            found = found.get(name) or {}
        if not isinstance(found, dict):
            raise InvalidTypeError(f"aihwkit: {'.'.join(names)} must be a mapping of its fields, got {found!r}")
        return found

    @property
    def is_lightning(self) -> bool:
        """Its configurations say nothing of inference, and of inputs nothing but their range."""
        name = str(self.fields.get("class", ""))
        forward = self.part("forward")
        return (
            "noise_model" not in self.fields
            and "inp_bound" not in forward
            and (not name or name == "TorchInferenceRPUConfig")
        )

    def hardware(self) -> Hardware:
        """All of it."""
        scale = self._scale()
        noise, training = self._noise_model(scale), self._modifier(scale)
        device = noise or training or self._signed(_SILENT, scale)
        crossbar = self._crossbar(device)
        bias = self.part("mapping").get("digital_bias", True)
        if not bias:
            device = device.replace(mapping=_with(device, bias_rows=1))
        compensation = self._compensation() if noise else None
        clip = self._clip()
        return Hardware(device, crossbar, training if noise else None, clip, compensation, tuple(self.missing))

    # weights

    def _scale(self) -> SharedBy:
        """Which weights share the largest one: theirs may differ between noise, bound and output noise."""
        if not self.is_lightning:
            mapping = self.part("mapping")
            if not mapping.get("weight_scaling_omega", 0.0):
                self.missing.append(
                    "mapping.weight_scaling_omega=0: weights that are not scaled to the largest one (here they always "
                    "are, in each crossbar)"
                )
            return "column" if mapping.get("weight_scaling_columnwise", False) else "crossbar"
        said: dict[str, bool] = {}
        modifier, clip, forward = self.part("modifier"), self.part("clip"), self.part("forward")
        kind = _word(modifier.get("noise_type", "none"))
        kind = _word(modifier.get("type", "none")) if kind == "none" else kind
        if kind != "none":
            said["modifier"] = kind.endswith("perchannel")
        if forward.get("out_noise", 0.0) > 0:
            said["forward.out_noise"] = bool(forward.get("out_noise_per_channel", False))
        if forward.get("out_bound", 0.0) > 0:
            said["forward.out_bound"] = _word(clip.get("type", "none")).endswith("perchannel")
        by_column = next(iter(said.values()), False)
        other = [name for name, one in said.items() if one != by_column]
        if other:
            self.missing.append(
                f"{' and '.join(other)} relative to the largest weight of {'the tile' if by_column else 'each channel'}"
                f", and {next(iter(said))} to that of {'each channel' if by_column else 'the tile'} (one scale for all "
                "here, taken from the latter)"
            )
        return "column" if by_column else "crossbar"

    @staticmethod
    def _signed(effect: Gaussian, scale: SharedBy) -> DeviceModel:
        return as_device_model(effect).replace(mapping=WeightMapping("signed", scale=scale))

    def _modifier(self, scale: SharedBy) -> DeviceModel | None:
        """What training does to weights."""
        modifier = self.part("modifier")
        noise, levels = self._kinds(modifier)
        if modifier.get("pdrop", 0.0) or _word(modifier.get("type", "none")) == "dropconnect":
            self.missing.append("modifier.pdrop: drop connect in training")
        if not modifier.get("rel_to_actual_wmax", True):
            self.missing.append("modifier.assumed_wmax: noise relative to a fixed weight (here to the largest one)")
        made = self._noise(noise, modifier, scale)
        if levels == "none":
            return made
        if made is not None:
            self.missing.append("modifier.quantization_type: rounding of weights beside noise (the noise is taken)")
            return made
        steps = self._steps("modifier.res", modifier.get("res", 0.0))
        if steps is None:
            return None
        mapping = WeightMapping("pair", scale=scale)
        return as_device_model(Quantization(max(2, round(steps / 2) + 1))).replace(mapping=mapping)

    @staticmethod
    def _kinds(modifier: Mapping[str, Any]) -> tuple[str, str]:
        """The words for noise and for rounding, which one word was for both before lightning 2, and is in aihwkit."""
        noise, levels = (_word(modifier.get(name, "none")) for name in ("noise_type", "quantization_type"))
        both = _word(modifier.get("type", "none"))
        if (noise, levels) == ("none", "none") and both not in ("none", "copy", "dropconnect"):
            levels = "discretize" if both.startswith("discretize") else "none"
            noise = both.removeprefix("discretize")
            noise = "none" if noise in ("", "perchannel") else noise
        return noise, levels

    def _noise(self, noise: str, modifier: Mapping[str, Any], scale: SharedBy) -> DeviceModel | None:
        """The noise of training by its word."""
        std = float(modifier.get("std_dev", 0.0))
        if noise in ("addnormal", "addnormalperchannel"):
            return self._signed(Gaussian(std), scale)
        if noise == "multnormal":
            return self._signed(Gaussian(std, law="proportional"), scale)
        if noise in ("pcmnoise", "prognoise"):
            self.missing.append(f"modifier {noise}: taken is pcm as it is on chips, at times of `train_times`")
            return as_device_model(f"pcm(g_max={float(modifier.get('g_max', 25.0))!r})")
        if noise != "none":
            self.missing.append(f"modifier.type={modifier.get('type', noise)}: this noise on weights in training")
        return None

    def _noise_model(self, scale: SharedBy) -> DeviceModel | None:
        """The device of inference."""
        if self.is_lightning:
            return None
        model = {"class": "PCMLikeNoiseModel", **self.part("noise_model")}
        kind, g_max = model["class"], model.get("g_max")
        given = {} if g_max is None else {"g_max": float(g_max)}
        found = _NOISE_MODELS.get(kind)
        if found is None:
            self.missing.append(f"noise_model {kind}: not known here; weights are written without errors")
            return self._signed(_SILENT, scale)
        device = found(given, model)
        for name, scaled in (
            ("noise_scale", "its noise"),
            ("custom_drift_model", "its own drift"),
        ):
            if model.get(name) not in (None, 1.0):
                self.missing.append(f"noise_model.{name}: {scaled} (that of {device.name} is taken)")
        if kind.endswith("PCMLikeNoiseModel") and model.get("prog_coeff") not in (None, [0.26348, 1.965, -1.1731]):
            self.missing.append("noise_model.prog_coeff: its programming error (see FittedProgramming)")
        converter = model.get("g_converter")
        if isinstance(converter, dict) and converter.get("class") not in (None, "SinglePairConductanceConverter"):
            self.missing.append(f"noise_model.g_converter {converter['class']}: pairs of cells are taken")
        return device.replace(mapping=_with(device, scale=scale))

    def _compensation(self) -> str | None:
        found = self.fields.get("drift_compensation", {"class": "GlobalDriftCompensation"})
        if found is None:
            return None
        kind = found.get("class") if isinstance(found, dict) else found
        if kind != "GlobalDriftCompensation":
            self.missing.append(f"drift_compensation {kind}: one gain for each layer is taken")
        return "global"

    def _clip(self) -> dict[str, Any] | None:
        clip = self.part("clip")
        kind, sigma = _word(clip.get("type", "none")), float(clip.get("sigma", 2.5))
        per = {"layergaussian": "layer", "layergaussianperchannel": "column"}.get(kind)
        if per is not None:
            return {"start": sigma, "end": sigma, "per": per}
        if kind != "none":
            self.missing.append(f"clip.type={clip['type']}: this way of clipping weights")
        return None

    # periphery

    def _crossbar(self, device: DeviceModel) -> Crossbar:
        forward, mapping = self.part("forward"), self.part("mapping")
        unlike = {} if self.is_lightning else {"max_input_size": 512, "max_output_size": 512}
        sizes = {name: int(mapping.get(name, unlike.get(name, -1))) for name in ("max_input_size", "max_output_size")}
        cells = device.laid.cells_per_weight
        array: dict[str, Any] = {
            "rows": sizes["max_input_size"] if sizes["max_input_size"] > 0 else None,
            "cols": sizes["max_output_size"] * cells if sizes["max_output_size"] > 0 else None,
        }
        if forward.get("is_perfect", False) or _word(forward.get("mv_type", "onepass")) == "ideal":
            return Crossbar(**array)
        array |= self._converters(forward)
        if not self.is_lightning:
            array["wire_resistance"] = self._wires(forward, device)
            self._tell_unknown(forward)
        elif array["rows"] and array["output_noise"]:
            self.missing.append(
                "forward.out_noise: divided by the root of the number of tiles of a layer (here each converter has all "
                "of it)"
            )
        return Crossbar(**array)

    def _converters(self, forward: Mapping[str, Any]) -> dict[str, Any]:
        """Bits, ranges and noise."""
        usual = (-1, -1, 0.0, 0.0) if self.is_lightning else (1 / 126, 1 / 510, 12.0, 0.06)
        names = ("inp_res", "out_res", "out_bound", "out_noise")
        inputs, outputs, bound, noise = (forward.get(name, default) for name, default in zip(names, usual, strict=True))
        ranges = self._input_range(forward)
        bits = self._bits("forward.inp_res", inputs)
        if bits is None and ranges != "dynamic":
            self.missing.append(
                "inputs that are cut at their range and not rounded (here converters without steps have no limit)"
            )
        return {
            "dac_bits": bits,
            "adc_bits": self._bits("forward.out_res", outputs),
            "input_range": ranges,
            "output_bound": float(bound) if bound > 0 else None,
            "output_noise": float(noise),
        }

    def _input_range(self, forward: Mapping[str, Any]) -> Any:
        given = self.part("pre_post", "input_range")
        if given.get("enable", False):
            if given.get("dynamic", False):
                return "dynamic"
            return "learned" if given.get("learn_input_range", True) else "calibrated"
        if self.is_lightning:
            return "dynamic"
        management = _word(forward.get("noise_management", "absmax"))
        if management in ("none", "constant"):
            return float(forward.get("nm_thres" if management == "constant" else "inp_bound", 1.0))
        if management != "absmax":
            self.missing.append(f"forward.noise_management={management}: the largest input of each vector is taken")
        return "dynamic"

    def _wires(self, forward: Mapping[str, Any], device: DeviceModel) -> float | Wires:
        segments = forward.get("class") == "IOParametersIRDropT" or "ir_drop_rs" in forward
        drop = float(forward.get("ir_drop", 1.0 if segments else 0.0))
        if not drop:
            return 0.0
        if device.signed:
            self.missing.append("forward.ir_drop: wires need a device of conductances, and there is no noise model")
            return 0.0
        self.missing.append("forward.ir_drop: its approximation (here the wires are solved, with the same resistance)")
        if segments:
            return drop * float(forward.get("ir_drop_rs", 0.15))
        return drop * 1e6 / (float(forward.get("ir_drop_g_ratio", 1 / 0.35 / 5e-6)) * device.g_max)

    def _tell_unknown(self, forward: Mapping[str, Any]) -> None:
        for name, (usual, what) in _UNKNOWN_HERE.items():
            if forward.get(name, usual) != usual:
                self.missing.append(f"forward.{name}={forward[name]!r}: {what}")
        managed = _word(forward.get("bound_management", "iterative"))
        if managed != "none" and not self.part("pre_post", "input_range").get("enable", False):
            self.missing.append(
                f"forward.bound_management={managed}: inputs that are halved where outputs saturate (here those do)"
            )
        noise = _word(forward.get("w_noise_type", "none"))
        if noise != "none" and forward.get("w_noise", 0.0):
            self.missing.append(f"forward.w_noise={forward['w_noise']!r}: add '+read-noise(std=...)' to the device")
        mapping = self.part("mapping")
        if mapping.get("learn_out_scaling", False):
            self.missing.append("mapping.learn_out_scaling: see analogsim.fine_tune")
        if _word(self.part("remap").get("type", "none")) != "none":
            self.missing.append("remap: weights that are scaled anew in training (here at each forward)")

    def _steps(self, name: str, res: Any) -> float | None:
        """Steps between the two ends, of their number or its inverse; None for a converter without."""
        if not isinstance(res, int | float) or isinstance(res, bool) or math.isnan(res):
            raise InvalidValueError(f"aihwkit: {name} must be a number, got {res!r}")
        if res <= 0:
            return None
        return float(res) if res > 1 else 1 / float(res)

    def _bits(self, name: str, res: Any) -> int | None:
        steps = self._steps(name, res)
        if steps is None:
            return None
        bits = max(2, round(math.log2(steps + 2)))
        if abs(2**bits - 2 - steps) > 1e-6 * steps:
            self.missing.append(f"{name}={res!r}: {steps:g} steps ({bits} bits with {2**bits - 2} are taken)")
        return bits


def _with(device: DeviceModel, **changes: Any) -> WeightMapping:
    return replace(device.laid, **changes)


def _pcm(given: Mapping[str, Any], model: Mapping[str, Any]) -> DeviceModel:
    t0, t_read = float(model.get("t_0", 20.0)), float(model.get("t_read", 250e-9))
    scales = [float(model.get(f"{name}_scale", 1.0)) for name in ("prog_noise", "drift", "read_noise")]
    effects = (PCMProgramming(scales[0]), PCMDrift(scales[1], t0=t0), PCMReadNoise(scales[2], t0=t0, t_read=t_read))
    return DeviceModel(effects, g_max=given.get("g_max", 25.0), name="pcm")


def _named(name: str) -> Callable[[Mapping[str, Any], Mapping[str, Any]], DeviceModel]:
    def of(given: Mapping[str, Any], model: Mapping[str, Any]) -> DeviceModel:
        return as_device_model(f"{name}(g_max={given['g_max']!r})" if given else name)

    return of


_NOISE_MODELS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], DeviceModel]] = {
    "PCMLikeNoiseModel": _pcm,
    "CustomDriftPCMLikeNoiseModel": _pcm,
    "ReRamWan2022NoiseModel": _named("reram-wan2022"),
    "ReRamCMONoiseModel": lambda given, model: as_device_model("reram-cmo"),
}


@dataclass(frozen=True)
class Network:
    """A network of aihwkit-lightning without its own words.

    Args:
        weights: the state dict of the digital network.
        ranges: input ranges of its analog layers, one number for each block of rows, in units of the layer's input.
    """

    weights: Mapping[str, Tensor]
    ranges: Mapping[str, Tensor]


_OWN = ("input_range", "input_range_update_idx", "x_min", "x_max", "learnable_weight_clip")


def read_state(state: Mapping[str, Tensor]) -> Network:
    """What a state dict of aihwkit-lightning is to a digital network and its twin.

    Weights with learnt limits are clipped to them, as its forward does.

    Args:
        state: of a network that ``convert_to_analog`` made.

    Raises:
        TypeError: it is no state dict.
    """
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InvalidTypeError(
            f"read_state: give a state dict of aihwkit-lightning, names with tensors; got {type(state).__name__}"
        )
    weights = {name: value.detach().clone() for name, value in state.items() if name.split(".")[-1] not in _OWN}
    ranges: dict[str, Tensor] = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition(".")
        if kind == "input_range":
            ranges[layer] = value.detach().clone()
        if kind == "learnable_weight_clip":
            key = f"{layer}.weight" if layer else "weight"
            parts = weights[key].flatten(1).tensor_split(len(value), dim=1)
            limits = (limit.detach().abs().reshape(-1, 1) for limit in value)
            clipped = [part.clamp(-limit, limit) for part, limit in zip(parts, limits, strict=True)]
            weights[key] = torch.cat(clipped, 1).reshape(weights[key].shape)
    return Network(weights, ranges)


def give_ranges(analog: nn.Module, ranges: Mapping[str, Tensor], source: str = "aihwkit-lightning") -> None:
    """Set the input ranges that another tool has trained.

    Args:
        analog: the twin, on a crossbar whose input ranges are learned or calibrated.
        ranges: for each of its layers, by name, one number for each block of rows.
        source: who trained them, for errors.

    Raises:
        ValueError: they are of other layers, or of other blocks. Ranges are as before then.

    Warns:
        ConversionWarning: there are as many blocks, and their borders differ.
    """
    known = {matrix.analog.name: matrix.analog for matrix in matrices_of(analog)}
    wanted = {name for name, state in known.items() if state.crossbar.needs_range}
    if wanted != set(ranges):
        raise InvalidValueError(
            f"{source} has ranges of {_listed(sorted(ranges))}, and the crossbar takes those of "
            f"{_listed(sorted(wanted))}; they must be the same layers"
        )
    found: dict[str, dict[str, Tensor]] = {}
    for name, value in ranges.items():
        shape = known[name].range_shape("input_range")
        if value.numel() != math.prod(shape):
            raise InvalidValueError(
                f"{source}: layer {name!r} has {value.numel()} input ranges, and {math.prod(shape)} block(s) of rows "
                "here; split it alike on both sides"
            )
        rows = known[name].layout.rows
        sizes = [len(part) for part in torch.arange(rows[-1][1]).tensor_split(value.numel())]
        if sizes != [end - start for start, end in rows]:
            warnings.warn(
                f"{source}: layer {name!r} is cut into blocks of {sizes} inputs there, and of "
                f"{[end - start for start, end in rows]} here (between channels); its ranges are those of other inputs",
                ConversionWarning,
                stacklevel=2,
            )
        found[name] = {"input_range": value.abs().reshape(shape)}
    set_ranges(analog, found)


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names)) or "no layer"
