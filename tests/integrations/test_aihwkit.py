"""Configurations and networks of aihwkit and aihwkit-lightning; where that is installed, its answers beside ours."""

from __future__ import annotations

import importlib.util
import json
import re
import warnings
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest
import torch
from torch import nn

import analogsim
from analogsim.errors import ConversionWarning
from analogsim.integrations.aihwkit import Hardware, give_ranges, read_state, translate

with_lightning = pytest.mark.skipif(
    importlib.util.find_spec("aihwkit_lightning") is None,
    reason="aihwkit-lightning is not installed: it wants an environment of its own (docs/coming-from.md)",
)

GUIDE: dict[str, Any] = {  # what lightning's user guide recommends
    "forward": {"inp_res": 254, "out_res": 254, "out_bound": 12.0, "out_noise": 0.01, "out_noise_per_channel": True},
    "clip": {"type": "LAYER_GAUSSIAN_PER_CHANNEL", "sigma": 2.5},
    "modifier": {"noise_type": "ADD_NORMAL_PER_CHANNEL", "std_dev": 0.05},
    "mapping": {"max_input_size": -1},
    "pre_post": {"input_range": {"enable": True, "init_from_data": 100, "init_std_alpha": 3.0}},
}


def quietly(config: Any) -> Hardware:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        return translate(config)


def test_what_lightning_recommends() -> None:
    found = translate(GUIDE)
    assert found.missing == ()
    assert found.crossbar == analogsim.Crossbar(
        dac_bits=8, adc_bits=8, input_range="learned", output_bound=12.0, output_noise=0.01
    )
    assert found.device.effects == (analogsim.Gaussian(0.05),)
    assert (found.device.mapping.cells, found.device.mapping.scale) == ("signed", "column")
    assert found.clip == {"start": 2.5, "end": 2.5, "per": "column"}
    assert (found.training, found.compensation) == (None, None)
    assert translate(json.dumps(GUIDE)) == found


class Kind(Enum):
    NONE = "None"
    ADD_NORMAL = "AddNormal"
    MULT_NORMAL = "MultNormal"
    LAYER_GAUSSIAN = "LayerGaussian"
    ABS_MAX = "AbsMax"
    ITERATIVE = "Iterative"


@dataclass
class IOParameters:
    """The fields of aihwkit's that count here, with its defaults."""

    is_perfect: bool = False
    inp_bound: float = 1.0
    inp_noise: float = 0.0
    inp_res: float = 1 / (2**7 - 2)
    out_bound: float = 12.0
    out_noise: float = 0.06
    out_res: float = 1 / (2**9 - 2)
    bound_management: Kind = Kind.ITERATIVE
    noise_management: Kind = Kind.ABS_MAX
    w_noise: float = 0.0
    w_noise_type: Kind = Kind.NONE
    ir_drop: float = 0.0
    ir_drop_g_ratio: float = 1.0 / 0.35 / 5e-6


class PCMLikeNoiseModel:
    def __init__(self, g_max: float = 25.0, **others: Any) -> None:
        self.g_max, self.prog_coeff, self.t_0, self.t_read = g_max, [0.26348, 1.9650, -1.1731], 20.0, 250e-9
        self.prog_noise_scale = self.read_noise_scale = self.drift_scale = 1.0
        vars(self).update(others)


class GlobalDriftCompensation:
    pass


@dataclass
class Modifier:
    type: Kind = Kind.NONE
    std_dev: float = 0.0
    rel_to_actual_wmax: bool = True
    pdrop: float = 0.0


@dataclass
class Clip:
    type: Kind = Kind.NONE
    sigma: float = 2.5


@dataclass
class MappingParameter:
    digital_bias: bool = True
    weight_scaling_omega: float = 0.0
    weight_scaling_columnwise: bool = False
    learn_out_scaling: bool = False
    max_input_size: int = 512
    max_output_size: int = 512


@dataclass
class InferenceRPUConfig:
    """As the one of aihwkit is put together."""

    forward: Any = field(default_factory=IOParameters)
    noise_model: Any = field(default_factory=PCMLikeNoiseModel)
    drift_compensation: Any = field(default_factory=GlobalDriftCompensation)
    modifier: Modifier = field(default_factory=Modifier)
    clip: Clip = field(default_factory=Clip)
    mapping: MappingParameter = field(default_factory=MappingParameter)


