from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import safe_open, save_file
from torch import nn

import analogsim
from analogsim.chip.adapters.attached import adapters_of


def twin() -> Any:
    torch.manual_seed(0)
    return analogsim.convert(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)), "pcm").eval()


def adapted(rank: int = 2, ages: Any = ("1h", "1y")) -> Any:
    analog = twin()
    analogsim.program(analog, 3)
    analogsim.drift(analog, "1d")
    analogsim.add_adapters(analog, rank, ages=ages)
    with torch.no_grad():
        for value in analogsim.adapter_parameters(analog):
            value.add_(0.3 * torch.randn_like(value))
    return analog


@pytest.mark.parametrize(("rank", "ages"), [(0, ()), (2, ()), (2, ("1h", "1y"))])
def test_with_a_chip_and_apart(tmp_path: Path, rank: int, ages: Any) -> None:
    analog, x = adapted(rank, ages), torch.randn(7, 6)
    wanted, parameters = analog(x), analogsim.adapter_parameters(analog)
    analogsim.save_chip(analog, tmp_path / "chip")
    analogsim.save_adapters(analog, tmp_path / "adapters")
    other = twin()
    analogsim.load_chip(other, tmp_path / "chip")
    torch.testing.assert_close(other(x), wanted)
    assert adapters_of(other) == adapters_of(analog)
    assert all(value.requires_grad for value in analogsim.adapter_parameters(other))
    analogsim.remove_adapters(other)
    assert not torch.allclose(other(x), wanted)
    assert analogsim.load_adapters(other, tmp_path / "adapters") == adapters_of(analog)
    torch.testing.assert_close(other(x), wanted)
    assert all(torch.equal(a, b) for a, b in zip(analogsim.adapter_parameters(other), parameters, strict=True))


def test_a_file_without_them_takes_them_off(tmp_path: Path) -> None:
    """The answers are those of the time when it was saved."""
    analog, x = twin(), torch.randn(7, 6)
    analogsim.program(analog, 3)
    wanted = analog(x)
    analogsim.save_chip(analog, tmp_path / "chip")
    with safe_open(tmp_path / "chip", framework="pt") as file:
        assert file.metadata()["format"] == "analogsim-chip-4", "which versions without adapters read"
    analogsim.add_adapters(analog, 1)
    analogsim.save_chip(analog, tmp_path / "other")
    with safe_open(tmp_path / "other", framework="pt") as file:
        assert file.metadata()["format"] == "analogsim-chip-5"
    analogsim.load_chip(analog, tmp_path / "chip")
    assert adapters_of(analog).matrices == ()
    torch.testing.assert_close(analog(x), wanted)


def test_the_chip_that_they_were_trained_on_is_kept(tmp_path: Path) -> None:
    analog = twin()
    analogsim.program(analog, 3)
    analogsim.fine_tune(analog, torch.randn(8, 6), steps=1)
    analogsim.save_adapters(analog, tmp_path / "adapters")
    other = twin()
    analogsim.load_adapters(other, tmp_path / "adapters")
    with pytest.warns(UserWarning, match="trained on chip 3"):
        analogsim.program(other, 5)


def test_bad_files_leave_the_twin_as_it_was(tmp_path: Path) -> None:
    analog, x = adapted(), torch.randn(7, 6)
    wanted = analog(x)
    path = tmp_path / "adapters"
    analogsim.save_adapters(analog, path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    metadata.pop("sha256")

    def refused(told: str, changed: Any = None, about: Any = None) -> None:
        save_file(tensors if changed is None else changed, path, metadata=metadata if about is None else about)
        with pytest.raises(ValueError, match=told):
            analogsim.load_adapters(analog, path)
        torch.testing.assert_close(analog(x), wanted)

    refused("none of adapters", about={"format": "analogsim-chip-5"})
    refused("its list of matrices cannot be read", about={"format": metadata["format"], "matrices": "{"})
    entries = json.loads(metadata["matrices"])
    refused(
        "'4' is no analog matrix of this one",
        about={"format": metadata["format"], "matrices": json.dumps({**entries, "4": entries["2"]})},
    )
    refused("matrix '0' lacks", {key: value for key, value in tensors.items() if key != "0/adapter.scale"})
    refused("matrix '2' lacks", {**tensors, "2/adapter.up": tensors["2/adapter.up"][:1].clone()})
    refused("finite numbers", {**tensors, "2/adapter.up": tensors["2/adapter.up"] * torch.nan})
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="holds no adapters or is damaged"):
        analogsim.load_adapters(analog, path)
    with pytest.raises(FileNotFoundError, match="no file"):
        analogsim.load_adapters(analog, tmp_path / "nowhere")
    with pytest.raises(OSError, match="cannot write"):
        analogsim.save_adapters(analog, tmp_path / "nowhere" / "adapters")
    with pytest.raises(ValueError, match="save_adapters: the twin has no adapters"):
        analogsim.save_adapters(twin(), path)
