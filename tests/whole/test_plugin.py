"""What packages outside rely on: the names that the paths of plug-ins hand on, and that what is older still runs."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# What each path handed on when every one of them was a single file.
HANDED_ON = {
    "device": (
        *("STUCK_OFF", "STUCK_ON", "Cells", "DeviceModel", "Effect", "Layout", "Mapping", "Noise", "State", "Written"),
        *("checked", "held_by", "param"),
    ),
    "noise": (
        *("GlobalNoise", "KeyedNoise", "Noise", "Scale", "StreamNoise", "TrainingNoise"),
        *("is_silent", "noise_is_compiled", "use_compiled_noise"),
    ),
    "layers": (
        *("AnalogBilinear", "AnalogConv1d", "AnalogConv2d", "AnalogConv3d", "AnalogConvTranspose1d"),
        *("AnalogConvTranspose2d", "AnalogConvTranspose3d", "AnalogEmbedding", "AnalogEmbeddingBag", "AnalogGRU"),
        *("AnalogGRUCell", "AnalogLSTM", "AnalogLSTMCell", "AnalogLayer", "AnalogLinear", "AnalogMatrix"),
        *("AnalogModule", "AnalogMultiheadAttention", "AnalogRNN", "AnalogRNNCell", "AnalogTransformerEncoderLayer"),
        *("Slot", "analog_type", "matrices_of", "register_layer", "register_routed"),
    ),
    "testing": ("DeviceContract", "LayerContract"),
    "fit": (
        *("Check", "FitReport", "FitWarning", "FittedDevice", "Measurements", "Panel", "Parameter", "fit_device"),
        "sample_measurements",
    ),
    "devices": (
        *("CMOProgramming", "CMOReadNoise", "CMORelaxation", "Drift", "FittedDrift", "FittedProgramming"),
        *("FittedReadNoise", "FittedSlowNoise", "Gaussian", "HermesDrift", "HermesProgramming", "HermesReadNoise"),
        *("MiloProgramming", "PCMDrift", "PCMDriftCrossSim", "PCMProgramming", "PCMProgrammingCrossSim"),
        *("PCMReadNoise", "ProgrammingNoise", "Quantization", "ReadNoise", "Relaxation", "SonosProgramming"),
        *("SonosReadNoise", "SonosRetention", "StuckAt", "WanProgramming", "WanProgrammingCrossSim", "WanRelaxation"),
        *("equivalent_age", "pcm", "pcm_hermes", "reram_cmo", "reram_milo", "reram_wan2022", "sonos"),
    ),
}


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in HANDED_ON.items() for name in names])
def test_the_paths_of_plug_ins_hand_on_what_they_did(path: str, name: str) -> None:
    assert getattr(importlib.import_module(f"analogsim.{path}"), name) is not None


def test_what_plug_ins_annotate_with_is_exported() -> None:
    import analogsim
    from analogsim import device, noise
    from analogsim.devices import StuckAt

    assert {"Cells", "State"} <= set(device.__all__)
    assert "Noise" in noise.__all__
    assert analogsim.Noise is noise.Noise is device.Noise
    assert analogsim.State is device.State
    assert analogsim.Cells is device.Cells
    hints = typing.get_type_hints(StuckAt.draw)
    assert hints == {"cells": analogsim.Cells, "noise": analogsim.Noise, "return": analogsim.State}


WEAR = '''
"""Cells that wear out: they programme worse and worse, and some stay on. Written for analogsim 0.1.0."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from analogsim import Mapping, register
from analogsim.device import STUCK_OFF, STUCK_ON, Cells, DeviceModel, Effect, State, held_by, param
from analogsim.devices import Drift, ReadNoise
from analogsim.noise import Noise


@register("worn")
@dataclass(frozen=True)
class Worn(Effect):
    """Programming error that grows with the conductance, and cells that stay on or off.

    Args:
        std: standard deviation of the error at the top of the range.
        p_on: fraction of the cells stuck on.
        kind: what the error grows with.
    """

    std: float = param(0.02, "g_max", ge=0)
    p_on: float = param(0.05, "fraction of cells", ge=0, le=1)
    kind: str = param("root", "1", choices=("root", "linear"))

    def program(self, g: Tensor, cells: Cells, noise: Noise) -> Tensor:
        size = cells.target / cells.g_max
        size = size.abs().sqrt() if self.kind == "root" else size.abs()
        return cells.floor(g + noise.normal_like(g, self.std) * size * cells.g_max)

    def draw(self, cells: Cells, noise: Noise) -> State:
        u = noise.uniform_like(cells.target)
        on = u < self.p_on
        off = (u > 1 - self.p_on / 2) & ~on
        return {"fault": on.to(torch.int8) * STUCK_ON + off.to(torch.int8) * STUCK_OFF}

    def held(self, drawn: State) -> Tensor:
        return drawn["fault"] != 0

    def hold(self, g: Tensor, cells: Cells, drawn: State) -> Tensor:
        return held_by(drawn["fault"], g, cells)


@register("worn-oxide")
def worn_oxide(std: float = 0.02, nu: float = 0.03) -> DeviceModel:
    """All of a worn array."""
    effects = (Worn(std=std), Drift(nu=nu), ReadNoise())
    return DeviceModel(effects, g_min=1.0, g_max=40.0, mapping=Mapping("pair", "column"), name="worn-oxide")
'''

TESTS_OF_WEAR = """
import pytest
import torch
from torch import nn

import analogsim
import wear
from analogsim.device import Written
from analogsim.noise import KeyedNoise
from analogsim.testing import DeviceContract


class TestWorn(DeviceContract):
    device = "worn"


class TestWornOxide(DeviceContract):
    device = "worn-oxide"


def test_a_network_goes_through_its_whole_life():
    torch.manual_seed(0)
    twin = analogsim.convert(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)), device="worn-oxide(std=0.05)")
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    twin(torch.ones(3, 6)).square().sum().backward()
    optimizer.step()
    analogsim.program(twin, seed=1)
    analogsim.drift(twin, "1d")
    assert twin.eval()(torch.ones(3, 6)).isfinite().all()


def test_a_chain_by_hand():
    model = analogsim.DeviceModel((wear.Worn(p_on=1.0),), g_max=20.0)
    written = model.program(torch.ones(2, 3), KeyedNoise("chip", "0"))
    assert isinstance(written, Written)
    assert torch.equal(written.programmed, torch.full_like(written.programmed, 20.0))
    with pytest.raises(ValueError, match="Worn: p_on must be <= 1"):
        wear.Worn(p_on=2)
"""


def test_a_device_package_of_an_older_version_runs_unchanged(tmp_path: Path) -> None:
    (tmp_path / "wear.py").write_text(WEAR)
    (tmp_path / "test_wear.py").write_text(TESTS_OF_WEAR)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "."]
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
