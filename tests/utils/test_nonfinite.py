from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from analogsim.utils.nonfinite import find_source

NAN, INF = torch.nan, torch.inf


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))


def source(model: nn.Module, x: Tensor) -> str:
    return str(find_source(model, x, lambda: model(x)))


def test_the_first_layer_whose_answer_holds_some() -> None:
    model = net()
    with torch.no_grad():
        model[2][0].weight.fill_(3e38)
    assert source(model, torch.full((2, 3), 1e3)) == (
        "the first layer whose answer holds some is '2.0' (Linear); the inputs of this batch hold none"
    )
    with torch.no_grad():
        model[0].weight[0, 0] = NAN
    assert "some is '0' (Linear, whose weights hold some); the inputs" in source(model, torch.ones(2, 3))
    assert not any(module._forward_hooks for module in model.modules())


def test_inputs_that_hold_some_already() -> None:
    x = torch.ones(2, 3)
    x[1, 1] = NAN
    assert source(net(), x).endswith("is '0' (Linear); the inputs of this batch hold some already")
    assert source(net(), x + INF).endswith("hold some already")


def test_what_the_network_makes_by_itself_and_masks() -> None:
    class Root(nn.Module):
        def __init__(self, value: float) -> None:
            super().__init__()
            self.fc, self.value = nn.Linear(3, 4), value

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.fc(x)
            return y.masked_fill(torch.arange(4) == 2, self.value)

    x = torch.ones(2, 3)
    assert "'(the model itself)' (Root); the inputs" in source(Root(NAN), x)
    model = Root(-INF)
    masked = find_source(model, x, lambda: model(x))
    assert masked.name is None
    assert not masked.layer
    assert str(masked).startswith("no layer answers with any, so that the forward of Root makes them")


def test_minus_infinity_of_a_layers_own() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    nn.init.constant_(model[0].weight, -3e38)
    found = find_source(model, torch.ones(2, 3), lambda: model(torch.ones(2, 3)))
    assert found.layer
    assert found.name == "0"


def test_compiled_code_does_not_hide_it() -> None:
    torch.compiler.reset()
    model = net()
    compiled = torch.compile(model, backend="eager")
    x = torch.full((2, 3), NAN)
    compiled(x)
    assert "'0' (Linear)" in str(find_source(model, x, lambda: compiled(x)))
    torch.compiler.reset()


@pytest.mark.parametrize("fails", [True, False])
def test_hooks_are_gone_afterwards(fails: bool) -> None:
    model = net()

    def run() -> None:
        model(torch.ones(2, 3))
        if fails:
            raise KeyError

    if fails:
        with pytest.raises(KeyError):
            find_source(model, torch.ones(2, 3), run)
    else:
        find_source(model, torch.ones(2, 3), run)
    assert not any(module._forward_hooks for module in model.modules())
