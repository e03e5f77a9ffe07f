"""aihwkit-lightning's layers and ours, set to the same hardware."""

import copy
import importlib.util
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import analogsim

CPU = torch.device("cpu")

with_lightning = pytest.mark.skipif(
    importlib.util.find_spec("aihwkit_lightning") is None,
    reason="aihwkit-lightning is not installed: it wants an environment of its own (python -m benchmarks.peers)",
)


def test_ranges_start_where_training_finds_the_batch():
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


def test_both_sides_are_told_the_same_hardware(monkeypatch):
    from benchmarks.harness import peer_methods

    def config():
        forward = SimpleNamespace(inp_res=-1, out_res=-1, out_bound=0.0, out_noise=0.0)
        ranges = SimpleNamespace(enable=False, init_from_data=100, fast_mode=None)
        modifier = SimpleNamespace(noise_type=None, std_dev=0.0)
        return SimpleNamespace(forward=forward, pre_post=SimpleNamespace(input_range=ranges), modifier=modifier)

    kinds = SimpleNamespace(ADD_NORMAL="add normal")
    configs = SimpleNamespace(TorchInferenceRPUConfig=config, WeightNoiseInjectionType=kinds)
    monkeypatch.setattr(peer_methods, "_imported", {"aihwkit_lightning.simulator.configs": configs}.__getitem__)
    ours, theirs = peer_methods.CONVERTERS.crossbar, peer_methods.CONVERTERS.config(fast=True)
    assert (theirs.modifier.noise_type, theirs.modifier.std_dev) == ("add normal", peer_methods.RELATIVE)
    for bits, steps in ((ours.dac_bits, theirs.forward.inp_res), (ours.adc_bits, theirs.forward.out_res)):
        assert steps == 2**bits - 2
    assert (ours.output_bound, ours.output_noise) == (theirs.forward.out_bound, theirs.forward.out_noise) == (12, 0.04)
    assert ours.input_range == "learned"
    assert vars(theirs.pre_post.input_range) == {"enable": True, "init_from_data": 0, "fast_mode": True}

    ideal = peer_methods.NOISE.config(fast=False)
    assert ideal.modifier.std_dev == peer_methods.RELATIVE
    assert (ideal.forward.inp_res, ideal.pre_post.input_range.enable) == (-1, False)
    assert peer_methods.NOISE.crossbar == analogsim.Crossbar()


def test_silent_hardware_keeps_its_converters():
    from benchmarks.harness.peer_methods import CONVERTERS, Hardware

    assert CONVERTERS.silent == Hardware(weight_noise=0.0, converters=True, output_noise=0.0)
    assert CONVERTERS.silent.crossbar == CONVERTERS.crossbar.replace(output_noise=0.0)


def test_their_ranges_start_where_ours_do(monkeypatch):
    from benchmarks.harness import peer_methods

    class Theirs(nn.Sequential):
        def analog_layers(self):
            return (layer for layer in self if isinstance(layer, nn.Linear))

    def convert_to_analog(model, config):
        converted = Theirs(*copy.deepcopy(model))
        for layer in converted.analog_layers():
            layer.input_range = nn.Parameter(torch.zeros(1))
        return converted.eval()

    monkeypatch.setattr(peer_methods, "_imported", lambda name: SimpleNamespace(convert_to_analog=convert_to_analog))
    monkeypatch.setattr(peer_methods.Hardware, "config", lambda hardware, fast: None)
    model, inputs = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 10)), torch.randn(64, 4)
    method = peer_methods.Lightning(model, peer_methods.CONVERTERS, inputs)
    twin = peer_methods.twin_of(model, peer_methods.CONVERTERS, inputs)
    found = [layer.input_range.item() for layer in method.model.analog_layers()]
    assert found == [float(value.detach()) for value in analogsim.range_parameters(twin)]
    assert min(found) > 0
    assert method.model.training
    trained = {id(tensor) for group in method.optimizer.param_groups for tensor in group["params"]}
    assert trained == {id(tensor) for tensor in method.model.parameters()}


def test_every_one_of_theirs_has_one_of_ours_beside_it():
    from benchmarks.harness import peer_methods

    inputs = torch.zeros(1, 1)
    ours = {contender.name: contender.noise for contender in peer_methods.ours(inputs)}
    theirs = {contender.name: contender.noise for contender in peer_methods.theirs(inputs)}
    assert set(peer_methods.COUNTERPARTS) == set(theirs)
    assert all(theirs[name] == ours[mine] for name, mine in peer_methods.COUNTERPARTS.items())
    assert all(peer_methods.LIGHTNING in name for name in theirs)
