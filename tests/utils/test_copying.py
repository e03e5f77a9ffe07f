from __future__ import annotations

import copy
import functools
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from analogsim.utils.copying import (
    Contents,
    Copier,
    describe,
    ends_in_own_forward,
    global_reach,
    is_own_forward,
    name_in_class,
    parts_of,
)


@dataclass
class Record:
    one: Any
    many: list[Any] = field(default_factory=list)


class Slots:
    __slots__ = ("empty", "held")

    def __init__(self, held: Any) -> None:
        self.held = held


class Loud:
    """Runs no code of its own while it is looked into."""

    def __init__(self, held: Any) -> None:
        self.__dict__["held"] = held

    @property
    def trap(self) -> Any:
        raise AssertionError

    def __getattr__(self, name: str) -> Any:
        raise AssertionError

    def __iter__(self) -> Any:
        raise AssertionError

    def __call__(self) -> Any:
        raise AssertionError


def closing_over(value: Any) -> Callable[[], Any]:
    return lambda: value


HOLDERS: dict[str, Callable[[Any], Any]] = {
    "list": lambda it: [1, it],
    "tuple": lambda it: (it,),
    "set": lambda it: {it},
    "frozenset": lambda it: frozenset([it]),
    "deque": lambda it: deque([it]),
    "dict": lambda it: {"key": it},
    "key": lambda it: {it: "value"},
    "ordered": lambda it: OrderedDict(key=it),
    "factory": lambda it: defaultdict(closing_over(it)),
    "object": Record,
    "namespace": lambda it: types.SimpleNamespace(it=it),
    "slots": Slots,
    "quiet": Loud,
    "closure": closing_over,
    "default": lambda it: lambda value=it: value,
    "keyword": lambda it: eval("lambda *, value=it: value", {"it": it}),
    "partial": lambda it: functools.partial(print, it),
    "partial keyword": lambda it: functools.partial(print, end=it),
    "method": lambda it: it.forward,
    "method of an object": lambda it: Record(it).__eq__,
    "builtin": lambda it: {"key": it}.get,
    "reference": weakref.ref,
    "proxy": weakref.proxy,
    "cached": lambda it: functools.lru_cache(closing_over(it)),
    "deep": lambda it: [{"a": (Record([closing_over(it)]),)}],
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS.keys())
def test_what_holds_a_module_reaches_it(hold: Callable[[Any], Any]) -> None:
    layer = nn.Linear(2, 2)
    root = hold(layer)
    contents = Contents(root)
    assert any(module is layer for module in contents.of(nn.Module))
    assert id(root) in contents.reaching([layer])
    assert id(layer) in contents.reaching([layer])
    assert id(root) not in Contents(root).reaching([nn.Linear(2, 2)])


def test_what_is_closed_is_not_looked_into() -> None:
    layer = nn.Linear(2, 2)
    shut = Record(layer)
    assert not list(Contents([shut], closed=[shut]).of(nn.Module))
    for value in (3, "text", b"", None, torch.ones(2), np.ones(2), nn.Linear, torch, np.float64(1)):
        assert not list(parts_of(value))


def test_a_path_begins_at_the_module_that_holds_it() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU()))
    hidden = nn.Linear(3, 3)
    model[1].store = Record({"heads": [hidden]})
    names = {module: [name] for name, module in model.named_modules()}
    assert Contents(model).path_of(hidden, names) == "1.store.one.heads.0"
    assert Contents(model).path_of(model[0].weight, names) == "0.weight"


# --- copies -----------------------------------------------------------------------------------------------------------


def copied(value: Any, target: nn.Module, new: nn.Module) -> Any:
    """A copy in which one module has another in its place."""
    return Copier({id(target): new}, Contents(value).reaching([target]), {target: new}).copy(value)


@pytest.mark.parametrize("name", [name for name in HOLDERS if name not in ("quiet", "proxy", "method of an object")])
def test_a_copy_holds_the_module_of_the_copy(name: str) -> None:
    old, new = nn.Linear(2, 2), nn.Linear(2, 2)
    value = HOLDERS[name](old)
    made = copied(value, old, new)
    assert made is not value
    assert type(made) is type(value)
    inside = list(Contents(made).of(nn.Module))
    assert any(module is new for module in inside)
    assert not any(module is old for module in inside)


PLAIN: dict[str, Any] = {
    "nested": {"a": [1, (2.0, {"b"})], "c": deque([3], maxlen=4), "d": defaultdict(list, e=[5])},
    "record": Record(OrderedDict(a=1), [Record(2)]),
    "array": [np.arange(3), torch.Size((2, 3)), torch.float16, slice(1, 2), ...],
    "bytes": bytearray(b"ab"),
}


