"""Several chips at once give the scores of the loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import analogsim
from analogsim import Crossbar, draw_faults


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 4))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (2, 3, 1)), nn.Conv2d(2, 8, (2, 1), groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4)
    )


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
        self.head = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x.unsqueeze(1).expand(-1, 3, -1)).mean(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {"mlp": mlp, "convolutions": convolutions, "attention": Attention}
PCM = analogsim.as_device_model("pcm")
BIAS_ROWS = PCM.replace(mapping=dataclasses.replace(PCM.laid, bias_rows=2))
CROSSBARS: dict[str, Any] = {
    "ideal": "ideal",
    "bias rows": "ideal",
    "converters": Crossbar(rows=4, dac_bits=6, adc_bits=6, output_bound=4.0, gain_mismatch=0.05, offset_mismatch=0.01),
}


def loader(samples: int = 50) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(samples, 6, generator=generator), torch.randint(4, (samples,), generator=generator)
    return list(zip(x.split(20), y.split(20), strict=True))


@pytest.mark.parametrize("crossbar", CROSSBARS.keys())
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS.keys())
def test_the_scores_are_those_of_the_loop(make: Callable[[], nn.Module], crossbar: str) -> None:
    torch.manual_seed(0)
    device = BIAS_ROWS if crossbar == "bias rows" else PCM
    analog = analogsim.convert(make().double(), device, crossbar=CROSSBARS[crossbar])
    data = [(x.double(), y) for x, y in loader()]
    options: Any = {"chips": 5, "times": (0, "1d", "1y"), "metric": "cross_entropy"}
    before = [module.training for module in analog.modules()]
    loop = analogsim.evaluate(analog, data, **options)
    at_once = analogsim.evaluate(analog, data, together=3, **options)
    np.testing.assert_allclose(at_once.values, loop.values, rtol=1e-9)
    assert loop.std.min() > 0
    assert (at_once.clean, at_once.seeds, at_once.samples) == (loop.clean, loop.seeds, loop.samples)
    assert [module.training for module in analog.modules()] == before
    with pytest.raises(analogsim.NotProgrammedError):
        analog.eval()(data[0][0])


def test_with_faults_and_a_chip_that_was_there() -> None:
    torch.manual_seed(0)
    analog = analogsim.convert(mlp(), "pcm").eval()
    analogsim.program(analog, seed=9)
    x = loader()[0][0]
    answer = analog(x)
    options: Any = {"chips": 4, "times": ("1d",), "faults": lambda seed: draw_faults(analog, seed=seed)}
    loop = analogsim.evaluate(analog, loader(), metric="cross_entropy", **options)
    at_once = analogsim.evaluate(analog, loader(), metric="cross_entropy", together=4, **options)
    np.testing.assert_allclose(at_once.values, loop.values, rtol=1e-4)
    assert torch.equal(analog(x), answer)


def test_layer_by_layer() -> None:
    torch.manual_seed(0)
    analog = analogsim.convert(mlp(), "pcm")
    loop = analogsim.sensitivity(analog, loader(), chips=4, metric="cross_entropy")
    at_once = analogsim.sensitivity(analog, loader(), chips=4, metric="cross_entropy", together=4)
    for name in ("0", "4"):
        assert at_once.mean(name) == pytest.approx(loop.mean(name), rel=1e-3)


@pytest.mark.parametrize(
    ("device", "crossbar", "options", "words"),
    [
        ("read-noise", "ideal", {}, "layer '0' has white read noise, .* leave out together"),
        ("pcm", "standard", {}, "layer '0' has output noise"),
        ("pcm", "ideal", {"together": 0}, "together must be an integer >= 1, got 0"),
        ("pcm", "ideal", {"together": True}, "together must be an integer"),
        ("pcm", "ideal", {"compensation": "batch-norm", "calibration": [torch.zeros(4, 6)]}, "made for each chip"),
    ],
)
def test_what_cannot_be(device: str, crossbar: Any, options: dict[str, Any], words: str) -> None:
    analog = analogsim.convert(mlp(), device, crossbar=crossbar)
    with pytest.raises(ValueError, match=words):
        analogsim.evaluate(analog, loader(), **{"chips": 2, "times": (0,), "together": 2, **options})


def test_a_network_that_torch_cannot_map() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.fc(x)
            return y if y.sum() > 0 else -y

    analog = analogsim.convert(Branching(), "pcm")
    with pytest.raises(
        RuntimeError, match=r"cannot take several chips through Branching at once: .*Leave out together"
    ):
        analogsim.evaluate(analog, loader(), chips=2, times=(0,), together=2)
    with pytest.raises(analogsim.NotProgrammedError):
        analog.eval()(loader()[0][0])
