"""Fused experts of transformers: each on a crossbar of its own."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import analogsim
from analogsim import ConversionWarning, Crossbar, DeviceModel, Gaussian, Mapping
from analogsim.layers.module import matrices_of
from tests.hardware import Exact

transformers: Any = pytest.importorskip("transformers")


SIZES = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
}

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "Mixtral": ("MixtralConfig", {"num_local_experts": 4}),
    "Qwen2-MoE": (
        "Qwen2MoeConfig",
        {"num_experts": 4, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8, "decoder_sparse_step": 1},
    ),
    "GPT-OSS": ("GptOssConfig", {"num_local_experts": 4, "head_dim": 8}),
}


def made(name: str, way: str) -> tuple[nn.Module, Tensor]:
    config, more = NETWORKS[name]
    torch.manual_seed(0)
    told = getattr(transformers, config)(**SIZES, **more)
    model = transformers.AutoModelForCausalLM.from_config(told, experts_implementation=way)
    model = model.double() if way == "eager" else model  # grouped kernels know no double precision
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model, torch.randint(0, 32, (2, 5))


def quietly(model: nn.Module, device: Any, **options: Any) -> Any:
    """The twin, without the warning of the table that stays digital."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConversionWarning)
        return analogsim.convert(model, device, **options)


UNUSED = pytest.mark.filterwarnings("ignore:training of .* analog layers without a part")  # experts nobody chose


@UNUSED
@pytest.mark.parametrize("name", NETWORKS)
def test_every_expert_is_a_matrix(name: str, tmp_path: Path) -> None:
    model, words = made(name, "eager")
    wanted = model(words).logits
    wanted.square().sum().backward()
    slopes = {key: parameter.grad for key, parameter in model.named_parameters()}
    model.zero_grad()
    device = DeviceModel((Exact(),), mapping=Mapping("pair", bias_rows=1))
    analog = quietly(model, device, crossbar=Crossbar(output_bound=1e9, rows=7))
    names = {matrix.analog.name for matrix in matrices_of(analog)}
    experts = {f"model.layers.0.mlp.experts.{part}_proj.{place}" for part in ("gate_up", "down") for place in range(4)}
    assert experts < names
    got = analog(words).logits
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)
    got.square().sum().backward()
    for key, parameter in model.named_parameters():
        if slopes[key] is not None:
            torch.testing.assert_close(parameter.grad, slopes[key], rtol=1e-7, atol=1e-7)
    rows = {row.name: row for row in analogsim.summary(analog).rows}
    assert rows["model.layers.0.mlp.experts.down_proj.3"].parameters == 16 * 8 + 16 * (name == "GPT-OSS")
    assert sum(row.parameters for row in rows.values()) == sum(p.numel() for p in model.parameters())
    analogsim.program(analog, seed=1)
    torch.testing.assert_close(analog.eval()(words).logits, wanted, rtol=1e-9, atol=1e-9)
    plain = analogsim.to_digital(analog, "programmed")
    torch.testing.assert_close(plain(words).logits, wanted, rtol=1e-9, atol=1e-9)


@UNUSED
@pytest.mark.parametrize("name", NETWORKS)
def test_chips_of_experts(name: str, tmp_path: Path) -> None:
    model, words = made(name, "grouped_mm")
    wanted = model(words).logits
    silent = quietly(model, Gaussian(std=0.0))
    torch.testing.assert_close(silent(words).logits, wanted, rtol=1e-3, atol=1e-3)
    only = {"*.experts.gate_up_proj.1": Gaussian(std=0.5), "*.experts.down_proj.*": Gaussian(std=0.5), "*": None}
    analog = quietly(model, only)
    assert len(matrices_of(analog)) == 5
    assert not torch.allclose(analog(words).logits, wanted)
    analogsim.program(analog, seed=1)
    answer = analog.eval()(words).logits
    assert not torch.allclose(answer, wanted)
    torch.testing.assert_close(copy.deepcopy(analog)(words).logits, answer)
    torch.testing.assert_close(pickle.loads(pickle.dumps(analog))(words).logits, answer)
    analogsim.save_chip(analog, tmp_path / "chip.safetensors")
    analogsim.erase(analog)
    analogsim.load_chip(analog, tmp_path / "chip.safetensors")
    torch.testing.assert_close(analog(words).logits, answer)
    assert list(analog.state_dict()) == list(model.state_dict())
