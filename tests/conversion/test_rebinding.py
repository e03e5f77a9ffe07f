"""Functions in a network that hold modules of it: the twin's are over the twin's, or convert says why it cannot be."""

from __future__ import annotations

import functools
import types
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import analogsim
from analogsim import ConversionWarning, Gaussian
from analogsim.layers import AnalogLinear


class Net(nn.Module):
    """What it answers is up to a function that is hung on it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.out = nn.Linear(4, 3)

    def features(self, x: Tensor) -> Tensor:
        return self.fc(x).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.run(x))


class Call:
    """An object that is called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


class Slotted:
    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)


@dataclass
class Registry:
    table: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Frozen:
    layer: nn.Module


class Pair(NamedTuple):
    layer: nn.Module
    name: str


def apply(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x)


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def lazily(self: Net, x: Tensor, layer: nn.Module | None = None) -> Tensor:
    assert layer is not None
    return layer(x)


KINDS: dict[str, Callable[[Net], Callable[[Tensor], Tensor]]] = {}


def kind(make: Callable[[Net], Callable[[Tensor], Tensor]]) -> Callable[[Net], Callable[[Tensor], Tensor]]:
    KINDS[make.__name__] = make
    return make


@kind
def closure_over_self(net: Net) -> Callable[[Tensor], Tensor]:
    return lambda x: net.fc(x)


@kind
def closure_over_a_layer(net: Net) -> Callable[[Tensor], Tensor]:
    fc = net.fc
    return lambda x: fc(x)


@kind
def closure_over_a_bound_method(net: Net) -> Callable[[Tensor], Tensor]:
    forward = net.fc.forward
    return lambda x: forward(x)


@kind
def bound_method(net: Net) -> Callable[[Tensor], Tensor]:
    return net.features


@kind
def call_method(net: Net) -> Callable[[Tensor], Tensor]:
    return net.fc.__call__


@kind
def default_argument(net: Net) -> Callable[[Tensor], Tensor]:
    return lambda x, layer=net.fc: layer(x)


@kind
def keyword_default(net: Net) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor, *, layer: nn.Module = net.fc) -> Tensor:
        return layer(x)

    return run


@kind
def partial_argument(net: Net) -> Callable[[Tensor], Tensor]:
    return functools.partial(apply, net.fc)


@kind
def partial_keyword(net: Net) -> Callable[[Tensor], Tensor]:
    return functools.partial(lambda x, layer: layer(x), layer=net.fc)


@kind
def partial_of_a_class_function(net: Net) -> Callable[[Tensor], Tensor]:
    return functools.partial(nn.Linear.forward, net.fc)


@kind
def partial_of_a_method(net: Net) -> Callable[[Tensor], Tensor]:
    return functools.partial(net.fc.forward)


@kind
def wrapped_method(net: Net) -> Callable[[Tensor], Tensor]:
    return decorated(net.features)


@kind
def wrapped_twice(net: Net) -> Callable[[Tensor], Tensor]:
    return decorated(decorated(net.fc.forward))


@kind
def wrapped_and_called_by_it(net: Net) -> Callable[[Tensor], Tensor]:
    @functools.wraps(net.features)
    def run(x: Tensor) -> Tensor:
        return run.__wrapped__(x)

    return run


@kind
def function_attribute(net: Net) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        return run.layer(x)  # type: ignore[attr-defined]

    run.layer = net.fc  # type: ignore[attr-defined]
    return run


@kind
def autocast(net: Net) -> Callable[[Tensor], Tensor]:
    return torch.autocast("cpu", torch.bfloat16, enabled=False)(net.features)


@kind
def grad_mode(net: Net) -> Callable[[Tensor], Tensor]:
    return torch.enable_grad()(net.fc.forward)


@kind
def own_method_type(net: Net) -> Callable[[Tensor], Tensor]:
    return types.MethodType(lambda self, x: self.fc(x), net)


@kind
def method_with_a_closure(net: Net) -> Callable[[Tensor], Tensor]:
    fc = net.fc
    return types.MethodType(lambda self, x: fc(x), net)


@kind
def nested_functions(net: Net) -> Callable[[Tensor], Tensor]:
    def inner(x: Tensor) -> Tensor:
        return net.fc(x)

    def outer(x: Tensor) -> Tensor:
        return inner(x)

    return lambda x: outer(x)


