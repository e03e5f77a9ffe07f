"""What objects hold, and deep copies that carry functions over.

``copy.deepcopy`` takes a function for an atom: what it finds through its closure, its defaults or the arguments of a
``functools.partial`` stays what it was. In the copy of a network such a function would run the layers of the original.
Here functions that reach a module of the network are made anew over the copies; all others are shared, as ever.
Nothing is called to find out: objects are looked into.
"""

from __future__ import annotations

import copyreg
import dis
import functools
import logging
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
)
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from analogsim.utils.torch_private import without_compiled_call

Part = tuple[str, Any]

_NUMBERS = (type(None), bool, int, float, complex, str, bytes, range, slice, torch.Size)
_NAMES = (type(...), type(NotImplemented), property, CodeType, torch.dtype, torch.device, torch.layout)
_ATOMS = frozenset((*_NUMBERS, *_NAMES, np.ndarray))
_CLOSED = (type, ModuleType, Tensor, np.generic, logging.Logger)
_PROXIES = (weakref.ProxyType, weakref.CallableProxyType)
_CACHED = type(functools.lru_cache(maxsize=1)(lambda: None))
_BOUND_IN_C = (BuiltinFunctionType, MethodWrapperType)
_REGISTRIES = frozenset(name for name in vars(nn.Module()) if name.startswith("_") and "hook" not in name)
_PLAIN = (list, dict, set, deque)


def _of_function(function: FunctionType) -> Iterator[Part]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if cell is not None and _is_filled(cell):
            yield name, cell.cell_contents
    for at, default in enumerate(function.__defaults__ or ()):
        yield f"default {at}", default
    yield from (function.__kwdefaults__ or {}).items()
    yield from function.__dict__.items()


def _is_filled(cell: CellType) -> bool:
    try:
        return bool((cell.cell_contents, True))
    except ValueError:  # a variable that was never set, or deleted
        return False


def _behind(proxy: Any) -> Any:
    """What a weak proxy stands for; None if that is gone."""
    try:
        return proxy.__dir__.__self__
    except ReferenceError:
        return None


def _of_object(value: object) -> Iterator[Part]:
    """Attributes and slots."""
    try:
        own = object.__getattribute__(value, "__dict__")
    except AttributeError:
        own = {}
    if isinstance(own, dict):
        yield from (without_compiled_call(own) if isinstance(value, nn.Module) else own).items()
    for kind in type(value).__mro__:
        if "__slots__" not in vars(kind):
            continue
        for name, entry in vars(kind).items():
            if isinstance(entry, MemberDescriptorType):
                try:
                    yield name, entry.__get__(value)
                except AttributeError:  # an empty slot
                    continue


def _of_container(value: Any) -> Iterator[Part]:
    """What lies in a container of Python's; nothing of other objects."""
    kind = type(value)
    if issubclass(kind, functools.partial):
        yield from (("", value.func), *((str(at), entry) for at, entry in enumerate(value.args)))
        yield from value.keywords.items()
    elif issubclass(kind, dict):
        yield from ((str(key), entry) for key, entry in dict.items(value))
        yield from (("", key) for key in dict.keys(value) if type(key) not in _ATOMS)
        if issubclass(kind, defaultdict):
            yield "", value.default_factory
    elif issubclass(kind, list | tuple | set | frozenset | deque):
        yield from ((str(at), entry) for at, entry in enumerate(value))


def parts_of(value: Any) -> Iterator[Part]:
    """What an object holds, each with a name; no code of the object is run."""
    kind = type(value)
    if kind in _ATOMS or issubclass(kind, _CLOSED):
        return
    if kind is FunctionType:
        yield from _of_function(value)
    elif kind is MethodType:
        yield from (("", value.__self__), ("", value.__func__))
    elif kind in _BOUND_IN_C:
        yield "", value.__self__
    elif kind in _PROXIES:
        yield "", _behind(value)
    elif issubclass(kind, weakref.ref):
        yield "", weakref.ref.__call__(value)
    else:
        yield from _of_container(value)
        yield from _of_object(value)


