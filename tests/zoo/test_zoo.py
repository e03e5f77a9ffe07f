"""The zoo: what people really have goes through `convert` unchanged, and does what the digital network does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import DeviceModel, Drift, Gaussian
from benchmarks.harness.zoo_networks import NETWORKS, Example, Network, Perfect, deviation, loss_of, tensors
from benchmarks.zoo import place

pytestmark = [
    pytest.mark.filterwarnings("ignore::analogsim.ConversionWarning"),
    # torch's encoder packs padded sentences so in eval, and warns of itself.
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
]

# What of each network keeps Parameters with two or more axes on the digital side.
DIGITAL: dict[str, set[str]] = {
    "convnext": {"CNBlock"},
    "vit": {"VisionTransformer", "Encoder"},
    "swin": {"ShiftedWindowAttention"},
    "swin-v2": {"ShiftedWindowAttentionV2"},
    "bert": {"Embedding"},
    "gpt2": {"Embedding"},
    "hf-vit": {"ViTEmbeddings"},
    "llama": {"Embedding"},
    "t5": {"Embedding"},
    "timm-vit": {"VisionTransformer"},
    "lstm-tagger": {"Embedding"},
    "transformer": {"Embedding"},
}

# What takes products of two activations, which have no stored operand.
PRODUCTS: dict[str, set[str]] = {
    "vit": {"MultiheadAttention"},
    "swin": {"ShiftedWindowAttention"},
    "swin-v2": {"ShiftedWindowAttentionV2"},
    "bert": {"BertSelfAttention"},
    "gpt2": {"GPT2Attention"},
    "hf-vit": {"ViTAttention"},
    "llama": {"LlamaAttention"},
    "t5": {"T5Attention"},
    "timm-vit": {"Attention"},
    "transformer": {"MultiheadAttention"},
}

NOISY = DeviceModel((Gaussian(0.05), Drift(nu=0.05, nu_std=0.02)))


@pytest.fixture(params=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> Network:
    found = NETWORKS[request.param]
    pytest.importorskip(found.needs, reason="needs analogsim-torch[zoo]")
    return found


def outputs(module: nn.Module, example: Example) -> list[Tensor]:
    with torch.no_grad():
        return [each.clone() for each in tensors(example.run(module))]


def learn(module: nn.Module, example: Example) -> tuple[Tensor, list[Tensor]]:
    """Loss and outputs of a training forward, backward included."""
    module.zero_grad()
    torch.manual_seed(1)
    output = example.run(module.train())
    loss = loss_of(output)
    loss.backward()
    return loss.detach(), [each.detach() for each in tensors(output)]


# --- with all noise off ---------------------------------------------------------------------------------------------


def test_without_noise_a_training_step_is_that_of_the_model(network: Network) -> None:
    """The same outputs, gradients, and batch statistics, dropout included, in float64 to rounding."""
    model, example = network.build()
    model, example = model.double(), example.to(torch.float64)
    reference = copy.deepcopy(model)
    analog = analogsim.convert(model, Perfect())
    loss, wanted = learn(reference, example)
    # Some language models work out their loss in float32, and with it the gradients.
    exact = 1e-9 if loss.dtype is torch.float64 else 1e-4
    again, found = learn(analog, example)
    assert deviation([again], [loss]) < exact
    assert deviation(found, wanted) < exact
    gradients = {name: parameter.grad for name, parameter in reference.named_parameters()}
    largest = max(float(gradient.abs().max()) for gradient in gradients.values() if gradient is not None)
    assert largest > 0
    for name, parameter in model.named_parameters():
        gradient = gradients[name]
        assert (parameter.grad is None) == (gradient is None), name
        if gradient is not None:
            torch.testing.assert_close(parameter.grad, gradient, rtol=exact, atol=exact * largest, msg=name)
    for name, buffer in reference.named_buffers():
        torch.testing.assert_close(model.get_buffer(name), buffer, rtol=1e-9, atol=1e-12, msg=name)


def test_without_noise_a_chip_answers_as_the_model(network: Network) -> None:
    """In eval, with and without autograd: torch has other kernels for the two."""
    model, example = network.build()
    model, example = model.double().eval(), example.to(torch.float64)
    wanted = outputs(model, example)
    analog = analogsim.convert(model, Perfect())
    analogsim.program(analog, seed=0)
    assert deviation(outputs(analog, example), wanted) < 1e-9
    with_graph = [each.detach() for each in tensors(example.run(analog))]
    assert deviation(with_graph, wanted) < 1e-9


# --- with noise -----------------------------------------------------------------------------------------------------


def test_a_noisy_training_step_moves_the_model(network: Network) -> None:
    """Finite loss, not the clean one; gradients land on the model's own Parameters, and a step moves them."""
    model, example = network.build()
    loss, _ = learn(copy.deepcopy(model), example)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    analog = analogsim.convert(model, NOISY)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    noisy, _ = learn(analog, example)
    assert noisy.isfinite()
    assert noisy != loss
    missing = [name for name in trained if model.get_parameter(name).grad is None]
    assert missing == []
    assert all(model.get_parameter(name).grad.isfinite().all() for name in trained)  # type: ignore[union-attr]
    optimizer.step()
    still = [name for name in trained if torch.equal(model.get_parameter(name), before[name])]
    assert still == []


