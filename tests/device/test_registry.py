import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from types import ModuleType

import numpy as np
import pytest

import analogsim
from analogsim import (
    DeviceModel,
    Drift,
    Effect,
    Gaussian,
    Mapping,
    Quantization,
    StuckAt,
    as_device_model,
    available_devices,
    param,
    register,
)
from analogsim.device import registry
from analogsim.devices import pcm

BUILT_IN = "analogsim.devices."


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """The built-in names alone; what a test registers is gone after it."""
    built_in = {name: made for name, made in registry.factories.items() if made.__module__.startswith(BUILT_IN)}
    monkeypatch.setattr(registry, "factories", built_in)


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


def test_what_a_name_makes_must_be_a_device():
    register("nothing")(lambda: None)
    with pytest.raises(TypeError, match="device: 'nothing' must make an Effect or a DeviceModel, it made None"):
        as_device_model("nothing")


# Text


@pytest.mark.parametrize(
    ("text", "effects"),
    [
        ("gaussian(std=0.05)", (Gaussian(0.05),)),
        (" gaussian ( std = 0.05 , law = 'proportional' ) ", (Gaussian(0.05, "proportional"),)),
        ('gaussian(std=1e-3, distribution="uniform")', (Gaussian(1e-3, distribution="uniform"),)),
        ("gaussian(std=0.05,)", (Gaussian(0.05),)),
        ("quantization(levels=16)+stuck-at(p_off=0.09)", (Quantization(16), StuckAt(p_off=0.09))),
        ("quantization(stochastic=True) + drift", (Quantization(stochastic=True), Drift())),
        ("drift+drift(nu=0)", (Drift(), Drift(nu=0.0))),
        ("offset(kind='a-b')", (Offset(kind="a-b"),)),
        ("offset(kind='a b')+offset(kind='a+b')", (Offset(kind="a b"), Offset(kind="a+b"))),
        ("offset(kind='(a)')", (Offset(kind="(a)"),)),
        ("offset(shift=(2))", (Offset(shift=2.0),)),
    ],
)
def test_text(text, effects):
    register("offset")(Offset)
    model = as_device_model(text)
    assert model.effects == effects
    assert model.name == text.replace(" ", "")


def test_text_with_a_device_model_keeps_its_range_and_mapping():
    model = as_device_model("pcm(g_max=40) + stuck-at")
    assert model == pcm(g_max=40).replace(effects=(*pcm().effects, StuckAt()), name="pcm(g_max=40)+stuck-at")


@pytest.mark.parametrize(
    "text",
    ["", " ", "+", "pcm+", "+pcm", "pcm++drift", "pcm drift", "pcm,drift", "pcm(", "pcm)", "pcm()()", "3", "pcm-", "ä"],
)
def test_text_that_cannot_be_read(text):
    with pytest.raises(ValueError, match=r"device: (cannot read|unknown name)"):
        as_device_model(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gaussian(0.05)", r"parameters in 'gaussian\(0.05\)' need their names, such as std=0.05"),
        ("gaussian(*x)", "need their names"),
        ("gaussian(sd=1)", "'gaussian' has no parameter 'sd'; did you mean 'std'\\? It has std, law, distribution"),
        ("gaussian(zzz=1)", r"'gaussian' has no parameter 'zzz'\. It has std, law, distribution"),
        ("pcm(std=1)", r"'pcm' has no parameter 'std'\. It has g_max"),
        ("gaussian(std=0.1, std=0.2)", "name each parameter in .* once"),
        ("gaussian(**{'std': 1})", "name each parameter in .* once"),
        ("gaussian(law=constant)", "value of law in .* must be a number, True, False or text in quotes, got constant"),
        ("gaussian(std=nan)", "value of std in .* must be a number, .* got nan"),
        ("gaussian(std={[]: 1})", "value of std in .* must be a number"),
        ("gaussian(std=__import__('os'))", "value of std in .* must be a number"),
        ("gaussian(std=)", r"cannot read the parameters \(std=\)"),
        ("gaussian(std=-1)", "Gaussian: std must be >= 0, got -1"),
        ("gaussian(law='no-law')", "Gaussian: law must be one of constant, .*, got 'no-law'"),
        ("pcm(g_max=-1)", r"need 0 <= g_min < g_max in µS, got g_min=0.0, g_max=-1.0"),
        ("pcm(g_max=30)+pcm", r"the parts of 'pcm\(g_max=30\)\+pcm' have different conductance ranges or mappings"),
    ],
)
def test_text_with_wrong_parameters(text, message):
    with pytest.raises(ValueError, match=message):
        as_device_model(text)


def test_a_value_of_the_wrong_type_in_text():
    with pytest.raises(TypeError, match="Gaussian: std must be a number, got 'a'"):
        as_device_model("gaussian(std='a')")


def test_an_error_inside_a_factory_is_not_taken_for_a_wrong_parameter():
    @register("broken")
    def broken(**anything):
        raise TypeError("from within")

    with pytest.raises(TypeError, match="from within"):
        as_device_model("broken(x=1)")


# Other forms


def test_a_device_model_is_itself():
    model = pcm()
    assert as_device_model(model) is model
    assert as_device_model([model]) is model


def test_an_effect_and_lists():
    assert as_device_model(Drift()) == DeviceModel((Drift(),))
    assert as_device_model([Quantization(), Drift()]) == DeviceModel((Quantization(), Drift()))
    assert as_device_model((Quantization(), Drift())).name == "Quantization+Drift"


def test_a_list_may_mix_effects_names_and_device_models():
    model = as_device_model(["quantization(levels=8)", StuckAt(), "drift+gaussian"])
    assert model.effects == (Quantization(8), StuckAt(), Drift(), Gaussian())
    faulty = as_device_model([pcm(g_max=40), StuckAt()])
    assert faulty.effects == (*pcm().effects, StuckAt())
    assert (faulty.g_max, faulty.mapping, faulty.name) == (40.0, Mapping("pair", "column"), "pcm+StuckAt")


@pytest.mark.parametrize(
    ("device", "error", "message"),
    [
        ([], ValueError, "the chain of effects is empty"),
        (None, TypeError, "give a name, an effect, a list of effects or a device model, got None"),
        (Gaussian, TypeError, "give a name, .* got <class .*Gaussian'>"),
        (3, TypeError, "give a name, .* got 3"),
        ([Drift], TypeError, "a list holds effects, device models or names, got <class .*Drift'>"),
        ([Drift(), None], TypeError, "a list holds effects, device models or names, got None"),
        (["quantisation"], ValueError, "unknown name 'quantisation'; did you mean 'quantization'"),
        ([pcm(), pcm(g_max=3)], ValueError, "the parts of 'pcm\\+pcm' have different conductance ranges or mappings"),
        (["gaussian", DeviceModel((Gaussian(),), mapping=Mapping("signed")), StuckAt()], ValueError, "needs Mapping"),
    ],
)
def test_what_is_not_a_device(device, error, message):
    with pytest.raises(error, match=message):
        as_device_model(device)


def test_numbers_of_numpy_are_numbers():
    effect = Quantization(levels=np.int64(8), stochastic=np.bool_(True))
    assert repr(effect) == "Quantization(levels=8, stochastic=True)"
    assert repr(Drift(nu=np.float32(0.5), t0=np.int64(2))) == "Drift(nu=0.5, nu_std=0.01, t0=2.0)"


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
