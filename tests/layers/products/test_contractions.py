"""Calls of torch's products as sums over labelled axes: the sums give torch's answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from analogsim.layers.products.contractions import PARSERS, Contraction, contraction_of


class Seen(TorchFunctionMode):
    """Keeps the products that are taken."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Contraction | None] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in PARSERS:
            self.found.append(contraction_of(func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def t(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


CALLS: dict[str, Callable[[], Tensor]] = {
    "matmul": lambda: t(2, 3, 4) @ t(4, 5),
    "matmul of a vector": lambda: t(4) @ t(2, 4, 5),
    "matmul with a vector": lambda: t(2, 3, 4) @ t(4),
    "matmul of two vectors": lambda: t(4) @ t(4),
    "matmul that broadcasts": lambda: torch.matmul(t(2, 1, 3, 4), other=t(6, 4, 5)),
    "matmul that broadcasts both": lambda: torch.linalg.matmul(t(2, 1, 3, 4), t(1, 6, 4, 5)),
    "mm": lambda: t(3, 4).mm(t(4, 5)),
    "bmm": lambda: torch.bmm(t(2, 3, 4), mat2=t(2, 4, 5)),
    "mv": lambda: torch.mv(t(3, 4), vec=t(4)),
    "addmm": lambda: torch.addmm(t(5), t(3, 4), t(4, 5), beta=2, alpha=0.5),
    "addmm by name": lambda: torch.addmm(input=t(5), mat1=t(3, 4), mat2=t(4, 5)),
    "addmv": lambda: t(3).addmv(t(3, 4), t(4)),
    "baddbmm": lambda: torch.baddbmm(t(2, 3, 5), t(2, 3, 4), batch2=t(2, 4, 5), beta=0),
    "addbmm": lambda: torch.addbmm(t(3, 5), t(2, 3, 4), t(2, 4, 5)),
    "inner": lambda: torch.inner(t(2, 3, 4), t(5, 4)),
    "tensordot": lambda: torch.tensordot(t(2, 3, 4), t(3, 4, 5)),
    "tensordot of axes": lambda: torch.tensordot(t(2, 3, 4), t(4, 5, 2), dims=([0, -1], [2, 0])),
    "linear": lambda: functional.linear(t(2, 3, 4), t(5, 4), bias=t(5)),
    "linear of a row": lambda: functional.linear(t(2, 4), t(4)),
    "bilinear": lambda: functional.bilinear(t(2, 3), t(2, 4), t(5, 3, 4), t(5)),
    "einsum": lambda: torch.einsum("bij, kj -> bik", t(2, 3, 4), t(5, 4)),
    "einsum implicit": lambda: torch.einsum("zij,kj", t(2, 3, 4), t(5, 4)),
    "einsum of any axes": lambda: torch.einsum("...ij,...jk->k...i", t(2, 1, 3, 4), t(6, 4, 5)),
    "einsum of any axes, implicit": lambda: torch.einsum("...ij,jB", t(2, 3, 4), t(4, 5)),
    "einsum that broadcasts": lambda: torch.einsum("bij,bjk->bik", t(2, 3, 4), t(1, 4, 5)),
    "einsum of three": lambda: torch.einsum("bi,bj,kij->bk", t(2, 3), t(2, 4), t(5, 3, 4)),
}


def summed(found: Contraction) -> Tensor:
    parts: list[Any] = []
    for tensor, labels in found.operands:
        idle = [axis for axis, label in enumerate(labels) if label is None]
        parts += [tensor.squeeze(idle) if idle else tensor, [label for label in labels if label is not None]]
    return found.finished(torch.einsum(*parts, found.output))


@pytest.mark.parametrize("name", CALLS)
def test_the_sum_is_torchs_answer(name: str) -> None:
    with Seen() as seen:
        wanted = CALLS[name]()
    (found,) = seen.found
    assert found is not None
    torch.testing.assert_close(summed(found), wanted)


def test_others_are_left_alone() -> None:
    square, vector = t(4, 4), t(4)
    with Seen() as seen:
        torch.einsum("ii,j->j", square, vector)
        torch.mm(square, square, out=torch.empty_like(square))
        with pytest.raises(RuntimeError):
            torch.mm(square, vector)
        with pytest.raises(TypeError):
            torch.matmul(square)  # type: ignore[call-overload]
    assert seen.found[:2] == [None, None]  # what torch refuses follows
    assert contraction_of(torch.relu, (square,), {}) is None
