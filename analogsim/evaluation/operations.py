"""Multiply-accumulates of a forward: how many, in which module, and how many of them on crossbars."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from analogsim.conversion.digital import to_digital
from analogsim.layers.module import AnalogModule, exactly, matrices_of
from analogsim.utils.checks import check_module
from analogsim.utils.modules import in_eval, names_of, visited
from analogsim.utils.torch_private import (
    TorchDispatchMode,
    grouped_product,
    own_parameters,
    storage_key,
    tree_leaves,
    trilinear,
)

_aten = torch.ops.aten


def _grouped(one: Tensor, other: Tensor, *rest: Any, **more: Any) -> int:
    """Each row of one factor meets one of many matrices, or each of many the columns that are its own."""
    return other.numel() * one.shape[-2] if one.ndim > other.ndim else one.numel() * other.shape[-1]


def _recurrent(input: Tensor, *rest: Any) -> int:
    """Each matrix of the layer meets each step of each sequence once."""
    weights = [tensor for tensor in tree_leaves(rest[:4]) if isinstance(tensor, Tensor) and tensor.ndim == 2]
    return sum(weight.numel() for weight in weights) * input.shape[:-1].numel()


# What torch's own table of operations does not have.
_MORE: dict[Any, Callable[..., int]] = {
    _aten.mv: lambda matrix, vector: matrix.numel(),
    _aten.addmv: lambda bias, matrix, vector, **_: matrix.numel(),
    _aten.dot: lambda one, other: one.numel(),
    _aten.vdot: lambda one, other: one.numel(),
    _aten.addbmm: lambda bias, one, other, **_: one.numel() * other.shape[-1],
    trilinear: lambda one, weight, other, *_: one.shape[0] * weight.numel(),
    _aten.mkldnn_rnn_layer: _recurrent,
    grouped_product: _grouped,
}


@cache
def _formulas() -> Mapping[Any, Callable[..., int]]:
    """Torch's own, by operation."""
    from torch.utils.flop_counter import flop_registry  # takes a third of a second to import

    return flop_registry


def _count(operation: Any, args: Any, kwargs: Any, out: Any) -> int | None:
    """Multiply-accumulates of an operation; None for one that makes no products of matrices."""
    if operation in _MORE:
        return int(_MORE[operation](*args, **kwargs))
    formula = _formulas().get(operation)
    return None if formula is None else int(formula(*args, **kwargs, out_val=out)) // 2


def _storage(tensor: Tensor) -> int | None:
    """Which memory a tensor lies in."""
    if tensor.is_nested or tensor.layout is not torch.strided:
        return None
    return storage_key(tensor)


