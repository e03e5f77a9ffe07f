"""Analog classes by digital type: registered, derived, and announced by installed packages."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import analogsim
from analogsim.layers import AnalogLayer, AnalogLinear, AnalogModule, Slot, analog_type, register_layer, registry
from analogsim.layers.registry import analog_types


class Kernel(nn.Module):
    """A type of a package that announces an analog layer for it."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 3))

    def forward(self, input: Tensor) -> Tensor:
        return functional.linear(input, self.kernel)


class AnalogKernel(AnalogModule, Kernel):
    """Not registered by itself."""

    @classmethod
    def slots(cls, module: nn.Module) -> dict[str, Slot]:
        return {"kernel": Slot("kernel", None)}

    def forward(self, input: Tensor) -> Tensor:
        return self.draw_of("kernel")(input)


class Same(Kernel):
    """A subclass that changes nothing."""


class Other(Kernel):
    """A subclass with a forward of its own."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


class Apart(Kernel):
    """A subclass that takes the product by itself."""

    def forward(self, input: Tensor) -> Tensor:
        return input @ self.kernel.t()


class Idle(Kernel):
    """A subclass that has no use for the matrix."""

    def forward(self, input: Tensor) -> Tensor:
        return input.relu()


PATH = f"{Kernel.__module__}.Kernel"

Install = Callable[..., None]


@pytest.fixture(autouse=True)
def own_registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    yield
    for known in (analog_types, registry._subclasses, registry._failures):
        for kind in [kind for kind in known if kind.__module__ == __name__]:
            del known[kind]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Entry points as an installed package would have them: path of a type -> object, or a value that leads nowhere."""
    plugin = ModuleType("a_plugin")
    monkeypatch.setitem(sys.modules, "a_plugin", plugin)
    points: list[EntryPoint] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "analogsim.layers" else [])

    def add(name: str, found: Any, value: str | None = None) -> None:
        attribute = f"thing_{len(points)}"
        if value is None:
            setattr(plugin, attribute, found)
        points.append(EntryPoint(name, value or f"a_plugin:{attribute}", "analogsim.layers"))
        registry._offers.cache_clear()

    yield add
    registry._offers.cache_clear()


def twin(model: nn.Module) -> Any:
    return analogsim.convert(nn.Sequential(model), "pcm")[0]


def test_an_announced_class_is_an_analog_layer_like_any_other(install: Install) -> None:
    install(PATH, AnalogKernel)
    analog = twin(Kernel())
    assert type(analog) is AnalogKernel
    assert AnalogKernel.stands_for is Kernel
    assert type(twin(Kernel())) is AnalogKernel


def test_an_announced_module_registers_its_layers(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    class Loaded(EntryPoint):
        def load(self) -> ModuleType:
            register_layer(Kernel)(AnalogKernel)
            return sys.modules["a_plugin"]

    install(PATH, None, "a_plugin")
    monkeypatch.setattr(registry, "entry_points", lambda group: [Loaded(PATH, "a_plugin", group)])
    registry._offers.cache_clear()
    assert type(twin(Kernel())) is AnalogKernel


def test_subclasses_of_an_announced_type(install: Install) -> None:
    install(PATH, AnalogKernel)
    analog = twin(Same())
    assert isinstance(analog, AnalogKernel)
    assert isinstance(analog, Same)
    extended = twin(Other())
    assert isinstance(extended, AnalogKernel)
    assert isinstance(extended, Other)
    taken = twin(Apart())
    assert isinstance(taken, AnalogKernel)
    x = torch.randn(5, 3)
    analogsim.set_noise_scale(taken, 0.0)
    torch.testing.assert_close(taken(x), x @ taken.kernel.t())
    with pytest.warns(analogsim.ConversionWarning, match="a subclass of Kernel, which may compute something else"):
        analogsim.convert(nn.Sequential(Idle(), nn.Linear(4, 2)), "pcm")


def test_a_twin_of_an_announced_type_comes_back_from_a_pickle_before_anybody_converted(install: Install) -> None:
    install(PATH, AnalogKernel)
    analog = twin(Same())
    stored = pickle.dumps(analog)
    analog_types.pop(Kernel)
    registry._subclasses.pop(Same)
    assert isinstance(pickle.loads(stored), AnalogKernel)
    assert isinstance(copy.deepcopy(analog), AnalogKernel)


def test_what_is_registered_goes_before_what_is_announced(install: Install) -> None:
    install(PATH, None, "no_such_module:thing")
    install("torch.nn.modules.linear.Linear", None, "no_such_module:thing")
    register_layer(Kernel)(AnalogKernel)
    assert type(twin(Kernel())) is AnalogKernel
    assert type(twin(nn.Linear(3, 2))) is AnalogLinear


def test_entry_points_are_read_once_and_loaded_for_their_type_only(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def once(group: str) -> list[EntryPoint]:
        read.append(group)
        return [EntryPoint(PATH, "no_such_module:thing", group)]

    install(PATH, None, "no_such_module:thing")
    monkeypatch.setattr(registry, "entry_points", once)
    for _ in range(3):
        analogsim.convert(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), "pcm")
    assert read == ["analogsim.layers"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module:thing", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("a_plugin:missing", "AttributeError: .*missing"),
    ],
)
def test_a_broken_entry_point_says_which(install: Install, value: str, reason: str) -> None:
    install(PATH, None, value)
    message = f"layer of {PATH} is offered by an installed package as '{value}', which fails to load: {reason}"
    with pytest.raises(ImportError, match=message):
        twin(Kernel())
    assert type(twin(nn.Linear(3, 2))) is AnalogLinear, "the others still work"


