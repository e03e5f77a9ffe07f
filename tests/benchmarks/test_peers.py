"""The comparison with aihwkit-lightning: with a stand-in for it, and with itself where it is installed."""

import dataclasses
import importlib.util
import json

import pytest
import torch
from torch import nn

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


def test_ranges_start_where_training_finds_the_batch():
    import analogsim
    from benchmarks.harness import peer_methods

    torch.manual_seed(0)
    inputs = 3 + 10 * torch.randn(64, 2, 6, 6)
    model = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 4))
    twin = peer_methods.twin_of(model, peer_methods.CONVERTERS, inputs)
    first, second = (float(found.detach()) for found in analogsim.range_parameters(twin))
    model.train()
    with torch.no_grad():
        normal = model[:1](inputs)
        answers = model[:4](inputs)
    assert first == pytest.approx(normal.abs().quantile(0.9999).item(), rel=0.02)
    assert second == pytest.approx(answers.abs().quantile(0.9999).item(), rel=0.05)  # eval takes the unbiased variance
    assert [norm.momentum for norm in (model[0], model[2])] == [0.1, 0.1]


def test_trained_ranges_are_in_the_optimizer():
    from benchmarks.harness import peer_methods
    from benchmarks.harness.networks import CASES

    case = CASES["mlp"]
    inputs, labels = case.data(CPU, 8)
    method = peer_methods.Behind(case.model(CPU), peer_methods.CONVERTERS, inputs)
    trained = [tensor for group in method.optimizer.param_groups for tensor in group["params"]]
    before = [tensor.detach().clone() for tensor in trained]
    assert len(trained) == 2 * 3 + 3
    method.step(inputs, labels)
    assert not any(map(torch.equal, trained, before))


@with_lightning
@pytest.mark.parametrize("name", ["mlp", "lenet5"])
def test_both_sides_compute_the_same(name):
    from benchmarks import peers
    from benchmarks.harness.networks import CASES

    peers.check(CASES[name], CPU)


@with_lightning
def test_both_sides_add_the_same_noise():
    """Layers that draw in the same order answer alike from one seed: also the output noise has the size asked for."""
    from benchmarks.harness import peer_methods
    from benchmarks.harness.networks import CASES

    case = CASES["mlp"]
    inputs = case.data(CPU, 4)[0].double()
    networks = (
        peer_methods.Behind(case.model(CPU).double(), peer_methods.CONVERTERS, inputs).analog,
        *(
            peer_methods.Lightning(case.model(CPU).double(), peer_methods.CONVERTERS, inputs, fast=f).model
            for f in (False, True)
        ),
    )
    answers = []
    for network in networks:
        torch.manual_seed(0)
        answers.append(network(inputs).detach())
    for other in answers[1:]:
        assert torch.allclose(other, answers[0], rtol=1e-9, atol=0)
    assert not torch.allclose(networks[0](inputs), answers[0], rtol=1e-3)
