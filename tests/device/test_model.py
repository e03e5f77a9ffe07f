import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

import analogsim
from analogsim import Cells, DeviceModel, Drift, Effect, Gaussian, Mapping, Quantization, ReadNoise, StuckAt, param
from analogsim.devices import pcm
from analogsim.noise import GlobalNoise, KeyedNoise

WEIGHT = torch.linspace(-1, 1, 600).view(20, 30)


@dataclass(frozen=True)
class Journal(Effect):
    """Writes down when it is called, and with what."""

    label: str = param("a", "1", choices=("a", "b"))

    calls: ClassVar[list] = []

    def _note(self, stage, g, cells):
        self.calls.append((self.label, stage, float(g.sum()), cells.programmed is not None))

    def draw(self, cells, noise):
        self._note("draw", cells.target, cells)
        return {"mark": torch.tensor([ord(self.label)])}

    def program(self, g, cells, noise):
        self._note("program", g, cells)
        return g + 1

    def hold(self, g, cells, drawn):
        assert drawn["mark"] == ord(self.label), "every effect gets what it drew"
        self._note("hold", g, cells)
        return g

    def age(self, g, t, cells, drawn):
        assert drawn["mark"] == ord(self.label)
        self._note("age", g, cells)
        return g + 10

    def read(self, g, t, cells, noise):
        self._note("read", g, cells)
        return g + 100


# The chain


def test_stages_run_through_the_chain_one_after_the_other():
    Journal.calls.clear()
    device = DeviceModel((Journal("a"), Journal("b")))
    written = device.program(torch.zeros(1), KeyedNoise("stages"))
    g = device.read(written, 1.0, KeyedNoise("stages"))
    stages = [(label, stage) for label, stage, _, _ in Journal.calls]
    order = ("draw", "program", "hold", "age", "hold", "read")
    assert stages == [(label, stage) for stage in order for label in ("a", "b")]
    assert [total for *_, total, _ in Journal.calls[2:4]] == [0.0, 2.0], "an effect gets what the one before it made"
    assert [known for *_, known in Journal.calls] == [False] * 6 + [True] * 6, "programmed is None while programming"
    assert g.tolist() == [[222.0], [222.0]]
    assert written.programmed.tolist() == [[2.0], [2.0]]
    assert written.cells.target.tolist() == [[0.0], [0.0]]


def test_order_is_physical_order():
    # Levels that are then written with an error stand on no level; an error that is then quantised does.
    level = 25 / 3
    for chain, on_levels in ((Quantization(4), Gaussian(0.1)), False), ((Gaussian(0.1), Quantization(4)), True):
        written = DeviceModel(chain).program(WEIGHT, KeyedNoise("order"))
        position = written.programmed / level
        assert torch.allclose(position, position.round(), atol=1e-5) is on_levels


def test_hold_comes_after_age():
    device = DeviceModel((StuckAt(0.0, 1.0), Drift(nu=0.5)))
    written = device.program(WEIGHT, KeyedNoise("hold"))
    assert (device.age(written, 1e6) == 25.0).all()


@pytest.mark.parametrize("other", [Quantization(), StuckAt(), Drift(), Gaussian(), ReadNoise()], ids=repr)
@pytest.mark.parametrize("before", [False, True])
def test_draws_do_not_change_when_another_effect_joins(other, before):
    alone = [e for e in (*pcm().effects, Drift(), StuckAt(), Gaussian()) if type(e) is not type(other)]
    joined = [other, *alone] if before else [*alone, other]
    one, many = (DeviceModel(tuple(chain)).program(WEIGHT, KeyedNoise("chip")) for chain in (alone, joined))
    for place, drawn in enumerate(one.drawn):
        for key, value in drawn.items():
            assert torch.equal(value, many.drawn[place + before][key])


@pytest.mark.parametrize("other", [Drift(), ReadNoise()], ids=repr)
def test_what_is_written_does_not_change_when_a_later_stage_joins(other):
    chains = ((Gaussian(0.1), StuckAt()), (other, Gaussian(0.1), StuckAt()))
    one, many = (DeviceModel(chain).program(WEIGHT, KeyedNoise("chip")) for chain in chains)
    assert torch.equal(one.programmed, many.programmed)


def test_two_of_a_kind_draw_apart():
    written = DeviceModel((Drift(), Drift())).program(WEIGHT, KeyedNoise("chip"))
    assert not torch.equal(written.drawn[0]["nu"], written.drawn[1]["nu"])


