"""aihwkit-lightning's analog layers and ours, set to the same hardware; imported only where they are used."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial, reduce
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar
from analogsim.integrations.aihwkit import Network, read_state
from analogsim.recipes.config.options import Config
from analogsim.recipes.tasks.data_sets import Splits
from analogsim.recipes.tasks.networks import make_network
from analogsim.training import Loss
from benchmarks.harness.methods import RELATIVE, Contender, Method, Twin, descend
from benchmarks.harness.peer_networks import PeerNetwork, question

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


RECOMMENDED: Mapping[str, Any] = MappingProxyType(
    {
        "forward.inp_res": 254,
        "forward.out_res": 254,
        "forward.out_bound": _BOUND,
        "forward.out_noise": 0.01,
        "forward.out_noise_per_channel": True,
        "clip.type": "LAYER_GAUSSIAN_PER_CHANNEL",
        "clip.sigma": 2.5,
        "modifier.noise_type": "ADD_NORMAL_PER_CHANNEL",
        "modifier.std_dev": 0.05,
        "mapping.max_input_size": 512,
        "pre_post.input_range.enable": True,
        "pre_post.input_range.init_from_data": 100,
        "pre_post.input_range.init_std_alpha": 3.0,
    }
)
"""The settings of its user guide (2.1.0); clipping within the 2.0 to 3.5 sigma that it recommends."""


def configured(settings: Mapping[str, Any]) -> Any:
    """The configuration of aihwkit-lightning with these fields, enumerations by the names of their members.

    Raises:
        ValueError: it has no such field, or no such member.
    """
    config = _imported("aihwkit_lightning.simulator.configs").TorchInferenceRPUConfig()
    for key, value in settings.items():
        *path, field = key.split(".")
        try:
            place = reduce(getattr, path, config)
            held = getattr(place, field)
            setattr(place, field, type(held)[value] if isinstance(held, Enum) else value)
        except (AttributeError, KeyError) as error:
            raise ValueError(f"{LIGHTNING} {version()} has no {key}={value!r} in its configuration") from error
    return config


class Trainee:
    """A network on the way through the training of aihwkit-lightning, with its own optimizer, which clips weights.

    Args:
        model: the digital network, which is copied.
        settings: of the tool.
        config: says the optimizer and the learning rate, along the same cosine as ours.
        steps: of the whole training.

    Raises:
        ValueError: it has no such setting.
    """

    def __init__(self, model: nn.Module, settings: Mapping[str, Any], config: Config, steps: int) -> None:
        rule = config.optimization
        convert = _imported("aihwkit_lightning.nn.conversion").convert_to_analog
        self.network: nn.Module = convert(model, configured(settings)).train()
        wrapper = _imported("aihwkit_lightning.optim").AnalogOptimizer
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[rule.optimizer]
        layers: Any = self.network.analog_layers
        self._optimizer = wrapper(kind, layers, self.network.parameters(), lr=rule.lr, weight_decay=rule.weight_decay)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, max(1, steps))

    def step(self, loss: Loss) -> None:
        """One training step."""
        self._optimizer.zero_grad()
        torch.autograd.backward(loss())
        self._optimizer.step()
        self._schedule.step()

    @property
    def network_left(self) -> Network:
        """Its weights under the names of the digital network, and the ranges of its layers that have some."""
        return read_state(self.network.state_dict())


def _loss(data: Splits, network: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return data.task.loss(network(inputs), targets)


def train_peer(config: Config, data: Splits, settings: Mapping[str, Any]) -> PeerNetwork:
    """Train a network with aihwkit-lightning, from the weights and through the batches that our recipes give it.

    Args:
        config: data, network, optimisation and seed.
        data: of the task.
        settings: of the tool.

    Returns:
        The network, for a file.
    """
    model = make_network(config.model, data.facts, seed=config.seed)
    shuffle = torch.Generator().manual_seed(config.seed)  # the order of samples of analogsim.recipes.training
    loader = data.batches(data.train, config.data.batch_size, generator=shuffle)
    trainee = Trainee(model, settings, config, config.optimization.epochs * len(loader))
    torch.manual_seed(config.seed)
    seconds = 0.0
    for _ in range(config.optimization.epochs):
        for inputs, targets in loader:
            started = time.process_time()
            trainee.step(partial(_loss, data, trainee.network, inputs, targets))
            seconds += time.process_time() - started
    asked = question(config, LIGHTNING, settings)
    versions = {LIGHTNING: version(), "torch": torch.__version__}
    left = trainee.network_left
    return PeerNetwork(asked, left.weights, left.ranges, seconds, versions)
