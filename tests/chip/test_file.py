from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import analogsim
from analogsim import Crossbar, DeviceModel, Drift, Gaussian, Mapping, Quantization, ReadNoise, StuckAt
from analogsim.devices import FittedSlowNoise
from analogsim.layers.module import matrices_of

DEVICES = {
    "pcm": "pcm",
    "gaussian": "gaussian",
    "stuck-at": "stuck-at",
    "read noise": ReadNoise(0.05),
    "everything": [Quantization(16), Gaussian(0.05), StuckAt(0.1, 0.05), Drift(0.05, 0.02), ReadNoise(0.02)],
}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def net() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    model.add_module("a/b", nn.Linear(3, 3))
    return model


def programmed(device: object = "pcm", seed: int = 3, t: float | str = "1d", **options: object) -> nn.Module:
    torch.manual_seed(0)
    analog = analogsim.convert(net(), device).eval()
    analogsim.program(analog, seed=seed)
    analogsim.drift(analog, t, **options)
    return analog


X = torch.linspace(-1, 1, 32).reshape(2, 1, 4, 4)


@pytest.mark.parametrize("device", DEVICES.values(), ids=DEVICES.keys())
@pytest.mark.parametrize("options", [{}, {"compensation": None}], ids=["global", "none"])
def test_round_trip_is_exact(tmp_path: Path, device: object, options: dict[str, object]) -> None:
    analog = programmed(device, t=12345.678901, **options)
    first = analog(X)
    path = tmp_path / "chip.safetensors"
    analogsim.save_chip(analog, path)
    other = programmed(device, seed=9, t=0)
    analogsim.erase(other)
    analogsim.load_chip(other, str(path))
    assert torch.equal(other(X), first)
    assert repr(other) == repr(analog)
    for t in ("1y", "1s"):  # and onwards
        answers = []
        for twin in (analog, other):
            analogsim.drift(twin, t)
            answers.append(twin(X))
        assert torch.equal(*answers)
    assert os.listdir(tmp_path) == ["chip.safetensors"]


@pytest.mark.parametrize("held", [True, False], ids=["held", "from before it was"])
def test_the_first_measurement_comes_from_the_file_or_is_made_again(tmp_path: Path, held: bool) -> None:
    """A bound that was set after programming is seen by both measurements, and so it is once loaded."""
    layer = nn.Linear(30, 20)
    crossbar = analogsim.Crossbar(adc_bits=6, output_bound="calibrated", output_noise=0.1)
    analog, other = (analogsim.convert(layer, "pcm", crossbar=crossbar).eval() for _ in range(2))
    analogsim.program(analog, seed=0)
    analogsim.calibrate(analog, [torch.randn(50, 30)])
    analogsim.drift(analog, "1y")
    path = tmp_path / "chip.safetensors"
    analogsim.save_chip(analog, path)
    if not held:
        with safe_open(path, framework="pt") as file:
            metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        assert tensors.pop("/reference").shape == (20, 1)
        metadata.pop("sha256")
        save_file(tensors, path, metadata=metadata)
    analogsim.load_chip(other, path)
    gains = [twin.analog.chip.array.scale / twin.analog.chip.written.largest for twin in (analog, other)]  # type: ignore[union-attr]
    assert torch.equal(*gains)


def test_the_root_itself_may_be_the_layer(tmp_path: Path) -> None:
    analog = analogsim.convert(nn.Linear(4, 2), "pcm").eval()
    analogsim.program(analog, seed=1)
    first = analog(torch.ones(1, 4))
    analogsim.save_chip(analog, tmp_path / "chip")
    analogsim.program(analog, seed=2)
    analogsim.load_chip(analog, tmp_path / "chip")
    assert torch.equal(analog(torch.ones(1, 4)), first)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(tmp_path: Path, dtype: torch.dtype) -> None:
    analog = analogsim.convert(net().to(dtype), "pcm").eval()
    analogsim.program(analog, seed=1)
    first = analog(X.to(dtype))
    analogsim.save_chip(analog, tmp_path / "chip")
    analogsim.erase(analog)
    analogsim.load_chip(analog, tmp_path / "chip")
    assert torch.equal(analog(X.to(dtype)), first)


def test_saving_overwrites_and_needs_a_chip(tmp_path: Path) -> None:
    path = tmp_path / "chip"
    path.write_text("something else")
    analog = programmed()
    analogsim.save_chip(analog, path)
    analogsim.erase(analog)
    with pytest.raises(analogsim.NotProgrammedError, match="save_chip: layer '0' has no chip"):
        analogsim.save_chip(analog, path)
    analogsim.load_chip(analog, path)
    assert os.listdir(tmp_path) == ["chip"]


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    analog = programmed()
    with pytest.raises(OSError, match=r"save_chip: cannot write .*nowhere"):
        analogsim.save_chip(analog, tmp_path / "nowhere" / "chip")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inside").touch()
    with pytest.raises(OSError, match="folder"):
        analogsim.save_chip(analog, tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]