def check_chip(network: Network, device: Any) -> None:
    model, example = network.build()
    clean = outputs(model.eval(), example)
    analog = analogsim.convert(model, device)
    analogsim.program(analog, seed=0)
    fresh = outputs(analog, example)
    assert all(each.isfinite().all() for each in fresh)
    assert deviation(fresh, clean) > 1e-6
    analogsim.drift(analog, "1d")
    aged = outputs(analog, example)
    assert all(each.isfinite().all() for each in aged)
    assert deviation(aged, fresh) > 1e-6
    assert deviation(outputs(analog, example), aged) == 0
    with_graph = [each.detach() for each in tensors(example.run(analog))]
    assert deviation(with_graph, aged) < 1e-4
    again = analogsim.convert(model, device)
    with analogsim.programmed(again, seed=0, t="1d"):
        assert deviation(outputs(again, example), aged) == 0
    assert deviation(outputs(model, example), clean) == 0


def test_a_chip_drifts_and_answers_alike_each_time(network: Network) -> None:
    check_chip(network, NOISY)


@pytest.mark.slow
def test_a_chip_of_phase_change_memory(network: Network) -> None:
    # Its read noise goes on through a stream: restarted by drift, it is the same again.
    model, example = network.build()
    clean = outputs(model.eval(), example)
    analog = analogsim.convert(model, "pcm")
    analogsim.program(analog, seed=0)
    analogsim.drift(analog, "1d")
    aged = outputs(analog, example)
    assert all(each.isfinite().all() for each in aged)
    assert deviation(aged, clean) > 1e-6
    analogsim.drift(analog, "1d")
    assert deviation(outputs(analog, example), aged) == 0


# --- to and fro -----------------------------------------------------------------------------------------------------


def test_state_dicts_load_strictly_both_ways(network: Network) -> None:
    model, example = network.build()
    clean = outputs(model.eval(), example)
    analog = analogsim.convert(model, NOISY)
    kept, changed = (copy.deepcopy(model.state_dict()) for _ in range(2))
    assert list(analog.state_dict()) == list(kept)
    for value in changed.values():
        if value.is_floating_point():
            value.mul_(0.5)
    analog.load_state_dict(changed, strict=True)
    assert deviation(outputs(model, example), clean) > 1e-6
    model.load_state_dict(kept, strict=True)
    assert all(torch.equal(value, kept[name]) for name, value in analog.state_dict().items())
    assert deviation(outputs(model, example), clean) == 0


def test_digital_again(network: Network) -> None:
    """Clean, it is the model; programmed, it answers as the chip does."""
    model, example = network.build()
    model, example = model.double().eval(), example.to(torch.float64)
    analog = analogsim.convert(model, NOISY)
    clean = analogsim.to_digital(analog)
    assert [type(module) for module in clean.modules()] == [type(module) for module in model.modules()]
    assert deviation(outputs(clean, example), outputs(model, example)) == 0
    analogsim.program(analog, seed=0)
    analogsim.drift(analog, "1d")
    chip = analogsim.to_digital(analog, weights="programmed")
    assert [type(module) for module in chip.modules()] == [type(module) for module in model.modules()]
    assert deviation(outputs(chip, example), outputs(analog, example)) < 1e-9
    assert deviation(outputs(chip, example), outputs(model, example)) > 1e-6


# --- nothing in name only -------------------------------------------------------------------------------------------


def test_what_stays_digital_is_what_has_to(network: Network) -> None:
    analog = analogsim.convert(network.build()[0], NOISY)
    matrices = {module for module in analog.modules() if any(p.ndim >= 2 for p in module.parameters(recurse=False))}
    names = {name for name, module in analog.named_modules() if module in matrices}
    rows = [row for row in analogsim.summary(analog).rows if row.name in names]
    assert {row.kind for row in rows if not row.analog} == DIGITAL.get(network.name, set())
    assert any(row.analog for row in rows)
    assert all(row.device for row in rows)


def test_every_product_with_a_weight_runs_on_crossbars(network: Network) -> None:
    found = place(*network.build())
    assert found.digital_macs.keys() == PRODUCTS.get(network.name, set())
    assert found.analog_macs + sum(found.digital_macs.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "network",
    [name if place % 5 == 0 else pytest.param(name, marks=pytest.mark.slow) for place, name in enumerate(NETWORKS)],
    indirect=True,
)
def test_every_analog_layer_moves_the_output(network: Network) -> None:
    model, example = network.build()
    analog = analogsim.convert(model.eval(), NOISY)
    analogsim.audit(analog, *example.args, **example.kwargs).check()