@pytest.mark.filterwarnings("error")
def test_a_broken_package_is_of_no_account_to_a_layer_that_stays_digital(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    class Broken(EntryPoint):
        def load(self) -> ModuleType:
            tries.append(self.value)
            raise OSError("no library")

    install(PATH, None, "a_plugin")
    monkeypatch.setattr(registry, "entry_points", lambda group: [Broken(PATH, "a_plugin", group)])
    registry._offers.cache_clear()
    model = nn.ModuleDict({"own": Kernel(), "same": Same(), "fc": nn.Linear(4, 2)})
    analog: Any = analogsim.convert(model, {"own": None, "same": None, "*": "pcm"})
    assert type(analog["own"]) is Kernel
    assert type(analog["fc"]) is AnalogLinear
    assert "fails to load: OSError: no library" in str(analogsim.summary(analog))
    assert analog_type(model["own"]) is None
    for _ in range(2):
        with pytest.raises(ImportError, match=f"layer of {PATH} is offered .* fails to load: .*; mapped to None the"):
            analogsim.convert(model, {"same": None, "*": "pcm"})
    assert len(tries) == 1, "loading may take long"
    with pytest.warns(analogsim.ConversionWarning, match="fails to load: OSError: no library"):
        analogsim.convert(model, {"fc": "pcm"})


class Around(Kernel):
    """Hands the weight of the layer in it on by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 4)


def test_a_layer_within_one_that_cannot_be_loaded_is_not_gone_past(install: Install) -> None:
    install(PATH, None, "no_such_module:thing")
    with pytest.raises(ImportError, match="no_such_module"):
        analogsim.convert(nn.Sequential(Around()), {"0": None, "*": "pcm"})
    with pytest.raises(ValueError, match="nothing in Sequential can run analog"):
        analogsim.convert(nn.Sequential(Around()), {"0*": None})


@pytest.mark.parametrize("thing", [3, ModuleType("empty")], ids=["number", "module"])
def test_what_registers_nothing_is_refused(install: Install, thing: Any) -> None:
    install(PATH, thing)
    with pytest.raises(TypeError, match=rf"'a_plugin:thing_0' is .* of {PATH}, and registers none.*_layer\(Kernel\)"):
        twin(Kernel())


def test_a_class_of_another_kind_is_refused(install: Install) -> None:
    install(PATH, AnalogLinear)
    with pytest.raises(TypeError, match="register_layer: AnalogLinear must subclass AnalogLayer and Kernel"):
        twin(Kernel())


def test_two_packages_with_one_type(install: Install) -> None:
    install(PATH, AnalogKernel)
    install(PATH, AnalogLinear)
    with pytest.raises(ValueError, match=f"several installed packages .* {PATH}: a_plugin:thing_0, a_plugin:thing_1"):
        twin(Kernel())


def test_two_packages_with_one_type_of_which_one_is_imported(install: Install) -> None:
    register_layer(Kernel)(AnalogKernel)
    install(PATH, AnalogKernel)
    install(PATH, AnalogLinear)
    with pytest.raises(ValueError, match=f"several installed packages .* {PATH}: a_plugin:thing_0, a_plugin:thing_1"):
        twin(Kernel())
    assert type(analogsim.convert(nn.Sequential(Kernel(), nn.Linear(4, 2)), {"0": None, "1": "pcm"})[0]) is Kernel


def test_one_package_found_twice_is_one(install: Install) -> None:
    install(PATH, AnalogKernel)
    install(PATH, None, "a_plugin:thing_0")
    assert type(twin(Kernel())) is AnalogKernel


def test_a_plugin_that_registers_itself_on_import(install: Install) -> None:
    register_layer(Kernel)(AnalogKernel)
    install(PATH, AnalogKernel)
    assert type(twin(Kernel())) is AnalogKernel


@pytest.mark.parametrize(("path", "value"), list(registry._FOREIGN.items()), ids=lambda text: text.rpartition(".")[2])
def test_foreign_types_we_know_are_offers_too(path: str, value: str) -> None:
    """They know the type by the path where it is defined."""
    package, _, name = path.rpartition(".")
    kind = getattr(pytest.importorskip(package), name)
    assert list(registry._offers()[path]) == [value]
    assert f"{kind.__module__}.{kind.__qualname__}" == path
    found = registry._class_for(kind)
    assert found is not None
    assert found.stands_for is kind


def test_illegal_registrations() -> None:
    with pytest.raises(TypeError, match="AnalogLinear must subclass AnalogLayer and Conv2d"):
        register_layer(nn.Conv2d)(AnalogLinear)
    register_layer(Kernel)(AnalogKernel)
    with pytest.raises(ValueError, match="AnalogKernel stands for another type already; subclass it"):
        register_layer(nn.Module)(AnalogKernel)

    class Second(AnalogLayer, Kernel):
        pass

    with pytest.raises(ValueError, match="Kernel already becomes AnalogKernel"):
        register_layer(Kernel)(Second)


def test_a_replaced_forward_has_no_analog_class() -> None:
    layer = nn.Linear(3, 2)
    assert analog_type(layer) is AnalogLinear
    layer.forward = lambda input: input  # type: ignore[method-assign]
    assert analog_type(layer) is None


def test_the_group() -> None:
    assert registry.GROUP == "analogsim.layers"


class Named(nn.Linear):
    """Nothing of its own but the name."""


def test_a_subclass_becomes_what_its_base_becomes() -> None:
    model = nn.Sequential(Named(5, 4), nn.Linear(4, 2))
    analog = analogsim.convert(model, {"0": "pcm", "*": None})
    assert isinstance(analog[0], AnalogLinear)
    assert isinstance(analog[0], Named)
    assert repr(analog[0]) == "AnalogNamed(in_features=5, out_features=4, bias=True, device=pcm, no chip)"
    assert type(analogsim.to_digital(analog)[0]) is Named
