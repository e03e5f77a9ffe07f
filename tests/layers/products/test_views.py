"""Views of a weight followed symbolically: against torch's own, on a tensor of the numbers of its elements."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from analogsim.layers.products.views import RULES, View, follow, merged, places

SHAPE = (6, 4, 5)

CHAINS: dict[str, Callable[[Tensor], Any]] = {
    "T": lambda w: w[0].T,
    "mT": lambda w: w.mT,
    "t": lambda w: w[:, 1].t(),
    "transpose": lambda w: w.transpose(0, -1),
    "transpose by name": lambda w: torch.transpose(w, dim0=1, dim1=2),
    "swapaxes": lambda w: w.swapaxes(0, 1),
    "permute": lambda w: w.permute(2, 0, 1),
    "permute a list": lambda w: torch.permute(w, (1, -1, 0)),
    "permute by name": lambda w: w.permute(dims=(1, 2, 0)),
    "movedim": lambda w: w.movedim(0, 2),
    "movedim several": lambda w: torch.movedim(w, (0, 1), (-1, 0)),
    "reshape": lambda w: w.reshape(24, 5),
    "reshape across": lambda w: w.transpose(0, 1).reshape(4, 30),
    "view": lambda w: w.view(2, 3, -1),
    "view_as": lambda w: w.view_as(torch.zeros(120)),
    "flatten": lambda w: w.flatten(1),
    "unflatten": lambda w: w.unflatten(0, (2, 3)),
    "compound": lambda w: w.permute(0, 2, 1).reshape(6, 20).t(),
    "compound narrowed": lambda w: w.permute(0, 2, 1).reshape(6, 20)[:, 4:12],
    "compound narrowed within": lambda w: w.permute(0, 2, 1).reshape(6, 20)[:, 5:7],
    "compound selected": lambda w: w.permute(0, 2, 1).reshape(6, 20)[:, 7],
    "squeeze": lambda w: w[:, :1].squeeze(1),
    "squeeze all": lambda w: w[:1, :1].squeeze(),
    "squeeze nothing": lambda w: w.squeeze(0),
    "unsqueeze": lambda w: w.unsqueeze(-1),
    "expand": lambda w: w[0].expand(3, -1, -1),
    "expand within": lambda w: w[:, :1].expand(-1, 7, -1),
    "select": lambda w: w.select(1, -2),
    "narrow": lambda w: w.narrow(0, 2, 3),
    "narrow from the end": lambda w: torch.narrow(w, 0, -2, 2),
    "chunk": lambda w: w.chunk(3, 0)[1],
    "chunk the last": lambda w: w.chunk(4)[-1],
    "split": lambda w: w.split([1, 4], dim=2)[1],
    "split evenly": lambda w: torch.split(w, 4)[1],
    "tensor_split": lambda w: w.tensor_split(4)[1],
    "unbind": lambda w: w.unbind()[2],
    "unbind by name": lambda w: torch.unbind(w, dim=-1)[3],
    "index": lambda w: w[2],
    "negative index": lambda w: w[-1, :, -2],
    "index by a scalar": lambda w: w[torch.tensor(3)],
    "slice": lambda w: w[1:5:2, ..., 3:],
    "ellipsis": lambda w: w[..., 1],
    "none": lambda w: w[:, None, 2],
    "mixed": lambda w: w[None, 3, ..., None, 1:],
    "casts": lambda w: w.to(torch.float32).contiguous().double().clone(),
    "detached": lambda w: w.detach().T,
    "data": lambda w: w.data[1:],
    "heads": lambda w: w.view(2, 3, 4, 5).transpose(1, 2).flatten(0, 1),
}


class Follower(TorchFunctionMode):
    """Follows one weight."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.known: list[tuple[Tensor, View | None]] = [(weight, View.of(weight.shape))]

    def of(self, tensor: object) -> View | None:
        return next((view for known, view in self.known if known is tensor), None)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        view = self.of(args[0]) if args else None
        if view is not None:
            self.known += follow(func, view, args, kwargs or {}, result) or []
        return result


def elements(view: View) -> list[int]:
    return [view.offset + sum(way) for way in product(*map(places, view.axes))]


@pytest.mark.filterwarnings("ignore:The use of `x.T`")
@pytest.mark.parametrize("chain", CHAINS)
def test_what_is_followed_is_what_torch_does(chain: str) -> None:
    weight = torch.arange(120.0, dtype=torch.float64).view(SHAPE)
    with Follower(weight) as follower:
        result = CHAINS[chain](weight)
    view = follower.of(result)
    assert view is not None
    assert view.shape == tuple(result.shape)
    assert elements(view) == result.flatten().tolist()
    assert view.reach == (min(elements(view)), max(elements(view)))
    assert view.cut == (chain in ("detached", "data"))


LOST: dict[str, Callable[[Tensor], Any]] = {
    "sum": lambda w: w.sum(0),
    "a list": lambda w: w[[0, 2]],
    "a mask": lambda w: w[torch.tensor([True] * 6)],
    "rounded": lambda w: w.to(torch.int8),
    "bits": lambda w: w.view(torch.float32),
    "no nest of loops": lambda w: w.permute(0, 2, 1).reshape(6, 20)[:, 3:6],
    "steps across": lambda w: w.permute(0, 2, 1).reshape(6, 20)[:, ::3],
    "cut anew across": lambda w: w.transpose(0, 1).reshape(3, 40),
}


@pytest.mark.parametrize("chain", LOST)
def test_other_numbers_are_not_followed(chain: str) -> None:
    weight = torch.arange(120.0, dtype=torch.float64).view(SHAPE)
    with Follower(weight) as follower:
        result = LOST[chain](weight)
    assert follower.of(result) is None


def test_loops_are_merged() -> None:
    assert merged([(2, 12), (1, 7), (3, 4), (4, 1)]) == ((24, 1),)
    assert merged([(2, 1), (3, 2)]) == ((2, 1), (3, 2))
    assert places(((2, 10), (3, 0))) == [0, 0, 0, 10, 10, 10]
    assert View.of((2, 1, 3)).reshaped((3, 2)) == View((((3, 2),), ((2, 1),)))
    assert View.of((2, 3)).reshaped((2, 2)) is None


def test_the_functions_have_one_rule_each() -> None:
    assert RULES[torch.Tensor.view] is not RULES[torch.Tensor.reshape]
    assert RULES[torch.t] is RULES[torch.Tensor.t]


def test_attributes_are_known_as_compiled_code_has_them() -> None:
    for attribute, compiled in {"T": "numpy_T", "mT": "mT", "mH": "mH"}.items():
        assert RULES[getattr(torch.ops.aten, compiled)] is RULES[getattr(Tensor, attribute).__get__]
    assert RULES[torch.ops.aten.matrix_H] is RULES[Tensor.H.__get__]
