from __future__ import annotations

import json

import pytest

import analogsim
from analogsim.recipes.cli import main
from analogsim.recipes.cli.devices import settable


@pytest.mark.parametrize("text", ["pcm(...)", "pcm(…)", "pcm()", "pcm ( ... )", "pcm"])
def test_what_can_be_set_is_listed(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["devices", text])
    out = capsys.readouterr().out
    assert "what can be set in pcm(...), with defaults and units:" in out
    assert "  g_max=25.0  [µS; > 0]\n      conductance of the largest weight" in out
    assert "  fit='joshi'  [joshi, crosssim]\n" in out
    assert "  copies=1  [1 to 4096]\n" in out
    assert "  percentile=100.0  [%; > 0, <= 100]\n" in out


@pytest.mark.parametrize("name", analogsim.available_devices())
def test_what_is_listed_can_be_set(name: str) -> None:
    listed = settable(name)
    assert len({one.name for one in listed}) == len(listed)
    device = analogsim.as_device_model(name)
    for one in listed:
        assert one.meaning, one.name
        assert one.unit, one.name
        if one.default is not None:  # as it is by default, so that it is the same device
            changed = analogsim.as_device_model(f"{name}({one.name}={one.default!r})")
            assert (changed.effects, changed.laid) == (device.effects, device.laid)


def test_each_part_of_a_chain_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["devices", "quantization(...) + drift(nu=0.1)"])
    out = capsys.readouterr().out
    assert out.index("in quantization(...)") < out.index("levels=16  [>= 2]") < out.index("in drift(...)")
    assert "t0=20.0  [s; > 0]" in out
    assert out.count("  copies=1 ") == 1


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["devices", "gaussian(std=0.1)", "--json", "-", "--quiet"])
    out, err = capsys.readouterr()
    assert err == ""
    found = json.loads(out)
    assert {"name": "Gaussian.std", "value": 0.1, "unit": "fraction of g_max", "allowed": ">= 0"} in found["parameters"]
    assert found["settable"]["gaussian"][0]["default"] == 0.05
    main(["devices", "--json", "-"])
    out, err = capsys.readouterr()
    assert [one["name"] for one in json.loads(out)] == list(analogsim.available_devices())
    assert "Phase-change memory" in err