def test_aihwkits_hardware_aware_training() -> None:
    """The configuration of its examples of inference: PCM, 8 bits, weights scaled by column, noise in training."""
    config = InferenceRPUConfig(
        forward=IOParameters(inp_res=1 / (2**8 - 2), out_res=1 / (2**8 - 2), out_noise=0.04),
        modifier=Modifier(Kind.ADD_NORMAL, 0.1),
        clip=Clip(Kind.LAYER_GAUSSIAN, 2.0),
        mapping=MappingParameter(weight_scaling_omega=1.0, weight_scaling_columnwise=True),
    )
    with pytest.warns(ConversionWarning, match=r"no counterpart here: forward.bound_management=iterative"):
        found = translate(config)
    assert len(found.missing) == 1
    assert found.device == analogsim.as_device_model("pcm")
    assert found.crossbar == analogsim.Crossbar(
        rows=512, cols=1024, dac_bits=8, adc_bits=8, output_bound=12.0, output_noise=0.04
    )
    assert found.training is not None
    assert found.training.effects == (analogsim.Gaussian(0.1),)
    assert found.clip == {"start": 2.0, "end": 2.0, "per": "layer"}
    assert found.compensation == "global"
    model = nn.Linear(6, 4)
    for device in (found.training, found.device):
        assert analogsim.convert(model, device, crossbar=found.crossbar).analog.device == device


def test_a_noise_model_keeps_its_numbers() -> None:
    noise = PCMLikeNoiseModel(20.0, drift_scale=0.5, prog_noise_scale=0.25, read_noise_scale=2.0, t_0=10.0)
    found = quietly(InferenceRPUConfig(noise_model=noise)).device
    assert (found.g_max, found.name) == (20.0, "pcm")
    programming, drift, read = found.effects
    assert (programming.scale, drift.scale, drift.t0, read.scale, read.t0) == (0.25, 0.5, 10.0, 2.0, 10.0)
    other = quietly({"forward": {}, "noise_model": {"class": "ReRamWan2022NoiseModel", "g_max": 30.0}})
    assert other.device.name.startswith("reram-wan2022")
    assert other.device.g_max == 30.0


def test_wires_have_their_resistance() -> None:
    found = quietly(InferenceRPUConfig(forward=IOParameters(ir_drop=1.0)))
    assert found.crossbar.wires is not None
    assert found.crossbar.wires.row == pytest.approx(0.35 * 5 / 25)  # of a wire to 5 µS there, to 25 µS here
    found = quietly({"forward": {"class": "IOParametersIRDropT", "ir_drop_rs": 0.2}, "noise_model": {}})
    assert found.crossbar.wires is not None
    assert found.crossbar.wires.col == 0.2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"forward": {"inp_res": 100}}, r"forward.inp_res=100: 100 steps \(7 bits with 126 are taken\)"),
        ({"forward": {"inp_res": -1}}, "inputs that are cut at their range and not rounded"),
        (
            {"forward": {"inp_res": 254, "out_noise": 0.1}},
            "forward.out_noise relative to the largest weight of the tile",
        ),
        ({"mapping": {"max_input_size": 64}}, "forward.out_noise: divided by the root of the number of tiles"),
        ({"clip": {"type": "LEARNABLE_PER_CHANNEL"}}, "clip.type=LEARNABLE_PER_CHANNEL"),
        (
            {"modifier": {"noise_type": "ADD_NORMAL_PER_CHANNEL", "quantization_type": "DISCRETIZE", "res": 30}},
            "rounding",
        ),
    ],
)
def test_what_lightning_has_and_we_have_not(changes: dict[str, Any], told: str) -> None:
    config = GUIDE | changes
    with pytest.warns(ConversionWarning, match="no counterpart"):
        found = translate(config)
    assert any(re.search(told, one) for one in found.missing), found.missing


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (InferenceRPUConfig(forward=IOParameters(inp_noise=0.1)), "forward.inp_noise=0.1: noise of the inputs"),
        (InferenceRPUConfig(modifier=Modifier(pdrop=0.1)), "modifier.pdrop: drop connect"),
        (InferenceRPUConfig(mapping=MappingParameter(learn_out_scaling=True)), "mapping.learn_out_scaling"),
        (InferenceRPUConfig(), "mapping.weight_scaling_omega=0"),
        (InferenceRPUConfig(noise_model=object), "noise_model"),
        (InferenceRPUConfig(forward=IOParameters(w_noise=0.01, w_noise_type=Kind.ADD_NORMAL)), "read-noise"),
    ],
)
def test_what_aihwkit_has_and_we_have_not(config: Any, told: str) -> None:
    if config.noise_model is object:
        config.noise_model = {"class": "MyNoiseModel"}
    assert any(told in one for one in quietly(config).missing)


