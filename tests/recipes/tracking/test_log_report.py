from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

import analogsim
from analogsim.recipes.config.options import Config
from analogsim.recipes.tracking.log_report import log_ranges, log_report, of_hardware, parameters
from analogsim.recipes.tracking.tracker import NoRun
from analogsim.recipes.tracking.used_data import UsedData
from tests.recipes.reports import report


class Heard(NoRun):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}

    def metrics(self, values: Mapping[str, float], step: int, *, on: UsedData | None = None) -> None:
        self.told |= {name: (step, value) for name, value in values.items()}

    def curve(self, name: str, seconds: Sequence[float], values: Sequence[float]) -> None:
        self.told[name] = dict(zip(seconds, values, strict=True))

    def tags(self, values: Mapping[str, str]) -> None:
        self.told |= values

    def table(self, columns: Mapping[str, Sequence[Any]], path: str) -> None:
        self.told[path] = columns


def test_a_report_is_scalars_curves_and_a_table() -> None:
    heard, made = Heard(), report(0.9, times=(0.2, 0.4, 3600.0))
    log_report(made, heard, step=4, part="test")
    assert heard.told["test/accuracy/clean"] == (4, made.clean)
    assert heard.told["test/accuracy/drifted_1h"] == (4, made.mean[-1])
    assert heard.told["test/accuracy/drift"] == {0: made.mean[1], 3600: made.mean[2]}  # whole seconds, the last of each
    assert {len(column) for column in heard.told["chips.json"].values()} == {made.values.size}


def test_what_is_better_lower_has_its_bad_end_above() -> None:
    heard, made = Heard(), report(3.0, metric="error", unit="dB", higher_is_better=False)
    log_report(made, heard, step=4, part="test")
    assert heard.told["test/error/drifted_1y_p95"] == (4, made.quantile(0.95)[-1])
    assert heard.told["test/error/drift_p95"][1] == made.quantile(0.95)[0]
    assert not [name for name in heard.told if name.endswith("_p05")]
    assert (heard.told["metric"], heard.told["metric.unit"], heard.told["metric.better"]) == ("error", "dB", "lower")
    log_report(report(0.9), heard, step=4, part="test")
    assert heard.told["test/accuracy/drifted_1y_p05"] == (4, report(0.9).quantile(0.05)[-1])
    assert (heard.told["metric"], heard.told["metric.unit"], heard.told["metric.better"]) == ("accuracy", "%", "higher")


def test_what_is_not_known_is_not_told() -> None:
    heard, made = Heard(), report(0.9)
    log_report(report(0.9, values=made.values[:1], seeds=(0,)), heard, step=1, part="test")
    assert not [name for name in heard.told if name.endswith("_std")]  # of one chip there is none


def test_parameters_are_options_hardware_and_analog_share() -> None:
    config = Config(device="gaussian(std=0.25)", crossbar="standard(rows=32)")
    analog = analogsim.convert(nn.Linear(4, 2), config.device, crossbar=config.crossbar)
    values = parameters(config, analog, "plain")
    assert (values["training"], values["model.analog_share"], values["model.cells"]) == ("plain", 1.0, 8)
    assert of_hardware(config, aware=False).items() <= values.items()
    assert 32 in of_hardware(config, aware=False).values()
    assert "crossbar.input_range" not in values
    assert parameters(config, analog, "hardware-aware")["crossbar.input_range"] == "learned"
    assert not [name for name in values if name.startswith(("tracking.", "out"))]
    partly = nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 2, bias=False))
    values = parameters(config, analogsim.convert(partly, {"1": None, "*": "pcm"}), "plain")
    assert values["model.analog_share"] == 0.666667  # 8 of 12 weights, to six digits


def test_ranges_are_a_table_where_there_are_any() -> None:
    heard = Heard()
    analog = analogsim.convert(nn.Linear(4, 2), "pcm", crossbar="standard(input_range='calibrated')")
    log_ranges(analogsim.convert(nn.Linear(4, 2), "pcm"), heard)
    assert heard.told == {}
    analogsim.calibrate(analog, [(torch.ones(3, 4), torch.zeros(3))])
    log_ranges(analog, heard)
    assert heard.told["ranges.json"]["input_range"] == [1.0]


def test_of_several_ranges_the_largest_and_the_smallest_are_told() -> None:
    heard, model = Heard(), nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2))
    tiles = "standard(rows=2, input_range='calibrated', ranges_per='block')"
    analog = analogsim.convert(model, "pcm", crossbar=tiles)
    first = torch.tensor([0.5, 0.25, 2.0, -4.0])
    analogsim.calibrate(analog, [(first.expand(3, 4), torch.zeros(3))])
    log_ranges(analog, heard)
    columns = heard.told["ranges.json"]
    assert columns["layer"] == ["0", "1"]
    assert (columns["input_range"][0], columns["smallest_input_range"][0]) == (4.0, 0.5)
    assert columns["input_range"][1] == columns["smallest_input_range"][1]  # of one tile


def test_the_digital_score_is_told_where_it_is_not_the_clean_one() -> None:
    heard = Heard()
    log_report(report(0.9, digital=0.8), heard, step=1, part="test")
    assert heard.told["test/accuracy/digital"] == (1, 0.8)
    heard = Heard()
    log_report(report(0.9), heard, step=1, part="test")
    assert not [name for name in heard.told if name.endswith("/digital")]
