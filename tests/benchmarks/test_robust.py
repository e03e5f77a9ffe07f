import json
from pathlib import Path
from typing import Any

import pytest

from analogsim.device.parse import as_device_model
from analogsim.utils.times import seconds
from benchmarks import robust
from benchmarks.harness.ladder import DEVICES

QUICK = ["--seeds", "1", "--chips", "2", "--epochs", "1", "--limit", "64"]


def measured(tmp_path: Path, *more: str) -> list[dict]:
    out = tmp_path / "ladder.json"
    robust.main(["digits-mlp", *QUICK, *more, "--out", str(out), "--work", str(tmp_path / "work")])
    return json.loads(out.read_text(encoding="utf-8"))["cells"]


def networks_in(tmp_path: Path) -> int:
    return len(list((tmp_path / "work" / "networks").iterdir()))


def test_every_row_is_judged_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = measured(tmp_path, "--remedies", "global,none")
    assert [(cell["row"], cell["remedy"]) for cell in cells] == [
        (row, remedy) for row in ("plain", "gaussian", "default") for remedy in ("global", "none")
    ]
    assert all(len(cell["mean"]) == len(cell["std"]) == len(cell["tail"]) == len(cell["times"]) == 6 for cell in cells)
    assert all(cell["chance"] == pytest.approx(0.1) for cell in cells)
    table = capsys.readouterr().out.partition("\n\n")[2]
    assert [line.split()[:2] for line in table.splitlines() if line.startswith("plain")] == [
        ["plain", "global"],
        ["plain", "none"],
    ]
    capsys.readouterr()
    again = measured(tmp_path, "--remedies", "global,none")
    assert again == cells
    assert "digits-mlp plain seed 0" not in capsys.readouterr().out


@pytest.mark.slow
def test_plain_networks_are_trained_once_for_all_chips_and_others_for_theirs(tmp_path: Path) -> None:
    measured(tmp_path, "--rows", "plain,gaussian", "--device", "pcm", "stuck-at", "--crossbar", "ideal", "standard")
    assert networks_in(tmp_path) == 2
    cells = measured(tmp_path, "--rows", "default", "--device", "pcm", "stuck-at")
    assert networks_in(tmp_path) == 4
    assert [cell["times"] for cell in cells if cell["device"] == "stuck-at"][-1] == ["0s"]


def test_a_row_of_ones_own(tmp_path: Path) -> None:
    (cell,) = measured(tmp_path, "--rows", "", "--row", "quiet:noise.end=0,noise.clip_sigmas=3")
    assert cell["row"] == "quiet"
    assert cell["settings"][:2] == ["noise.end=0", "noise.clip_sigmas=3"]


@pytest.mark.slow
def test_what_prepare_keeps_is_a_remedy(tmp_path: Path) -> None:
    before, after = measured(
        tmp_path, "--rows", "plain", "--device", "stuck-at", "--remedies", "global,prepare(digital=0.3)"
    )
    assert (before["remedy"], after["remedy"]) == ("global", "prepare(digital=0.3)")
    assert after["clean"] == before["clean"]
    assert after["mean"] != before["mean"]


def test_a_remedy_may_say_how_much_stays_digital() -> None:
    remedies = ("global+affine", "prepare", "prepare(digital=0.13)", "prepared")
    assert [robust.digital_share(remedy) for remedy in remedies] == [None, 0.0, 0.13, None]


def test_settings_are_parted_at_commas_outside_parentheses() -> None:
    row = robust.Row.read("own:noise.device=pcm(nu_std=0.1, nu_mean=0.05),evaluation.times=['1s', '1d'],noise.end=1")
    assert row.settings == (
        "noise.device=pcm(nu_std=0.1, nu_mean=0.05)",
        "evaluation.times=['1s', '1d']",
        "noise.end=1",
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["digits-mpl"], "no task 'digits-mpl'"),
        ([], "no task"),
        (["digits-mlp", "--rows", "plane"], "no 'plane'; there are plain"),
    ],
)
def test_what_there_is_not_is_told(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        robust.main(arguments)
    assert words in capsys.readouterr().err


def test_scores_are_normalised_by_chance_and_the_clean_plain_network() -> None:
    accuracy = {"chance": 0.1, "mean": [0.9, 0.5], "tail": [0.1, 0.1]}
    assert robust.normalised(accuracy, 0.9) == pytest.approx([1.0, 0.5])
    assert robust.normalised(accuracy, 0.9, "tail") == pytest.approx([0.0, 0.0])
    bits = {"chance": 6.0, "mean": [2.0, 4.0]}
    assert robust.normalised(bits, 2.0) == pytest.approx([1.0, 0.5])
    assert robust.normalised({"chance": None, "mean": [1.0]}, 1.0) is None


def test_the_plain_network_of_a_task_is_found_on_any_hardware_and_missed_where_there_is_none() -> None:
    def cell(row: str, device: str, seed: int = 0, **more: Any) -> dict[str, Any]:
        scores = {"clean": 0.9, "digital": 0.9, "mean": [0.5], "std": [0.0], "tail": [0.3], "chance": 0.1}
        asked = {"task": "digits-mlp", "crossbar": "ideal", "remedy": "global", "settings": [], "samples": None}
        return {"row": row, "device": device, "seed": seed, "times": ["1y"], "metric": "accuracy", "trained": 2.0} | (
            asked | scores | more
        )

    plain = [cell("plain", "pcm", 0, trained=1.0), cell("plain", "pcm", 1, digital=0.5, trained=3.0)]
    alone = [cell("default", "stuck-at")]
    beside = robust.tables([*alone, *plain, cell("plain", "4-bit", 0, trained=1.0)])  # the seed 0 counts once
    first = beside.split("\n\n")[0]
    assert "0.667" in first  # (0.5 - 0.1) / (0.7 - 0.1)
    assert "1.00x" in first
    assert "not normalised" not in beside
    shown = robust.tables(alone)
    assert "0.667" not in shown
    assert "no row 'plain' of this task was measured" in shown


@pytest.mark.parametrize("name", DEVICES)
def test_devices_are_judged_at_times_of_which_their_models_know(name: str) -> None:
    text, times = DEVICES[name]
    device = as_device_model(text)
    for time in times:
        device.check_time(seconds(time))
