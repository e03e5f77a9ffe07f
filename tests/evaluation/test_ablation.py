import numpy as np
import pytest
import torch
from torch import nn

import analogsim
from analogsim import Crossbar, DeviceModel, Drift, Gaussian, StuckAt
from analogsim.evaluation.ablation import ALL


def trained():
    torch.manual_seed(0)
    x = torch.randn(400, 16)
    y = (x[:, :4].sum(1) > x[:, 4:8].sum(1)).long()
    model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, [(x, y)]


def test_each_part_is_switched_off_in_turn():
    model, data = trained()
    device = DeviceModel((Gaussian(std=0.3), Drift(nu=0.05, nu_std=0.02)), mapping=analogsim.Mapping("pair"))
    crossbar = Crossbar(rows=8, dac_bits=2, adc_bits=8, output_noise=0.01, wire_resistance=1.0)
    analog = analogsim.convert(model, device, crossbar=crossbar)
    result = analogsim.ablate(analog, data, chips=4, times=("1s", "1y"))
    assert list(result.reports) == [
        ALL,
        "Gaussian",
        "Drift",
        "DAC",
        "ADC",
        "output noise",
        "wires",
        "cuts into several crossbars",
        "drift compensation",
    ]
    first = result.reports[ALL]
    assert np.array_equal(first.values, analogsim.evaluate(analog, data, chips=4, times=("1s", "1y")).values)
    # What it is like without a part is what one gets by leaving it out by hand, on the same chips.
    quiet = analogsim.convert(model, device.replace(effects=(Drift(nu=0.05, nu_std=0.02),)), crossbar=crossbar)
    by_hand = analogsim.evaluate(quiet, data, chips=4, times=("1s", "1y")).values
    assert np.array_equal(result.reports["Gaussian"].values, by_hand)
    fine = analogsim.convert(model, device, crossbar=crossbar.replace(dac_bits=None))
    by_hand = analogsim.evaluate(fine, data, chips=4, times=("1s", "1y")).values
    assert np.array_equal(result.reports["DAC"].values, by_hand)
    assert result.gain("Gaussian")[0].min() > 0.01
    assert result.gain("drift compensation")[0, 1] < 0.005
    difference = result.reports["DAC"].values - first.values
    assert result.gain("DAC") == pytest.approx(np.stack((difference.mean(0), difference.std(0, ddof=1) / 2)))
    text = str(result)
    assert text.splitlines()[2].startswith("everything on")
    assert "without output noise" in text
    assert f"clean{'':>28}" in text


def test_a_single_effect_and_an_ideal_periphery():
    model, data = trained()
    result = analogsim.ablate(analogsim.convert(model, "gaussian(std=0.3)"), data, chips=2, times=(0,))
    assert list(result.reports) == [ALL, "Gaussian"]
    assert (result.reports["Gaussian"].values == result.reports[ALL].clean).all()


def test_layers_of_different_kinds_keep_what_is_theirs():
    model, data = trained()
    crossbar = Crossbar(adc_bits=3, input_range="calibrated", output_bound="calibrated")
    analog = analogsim.convert(model, {"0": "stuck-at(p_off=0.5)", "2": "gaussian(std=0.5)"}, crossbar={"0": crossbar})
    analogsim.calibrate(analog, [data[0][0]])
    result = analogsim.ablate(analog, data, chips=3, times=(0,))
    assert list(result.reports) == [ALL, "StuckAt", "Gaussian", "ADC"]
    only_first = analogsim.convert(model, {"0": StuckAt(p_off=0.5), "2": None}, crossbar={"0": crossbar})
    only_first[0].analog.input_range = analog[0].analog.input_range
    only_first[0].analog.output_bound = analog[0].analog.output_bound
    by_hand = analogsim.evaluate(only_first, data, chips=3, times=(0,)).values
    assert np.array_equal(result.reports["Gaussian"].values, by_hand)


def test_one_chip_has_no_spread():
    model, data = trained()
    result = analogsim.ablate(analogsim.convert(model, "pcm"), data, chips=1, times=("1d",))
    assert np.isnan(result.gain("PCMDrift")[1]).all()
    assert "nan" not in str(result)


def test_whatever_is_analog_stays_so() -> None:
    """Tables, and matrices inside of modules."""
    torch.manual_seed(0)

    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.rnn, self.head = nn.Embedding(9, 4), nn.GRU(4, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, words: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(self.table(words))[0])

    analog = analogsim.convert(Tagger(), {"*.weight_hh_l0": None, "*": "pcm"}, embeddings=True)
    loader = [(torch.randint(9, (6, 4)), torch.randint(3, (6, 4)))]
    ablation = analogsim.ablate(analog, loader, chips=2, times=("1d",), metric="cross_entropy")
    everything = ablation.reports["everything on"].values
    assert all(
        (report.values != everything).all()
        for name, report in ablation.reports.items()
        if report.values is not everything
    )
    result = analogsim.sensitivity(analog, loader, chips=2, metric="cross_entropy")
    assert set(result.ranking) == {"table", "rnn.weight_ih_l0", "head"}
