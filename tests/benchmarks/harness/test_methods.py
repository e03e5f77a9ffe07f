"""The ways to train on noisy weights: by what they do to gradients and weights."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn

CPU = torch.device("cpu")


def one_layer():
    """A layer of 20 inputs and 3 classes, with 5 samples."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(20, 3)), torch.randn(5, 20), torch.tensor([0, 2, 1, 0, 2])


def gradient_by_hand(weight, bias, images, labels):
    """Of the mean cross-entropy of a linear layer: ``(softmax - one-hot)`` times the inputs."""
    error = (images @ weight.T + bias).softmax(1) - torch.eye(len(weight))[labels]
    return error.T @ images / len(images), error.mean(0)


def test_every_method_trains_and_the_noise_stays_out_of_the_weights():
    from benchmarks.harness.methods import CONTENDERS
    from benchmarks.harness.networks import CASES

    case = CASES["mlp"]
    images, labels = case.data(CPU, 4)
    for contender in CONTENDERS:
        model = case.model(CPU)
        before = [parameter.detach().clone() for parameter in model.parameters()]
        contender.make(model).step(images, labels)
        moved = [(p - b).abs().max().item() for p, b in zip(model.parameters(), before, strict=True)]
        assert all(0 < move < 1e-5 for move in moved), contender.name


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("plain", lambda weight: 0.0),
        ("thread's loop", lambda weight: 0.01),
        ("save and restore", lambda weight: 0.01),
        ("hand-written", lambda weight: 0.01),
        ("hand-written, relative", lambda weight: 0.05 * weight.abs().max()),
        ("convert, absolute", lambda weight: 0.01),
        ("convert, gaussian", lambda weight: 0.05 * weight.abs().max()),
    ],
)
def test_the_gradient_is_that_of_the_formula_at_the_noisy_weights(name, size):
    from benchmarks.harness.methods import CONTENDERS

    model, images, labels = one_layer()
    weight, bias = (parameter.detach().clone() for parameter in model[0].parameters())
    (contender,) = (contender for contender in CONTENDERS if contender.name == name)
    method = contender.make(model)
    trained = list(model.parameters())
    torch.manual_seed(2)
    method.backward(images, labels)
    torch.manual_seed(2)
    noisy = weight + size(weight) * torch.randn(weight.shape)
    for parameter, wanted in zip(trained, gradient_by_hand(noisy, bias, images, labels), strict=True):
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-5, atol=1e-7)
    assert torch.equal(trained[0], weight)
    assert torch.equal(trained[1], bias)


def test_noise_differs_from_step_to_step():
    from benchmarks.harness.methods import CONTENDERS

    for contender in CONTENDERS:
        model, images, labels = one_layer()
        method, slopes = contender.make(model), []
        for _ in range(2):
            method.optimizer.zero_grad()
            method.backward(images, labels)
            slopes.append([p.grad.clone() for p in model.parameters()])
        assert all(map(torch.equal, *slopes)) == (contender.name == "plain"), contender.name


def test_a_layer_written_by_hand_is_the_layer_it_replaces():
    from benchmarks.harness.methods import HandConv2d, HandLinear, HandWritten

    conv = nn.Conv2d(4, 6, 3, stride=2, padding=(1, 2), dilation=2, groups=2)
    model = nn.Sequential(nn.Sequential(conv, nn.ReLU()), nn.Flatten(), nn.Linear(72, 3, bias=False))
    images = torch.randn(2, 4, 7, 7)
    assert model[0](images).flatten(1).shape == (2, 72)
    before = copy.deepcopy(model)
    HandWritten(model, lambda weight: 2.0 * weight)
    assert (type(model[0][0]), type(model[2])) == (HandConv2d, HandLinear)
    assert [p.data_ptr() for p in model[0][0].parameters()] == [conv.weight.data_ptr(), conv.bias.data_ptr()]
    with torch.no_grad():
        before[0][0].weight.mul_(2.0)
        before[2].weight.mul_(2.0)
        assert torch.equal(model(images), before(images))


def test_the_noise_of_the_loop_is_on_batch_norm_too_and_that_of_the_careful_one_is_not():
    from benchmarks.harness.methods import SaveRestore, ThreadLoop

    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    seen = {}

    def see(norm, args, output):
        seen[kind] = (norm.weight.detach().clone(), norm.training)

    for kind in (ThreadLoop, SaveRestore):
        network = copy.deepcopy(model)
        network[1].register_forward_hook(see)
        kind(network).backward(torch.randn(4, 3), torch.tensor([0, 1, 1, 0]))
        assert network.training
        assert torch.equal(network[1].weight, torch.ones(2))
    weight, training = seen[ThreadLoop]
    assert 0 < (weight - 1).abs().min() <= (weight - 1).abs().max() < 0.1
    assert not training
    weight, training = seen[SaveRestore]
    assert torch.equal(weight, torch.ones(2))
    assert training


def test_what_is_timed_beside_a_step():
    from benchmarks.harness.methods import answer, forward_backward

    model, images, labels = one_layer()
    assert not answer(model, images).requires_grad
    forward_backward(model, images, labels)
    first = model[0].weight.grad.clone()
    forward_backward(model, images, labels)
    assert torch.equal(model[0].weight.grad, first)  # not added up
    torch.testing.assert_close(first, gradient_by_hand(*model[0].parameters(), images, labels)[0])


def test_every_noise_that_is_compared_has_two_who_make_it():
    from benchmarks.harness.methods import CONTENDERS

    assert len({contender.name for contender in CONTENDERS}) == len(CONTENDERS)
    shared = Counter(contender.noise for contender in CONTENDERS if contender.noise)
    assert set(shared) == {"absolute", "relative"}
    assert min(shared.values()) >= 2
