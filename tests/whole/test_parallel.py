"""Twins in DistributedDataParallel and FSDP2: two processes on the CPU. Run as a program, this file is one of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

import analogsim

pytestmark = pytest.mark.slow  # two processes import torch anew

DEVICES = ("gaussian", "pcm")
FULL = StateDictOptions(full_state_dict=True)


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))


def batch() -> Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(3))


def step(wrapped: nn.Module, x: Tensor, parameters: nn.Module) -> None:
    optimizer = torch.optim.SGD(parameters.parameters(), 0.1)
    wrapped(x).square().mean().backward()
    optimizer.step()


def cloned(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def noise_of(wrapped: nn.Module, model: nn.Module, x: Tensor) -> Tensor:
    """What the noise of one forward adds to the clean answer."""
    with torch.no_grad():
        answer: Tensor = wrapped(x)
        return answer - model(x)


def said(error: type[Exception], work: Any) -> str:
    try:
        work()
    except error as raised:
        return str(raised)
    return ""


def data_parallel(device: str, rank: int) -> dict[str, Any]:
    told: dict[str, Any] = {}
    model = mlp()
    analog = analogsim.convert(model, device)
    wrapped = DistributedDataParallel(analog)
    torch.manual_seed(100 + rank)
    told["noise"] = noise_of(wrapped, model, batch())
    torch.manual_seed(7)
    told["noise of one seed"] = noise_of(wrapped, model, batch())
    torch.manual_seed(100 + rank)
    step(wrapped, batch()[rank::2], model)
    told["noisy step"] = cloned(model)

    model = mlp()
    analog = analogsim.convert(model, device)
    analogsim.set_noise_scale(analog, 0)
    wrapped = DistributedDataParallel(analog)
    step(wrapped, batch()[rank::2], model)
    told["step"] = cloned(model)
    told["shared"] = model[0].weight is wrapped.module[0].weight
    with analogsim.programmed(analog, seed=4, t="1d"):
        told["chip"] = wrapped(batch()).detach()

    model = mlp()
    analog = analogsim.convert(model, device)
    analogsim.set_noise_scale(analog, 0)
    wrapped = DistributedDataParallel(analog)
    with wrapped.no_sync():  # the first half of the share, then the second
        (wrapped(batch()[rank::4]).square().mean() / 2).backward()
    (wrapped(batch()[rank + 2 :: 4]).square().mean() / 2).backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    told["accumulated"] = cloned(model)
    return told


def sharded(device: str, rank: int, layers: bool) -> dict[str, Any]:
    told: dict[str, Any] = {}
    mesh = init_device_mesh("cpu", (2,))

    def shard(twin: nn.Sequential) -> None:
        if layers:
            for layer in (twin[0], twin[2]):
                fully_shard(layer, mesh=mesh)
        fully_shard(twin, mesh=mesh)

    def whole(twin: nn.Module) -> None:
        for module in twin.modules():
            if isinstance(module, FSDPModule):
                module.unshard()

    model, clean = mlp(), mlp()
    analog = analogsim.convert(model, device)
    shard(analog)
    told["shared"] = model[0].weight is analog[0].weight
    told["local rows"] = len(analog[0].weight.to_local())  # type: ignore[operator]
    torch.manual_seed(100 + rank)
    told["noise"] = noise_of(analog, clean, batch())
    step(analog, batch()[rank::2], analog)
    told["noisy step"] = get_model_state_dict(analog, options=FULL)

    model = mlp()
    analog = analogsim.convert(model, device)
    analogsim.set_noise_scale(analog, 0)
    shard(analog)
    step(analog, batch()[rank::2], analog)
    told["step"] = get_model_state_dict(analog, options=FULL)
    # The digital model holds the twin's shards: it answers while they are together, and torch refuses it otherwise.
    told["digital, sharded"] = said(RuntimeError, lambda: model(batch()))
    whole(analog)
    told["digital, whole"] = model(batch()).detach()
    with analogsim.programmed(analog, seed=4, t="1d"):
        told["chip"] = analog(batch()).detach()

    other = analogsim.convert(mlp(), device)
    shard(other)
    state = dict(told["step"]) if rank == 0 else {}
    set_model_state_dict(other, state, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True))
    told["loaded"] = get_model_state_dict(other, options=FULL)
    return told


def live(place: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    told = {}
    for device in DEVICES:
        told[f"ddp {device}"] = data_parallel(device, rank)
        told[f"fsdp {device}"] = sharded(device, rank, layers=False)
        told[f"fsdp layers {device}"] = sharded(device, rank, layers=True)
    torch.save(told, place / f"told-{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes tell."""
    place = tmp_path_factory.mktemp("two")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = []
    for rank in ("0", "1"):
        role = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        environment = {**os.environ, **role, "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__, str(place)]
        running.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        for rank, process in enumerate(running):
            _, err = process.communicate(timeout=200)
            assert (place / f"told-{rank}.pt").exists(), err
    finally:
        for process in running:
            process.kill()
    return [torch.load(place / f"told-{rank}.pt", weights_only=True) for rank in (0, 1)]


def alone(device: str) -> tuple[nn.Sequential, nn.Module]:
    """One process after the same step over the whole batch, without noise."""
    model = mlp()
    analog = analogsim.convert(model, device)
    analogsim.set_noise_scale(analog, 0)
    step(analog, batch(), model)
    return model, analog


def close(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[key], b[key], rtol=1e-5, atol=1e-6) for key in a)


