"""aihwkit-lightning's analog layers and ours, set to the same hardware; imported only where they are used."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar
from benchmarks.harness.methods import RELATIVE, Contender, Method, Twin, descend

LIGHTNING = "aihwkit-lightning"

_BITS = 8
_BOUND = 12.0  # of the output converters, in units of (input range x largest weight)


def available() -> bool:
    """Whether aihwkit-lightning is installed."""
    return importlib.util.find_spec("aihwkit_lightning") is not None


def version() -> str:
    """The version of aihwkit-lightning."""
    return importlib.metadata.version("aihwkit_lightning")


def _imported(name: str) -> Any:
    """One of its modules, without what it prints when it finds no triton."""
    with contextlib.redirect_stdout(io.StringIO()):
        return importlib.import_module(name)


@dataclass(frozen=True)
class Hardware:
    """What both sides simulate.

    Args:
        weight_noise: standard deviation, as a fraction of the layer's largest weight.
        converters: 8 bits in and out, one trained input range for each layer, an output bound of 12.
        output_noise: standard deviation before the output converter, in units of (input range x the layer's largest
            weight).
    """

    weight_noise: float
    converters: bool = False
    output_noise: float = 0.0

    @property
    def silent(self) -> Hardware:
        """The same without noise."""
        return replace(self, weight_noise=0.0, output_noise=0.0)

    @property
    def crossbar(self) -> Crossbar:
        """Our name for the periphery."""
        if not self.converters:
            return Crossbar()
        noise = self.output_noise
        return Crossbar(dac_bits=_BITS, adc_bits=_BITS, input_range="learned", output_bound=_BOUND, output_noise=noise)

    def config(self, *, fast: bool) -> Any:
        """The configuration of aihwkit-lightning.

        Args:
            fast: its fast mode, which leaves the gradient of the input ranges to torch.
        """
        configs = _imported("aihwkit_lightning.simulator.configs")
        config = configs.TorchInferenceRPUConfig()
        config.modifier.noise_type = configs.WeightNoiseInjectionType.ADD_NORMAL
        config.modifier.std_dev = self.weight_noise
        if self.converters:
            config.forward.inp_res = config.forward.out_res = (1 << _BITS) - 2  # steps between the two ends
            config.forward.out_bound = _BOUND
            config.forward.out_noise = self.output_noise
            config.pre_post.input_range.enable = True
            config.pre_post.input_range.init_from_data = 0  # ranges are given
            config.pre_post.input_range.fast_mode = fast
        return config


NOISE = Hardware(RELATIVE)
CONVERTERS = Hardware(RELATIVE, converters=True, output_noise=0.04)


@torch.no_grad()
def _settle(model: nn.Module, inputs: Tensor) -> None:
    """Give batch norm the statistics of a batch: calibration takes them, training the batch's own."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def twin_of(model: nn.Module, hardware: Hardware, inputs: Tensor) -> nn.Module:
    """Our twin, its ranges such that a batch fits."""
    analog = analogsim.convert(model, analogsim.Gaussian(hardware.weight_noise), crossbar=hardware.crossbar)
    if hardware.converters:
        _settle(model, inputs)
        analogsim.calibrate(analog, [inputs])
    return analog.train()


class Behind(Method):
    """Ours, behind converters.

    Args:
        model: the network.
        hardware: what is simulated; with converters.
        inputs: a batch that the input ranges start from.
        recompute: whether backward makes draws and codes of inputs again instead of keeping them.
    """

    def __init__(self, model: nn.Module, hardware: Hardware, inputs: Tensor, *, recompute: bool = False) -> None:
        super().__init__(model)
        self.analog = twin_of(model, hardware, inputs)
        analogsim.set_recompute(self.analog, recompute)
        self.optimizer.add_param_group({"params": analogsim.range_parameters(self.analog)})

    def backward(self, images: Tensor, labels: Tensor) -> None:
        """See `Method.backward`."""
        descend(self.analog, images, labels)


class Lightning(Method):
    """Layers of aihwkit-lightning, which hold copies of the weights, with input ranges that start where ours do.

    Its own optimizer differs from torch's by clipping weights, which is off here: torch's is taken for all.

    Args:
        model: the network.
        hardware: what is simulated.
        inputs: a batch that the input ranges start from.
        fast: its fast mode.
    """

    def __init__(self, model: nn.Module, hardware: Hardware, inputs: Tensor, *, fast: bool = False) -> None:
        twin = twin_of(model, hardware, inputs)
        converted = _imported("aihwkit_lightning.nn.conversion").convert_to_analog(model, hardware.config(fast=fast))
        if hardware.converters:
            ranges = analogsim.range_parameters(twin)
            with torch.no_grad():
                for layer, found in zip(converted.analog_layers(), ranges, strict=True):
                    layer.input_range.fill_(found)
        super().__init__(converted.train())


_OURS = "convert, gaussian", "convert, 8 bits"
_THEIRS = f"{LIGHTNING}, gaussian", f"{LIGHTNING}, 8 bits", f"{LIGHTNING}, 8 bits, fast mode"

# Which of ours simulates the same as one of theirs.
COUNTERPARTS = dict(zip(_THEIRS, (_OURS[0], _OURS[1], _OURS[1]), strict=True))


def ours(inputs: Tensor) -> tuple[Contender, ...]:
    """What analogsim has to set against them; ranges start from ``inputs``."""
    return (
        Contender(_OURS[0], lambda model: Twin(model, analogsim.Gaussian(NOISE.weight_noise)), "relative"),
        Contender(_OURS[1], lambda model: Behind(model, CONVERTERS, inputs)),
    )


def theirs(inputs: Tensor) -> tuple[Contender, ...]:
    """The contenders that need aihwkit-lightning; ranges start from ``inputs``."""
    return (
        Contender(_THEIRS[0], lambda model: Lightning(model, NOISE, inputs), "relative"),
        Contender(_THEIRS[1], lambda model: Lightning(model, CONVERTERS, inputs)),
        Contender(_THEIRS[2], lambda model: Lightning(model, CONVERTERS, inputs, fast=True)),
    )
