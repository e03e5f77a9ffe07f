import json
from pathlib import Path
from typing import Any

import pytest

from analogsim.device import registry
from analogsim.device.parse import as_device_model
from benchmarks import published
from benchmarks.harness.published_chips import NAMES
from benchmarks.published import TABLES, Chips, Remedy, Row, Table

TINY = ("as it is", "remap", "6 copies, affine")
QUICK = ["--data", "digits", "--seeds", "1", "--chips", "2", "--set", "data.limit=100", "optimization.epochs=1"]


@pytest.fixture(autouse=True)
def _names_of_chips(monkeypatch: pytest.MonkeyPatch) -> None:
    """For one test: the package's list of devices is that of others too."""
    for name, factory in NAMES.items():
        monkeypatch.setitem(registry.factories, name, factory)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of two rows on a small network in the place of the one of faults."""
    found = TABLES["faults"]
    rows = {name: found.rows[name] for name in ("plain", "default")}
    chips = {"20 %": found.chips["20 % at the ends"], "none stuck": found.chips["their chip, 0 %"]}
    remedies = {name: found.remedies[name] for name in TINY}
    model = "model=benchmarks.harness.ladder:small_mlp"
    monkeypatch.setattr(published, "TABLES", {"faults": Table((model,), rows, chips, remedies)})


def measured(tmp_path: Path, *more: str) -> list[dict[str, Any]]:
    out = tmp_path / "published.json"
    published.main(["faults", *QUICK, *more, "--out", str(out), "--work", str(tmp_path / "work")])
    found: list[dict[str, Any]] = json.loads(out.read_text(encoding="utf-8"))["cells"]
    return found


@pytest.mark.usefixtures("tiny")
def test_what_is_missing_is_measured_and_the_table_is_of_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = measured(tmp_path, "--rows", "plain", "--on", "20 %", "--remedies", "remap")
    assert [(cell["row"], cell["chips"], cell["remedy"]) for cell in first] == [("plain", "20 %", "remap")]
    cells = measured(tmp_path)
    assert cells[: len(first)] == first
    # Where nothing is stuck there is nothing to be laid around.
    stuck = [(cell["row"], cell["remedy"]) for cell in cells if cell["chips"] == "20 %"]
    assert sorted(stuck) == sorted((row, remedy) for row in ("plain", "default") for remedy in TINY)
    assert {cell["remedy"] for cell in cells if cell["chips"] == "none stuck"} == {"as it is", "6 copies, affine"}
    assert all(len(cell["scores"]) == 2 and min(cell["scores"]) >= 0 for cell in cells)
    # A plain network is trained once, others for each of their chips.
    assert len(list((tmp_path / "work" / "networks").iterdir())) == 3
    shown = capsys.readouterr().out
    assert measured(tmp_path) == cells
    again = capsys.readouterr().out
    assert "faults, plain" not in again
    assert again.strip() in shown
    published.main(["--table", str(tmp_path / "published.json")])
    assert capsys.readouterr().out.strip() == again.strip()


@pytest.mark.usefixtures("tiny")
def test_other_samples_and_settings_are_other_cells(tmp_path: Path) -> None:
    only = ["--rows", "plain", "--on", "20 %", "--remedies", "as it is"]
    (first,) = measured(tmp_path, *only)
    (_, second) = measured(tmp_path, *only, "--samples", "20")
    assert (first["samples"], second["samples"]) == (None, 20)
    assert all(round(20 * score, 4) == int(round(20 * score, 4)) for score in second["scores"])
    assert len(measured(tmp_path, *only, "--set", "data.limit=90")) == 3


@pytest.mark.parametrize("name", TABLES)
def test_each_table_names_chips_and_settings_that_there_are(name: str, tmp_path: Path) -> None:
    found = TABLES[name]
    tables = published.Tables(None, tmp_path, ["data.name=digits"])
    for made in found.chips.values():
        device = as_device_model(made.whole)
        for row in found.rows.values():
            settings = [one.replace("{device}", made.whole) for one in (*found.settings, *row.settings)]
            config = tables._config(0, settings)
            assert as_device_model(config.device) == device or "device={device}" not in row.settings
            as_device_model(config.noise.device or config.device)
            assert set(row.remedies) <= found.remedies.keys()


@pytest.mark.parametrize("by", ["magnitude", "curvature", "random"])
def test_verified_weights_make_a_network_better(by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chips = {"loud": Chips("gaussian(std=0.6)", verified=0.0)}
    remedies = {"none": Remedy(), "some": Remedy(verify=by, share=0.5), "all": Remedy(verify=by, share=1.0)}
    model = "model=benchmarks.harness.ladder:small_mlp"
    monkeypatch.setattr(published, "TABLES", {"faults": Table((model,), {"plain": Row()}, chips, remedies)})
    cells = measured(tmp_path, "--set", "data.limit=400", "optimization.epochs=15", "--chips", "8")
    none, some, every = (sum(cell["scores"]) / 8 for cell in cells)
    assert none < some < every
    assert every == pytest.approx(cells[0]["clean"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fault"], "no table 'fault'; there are faults, noise, verify, percentile"),
        ([], "no table"),
        (["noise", "--rows", "plane"], "--rows: there is no 'plane'; there are 'plain', 'default'"),
        (["noise", "--on", "30 %"], "--on: there is no '30 %'; there are '30 % of each weight'"),
        (["verify", "--remedies", "remap"], "--remedies: there is no 'remap'; there are 'none verified'"),
    ],
)
def test_what_there_is_not_is_told(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        published.main(arguments)
    assert words in capsys.readouterr().err


def test_the_tail_is_that_of_chips_and_the_last_column_that_of_seeds() -> None:
    cell = {"table": "noise", "row": "plain", "chips": "loud", "remedy": "as it is", "count": 3, "clean": 1.0}
    cells = [{**cell, "seed": seed, "scores": [score, 0.5, 0.5]} for seed, score in enumerate((0.5, 0.8))]
    line = published.summary(cells).splitlines()[-1].split()
    assert line[-7:] == ["2", "3", "100.00", "55.00", "8.66", "50.00", "7.07"]
