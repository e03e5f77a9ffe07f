"""The checks for a card find what they are for: tried on the CPU, with what is checked broken."""

from __future__ import annotations

import pytest
import torch

import analogsim
from benchmarks.harness import gpu_checks

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", [name for name in gpu_checks.CHECKS if not name.startswith("compiled")])
def test_on_the_cpu_they_pass(name: str) -> None:
    gpu_checks.CHECKS[name](CPU)


def test_another_chip_after_a_move_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    program, seeds = analogsim.program, iter((1, 2))
    monkeypatch.setattr(analogsim, "program", lambda analog, seed: program(analog, next(seeds)))
    with pytest.raises(AssertionError, match="not close"):
        gpu_checks.a_chip_is_the_same_everywhere(CPU)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["gaussian", "pcm"])
def test_compiled_steps_pass(device: str) -> None:
    gpu_checks.compiled_steps_draw_anew_and_train(CPU, device)


@pytest.mark.slow
def test_draws_that_repeat_are_found() -> None:
    with pytest.raises(AssertionError):
        gpu_checks.compiled_steps_draw_anew_and_train(CPU, "quantization")
