from __future__ import annotations

import copy
import io
import pickle
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import analogsim
from analogsim import AnalogLayer, ConversionWarning, DeviceModel, Effect, Gaussian, Mapping, register_layer
from analogsim.layers import AnalogConv2d, AnalogLinear
from analogsim.layers.registry import analog_types
from tests.conversion.networks import CLEAN, Deep, assert_shared, devices_of, mlp


class Named(nn.Module):
    """A module with whatever children, whose forward is handed in."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor], **children: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


# --- one set of weights ---------------------------------------------------------------------------------------------


def test_twin_has_the_very_same_parameters_and_buffers() -> None:
    model = mlp()
    analog = analogsim.convert(model, "pcm")
    assert_shared(model, analog)
    assert type(analog) is nn.Sequential
    assert type(analog[0]) is AnalogLinear
    assert type(model[0]) is nn.Linear
    assert analog[1] is not model[1]


@pytest.mark.parametrize("mover", ["model", "analog"])
def test_moved_to_another_dtype_both_move(mover: str) -> None:
    model = mlp()
    analog = analogsim.convert(model, "pcm")
    (model if mover == "model" else analog).to(torch.float64)
    assert_shared(model, analog)
    assert analog[0].weight.dtype == torch.float64
    assert analog[1].running_mean.dtype == torch.float64
    assert analog(torch.ones(2, 4, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("owner", ["model", "analog"])
def test_an_assigned_parameter_is_in_both(owner: str) -> None:
    model = mlp()
    analog = analogsim.convert(model, "pcm")
    fresh = nn.Parameter(torch.zeros(8, 4))
    (model if owner == "model" else analog)[0].weight = fresh
    assert model[0].weight is fresh
    assert analog[0].weight is fresh
    (model if owner == "model" else analog)[1].running_mean = torch.ones(8)
    assert_shared(model, analog)


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("reader", ["model", "analog"])
def test_trap_12_state_dicts_load_strictly_both_ways(reader: str, assign: bool) -> None:
    model = mlp()
    analog = analogsim.convert(model, "pcm")
    assert list(model.state_dict()) == list(analog.state_dict())
    torch.manual_seed(1)
    other = mlp()
    state = (other if reader == "analog" else analogsim.convert(other, "pcm")).state_dict()
    (analog if reader == "analog" else model).load_state_dict(state, strict=True, assign=assign)
    assert_shared(model, analog)
    assert torch.equal(model[3].weight, other[3].weight)


@pytest.mark.filterwarnings("ignore::analogsim.ConversionWarning")
def test_assigned_state_reaches_an_lstm_of_the_twin() -> None:
    model = Named(lambda self, x: self.head(self.lstm(x)[0]), lstm=nn.LSTM(3, 3), head=nn.Linear(3, 2))
    analog = analogsim.convert(model, CLEAN["signed"])
    before = model(torch.ones(2, 1, 3))
    model.load_state_dict({name: 2 * value for name, value in model.state_dict().items()}, assign=True)
    assert not torch.allclose(before, model(torch.ones(2, 1, 3)))
    torch.testing.assert_close(analog(torch.ones(2, 1, 3)), model(torch.ones(2, 1, 3)))


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_optimizer_made_before_or_after(first: bool, optimizer: type[torch.optim.Optimizer]) -> None:
    model = mlp()
    made = optimizer(model.parameters(), lr=0.1) if first else None
    analog = analogsim.convert(model, "gaussian")
    made = made or optimizer(model.parameters(), lr=0.1)
    before = [model[index].weight.detach().clone() for index in (0, 1, 3)]
    analog(torch.randn(5, 4)).square().sum().backward()
    made.step()
    assert all(not torch.equal(model[index].weight, old) for index, old in zip((0, 1, 3), before, strict=True))
    assert_shared(model, analog)


# --- the shape of the tree ------------------------------------------------------------------------------------------


def test_trap_11_a_module_under_two_names_stays_one() -> None:
    layer = nn.Linear(4, 4)
    model = Named(lambda self, x: self.b(self.a(x)), a=layer, b=layer)
    analog = analogsim.convert(model, "pcm")
    assert analog.a is analog.b
    assert list(analog.state_dict()) == list(model.state_dict())
    assert len(list(analog.parameters())) == 2
    assert analogsim.convert(model, {"b": "pcm"}).a.analog.name == "a"


def test_trap_11_tied_weights_stay_tied_and_lie_on_two_arrays() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    analog = analogsim.convert(model, "gaussian")
    assert analog[0].weight is analog[2].weight
    analog(torch.ones(1, 4)).sum().backward()
    assert model[0].weight.grad is analog[2].weight.grad
    analogsim.program(analog, seed=0)
    first, second = (analog[index].analog.chip.weight_for(analog[index].weight)[0] for index in (0, 2))
    assert not torch.equal(first, second)


@pytest.mark.filterwarnings("ignore::analogsim.ConversionWarning")
def test_embedding_tied_to_an_analog_head() -> None:
    model = Named(lambda self, x: self.head(self.embed(x)), embed=nn.Embedding(6, 4), head=nn.Linear(4, 6, bias=False))
    model.head.weight = model.embed.weight
    analog = analogsim.convert(model, "pcm")
    assert analog.head.weight is analog.embed.weight is model.embed.weight


def test_plain_lists_and_dicts_of_modules_follow() -> None:
    model = mlp()
    model.stages = [model[0], (model[3],)]
    model.by_name = {"head": model[3]}
    model.hidden = [nn.Linear(2, 2)]  # torch does not know of it
    with pytest.warns(ConversionWarning, match=r"1 x Linear \(not registered.*ModuleList.*'hidden.0'"):
        analog = analogsim.convert(model, "pcm")
    assert analog.stages[0] is analog[0]
    assert analog.stages[1][0] is analog[3]
    assert analog.by_name["head"] is analog[3]
    assert analog.hidden[0].weight is model.hidden[0].weight


def test_tensors_that_a_forward_left_behind_are_no_obstacle() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.last = model(torch.ones(1, 2))
    model.all = [model(torch.ones(1, 2))]
    analog = analogsim.convert(model, "pcm")
    analogsim.program(analog)
    assert torch.equal(analogsim.to_digital(analog, "programmed").last, model.last)


def test_bound_methods_belong_to_the_twin() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3)
            self.impl = self.slow  # of the parent
            self.calls = {"fc": self.fc.forward}  # of a layer that becomes analog

        def slow(self, x: Tensor) -> Tensor:
            return self.fc(x)

        def forward(self, x: Tensor) -> Tensor:
            return self.impl(x) + self.calls["fc"](x)

    model = Model()
    analog = analogsim.convert(model, Gaussian(std=0.5))
    assert analog.impl.__self__ is analog
    analogsim.program(analog, seed=0)
    x = torch.ones(1, 3)
    torch.testing.assert_close(analog.eval()(x), 2 * analog.fc(x))
    assert not torch.allclose(analog(x), model(x))
    torch.testing.assert_close(analogsim.to_digital(analog)(x), model(x))


@dataclass(frozen=True)
class Counting(Effect):
    """Counts how often a layer is programmed."""

    signed: ClassVar[bool] = True
    calls: ClassVar[list[int]] = []

    def program(self, g: Tensor, cells: object, noise: object) -> Tensor:
        self.calls.append(g.numel())
        return g + 1


def test_trap_06_nested_shared_containers_are_programmed_once() -> None:
    block = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)))
    model = nn.Sequential(block, nn.Sequential(block, block[1]), block[1][0])
    analog = analogsim.convert(model, Counting())
    assert analog[0] is analog[1][0]
    assert analog[0][1] is analog[1][1]
    Counting.calls.clear()
    analogsim.program(analog, seed=0)
    assert Counting.calls == [4, 6, 6]
    kept = [chip.weight_for(layer.weight)[0] - layer.weight for layer, chip in _chips(analog)]
    assert all(torch.allclose(error, torch.ones_like(error)) for error in kept)


def _chips(analog: nn.Module) -> Iterator[tuple[AnalogLayer, analogsim.chip.LayerChip]]:
    for module in analog.modules():
        if isinstance(module, AnalogLayer):
            assert module.analog.chip is not None
            yield module, module.analog.chip


# --- what a layer keeps (trap 15) -----------------------------------------------------------------------------------


def test_trap_15_modes_are_kept_and_apart() -> None:
    model = mlp()
    model[1].eval()
    analog = analogsim.convert(model, "pcm")
    assert [module.training for module in analog.modules()] == [module.training for module in model.modules()]
    model.eval()
    assert analog.training
    assert not analogsim.convert(model, "pcm")[0].training


def test_trap_15_requires_grad_is_kept_and_shared() -> None:
    model = mlp()
    model[0].weight.requires_grad_(False)
    analog = analogsim.convert(model, "pcm")
    analog(torch.randn(3, 4)).sum().backward()
    assert model[0].weight.grad is None
    assert model[3].weight.grad is not None


def test_trap_15_hooks_are_kept() -> None:
    seen: list[str] = []
    model = mlp()
    model[0].register_forward_pre_hook(lambda module, args: seen.append(f"pre {type(module).__name__}"))
    model[0].register_forward_hook(lambda module, args, output: output + 1)
    model[3].register_full_backward_hook(lambda module, into, out: seen.append(f"back {type(module).__name__}"))
    analog = analogsim.convert(model, CLEAN["signed"])
    output = analog(torch.randn(3, 4))
    output.sum().backward()
    assert seen == ["pre AnalogLinear", "back AnalogLinear"]
    model[1].eval()
    analog[1].eval()
    x = torch.randn(3, 4)
    torch.testing.assert_close(analog(x), model(x))


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 3), (2, 5)),
    "linear without bias": (lambda: nn.Linear(5, 3, bias=False), (2, 4, 5)),
    "linear, one vector": (lambda: nn.Linear(5, 3), (5,)),
    "conv1d": (lambda: nn.Conv1d(2, 3, 3, stride=2, dilation=2, padding=1), (2, 2, 9)),
    "conv1d same, even kernel": (lambda: nn.Conv1d(2, 3, 4, padding="same", dilation=2), (2, 2, 9)),
    "conv1d circular": (lambda: nn.Conv1d(2, 4, 3, padding=2, padding_mode="circular", groups=2), (2, 2, 9)),
    "conv2d": (lambda: nn.Conv2d(2, 3, 3), (2, 2, 6, 6)),
    "conv2d unbatched": (lambda: nn.Conv2d(2, 3, 3), (2, 6, 6)),
    "conv2d groups": (lambda: nn.Conv2d(4, 6, (3, 2), groups=2, stride=(1, 2)), (2, 4, 6, 6)),
    "conv2d depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, dilation=2, bias=False), (2, 4, 6, 6)),
    "conv2d valid": (lambda: nn.Conv2d(2, 3, 3, padding="valid"), (2, 2, 6, 6)),
    "conv2d same": (lambda: nn.Conv2d(2, 3, (3, 5), padding="same"), (2, 2, 6, 6)),
    "conv2d reflect": (lambda: nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="reflect"), (2, 2, 6, 6)),
    "conv2d reflect same": (lambda: nn.Conv2d(2, 3, 4, padding="same", padding_mode="reflect"), (2, 2, 6, 6)),
    "conv2d replicate": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="replicate", stride=2), (2, 2, 6, 6)),
    "conv3d": (lambda: nn.Conv3d(2, 4, 2, groups=2, stride=(1, 2, 1), padding=1), (2, 2, 4, 4, 4)),
    "conv3d circular": (lambda: nn.Conv3d(2, 3, 3, padding=1, padding_mode="circular", bias=False), (1, 2, 4, 4, 4)),
}


@pytest.mark.parametrize("device", CLEAN.values(), ids=CLEAN.keys())
@pytest.mark.parametrize(("make", "shape"), LAYERS.values(), ids=LAYERS.keys())
def test_trap_15_without_noise_the_twin_is_the_digital_layer(
    make: Callable[[], nn.Module], shape: tuple[int, ...], device: Effect | DeviceModel
) -> None:
    layer = make()
    analog = analogsim.convert(layer, device)
    assert isinstance(analog, AnalogLayer)
    assert isinstance(analog, type(layer))
    x = torch.randn(shape, requires_grad=True)
    target = layer(x)
    # The pair divides by the largest weight of each column and multiplies by it again: a few roundings.
    close = {"rtol": 1e-5, "atol": 1e-5}
    output = analog(x)
    torch.testing.assert_close(output, target, **close)
    inputs = (x, *layer.parameters())
    for mine, theirs in zip(
        torch.autograd.grad(output.square().sum(), inputs),
        torch.autograd.grad(target.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    analogsim.program(analog, seed=0)
    torch.testing.assert_close(analog.eval()(x), target, **close)
    analogsim.drift(analog, "1y")
    torch.testing.assert_close(analog(x), target, **close)
    plain = analogsim.to_digital(analog, "programmed")
    assert type(plain) is type(layer)
    torch.testing.assert_close(plain(x), target, **close)


def test_the_root_itself_may_be_the_layer() -> None:
    model = nn.Linear(4, 2)
    analog = analogsim.convert(model, "pcm")
    assert type(analog) is AnalogLinear
    assert analog.weight is model.weight
    assert type(analogsim.to_digital(analog)) is nn.Linear
    with pytest.raises(analogsim.NotProgrammedError, match="the model itself"):
        analog.eval()(torch.ones(1, 4))


# --- which device where ---------------------------------------------------------------------------------------------


def test_uncovered_layers_warn() -> None:
    with pytest.warns(ConversionWarning, match=r"1 x Linear \(no pattern matches it\): 'fc'") as record:
        analogsim.convert(Deep(), {"conv1": "pcm", "layer1*": "pcm"})
    assert len(record) == 1
    assert record[0].filename == __file__


class Scaled(nn.Linear):
    """A subclass, which may compute something else."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Foreign(nn.Module):
    """A matrix of its own, which no layer of ours knows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 3))


class OwnAttention(nn.MultiheadAttention):
    """A subclass with several matrices and a way of its own to use them."""

    def forward(self, *args: Tensor) -> Tensor:
        return args[0]


DIGITAL: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "foreign": (
        Foreign,
        "bare Parameters, no analog layer for Foreign .convert.*example=inputs., register_layer, register_routed",
    ),
    "several": (lambda: OwnAttention(4, 2), "OwnAttention .a subclass of MultiheadAttention"),
}


@pytest.mark.parametrize(("make", "words"), DIGITAL.values(), ids=DIGITAL.keys())
def test_matrices_that_stay_digital_warn_once_and_can_be_meant(make: Callable[[], nn.Module], words: str) -> None:
    """Traps 9 and 10."""
    model = Named(lambda self, x: x, other=make(), head=nn.Linear(2, 2))
    with pytest.warns(ConversionWarning, match=words) as record:
        analogsim.convert(model, "pcm")
    assert len(record) == 1
    analog = analogsim.convert(model, {"other*": None, "*": "pcm"})  # any warning is an error here
    assert devices_of(analog) == {"head": "pcm"}


def test_layers_in_a_module_that_may_read_their_weights_stay_digital_too() -> None:
    """Trap 9: torch's attention takes the product with `out_proj.weight` by itself, and so may one of its kind."""

    class Own(nn.MultiheadAttention):
        def forward(self, *args: Tensor, **kwargs: object) -> tuple[Tensor, Tensor | None]:
            return nn.MultiheadAttention.forward(self, *args, **kwargs)

    model = nn.ModuleDict({"attention": Own(4, 2), "fc": nn.Linear(4, 4)})
    with pytest.warns(ConversionWarning, match="1 x NonDynamicallyQuantizableLinear .the module around it may read"):
        analog = analogsim.convert(model, "pcm")
    assert devices_of(analog) == {"fc": "pcm"}