def test_rounded_weights_and_biases_on_the_crossbar() -> None:
    found = quietly({"forward": {}, "modifier": {"quantization_type": "DISCRETIZE_PER_CHANNEL", "res": 30}})
    (effect,) = found.device.effects
    assert effect.cell_levels() == 16  # of a pair: 31 levels, 30 steps
    with_bias = quietly(InferenceRPUConfig(mapping=MappingParameter(digital_bias=False)))
    assert with_bias.device.laid.bias_rows == 1


def test_a_perfect_forward_has_no_periphery() -> None:
    found = quietly(InferenceRPUConfig(forward=IOParameters(is_perfect=True)))
    assert found.crossbar == analogsim.Crossbar(rows=512, cols=1024)


@pytest.mark.parametrize(
    ("config", "error", "told"),
    [
        ("{", ValueError, "the configuration is no JSON"),
        ({"optimizer": {}}, TypeError, "give an RPU configuration.*got dict"),
        (3, TypeError, "got int"),
        (GUIDE | {"forward": {"inp_res": "eight"}}, ValueError, "forward.inp_res must be a number, got 'eight'"),
    ],
)
def test_bad_configurations(config: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told) as raised:
        translate(config)
    assert isinstance(raised.value, analogsim.AnalogsimError)


# Networks


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(80, 7), nn.ReLU(), nn.Linear(7, 3))


def test_a_state_is_weights_and_ranges() -> None:
    state = {
        "0.weight": torch.tensor([[1.0, -2.0, 3.0], [0.1, 0.2, 0.3]]),
        "0.bias": torch.zeros(2),
        "0.input_range": torch.tensor([3.0, 2.0]),
        "0.input_range_update_idx": torch.zeros(2),
        "0.x_min": torch.zeros(2),
        "0.x_max": torch.zeros(2),
        "0.learnable_weight_clip": torch.tensor([[[1.5], [1.0]], [[2.0], [0.25]]]),
    }
    found = read_state(state)
    assert set(found.weights) == {"0.weight", "0.bias"}
    torch.testing.assert_close(found.weights["0.weight"], torch.tensor([[1.0, -1.5, 2.0], [0.1, 0.2, 0.25]]))
    assert found.ranges["0"].tolist() == [3.0, 2.0]
    with pytest.raises(TypeError, match="give a state dict of aihwkit-lightning"):
        read_state(net())  # type: ignore[arg-type]


def test_ranges_of_other_blocks_are_told() -> None:
    analog = analogsim.convert(
        nn.Linear(6, 4), "gaussian", crossbar=analogsim.Crossbar(4, dac_bits=8, input_range="learned")
    )
    give_ranges(analog, {"": torch.tensor([1.0, -2.0])})
    assert analogsim.get_ranges(analog)[""]["input_range"].tolist() == [1.0, 2.0]
    with pytest.raises(ValueError, match=r"has 3 input ranges, and 2 block\(s\) of rows here; split it alike"):
        give_ranges(analog, {"": torch.ones(3)})
    with pytest.raises(ValueError, match="has ranges of 'other', and the crossbar takes those of ''"):
        give_ranges(analog, {"other": torch.ones(2)})
    conv = analogsim.convert(
        nn.Conv2d(3, 4, 3), "gaussian", crossbar=analogsim.Crossbar(18, dac_bits=8, input_range="learned")
    )
    with pytest.warns(ConversionWarning, match=r"blocks of \[14, 13\] inputs there, and of \[.*\] here"):
        give_ranges(conv, {"": torch.ones(2)})


# Beside aihwkit-lightning itself


def lightning_config(settings: dict[str, Any]) -> Any:
    from aihwkit_lightning.simulator.configs import TorchInferenceRPUConfig

    def put(place: Any, values: dict[str, Any]) -> None:
        for name, value in values.items():
            held = getattr(place, name)
            if isinstance(value, dict):
                put(held, value)
            else:
                setattr(place, name, type(held)[value] if isinstance(held, Enum) else value)

    config = TorchInferenceRPUConfig()
    put(config, settings)
    return config


