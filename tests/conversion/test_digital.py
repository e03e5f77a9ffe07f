from __future__ import annotations

import pytest
import torch
from torch import nn

import analogsim
from analogsim.layers import AnalogLinear
from tests.conversion.networks import CLEAN, assert_shared, mlp


def test_to_digital_clean() -> None:
    model = mlp()
    model[3].eval()
    analog = analogsim.convert(model, "pcm")
    plain = analogsim.to_digital(analog)
    assert_shared(model, plain)
    assert [type(module) for module in plain.modules()] == [type(module) for module in model.modules()]
    assert [module.training for module in plain.modules()] == [module.training for module in model.modules()]
    assert not any("analog" in vars(module) for module in plain.modules())
    assert repr(plain) == repr(model)
    assert type(analog[0]) is AnalogLinear
    analogsim.convert(plain, "pcm")


def test_to_digital_programmed_answers_as_the_chip() -> None:
    model = mlp()
    model[3].weight.requires_grad_(False)
    analog = analogsim.convert(model, "pcm")
    with pytest.raises(analogsim.NotProgrammedError, match="to_digital"):
        analogsim.to_digital(analog, "programmed")
    analogsim.program(analog, seed=1)
    analogsim.drift(analog, "1y")
    analog.eval()
    plain = analogsim.to_digital(analog, "programmed")
    x = torch.randn(5, 4)
    assert torch.equal(plain(x), analog(x))
    assert not torch.equal(plain(x), model.eval()(x))
    assert not {id(parameter) for parameter in plain.parameters()} & {id(parameter) for parameter in model.parameters()}
    assert plain[1].running_mean is not model[1].running_mean
    assert [parameter.requires_grad for parameter in plain.parameters()] == [
        parameter.requires_grad for parameter in model.parameters()
    ]
    assert type(plain[0].weight) is nn.Parameter
    assert list(plain.state_dict()) == list(model.state_dict())
    with torch.no_grad():
        model[0].weight.add_(1)
    with pytest.raises(analogsim.StaleChipError):
        analogsim.to_digital(analog, "programmed")


def test_to_digital_of_nested_aliased_and_tied_layers() -> None:
    block = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    block[1].weight = block[0].weight
    model = nn.Sequential(block, nn.Sequential(block), nn.Linear(3, 3))
    analog = analogsim.convert(model, "gaussian")
    assert_shared(model, analogsim.to_digital(analog))
    analogsim.program(analog, seed=0)
    plain = analogsim.to_digital(analog, "programmed")
    x = torch.randn(2, 3)
    assert torch.equal(plain(x), analog.eval()(x))
    assert plain[0] is plain[1][0]
    assert plain[0][0].weight is not plain[0][1].weight
    root = analogsim.convert(nn.Linear(3, 3), "gaussian")
    analogsim.program(root)
    assert type(analogsim.to_digital(root, "programmed")) is nn.Linear


def test_to_digital_refusals() -> None:
    with pytest.raises(ValueError, match="no analog layer"):
        analogsim.to_digital(mlp())
    with pytest.raises(ValueError, match="'clen'"):
        analogsim.to_digital(analogsim.convert(mlp(), "pcm"), "clen")  # type: ignore[arg-type]


def test_pruned_weights_train_but_do_not_become_programmed_ones() -> None:
    from torch.nn.utils import prune

    model = nn.Sequential(nn.Linear(4, 4))
    prune.l1_unstructured(model[0], "weight", amount=4)
    analog = analogsim.convert(model, CLEAN["signed"])
    x = torch.randn(2, 4)
    torch.testing.assert_close(analog(x), model(x))
    analogsim.program(analog)
    torch.testing.assert_close(analog.eval()(x), model(x))
    with pytest.raises(ValueError, match="layer '0' is computed from other Parameters"):
        analogsim.to_digital(analog, "programmed")
