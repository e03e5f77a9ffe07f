"""Draws that backward makes again: the same gradients, and nothing kept."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import analogsim
from analogsim import Crossbar, Mapping
from analogsim.device.parse import as_device_model

EIGHT_BITS = Crossbar(rows=512, cols=512, dac_bits=8, adc_bits=8, input_range=2.0, output_bound=8.0, output_noise=0.02)

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(40, 60), nn.Tanh(), nn.Linear(60, 5)), (3, 40)),
    "conv": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, groups=2)),
        (2, 3, 6, 6),
    ),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2), (2, 4, 5, 5)),
    "transformer": (lambda: nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True), (2, 5, 16)),
    "recurrent": (lambda: nn.GRU(6, 8, batch_first=True), (2, 5, 6)),
}


def outputs(model: nn.Module, x: Tensor) -> Tensor:
    answer = model(x)
    return answer[0] if isinstance(answer, tuple) else answer


def trained(analog: nn.Module, x: Tensor, draw: int = 7) -> list[Tensor]:
    """The answer and all gradients of two forwards, of one draw each, whose losses go back together."""
    torch.manual_seed(draw)
    analog.zero_grad()
    x = x.clone().requires_grad_()
    first, second = outputs(analog, x), outputs(analog, x)
    assert not torch.equal(first, second)
    (first.square().sum() + second.pow(3).sum()).backward()
    return [first.detach(), second.detach(), *(p.grad.clone() for p in (x, *analog.parameters()) if p.grad is not None)]


def kept(*_: object) -> AbstractContextManager[None]:
    """In place of `recompute.keeping`: the same draws, and autograd keeps them."""
    return nullcontext()


@pytest.mark.parametrize("crossbar", ["ideal", EIGHT_BITS], ids=["ideal", "8 bit"])
@pytest.mark.parametrize("device", ["gaussian", "pcm", "stuck-at", "read-noise"])
@pytest.mark.parametrize("network", NETWORKS)
def test_gradients_are_those_of_draws_that_are_kept(
    network: str, device: str, crossbar: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, shape = NETWORKS[network]
    model, x = make().double(), torch.randn(shape, dtype=torch.float64)
    analog = analogsim.convert(model, device, crossbar=crossbar)
    analogsim.set_recompute(analog)
    got = trained(analog, x)
    with monkeypatch.context() as patch:
        patch.setattr("analogsim.layers.matrix.keeping", kept)
        patch.setattr("analogsim.crossbar.signal_path.keeping_source", kept)
        wanted = trained(analog, x)
    assert len(got) == len(wanted) > 2
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "mapping", [Mapping("pair", bias_rows=2), Mapping("offset"), Mapping("pair", slices=2)], ids=str
)
@pytest.mark.parametrize("crossbar", ["ideal", EIGHT_BITS], ids=["ideal", "8 bit"])
def test_mappings(mapping: Mapping, crossbar: object, monkeypatch: pytest.MonkeyPatch) -> None:
    device = as_device_model("pcm").replace(mapping=mapping)
    model = nn.Sequential(nn.Conv1d(3, 4, 2), nn.Flatten(), nn.Linear(16, 3)).double()
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    analog = analogsim.convert(model, device, crossbar=crossbar)
    analogsim.set_recompute(analog)
    got = trained(analog, x)
    monkeypatch.setattr("analogsim.layers.matrix.keeping", kept)
    monkeypatch.setattr("analogsim.crossbar.signal_path.keeping_source", kept)
    for ours, theirs in zip(got, trained(analog, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("crossbar", ["ideal", EIGHT_BITS], ids=["ideal", "8 bit"])
@pytest.mark.parametrize("device", ["gaussian", "pcm"])
def test_nothing_as_large_as_the_weight_is_kept(device: str, crossbar: object, autocast: bool) -> None:
    if autocast and crossbar != "ideal":
        pytest.skip("behind converters, the cast copy is kept")
    analog = analogsim.convert(nn.Linear(50, 40), device, crossbar=crossbar)
    sizes: list[int] = []

    def counted(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            sizes.append(tensor.numel())
        return tensor

    for again in (False, True):
        analogsim.set_recompute(analog, again)
        sizes.clear()
        with (
            torch.autograd.graph.saved_tensors_hooks(counted, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=autocast),
        ):
            answer = analog(torch.randn(1, 50, requires_grad=True))
        assert sizes
        assert (max(sizes) >= 40 * 50) is not again
        answer.float().sum().backward()


def held(analog: nn.Module, x: Tensor) -> list[Tensor]:
    """All that autograd keeps of a forward, Parameters aside, each memory once; backward must find it as it was."""
    found: dict[int, Tensor] = {}

    def counted(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(counted, lambda tensor: tensor):
        answer = analog(x)
    answer.sum().backward()
    return list(found.values())


@pytest.mark.parametrize("of_input", [True, False], ids=["input", "no input"])
@pytest.mark.parametrize(("network", "rows"), [("linear", 512), ("linear", 7), ("conv", 512)])
def test_behind_converters_inputs_are_kept_and_not_their_codes(network: str, rows: int, of_input: bool) -> None:
    make = {"linear": lambda: nn.Linear(20, 3), "conv": lambda: nn.Conv2d(2, 3, 3)}[network]
    x = torch.randn({"linear": (50, 20), "conv": (5, 2, 9, 9)}[network]).requires_grad_(of_input)
    crossbar = Crossbar(rows=rows, dac_bits=8, adc_bits=8, input_range="learned", output_bound=8.0)
    analog = analogsim.convert(make(), "gaussian", crossbar=crossbar)
    analogsim.calibrate(analog, [x.detach()])
    for again, times in ((False, 2 if of_input else 1), (True, 1)):
        analogsim.set_recompute(analog, again)
        # What is driven lies in one piece for each block of rows.
        pieces = {4 * x.numel(), *(4 * len(x) * min(rows, 20 - start) for start in range(0, 20, rows))}
        sizes = [tensor.untyped_storage().nbytes() for tensor in held(analog, x)]
        assert sum(size for size in sizes if size in pieces) == 4 * times * x.numel()


def test_codes_are_made_again_for_checkpoints_blocks_and_a_second_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    """A range that moved in between is an error, as without converters a weight that did."""
    crossbar = Crossbar(rows=7, dac_bits=4, adc_bits=8, input_range="learned", output_bound=8.0)
    model = nn.Sequential(nn.Linear(20, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x = torch.randn(5, 20, dtype=torch.float64)
    analog = analogsim.convert(model, "gaussian", crossbar=crossbar)
    analogsim.calibrate(analog, [x])
    ranges = analogsim.range_parameters(analog)

    def gradients(*, checkpointed: bool) -> list[Tensor]:
        torch.manual_seed(2)
        answer = checkpoint(analog, x, use_reentrant=False) if checkpointed else analog(x)
        wanted = [*model.parameters(), *ranges]
        if not checkpointed:
            torch.autograd.grad(answer.square().sum(), wanted, retain_graph=True)
        return list(torch.autograd.grad(answer.square().sum(), wanted))

    analogsim.set_recompute(analog)
    again = [gradients(checkpointed=False), gradients(checkpointed=True)]
    monkeypatch.setattr("analogsim.layers.matrix.keeping", kept)
    monkeypatch.setattr("analogsim.crossbar.signal_path.keeping_source", kept)
    wanted = gradients(checkpointed=False)
    for got in again:
        for ours, theirs in zip(got, wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    answer = analog(x)
    with torch.no_grad():
        ranges[0].mul_(3)
    with pytest.raises(RuntimeError, match=r"written into|modified by an inplace operation"):
        answer.sum().backward()


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_replays_the_draws(reentrant: bool) -> None:
    """The gradient is that of the answer: by differences of the loss at the same draws."""
    analog = analogsim.convert(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2)).double(), "pcm")
    analogsim.set_recompute(analog)
    x = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)

    def loss(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return checkpoint(analog, x, use_reentrant=reentrant).square().sum()

    loss(x).backward()
    assert x.grad is not None
    along, step = torch.randn_like(x), 1e-6
    above, below = (loss((x + sign * step * along).requires_grad_()) for sign in (1, -1))
    torch.testing.assert_close((x.grad * along).sum(), (above - below) / (2 * step), rtol=1e-6, atol=1e-6)


def test_a_weight_that_changed_before_backward_is_an_error() -> None:
    analog = analogsim.convert(nn.Sequential(nn.Linear(4, 3)), "gaussian")
    analogsim.set_recompute(analog)
    loss = analog(torch.randn(2, 4, requires_grad=True)).sum()
    with torch.no_grad():
        analog[0].weight.add_(1.0)
    with pytest.raises(RuntimeError, match="layer '0' changed between forward and backward"):
        loss.backward()


def test_an_input_that_changed_before_backward_is_an_error() -> None:
    analog = analogsim.convert(nn.Linear(4, 3), "gaussian")
    analogsim.set_recompute(analog)
    x = torch.randn(2, 4)
    loss = analog(x).sum()
    x.zero_()
    with pytest.raises(RuntimeError, match="written into after an analog layer used it"):
        loss.backward()


def test_draws_follow_torchs_seed_and_are_fresh() -> None:
    analog = analogsim.convert(nn.Linear(30, 20), "gaussian")
    analogsim.set_recompute(analog)
    x = torch.randn(2, 30)
    answers = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        answers.append(analog(x))
        answers.append(analog(x))
    assert torch.equal(answers[0], answers[2])
    assert torch.equal(answers[1], answers[3])
    assert len({tuple(answer.flatten().tolist()) for answer in answers}) == 4


def test_copies_and_errors() -> None:
    analog = analogsim.convert(nn.Sequential(nn.Linear(4, 3)), "gaussian")
    analogsim.set_recompute(analog)
    assert copy.deepcopy(analog)[0].analog.recompute
    analogsim.set_recompute(analog, False)
    assert not analog[0].analog.recompute
    with pytest.raises(TypeError, match="set_recompute: must be True or False, got 1"):
        analogsim.set_recompute(analog, 1)  # type: ignore[arg-type]