CONFIGS: dict[str, dict[str, Any]] = {
    "guide": GUIDE,
    "tiles": GUIDE | {"mapping": {"max_input_size": 20}, "forward": GUIDE["forward"] | {"out_noise": 0.0}},
    "whole layers": {
        "forward": {"inp_res": 2**7 - 2, "out_res": 2**9 - 2, "out_bound": 5.0, "out_noise": 0.05},
        "modifier": {"noise_type": "ADD_NORMAL", "std_dev": 0.02},
        "pre_post": {"input_range": {"enable": True, "init_from_data": 0}},
    },
    "dynamic ranges": {
        "forward": {"inp_res": 254},
        "modifier": {"noise_type": "ADD_NORMAL_PER_CHANNEL", "std_dev": 0.05},
        "pre_post": {"input_range": {"enable": True, "dynamic": True}},
    },
    "no converters": {"modifier": {"noise_type": "ADD_NORMAL", "std_dev": 0.1}},
}


@with_lightning
@pytest.mark.parametrize("settings", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_both_give_the_same_answers(settings: dict[str, Any]) -> None:
    """From the objects and from the mapping; without noise in eval, with it from one seed in training."""
    from aihwkit_lightning.nn.conversion import convert_to_analog

    config = lightning_config(settings)
    hardware = translate(config)
    assert translate(settings) == hardware
    assert hardware.missing == ()
    model = nn.Sequential(nn.Linear(48, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    theirs = convert_to_analog(model, config).double()
    inputs = torch.randn(64, 48, dtype=torch.float64)
    for layer in theirs.analog_layers():
        if layer.input_range is not None:
            size = layer.input_range.numel()
            layer.input_range.data = torch.linspace(1.0, 2.0, size, dtype=torch.float64)
            layer.input_range_update_idx.fill_(1e6)  # no more from data
    left = read_state(theirs.state_dict())
    ours = nn.Sequential(nn.Linear(48, 7), nn.ReLU(), nn.Linear(7, 3)).double()
    ours.load_state_dict(left.weights)
    analog = analogsim.convert(ours, hardware.device, crossbar=hardware.crossbar)
    give_ranges(analog, left.ranges)
    answers = []
    for network in (theirs, analog):
        network.train()
        torch.manual_seed(0)
        answers.append(network(inputs).detach())
    if settings is not CONFIGS["tiles"]:  # whose noise is drawn tile by tile there, and for the whole layer here
        torch.testing.assert_close(answers[1], answers[0], rtol=1e-9, atol=1e-9)
        assert not torch.allclose(answers[0], theirs.eval()(inputs), rtol=1e-3)  # there was noise
    analogsim.set_noise_scale(analog, 0.0)
    torch.testing.assert_close(analog(inputs), theirs.eval()(inputs), rtol=1e-9, atol=1e-9)


@with_lightning
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_its_checkpoint_comes_over(tmp_path: Any) -> None:
    """A network trained there for a few steps, saved by torch, judged here: convolution and all."""
    from aihwkit_lightning.nn.conversion import convert_to_analog
    from aihwkit_lightning.optim import AnalogOptimizer

    config = lightning_config(GUIDE)
    theirs = convert_to_analog(net(), config).train()
    optimizer = AnalogOptimizer(torch.optim.Adam, theirs.analog_layers, theirs.parameters(), lr=1e-2)
    torch.manual_seed(1)  # seed 0 has an output in the middle between two codes, to the last bit
    inputs, labels = torch.randn(64, 2, 6, 6), torch.randint(3, (64,))
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(theirs(inputs), labels).backward()
        optimizer.step()
    torch.save(dict(theirs.state_dict()), tmp_path / "lightning.pt")
    left = read_state(torch.load(tmp_path / "lightning.pt", weights_only=True))
    model = net().double()  # in float32 a rounding may go to another code
    model.load_state_dict(left.weights)
    hardware = translate(config)
    analog = analogsim.convert(model, hardware.device, crossbar=hardware.crossbar)
    give_ranges(analog, left.ranges)
    analogsim.set_noise_scale(analog.train(), 0.0)
    inputs = inputs.double()
    torch.testing.assert_close(analog(inputs), theirs.double().eval()(inputs), rtol=1e-9, atol=1e-9)
    report = analogsim.evaluate(analogsim.convert(model, "pcm"), [(inputs, labels)], chips=2, times=["1d"])
    assert 0 <= report.mean[0] <= 1
