"""A fit as a device model, a table and a figure."""

import dataclasses
import re

import pytest
from torch import nn

import analogsim
from analogsim import DeviceModel
from tests.fit.conftest import G_MAX, quiet


def test_the_result_is_a_device_model(clean, tmp_path):
    assert isinstance(clean, DeviceModel)
    assert (clean.g_min, clean.g_max, clean.name) == (0.0, G_MAX, "fitted")
    assert clean == clean.device
    assert clean.device == clean
    assert hash(clean) == hash(clean.device)
    assert repr(clean) == repr(clean.device)
    assert clean != clean.replace(name="other")
    assert clean != "pcm"
    assert type(clean.replace(g_max=30.0)) is DeviceModel
    clean.save(tmp_path / "mine.toml")
    assert analogsim.load_device(tmp_path / "mine.toml") == clean
    analog = analogsim.convert(nn.Linear(4, 3), device=clean)
    analogsim.program(analog, seed=0)
    analogsim.save_chip(analog, tmp_path / "chip.safetensors")
    again = analogsim.convert(analogsim.to_digital(analog), device=str(tmp_path / "mine.toml"))
    analogsim.load_chip(again, tmp_path / "chip.safetensors")


def test_the_table_tells_everything(columns):
    fit = quiet({name: values[columns["cell"] >= 220] for name, values in columns.items()}, bootstrap=10)
    text = str(fit)
    assert re.search(r"^programming sd.* µS +[\d.e-]+ to [\d.e-]+$", text, re.MULTILINE)
    assert "20 cells, 1 targets, 5 times, 300 readings" in text
    for line in (*fit.report.notes, *fit.report.warnings):
        assert line in text
    assert fit.report["programming sd"].unit == "µS"
    with pytest.raises(KeyError, match="there are programming sd"):
        fit.report["programming error"]


def test_plot(clean, columns, tmp_path):
    pytest.importorskip("matplotlib")
    figure = clean.plot()
    titles = [axes.get_title() for axes in figure.axes if axes.get_visible()]
    assert titles[:2] == ["programming error [µS]", "drift exponent"]
    assert titles[-1] == "standardised residuals"
    figure.savefig(tmp_path / "fit.png")
    first = {name: values[columns["time"] == 20] for name, values in columns.items()}
    assert len([axes for axes in quiet(first).plot().axes if axes.get_visible()]) == 3
    with pytest.raises(ValueError, match="no report"):
        type(clean)(clean.effects).plot()


def test_the_text_has_every_part(clean):
    """Parameters, tests of what is left, notes and warnings, each only where there is something to tell."""
    text = str(clean.report)
    assert clean.report.described in text
    assert "is it normal?" in text
    for check in clean.report.checks:
        assert re.search(rf"^{re.escape(check.name)} +{check.number} +{check.left_out} ", text, re.MULTILINE)
    bare = dataclasses.replace(clean.report, checks=(), notes=("made up",), warnings=())
    assert "is it normal?" not in str(bare)
    assert str(bare).endswith("note: made up")
    assert str(dataclasses.replace(bare, notes=())).count("\n\n") == 1
