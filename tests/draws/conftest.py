from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import analogsim
from analogsim.draws import compiled
from analogsim.noise import counter_based


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.Size]]:
    """Compiled noise without a compiler: the same numbers in eager code; and the shapes that kernels were asked for."""
    shapes = []

    def plain(kernel: object) -> object:
        def run(clean: Tensor, *rest: Tensor) -> object:
            shapes.append(clean.shape)
            return kernel(clean, *rest)  # type: ignore[operator]

        return run

    monkeypatch.setattr(compiled, "compile_kernel", plain)
    monkeypatch.setattr(
        counter_based, "compiled_normal", lambda: lambda count, key: counter_based.normal((count,), key)
    )
    monkeypatch.setattr(analogsim.noise.sources, "_compiled", None)
    compiled.kernel_of.cache_clear()
    analogsim.use_compiled_noise()
    yield shapes
    compiled.kernel_of.cache_clear()