@kind
def recursive_function(net: Net) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor, depth: int = 2) -> Tensor:
        return run(x, depth - 1) if depth else net.fc(x)

    return run


@kind
def list_in_a_closure(net: Net) -> Callable[[Tensor], Tensor]:
    layers = [net.fc, torch.relu]
    return lambda x: layers[1](layers[0](x))


@kind
def dict_in_a_closure(net: Net) -> Callable[[Tensor], Tensor]:
    layers = OrderedDict(fc=net.fc)
    return lambda x: layers["fc"](x)


@kind
def default_dict(net: Net) -> Callable[[Tensor], Tensor]:
    layers: defaultdict[str, nn.Module] = defaultdict(lambda: net.fc)
    return lambda x: layers["any"](x)


@kind
def tuple_in_a_closure(net: Net) -> Callable[[Tensor], Tensor]:
    layers = (1, (net.fc,))
    return lambda x: layers[1][0](x)


@kind
def named_tuple(net: Net) -> Callable[[Tensor], Tensor]:
    pair = Pair(net.fc, "fc")
    return lambda x: pair.layer(x)


@kind
def dataclass_in_a_closure(net: Net) -> Callable[[Tensor], Tensor]:
    registry = Registry({"fc": net.fc})
    return lambda x: registry.table["fc"](x)


@kind
def frozen_dataclass(net: Net) -> Callable[[Tensor], Tensor]:
    frozen = Frozen(net.fc)
    return lambda x: frozen.layer(x)


@kind
def object_that_is_called(net: Net) -> Callable[[Tensor], Tensor]:
    return Call(net.fc)


@kind
def object_that_calls_a_closure(net: Net) -> Callable[[Tensor], Tensor]:
    return Call(lambda x: net.fc(x))


@kind
def object_with_slots(net: Net) -> Callable[[Tensor], Tensor]:
    return Slotted(lambda x: net.fc(x))


@kind
def method_of_an_object(net: Net) -> Callable[[Tensor], Tensor]:
    return Call(net.fc).__call__


@kind
def weak_reference(net: Net) -> Callable[[Tensor], Tensor]:
    reference = weakref.ref(net.fc)
    return lambda x: reference()(x)  # type: ignore[misc]


@kind
def weak_proxy(net: Net) -> Callable[[Tensor], Tensor]:
    proxy = weakref.proxy(net)
    return lambda x: proxy.fc(x)


@kind
def weak_method(net: Net) -> Callable[[Tensor], Tensor]:
    reference = weakref.WeakMethod(net.fc.forward)
    return lambda x: reference()(x)  # type: ignore[misc]


@kind
def cached_choice(net: Net) -> Callable[[Tensor], Tensor]:
    choose = functools.cache(lambda name: getattr(net, name))
    choose("fc")
    return lambda x: choose("fc")(x)


@kind
def builtin_method(net: Net) -> Callable[[Tensor], Tensor]:
    choose = {"fc": net.fc}.__getitem__
    return lambda x: choose("fc")(x)


@kind
def bound_builtin_of_a_dict(net: Net) -> Callable[[Tensor], Tensor]:
    choose = {"fc": net.fc}.get
    return lambda x: choose("fc")(x)  # type: ignore[misc]


@kind
def compiled_function(net: Net) -> Callable[[Tensor], Tensor]:
    return torch.compile(net.features, backend="eager")


SLOW = {"compiled_function", "compiled"}  # the compiler takes seconds to load
ALL_KINDS = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in KINDS]


def make(name: str) -> Net:
    net = Net()
    net.run = KINDS[name](net)
    return net


@pytest.mark.parametrize("name", ALL_KINDS)
def test_the_twin_runs_its_own_layers(name: str) -> None:
    torch.manual_seed(0)
    net, x = make(name), torch.randn(5, 4)
    clean = net(x)
    analog = analogsim.convert(net, {"fc": Gaussian(std=2.0), "*": None})
    assert type(analog.fc) is AnalogLinear
    assert (analog(x) - clean).abs().max() > 0.1
    assert torch.equal(net(x), clean)  # the model's own are as they were
    audit = analogsim.audit(analog, x)
    audit.check()
    assert audit.rows[0].verdict == "carries"
    assert not audit.rows[0].readers
    assert torch.equal(analogsim.to_digital(analog)(x), clean)