@pytest.mark.parametrize("value", PLAIN.values(), ids=PLAIN.keys())
def test_copies_are_those_of_deepcopy(value: Any) -> None:
    made = Copier({}, set(), {}).copy(value)
    assert made is not value
    assert repr(made) == repr(copy.deepcopy(value))
    mine, theirs = Contents(made).values.keys(), Contents(value).values.keys()
    shared = [key for key in mine & theirs if isinstance(Contents(made).values[key], list | dict | deque | Record)]
    assert not shared


def test_one_object_has_one_copy() -> None:
    inner = [1]
    loop: list[Any] = [inner, {"again": inner}]
    loop.append(loop)
    loop.append((loop,))
    made = Copier({}, set(), {}).copy(loop)
    assert made[0] is made[1]["again"] is not inner
    assert made[2] is made
    assert made[3][0] is made
    both = Copier({}, set(), {})
    assert both.copy(inner) is both.copy(inner)


def test_functions_without_modules_are_shared() -> None:
    copier = Copier({}, set(), {})
    value = closing_over([1])
    assert copier.copy(value) is value
    assert copier.copy({"f": torch.relu, "g": len})["f"] is torch.relu
    reference = weakref.ref(nn.Linear(1, 1))
    assert copier.copy(reference) is reference


def test_a_function_keeps_what_is_its_own() -> None:
    old, new = nn.Linear(2, 2), nn.Linear(2, 2)
    shared: list[int] = []

    def run(x: int, y: int = 2, *, z: Any = old) -> Any:
        """Doc."""
        shared.append(x)
        return x, y, z, old

    run.tag = "tag"  # type: ignore[attr-defined]
    made = copied(run, old, new)
    assert made(1) == (1, 2, new, new)
    assert run(1) == (1, 2, old, old)
    assert shared == [1, 1]
    assert (made.__name__, made.__doc__, made.tag, made.__module__) == ("run", "Doc.", "tag", __name__)
    assert made.__annotations__ == run.__annotations__


def test_slots_and_states_are_kept() -> None:
    class Stateful:
        def __init__(self) -> None:
            self.value = [1]

        def __getstate__(self) -> dict[str, Any]:
            return {"value": self.value, "copied": True}

        def __setstate__(self, state: dict[str, Any]) -> None:
            self.__dict__.update(state)

    copier = Copier({}, set(), {})
    assert copier.copy(Stateful()).copied
    slots = Slots([1])
    made = copier.copy(slots)
    assert made.held == [1]
    assert made.held is not slots.held
    assert not hasattr(made, "empty")


# --- methods and forwards ---------------------------------------------------------------------------------------------


def test_names_of_methods() -> None:
    class Odd(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return input

    assert name_in_class(nn.Linear, nn.Linear.forward) == "forward"
    assert name_in_class(Odd, nn.Linear.forward) is None
    assert name_in_class(Odd, Odd.forward) == "forward"
    assert getattr(nn.Linear, str(name_in_class(nn.Linear, nn.Linear.__call__))) is nn.Linear.__call__
    assert name_in_class(nn.Linear, print) is None


def test_own_forwards() -> None:
    layer, other = nn.Linear(2, 2), nn.Linear(2, 2)
    assert is_own_forward(layer.forward, layer)
    assert is_own_forward(functools.partial(nn.Linear.forward, layer), layer)
    assert not is_own_forward(other.forward, layer)
    assert not is_own_forward(nn.Linear.forward, layer)
    assert not is_own_forward(functools.partial(nn.Linear.forward), layer)
    layer.forward = closing_over(other.forward)
    assert not ends_in_own_forward(layer)
    own = nn.Linear.forward.__get__(layer)
    layer.forward = closing_over([{"own": own}])
    assert ends_in_own_forward(layer)
    layer.forward = functools.wraps(own)(lambda x: x)
    assert not ends_in_own_forward(layer)


def test_descriptions() -> None:
    assert describe(nn.Linear.forward) == "Linear.forward"
    assert describe(functools.partial(print)) == "a partial"


# --- global variables -------------------------------------------------------------------------------------------------

the_layer = nn.Linear(2, 2)
the_layers = {"first": [the_layer]}
unrelated = nn.Linear(2, 2)


def direct(x: Tensor) -> Tensor:
    return the_layer(x)


def in_a_container(x: Tensor) -> Tensor:
    return the_layers["first"][0](x)


def by_another(x: Tensor) -> Tensor:
    return [direct(part) for part in x][0]  # noqa: RUF015


def around(x: Tensor) -> Tensor:
    return around(x) if x is None else unrelated(x)


def attribute(x: Any) -> Any:
    return x.the_layer


def test_global_variables() -> None:
    found = {f.__name__: global_reach(f, [the_layer]) for f in (direct, in_a_container, by_another, around, attribute)}
    assert found == {
        "direct": "the_layer",
        "in_a_container": "the_layers",
        "by_another": "the_layer",
        "around": None,
        "attribute": None,
    }
