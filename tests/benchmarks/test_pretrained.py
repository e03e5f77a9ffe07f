import json
from pathlib import Path

import pytest
import torch
from torch import nn

import analogsim
from analogsim.evaluation import Metric
from benchmarks import pretrained
from benchmarks.harness.pretrained_networks import Pretrained, Question


def is_same(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output.argmax(1) == target).float()


def small(scale: float) -> Pretrained:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4)).eval()
    inputs, asked = torch.randn(64, 6), torch.randn(100, 6)
    metric = Metric("same", is_same, unit="%", higher_is_better=True, chance=0.25)
    return Pretrained(model, inputs, {"same": Question("same", [(asked, model(asked).argmax(1))], metric)})


@pytest.fixture(autouse=True)
def _of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "NETWORKS", {"small": small})


QUICK = ["small", "--crossbar", "ideal", "--device", "pcm", "--chips", "2", "--budget", "0.2s", "--steps", "5"]


def test_every_row_is_judged_once_and_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "found.json"
    pretrained.main([*QUICK, "--out", str(out)])
    cells = json.loads(out.read_text(encoding="utf-8"))["cells"]
    assert [(cell["device"], cell["row"]) for cell in cells] == [("pcm", row) for row in pretrained.ROWS]
    assert [cell["questions"]["same"]["times"] for cell in cells[:1]] == [["1s", "1d", "1y"]]
    assert all(cell["questions"]["same"]["clean"] == 1 for cell in cells if cell["row"] != "distilled")
    assert ["prepare" in cell for cell in cells[:6]] == [False, False, True, True, True, True]
    capsys.readouterr()
    pretrained.main([*QUICK, "--out", str(out)])
    assert json.loads(out.read_text(encoding="utf-8"))["cells"] == cells
    table = capsys.readouterr().out
    pretrained.main(["--table", str(out)])
    assert capsys.readouterr().out.strip() == table.strip()


def test_normalised_is_above_chance() -> None:
    found = {"chance": 0.25, "mean": [0.25, 0.85], "tail": [0.25, 0.25]}
    assert pretrained.normalised(found, 1.0) == pytest.approx([0, 0.8])
    assert pretrained.normalised({**found, "chance": None}, 1.0) == pytest.approx([0.25, 0.85])


def test_a_distilled_network_answers_better_on_chips() -> None:
    case = small(1.0)
    before = [p.clone() for p in case.model.parameters()]
    device = "gaussian(std=0.2)"
    moved = pretrained.distil(case.model, case.inputs, device, "ideal", 300, rate=1e-2)
    assert all(torch.equal(p, q) for p, q in zip(before, case.model.parameters(), strict=True))

    def error(model: nn.Module) -> float:
        data = [(case.inputs, case.model(case.inputs).detach())]
        report = analogsim.evaluate(
            analogsim.convert(model, device), data, chips=40, metric="mean_squared_error", times=["0s"]
        )
        return float(report.mean[0])

    assert error(moved) < 0.8 * error(case.model)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["large"], "there is no network 'large'; there are small"),
        ([], "there are small"),
        (["small", "--chips", "0"], "--chips must be > 0"),
        (["small", "--rows", "magic"], "magic"),
    ],
)
def test_what_is_not_there_is_told(more: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        pretrained.main(more)
    assert told in capsys.readouterr().err
