from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim.training import plain_step, same_noise


def twin(device: str = "gaussian(std=0.1)") -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
    return analogsim.convert(model, device).train()


INPUTS, TARGETS = torch.randn(16, 6, generator=torch.Generator().manual_seed(1)), torch.arange(16) % 3


def loss_of(network: nn.Module) -> Tensor:
    return nn.functional.cross_entropy(network(INPUTS), TARGETS)


def gradients(network: nn.Module) -> list[Tensor]:
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


def test_a_plain_step_is_one_backward() -> None:
    by_hand, by_step = twin(), twin()
    torch.manual_seed(2)
    expected = loss_of(by_hand)
    expected.backward()  # type: ignore[no-untyped-call]
    torch.manual_seed(2)
    value = plain_step(by_step, lambda: loss_of(by_step))
    assert torch.equal(value, expected)
    assert not value.requires_grad
    assert len(gradients(by_step)) == 6
    assert all(map(torch.equal, gradients(by_step), gradients(by_hand)))
    plain_step(by_step, lambda: 0 * loss_of(by_step))  # on top of what is there
    assert all(map(torch.equal, gradients(by_step), gradients(by_hand)))


def test_every_call_of_the_loss_is_another_draw() -> None:
    network = twin()
    assert len({loss_of(network).item() for _ in range(3)}) == 3


@pytest.mark.parametrize("device", ["gaussian(std=0.1)", "pcm", "reram-wan2022"])
def test_within_the_block_every_forward_sees_the_same_numbers(device: str) -> None:
    network = twin(device)
    torch.manual_seed(3)
    first = loss_of(network)
    second = loss_of(network)
    torch.manual_seed(3)
    with same_noise(network):
        torch.randn(5, generator=torch.Generator())  # another generator's numbers are its own
        values = [loss_of(network) for _ in range(3)]
    assert all(torch.equal(value, first) for value in values)
    assert first != second
    assert torch.equal(loss_of(network), second)  # the generator stands as after one forward
    assert not torch.equal(loss_of(network), second)


def test_what_draws_between_the_forwards_changes_nothing() -> None:
    network = twin()
    with same_noise(network):
        torch.rand(3)
        first = loss_of(network)
        torch.rand(3)
        assert torch.equal(loss_of(network), first)


def test_an_error_ends_the_block() -> None:
    network = twin()

    def fail() -> None:
        with same_noise(network):
            loss_of(network)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert not torch.equal(loss_of(network), loss_of(network))


def test_blocks_within_one_another() -> None:
    network = twin()
    with same_noise(network):
        first = loss_of(network)
        with same_noise(network):
            assert torch.equal(loss_of(network), first)
        assert torch.equal(loss_of(network), first)
