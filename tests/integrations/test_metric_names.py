from __future__ import annotations

import pytest
from torch import nn

import analogsim
from analogsim.integrations.metric_names import drifted, legal, score_name, tail
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import load_toml
from analogsim.recipes.tracking.log_report import parameters
from analogsim.recipes.tracking.tracked_run import check_name


@pytest.mark.parametrize(("label", "name"), [("1d", "drifted_1d"), ("1.5e+06s", "drifted_1.5e06s")])
def test_mlflow_takes_the_name_of_a_time(label: str, name: str) -> None:
    assert drifted(label) == name
    check_name("metric", f"test/accuracy/{name}_p05")


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("accuracy", "test/accuracy/clean"),
        ("bits per character", "test/bits per character/clean"),
        ("F1 (macro)", "test/F1 _macro_/clean"),
        ("F1/macro", "test/F1_macro/clean"),
        ("../..", "test/_/clean"),
        ("(", "test/_/clean"),
        ("", "test/metric/clean"),
        ("Größe µ", "test/Größe µ/clean"),
        ("x" * 300, f"test/{'x' * 150}/clean"),
    ],
)
def test_mlflow_takes_whatever_a_metric_is_called(metric: str, name: str) -> None:
    assert score_name("test", metric, "clean") == name
    check_name("metric", name)


def test_the_bad_end_of_the_chips() -> None:
    assert (tail(0.05), tail(0.95)) == ("p05", "p95")


def test_parameters_have_names_that_mlflow_takes() -> None:
    given = {"device.Gaussian#0.std": 1, "device.Gaussian#1.std": 2, "a+b": 3, "a b": 4, "a_b": 5, "x//y": 6, "..": 7}
    found = legal(given)
    assert list(found) == ["device.Gaussian_0.std", "device.Gaussian_1.std", "a_b", "a b", "a_b_2", "x/_/y", "_"]
    assert list(found.values()) == list(given.values())
    for name in found:
        check_name("parameter", name)


@pytest.mark.parametrize("device", ["gaussian(std=0.1)+gaussian(std=0.2)", "drift+read-noise+drift", "pcm(copies=2)"])
def test_chains_of_effects_have_names_that_mlflow_takes(device: str) -> None:
    config = load_toml(Config, None, [f"device={device}", "model=mlp"])
    for name in parameters(config, analogsim.convert(nn.Linear(4, 2), device), "plain"):
        check_name("parameter", name)
