from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import analogsim
from analogsim import ConversionWarning, Gaussian, NotRoutedError, ReadNoise
from tests.conversion.networks import mlp


class Named(nn.Module):
    """Layers, and a function of them and the input."""

    def __init__(self, run: Callable[..., Any], **children: nn.Module) -> None:
        super().__init__()
        self.__dict__["run"] = run
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self, *args, **kwargs)


def two(run: Callable[..., Any]) -> Named:
    return Named(run, a=nn.Linear(4, 4), b=nn.Linear(4, 4))


def test_example_conventions() -> None:
    x = torch.randn(3, 4)
    analogsim.convert(mlp(), "pcm", example=x)
    both = two(lambda self, x, y: self.a(x) + self.b(y))
    analogsim.convert(both, "pcm", example=(x, x))
    analogsim.convert(both, "pcm", example={"x": x, "y": x})
    for wrong in ([x], 3.0, x.numpy()):
        with pytest.raises(TypeError, match="example must be a tensor, a tuple of arguments or a mapping"):
            analogsim.convert(both, "pcm", example=wrong)


@pytest.mark.parametrize("crossbar", ["ideal", "standard", "standard(rows=3)"])
@pytest.mark.parametrize("device", ["pcm", "gaussian", "sonos", ReadNoise(0.1)], ids=str)
def test_networks_that_are_right_pass(device: Any, crossbar: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(12, 3))
    analogsim.convert(model, device, crossbar=crossbar, example=torch.randn(2, 1, 4, 4))
    lstm = Named(lambda self, x: self.head(self.lstm(x)[0]), lstm=nn.LSTM(4, 5), head=nn.Linear(5, 2))
    analogsim.convert(lstm, device, crossbar=crossbar, example=torch.randn(2, 3, 4))
    attention = Named(lambda self, x: self.attention(x, x, x), attention=nn.MultiheadAttention(4, 2))
    analogsim.convert(attention, device, crossbar=crossbar, example=torch.randn(2, 3, 4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_in_any_precision(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(6))).to(dtype)
    analogsim.convert(model, "pcm", crossbar="standard(rows=5)", example=torch.randn(4, 16, dtype=dtype))


def test_everything_is_left_as_it_was() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("calls", torch.zeros(()))
            self.register_buffer("last", None)

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.last = x.sum()
            return functional.dropout(x, 0.5, training=True)

    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), Counts(), nn.Linear(4, 2))
    model[1].eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    x = torch.randn(3, 4, requires_grad=True)
    random = torch.get_rng_state()
    analog = analogsim.convert(model, "pcm", crossbar="standard", example=x)
    assert torch.equal(random, torch.get_rng_state())
    assert [module.training for module in model.modules()] == modes
    assert [module.training for module in analog.modules()] == modes
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert x.grad is None
    state = analog[0].analog
    assert (state.uses, state.observe, state.chip, state.input_range) == (0, None, None, None)
    assert state.crossbar == analogsim.as_crossbar("standard")


def test_inputs_may_be_written_into() -> None:
    x = torch.randn(3, 4)
    kept = x.clone()
    model = Named(lambda self, x: self.fc(x.mul_(2)), fc=nn.Linear(4, 2))
    analogsim.convert(model, "pcm", example=x)
    assert torch.equal(x, kept)


BYPASSES: dict[str, Callable[..., Any]] = {
    "functional": lambda self, x: functional.linear(functional.linear(x, self.a.weight), self.b.weight),
    "matmul": lambda self, x: x @ self.a.weight.t() @ self.b.weight.t(),
    "one call": lambda self, x: torch.chain_matmul(x, self.a.weight, self.b.weight),
    "class": lambda self, x: nn.Linear.forward(self.b, nn.Linear.forward(self.a, x)),
    "stored": lambda self, x: torch.stack([self.a.weight, self.b.weight]).sum(0) @ x.t(),
}


@pytest.mark.filterwarnings("ignore:torch.chain_matmul")
@pytest.mark.parametrize("run", BYPASSES.values(), ids=BYPASSES.keys())
def test_a_network_that_goes_past_all_its_layers_is_an_error(run: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"no analog layer of Named took part .* The layers are: 'a', 'b'"):
        analogsim.convert(two(run), "pcm", example=torch.randn(3, 4))


def test_layers_without_a_part_are_named_once() -> None:
    model = two(lambda self, x: self.a(x) + x @ self.b.weight.t())
    with pytest.warns(ConversionWarning, match="without a part in the forward on the example: 'b'") as record:
        analogsim.convert(model, "pcm", example=torch.randn(3, 4))
    assert len(record) == 1
    assert record[0].filename == __file__
    analogsim.convert(model, {"b": None, "*": "pcm"}, example=torch.randn(3, 4))


