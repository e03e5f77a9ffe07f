"""torchvision's Swin transformers, whose attention takes products with its layers' weights by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import ConversionWarning, Crossbar, DeviceModel, Gaussian, Mapping
from analogsim.inspection.carrying import audit
from tests.hardware import LARGE, Exact

swin: Any = pytest.importorskip("torchvision.models.swin_transformer")

pytestmark = pytest.mark.filterwarnings("ignore::analogsim.ConversionWarning")  # the table of positions stays digital

VERSIONS = {1: "ShiftedWindowAttention", 2: "ShiftedWindowAttentionV2"}


IDEAL = DeviceModel((Exact(),))


def attention(version: int, **options: bool) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = getattr(swin, VERSIONS[version])(8, [4, 4], [2, 2], 2, **options)
    for name, parameter in made.named_parameters():
        if name.endswith("bias") or "table" in name:
            nn.init.normal_(parameter)
    return made.double()


def images() -> Tensor:
    return torch.randn(2, 6, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def gradients(output: Tensor, model: nn.Module) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(output.square().sum(), list(model.parameters()), allow_unused=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("periphery", [Crossbar(), LARGE, LARGE.replace(rows=3, cols=8)], ids=["ideal", "large", "cut"])
@pytest.mark.parametrize("bias_rows", [0, 2])
def test_ideal_is_digital(version: int, periphery: Crossbar, bias_rows: int) -> None:
    """In training and on a chip; also the bias without its part for the keys, which version 2 hands on."""
    model, x = attention(version), images()
    wanted = model(x)
    slopes = gradients(wanted, model)
    device = DeviceModel((Exact(),), mapping=Mapping("pair", bias_rows=bias_rows))
    analog = analogsim.convert(model, device, crossbar=periphery)
    trained = analog.train()(x)
    torch.testing.assert_close(trained, wanted, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(gradients(trained, model), slopes, strict=True):
        # The keys' bias has a part on the crossbar that is subtracted again: 0 and nothing are one.
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    analogsim.program(analog)
    torch.testing.assert_close(analog.eval()(x), wanted, rtol=1e-12, atol=1e-12)
    plain = analogsim.to_digital(analog, "programmed")
    assert type(plain) is type(model)
    torch.testing.assert_close(plain(x), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("periphery", [Crossbar(), LARGE], ids=["ideal", "converted"])
@pytest.mark.parametrize("options", [{}, {"qkv_bias": False}, {"proj_bias": False}], ids=str)
def test_every_product_runs_on_its_crossbar(version: int, periphery: Crossbar, options: dict[str, bool]) -> None:
    """The audit perturbs each array in turn; the two arrays alone make the difference to the digital answer."""
    model, x = attention(version, **options), images()
    analog = analogsim.convert(model, IDEAL, crossbar=periphery)
    analogsim.program(analog)
    analog.eval()
    report = audit(analog, x)
    assert report.passed
    assert {row.name for row in report.rows if row.calls == 1} >= {"qkv", "proj"}
    noisy = analogsim.convert(model, Gaussian(0.1))
    analogsim.program(noisy, seed=1)
    answer = noisy.eval()(x)
    assert not torch.allclose(answer, model(x))
    torch.testing.assert_close(answer, analogsim.to_digital(noisy, "programmed")(x))


@pytest.mark.parametrize("kept", ["qkv", "proj"])
def test_one_of_the_two_may_stay_digital(kept: str) -> None:
    model, x = attention(1), images()
    analog = analogsim.convert(model, {kept: None, "*": IDEAL})
    analogsim.program(analog)
    report = audit(analog.eval(), x)
    assert report.passed
    assert kept not in {row.name for row in report.rows}
    torch.testing.assert_close(analog(x), model(x))


def test_with_both_digital_the_module_is_left_as_it_is() -> None:
    analog = analogsim.convert(nn.Sequential(attention(1), nn.Linear(8, 2)), {"0*": None, "*": "pcm"})
    assert type(analog[0]) is swin.ShiftedWindowAttention
    assert type(analog[0].qkv) is nn.Linear


def test_its_table_of_positions_stays_digital_and_is_told() -> None:
    with pytest.warns(ConversionWarning, match="relative_position_bias_table"):
        analog = analogsim.convert(attention(1), "pcm")
    found = analogsim.summary(analog)
    assert {row.name: row.analog for row in found.rows} == {"": False, "qkv": True, "proj": True}
    assert sum(row.share for row in found.rows) == pytest.approx(1)
