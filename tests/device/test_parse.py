from dataclasses import dataclass, fields

import pytest

from analogsim import (
    DeviceModel,
    Drift,
    Effect,
    Gaussian,
    Mapping,
    Quantization,
    StuckAt,
    as_device_model,
    param,
    register,
)
from analogsim.device.parse import with_mapping
from analogsim.devices import pcm

pytestmark = pytest.mark.usefixtures("own_registry")


@dataclass(frozen=True)
class Offset(Effect):
    shift: float = param(0.1, "µS", ge=0)
    kind: str = param("a-b", "1", choices=("a-b", "a b", "a+b", "(a)"))

    def program(self, g, cells, noise):
        return g + self.shift


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
    ("text", "mapping"),
    [
        ("pcm(copies=2)", Mapping(copies=2)),
        ("pcm(g_max=30, slices=2, slice_bits=2)", Mapping(slices=2, slice_bits=2)),
        ("reram-wan2022(percentile=99.5)", Mapping(percentile=99.5)),
        ("quantization(levels=16)+stuck-at(cells='two-sided', scale='crossbar')", Mapping("two-sided", "crossbar")),
        ("drift(bias_rows=1)+stuck-at(copies=2)", Mapping(bias_rows=1, copies=2)),
        ("drift(copies=2)+stuck-at(copies=2)", Mapping(copies=2)),
        ("gaussian(std=0.1, percentile=99)", Mapping("signed", "tensor", percentile=99)),
        ("gaussian(std=0.1, cells='pair')", Mapping("pair", "column")),
        ("gaussian(std=0.1, cells='pair', scale='tensor')", Mapping("pair", "tensor")),
        ("gaussian(std=0.1, cells='offset', reference='ideal')", Mapping("offset", reference="ideal")),
        ("sonos+stuck-at(copies=4)", Mapping(cells="pair", scale="column", copies=4)),
    ],
)
def test_text_says_the_mapping(text, mapping):
    model = as_device_model(text)
    assert model.mapping == mapping
    assert model.name == text.replace(" ", "")


def test_each_field_of_the_mapping_can_be_said():
    values = {
        "cells": "offset",
        "scale": "tensor",
        "percentile": 99.0,
        "slices": 2,
        "slice_bits": 2,
        "copies": 3,
        "bias_rows": 1,
        "reference": "ideal",
    }
    assert values.keys() == {spec.name for spec in fields(Mapping)}
    text = ", ".join(f"{word}={value!r}" for word, value in values.items())
    assert as_device_model(f"pcm({text})") == pcm().replace(
        mapping=Mapping(**values), name=f"pcm({text})".replace(" ", "")
    )


def test_what_a_text_does_not_say_of_the_mapping_stays():
    @register("own")
    def own():
        return DeviceModel((Drift(),), mapping=Mapping("offset", slices=2), name="own")

    assert as_device_model("own(copies=2)").mapping == Mapping("offset", slices=2, copies=2)


def test_a_parameter_of_the_device_comes_before_a_field_of_the_mapping():
    @register("twice")
    def twice(copies=1, **others):
        return DeviceModel((Drift(nu=0.1 * copies),), name=f"twice {sorted(others)}")

    assert as_device_model("reram-cmo(reference='ideal')").laid.reference == "ideal"  # its factory sets it
    model = as_device_model("twice(copies=2, percentile=99)")
    assert model.effects == (Drift(nu=0.2),)
    assert model.mapping == Mapping(), "what takes any word takes these"
    assert model.name == "twice ['percentile']"


def test_a_list_says_the_mapping_too():
    model = as_device_model(["pcm(copies=2)", StuckAt(), "drift(percentile=99)"])
    assert model.mapping == Mapping(copies=2, percentile=99)
    assert model.name == "pcm+StuckAt+Drift(copies=2,percentile=99)"


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("pcm", {"copies": 2}, "pcm(copies=2)"),
        ("pcm(copies=2)", {"copies": 4, "percentile": 99.5}, "pcm(copies=4,percentile=99.5)"),
        ("pcm(copies=2)", {"copies": 1}, "pcm(copies=1)"),
        ("pcm(copies=2,slices=2)+stuck-at", {"copies": 4}, "pcm(slices=2)+stuck-at(copies=4)"),
        ("gaussian(std=0.05,cells='pair')", {"percentile": 99.0}, "gaussian(std=0.05,cells='pair',percentile=99.0)"),
    ],
)
def test_another_mapping_stands_in_the_name(name, options, told):
    model = with_mapping(as_device_model(name), **options)
    assert model.name == told
    assert as_device_model(told) == model
    assert all(getattr(model.laid, word) == value for word, value in options.items())
    assert with_mapping(model, **options) is model


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
        ("pcm(copees=2)", "'pcm' has no parameter 'copees'; did you mean 'copies'.* have those of the mapping: cells"),
        ("pcm(copies=0)", "mapping: copies must be an integer >= 1, got 0"),
        ("pcm(copies=2.5)", "mapping: copies must be an integer >= 1, got 2.5"),
        ("pcm(copies='2')", "mapping: copies must be an integer >= 1, got '2'"),
        ("pcm(percentile=101)", r"mapping: percentile must be in \(0, 100\], got 101"),
        ("pcm(cells='single')", "mapping: cells must be one of \"pair\", .*, got 'single'"),
        ("pcm(cells='signed')", r"PCMProgramming acts on conductances and needs Mapping\('pair'\)"),
        ("gaussian(copies=2)", 'slices and copies are of cells; with cells="signed" both must be 1'),
        ("pcm(copies=2)+drift(copies=3)", "lie on the same cells; give copies once, got 2 and 3"),
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


def test_what_a_name_makes_must_be_a_device():
    register("nothing")(lambda: None)
    with pytest.raises(TypeError, match="device: 'nothing' must make an Effect or a DeviceModel, it made None"):
        as_device_model("nothing")
