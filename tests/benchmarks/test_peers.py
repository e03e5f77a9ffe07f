"""The comparison with aihwkit-lightning: with a stand-in for it, and with itself where it is installed."""

import dataclasses
import importlib.util
import json

import pytest
import torch

CPU = torch.device("cpu")

with_lightning = pytest.mark.skipif(
    importlib.util.find_spec("aihwkit_lightning") is None,
    reason="aihwkit-lightning is not installed: it wants an environment of its own (python -m benchmarks.peers)",
)


@pytest.fixture
def stand_in(monkeypatch):
    """Ours in the place of theirs; returned is the class, whose attributes make it compute something else."""
    from benchmarks.harness import peer_methods
    from benchmarks.harness.methods import Method

    class StandIn(Method):
        weight_noise = 1.0
        gain = 1.0

        def __init__(self, model, hardware, inputs, *, fast=False):
            hardware = dataclasses.replace(hardware, weight_noise=self.weight_noise * hardware.weight_noise)
            network = peer_methods.twin_of(model, hardware, inputs)
            if hardware.converters:
                network.register_forward_hook(lambda module, args, output: output * self.gain)
            super().__init__(network)

    monkeypatch.setattr(peer_methods, "Lightning", StandIn)
    monkeypatch.setattr(peer_methods, "available", lambda: True)
    monkeypatch.setattr(peer_methods, "version", lambda: "0.0")
    return StandIn


def test_without_it_the_message_says_what_to_install(monkeypatch, capsys):
    from benchmarks import peers
    from benchmarks.harness import peer_methods

    monkeypatch.setattr(peer_methods, "available", lambda: False)
    assert peers.main(["--models", "mlp"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "aihwkit-lightning is not installed" in output.err
    assert "pip install aihwkit-lightning" in output.err
    assert "python -m benchmarks.peers" in output.err


@pytest.mark.parametrize("arguments", [["--models", "alexnet"], ["--rounds", "0"], ["other"]])
def test_mistakes_on_the_command_line(arguments, capsys):
    from benchmarks import peers

    with pytest.raises(SystemExit) as stop:
        peers.main(arguments)
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.usefixtures("stand_in")
def test_it_runs_and_writes_json(tmp_path, capsys):
    from benchmarks import peers
    from benchmarks.harness import peer_methods

    file = tmp_path / "peers.json"
    assert peers.main(["--models", "mlp", "--rounds", "1", "--steps", "1", "--json", str(file)]) == 0
    document = json.loads(file.read_text(encoding="utf-8"))
    assert document["versions"]["aihwkit-lightning"] == "0.0"
    assert document["settings"] == {"rounds": 1, "steps": 1}
    rows = {row["method"]: row for row in document["results"]}
    assert set(peer_methods.COUNTERPARTS) | set(peer_methods.COUNTERPARTS.values()) < set(rows)
    assert {name for name, row in rows.items() if "ratio_to_ours" in row} == set(peer_methods.COUNTERPARTS)
    for name, ours in peer_methods.COUNTERPARTS.items():
        theirs, mine = (rows[method]["seconds"]["median"] for method in (name, ours))
        assert rows[name]["ratio_to_ours"]["median"] == pytest.approx(theirs / mine)
    assert rows["plain"]["ratio"]["median"] == 1
    printed = capsys.readouterr().out
    assert "aihwkit-lightning 0.0" in printed
    assert all(name in printed for name in rows)


def test_other_noise_is_not_timed(stand_in, monkeypatch):
    from benchmarks import peers
    from benchmarks.harness.networks import CASES

    peers.check(CASES["mlp"], CPU)
    monkeypatch.setattr(stand_in, "weight_noise", 1.001)
    with pytest.raises(RuntimeError, match=r"gradients of 'aihwkit-lightning, gaussian' and 'hand-written, relative'"):
        peers.check(CASES["mlp"], CPU)


def test_other_converters_are_not_timed(stand_in, monkeypatch):
    from benchmarks import peers
    from benchmarks.harness.networks import CASES

    monkeypatch.setattr(stand_in, "gain", 1.001)
    with pytest.raises(RuntimeError, match=r"answers of 'theirs' and 'ours' differ"):
        peers.check(CASES["mlp"], CPU)


@with_lightning
@pytest.mark.parametrize("name", ["mlp", "lenet5"])
def test_both_sides_compute_the_same(name):
    from benchmarks import peers
    from benchmarks.harness.networks import CASES

    peers.check(CASES[name], CPU)
