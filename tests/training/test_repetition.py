"""One draw for several forwards: of the whole and of parts, in training and on chips, for batches of any size."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import same_noise
from analogsim.training import same_noise as same_noise_of_training

DEVICES = ["gaussian(std=0.1)", "pcm", "reram-wan2022"]


def twin(device: str = "gaussian(std=0.1)", crossbar: str = "ideal", dropout: float = 0.5) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    return analogsim.convert(model, device, crossbar=crossbar).train()


X = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))


def test_it_is_one_function_under_two_names() -> None:
    assert same_noise is same_noise_of_training


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("crossbar", ["ideal", "standard"])
def test_every_forward_is_the_first_one(device: str, crossbar: str) -> None:
    analog = twin(device, crossbar)
    with same_noise(analog):
        answers = [analog(X) for _ in range(3)]
    assert all(torch.equal(answer, answers[0]) for answer in answers)
    assert not torch.equal(analog(X), answers[0])


@pytest.mark.parametrize("device", DEVICES)
def test_the_stream_goes_on_as_if_nothing_was_repeated(device: str) -> None:
    """Also what is drawn between the forwards is new, and the same as without the block."""
    analog = twin(device)
    torch.manual_seed(3)
    wanted = [analog(X), torch.rand(3), torch.rand(3), analog(X)]
    torch.manual_seed(3)
    with same_noise(analog):
        got = [analog(X), torch.rand(3)]
        analog(X)
        got.append(torch.rand(3))
        analog(X[:5])
    got.append(analog(X))
    assert all(map(torch.equal, got, wanted))


@pytest.mark.parametrize("device", DEVICES[:2])  # without read noise, which is new for each sample
def test_batches_of_other_sizes_meet_one_draw(device: str) -> None:
    """Dropout takes other numbers for another batch; the weights behind it are the same."""
    analog = twin(device)
    kept = []
    analog[5].register_forward_hook(lambda module, args, output: kept.append((args[0], output)))
    with same_noise(analog):
        analog(X)
        shift = analog[5](torch.zeros(1, 8))
        weight = analog[5](torch.eye(8)) - shift
        for size in (3, 16, 1):
            analog(X[:size])
        for given, answered in kept:
            torch.testing.assert_close(answered, given @ weight + shift)


def test_a_large_and_a_small_batch_sample_by_sample() -> None:
    analog = twin("pcm", dropout=0.0)
    with same_noise(analog):
        whole = analog(X)
        torch.testing.assert_close(analog(X[:3]), whole[:3])
        torch.testing.assert_close(analog(X[5:6]), whole[5:6])


def test_parts_called_alone() -> None:
    analog = twin(dropout=0.0)
    with same_noise(analog):
        first = analog[0](X)
        assert torch.equal(analog[0](X), first)
        head = analog[3:]
        hidden = first.relu()
        assert torch.equal(head(hidden), head(hidden))
        torch.testing.assert_close(analog(X), head(hidden))
    assert not torch.equal(analog[0](X), first)


def test_a_layer_that_is_called_twice_has_two_draws_in_each_forward() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.fc(x), self.fc(x)

    analog = analogsim.convert(Twice(), "gaussian(std=0.1)")
    with same_noise(analog):
        one, two = analog(X)
        again = analog(X)
    assert not torch.equal(one, two)
    assert torch.equal(again[0], one)
    assert torch.equal(again[1], two)


@pytest.mark.parametrize("crossbar", ["ideal", "standard(output_noise=0.01)"])
def test_read_noise_of_a_chip_is_repeated_also_at_another_age(crossbar: str) -> None:
    analog = twin("read-noise(std=0.1)", crossbar).eval()
    analogsim.program(analog, seed=1)
    with torch.no_grad():
        one, two, three = analog(X), analog(X), analog(X)
        analogsim.drift(analog, 0)  # the stream begins anew
        with same_noise(analog):
            answers = [analog(X), analog(X)]
            analogsim.drift(analog, 0)
            answers.append(analog(X))
        assert all(torch.equal(answer, one) for answer in answers)
        assert not torch.equal(one, two)
        analogsim.drift(analog, 0)
        with same_noise(analog):
            analog(X), analog(X)
        assert torch.equal(analog(X), two), "the stream stands as after one use"
        assert torch.equal(analog(X), three)


def test_recomputed_draws() -> None:
    analog = twin("pcm")
    analogsim.set_recompute(analog)
    slopes = []
    with same_noise(analog):
        for _ in range(2):
            analog.zero_grad()
            analog(X).square().sum().backward()
            slopes.append([parameter.grad.clone() for parameter in analog.parameters() if parameter.grad is not None])
    assert all(map(torch.equal, *slopes))


@pytest.mark.slow
def test_draws_of_compiled_code_are_repeated() -> None:
    analog = twin("pcm")
    analogsim.use_compiled_noise()
    try:
        with same_noise(analog):
            assert torch.equal(analog(X), analog(X))
    finally:
        analogsim.use_compiled_noise(False)


def test_blocks_within_one_another_hold_the_outer_noise() -> None:
    analog = twin()
    with same_noise(analog):
        first = analog(X)
        with same_noise(analog), same_noise(analog[0]):
            assert torch.equal(analog(X), first)
        assert torch.equal(analog(X), first)
    with same_noise(analog[0]):
        part = analog[0](X)
        with same_noise(analog):
            assert torch.equal(analog(X), analog(X))
        assert torch.equal(analog[0](X), part)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in analog.modules())


def test_an_error_in_a_forward_or_in_the_block_leaves_nothing() -> None:
    analog = twin()
    torch.manual_seed(5)
    wanted = [analog(X), analog(X)]
    torch.manual_seed(5)
    with same_noise(analog):
        got = analog(X)
        with pytest.raises(RuntimeError):
            analog(X[:, :5])
        with pytest.raises(RuntimeError):
            analog[3:](X)
        assert torch.equal(analog(X), got)
    assert torch.equal(got, wanted[0])
    assert torch.equal(analog(X), wanted[1])

    def fail() -> None:
        with same_noise(analog):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in analog.modules())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda analog: pickle.loads(pickle.dumps(analog))])
def test_copies_within_the_block_are_networks_of_their_own(copied: Callable[[nn.Module], nn.Module]) -> None:
    analog = twin()
    with same_noise(analog):
        first = analog(X)
        other = copied(analog)
        assert not torch.equal(other(X), other(X))
        assert torch.equal(analog(X), first)
        with same_noise(other):
            assert torch.equal(other(X), other(X))
    assert not torch.equal(other(X), other(X))


def test_sharpness_aware_and_finite_differences() -> None:
    """A step along the gradient changes the loss by what the gradient says: not so under two draws."""
    analog = twin("pcm", dropout=0.0).double()
    x = X.double()
    weight = analog[3].weight

    def loss() -> Tensor:
        value: Tensor = analog(x).square().mean()
        return value

    with same_noise(analog):
        first = loss()
        first.backward()
        with torch.no_grad():
            weight.sub_(weight.grad, alpha=1e-3)
        second = loss()
    slope = float(weight.grad.square().sum())
    assert float((first - second).detach()) == pytest.approx(1e-3 * slope, rel=0.05)
    assert abs(float((loss() - loss()).detach())) > 1e-3 * slope


def test_lbfgs_goes_down_under_one_draw() -> None:
    analog = twin(dropout=0.0)
    optimizer = torch.optim.LBFGS(analog.parameters(), lr=0.5, max_iter=8, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = (analog(X) - X[:, :3]).square().mean()
        loss.backward()
        return loss

    with same_noise(analog):
        before = closure().item()
        optimizer.step(closure)
        assert closure().item() < before


@pytest.fixture
def compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def compiled_whole(analog: nn.Module) -> nn.Module:
    return torch.compile(analog, backend="eager")  # type: ignore[return-value]


def compiled_in_place(analog: nn.Module) -> nn.Module:
    analog[0].compile(backend="eager")  # type: ignore[index, operator]
    return analog


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("make", [compiled_whole, compiled_in_place])
def test_compiled_networks_are_refused(make: Callable[[nn.Module], nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"same_noise: .* is compiled"), same_noise(make(twin())):
        pass


def test_what_is_no_module_is_refused_and_what_is_not_called_is_said() -> None:
    with pytest.raises(TypeError, match=r"same_noise: needs the twin that .* returned, got 3"), same_noise(3):  # type: ignore[arg-type]
        pass
    analog = twin()
    with (
        pytest.warns(UserWarning, match="no forward of this Linear was made in the block"),
        same_noise(nn.Linear(2, 2)),
    ):
        analog(X)


def test_a_network_without_analog_layers_repeats_its_dropout() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5))
    with same_noise(model):
        assert torch.equal(model(X), model(X))