@pytest.mark.parametrize("name", ALL_KINDS)
def test_of_the_network_too(name: str) -> None:
    """The whole network's forward is replaced by one that ends in its own, or in nothing but a layer."""
    torch.manual_seed(0)
    net, x = Net(), torch.randn(5, 4)
    net.forward = KINDS[name](net)
    clean = net(x)
    analog = analogsim.convert(net, {"fc": Gaussian(std=2.0), "*": None})
    assert (analog(x) - clean).abs().max() > 0.1
    assert torch.equal(net(x), clean)
    assert analogsim.audit(analog, x).passed


ON_A_LAYER: dict[str, Callable[[nn.Linear], Callable[..., Tensor]]] = {
    "itself": lambda layer: layer.forward,
    "autocast": lambda layer: torch.autocast("cpu", torch.bfloat16, enabled=False)(layer.forward),
    "no grad": lambda layer: torch.no_grad()(layer.forward),
    "decorated": lambda layer: decorated(layer.forward),
    "lambda": lambda layer: (lambda own: lambda x: 2 * own(x))(layer.forward),
    "partial": lambda layer: functools.partial(layer.forward),
    "partial of the class's": lambda layer: functools.partial(nn.Linear.forward, layer),
    "object": lambda layer: Call(layer.forward),
    "default": lambda layer: lambda x, own=layer.forward: own(x),
    "compiled": lambda layer: torch.compile(layer.forward, backend="eager"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in ON_A_LAYER]
)
def test_a_layer_whose_new_forward_ends_in_its_own_is_analog(name: str) -> None:
    make = ON_A_LAYER[name]
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 3)), torch.randn(5, 4)
    model[0].forward = make(model[0])
    clean = model(x)
    analog = analogsim.convert(model, Gaussian(std=2.0))
    assert type(analog[0]) is AnalogLinear
    assert (analog(x) - clean).abs().max() > 0.1
    analogsim.audit(analog, x).check()
    exact = analogsim.convert(model, Gaussian(std=0.0))
    torch.testing.assert_close(exact(x), clean)
    plain = analogsim.to_digital(analog)
    assert type(plain[0]) is nn.Linear
    assert torch.equal(plain(x), clean)


BYPASSES: dict[str, Callable[[nn.Linear], Callable[..., Tensor]]] = {
    "product": lambda layer: lambda x: functional.linear(x, layer.weight, layer.bias),
    "method": lambda layer: types.MethodType(lambda self, x: x @ self.weight.t(), layer),
    "class's": lambda layer: types.MethodType(lambda self, x: nn.Linear.forward(self, x), layer),
    "told only": lambda layer: functools.wraps(layer.forward)(lambda x: x @ layer.weight.t()),
    "in C": lambda layer: layer.weight.matmul,
    "script": lambda layer: torch.jit.trace(layer.forward, torch.ones(4)),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("make", BYPASSES.values(), ids=BYPASSES.keys())
def test_a_layer_whose_new_forward_takes_the_product_by_itself_is_refused(
    make: Callable[[nn.Linear], Callable[..., Tensor]],
) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    object.__setattr__(model[0], "forward", make(model[0]))
    with pytest.raises(TypeError, match=r"convert: the forward of '0' was replaced by .*"):
        analogsim.convert(model, "pcm")


def test_a_replaced_forward_can_be_meant() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].forward = BYPASSES["product"](model[0])
    analog = analogsim.convert(model, {"0": None, "*": "pcm"})
    assert [row.analog for row in analogsim.summary(analog).rows] == [False, True]


def test_a_forward_that_keeps_the_old_one_without_calling_it_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    layer = model[0]
    layer.kept = layer.forward  # to put it back some day
    layer.forward = types.MethodType(lambda self, x: x @ self.weight.t(), layer)
    with pytest.raises(TypeError, match="does not end in that of Linear"):
        analogsim.convert(model, "pcm")
    layer.forward = types.MethodType(lambda self, x: self.kept(x) + 1, layer)
    torch.testing.assert_close(analogsim.convert(model, Gaussian(std=0.0))(torch.ones(1, 4)), model(torch.ones(1, 4)))


# --- hooks ------------------------------------------------------------------------------------------------------------


