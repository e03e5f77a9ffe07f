import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from analogsim.chip.ranges import get_ranges
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import load_toml
from analogsim.recipes.training.loop import Training
from analogsim.recipes.training.restored import restored
from analogsim.recipes.training.setup import load_data
from benchmarks.harness.peer_networks import PeerNetwork, path_of, question

SETTINGS = {"modifier.std_dev": 0.05}
RANGES = {"1": torch.tensor([1.5]), "3": torch.tensor([-2.0]), "5": torch.tensor([3.25])}


def config_of(*more: str) -> Config:
    common = ["data.limit=64", "optimization.epochs=1", "model=benchmarks.harness.ladder:small_mlp"]
    return load_toml(Config, None, [*common, "crossbar=standard", "tracking.enabled=false", *more])


def training_of(tmp_path: Path, config: Config) -> Training:
    return Training(config, load_data(config), aware=True, path=tmp_path / "checkpoint.pt")


def weights_of(training: Training) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {name: torch.randn_like(value) for name, value in training.model.state_dict().items()}


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return training_of(tmp_path, config_of())


@pytest.fixture
def network(training: Training) -> PeerNetwork:
    asked = question(training.config, "tool", SETTINGS)
    return PeerNetwork(asked, weights_of(training), RANGES, 12.5, {"tool": "1.0", "torch": "2"})


def test_a_file_gives_back_what_was_written(network: PeerNetwork, tmp_path: Path) -> None:
    assert network.save(tmp_path / "new" / "folder").parent == tmp_path / "new" / "folder"
    found = PeerNetwork.load(tmp_path / "new" / "folder", network.asked)
    assert (found.asked, found.seconds, found.versions) == (network.asked, 12.5, {"tool": "1.0", "torch": "2"})
    for mine, theirs in ((network.weights, found.weights), (network.ranges, found.ranges)):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize(
    "more", ["seed=1", "optimization.lr=0.5", "optimization.epochs=2", "data.limit=65", "model=mlp"]
)
def test_whatever_weights_depend_on_has_a_file_of_its_own(more: str, tmp_path: Path) -> None:
    one, other = (question(config_of(*each), "tool", SETTINGS) for each in ((), (more,)))
    assert path_of(tmp_path, one) != path_of(tmp_path, other)
    assert path_of(tmp_path, one) != path_of(tmp_path, question(config_of(), "tool", {}))


@pytest.mark.parametrize("more", ["data.folder=/elsewhere", "device=stuck-at", "crossbar=ideal", "evaluation.chips=3"])
def test_where_data_lie_and_what_it_runs_on_are_no_part_of_it(more: str) -> None:
    assert question(config_of(), "tool", SETTINGS) == question(config_of(more), "tool", SETTINGS)


def test_a_training_ends_with_it_and_is_judged_as_any_other(network: PeerNetwork, training: Training) -> None:
    network.give_to(training)
    assert training.done
    ((_, found),) = restored(training.path, {"trust": True}, lambda _: None)
    state = found.analog.state_dict()
    assert all(torch.equal(state[name], value) for name, value in network.weights.items())
    ranges = get_ranges(found.analog)
    assert {name: float(value["input_range"]) for name, value in ranges.items()} == {"1": 1.5, "3": 2.0, "5": 3.25}
    assert found.clean is None  # its clean score has converters, as training had them


def test_a_network_that_nobody_trained(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"peer network: no file '.*tool-[0-9a-f]{16}\.safetensors'"):
        PeerNetwork.load(tmp_path, question(config_of(), "tool", SETTINGS))


def _garbage(path: Path, asked: dict[str, Any]) -> None:
    path.write_bytes(b"no tensors at all")


def _half(path: Path, asked: dict[str, Any]) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _others(path: Path, asked: dict[str, Any]) -> None:
    save_file({"weight.1.weight": torch.zeros(2)}, path)


def _no_json(path: Path, asked: dict[str, Any]) -> None:
    save_file({"weight.1.weight": torch.zeros(2)}, path, metadata={"format": "pt"})


def _of_another_seed(path: Path, asked: dict[str, Any]) -> None:
    said = {"format": "analogsim-peer-network-1", "asked": asked | {"seed": 7}, "seconds": 1.0, "versions": {}}
    save_file({"weight.x": torch.zeros(2)}, path, metadata={name: json.dumps(value) for name, value in said.items()})


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_garbage, "is not a network of another tool or is damaged"),
        (_half, "is damaged"),
        (_others, "was not written by python -m benchmarks.beside"),
        (_no_json, "was not written by python -m benchmarks.beside"),
        (_of_another_seed, "was trained with seed=7, now it is 0; remove it"),
    ],
)
def test_other_files_are_refused(
    spoil: Callable[[Path, dict[str, Any]], None], words: str, network: PeerNetwork, tmp_path: Path
) -> None:
    spoil(network.save(tmp_path), network.asked)
    with pytest.raises(ValueError, match=words):
        PeerNetwork.load(tmp_path, network.asked)


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ({"1": RANGES["1"]}, "ranges of '1', and the crossbar takes those of '1', '3', '5'"),
        ({}, "ranges of no layer"),
        (RANGES | {"3": torch.tensor([1.0, 2.0])}, r"layer '3' has 2 input ranges, and 1 block\(s\) of rows"),
        (RANGES | {"3": torch.tensor([float("nan")])}, "layer '3': input_range must be finite"),
    ],
)
def test_ranges_that_do_not_fit_are_refused_and_nothing_is_written(
    ranges: dict[str, Tensor], words: str, network: PeerNetwork, training: Training
) -> None:
    with pytest.raises(ValueError, match=words):
        replace(network, ranges=ranges).give_to(training)
    assert not training.done
    assert not training.path.exists()


def test_weights_of_another_network_are_refused(network: PeerNetwork, training: Training) -> None:
    weights = {name: value[:1] for name, value in network.weights.items()}
    with pytest.raises(ValueError, match="the network of tool belongs to another architecture"):
        replace(network, weights=weights).give_to(training)


def test_ranges_of_several_blocks_are_carried_over(network: PeerNetwork, tmp_path: Path) -> None:
    training = training_of(tmp_path, config_of("crossbar=standard(rows=32)"))
    ranges = RANGES | {"1": torch.tensor([1.0, 2.0])}  # 64 pixels on two crossbars
    replace(network, ranges=ranges).give_to(training)
    assert get_ranges(training.analog)["1"]["input_range"].tolist() == [1.0, 2.0]