def test_what_is_not_overridden_changes_nothing():
    @dataclass(frozen=True)
    class Nothing(Effect):
        pass

    device = DeviceModel((Nothing(),))
    written = device.program(WEIGHT, KeyedNoise("nothing"))
    g = device.read(written, 1e6, KeyedNoise("nothing"))
    assert torch.equal(g, written.cells.target)
    torch.testing.assert_close(device.to_weight(g, written), WEIGHT)
    assert written.drawn == ({},)
    assert device.read_variance(g, written) is None
    assert device.following(WEIGHT, written) is None
    assert not device.drifts
    assert not any(Nothing.implements(stage) for stage in ("program", "draw", "hold", "age", "read", "read_std"))
    assert Nothing().held({}) is None
    assert Nothing().read_std(g, written.cells) is None
    assert torch.equal(Nothing().hold(g, written.cells, {}), g)
    with pytest.raises(NotImplementedError, match="Nothing is not additive"):
        Nothing().error(g, lambda _: 1.0, GlobalNoise())


def test_what_a_device_is():
    assert pcm().drifts
    assert DeviceModel((Drift(),)).drifts
    assert not DeviceModel((Gaussian(),)).drifts
    assert DeviceModel((Gaussian(),)).additive == Gaussian()
    for chain in ((Gaussian(), Gaussian()), (Gaussian(), ReadNoise()), (ReadNoise(),)):
        assert DeviceModel(chain).additive is None
    assert DeviceModel((Gaussian(),), mapping=Mapping("pair")).additive is None
    assert (DeviceModel((Gaussian(),)).cells_per_weight, pcm().cells_per_weight) == (1, 2)


def test_masks_of_two_effects_add_up():
    device = DeviceModel((StuckAt(0.3, 0.0), StuckAt(0.0, 0.3)))
    written = device.program(WEIGHT, KeyedNoise("masks"))
    free = [drawn["fault"] == 0 for drawn in written.drawn]
    positive, negative = free[0] & free[1]
    assert torch.equal(device.following(WEIGHT, written), torch.where(WEIGHT >= 0, positive, negative).float())


# Fields


def test_the_mapping_by_default():
    assert DeviceModel((Gaussian(), ReadNoise())).mapping == Mapping("signed", "tensor")
    assert DeviceModel((Gaussian(), Drift())).mapping == Mapping("pair", "column")
    assert DeviceModel((Gaussian(),), mapping=Mapping("pair", "tensor")).mapping == Mapping("pair", "tensor")


def test_names():
    assert DeviceModel((Quantization(), Drift())).name == "Quantization+Drift"
    assert DeviceModel((Drift(),), name="mine").name == "mine"


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"effects": ()}, ValueError, "device model: the chain of effects is empty; give at least one"),
        ({"effects": Gaussian()}, TypeError, "effects must be a sequence of effects, got Gaussian.*as_device_model"),
        ({"effects": "pcm"}, TypeError, "effects must be a sequence of effects, got 'pcm'"),
        ({"effects": (Gaussian(), "drift")}, TypeError, "every element must be an Effect, got 'drift'"),
        ({"effects": (Gaussian,)}, TypeError, "every element must be an Effect, got <class"),
        ({"g_max": -1}, ValueError, r"need 0 <= g_min < g_max in µS, got g_min=0.0, g_max=-1.0"),
        ({"g_min": -1.0}, ValueError, "need 0 <= g_min"),
        ({"g_min": 25.0}, ValueError, "need 0 <= g_min < g_max"),
        ({"g_max": float("nan")}, ValueError, "g_max=nan"),
        ({"g_max": float("inf")}, ValueError, "g_max=inf"),
        ({"g_max": "25"}, TypeError, r"g_max must be a number \(µS\), got '25'"),
        ({"g_min": None}, TypeError, "g_min must be a number"),
        ({"g_max": True}, TypeError, "g_max must be a number"),
        ({"mapping": "pair"}, TypeError, r"mapping must be a Mapping, such as Mapping\('pair'\), got 'pair'"),
        ({"mapping": Mapping("signed"), "effects": (Drift(),)}, ValueError, r"Drift acts on conductances and needs"),
        ({"name": 3}, TypeError, "name must be text, got 3"),
    ],
)
def test_illegal_models(parameters, error, message):
    with pytest.raises(error, match=message):
        DeviceModel(**{"effects": (Gaussian(),)} | parameters)


def test_an_effect_may_refuse_a_model():
    @dataclass(frozen=True)
    class Narrow(Effect):
        def check(self, model):
            if model.g_max > 10:
                raise ValueError(f"Narrow: fitted up to 10 µS, got g_max={model.g_max:g}")

    with pytest.raises(ValueError, match="Narrow: fitted up to 10 µS, got g_max=25"):
        DeviceModel((Narrow(),))
    assert DeviceModel((Narrow(),), g_max=10.0).g_max == 10.0


