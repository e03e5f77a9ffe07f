"""The networks that are timed."""

import pytest
import torch
from torch import nn

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["mlp", "mlp-1024", "lenet5", "transformer"])
def test_a_case_is_always_the_same(name):
    from benchmarks.harness.networks import CASES

    case = CASES[name]
    model, (inputs, labels) = case.model(CPU), case.data(CPU, 2)
    assert model(inputs).shape == (2, 10)
    assert inputs.shape == (2, *case.shape)
    assert labels.shape == (2,)
    state = torch.get_rng_state()
    again = case.model(CPU)
    assert torch.equal(state, torch.get_rng_state())
    assert all(map(torch.equal, model.parameters(), again.parameters()))
    assert all(map(torch.equal, (inputs, labels), case.data(CPU, 2)))


def test_the_sizes_are_those_of_the_table():
    from benchmarks.harness.networks import CASES

    def linear(inputs, outputs):
        return (inputs + 1) * outputs

    sizes = {name: sum(p.numel() for p in case.model(CPU).parameters()) for name, case in CASES.items()}
    assert sizes["mlp"] == linear(784, 100) + linear(100, 100) + linear(100, 10)
    assert sizes["mlp-1024"] == linear(784, 1024) + linear(1024, 1024) + linear(1024, 10)
    norms = 2 * 2 * 768
    assert sizes["transformer"] == 4 * linear(768, 768) + linear(768, 3072) + linear(3072, 768) + norms + linear(
        768, 10
    )
    assert {name: case.batch for name, case in CASES.items()} == {
        "mlp": 64,
        "mlp-1024": 256,
        "lenet5": 64,
        "resnet18": 32,
        "transformer": 8,
    }


def test_the_transformer_block_is_that_of_torch():
    from benchmarks.harness.networks import TransformerBlock

    torch.manual_seed(0)
    ours = TransformerBlock(8, 2, 16).double()
    theirs = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=True).double()
    with torch.no_grad():
        for norm in (ours.norm1, ours.norm2):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
        first = (ours.query, ours.key, ours.value)
        theirs.self_attn.in_proj_weight.copy_(torch.cat([layer.weight for layer in first]))
        theirs.self_attn.in_proj_bias.copy_(torch.cat([layer.bias for layer in first]))
    pairs = ((ours.out, theirs.self_attn.out_proj), (ours.up, theirs.linear1), (ours.down, theirs.linear2))
    for mine, other in (*pairs, (ours.norm1, theirs.norm1), (ours.norm2, theirs.norm2)):
        other.load_state_dict(mine.state_dict())
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    assert torch.allclose(ours(x), theirs(x), rtol=0, atol=1e-12)


def test_resnet18_has_the_size_of_the_paper_with_a_small_stem():
    from benchmarks.harness.networks import CASES

    case = CASES["resnet18"]
    model = case.model(CPU)
    assert sum(parameter.numel() for parameter in model.parameters()) == 11_173_962
    assert model(case.data(CPU, 2)[0]).shape == (2, 10)
    assert all(map(torch.equal, model.parameters(), case.model(CPU).parameters()))