def test_hooks_that_close_over_layers_run_those_of_the_twin() -> None:
    torch.manual_seed(0)
    net = Net()
    net.run = functional.relu
    fc = net.fc
    net.out.register_forward_pre_hook(lambda module, args: (fc(args[0]),))
    x = torch.randn(5, 4)
    clean = net(x)
    analog = analogsim.convert(net, {"fc": Gaussian(std=2.0), "*": None})
    assert (analog(x) - clean).abs().max() > 0.1
    assert analogsim.audit(analog, x).passed


def test_what_functions_hold_besides_modules_is_shared() -> None:
    seen: list[float] = []
    count = 0

    def run(x: Tensor) -> Tensor:
        nonlocal count
        count += 1
        seen.append(float(x.sum()))
        return net.fc(x)

    net = Net()
    net.run = run
    analog = analogsim.convert(net, "gaussian")
    analog(torch.ones(1, 4))
    assert (seen, count) == ([4.0], 1)
    assert analog.run is not net.run
    plain = Net()
    plain.run = functional.relu
    plain.log = seen.append
    assert analogsim.convert(plain, "gaussian").run is functional.relu


def test_functions_that_share_a_variable_still_do() -> None:
    net = Net()
    layer = net.fc

    def swap() -> None:
        nonlocal layer
        layer = nn.Identity()

    net.run, net.swap = (lambda x: layer(x)), swap
    analog = analogsim.convert(net, Gaussian(std=0.0))
    analog.swap()
    x = torch.ones(1, 4)
    with pytest.warns(ConversionWarning, match="training of Net: analog layers without a part .*: 'fc'"):
        answer = analog(x)
    torch.testing.assert_close(answer, analog.out(x))
    torch.testing.assert_close(net(x), net.out(net.fc(x)))


def test_hooks_of_accelerate() -> None:
    hooks = pytest.importorskip("accelerate.hooks")
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 2))), torch.randn(5, 4)
    for module in model.modules():
        hooks.add_hook_to_module(module, hooks.ModelHook())
    clean = model(x)
    analog = analogsim.convert(model, Gaussian(std=2.0))
    assert (analog(x) - clean).abs().max() > 0.1
    audit = analogsim.audit(analog, x)
    assert [row.verdict for row in audit.rows] == ["carries", "carries"]
    assert audit.passed
    assert torch.equal(model(x), clean)


# --- what a copy cannot follow ----------------------------------------------------------------------------------------

the_network: Any = None


def by_a_global(x: Tensor) -> Tensor:
    return the_network.fc(x)


def through_another(x: Tensor) -> Tensor:
    return by_a_global(x)


@pytest.fixture
def network() -> Iterator[Net]:
    global the_network
    the_network = Net()
    yield the_network
    the_network = None


GLOBALS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "function": lambda: by_a_global,
    "lambda": lambda: lambda x: the_network.fc(x),
    "nested": lambda: lambda x: torch.stack([the_network.fc(part) for part in x]),
    "through another": lambda: through_another,
    "object": lambda: Call(by_a_global),
    "partial": lambda: functools.partial(lambda y, x: the_network.fc(x), 1),
}


@pytest.mark.parametrize("make", GLOBALS.values(), ids=GLOBALS.keys())
def test_functions_that_find_the_network_by_a_global_are_refused(
    network: Net, make: Callable[[], Callable[[Tensor], Tensor]]
) -> None:
    network.run = make()
    with pytest.raises(TypeError, match=r"'run.*' .*reaches the network by the global variable .*put it on after"):
        analogsim.convert(network, "pcm")


def test_names_of_attributes_are_no_global_variables(network: Net) -> None:
    network.run = lambda x: types.SimpleNamespace(the_network=x).the_network
    analogsim.convert(network, "pcm")


