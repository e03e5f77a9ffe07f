"""Where a matrix lies in its module, with weights that are computed: normed, pruned, not there yet."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune
from torch.nn.utils import spectral_norm as old_spectral_norm

import analogsim
from analogsim import ConversionWarning
from analogsim.inspection.carrying import audit
from analogsim.layers import Slot
from tests.hardware import IDEAL
from tests.layers.test_routing import Grown, Lora, Padded, images, vectors


def quietly(model: nn.Module, device: Any, **options: Any) -> nn.Module:
    """The twin, without the warning of what stays digital inside it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        return analogsim.convert(model, device, **options)


def gradients(output: Tensor, model: nn.Module) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(output.square().sum(), list(model.parameters()), allow_unused=True)


def old_weight_norm(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(module)  # type: ignore[no-any-return, no-untyped-call]


RULES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "old weight_norm": old_weight_norm,
    "old spectral_norm": old_spectral_norm,
    "pruning": lambda module: prune.l1_unstructured(module, "weight", 0.5),
}


COMPUTED = {
    "linear": (lambda: nn.Linear(5, 4), vectors),
    "conv": (lambda: nn.Conv2d(4, 6, 3, groups=2), lambda: images(4)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), lambda: images(4)),
    "lora": (lambda: Lora(5, 4), vectors),
    "padded": (lambda: Padded(4, 6, 3, stride=2, groups=2), lambda: images(4)),
    "grown": (lambda: Grown(4, 6, 3, stride=2, groups=2), lambda: images(4)),
}


def computed(name: str, rule: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    make, inputs = COMPUTED[name]
    return RULES[rule](make().double()), inputs()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", COMPUTED)
def test_computed_weights_run_analog(name: str, rule: str) -> None:
    """In training each rule is applied once, as in the digital network: its buffers move alike."""
    (model, x), (reference, _) = computed(name, rule), computed(name, rule)
    analog = quietly(model, IDEAL)
    wanted = reference(x)
    trained = analog(x)
    torch.testing.assert_close(trained, wanted)
    for ours, theirs in zip(gradients(trained, model), gradients(wanted, reference), strict=True):
        if theirs is not None:
            torch.testing.assert_close(ours, theirs)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(model.buffers(), reference.buffers(), strict=True))
    analogsim.program(analog)
    torch.testing.assert_close(analog.eval()(x), reference.eval()(x))
    assert audit(analog, x).passed
    found = analogsim.summary(analog)
    assert sum(row.share for row in found.rows) == pytest.approx(1)
    torch.testing.assert_close(analogsim.to_digital(analog)(x), reference(x))
    with pytest.raises(ValueError, match="computed from other Parameters"):
        analogsim.to_digital(analog, "programmed")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["linear", "transposed", "lora"])
def test_a_loaded_state_is_programmed_without_a_forward_in_between(name: str, rule: str) -> None:
    model, x = computed(name, rule)
    analog = quietly(model, IDEAL)
    other = RULES[rule](COMPUTED[name][0]().double())
    other(x)
    analog.load_state_dict(other.state_dict(), strict=True)
    analogsim.program(analog.eval())
    torch.testing.assert_close(analog(x), other.eval()(x))


# torch.compile looks at the weight that the older ways leave behind, digital or not.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("rule", ["weight_norm", "old weight_norm", "pruning"])
@pytest.mark.parametrize("name", ["conv", "padded"])
@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_computed_weights_compile(name: str, rule: str, mode: bool) -> None:
    model, x = computed(name, rule)
    analog = quietly(model, IDEAL)
    analogsim.program(analog)
    wanted = model(x)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(analog.train(mode), fullgraph=True, backend="aot_eager")(x), wanted)


