"""Draws, and codes of input converters, that are made again in backward instead of kept until then."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from analogsim.errors import OperationError
from analogsim.utils.tensors import stamp_of
from analogsim.utils.torch_private import (
    SavedTensorsHooks,
    saved_tensors_hooks_in_force,
    transforms_are_active,
    version_of,
)


def can_seed() -> bool:
    """Whether a draw can come from a seed of its own: not in compiled code, nor under torch.func.

    Nothing else may decide it: checkpointing makes the forward again in another mode of gradients, and must meet the
    same numbers.
    """
    return not torch.compiler.is_compiling() and not transforms_are_active()


def fresh_seed() -> int:
    """A seed from torch's global generator of the CPU."""
    return int(torch.randint(2**62, (), device="cpu"))


class Recipe:
    """How to make a draw again.

    Args:
        make: makes its tensors, the same numbers each time.
        clean: what it is made of, which must not be written into until backward.
        title: of the layer, for messages.
    """

    def __init__(self, make: Callable[[], Sequence[Tensor]], clean: Sequence[Tensor], title: str) -> None:
        self._make = make
        self._clean = clean
        self._title = title
        self._stamp = stamp_of(*clean)
        self._made: list[weakref.ref[Tensor]] = []

    def __call__(self, index: int, dtype: torch.dtype) -> Tensor:
        """One of the tensors, made anew unless another part of backward still has it."""
        made = self._made[index]() if self._made else None
        if made is None:
            if stamp_of(*self._clean) != self._stamp:
                raise OperationError(
                    f"set_recompute: the weight of layer {self._title!r} changed between forward and backward, and its "
                    "draw cannot be made again; call backward before optimizer.step(), or set_recompute(analog, False)"
                )
            with torch.no_grad():
                tensors = self._make()
            self._made = [weakref.ref(tensor) for tensor in tensors]
            made = tensors[index]
        return made.to(dtype)


@dataclass(frozen=True)
class _Other:
    """A tensor that autograd keeps as ever. With hooks it leaves it to them to notice who writes into it."""

    kept: Tensor
    version: int

    def tensor(self) -> Tensor:
        if version_of(self.kept) != self.version:
            raise OperationError(
                "a tensor that backward needs was written into after an analog layer used it; write into a copy"
            )
        return self.kept


@dataclass(frozen=True)
class _Passed:
    """What those keep of a tensor who were asked before us: gradient checkpointing, a move to the CPU."""

    kept: Any
    unpack: Callable[[Any], Tensor]

    def tensor(self) -> Tensor:
        return self.unpack(self.kept)


@dataclass(frozen=True)
class _Kept:
    """What autograd keeps instead of a tensor that lies in a draw."""

    recipe: Recipe
    index: int
    dtype: torch.dtype
    size: torch.Size
    stride: tuple[int, ...]
    offset: int | torch.SymInt

    def tensor(self) -> Tensor:
        return self.recipe(self.index, self.dtype).as_strided(self.size, self.stride, self.offset)


@dataclass(frozen=True)
class _Derived:
    """What autograd keeps instead of a tensor that is made of another, or of a view of it."""

    make: Callable[[Tensor], Tensor]
    source: _Other | _Passed
    size: torch.Size
    stride: tuple[int, ...]
    offset: int | torch.SymInt

    def tensor(self) -> Tensor:
        with torch.no_grad():
            made = self.make(self.source.tensor())
        return made.as_strided(self.size, self.stride, self.offset)


def _other(tensor: Tensor, others: SavedTensorsHooks | None) -> _Other | _Passed:
    """What autograd keeps of a tensor that it keeps as ever, or as those wish who were asked before us."""
    return _Other(tensor, version_of(tensor)) if others is None else _Passed(others[0](tensor), others[1])


@contextmanager
def keeping_source(made: Tensor, source: Tensor, make: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within the block, autograd keeps in place of a tensor, and of views of it, the one that it is made of.

    Args:
        made: as the block takes it.
        source: what it is made of, kept by something else anyway.
        make: makes it, laid out in memory as ``made`` is.
    """
    place, others = made.untyped_storage().data_ptr(), saved_tensors_hooks_in_force(True)

    def pack(tensor: Tensor) -> _Derived | _Passed | _Other:
        if tensor.untyped_storage().data_ptr() != place or tensor.dtype is not made.dtype:
            return _other(tensor, others)
        return _Derived(make, _other(source, others), tensor.size(), tensor.stride(), tensor.storage_offset())

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor()):
        yield


@contextmanager
def keeping(recipe: Recipe, tensors: Sequence[Tensor]) -> Iterator[None]:
    """Within the block, autograd keeps a recipe in place of its tensors and of views of them.

    Args:
        recipe: makes them.
        tensors: as the block takes them; of another dtype than the recipe's if they were cast.
    """
    places = {tensor.untyped_storage().data_ptr(): (index, tensor.dtype) for index, tensor in enumerate(tensors)}

    others = saved_tensors_hooks_in_force(True)

    def pack(tensor: Tensor) -> _Kept | _Passed | _Other:
        index, dtype = places.get(tensor.untyped_storage().data_ptr(), (None, None))
        if index is None or dtype is not tensor.dtype:
            return _other(tensor, others)
        return _Kept(recipe, index, tensor.dtype, tensor.size(), tensor.stride(), tensor.storage_offset())

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor()):
        yield