def test_a_replaced_forward_that_takes_the_product_by_itself_is_refused() -> None:
    model = mlp()
    model[0].forward = lambda x: functional.linear(x, model[0].weight)
    with pytest.raises(TypeError, match=r"the forward of '0' was replaced by .* its product would run digital"):
        analogsim.convert(model, "pcm")
    assert devices_of(analogsim.convert(model, {"0": None, "*": "pcm"})) == {"3": "pcm"}


@torch.no_grad()
def test_compiled_modules_do_not_call_the_old_layer() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Linear(3, 3)))
    model[0].compile(backend="eager")
    model[1].compile(backend="eager")
    analog = analogsim.convert(model, Gaussian(std=0.5))
    analogsim.program(analog, seed=0)
    x = torch.randn(2, 4)
    analog.eval()
    assert not torch.allclose(analog[0](x), model[0](x))
    assert not torch.allclose(analog[1](x[:, :3]), model[1](x[:, :3]))
    wrapped = analogsim.convert(torch.compile(model, backend="eager"), Gaussian(std=0.5)).eval()
    analogsim.program(wrapped, seed=0)
    assert not torch.allclose(wrapped(x), model(x))


def test_element_wise_parameters_do_not_warn() -> None:
    norms = (nn.BatchNorm2d(2), nn.GroupNorm(1, 2), nn.LayerNorm((2, 3)), nn.RMSNorm((2, 3)), nn.PReLU())
    analogsim.convert(nn.Sequential(nn.Conv2d(1, 2, 1), *norms), "pcm")