def test_a_model_is_a_value():
    model = DeviceModel([Quantization(8), Drift()], g_min=1, g_max=np.float64(40), name="mine")
    assert model.effects == (Quantization(8), Drift())
    assert repr(model).startswith("DeviceModel(effects=(Quantization(levels=8, stochastic=False), Drift(nu=0.05, ")
    assert "g_min=1.0, g_max=40.0, mapping=Mapping(cells='pair', scale='column', " in repr(model)
    assert eval(repr(model), vars(analogsim).copy()) == model
    _ = model.drifts  # what is cached is no part of the value
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model), model.replace()):
        assert other == model
        assert hash(other) == hash(model)
    with pytest.raises(FrozenInstanceError):
        model.g_max = 3.0


def test_replace():
    model = pcm()
    assert model.replace(g_max=40).g_max == 40.0
    assert model.replace(effects=(Drift(),)).name == "pcm"
    made = DeviceModel((Quantization(),))
    assert made.replace(effects=(Drift(),)).name == "Drift", "a name made from the effects follows them"
    assert made.replace(effects=(Drift(),), name="mine").name == "mine"
    assert made.replace(g_max=3).name == "Quantization"
    with pytest.raises(ValueError, match="need 0 <= g_min"):
        model.replace(g_max=0)
    with pytest.raises(TypeError, match="gmax"):
        model.replace(gmax=3)


def test_parameters_for_logging():
    assert DeviceModel((Quantization(8), Drift(nu=0.1)), g_max=40).parameters() == {
        "g_min": 0.0,
        "g_max": 40.0,
        "cells": "pair",
        "scale": "column",
        "percentile": 100.0,
        "slices": 1,
        "slice_bits": 4,
        "copies": 1,
        "bias_rows": 0,
        "Quantization.levels": 8,
        "Quantization.stochastic": False,
        "Drift.nu": 0.1,
        "Drift.nu_std": 0.01,
        "Drift.t0": 20.0,
    }
    twice = DeviceModel((Drift(nu=0.1), Drift(nu=0.2))).parameters()
    assert (twice["Drift#0.nu"], twice["Drift#1.nu"]) == (0.1, 0.2)


# Cells


def test_a_cells_floor_is_zero_unless_it_is_signed():
    g = torch.tensor([-1.0, 2.0])
    assert Cells(g, 0.0, 25.0).floor(g.clone()).tolist() == [0.0, 2.0]
    assert Cells(g, 0.0, 25.0, signed=True).floor(g.clone()).tolist() == [-1.0, 2.0]


# Written


def test_what_programming_leaves():
    device = DeviceModel((Gaussian(0.1), Drift()))
    written = device.program(WEIGHT, KeyedNoise("written"))
    assert written.ndim == 2
    assert torch.equal(written.largest, WEIGHT.abs().amax(1, keepdim=True))
    assert written.programmed is written.cells.programmed
    assert written.cells.target.shape == written.programmed.shape == (2, 20, 30)
    assert set(written.drawn[1]) == {"nu"}


@pytest.mark.parametrize("source", [GlobalNoise(), KeyedNoise("a")])
def test_the_weight_is_not_written_into(source):
    for device in (pcm(), DeviceModel((Gaussian(),)), DeviceModel((ReadNoise(),)), DeviceModel((Quantization(),))):
        weight = WEIGHT.clone()
        written = device.program(weight, source)
        device.to_weight(device.read(written, 1e6, source), written)
        assert torch.equal(weight, WEIGHT)


# Stages that nobody calls


def effect_with(**methods):
    return dataclass(frozen=True)(type("Mine", (Effect,), {"__doc__": "Mine.", **methods}))()


def shift(self, g, cells, noise):
    return g + 1


@pytest.mark.parametrize(
    ("name", "method", "meant"),
    [
        ("progam", shift, "program"),
        ("Program", shift, "program"),
        ("red", lambda self, g, t, cells, noise: g, "read"),
        ("aged", lambda self, g, t, cells, drawn: g, "age"),
        ("readstd", lambda self, g, cells: g, "read_std"),
        ("hold_", lambda self, g, cells, drawn: g, "hold"),
    ],
)
@pytest.mark.parametrize("others", [{}, {"draw": lambda self, cells, noise: {}}])
def test_a_misspelt_stage_is_refused(name, method, meant, others):
    with pytest.raises(TypeError, match=rf"the effect Mine has a method '{name}', .*; did you mean '{meant}'\?"):
        DeviceModel((effect_with(**others, **{name: method}),))


def test_methods_that_no_stage_calls_are_refused():
    with pytest.raises(TypeError, match="the effect Mine overrides no stage, so that jitter are never called"):
        DeviceModel((effect_with(jitter=shift),))


def test_helpers_of_an_effect_that_has_stages_are_fine():
    DeviceModel((effect_with(program=shift, spread=lambda self, cells, place: 0, sigma=lambda self, cells: 0),))
    DeviceModel((effect_with(),))  # nothing, and nothing that could be meant otherwise
