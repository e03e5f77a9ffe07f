from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

import analogsim
from analogsim.recipes.cli import main


@pytest.fixture
def measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    from analogsim.fit import sample_measurements

    monkeypatch.chdir(tmp_path)
    device = analogsim.DeviceModel(
        (analogsim.Gaussian(0.02), analogsim.Drift(), analogsim.ReadNoise(0.005)), mapping=analogsim.Mapping("pair")
    )
    columns = sample_measurements(device, cells=12, repeats=2, seed=3)
    rows = zip(*columns.values(), strict=True)
    lines = [",".join(columns), *(",".join(f"{value:.6g}" for value in row) for row in rows)]
    Path("cells.csv").write_text("\n".join(lines))
    return "cells.csv"


def test_fit(measurements: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--out", "mine.toml", "--plot", "fit.png", "--bootstrap", "5")
    main(["fit", measurements, *options])
    out, err = capsys.readouterr()
    assert err == ""
    assert re.search(r"^programming sd +[\d.]+ +µS +[\d.]+ to [\d.]+$", out, re.MULTILINE)
    assert "note: no unit given, assumed: target in µS, measured in µS, time in s" in out
    assert out.endswith('use it: analog = analogsim.convert(model, device="mine.toml")\n')
    assert Path("fit.png").stat().st_size > 1000
    assert analogsim.convert(nn.Linear(3, 2), device="mine.toml").analog.device.name == "mine"
    main(["fit", measurements, "--unit", "time=h", "--unit", "target=uS", "--bootstrap", "0"])
    out = capsys.readouterr().out
    assert "assumed: measured in µS" in out
    assert "t0 = 72000 s" in out
    assert 'device="device.toml"' in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing.csv"], "fit_device: no file 'missing.csv'"),
        (["cells.csv", "--unit", "time"], "--unit takes COLUMN=UNIT, such as time=h, got 'time'"),
        (["cells.csv", "--unit", "measured=nS"], "if measured"),
        (["cells.csv", "--out", "mine.txt"], "the device file must end in .toml"),
        (["cells.csv", "--out", "no/mine.toml"], "there is no folder for 'no/mine.toml'; make it first"),
        (["cells.csv", "--plot", "no/fit.png"], "there is no folder for 'no/fit.png'; make it first"),
        (["cells.csv", "--bootstrap", "1"], "bootstrap must be 0 or an integer above 1, got 1"),
        (["cells.csv", "--g-max", "3"], "targets reach 25 µS, above g_max=3"),
    ],
)
def test_what_is_wrong_with_measurements_is_told_in_one_line(
    measurements: str, fail: Callable[..., str], arguments: list[str], words: str
) -> None:
    assert words in fail("fit", *arguments)
    assert [path.name for path in Path().iterdir()] == ["cells.csv"]
