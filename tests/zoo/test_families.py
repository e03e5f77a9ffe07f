"""Families of the zoo: forwards that take products with weights in ways of their own run on crossbars all the same."""

from __future__ import annotations

import pytest
import torch

import analogsim
from analogsim import Gaussian
from analogsim.layers import matrices_of
from benchmarks.harness.zoo_families import FAMILIES
from benchmarks.harness.zoo_networks import Network, Perfect, deviation, loss_of, tensors
from benchmarks.zoo import place

pytestmark = [
    pytest.mark.filterwarnings("ignore::analogsim.ConversionWarning"),
    pytest.mark.filterwarnings("ignore:An output with one or more elements was resized"),
]

# Of the tiny ones: the least share of the parameters, and of the multiply-accumulates, that run analog. The rest are
# tables, vectors, and products of two activations.
SHARES: dict[str, tuple[float, float]] = {
    "beit": (0.94, 0.89),
    "beit-v2": (0.94, 0.89),
    "eva-02": (0.94, 0.89),
    "timm-swin-v2": (0.97, 0.85),
    "nfnet": (0.99, 1.0),
    "attention-pooling": (0.77, 0.95),
    "subclasses": (0.76, 0.92),
    "mamba": (0.79, 0.95),
    "mamba-2": (0.83, 0.76),
    "falcon": (0.86, 0.92),
    "mixtral": (0.93, 0.92),
    "qwen2-moe": (0.91, 0.92),
    "gpt-oss": (0.89, 0.89),
    "gcn": (0.91, 1.0),
    "gat": (0.79, 1.0),
    "graph-sage": (1.0, 1.0),
}

FAST = ("beit", "attention-pooling", "subclasses", "mixtral", "gcn")


@pytest.fixture(params=[name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES])
def family(request: pytest.FixtureRequest) -> Network:
    found = FAMILIES[request.param]
    pytest.importorskip(found.needs, reason=f"needs {found.needs}: analogsim-torch[zoo,graphs]")
    return found


def test_each_has_its_shares() -> None:
    assert list(SHARES) == list(FAMILIES)


def test_it_runs_on_crossbars_and_answers_as_the_digital_network(family: Network) -> None:
    model, example = family.build()
    model, example = model.double().eval(), example.to(torch.float64)
    with torch.no_grad():
        wanted = [each.clone() for each in tensors(example.run(model))]
        silent = analogsim.convert(model, Perfect())
        analogsim.program(silent)
        assert deviation(list(tensors(example.run(silent))), wanted) < 1e-9
        noisy = analogsim.convert(model, Gaussian(0.1))
        analogsim.program(noisy, seed=1)
        assert deviation(list(tensors(example.run(noisy))), wanted) > 1e-4
        if not any(matrix.computed for matrix in matrices_of(noisy)):  # which no Parameter could hold
            plain = analogsim.to_digital(noisy, weights="programmed")
            assert deviation(list(tensors(example.run(plain))), list(tensors(example.run(noisy)))) < 1e-9
    analogsim.audit(noisy, *example.args, **example.kwargs).check()
    found = place(model, example)
    held, made = SHARES[family.name]
    assert found.analog_parameters >= held
    assert found.analog_macs >= made


@pytest.mark.slow
def test_it_trains_as_the_digital_network_does(family: Network) -> None:
    model, example = family.build()
    model, example = model.double().train(), example.to(torch.float64)
    slopes = []
    for network in (model, analogsim.convert(model, Perfect()).train()):
        model.zero_grad()
        torch.manual_seed(0)
        loss_of(example.run(network)).backward()
        slopes.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    wanted, found = slopes
    assert set(found) >= set(wanted)
    for name, slope in found.items():
        torch.testing.assert_close(slope, wanted.get(name, torch.zeros_like(slope)), rtol=1e-7, atol=1e-9)
