"""What the code of a forward does with weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from analogsim.layers.forwards import ends_in_base, lenders, reads_own


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(4, 4), nn.Linear(4, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 4)])
        self.weight = nn.Parameter(torch.randn(4, 4))


class Read(Two):
    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, weight=self.qkv.weight, bias=self.qkv.bias)


class InAMethod(Two):
    def _inner(self, x: Tensor) -> Tensor:
        return x @ self.proj.weight.t()

    def forward(self, x: Tensor) -> Tensor:
        return self._inner(x)


class Inherited(InAMethod):
    """A forward of its base."""


class ByName(InAMethod):
    def forward(self, x: Tensor) -> Tensor:
        return InAMethod.forward(self, x)


class BySuper(InAMethod):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class Instead(InAMethod):
    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


def _beside(x: Tensor, layer: nn.Linear) -> Tensor:
    return functional.linear(x, layer.weight)


class InAFunction(Two):
    def forward(self, x: Tensor) -> Tensor:
        return _beside(x, self.qkv)


class InALoop(Two):
    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = functional.linear(x, layer.weight)
        return x


class InALambda(Two):
    def forward(self, x: Tensor) -> Tensor:
        return (lambda given: functional.linear(given, self.qkv.weight))(x)


class AsAProperty(Two):
    @property
    def turned(self) -> Tensor:
        return self.qkv.weight.t()

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.turned


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def around(*args: Any) -> Any:
        return function(*args)

    return around


class Decorated(Two):
    @wrapped
    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.qkv.weight)


class OfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.attention.in_proj_weight)


class Calls(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.qkv(x))


class Own(Two):
    def forward(self, x: Tensor) -> Tensor:
        def inner(given: Tensor) -> Tensor:
            return given @ self.weight

        return inner(x) @ self.weight


class Facts(Two):
    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.qkv.weight, Tensor) and self.qkv.weight.shape[0] == 4:
            x = x.to(self.qkv.weight.dtype)
        return self.qkv(x.to(self.proj.weight.device))


class Elsewhere(Calls):
    def tied(self) -> Tensor:
        return self.qkv.weight


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (Read, {"qkv"}),
        (InAMethod, {"proj"}),
        (Inherited, {"proj"}),
        (ByName, {"proj"}),
        (BySuper, {"proj"}),
        (Instead, set()),
        (InAFunction, {""}),
        (InALoop, {""}),
        (InALambda, {"qkv"}),
        (AsAProperty, {"qkv"}),
        (Decorated, {"qkv"}),
        (OfAttention, {"attention"}),
        (Calls, set()),
        (Own, set()),
        (Facts, set()),
        (Elsewhere, set()),
        (nn.Linear, set()),
        (nn.TransformerEncoder, set()),
        (nn.MultiheadAttention, set()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_whose_weights_are_read(kind: type[nn.Module], found: set[str]) -> None:
    assert lenders(kind) == found


class Doubled(nn.GRU):
    def forward(self, input: Any, hx: Any = None) -> Any:
        return super().forward(2 * input, hx)


class Deeper(Doubled):
    """Nothing of its own."""


class Helped(nn.GRU):
    def _run(self, input: Any) -> Any:
        return super().forward(input)

    def forward(self, input: Any, hx: Any = None) -> Any:
        return self._run(input)


class Mixin:
    def forward(self, input: Any, hx: Any = None) -> Any:
        return super().forward(input, hx)  # type: ignore[misc]


class Mixed(Mixin, nn.GRU):
    """The forward of a class that is no module."""


class Past(nn.GRU):
    def forward(self, input: Any, hx: Any = None) -> Any:
        return nn.GRU.forward(self, input, hx)


class Fresh(nn.GRU):
    def __init__(self) -> None:
        super().__init__(2, 2)

    def forward(self, input: Any, hx: Any = None) -> Any:
        return input


@pytest.mark.parametrize(
    ("kind", "ends"),
    [(Doubled, True), (Deeper, True), (Helped, True), (Mixed, True), (Past, False), (Fresh, False)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_who_ends_in_the_forward_of_the_base(kind: type[nn.Module], ends: bool) -> None:
    assert ends_in_base(kind, nn.GRU) is ends


def test_what_a_forward_reads_of_its_module() -> None:
    assert reads_own(Read) == {"qkv"}
    assert reads_own(Inherited) == {"_inner", "proj"}
    assert reads_own(Own) == {"weight"}
    assert reads_own(InALambda) == {"qkv"}
    assert reads_own(nn.Linear) == set()
