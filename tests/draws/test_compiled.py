"""Eager training draws by compiled kernels, one for each device model."""

from __future__ import annotations

import math

import pytest
import torch

from analogsim import DeviceModel, Drift, Gaussian, Quantization, ReadNoise
from analogsim.device.parse import as_device_model
from analogsim.draws import compiled
from analogsim.draws.noisy_weight import noisy_weight
from analogsim.draws.pairs import draw_pairs
from analogsim.noise.counter_based import row_keys

K = 5  # standard errors
DAY = 86400.0
CHAIN = DeviceModel(
    (Quantization(8, stochastic=True), Gaussian(0.05), Drift(0.05, 0.02), ReadNoise(0.02)), g_min=1.0, g_max=20.0
)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_scale_is_a_factor_on_the_error(scale: float, drawn: list[torch.Size]) -> None:
    device, weight = CHAIN, torch.randn(20, 30, dtype=torch.float64)
    found = []
    for factor in (1.0, scale, torch.tensor(scale)):
        torch.manual_seed(2)
        noisy, variance = noisy_weight(weight, device, factor, (DAY, DAY))
        assert variance is not None
        found.append((noisy - weight, variance))
    for error, variance in found[1:]:
        torch.testing.assert_close(error, found[0][0] * scale, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(variance, found[0][1] * scale**2, rtol=1e-6, atol=1e-8)
    assert len(drawn) == 3 + 1, "one to make the kernel ready"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_are_kept(dtype: torch.dtype, drawn: list[torch.Size]) -> None:
    weight = torch.randn(40, 50).to(dtype)
    noisy, _ = noisy_weight(weight, as_device_model("pcm"), 1.0, (DAY, DAY))
    assert noisy.dtype == dtype
    torch.manual_seed(2)
    wanted = (noisy_weight(weight.double(), as_device_model("pcm"), 1.0, (DAY, DAY))[0] - weight.double()).std()
    assert abs((noisy.double() - weight.double()).std() / wanted - 1) < K * 2 / math.sqrt(2000)


def test_equal_devices_share_a_kernel(drawn: list[torch.Size]) -> None:
    for _ in range(3):
        noisy_weight(torch.randn(4, 5), as_device_model("pcm"), 1.0, (DAY, DAY))
    assert len(drawn) == 4
    assert compiled.kernel_of.cache_info().misses == 1


def test_a_device_that_cannot_be_compiled_is_named(drawn: list[torch.Size], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> object:
        raise OSError("no way")

    monkeypatch.setattr(compiled, "compile_kernel", broken)
    with pytest.raises(RuntimeError, match=r"failed on device 'pcm'; .*use_compiled_noise\(False\): no way"):
        noisy_weight(torch.randn(4, 5), as_device_model("pcm"), 1.0, (DAY, DAY))


@pytest.mark.slow
def test_machine_code_draws_what_eager_code_does() -> None:
    """One kernel for each device, whatever the shapes; more devices than torch.compile takes for one function."""
    torch._dynamo.reset()
    t = torch.tensor(DAY)
    for spread in (0.5, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7):
        device = (
            as_device_model("pcm") if spread == 1 else CHAIN.replace(effects=(*CHAIN.effects[1:3], ReadNoise(spread)))
        )
        kernel = compiled.kernel_of(device, torch.float32, False)
        for shape in ((6, 25), (100, 784), (1, 7), (5, 1), (33, 65)):
            weight, keys = torch.randn(shape), row_keys(shape[0], t.device)
            got, scale = kernel(weight, None, torch.tensor(0.7), t, keys), torch.tensor(0.7)
            wanted = draw_pairs(weight, None, device, scale, t, keys)
            parts = (wanted.noisy, wanted.largest, wanted.gain, wanted.variance, wanted.within)
            for one, other in zip(got, parts, strict=True):
                assert (one is None) == (other is None)
                if one is not None:
                    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
