import math

import pytest
import torch
from torch import nn

import analogsim
from analogsim.device import registry
from analogsim.device.parse import as_device_model
from analogsim.testing import DeviceContract
from benchmarks.harness.published_chips import (
    NAMES,
    RightCensored,
    Verified,
    daffodil,
    register_chips,
    verified_chips,
)


def written(model: nn.Module, device: object) -> torch.Tensor:
    """Errors of the weights of a chip of one layer, in units of the largest."""
    analog = analogsim.convert(model, device).eval()  # type: ignore[arg-type]
    analogsim.program(analog, seed=0)
    analogsim.drift(analog, 0)
    layer = analogsim.to_digital(analog, "programmed")
    clean: torch.Tensor = model.weight.detach()  # type: ignore[union-attr,operator]
    return (layer.weight.detach() - clean) / clean.abs().max()


@pytest.fixture
def layer() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(300, 200)


class TestRightCensored(DeviceContract):
    device = RightCensored(std=0.1, limit=1.0)


def test_noise_stops_on_the_right_alone(layer: nn.Module) -> None:
    error = written(layer, RightCensored(std=0.1, limit=1.0)) / 0.1
    assert float(error.max()) == pytest.approx(1, abs=1e-4)
    assert float((error > 0.999).float().mean()) == pytest.approx(0.1587, abs=4 * math.sqrt(0.1587 * 0.8413 / 60_000))
    assert float(error.min()) < -3


def test_what_was_chosen_is_written_better_and_nothing_else(layer: nn.Module) -> None:
    chosen = torch.rand(200, 300) < 0.25
    error = written(nn.Sequential(layer)[0], verified_chips(nn.Sequential(layer), {"0": chosen}, 0.1, 0.01)["0"])
    for mask, std in ((chosen, 0.01), (~chosen, 0.1)):
        count = int(mask.sum())
        assert float(error[mask].std()) == pytest.approx(std, rel=4 / math.sqrt(2 * count))


def test_choices_of_other_layers_are_refused(layer: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"masks of \['fc'\], and the network has \['0'\]"):
        verified_chips(nn.Sequential(layer), {"fc": torch.ones(200, 300, dtype=torch.bool)}, 0.1, 0.01)
    with pytest.raises(ValueError, match="2 weights were chosen from, and the layer has 60000"):
        written(layer, Verified(chosen=b"\1\0"))


def test_the_published_chip_is_stuck_outside_its_range(layer: nn.Module) -> None:
    analog = analogsim.convert(layer, [daffodil(), "stuck-at(p_off=0.1,p_on=0.1,off=10.0,on=500.0)"]).eval()
    analogsim.program(analog, seed=0)
    analogsim.drift(analog, 0)
    faults = analogsim.draw_faults(analogsim.convert(layer, daffodil()), "stuck-at(p_off=1.0,p_on=0.0,off=10.0)", 0)
    assert float(faults[""].min()) == float(faults[""].max()) == pytest.approx(10.0)
    weight = analogsim.to_digital(analog, "programmed").weight.detach()
    # 500 µS against 133: 3.67 of what the largest weight of a column takes.
    ratio = (weight.abs().amax(1) / layer.weight.abs().amax(1)).detach()  # type: ignore[union-attr,operator]
    assert 3.6 < float(ratio.min()) < float(ratio.max()) < 6.5


def test_text_names_them_when_asked_for_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "factories", dict(registry.factories))
    assert not NAMES.keys() & registry.factories.keys()
    register_chips()
    register_chips()
    assert as_device_model("right-censored(std=0.2,limit=1.5)").effects == (RightCensored(0.2, 1.5),)
    assert as_device_model("daffodil") == daffodil()