def _other_network(path: Path) -> nn.Module:
    analog = analogsim.convert(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)), "pcm").eval()
    analogsim.program(analog, seed=5)
    return analog


def _other_weights(path: Path) -> nn.Module:
    analog = programmed(seed=5)
    with torch.no_grad():
        analog[2].weight[0, 0] += 1e-3
    analogsim.program(analog, seed=5)
    return analog


def _other_shape(path: Path) -> nn.Module:
    model = net()
    model[2] = nn.Linear(8, 3)
    model.add_module("a/b", nn.Linear(3, 4))
    analog = analogsim.convert(model, "pcm").eval()
    analogsim.program(analog, seed=5)
    return analog


def _other_device(path: Path) -> nn.Module:
    return programmed({"2": [Gaussian(0.01)], "*": "pcm"}, seed=5)


def _cut(path: Path) -> nn.Module:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 100])
    return programmed(seed=5)


def _cut_in_the_head(path: Path) -> nn.Module:
    path.write_bytes(path.read_bytes()[:40])
    return programmed(seed=5)


def _empty(path: Path) -> nn.Module:
    path.write_bytes(b"")
    return programmed(seed=5)


def _text(path: Path) -> nn.Module:
    path.write_text("not a chip, but long enough to hold a header of eight bytes")
    return programmed(seed=5)


def _weights_file(path: Path) -> nn.Module:
    save_file({"weight": torch.zeros(2)}, path)
    return programmed(seed=5)


def _rewritten(path: Path, change: Callable[[dict[str, Tensor], dict[str, str]], None]) -> nn.Module:
    with safe_open(path, framework="pt") as file:
        metadata, tensors = dict(file.metadata()), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    metadata.pop("sha256")  # as files of before: what is wrong is found without it
    change(tensors, metadata)
    save_file(tensors, path, metadata=metadata)
    return programmed(seed=5)


def _tensor_missing(path: Path) -> nn.Module:
    return _rewritten(path, lambda tensors, metadata: tensors.__delitem__("2/programmed"))


def _drawn_missing(path: Path) -> nn.Module:
    return _rewritten(path, lambda tensors, metadata: tensors.__delitem__("2/drawn.1.nu"))


