"""What products torch knows, as sums over the axes that two tensors share."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Labels = list[int | None]
"""One for each axis of a tensor; None of an axis of size 1 without a part in the product."""


@dataclass(frozen=True)
class Contraction:
    """A product: the sum over all labels that the output lacks.

    Args:
        operands: the factors, with a label for each axis.
        output: the labels of the answer's axes.
        addend: what is added to the product.
        alpha: factor on the product.
        beta: factor on the addend.
    """

    operands: tuple[tuple[Tensor, Labels], ...]
    output: list[int]
    addend: Tensor | None = None
    alpha: float = 1
    beta: float = 1

    def finished(self, product: Tensor) -> Tensor:
        """The answer, from the product."""
        product = product if self.alpha == 1 else self.alpha * product
        if self.addend is None or self.beta == 0:
            return product
        added = self.addend if self.beta == 1 else self.beta * self.addend
        return product + added.to(product.dtype)


Parser = Callable[..., "Contraction | None"]


def _matmul(input: Tensor, other: Tensor) -> Contraction | None:
    if not input.ndim or not other.ndim:
        return None
    batch, mine, theirs = _aligned(input.shape[:-2], other.shape[:-2])
    row, shared, column = range(len(batch), len(batch) + 3)
    left: Labels = [*mine, row, shared] if input.ndim > 1 else [shared]
    right: Labels = [*theirs, shared, column] if other.ndim > 1 else [shared]
    output = [*batch, *([row] if input.ndim > 1 else []), *([column] if other.ndim > 1 else [])]
    return Contraction(((input, left), (other, right)), output)


def _aligned(one: Sequence[int], other: Sequence[int]) -> tuple[list[int], Labels, Labels]:
    """Labels of axes that broadcast against each other: of the answer and of both."""
    axes = max(len(one), len(other))
    sizes = [1] * (axes - len(one)) + list(one), [1] * (axes - len(other)) + list(other)
    labels: list[Labels] = [[], []]
    for axis in range(axes):
        for side in range(2):
            idle = sizes[side][axis] == 1 and sizes[1 - side][axis] != 1
            labels[side].append(None if idle else axis)
    return list(range(axes)), labels[0][axes - len(one) :], labels[1][axes - len(other) :]


def _from_the_right(input: Tensor, other: Tensor) -> Contraction | None:
    return _matmul(other, input)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Contraction | None:
    kept = list(range(input.ndim))
    outputs = [input.ndim] * (weight.ndim - 1)
    if weight.ndim > 2 or not input.ndim:
        return None
    return Contraction(((input, [*kept]), (weight, [*outputs, kept[-1]])), [*kept[:-1], *outputs], bias)


def _added(addend: Tensor, one: Tensor, other: Tensor, *, beta: float = 1, alpha: float = 1) -> Contraction | None:
    found = _matmul(one, other)
    return None if found is None else replace(found, addend=addend, alpha=alpha, beta=beta)


def _summed(addend: Tensor, one: Tensor, other: Tensor, *, beta: float = 1, alpha: float = 1) -> Contraction | None:
    return Contraction(((one, [0, 1, 2]), (other, [0, 2, 3])), [1, 3], addend, alpha, beta)


def _inner(input: Tensor, other: Tensor) -> Contraction | None:
    if not input.ndim or not other.ndim:
        return None
    last = input.ndim - 1
    mine, theirs = list(range(last)), list(range(last + 1, last + other.ndim))
    return Contraction(((input, [*mine, last]), (other, [*theirs, last])), [*mine, *theirs])


def _tensordot(a: Tensor, b: Tensor, dims: Any = 2, out: None = None) -> Contraction | None:
    if isinstance(dims, Tensor):
        return None
    pairs = (range(a.ndim - dims, a.ndim), range(dims)) if isinstance(dims, int) else dims
    left, right = ([axis % tensor.ndim for axis in axes] for axes, tensor in zip(pairs, (a, b), strict=True))
    mine = list(range(a.ndim))
    shared = dict(zip(right, left, strict=True))
    theirs = [shared.get(axis, a.ndim + axis) for axis in range(b.ndim)]
    output = [label for label in (*mine, *theirs) if label not in left]
    return Contraction(((a, [*mine]), (b, [*theirs])), output)


def _bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Contraction | None:
    kept = list(range(input1.ndim - 1))
    one, other, out = (input1.ndim + place for place in range(3))
    return Contraction(
        ((input1, [*kept, one]), (input2, [*kept, other]), (weight, [out, one, other])), [*kept, out], bias
    )


def _einsum(equation: Any, *operands: Any) -> Contraction | None:
    tensors = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    if not isinstance(equation, str):
        return None
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    # Those of the dots come first, and count from the last.
    hidden = [tensor.ndim - len(term.replace("...", "")) for term, tensor in zip(terms, tensors, strict=True)]
    most = max(hidden) if "..." in left else 0
    if not arrow:
        once = sorted([letter for letter in set(left) - set(",.") if left.count(letter) == 1])
        right = "..." * ("..." in left) + "".join(once)
    labelled = [_labels(term, range(most - axes, most), most) for term, axes in zip(terms, hidden, strict=True)]
    return _broadcast(list(tensors), labelled, _labels(right, range(most), most))


def _labels(term: str, dots: Sequence[int], first: int) -> list[int]:
    """Those of a term of an equation: of its dots, and from ``first`` on of its letters."""
    before, found, after = term.partition("...")
    head, tail = ([first + string.ascii_letters.index(letter) for letter in part] for part in (before, after))
    return [*head, *(dots if found else ()), *tail]


def _broadcast(tensors: list[Tensor], labelled: list[list[int]], output: list[int]) -> Contraction | None:
    """With axes of size 1 left out where others are longer; None where a factor has an axis twice."""
    sizes: dict[int, int] = {}
    for tensor, labels in zip(tensors, labelled, strict=True):
        if len(set(labels)) < len(labels):
            return None
        for label, size in zip(labels, tensor.shape, strict=True):
            sizes[label] = size if size != 1 else sizes.get(label, 1)
    operands = tuple(
        (tensor, [label if size == sizes[label] else None for label, size in zip(labels, tensor.shape, strict=True)])
        for tensor, labels in zip(tensors, labelled, strict=True)
    )
    return Contraction(operands, output)


PARSERS: dict[Any, Parser] = {
    functional.linear: _linear,
    functional.bilinear: _bilinear,
    torch.matmul: _matmul,
    torch.linalg.matmul: _matmul,
    torch.mm: _matmul,
    torch.bmm: _matmul,
    torch.mv: _matmul,
    torch.addmm: _added,
    torch.addmv: _added,
    torch.baddbmm: _added,
    torch.addbmm: _summed,
    torch.inner: _inner,
    torch.einsum: _einsum,
    torch.functional.einsum: _einsum,
    torch.tensordot: _tensordot,
    torch.functional.tensordot: _tensordot,
    Tensor.matmul: _matmul,
    Tensor.__matmul__: _matmul,
    Tensor.__rmatmul__: _from_the_right,
    Tensor.mm: _matmul,
    Tensor.bmm: _matmul,
    Tensor.mv: _matmul,
    Tensor.addmm: _added,
    Tensor.addmv: _added,
    Tensor.baddbmm: _added,
    Tensor.addbmm: _summed,
    Tensor.inner: _inner,
}
"""By the functions and methods that a forward may call."""

_RENAMED = {"self": "input", "tensor": "input", "vec": "other", "mat2": "other", "vec2": "other"}


def contraction_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Contraction | None:
    """A call as a sum over shared axes; None where it is no such product, or its arguments are none."""
    parser = PARSERS.get(func)
    if parser is None or kwargs.get("out") is not None or "out_dtype" in kwargs:
        return None
    try:
        return _parsed(parser, args, kwargs)
    except (TypeError, ValueError, IndexError, KeyError, RuntimeError):
        return None  # torch says what is wrong with it


def _parsed(parser: Parser, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Contraction | None:
    if parser in (_added, _summed):
        names = ("input", "mat1", "mat2"), ("input", "mat", "vec"), ("input", "batch1", "batch2")
        factors = {name: kwargs[name] for name in ("beta", "alpha") if name in kwargs}
        known = next(group for group in names if all(name in kwargs for name in group[len(args) :]))
        return parser(*args, *(kwargs[name] for name in known[len(args) :]), **factors)
    if parser is _einsum:
        return parser(*args)
    named = {_RENAMED.get(name, name): value for name, value in kwargs.items() if name != "out"}
    return parser(*args, **named)