class Contents:
    """All that an object holds, directly or through what it holds.

    Args:
        root: the object.
        closed: objects not to look into.
    """

    def __init__(self, root: object, closed: Iterable[object] = ()) -> None:
        self.values: dict[int, Any] = {id(root): root}
        self._holders: dict[int, list[int]] = defaultdict(list)
        self._first: dict[int, tuple[int, str]] = {}
        shut = set(map(id, closed))
        todo = deque([root])
        while todo:
            value = todo.popleft()
            for name, part in parts_of(value):
                if type(part) in _ATOMS:
                    continue
                key = id(part)
                self._holders[key].append(id(value))
                if key not in self.values and key not in shut:
                    self.values[key] = part
                    self._first[key] = id(value), name
                    todo.append(part)

    def of(self, *kinds: type) -> Iterator[Any]:
        """What is of one of these types. A weak proxy is not what it stands for."""
        return (value for value in self.values.values() if issubclass(type(value), kinds))

    def reaching(self, targets: Iterable[object]) -> set[int]:
        """The ids of what holds one of these objects, directly or through what it holds, and of themselves."""
        found = {id(target) for target in targets}
        todo = list(found)
        while todo:
            for holder in self._holders.get(todo.pop(), ()):
                if holder not in found:
                    found.add(holder)
                    todo.append(holder)
        return found

    def path_of(self, value: object, names: Mapping[nn.Module, list[str]]) -> str:
        """Where a value lies: the name of the module that holds it, and of what leads to it from there."""
        steps: list[str] = []
        key = id(value)
        while key in self._first:
            key, step = self._first[key]
            if step and step not in _REGISTRIES:
                steps.append(step)
            holder = self.values[key]
            if issubclass(type(holder), nn.Module) and holder in names:
                steps.append(names[holder][0])
                break
        return ".".join(step for step in reversed(steps) if step)


def name_in_class(kind: type, function: object) -> str | None:
    """The name under which a class finds a function; None if it is no method of it, or an overridden one."""
    name = getattr(function, "__name__", "")
    if name and getattr(kind, name, None) is function:
        return cast(str, name)
    names = {name for base in kind.__mro__ for name, entry in vars(base).items() if entry is function}
    return next((name for name in sorted(names) if getattr(kind, name, None) is function), None)


def is_own_forward(value: Any, module: nn.Module) -> bool:
    """Whether a value is the forward of a module's class, bound to the module."""
    own = getattr(type(module), "forward", None)
    if isinstance(value, functools.partial):
        return value.func is own and bool(value.args) and value.args[0] is module
    return type(value) is MethodType and value.__self__ is module and value.__func__ is own


def ends_in_own_forward(module: nn.Module) -> bool:
    """Whether a forward that was put in place of a module's own calls that, as decorators and hooks do.

    True of one that holds the bound method, and of one that gets the module and looks it up there by the name of the
    attribute that keeps it. That a wrapper only tells whom it wraps (``__wrapped__``) is not enough.
    """
    todo = [vars(module)["forward"]]
    seen: set[int] = set()
    words: set[str] = set()
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if is_own_forward(value, module):
            return True
        if isinstance(value, FunctionType):
            words.update(*(code.co_names for code in _codes(value.__code__)))
        if isinstance(value, nn.Module):
            seen.update(map(id, value.modules()))  # by which the module itself is found
        else:
            todo += [part for name, part in parts_of(value) if name != "__wrapped__"]
    kept = {name for name, value in vars(module).items() if name != "forward" and is_own_forward(value, module)}
    return id(module) in seen and bool(kept & words)


def describe(function: Any) -> str:
    """What a callable is called, for messages."""
    return getattr(function, "__qualname__", f"a {type(function).__name__}")


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code, and that of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


@functools.lru_cache(maxsize=4096)
def _global_names(code: CodeType) -> tuple[str, ...]:
    """The global variables that a function reads."""
    return tuple(
        dict.fromkeys(
            str(step.argval)
            for inner in _codes(code)
            for step in dis.get_instructions(inner)
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")
        )
    )


