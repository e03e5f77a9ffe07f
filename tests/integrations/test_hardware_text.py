"""Devices and crossbars through JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from torch import nn

import analogsim
from analogsim import Crossbar, Wires
from analogsim.integrations.hardware_text import (
    plain_crossbar,
    plain_device,
    plain_hardware,
    read_plain_crossbar,
    read_plain_device,
)

OWN = analogsim.as_device_model("pcm").replace(g_max=20.0)


@pytest.mark.parametrize(
    "device",
    [
        "pcm",
        "pcm(copies=2)",
        "quantization(levels=16)+stuck-at",
        OWN,
        analogsim.Gaussian(0.1, law="proportional"),
        ["pcm", analogsim.StuckAt()],
        {"b": "pcm", "a": None, "*": OWN},
    ],
    ids=str,
)
def test_devices(device: Any) -> None:
    plain = plain_device(device)
    stored = json.loads(json.dumps(plain, sort_keys=True))
    assert plain_device(stored) == plain
    found = read_plain_device(stored)
    if isinstance(device, dict):
        assert list(found) == list(device)
        pairs = list(zip(found.values(), device.values(), strict=True))
    else:
        pairs = [(found, device)]
    for one, other in pairs:
        assert (one is None) == (other is None)
        if other is not None:
            mine, theirs = analogsim.as_device_model(one), analogsim.as_device_model(other)
            assert mine == theirs


@pytest.mark.parametrize(
    "crossbar",
    [
        "standard",
        "standard(adc_bits=6)",
        Crossbar(),
        Crossbar(rows=64, dac_bits=8, input_range="learned", wire_resistance=2.0),
        Crossbar(wire_resistance=Wires(row=1.0, sink=3.0, mode="fast")),
        {"b": "standard", "*": Crossbar(adc_bits=4)},
    ],
    ids=str,
)
def test_crossbars(crossbar: Any) -> None:
    plain = plain_crossbar(crossbar)
    stored = json.loads(json.dumps(plain, sort_keys=True))
    assert plain_crossbar(stored) == plain
    found = read_plain_crossbar(stored)
    if isinstance(crossbar, dict):
        assert list(found) == list(crossbar)
        pairs = list(zip(found.values(), crossbar.values(), strict=True))
    else:
        pairs = [(found, crossbar)]
    assert all(analogsim.as_crossbar(one) == analogsim.as_crossbar(other) for one, other in pairs)


def test_a_file_of_a_device_is_taken_in_whole(tmp_path: Any) -> None:
    path = tmp_path / "own.toml"
    analogsim.save_device(OWN, path)
    plain = plain_device(str(path))
    path.unlink()
    assert analogsim.as_device_model(read_plain_device(plain)) == OWN


def test_the_hardware_of_a_twin() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2), nn.Embedding(5, 4))
    analog = analogsim.convert(model, {"0": OWN, "1": None, "2": "pcm"}, crossbar={"0": "standard"}, embeddings=True)
    said = json.loads(json.dumps(plain_hardware(analog), sort_keys=True))
    again = analogsim.convert(
        model,
        read_plain_device(said["device"]),
        crossbar=read_plain_crossbar(said["crossbar"]),
        embeddings=said["embeddings"],
    )
    for layer in ("0", "2"):
        mine, theirs = (twin.get_submodule(layer).analog for twin in (again, analog))
        assert (mine.device, mine.crossbar) == (theirs.device, theirs.crossbar)
    assert type(again[1]) is nn.Linear


@pytest.mark.parametrize(
    ("plain", "told"),
    [({"rows": 4, "bits": 8}, "unknown name|must be|give a name"), ({"rows": 0}, "rows must be an integer")],
)
def test_bad_crossbars(plain: dict[str, Any], told: str) -> None:
    with pytest.raises((ValueError, TypeError), match=told):
        plain_crossbar(plain)
    with pytest.raises(ValueError, match=r"rows|bits"):
        read_plain_crossbar(plain)