def _entry_missing(path: Path) -> nn.Module:
    def change(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        layers = json.loads(metadata["layers"])
        del layers["2"]["seed"]
        metadata["layers"] = json.dumps(layers)

    return _rewritten(path, change)


def _metadata_damaged(path: Path) -> nn.Module:
    return _rewritten(path, lambda tensors, metadata: metadata.update(layers="{"))


WRONG: dict[str, tuple[Callable[[Path], nn.Module], str]] = {
    "network": (_other_network, r"belongs to another network: layers \['a/b'\]"),
    "weights": (_other_weights, "layer '2' has other weights"),
    "shape": (_other_shape, "has other weights"),
    "device": (_other_device, "layer '2' is on .*Gaussian.*the file has it on .*PCM"),
    "cut": (_cut, "is not a chip or is damaged"),
    "cut in the head": (_cut_in_the_head, "is not a chip or is damaged"),
    "empty": (_empty, "is not a chip or is damaged"),
    "text": (_text, "is not a chip or is damaged"),
    "weights file": (_weights_file, "is a safetensors file, but not a chip"),
    "tensor missing": (_tensor_missing, "is damaged: layer '2' lacks 'programmed'"),
    "drawn missing": (_drawn_missing, "is damaged"),
    "entry missing": (_entry_missing, "is damaged: layer '2' lacks 'seed'"),
    "metadata damaged": (_metadata_damaged, "is damaged"),
}


@pytest.mark.parametrize(("make", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_does_not_fit_is_refused_and_the_old_chip_stays(
    tmp_path: Path, make: Callable[[Path], nn.Module], words: str
) -> None:
    path = tmp_path / "chip"
    analogsim.save_chip(programmed(), path)
    analog = make(path)
    before = repr(analog), analog(X)
    with pytest.raises(ValueError, match="load_chip: .*" + words):
        analogsim.load_chip(analog, path)
    assert repr(analog) == before[0]
    assert torch.equal(analog(X), before[1])


def test_missing_files_and_digital_networks(tmp_path: Path) -> None:
    analog = programmed()
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError, match="load_chip: no file"):
            analogsim.load_chip(analog, path)
    analogsim.save_chip(analog, tmp_path / "chip")
    for call in (analogsim.save_chip, analogsim.load_chip):
        with pytest.raises(ValueError, match="no analog layer"):
            call(net(), tmp_path / "chip")


def test_weights_and_chip_together_restore_everything(tmp_path: Path) -> None:
    analog = programmed()
    torch.save(analog.state_dict(), tmp_path / "weights")
    analogsim.save_chip(analog, tmp_path / "chip")
    torch.manual_seed(7)
    other = analogsim.convert(net(), "pcm").eval()
    with pytest.raises(ValueError, match="load the network's state dict"):
        analogsim.load_chip(other, tmp_path / "chip")
    other.load_state_dict(torch.load(tmp_path / "weights", weights_only=True))
    analogsim.load_chip(other, tmp_path / "chip")
    assert torch.equal(other(X), analog(X))


def _as_before(path: Path, drop: str = "") -> None:
    """Make a file what versions before wrote: another format, no reference, fewer fields of devices and crossbars."""
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys() if not key.endswith("/reference")}  # noqa: SIM118
    layers = json.loads(about["layers"])
    for entry in layers.values():
        for what in ("device", "crossbar"):
            entry[what] = re.sub(drop, "", entry[what]) if drop else entry[what]
    save_file(tensors, path, metadata={"format": "analogsim-chip-2", "layers": json.dumps(layers)})


def test_files_of_before_load_and_say_what_is_drawn_anew(tmp_path: Path) -> None:
    """What is on the cells is the file's; 1/f noise and the errors of converters are not in it."""
    path = tmp_path / "chip"
    drifting = DeviceModel((Gaussian(0.05), Drift(0.05, 0.02), ReadNoise(0.02)), mapping=Mapping("pair"))
    device = {"0": "pcm", "*": drifting}
    crossbar = Crossbar(output_bound=4.0, gain_mismatch=0.01)
    torch.manual_seed(0)
    analog = analogsim.convert(net(), device, crossbar=crossbar).eval()
    analogsim.program(analog, seed=3)
    analogsim.save_chip(analog, path)
    _as_before(path)
    other = analogsim.convert(net(), device, crossbar=crossbar).eval()
    other.load_state_dict(analog.state_dict())
    with pytest.warns(UserWarning, match="another source of random numbers") as told:
        analogsim.load_chip(other, path)
    (message,) = (str(warning.message) for warning in told)
    assert "1/f noise (layers '0')" in message
    assert "the errors of converters (layers '0', '2', 'a/b')" in message
    assert "the read noise of measured gains (layers '2', 'a/b')" in message
    for one, two in zip(matrices_of(other), matrices_of(analog), strict=True):
        assert torch.equal(one.analog.chip.written.programmed, two.analog.chip.written.programmed)
    analogsim.save_chip(other, path)
    analogsim.load_chip(other, path)  # without a word


def test_files_of_before_without_anything_else_load_silently(tmp_path: Path) -> None:
    path = tmp_path / "chip"
    analog = programmed("gaussian")
    analogsim.save_chip(analog, path)
    _as_before(path)
    first = analog(X)
    analogsim.load_chip(analog, path)
    assert torch.equal(analog(X), first)


@pytest.mark.parametrize("drop", [r", t0=[^,)]*, t_read=[^,)]*", r", reference='cells'", r", offset_mismatch=0.0"])
def test_fields_that_a_file_does_not_know_are_as_by_default(tmp_path: Path, drop: str) -> None:
    """Devices and crossbars may get fields; a chip of before is one of their defaults, and of no other value."""
    path, slow = tmp_path / "chip", FittedSlowNoise((0.02,))
    analog = programmed([Gaussian(0.05), slow])
    analogsim.save_chip(analog, path)
    before = path.read_bytes()
    _as_before(path, drop)
    assert path.read_bytes() != before
    with pytest.warns(UserWarning, match="1/f noise"):
        analogsim.load_chip(analog, path)
    if "t0" in drop:
        with pytest.raises(ValueError, match="the file has it on"):
            analogsim.load_chip(programmed([Gaussian(0.05), slow.replace(t_read=1e-3)]), path)
    with pytest.raises(ValueError, match="the file has it on"):
        analogsim.load_chip(programmed([Gaussian(0.06), slow]), path)


def test_any_whole_number_is_a_seed(tmp_path: Path) -> None:
    """Beyond 64 bits, and below zero, in memory and in a file."""
    answers = []
    for seed in (10**30, -(10**30), 2**64, 0):
        analog = programmed(seed=seed)
        answers.append(analog(X))
        analogsim.save_chip(analog, tmp_path / "chip")
        analogsim.erase(analog)
        analogsim.load_chip(analog, tmp_path / "chip")
        assert torch.equal(analog(X), answers[-1])
    assert all(not torch.equal(one, other) for one, other in itertools.combinations(answers, 2))


@pytest.mark.parametrize("match", ["moments", "bias"])
def test_corrected_outputs_are_kept(tmp_path: Path, match: Any) -> None:
    path = tmp_path / "chip.safetensors"
    analog = programmed(t="1h")
    analogsim.calibrate_outputs(analog, torch.randn(70, 1, 4, 4), match=match)
    analogsim.drift(analog, "1y")
    first = analog(X)
    analogsim.save_chip(analog, path)
    other = programmed(seed=9, t=0)
    analogsim.load_chip(other, path)
    assert torch.equal(other(X), first)
    assert [matrix.analog.chip.correction.time for matrix in matrices_of(other)] == [3600.0] * 3
    with safe_open(path, framework="pt") as file:
        tensors, about = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    about.pop("sha256")
    for wrong in (torch.ones(1), tensors["0/output_offset"] * torch.nan, None):
        broken = {**tensors, "0/output_offset": wrong}
        if wrong is None:
            broken = {key: value for key, value in tensors.items() if "output_" not in key}
        save_file({key: value for key, value in broken.items() if value is not None}, path, metadata=about)
        with pytest.raises(ValueError, match="is damaged: layer '0' lacks its correction of outputs"):
            analogsim.load_chip(other, path)
    assert torch.equal(other(X), first)


def test_a_file_from_before_outputs_were_corrected_loads_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "chip.safetensors"
    analog = programmed()
    first = analog(X)
    analogsim.save_chip(analog, path)
    with safe_open(path, framework="pt") as file:
        tensors, about = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    layers = json.loads(about["layers"])
    for entry in layers.values():
        del entry["outputs_matched_at"]
    save_file(tensors, path, metadata={"format": "analogsim-chip-3", "layers": json.dumps(layers)})
    other = programmed(seed=9)
    analogsim.calibrate_outputs(other, torch.randn(70, 1, 4, 4))
    analogsim.load_chip(other, path)
    assert torch.equal(other(X), first)
    assert all(matrix.analog.chip.correction is None for matrix in matrices_of(other))


def test_one_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """Or hides that there is a digest, of which no answer is hurt."""
    path, draw = tmp_path / "chip", random.Random(0)
    analog = programmed()
    analogsim.save_chip(analog, path)
    whole, first = path.read_bytes(), analog(X)
    for place in (draw.randrange(8 * len(whole)) for _ in range(200)):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError):
            analogsim.load_chip(analog, path)
        assert torch.equal(analog(X), first), place