def test_lazy_layers_need_a_first_batch() -> None:
    model = nn.Sequential(nn.LazyConv2d(3, 3), nn.LazyConvTranspose2d(2, 3), nn.Flatten(), nn.LazyLinear(5)).double()
    with pytest.raises(ValueError, match="'0' has no weights yet; run a batch"):
        analogsim.convert(model, IDEAL)
    x = images(4)
    model(x)
    analog = analogsim.convert(model, IDEAL)
    torch.testing.assert_close(analog(x), model(x))
    assert sum(row.analog for row in analogsim.summary(analog).rows) == 3


def test_a_part_of_a_parameter() -> None:
    """Rows of it, or all of it where it is just as long; what is written lands there."""
    layer = nn.Linear(3, 6)
    slot = Slot(rows=(2, 4))
    assert torch.equal(slot.matrix(layer), layer.weight[2:4])
    assert slot.weight_of(layer).data_ptr() == layer.weight[2:4].data_ptr()
    assert slot.size(layer.weight) == 6
    bias = slot.bias_of(layer)
    assert bias is not None
    assert torch.equal(bias, layer.bias[2:4])
    slot.put(layer, torch.ones(2, 3), torch.zeros(2))
    assert layer.weight[2:4].eq(1).all()
    assert not layer.bias[2:4].any()
    assert not layer.weight[:2].eq(1).any()
    assert torch.equal(Slot(rows=(4, 10)).matrix(layer), layer.weight)


@pytest.mark.parametrize("groups", [1, 2])
def test_turned_twice_is_as_it_lies(groups: int) -> None:
    layer = nn.ConvTranspose1d(4, 6, 3, groups=groups)
    slot = Slot(transposed=True, groups=groups)
    matrix = slot.matrix(layer)
    assert matrix.shape == (6, 4 // groups, 3)
    assert torch.equal(slot.turned(matrix), layer.weight)
    assert slot.weight_of(layer) is layer.weight
    before = layer.weight.detach().clone()
    slot.put(layer, matrix.detach().clone())
    assert torch.equal(layer.weight, before)


def test_products_of_a_slot() -> None:
    """Linear by itself; else the one that it says, which gets the weight as it lies."""
    x, matrix, bias = torch.randn(2, 3), torch.randn(4, 3), torch.randn(4)
    torch.testing.assert_close(Slot().taken(x, matrix, bias), x @ matrix.T + bias)
    told = Slot(transposed=True, product=lambda input, weight, bias: input @ weight)
    torch.testing.assert_close(told.taken(x, matrix, None), x @ matrix.T)
    with pytest.raises(TypeError, match=r"'kernel' is a matrix \(4, 3, 2\), which takes part in no linear map"):
        Slot("kernel").taken(x, torch.randn(4, 3, 2), None)


@pytest.mark.parametrize(
    ("slot", "error", "message"),
    [
        (Slot("kernels"), AttributeError, "slots: Conv2d has no Parameter 'kernels'; it has weight, bias"),
        (Slot("weight", "offset"), AttributeError, "slots: Conv2d has no Parameter 'offset'; it has weight, bias"),
        (Slot(product="conv2d"), TypeError, "the product of 'weight' must be a function, got 'conv2d'"),
        (
            Slot(product=partial(functional.conv2d, groups=2)),
            ValueError,
            "the product of 'weight' in Conv2d has groups=2, and its slot has groups=1; say it in both",
        ),
        (Slot(groups=2, product=functional.conv2d), ValueError, "has groups=1, and its slot has groups=2"),
        (Slot(product=functional.conv_transpose2d), ValueError, r"conv_transpose2d, which needs Slot\(transposed=True"),
        (Slot(transposed=True, product=functional.conv2d), ValueError, r"conv2d, which needs Slot\(transposed=False"),
    ],
)
def test_what_a_slot_says_is_checked(slot: Slot, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        slot.check(nn.Conv2d(4, 4, 3))


def test_a_slot_that_fits_passes() -> None:
    layer = nn.Conv2d(4, 4, 3, bias=False, groups=2)
    Slot(groups=2, product=partial(functional.conv2d, groups=2, stride=2)).check(layer)
    Slot(groups=2).check(layer)
    Slot("weight", "bias", product=lambda input, weight, bias: input).check(layer)