def _globals_of(function: FunctionType) -> Iterator[Part]:
    """The values of global variables that a function reads, and of attributes of those that are classes or files."""
    words = {word for code in _codes(function.__code__) for word in code.co_names}
    for name in _global_names(function.__code__):
        value = function.__globals__.get(name)
        yield name, value
        if isinstance(value, type | ModuleType):
            home = value.__name__ if isinstance(value, ModuleType) else value.__module__
            if not f"{home}.".startswith("torch."):
                yield from ((f"{name}.{word}", vars(value)[word]) for word in words if word in vars(value))


def global_reach(function: FunctionType, targets: Collection[nn.Module]) -> str | None:
    """The global variable by which a function reaches one of some modules; None if it does not.

    Functions of the same file that it calls are looked into as well; of classes and files what it names of them.
    """
    wanted = set(map(id, targets))
    todo, seen = [function], {id(function)}
    while todo:
        one = todo.pop()
        for name, value in _globals_of(one):
            if type(value) in _ATOMS or issubclass(type(value), _CLOSED) or id(value) in seen:
                continue
            seen.add(id(value))
            if type(value) is FunctionType and value.__globals__ is one.__globals__:
                todo.append(value)
            if wanted & Contents(value).values.keys():
                return name
    return None


class Copier:
    """Makes deep copies, as ``copy.deepcopy`` does, with functions made anew where they have to be.

    Args:
        memo: what is copied already, by id, as ``copy.deepcopy`` keeps it.
        reaching: ids of what holds a module of the network: functions among it are made anew.
        replaced: modules that get copies of other classes; their methods are those of these classes by name.
    """

    def __init__(self, memo: dict[int, Any], reaching: set[int], replaced: Mapping[nn.Module, nn.Module]) -> None:
        self._memo = memo
        self._reaching = reaching
        self._replaced = {id(old): new for old, new in replaced.items()}
        self._alive: list[Any] = []  # an id belongs to another object once its own is gone
        self._ways: dict[type, Callable[[Any], Any]] = {
            dict: self._dict,
            list: self._list,
            tuple: self._tuple,
            FunctionType: self._function,
            MethodType: self._method,
            functools.partial: self._partial,
            weakref.ref: self._reference,
            weakref.WeakMethod: self._weak_method,
            _CACHED: self._cached,
            **dict.fromkeys(_BOUND_IN_C, self._bound),
            **dict.fromkeys(_PROXIES, self._proxy),
        }

    def copy(self, value: Any) -> Any:
        """A deep copy, the same one for the same object."""
        kind = type(value)
        if kind in _ATOMS and kind is not np.ndarray:
            return value
        known = self._memo.get(id(value), self)
        if known is not self:
            return known
        way = self._ways.get(kind)
        made = way(value) if way is not None else self._object(value)
        if made is not value:
            self._memo[id(value)] = made
            self._alive.append(value)
        return made

    def _held(self, value: Any) -> Any:
        """What a function holds: copied if a module is to be reached through it, or else shared."""
        return self.copy(value) if id(value) in self._reaching else value

    def _dict(self, value: dict[Any, Any]) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        self._memo[id(value)] = made
        for key, entry in value.items():
            made[self.copy(key)] = self.copy(entry)
        return made

    def _list(self, value: list[Any]) -> list[Any]:
        made: list[Any] = []
        self._memo[id(value)] = made
        made.extend(map(self.copy, value))
        return made

    def _tuple(self, value: tuple[Any, ...]) -> tuple[Any, ...]:
        made = tuple(map(self.copy, value))
        if id(value) in self._memo:  # it holds itself, through something in it
            return cast("tuple[Any, ...]", self._memo[id(value)])
        return value if all(old is new for old, new in zip(value, made, strict=True)) else made

    def _function(self, function: FunctionType) -> FunctionType:
        if id(function) not in self._reaching:
            return function
        later = []
        cells = []
        for cell in function.__closure__ or ():
            held = cell.cell_contents if _is_filled(cell) else None
            if id(held) in self._reaching and id(cell) not in self._memo:
                self._memo[id(cell)] = CellType()
                self._alive.append(cell)
                later.append((self._memo[id(cell)], held))
            cells.append(self._memo.get(id(cell), cell))
        made = FunctionType(function.__code__, function.__globals__, function.__name__, None, tuple(cells) or None)
        self._memo[id(function)] = made  # before what it holds, which may hold it
        for cell, held in later:
            cell.cell_contents = self.copy(held)
        made.__defaults__ = function.__defaults__ and tuple(map(self._held, function.__defaults__))
        keywords = function.__kwdefaults__
        made.__kwdefaults__ = keywords and {name: self._held(entry) for name, entry in keywords.items()}
        made.__dict__.update({name: self._held(entry) for name, entry in function.__dict__.items()})
        made.__module__, made.__qualname__, made.__doc__ = function.__module__, function.__qualname__, function.__doc__
        made.__annotations__ = function.__annotations__
        return made

    def _class_function(self, owner: Any, function: Any) -> Any:
        """The function that a method of a module is in its copy."""
        new = self._replaced.get(id(owner))
        name = None if new is None else name_in_class(type(owner), function)
        return self._held(function) if name is None else getattr(type(new), name)

    def _method(self, method: MethodType) -> MethodType:
        owner = method.__self__
        return MethodType(self._class_function(owner, method.__func__), self.copy(owner))

    def _partial(self, value: functools.partial[Any]) -> Any:
        made = self._object(value)
        owner = value.args[0] if value.args else None
        function = self._class_function(owner, value.func)
        if function is not value.func and id(owner) in self._replaced:
            made.__setstate__((function, made.args, made.keywords, made.__dict__))
        return made

    def _bound(self, value: Any) -> Any:
        owner = value.__self__
        if id(owner) not in self._reaching and not isinstance(owner, _PLAIN):
            return value
        return getattr(self.copy(owner), value.__name__)

    def _reference(self, value: weakref.ref[Any]) -> weakref.ref[Any]:
        target = value()
        return value if id(target) not in self._reaching else weakref.ref(self.copy(target))

    def _weak_method(self, value: weakref.WeakMethod[Any]) -> weakref.WeakMethod[Any]:
        method = value()
        if method is None or id(method.__self__) not in self._reaching:
            return value
        return weakref.WeakMethod(self.copy(method))

    def _proxy(self, value: Any) -> Any:
        target = _behind(value)
        return value if id(target) not in self._reaching else weakref.proxy(self.copy(target))

    def _cached(self, value: Any) -> Any:
        """A function behind ``functools.lru_cache``; what it remembers is of the original's modules."""
        if id(value) not in self._reaching:
            return value
        return functools.lru_cache(**value.cache_parameters())(self.copy(value.__wrapped__))

    def _object(self, value: Any) -> Any:
        """Anything else, by the protocol of copying."""
        kind = type(value)
        if issubclass(kind, type):
            return value
        own = getattr(value, "__deepcopy__", None)
        if own is not None:
            return own(self._memo)
        reduce = copyreg.dispatch_table.get(kind)
        told = reduce(value) if reduce is not None else value.__reduce_ex__(4)
        if isinstance(told, str):
            return value
        self._alive.append(told)
        make, args, state, items, pairs = (*told, None, None, None)[:5]
        made = make(*map(self.copy, args))
        self._memo[id(value)] = made
        if state is not None:
            _put_state(made, self.copy(state))
        for item in items or ():
            made.append(self.copy(item))
        for key, entry in pairs or ():
            made[self.copy(key)] = self.copy(entry)
        return made


def _put_state(made: Any, state: Any) -> None:
    """What `pickle` does with the state of an object."""
    if hasattr(made, "__setstate__"):
        made.__setstate__(state)
        return
    slots = None
    if isinstance(state, tuple) and len(state) == 2:
        state, slots = state
    if state is not None:
        made.__dict__.update(state)
    for name, entry in (slots or {}).items():
        setattr(made, name, entry)