def test_a_class_that_reaches_the_network_past_its_instance_is_refused(network: Net) -> None:
    class ByGlobal(Net):
        def forward(self, x: Tensor) -> Tensor:
            return self.helped(x)

        def helped(self, x: Tensor) -> Tensor:
            return the_network.fc(x)

    network.__class__ = ByGlobal
    with pytest.raises(TypeError, match=r"ByGlobal.helped of the model itself reaches .* 'the_network'"):
        analogsim.convert(network, "pcm")
    layer = nn.Linear(4, 4)

    class ByClosure(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            return layer(x)

    with pytest.raises(TypeError, match=r"ByClosure.forward of '0' reaches the network by the variable 'layer'"):
        analogsim.convert(nn.Sequential(ByClosure()), "pcm")


class Wrapping:
    """Decorates a method, as an object that holds it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __get__(self, owner: object, kind: type) -> Any:
        return functools.partial(self.function, owner)


class Home:
    """A class that keeps the network, as a singleton does."""

    network: Any = None


somewhere = types.ModuleType("somewhere")


class Past(Net):
    """Finds its layer on its class."""

    known: Any = None

    def forward(self, x: Tensor) -> Tensor:
        return self.known["fc"](x)


class ByProperty(Net):
    @property
    def layer(self) -> Any:
        return the_network.fc

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class ByCachedProperty(Net):
    @functools.cached_property
    def layer(self) -> Any:
        return the_network.fc

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class ByGetattr(Net):
    def __getattr__(self, name: str) -> Any:
        return the_network.fc if name == "layer" else super().__getattr__(name)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class ByCall(Net):
    def __call__(self, x: Tensor) -> Tensor:
        return the_network.fc(x)


class ByWrapping(Net):
    @Wrapping
    def forward(self, x: Tensor) -> Tensor:
        return the_network.fc(x)


class ByPartialMethod(Net):
    def run(self, much: int, x: Tensor) -> Tensor:
        return much * the_network.fc(x)

    forward = functools.partialmethod(run, 2)


class ByAnotherClass(Net):
    def forward(self, x: Tensor) -> Tensor:
        return Home.network.fc(x)


class ByAFile(Net):
    def forward(self, x: Tensor) -> Tensor:
        return somewhere.network.fc(x)


@pytest.mark.parametrize(
    "kind",
    [ByProperty, ByCachedProperty, ByGetattr, ByCall, ByWrapping, ByPartialMethod, ByAnotherClass, ByAFile, Past],
)
def test_each_way_of_a_class_past_its_instance_is_refused(
    network: Net, kind: type[Net], monkeypatch: pytest.MonkeyPatch
) -> None:
    network.__class__ = kind
    monkeypatch.setattr(Home, "network", network)
    monkeypatch.setitem(vars(somewhere), "network", network)
    monkeypatch.setattr(Past, "known", {"fc": network.fc})
    with pytest.raises(TypeError, match=rf"{kind.__name__}.* of the model itself reaches the network by the variable"):
        analogsim.convert(network, "pcm")


the_activation, the_dropout = nn.ReLU(), nn.Dropout()


def test_a_shared_module_without_layers_and_modes_may_be_a_global() -> None:
    class Sharing(Net):
        def __init__(self, shared: nn.Module) -> None:
            super().__init__()
            self.shared = shared

    class Active(Sharing):
        def forward(self, x: Tensor) -> Tensor:
            return self.out(the_activation(self.fc(x)))

    class Dropping(Sharing):
        def forward(self, x: Tensor) -> Tensor:
            return the_dropout(self.fc(x))

    x = torch.randn(3, 4)
    model = Active(the_activation)
    model.run = model.out
    analog = analogsim.convert(model, Gaussian(std=2.0))
    assert (analog(x) - model(x)).abs().max() > 0.1
    with pytest.raises(TypeError, match="'the_dropout'"):  # which follows the mode of the model
        analogsim.convert(Dropping(the_dropout), "pcm")


def test_a_forward_that_finds_the_old_one_through_the_network_is_analog() -> None:
    model = Net()
    model.fc.old = model.fc.forward
    model.fc.forward = lambda x: 2 * model.fc.old(x)
    model.run = lambda x: model.fc(x)
    x = torch.randn(3, 4)
    clean = model(x)
    analog = analogsim.convert(model, Gaussian(std=2.0))
    assert (analog(x) - clean).abs().max() > 0.1
    assert torch.equal(analogsim.to_digital(analog)(x), clean)


def test_convert_runs_no_function_of_the_network() -> None:
    def never(*args: object, **kwargs: object) -> Any:
        raise AssertionError

    model = nn.Sequential(nn.Linear(2, 2))
    model.run = lambda: never(model)
    model.other = Call(never)
    model.register_forward_hook(never)
    forward = model.forward
    model.forward = lambda x: never(forward, x)
    analogsim.convert(model, "pcm")
