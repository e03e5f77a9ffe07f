"""What the code of a type's forward does with weights, read from the code itself."""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import CodeType, FunctionType
from typing import Any, TypeVar, cast

from torch import nn

F = TypeVar("F", bound=Callable[..., Any])

# Weights of layers by the names that torch gives them.
_WEIGHTS = {"weight", "in_proj_weight"}

_ATTRIBUTES = {"LOAD_ATTR", "LOAD_METHOD"}

# What is asked of a weight without computing with it.
_FACTS = {"data_ptr", "device", "dim", "dtype", "is_cuda", "ndim", "numel", "requires_grad", "shape", "size"}


def _cached(function: F) -> F:
    """The same, which remembers its answers. Checkers do not take types of modules for hashable."""
    return cast(F, functools.cache(function))


@_cached
def lenders(kind: type[nn.Module]) -> frozenset[str]:
    """The modules whose weights the forward of a type reads: ``qkv`` of ``self.qkv.weight``; empty for any other way.

    Followed are the methods that it calls, and functions of the module where the type is defined. What hides behind
    ``getattr`` with a name that is computed, or in functions elsewhere, is not found.
    """
    return frozenset(name for code, own in _reached(kind) for name in _read_weights(code, own))


@_cached
def reads_own(kind: type[nn.Module]) -> frozenset[str]:
    """The attributes of the module itself that the forward of a type reads; followed as by `lenders`."""
    return frozenset(
        str(step.argval)
        for code, own in _reached(kind)
        for before, step in pairwise(_steps(code))
        if step.opname in _ATTRIBUTES and own and _loaded(before) == own
    )


@_cached
def ends_in_base(kind: type[nn.Module], base: type[nn.Module]) -> bool:
    """Whether the forward of a subclass calls that of its base by ``super().forward``."""
    below = kind.__mro__[: kind.__mro__.index(base)]
    theirs = {code for owner in below for value in vars(owner).values() for code, _ in _codes_of(value, True)}
    return any({"super", "forward"} <= set(code.co_names) for code, _ in _reached(kind) if code in theirs)


def _reached(kind: type[nn.Module]) -> Iterator[tuple[CodeType, str]]:
    """The code that a forward runs through, and what the module is called in it; empty in functions beside the type."""
    beside = vars(inspect.getmodule(kind) or kind)
    seen: set[CodeType] = set()
    todo = [found for value in _definitions(kind, "forward")[:1] for found in _codes_of(value, True)]
    while todo:
        code, own = todo.pop()
        if code in seen:
            continue
        seen.add(code)
        yield code, own
        for name in code.co_names:
            # By ``super()``, or by the name of a base, a method calls what it stands in front of.
            last = None if "super" in code.co_names or name == code.co_name else 1
            todo += [found for value in _definitions(kind, name)[:last] for found in _codes_of(value, True)]
            function = beside.get(name)
            if isinstance(function, FunctionType) and function.__module__ == kind.__module__:
                todo += _codes_of(function, False)


def _definitions(kind: type[nn.Module], name: str) -> list[Any]:
    """What the classes of a type, but for torch's own, call by a name; the first is what the type itself finds."""
    owners = [owner for owner in kind.__mro__ if not owner.__module__.startswith("torch.")]
    return [vars(owner)[name] for owner in owners if name in vars(owner)]


def _codes_of(value: Any, method: bool) -> Iterator[tuple[CodeType, str]]:
    """The code of a method, function or property and of the functions in it, and the name of its first argument."""
    if isinstance(value, property):
        value = value.fget
    function = inspect.unwrap(getattr(value, "__func__", value))
    if not isinstance(function, FunctionType):
        return
    own = function.__code__.co_varnames[0] if method and function.__code__.co_argcount else ""
    todo = [function.__code__]
    while todo:
        code = todo.pop()
        yield code, own
        todo += [inner for inner in code.co_consts if isinstance(inner, CodeType)]


def _steps(code: CodeType) -> list[dis.Instruction]:
    return [step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "EXTENDED_ARG")]


def _read_weights(code: CodeType, own: str) -> Iterator[str]:
    """The modules, but for the one itself, whose weights code takes, and not only their sizes or types."""
    steps = _steps(code)
    for place, step in enumerate(steps[1:], start=1):
        if step.opname not in _ATTRIBUTES or step.argval not in _WEIGHTS:
            continue
        lender, holder, after = steps[place - 1], steps[place - 2], steps[place + 1]  # code ends in a return
        asked = any(before.argval == "isinstance" for before in steps[max(place - 4, 0) : place])
        if asked or after.argval in _FACTS or (own and _loaded(lender) == own):
            continue
        yield lender.argval if lender.opname in _ATTRIBUTES and own and _loaded(holder) == own else ""


def _loaded(step: dis.Instruction) -> str | None:
    """The variable that a step leaves on top; None of one that is not about variables."""
    if not step.opname.startswith(("LOAD_FAST", "LOAD_DEREF")):
        return None
    return cast(str, step.argval[-1] if isinstance(step.argval, tuple) else step.argval)
