"""The table of the zoo: it runs, counts what ran, and its command takes the networks it is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import zoo
from benchmarks.__main__ import main
from benchmarks.harness.zoo_networks import Example


def test_the_command_prints_the_table_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "zoo.json"
    command = ["zoo", "--quick", "--networks", "lstm-tagger", "u-net", "--rounds", "2", "--steps", "1"]
    assert main([*command, "--json", str(file)]) == 0
    document = json.loads(file.read_text(encoding="utf-8"))
    assert document["settings"] == {"rounds": 2, "steps": 1}
    tagger, unet = document["results"]
    assert (tagger["network"], unet["network"]) == ("lstm-tagger", "u-net")
    for record in (tagger, unet):
        assert record["benchmark"] == "zoo"
        assert record["analog_macs"] == 1
        assert record["largest_deviation"] < 1e-9
        assert record["ratio"]["median"] > 0
    # 50 words of 8 numbers are looked up, not multiplied; of 15 words in 3 sentences, each meets 4 + 4 gates of 8 rows
    # with 8 + 8 and with 16 + 8 inputs, and then the head.
    assert tagger["macs"] == pytest.approx(15 * 64 * (16 + 24) / 3 + 18 * 160 / 3)
    assert tagger["analog_parameters"] == pytest.approx(1 - 400 / tagger["parameters"])
    printed = capsys.readouterr().out
    first = next(line for line in printed.splitlines() if line.startswith("| lstm-tagger |"))
    assert first.count("|") == printed.splitlines()[4].count("|")
    assert "| 88.2% |" in first
    assert "| 11.8% Embedding: a table that is looked up" in first


def test_a_network_we_do_not_know_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["zoo", "--networks", "alexnet"])
    assert "alexnet" in capsys.readouterr().err


def test_a_library_that_is_not_there_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.harness.zoo_networks.find_spec", lambda name: None)
    assert zoo.run(["timm-vit"], torch.device("cpu"), full=False, rounds=1, steps=1) == []
    assert "timm-vit: needs timm, which is not installed" in capsys.readouterr().out


class _ReadPast(nn.Module):
    """Half of its products take the weight of a layer that is never called, in a way that its code does not show."""

    def __init__(self) -> None:
        super().__init__()
        self.called = nn.Linear(4, 4)
        self.past = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        weights = {name: getattr(self.past, name) for name in ("weight", "bias")}
        return functional.linear(self.called(x), weights["weight"])


def test_what_is_converted_in_name_only_does_not_count() -> None:
    found = zoo.place(_ReadPast(), Example((torch.ones(3, 4),), samples=3))
    assert found.analog_parameters == 1
    assert found.macs == 32
    assert found.analog_macs == 0.5
    assert found.digital_macs == {"Linear": 0.5}