class Own(nn.Linear):
    """Multiplies by itself, in a way of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(-2) * self.weight.sin()).sum(-1)


def test_a_layer_that_cannot_be_followed_is_named() -> None:
    with pytest.raises(NotRoutedError, match=r"layer '1': the forward of Own did not take its weight"):
        analogsim.convert(nn.Sequential(nn.Linear(4, 4), Own(4, 2)), "pcm", example=torch.randn(3, 4))


def test_an_error_inside_names_the_layer() -> None:
    class OnlyLinear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            if type(self.fc) is not nn.Linear:
                raise TypeError("not mine")
            return self.fc(x)

    model = nn.Sequential(nn.Linear(4, 4), OnlyLinear(), nn.Linear(4, 4))
    with pytest.raises(ValueError, match=r"the twin fails in '1' \(OnlyLinear\): TypeError: not mine"):
        analogsim.convert(model, "pcm", example=torch.randn(3, 4))
    with pytest.raises(ValueError, match=r"the example does not go through the model itself: RuntimeError: .*mat1"):
        analogsim.convert(model, "pcm", example=torch.randn(3, 5))


OTHERWISE: dict[str, tuple[Callable[..., Any], str]] = {
    "another branch": (lambda self, x: self.a(x) if type(self.a) is nn.Linear else 2 * self.a(x), "by 1 of its size"),
    "another shape": (
        lambda self, x: self.a(x)[: 3 if type(self.a) is nn.Linear else 2],
        r"its tensors are \[\(2, 4\)\]",
    ),
    "no tensor": (lambda self, x: self.a(x) if type(self.a) is nn.Linear else [self.a(x)] * 2, "its tensors are"),
    "nan": (
        lambda self, x: self.a(x) * (1 if type(self.a) is nn.Linear else float("nan")),
        "NaN or infinite values in",
    ),
}


@pytest.mark.parametrize(("run", "words"), OTHERWISE.values(), ids=OTHERWISE.keys())
def test_an_answer_that_differs_is_an_error(run: Callable[..., Any], words: str) -> None:
    model = Named(run, a=nn.Linear(4, 4))
    with pytest.raises(ValueError, match=f"the twin of Named answers otherwise than the model .*{words}"):
        analogsim.convert(model, Gaussian(), example=torch.randn(3, 4))


def test_answers_of_any_structure() -> None:
    def run(self: Named, x: Tensor) -> Any:
        y = self.a(x)
        return {"logits": y, "classes": y.argmax(-1), "more": [y * 2, None, 3], "sparse": y.relu().to_sparse()}

    analogsim.convert(Named(run, a=nn.Linear(4, 4)), "pcm", example=torch.randn(3, 4))


def test_without_an_example_nothing_runs() -> None:
    def never(self: Named, x: Tensor) -> Tensor:
        raise AssertionError

    analogsim.convert(Named(never, a=nn.Linear(4, 4)), "pcm")


class Counting(nn.Module):
    """What it answers depends on how often it was called, and on the largest input so far, as observers do in eval."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("seen", torch.empty(0))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.calls += 1
            self.seen.resize_(1).copy_(x.abs().max())
        return self.fc(x) * self.calls


def test_the_twin_begins_with_the_buffers_that_the_model_began_with() -> None:
    model, x = Counting(), torch.randn(4, 6)
    analogsim.convert(model, "gaussian", example=x)
    assert model.calls == 0
    assert model.seen.shape == (0,)


def test_an_answer_of_zeros_is_the_same_answer() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    x = torch.randn(5, 4)
    analog = analogsim.convert(model, Gaussian(0.05), example=x)
    assert torch.equal(analogsim.to_digital(analog)(x), torch.zeros(5, 2))


class ByHand(nn.Linear):
    """Multiplies by itself, and counts how often."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return (x[:, None] * self.weight).sum(-1)


class Conv(nn.Conv2d):
    """The same of a convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.unfold(x, self.kernel_size).sum(1) * self.weight.sum()


class Turned(nn.ConvTranspose1d):
    """The same of a transposed one."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum() * self.weight.abs()


@pytest.mark.parametrize("layer", [ByHand(4, 3), Conv(2, 3, 3, dilation=2), Turned(2, 3, 3)])
def test_a_layer_that_multiplies_by_itself_is_refused_before_any_forward(layer):
    with pytest.raises(NotRoutedError, match=f"layer '0': the forward of {type(layer).__name__} did not take its"):
        analogsim.convert(nn.Sequential(layer), "pcm")
    assert isinstance(analogsim.convert(nn.Sequential(layer, nn.Linear(3, 2)), {"0": None, "1": "pcm"}), nn.Sequential)


class OnlyInTraining(nn.Linear):
    """Takes a product in training alone, and what it takes is another shape than its type's."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x + torch.rand(())) if self.training else x * self.weight.sum()


class OfPairs(nn.Linear):
    """Wants two inputs, which nobody can know."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x[:, None] * self.weight).sum(-1) + y


def test_what_is_tried_leaves_no_trace():
    model = nn.Sequential(OnlyInTraining(4, 4)).train()
    state = torch.random.get_rng_state()
    twin = analogsim.convert(model, "pcm")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (model[0].calls, twin[0].calls) == (0, 0)
    assert twin.training
    assert twin[0].training
    assert twin[0].analog.uses == 0
    assert analogsim.convert(nn.Sequential(OfPairs(4, 4)), "pcm")[0].analog.uses == 0
