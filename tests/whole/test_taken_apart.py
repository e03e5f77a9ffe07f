"""Layers that are pruned or parametrized after convert, on either side: noticed, and nothing is broken."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, remove_spectral_norm, remove_weight_norm, spectral_norm
from torch.nn.utils import weight_norm as older_weight_norm

import analogsim
from analogsim.errors import StaleTwinError

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")

Change = Callable[[nn.Module], object]


def pruned(layer: nn.Module) -> None:
    prune.l1_unstructured(layer, "weight", 0.5)


def replaced(layer: nn.Module) -> None:
    layer.weight = nn.Parameter(torch.randn(5, 4))


PUT_ON: dict[str, Change] = {
    "pruning": pruned,
    "pruning by structure": lambda layer: prune.ln_structured(layer, "weight", 0.5, n=2, dim=0),
    "pruning of the bias": lambda layer: prune.random_unstructured(layer, "bias", 0.5),
    "older weight norm": older_weight_norm,
    "older spectral norm": spectral_norm,
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "a parametrization": lambda layer: parametrize.register_parametrization(layer, "weight", nn.Tanh(), unsafe=True),
    "one of the bias": lambda layer: parametrize.register_parametrization(layer, "bias", nn.Tanh(), unsafe=True),
    "deleted": lambda layer: delattr(layer, "weight"),
}
TAKEN_OFF: dict[str, tuple[Change, Change]] = {
    "pruning": (pruned, lambda layer: prune.remove(layer, "weight")),
    "older weight norm": (older_weight_norm, remove_weight_norm),
    "older spectral norm": (spectral_norm, remove_spectral_norm),
    "weight norm": (parametrizations.weight_norm, lambda layer: parametrize.remove_parametrizations(layer, "weight")),
}
USES: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "training": lambda analog, x: analog.train()(x),
    "chip": lambda analog, x: analog.eval()(x),
    "program": lambda analog, x: analogsim.program(analog, seed=1),
    "drift": lambda analog, x: analogsim.drift(analog, "1d"),
    "summary": lambda analog, x: analogsim.summary(analog),
    "state dict": lambda analog, x: analog.state_dict(),
    "digital": lambda analog, x: analogsim.to_digital(analog),
    "audit": analogsim.audit,
}


def pair(prepare: Change = lambda layer: None) -> tuple[nn.Sequential, nn.Sequential]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    prepare(model[0])
    analog = analogsim.convert(model, "pcm")
    analogsim.program(analog, seed=0)
    return model, analog


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
@pytest.mark.parametrize("change", PUT_ON.values(), ids=PUT_ON.keys())
def test_what_is_put_on_the_model_is_noticed_by_the_twin(change: Change, use: Callable[..., object]) -> None:
    model, analog = pair()
    change(model[0])
    with pytest.raises(StaleTwinError, match=r"layer '0': its '(weight|bias)' was taken apart .* call .*convert again"):
        use(analog, torch.randn(3, 4))


@pytest.mark.parametrize("name", [name for name in PUT_ON if name != "deleted"])
def test_after_another_convert_all_is_well(name: str) -> None:
    model, _ = pair()
    PUT_ON[name](model[0])
    analog, x = analogsim.convert(model, analogsim.Gaussian(std=0.0)), torch.randn(3, 4)
    analogsim.program(analog)
    torch.testing.assert_close(analog.eval()(x), model.eval()(x))


@pytest.mark.parametrize("change", PUT_ON.values(), ids=PUT_ON.keys())
def test_the_twin_refuses_and_both_stay_whole(change: Change) -> None:
    model, analog = pair()
    x, keys = torch.randn(3, 4), list(model.state_dict())
    before = model(x)
    with pytest.raises(StaleTwinError, match=r"belongs to the twin and to its model.* prune or parametrize the model"):
        change(analog[0])
    assert sorted(model.state_dict()) == sorted(keys)
    assert sorted(analog.state_dict()) == sorted(keys)
    assert torch.equal(model(x), before)
    assert analog[0].weight is model[0].weight
    assert not analog[0]._forward_pre_hooks
    analog.eval()(x)


@pytest.mark.parametrize("use", ["training", "chip", "program", "summary", "digital"])
@pytest.mark.parametrize(("put_on", "take_off"), TAKEN_OFF.values(), ids=TAKEN_OFF.keys())
def test_what_is_taken_off_the_model_is_noticed_by_the_twin(put_on: Change, take_off: Change, use: str) -> None:
    model, analog = pair(put_on)
    take_off(model[0])
    with pytest.raises(StaleTwinError, match="layer '0': its 'weight' was made whole after convert"):
        USES[use](analog, torch.randn(3, 4))


@pytest.mark.parametrize("put_on", [pruned, older_weight_norm, spectral_norm])
def test_computed_weights_are_watched_in_the_twin_alone(put_on: Change) -> None:
    model, analog = pair(put_on)
    assert len(analog[0]._forward_pre_hooks) == len(model[0]._forward_pre_hooks) + 1
    assert len(analogsim.to_digital(analog)[0]._forward_pre_hooks) == len(model[0]._forward_pre_hooks)
    for copied in (copy.deepcopy(analog), pickle.loads(pickle.dumps(analog))):
        x = torch.randn(3, 4)
        torch.testing.assert_close(copied.eval()(x), analog.eval()(x))


def test_pruned_once_more_both_have_the_mask() -> None:
    model, analog = pair(pruned)
    prune.random_unstructured(model[0], "weight", 0.5)
    x = torch.randn(3, 4)
    model(x)
    exact = analogsim.to_digital(analog)
    torch.testing.assert_close(exact(x), model(x))


@pytest.mark.parametrize("side", [0, 1])
def test_a_parameter_of_another_shape_is_noticed(side: int) -> None:
    both = pair()
    replaced(both[side][0])
    with pytest.raises(analogsim.StaleChipError):
        USES["chip"](both[1], torch.randn(3, 4))
    for use in ("training", "program"):
        with pytest.raises(StaleTwinError, match=r"its weight is \(5, 4\) and was \(4, 4\) at convert"):
            USES[use](both[1], torch.randn(3, 4))


def test_layers_of_several_matrices_notice_too() -> None:
    for layer, name in ((nn.MultiheadAttention(4, 2), "in_proj_bias"), (nn.LSTM(4, 4), "weight_hh_l0")):
        analog = analogsim.convert(layer, "pcm")
        with pytest.raises(StaleTwinError, match=f"'{name}' of Analog"):
            prune.l1_unstructured(analog, name, 0.5)
        prune.l1_unstructured(layer, name, 0.5)
        x = torch.randn(3, 2, 4)
        with pytest.raises(StaleTwinError, match=f"its '{name}' was taken apart"):
            analog(x, x, x) if isinstance(layer, nn.MultiheadAttention) else analog(x)


def test_what_changes_no_layer_is_fine() -> None:
    model, analog = pair()
    model.requires_grad_(False)
    assert not analog[0].weight.requires_grad
    model[0].weight = nn.Parameter(torch.randn(4, 4))
    model[0].register_buffer("extra", torch.ones(1))
    model[0].scale = nn.Parameter(torch.ones(1))
    analog[2].other = nn.Parameter(torch.ones(1))
    analog.train()(torch.randn(3, 4))
    analogsim.summary(analog)
    model[0].bias = None
    analog(torch.randn(3, 4))