@pytest.mark.parametrize(
    ("key", "change", "told"),
    [
        ("2/target", lambda value: value / 0, "finite numbers in 'target'"),
        ("2/drawn.1.nu", lambda value: value * torch.nan, "finite numbers in 'drawn.1.nu'"),
        ("2/programmed", lambda value: value.long(), "real numbers in 'programmed'"),
        ("2/programmed", lambda value: value[..., :1].clone(), "one conductance for each"),
        ("2/largest", lambda value: -value, "a largest weight"),
    ],
)
def test_values_of_a_file_without_a_digest_are_looked_at(
    tmp_path: Path, key: str, change: Callable[[Tensor], Tensor], told: str
) -> None:
    path = tmp_path / "chip"
    analog = programmed()
    analogsim.save_chip(analog, path)
    _rewritten(path, lambda tensors, metadata: tensors.update({key: change(tensors[key])}))
    with pytest.raises(ValueError, match=f"is damaged: layer '2' lacks .*{told}"):
        analogsim.load_chip(analog, path)


@pytest.mark.parametrize(("name", "value"), [("time", -1.0), ("time", "1d"), ("seed", 1.5), ("input_range", [0.0])])
def test_so_is_what_is_said_of_a_layer(tmp_path: Path, name: str, value: object) -> None:
    path = tmp_path / "chip"
    analog = programmed()
    analogsim.save_chip(analog, path)

    def change(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        layers = json.loads(metadata["layers"])
        layers["2"][name] = value
        metadata["layers"] = json.dumps(layers)

    _rewritten(path, change)
    with pytest.raises(ValueError, match=r"is damaged: layer '2' lacks .*(a seed and a time|input_range of finite)"):
        analogsim.load_chip(analog, path)