# --- refusals -------------------------------------------------------------------------------------------------------


def test_refusals() -> None:
    with pytest.raises(TypeError, match="must be a torch module, got dict"):
        analogsim.convert({}, "pcm")
    with pytest.raises(ValueError, match=r"nothing in Sequential can run analog.*ReLU, Sequential"):
        analogsim.convert(nn.Sequential(nn.ReLU()), "pcm")
    with pytest.raises(ValueError, match=r"'0' is analog already.*to_digital"):
        analogsim.convert(analogsim.convert(mlp(), "pcm"), "pcm")
    with pytest.raises(ValueError, match="'1' has no weights yet"):
        analogsim.convert(nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(2)), "pcm")
    with pytest.raises(ValueError, match="train_times"):
        analogsim.convert(mlp(), "pcm", train_times=("1y", "1s"))
    with pytest.raises(ValueError, match="train_times"):
        analogsim.convert(mlp(), "pcm", train_times=(1, 2, 3))
    with pytest.raises(ValueError, match="train_times"):
        analogsim.convert(mlp(), "pcm", train_times=(0, "1s"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(value: float) -> None:
    model = mlp()
    with torch.no_grad():
        model[3].weight[1, 2] = value
    with pytest.raises(ValueError, match="layer '3' holds NaN"):
        analogsim.convert(model, "pcm")
    analogsim.convert(model, {"3": None, "*": "pcm"})


def test_a_model_that_cannot_be_copied() -> None:
    model = mlp()
    model.lock = threading.Lock()
    with pytest.raises(TypeError, match=r"second module tree of Sequential.*lock.*out of its modules"):
        analogsim.convert(model, "pcm")


# --- torch's fused encoder (trap 8) ---------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_trap_08_encoder_layer_really_uses_its_analog_layers(context: Callable[[], object], activation: str) -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation=activation).eval()
    x = torch.randn(3, 5, 8)
    digital = {"self_attn*": None}
    noisy = analogsim.convert(model, {**digital, "*": Gaussian(std=0.3)})
    exact = analogsim.convert(model, {**digital, "*": CLEAN["signed"]})
    for analog in (noisy, exact):
        analogsim.program(analog, seed=0)
    assert devices_of(noisy).keys() == {"linear1", "linear2"}
    with context():
        assert (noisy(x) - model(x)).abs().max() > 0.05
        torch.testing.assert_close(exact(x), model(x), rtol=1e-4, atol=1e-5)
    assert model.activation_relu_or_gelu in (1, 2)  # the digital one may still use its kernel


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("device", ["gaussian", "pcm", "read-noise", "gaussian(std=0.0)"])
def test_encoder_with_padding(device: str) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).eval()
    analog = analogsim.convert(model, {"*self_attn*": None, "*": device})
    analogsim.program(analog, seed=0)
    padding = torch.tensor([[False, False, False, True, True], [False] * 5])
    x = torch.randn(2, 5, 8)
    with torch.no_grad():
        error = analog(x, src_key_padding_mask=padding) - model(x, src_key_padding_mask=padding)
    assert error[padding].abs().max() == 0
    if device == "gaussian(std=0.0)":
        assert error.abs().max() < 1e-5
    else:
        assert error[~padding].abs().max() > 1e-3


# --- copies and files (trap 12) -------------------------------------------------------------------------------------


def _pickled(analog: nn.Module) -> nn.Module:
    copied = pickle.loads(pickle.dumps(analog))
    assert isinstance(copied, nn.Module)
    return copied


def _saved(analog: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(analog, buffer)
    buffer.seek(0)
    copied = torch.load(buffer, weights_only=False)
    assert isinstance(copied, nn.Module)
    return copied


@pytest.mark.parametrize("duplicate", [copy.deepcopy, _pickled, _saved])
@pytest.mark.parametrize("device", ["pcm", "read-noise", "stuck-at"])
def test_trap_12_copies_keep_the_chip(duplicate: Callable[[nn.Module], nn.Module], device: str) -> None:
    analog = analogsim.convert(mlp(), device)
    assert all(layer.analog.chip is None for layer in duplicate(analog) if isinstance(layer, AnalogLayer))
    analogsim.program(analog, seed=3)
    analogsim.drift(analog, "1d")
    x = torch.randn(2, 4)
    analog.eval()(x)  # somewhere in the stream of read noise
    copied = duplicate(analog)
    assert copied[0].weight is not analog[0].weight
    assert torch.equal(copied(x), analog(x))
    with torch.no_grad():
        copied[0].weight.add_(1)
    with pytest.raises(analogsim.StaleChipError):
        copied(x)
    analog(x)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copied_together_they_share_again(
    duplicate: Callable[[tuple[nn.Module, nn.Module]], tuple[nn.Module, nn.Module]],
) -> None:
    model = mlp()
    assert_shared(*duplicate((model, analogsim.convert(model, "pcm"))))


def test_trap_12_state_dict_loads_with_weights_only() -> None:
    analog = analogsim.convert(mlp(), "pcm")
    analogsim.program(analog)
    buffer = io.BytesIO()
    torch.save(analog.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    torch.manual_seed(1)
    model = mlp()
    model.load_state_dict(state, strict=True)
    assert torch.equal(model[0].weight, analog[0].weight)


def test_repr_tells_device_and_chip() -> None:
    analog = analogsim.convert(nn.Sequential(nn.Linear(4, 2), nn.Conv2d(1, 1, 3, padding_mode="circular")), "pcm")
    assert "AnalogLinear(in_features=4, out_features=2, bias=True, device=pcm, no chip)" in repr(analog)
    assert "padding_mode=circular, device=pcm, no chip)" in repr(analog)
    analogsim.program(analog, seed=7)
    analogsim.drift(analog, "1d")
    assert "device=pcm, chip 7 at 1d)" in repr(analog)


# --- other types ----------------------------------------------------------------------------------------------------


@pytest.fixture
def registry() -> Iterator[None]:
    before = dict(analog_types)
    yield
    analog_types.clear()
    analog_types.update(before)


@pytest.mark.usefixtures("registry")
def test_register_layer() -> None:
    @register_layer(Scaled)
    class AnalogScaled(AnalogLayer, Scaled):
        def product(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return 2 * functional.linear(input, weight, bias)

    model = nn.Sequential(Scaled(4, 3), nn.Linear(3, 2))
    analog = analogsim.convert(model, DeviceModel((Gaussian(0.0),), mapping=Mapping("pair")))
    assert type(analog[0]) is AnalogScaled
    x = torch.randn(2, 4)
    torch.testing.assert_close(analog(x), model(x))
    assert type(analogsim.to_digital(analog)[0]) is Scaled
    with pytest.raises(ValueError, match="Scaled already becomes AnalogScaled"):

        @register_layer(Scaled)
        class Second(AnalogLayer, Scaled):
            pass

    with pytest.raises(ValueError, match="AnalogScaled stands for another type"):
        register_layer(nn.Linear)(AnalogScaled)
    with pytest.raises(TypeError, match="must subclass AnalogLayer and Conv2d"):
        register_layer(nn.Conv2d)(AnalogScaled)
    register_layer(nn.Conv2d)(AnalogConv2d)  # once more is no harm
