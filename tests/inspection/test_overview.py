from __future__ import annotations

import pytest
import torch
from torch import nn

import analogsim
from analogsim.inspection.overview import SummaryRow


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.act = nn.ReLU()
        self.fc = nn.Linear(4, 3)
        self.head = self.fc
        self.out = nn.Linear(3, 3, bias=False)
        self.rnn = nn.LSTM(2, 2)


def rows(model: nn.Module) -> dict[str, SummaryRow]:
    return {row.name: row for row in analogsim.summary(model).rows}


def test_every_module_with_parameters_is_listed_once() -> None:
    model = Net()
    analog = analogsim.convert(model, {"out": None, "rnn": None, "conv": analogsim.Gaussian(), "*": "pcm"})
    table = rows(analog)
    assert list(table) == ["conv", "norm", "fc", "out", "rnn"]
    total = sum(parameter.numel() for parameter in model.parameters())
    assert table["conv"] == SummaryRow("conv", "Conv2d", True, "Gaussian", (2, 1, 3, 3), 20, 18, 1, 20 / total)
    assert table["fc"] == SummaryRow("fc", "Linear", True, "pcm", (3, 4), 15, 24, 1, 15 / total, ("head",))
    assert table["norm"].device == "element-wise, no matrix"
    assert table["out"] == SummaryRow(
        "out", "Linear", False, "asked to stay digital, or no pattern", (3, 3), 9, 0, 0, 9 / total
    )
    assert table["rnn"].device == "asked to stay digital, or no pattern"
    assert table["rnn"].shape == ()
    assert sum(row.share for row in table.values()) == pytest.approx(1)
    assert sum(row.parameters for row in table.values()) == total
    assert analogsim.summary(analog).analog_share == pytest.approx(35 / total)


def test_each_matrix_of_a_module_has_a_row() -> None:
    model = nn.Sequential(nn.MultiheadAttention(4, 2, add_bias_kv=True))
    table = rows(analogsim.convert(model, {"*.k_proj": None, "*": "pcm"}))
    assert list(table) == ["0.q_proj", "0.v_proj", "0", "0.out_proj"]
    assert [row.parameters for row in table.values()] == [20, 20, 20 + 8, 20]
    assert table["0"].device == "no weight of a product, or asked to stay digital"
    assert sum(row.share for row in table.values()) == pytest.approx(1)


def test_tied_parameters_count_once_but_have_two_arrays() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    table = rows(analogsim.convert(model, "pcm"))
    assert [(row.parameters, row.cells) for row in table.values()] == [(16, 32), (0, 32)]


def test_text() -> None:
    model = nn.Sequential(nn.Linear(40, 50, bias=False), nn.BatchNorm1d(50))
    text = str(analogsim.summary(analogsim.convert(model, "pcm")))
    assert text.splitlines() == [
        "layer  type         runs     device, or why digital   weight  parameters  cells  crossbars  share",
        "-----  -----------  -------  -----------------------  ------  ----------  -----  ---------  -----",
        "0      Linear       analog   pcm                      50x40        2,000  4,000          1  95.2%",
        "1      BatchNorm1d  digital  element-wise, no matrix  50             100                     4.8%",
        "Sequential: 1 analog layer, 95.2% of the parameters on 4,000 cells",
    ]


def test_crossbars_and_their_cells_are_counted() -> None:
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(24, 10))
    device = analogsim.DeviceModel((analogsim.Drift(),), mapping=analogsim.Mapping("offset", slices=2, bias_rows=1))
    table = rows(analogsim.convert(model, device, crossbar=analogsim.Crossbar(rows=10, cols=9)))
    # Two groups of 3 columns in one crossbar each, 18 + 1 rows in 2; 4 of the 9 lines hold a weight and its slices.
    assert (table["0"].crossbars, table["0"].cells) == (2 * 2, (6 + 2) * 19 * 2)
    assert (table["2"].crossbars, table["2"].cells) == (3 * 3, (10 + 3) * 25 * 2)


def test_digital_networks_and_odd_modules() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = 3.0  # not a tensor
            self.scale = nn.Parameter(torch.ones(2, 2))

    summary = analogsim.summary(nn.Sequential(Odd(), nn.Linear(2, 2)))
    assert [row.shape for row in summary.rows] == [(), (2, 2)]
    assert summary.analog_share == 0
    assert "0 analog layers" in str(summary)
    assert str(analogsim.summary(nn.ReLU())).endswith("ReLU: 0 analog layers, 0.0% of the parameters on 0 cells")
    assert "(the model itself)" in str(analogsim.summary(analogsim.convert(nn.Linear(2, 2), "pcm")))


def test_a_replaced_forward_is_told() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model[0].forward = lambda x: x
    assert rows(model)["0"].device == "its forward was replaced, which may compute something else"
