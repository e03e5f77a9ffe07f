from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from analogsim.recipes.training.restored import add_judging, asked_by, checkpoints, judging, restored


def test_the_networks_of_a_run_in_the_order_of_their_training(tmp_path: Path) -> None:
    for name in ("hardware-aware", "plain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "checkpoint.pt").touch()
    assert list(checkpoints(tmp_path)) == ["plain", "hardware-aware"]
    path = tmp_path / "plain" / "checkpoint.pt"
    assert checkpoints(path) == {"plain": path}
    with pytest.raises(FileNotFoundError, match=r"evaluate: no checkpoint at '.*plain/nothing'"):
        checkpoints(tmp_path / "plain" / "nothing")
    with pytest.raises(FileNotFoundError, match=r"^sensitivity: no checkpoint at"):
        next(restored(tmp_path / "nothing", {}, print, "sensitivity"))


def test_what_the_command_line_asks_for() -> None:
    parser = argparse.ArgumentParser()
    add_judging(parser)
    asked = asked_by(parser.parse_args(["run", "--chips", "3", "--seed", "7"]), ("1h",))
    network = ("device", "crossbar", "compensation", "folder", "model", "data", "task", "metric")
    nothing = dict.fromkeys((*network, "precision", "samples_per_chip"))
    assert asked == {**nothing, "chips": 3, "times": ("1h",), "seed": 7, "trust": False}


def test_what_is_asked_for_takes_the_place_of_what_the_run_had(stopped: Path) -> None:
    (name, network), _ = restored(
        stopped, {"device": "gaussian(std=0.1)", "chips": 3, "times": ("1h", "1s"), "compensation": "none"}, print
    )
    assert name == "plain"
    assert (network.config.device, network.config.evaluation.chips) == ("gaussian(std=0.1)", 3)
    how = judging(network, {"seed": 5})
    assert (how["times"], how["compensation"], how["seed"]) == (("1s", "1h"), None, 5)
    (_, as_it_was), _ = restored(stopped, {}, print)
    assert as_it_was.config.device == "pcm"
    assert judging(as_it_was, {})["compensation"] == "global"