WAYS = [f"{kind} {device}" for kind in ("ddp", "fsdp", "fsdp layers") for device in DEVICES]


@pytest.mark.parametrize("way", WAYS)
def test_each_process_draws_its_own_noise_and_all_have_one_network(two: list[dict[str, Any]], way: str) -> None:
    first, second = (told[way] for told in two)
    assert first["noise"].abs().min() > 0
    assert not torch.equal(first["noise"], second["noise"])
    if way.startswith("ddp"):  # it is torch's generator that decides
        assert torch.equal(first["noise of one seed"], second["noise of one seed"])
    assert first["noisy step"].keys() == mlp().state_dict().keys()
    for name, value in first["noisy step"].items():
        assert value.isfinite().all()
        if way.startswith("ddp"):
            assert torch.equal(value, second["noisy step"][name])
    assert not close(first["noisy step"], first["step"])


@pytest.mark.parametrize("way", WAYS)
def test_without_noise_a_step_is_that_of_one_process(two: list[dict[str, Any]], way: str) -> None:
    model, _ = alone(way.split()[-1])
    assert close(two[0][way]["step"], model.state_dict())
    if way.startswith("ddp"):
        assert close(two[0][way]["accumulated"], model.state_dict())


@pytest.mark.parametrize("way", WAYS)
def test_a_chip_is_the_same_one_in_every_process(two: list[dict[str, Any]], way: str) -> None:
    """A sharded twin is programmed while its weights are together."""
    first, second = (told[way]["chip"] for told in two)
    assert torch.equal(first, second)
    _, analog = alone(way.split()[-1])
    with analogsim.programmed(analog, seed=4, t="1d"):
        torch.testing.assert_close(first, analog(batch()).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_the_digital_model_follows(two: list[dict[str, Any]], way: str) -> None:
    told = two[0][way]
    assert told["shared"]
    if way.startswith("fsdp"):
        assert told["local rows"] == 4  # of 8
        assert "mixed torch.Tensor and DTensor" in told["digital, sharded"]
        torch.testing.assert_close(told["digital, whole"], alone(way.split()[-1])[0](batch()).detach())


@pytest.mark.parametrize("way", [way for way in WAYS if way.startswith("fsdp")])
def test_the_state_of_shards_is_that_of_the_digital_model(two: list[dict[str, Any]], way: str) -> None:
    """Put together it loads into a plain model, strictly, and a plain one into shards."""
    state = two[0][way]["step"]
    model = mlp()
    model.load_state_dict(state, strict=True)
    assert close(model.state_dict(), alone(way.split()[-1])[0].state_dict())
    assert all(torch.equal(state[name], value) for name, value in two[0][way]["loaded"].items())


if __name__ == "__main__":
    live(Path(sys.argv[1]))
