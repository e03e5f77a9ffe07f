"""Networks that accelerate has put its hooks on, each by a forward in the place of the module's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import analogsim
from analogsim import Gaussian

pytestmark = [
    pytest.mark.slow,  # accelerate alone takes seconds to import
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),  # theirs to heed
]

accelerate: Any = pytest.importorskip("accelerate", reason='needs pip install "analogsim-torch[frameworks]"')


def _hooked(model: nn.Module) -> nn.Module:
    hook = accelerate.hooks.AlignDevicesHook(io_same_device=True)
    for module in model:  # type: ignore[attr-defined]
        accelerate.hooks.add_hook_to_module(module, hook)
    return accelerate.hooks.add_hook_to_module(model, accelerate.hooks.ModelHook())  # type: ignore[no-any-return]


WRAPPED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "hooks": _hooked,
    "dispatch_model": lambda model: accelerate.dispatch_model(
        model, {"0": "cpu", "1": "cpu", "2": "cpu"}, force_hooks=True
    ),
    "prepare": lambda model: accelerate.Accelerator(cpu=True).prepare(model),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED.keys())
def test_a_hooked_network_runs_on_crossbars(wrap: Callable[[nn.Module], nn.Module]) -> None:
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    wanted = network()(x)
    model = wrap(network())
    torch.testing.assert_close(model(x), wanted)
    silent = analogsim.convert(model, Gaussian(0.0), example=x)
    analogsim.program(silent)
    torch.testing.assert_close(silent.eval()(x), wanted)
    noisy = analogsim.convert(model, Gaussian(0.5))
    analogsim.program(noisy, seed=1)
    assert (noisy.eval()(x) - wanted).abs().max() > 1e-2
    assert analogsim.audit(noisy, x).passed
    torch.testing.assert_close(model(x), wanted)
    torch.testing.assert_close(analogsim.to_digital(noisy)(x), wanted)
    noisy.train()(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_weights_that_are_away_are_refused_with_the_remedy() -> None:
    model = accelerate.cpu_offload(network(), torch.device("cpu"))
    with pytest.raises(ValueError, match="layer '0' is on the meta device, without values; load the weights first"):
        analogsim.convert(model, "pcm")
