"""Module trees: the names in them, and a second tree over the same tensors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from analogsim.utils.torch_private import own_buffers, own_parameters, without_compiled_call

M = TypeVar("M", bound=nn.Module)


def names_of(model: nn.Module) -> dict[nn.Module, list[str]]:
    """Every module once, with all the names it goes by; the first is the one we call it."""
    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    return names


def _contents(model: nn.Module) -> Iterator[nn.Module | Tensor | MethodType]:
    """The modules, tensors and bound methods that a tree holds, also in plain lists, tuples, sets and dicts."""
    seen: set[int] = set()
    todo: list[Any] = [model]
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, nn.Module | Tensor | MethodType):
            yield value
        if isinstance(value, nn.Module):
            todo.extend(value.__dict__.values())
        elif isinstance(value, dict):
            todo.extend(value.values())
        elif isinstance(value, list | tuple | set | frozenset):
            todo.extend(value)


def copy_tree(model: M, replaced: dict[nn.Module, nn.Module], shared: Iterable[object] = ()) -> M:
    """A new module tree over the same tensors, with some modules' copies made beforehand.

    ``copy.deepcopy`` keeps ties, aliases, bound methods and lists of modules as they are. Its memo is told beforehand
    that tensors are shared, and so are the dictionaries that hold Parameters and buffers: what ``.to()`` or an
    assignment changes in one tree is so in the other. Objects in ``shared`` are not copied either.
    """
    memo: dict[int, Any] = {id(old): new for old, new in replaced.items()}
    memo |= {id(value): value for value in shared}
    for value in _contents(model):
        if isinstance(value, Tensor):
            memo[id(value)] = value
        elif isinstance(value, nn.Module):
            memo |= {id(tensors): tensors for tensors in (own_parameters(value), own_buffers(value))}
        else:
            owner, name = value.__self__, value.__name__
            # The owner's class changes, and with it the method of that name.
            if isinstance(owner, nn.Module) and owner in replaced and getattr(type(owner), name, 0) is value.__func__:
                memo[id(value)] = getattr(replaced[owner], name)
    try:
        for old, new in replaced.items():
            new.__dict__.update(copy.deepcopy(without_compiled_call(old.__dict__), memo))  # that is of the old layer
        return copy.deepcopy(model, memo)
    except (TypeError, RuntimeError, AssertionError) as error:  # the last is FSDP's
        raise TypeError(
            f"convert: cannot build a second module tree of {type(model).__name__}: {error}. Convert before wrapping "
            "the model (DistributedDataParallel, fully_shard, compile), and keep handles such as files or locks out of "
            "its modules"
        ) from error


def own_copy(model: M) -> M:
    """A deep copy with tensors of its own; ones that hang in an autograd graph, which torch refuses, are cut off."""
    memo: dict[int, Any] = {
        id(value): value.detach().clone()
        for value in _contents(model)
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return copy.deepcopy(model, memo)


@contextmanager
def visited(enter: Callable[[nn.Module], None], leave: Callable[[nn.Module], None]) -> Iterator[None]:
    """Within the block, hear of every module whose forward begins and ends."""

    def begin(module: nn.Module, args: object) -> None:
        enter(module)

    def end(module: nn.Module, args: object, output: object) -> None:
        leave(module)

    hooks = [register_module_forward_pre_hook(begin), register_module_forward_hook(end, always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
