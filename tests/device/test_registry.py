import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

import analogsim
from analogsim import (
    DeviceModel,
    Drift,
    Effect,
    Gaussian,
    as_device_model,
    available_devices,
    param,
    register,
)
from analogsim.device import registry
from analogsim.devices import pcm

pytestmark = pytest.mark.usefixtures("own_registry")


@pytest.fixture
def install(monkeypatch):
    """Entry points as an installed package would have them: name -> object, or a value that leads nowhere."""
    plugin = ModuleType("a_plugin")
    monkeypatch.setitem(sys.modules, "a_plugin", plugin)
    points = []
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "analogsim.devices" else [])

    def add(name, found, value=None):
        attribute = f"thing_{len(points)}"
        if value is None:
            setattr(plugin, attribute, found)
        points.append(EntryPoint(name, value or f"a_plugin:{attribute}", "analogsim.devices"))

    return add


@dataclass(frozen=True)
class Offset(Effect):
    shift: float = param(0.1, "µS", ge=0)
    kind: str = param("a-b", "1", choices=("a-b", "a b", "a+b", "(a)"))

    def program(self, g, cells, noise):
        return g + self.shift


# Names


def test_built_in_names():
    assert {"drift", "gaussian", "pcm", "quantization", "read-noise", "stuck-at"} <= set(available_devices())
    assert list(available_devices()) == sorted(available_devices())


@pytest.mark.parametrize("name", ["drift", "gaussian", "pcm", "quantization", "read-noise", "stuck-at"])
def test_every_name_works_without_parameters(name):
    model = as_device_model(name)
    assert isinstance(model, DeviceModel)
    assert model.name == name
    assert as_device_model(f"{name}()").effects == model.effects


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("quantisation", "quantization"),
        ("gausian", "gaussian"),
        ("stuck_at", "stuck-at"),
        ("stuckat", "stuck-at"),
        ("PCM", "pcm"),
        ("Gaussian", "gaussian"),
        ("readnoise", "read-noise"),
    ],
)
def test_an_unknown_name_gives_the_nearest_one(name, near):
    with pytest.raises(ValueError, match=f"unknown name '{name}'; did you mean '{near}'\\? Known: drift, gaussian"):
        as_device_model(name)


def test_an_unknown_name_with_nothing_near_lists_the_known():
    with pytest.raises(ValueError, match=r"unknown name 'zzzzzz'\. Known: drift, gaussian"):
        as_device_model("zzzzzz")


@pytest.mark.parametrize(
    "name", ["Two", "two_percent", "2nd", "-two", "two-", "two--percent", "two percent", "", "two+"]
)
def test_a_malformed_name_is_refused(name):
    with pytest.raises(ValueError, match="register: a name is lower case with dashes"):
        register(name)


@pytest.mark.parametrize("name", ["two", "two-percent", "wan2022", "reram-2022", "pcm-64core", "lambda", "none"])
def test_every_name_that_registers_can_be_written(name):
    register(name)(Offset)
    assert as_device_model(name).effects == (Offset(),)
    assert as_device_model(f"{name}(shift=2)+gaussian").effects == (Offset(2.0), Gaussian())


def test_a_name_is_given_once():
    register("offset")(Offset)
    register("offset")(Offset)  # the same object again: an import by another way
    with pytest.raises(ValueError, match=r"the name 'offset' is taken by <class .*Offset'>; choose another one"):
        register("offset")(Gaussian)
    with pytest.raises(ValueError, match="the name 'pcm' is taken"):
        register("pcm")(Offset)


def test_register_needs_a_name_and_something_to_call():
    with pytest.raises(TypeError, match=r'register: give a name, as in @register\("two-percent"\), got <class'):
        register(Offset)
    with pytest.raises(TypeError, match="register: 'model' must be an effect class or a function, got DeviceModel"):
        register("model")(DeviceModel((Gaussian(),)))


def test_register_returns_what_it_registers():
    assert register("offset")(Offset) is Offset


def test_a_function_may_be_registered():
    @register("two-percent")
    def two_percent(*, std=0.02):
        return DeviceModel((Gaussian(std),), name="two-percent")

    assert as_device_model("two-percent") == two_percent()
    assert as_device_model("two-percent(std=0.03)") == two_percent(std=0.03)
    assert "two-percent" in available_devices()


# Installed packages


def test_an_entry_point_is_a_device_like_any_other(install):
    install("offset", Offset)
    assert "offset" in available_devices()
    assert as_device_model("offset(shift=3)").effects == (Offset(3.0),)
    assert registry.factory("offset") is Offset


def test_entry_points_are_looked_up_on_a_miss_only(install, monkeypatch):
    install("pcm", None, "no_such_module:thing")
    assert as_device_model("pcm") == pcm()
    monkeypatch.setattr(registry, "entry_points", None)
    assert as_device_model("gaussian+drift").effects == (Gaussian(), Drift())


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module:thing", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("a_plugin:missing", "AttributeError: .*missing"),
    ],
)
def test_a_broken_entry_point_says_which(install, value, reason):
    install("wrecked", None, value)
    with pytest.raises(ImportError, match=f"'wrecked' is offered by .* as '{value}', which fails to load: {reason}"):
        as_device_model("wrecked")
    assert "wrecked" in available_devices()
    assert as_device_model("pcm") == pcm(), "the others still work"


def test_an_entry_point_that_is_no_factory(install):
    install("thing", 3)
    with pytest.raises(TypeError, match="register: 'thing' must be an effect class or a function, got 3"):
        as_device_model("thing")


def test_an_entry_point_with_a_malformed_name(install):
    install("Bad_Name", Offset)
    with pytest.raises(ValueError, match=r"a name is lower case with dashes, .* got 'Bad_Name'"):
        as_device_model("Bad_Name")


def test_two_packages_with_one_name(install):
    install("offset", Offset)
    install("offset", Gaussian)
    with pytest.raises(ValueError, match="several installed packages offer the name 'offset': a_plugin:thing_0, a_pl"):
        as_device_model("offset")


def test_one_package_found_twice_is_one(install):
    install("offset", Offset)
    install("offset", None, "a_plugin:thing_0")
    assert as_device_model("offset").effects == (Offset(),)


def test_a_plugin_that_registers_itself_on_import(install):
    register("offset")(Offset)
    install("offset", Offset)
    assert as_device_model("offset").effects == (Offset(),)


def test_an_unknown_name_may_be_near_an_installed_one(install):
    install("memtransistor", Offset)
    with pytest.raises(ValueError, match="did you mean 'memtransistor'"):
        as_device_model("memtransister")


def test_the_public_door():
    assert analogsim.as_device_model is as_device_model
    assert registry.GROUP == "analogsim.devices"