_Shares = dict[str, float]  # of which matrices a tensor is made, as shares of its elements


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts products as they happen, below autograd.

    Args:
        model: whose modules they are counted for.
        marked: tensors to follow: products with them, and with what is made of nothing else (a cast, several joined),
            are counted by their names.
    """

    def __init__(self, model: nn.Module, marked: dict[str, Tensor] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._names = {module: names[0] for module, names in names_of(model).items()}
        self._inside: list[nn.Module] = []
        self._owners: dict[int | None, list[nn.Module]] = {}
        for module in self._names:
            for parameter in own_parameters(module).values():
                if parameter is not None:
                    self._owners.setdefault(_storage(parameter), []).append(module)
        self._marks: dict[int | None, _Shares] = {_storage(t): {name: 1.0} for name, t in (marked or {}).items()}
        self._kept: list[Tensor] = []  # so that nothing else comes to lie where they lie
        self.modules: dict[str, int] = {}
        self.marked: dict[str, float] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        operation = func.overloadpacket
        if operation not in _MORE and operation not in _formulas():
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        count = _count(operation, args, kwargs, out)
        operands = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if count is None:
            self._follow(operands, out)
        elif count:
            name = self._names[self._module(operands)]
            self.modules[name] = self.modules.get(name, 0) + count
            for matrix, share in self._shares(operation, operands).items():
                self.marked[matrix] = self.marked.get(matrix, 0.0) + share * count
        return out

    def _module(self, operands: list[Tensor]) -> nn.Module:
        """Whose product it is: of the module that holds the weight, or else of the innermost one that runs."""
        owners = [module for operand in operands for module in self._owners.get(_storage(operand), [])]
        for module in reversed(self._inside):
            if module in owners:
                return module
        return owners[0] if owners else self._inside[-1]

    def _shares(self, operation: Any, operands: list[Tensor]) -> _Shares:
        """The marked matrix among the operands of a product."""
        if operation is _aten.mkldnn_rnn_layer:  # two products in one, of inputs and of states
            return self._joined(operands[1:3])
        return next((self._marks[key] for key in map(_storage, operands[-3:]) if key in self._marks), {})

    def _joined(self, values: list[Tensor]) -> _Shares:
        """The marked matrices that several tensors are made of, as shares of all their elements."""
        total = sum(value.numel() for value in values)
        shares: _Shares = {}
        for value in values:
            for name, share in self._marks.get(_storage(value), {}).items():
                shares[name] = shares.get(name, 0.0) + share * value.numel() / max(total, 1)
        return shares

    def _follow(self, operands: list[Tensor], out: Any) -> None:
        """Mark what is made of nothing but marked tensors."""
        values = [operand for operand in operands if operand.is_floating_point()]
        if not self._marks or not values or not all(_storage(value) in self._marks for value in values):
            return
        shares = self._joined(values)
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and _storage(made) not in self._marks:
                self._marks[_storage(made)] = shares
                self._kept.append(made)

    @contextmanager
    def follow(self) -> Iterator[None]:
        """Count what happens in a block."""

        def enter(module: nn.Module) -> None:
            if module in self._names:
                self._inside.append(module)

        def leave(module: nn.Module) -> None:
            if module in self._names:
                self._inside.pop()

        with visited(enter, leave), self:
            yield


def _forward(model: nn.Module, counter: _Counter, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """One forward in eval mode, in operations that can be counted; modes and random states are as before."""
    fused = torch.backends.mha.get_fastpath_enabled()
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            in_eval(model),
            torch.no_grad(),
            torch.random.fork_rng(devices),
            torch.backends.cudnn.flags(enabled=False),  # whose recurrent layers are one operation
            torch.compiler.set_stance("force_eager"),
            sdpa_kernel(SDPBackend.MATH),
            counter.follow(),
        ):
            model(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def macs(model: nn.Module, *args: Any, **kwargs: Any) -> dict[str, int]:
    """Multiply-accumulates of one forward in eval mode, by module.

    Products of matrices: linear, convolutional and recurrent layers, attention, ``matmul`` and its like. A product with
    a Parameter counts for the module that holds it; one of two activations, as in attention, for the innermost module
    that makes it. What acts element by element, and tables that are looked up, count as 0; kernels that torch does not
    know of are not seen.

    Args:
        model: a digital network, or a twin, which is counted as its digital network.
        *args: an example input; the numbers are those of its whole batch.
        **kwargs: its arguments by name.

    Returns:
        A number for each module that makes products, in the order in which they are first made. Their sum is that of
        the network.

    Example:
        >>> import torch
        >>> from analogsim import macs
        >>> macs(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2)), torch.ones(3, 4))
        {'0': 96, '1': 48}
    """
    check_module(model, "macs: a network or a twin")
    if any(isinstance(module, AnalogModule) for module in model.modules()):
        model = to_digital(model)
    counter = _Counter(model)
    _forward(model, counter, args, kwargs)
    return counter.modules


def analog_macs(analog: nn.Module, *args: Any, **kwargs: Any) -> dict[str, int]:
    """Multiply-accumulates that run on crossbars in one forward of a twin in eval mode, by analog matrix.

    They are counted where they happen: a layer that is never asked, though converted, has none. Slices, blocks and bits
    of the periphery do not count as several. Chips, modes and random states are as before.

    Args:
        analog: the twin from `convert`; it needs no chip.
        *args: an example input; the numbers are those of its whole batch.
        **kwargs: its arguments by name.

    Returns:
        A number for each analog matrix, 0 for one without a part in this forward.

    Raises:
        ValueError: ``analog`` has no analog layer.

    Example:
        >>> import torch, analogsim
        >>> from analogsim import analog_macs
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
        >>> analog_macs(analogsim.convert(model, {"0": "pcm", "*": None}), torch.ones(3, 4))
        {'0': 96}
    """
    matrices = matrices_of(analog)
    # Copies, by which the weights of matrices are told apart that lie in one Parameter.
    laid = {matrix: matrix.analog.layout.lay(matrix.matrix, matrix.bias).detach().clone() for matrix in matrices}
    # What is read from a table is an activation, and a product with it is that of another layer.
    marked = {matrix.analog.name: held for matrix, held in laid.items() if not getattr(matrix, "stored", False)}
    counter = _Counter(analog, marked)
    with exactly(analog, laid=laid):
        _forward(analog, counter, args, kwargs)
    return {matrix.analog.name: round(counter.marked.get(matrix.analog.name, 0.0)) for matrix in matrices}
