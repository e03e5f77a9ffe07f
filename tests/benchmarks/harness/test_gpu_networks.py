"""Networks for a card: of the size that their papers say, and dry ones that go through the same forward."""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness.gpu_networks import CASES, TINY, block_stack, resnet50, vision_transformer

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", CASES)
def test_a_dry_one_stands_for_each(name: str) -> None:
    case = TINY[name]
    images, labels = case.data(CPU)
    assert case.model(CPU)(images).shape == (len(labels), 10)
    assert all(a.equal(b) for a, b in zip(case.model(CPU).parameters(), case.model(CPU).parameters(), strict=True))


def test_sizes_are_those_of_the_papers() -> None:
    with torch.device("meta"):
        weights = [
            sum(p.numel() for p in model().parameters()) for model in (resnet50, vision_transformer, block_stack)
        ]
    # Without their classifiers of 1000 classes: 25.6 - 2.0 million (table 1, and 2048 x 1000), 86 million, a billion.
    assert weights[0] == 23_508_032 + 2048 * 10 + 10
    assert weights[1] == pytest.approx(85.8e6, rel=0.01)
    assert weights[2] == pytest.approx(1.007e9, rel=0.01)
