from __future__ import annotations

from typing import Any

import pytest
from torch import nn

import analogsim
from analogsim import Crossbar, Gaussian, as_crossbar
from analogsim.conversion.patterns import choose_crossbars, choose_devices, find_candidates
from analogsim.crossbar import IDEAL
from analogsim.utils.modules import names_of
from tests.conversion.networks import Deep, devices_of


def test_each_matrix_is_a_candidate_under_all_its_names() -> None:
    model = nn.ModuleDict({"lstm": nn.LSTM(2, 2), "fc": nn.Linear(2, 2), "table": nn.Embedding(3, 2)})
    model["alias"] = model["fc"]
    found = find_candidates(names_of(model), embeddings=False)
    assert [one.names for one in found] == [
        ("lstm.weight_ih_l0", "lstm"),
        ("lstm.weight_hh_l0", "lstm"),
        ("fc", "alias"),
    ]
    assert [one.name for one in find_candidates(names_of(model), embeddings=True)][-1] == "table"


def test_one_device_is_for_all() -> None:
    names = names_of(Deep())
    candidates = find_candidates(names, embeddings=False)
    chosen, meant = choose_devices("pcm", candidates, names)
    assert list(chosen) == candidates
    assert {device.name for device in chosen.values() if device is not None} == {"pcm"}
    assert meant == set()


def test_crossbars_go_by_the_first_pattern_and_are_ideal_without_one() -> None:
    candidates = find_candidates(names_of(Deep()), embeddings=False)
    chosen = choose_crossbars({"layer1.*": Crossbar(rows=4), "f?": "standard", "*": IDEAL}, candidates[1:])
    assert [(one.name, crossbar) for one, crossbar in chosen.items()] == [
        ("layer1.0", Crossbar(rows=4)),
        ("fc", as_crossbar("standard")),
    ]
    assert choose_crossbars({"fc": "standard"}, candidates)[candidates[0]] == IDEAL
    with pytest.raises(ValueError, match=r"the crossbar pattern 'alias' has no effect"):
        choose_crossbars({"fc": "standard", "alias": Crossbar(rows=4)}, candidates)


def test_first_match_wins_and_none_stays_digital() -> None:
    analog = analogsim.convert(
        Deep(), {"fc": None, "conv?": Gaussian(), "layer1.*": [Gaussian(), Gaussian()], "*": "pcm"}
    )
    assert devices_of(analog) == {"conv1": "Gaussian", "layer1.0": "Gaussian+Gaussian"}
    assert type(analog.fc) is nn.Linear
    assert devices_of(analogsim.convert(Deep(), {"alias": None, "*": "pcm"})) == {"conv1": "pcm", "layer1.0": "pcm"}


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        ({}, "empty"),
        ({"conv9": "pcm", "*": "pcm"}, "matches no module.*'conv1', 'layer1.0', 'fc'"),
        ({"layer1.1": "pcm", "*": "pcm"}, "cannot be analog, such as 'layer1.1'"),
        ({"layer1.1": None, "*": "pcm"}, "cannot be analog, such as 'layer1.1'"),
        ({"*": "pcm", "fc": None}, "first match wins, and '\\*' comes before it"),
        ({"CONV1": "pcm", "*": "pcm"}, "matches no module"),
        ({"*": None}, "nothing in Deep can run analog"),
        ({"*": "pcn"}, "unknown name"),
    ],
)
def test_patterns_without_effect_are_errors(mapping: dict[str, str | None], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        analogsim.convert(Deep(), mapping)


def test_a_rest_that_is_empty_and_a_repeated_choice_are_no_errors() -> None:
    analogsim.convert(nn.Sequential(nn.Linear(2, 2)), {"0": "pcm", "*": "gaussian"})
    analogsim.convert(Deep(), {"*": "pcm", "fc": "pcm"})


# --- types ------------------------------------------------------------------------------------------------------------


class Own(nn.Conv2d):
    """A convolution of one's own."""


def test_a_type_means_its_modules_and_those_of_its_subclasses() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), Own(2, 2, 3), nn.Flatten(), nn.Linear(8, 4), nn.Linear(4, 2))
    assert devices_of(analogsim.convert(model, {nn.Conv2d: None, "*": "pcm"})) == {"3": "pcm", "4": "pcm"}
    assert devices_of(analogsim.convert(model, {Own: None, nn.Conv2d: "pcm", "*": Gaussian()})) == {
        "0": "pcm",
        "3": "Gaussian",
        "4": "Gaussian",
    }
    assert devices_of(analogsim.convert(model, {"0": "pcm", nn.Conv2d: None, nn.Linear: "sonos"})) == {
        "0": "pcm",
        "3": "sonos",
        "4": "sonos",
    }
    assert len(devices_of(analogsim.convert(model, {nn.Module: "pcm"}))) == 4


def test_a_type_means_all_matrices_of_a_module() -> None:
    model = nn.Sequential(nn.LSTM(2, 2), nn.Linear(2, 2), nn.Embedding(3, 2))
    assert devices_of(analogsim.convert(model, {nn.RNNBase: None, nn.Embedding: None, "*": "pcm"})) == {"1": "pcm"}


def test_crossbars_go_by_type_too() -> None:
    analog = analogsim.convert(Deep(), "pcm", crossbar={nn.Conv2d: Crossbar(rows=4), "fc": "standard"})
    assert analog.conv1.analog.crossbar == analog.layer1[0].analog.crossbar == Crossbar(rows=4)
    assert analog.fc.analog.crossbar == as_crossbar("standard")
    with pytest.raises(ValueError, match=r"the crossbar pattern torch.nn.modules.rnn.LSTM has no effect"):
        analogsim.convert(Deep(), "pcm", crossbar={nn.LSTM: "standard"})


@pytest.mark.parametrize(
    ("mapping", "kind", "words"),
    [
        (
            {nn.LSTM: None, "*": "pcm"},
            ValueError,
            "pattern torch.nn.modules.rnn.LSTM has no effect: it matches no module",
        ),
        ({nn.BatchNorm2d: "pcm", "*": "pcm"}, ValueError, r"cannot be analog, such as 'layer1.1' \(BatchNorm2d\)"),
        ({nn.Sequential: None, "*": "pcm"}, ValueError, "'layer1' .Sequential.; the layers in them go by patterns"),
        (
            {nn.Module: "pcm", nn.Conv2d: None},
            ValueError,
            "Conv2d has no effect: the first match wins, and .*Module comes",
        ),
        ({int: "pcm"}, TypeError, "a pattern is text that names modules, .*got <class 'int'>"),
        ({3: "pcm"}, TypeError, "a pattern is text that names modules, .*got 3"),
        ({nn.Linear(2, 2): "pcm"}, TypeError, "or a type of modules"),
    ],
)
def test_types_without_effect_are_errors(mapping: dict[Any, str | None], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words):
        analogsim.convert(Deep(), mapping)
    if kind is TypeError:
        with pytest.raises(kind, match=words):
            analogsim.convert(Deep(), "pcm", crossbar=dict.fromkeys(mapping, "standard"))
