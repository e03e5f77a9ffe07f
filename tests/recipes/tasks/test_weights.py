from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from analogsim.recipes.tasks import networks
from analogsim.recipes.tasks.weights import load_into, read_weights

DATA = Path(os.environ.get("ANALOGSIM_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))


def net(seed: int = 0, out: int = 3) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, out))


def same(model: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("wrap", [None, "state_dict", "model", "net"])
def test_a_state_dict_alone_or_beside_other_things(tmp_path: Path, wrap: str | None) -> None:
    state = net(1).state_dict()
    torch.save(state if wrap is None else {"epoch": 3, "best": 0.5, wrap: state}, tmp_path / "w.th")
    save_file(state, tmp_path / "w.safetensors")
    for name in ("w.th", "w.safetensors"):
        model = net()
        assert load_into(model, read_weights(str(tmp_path / name)), "weights") == []
        assert same(model, state)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda key: f"module.{key}", "'module.' is taken from their names"),
        (lambda key: f"module.model.{key}", "'module.model.' is taken"),
        (lambda key: f"_orig_mod.{key}", "'_orig_mod.' is taken"),
    ],
)
def test_what_stands_before_all_names_is_understood_and_said(change: Any, note: str) -> None:
    state = net(1).state_dict()
    model = net()
    (told,) = load_into(model, {change(key): value for key, value in state.items()}, "weights 'w.pt'")
    assert told.startswith("weights 'w.pt': ")
    assert note in told
    assert same(model, state)


def test_a_network_in_a_network_takes_the_weights_of_the_inner_one() -> None:
    outer = nn.Sequential()
    outer.add_module("model", net())
    state = net(1).state_dict()
    assert load_into(outer, state, "weights") == ["weights: 'model.' is put before their names"]
    assert same(outer.model, state)  # type: ignore[arg-type]


def test_what_a_file_may_leave_out() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(6, 4)
            self.head = nn.Linear(4, 6, bias=False)
            self.head.weight = self.embedding.weight

    first = torch.arange(24.0).reshape(6, 4)
    tied = Tied()
    load_into(tied, {"embedding.weight": first}, "weights")
    assert tied.head.weight.equal(first)
    old = {key: value for key, value in net(1).state_dict().items() if "num_batches" not in key}
    load_into(net(), old, "weights")


def test_what_stands_beside_the_network_is_left_out_and_said() -> None:
    state = net(1).state_dict()
    inner = {f"net.{key}": value for key, value in state.items()}
    model = net()
    (told,) = load_into(model, {**inner, "criterion.weight": torch.ones(3)}, "weights")
    assert told.endswith(
        "'net.' is taken from their names; what stands under no such one is left out: criterion.weight"
    )
    assert same(model, state)
    two = {**inner, **{f"teacher.{key}": value + 1 for key, value in state.items()}}
    with pytest.raises(ValueError, match=r"weights hold 2 such networks, under 'net\.', 'teacher\.'; save the one"):
        load_into(model, two, "weights")


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_several_files_and_their_index(tmp_path: Path, ending: str) -> None:
    state = net(1).state_dict()
    stem = "model" if ending == "safetensors" else "pytorch_model"
    places = {key: f"{stem}-{at % 2}.{ending}" for at, key in enumerate(state)}
    for name in set(places.values()):
        part = {key: value for key, value in state.items() if places[key] == name}
        (save_file if ending == "safetensors" else torch.save)(part, tmp_path / name)
    index = tmp_path / f"{stem}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    for path in (index, tmp_path):
        model = net()
        load_into(model, read_weights(str(path)), "weights")
        assert same(model, state)
    (tmp_path / f"{stem}-1.{ending}").unlink()
    with pytest.raises(FileNotFoundError, match=rf"names '{stem}-1\.{ending}', which is missing beside it"):
        read_weights(str(index))
    for content, words in (
        ('{"weight_map": {"a": "../other.bin"}}', "names '../other.bin', which does not lie beside it"),
        ("[]", "is no index of weights; it needs a weight_map"),
    ):
        index.write_text(content)
        with pytest.raises(ValueError, match=words):
            read_weights(str(index))
    index.unlink()
    with pytest.raises(FileNotFoundError, match=r"the folder .* holds none of model\.safetensors, "):
        read_weights(str(tmp_path))


def test_two_weights_for_one_parameter() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    state = {**model.state_dict(), "1.weight": torch.ones(4, 4)}
    with pytest.raises(ValueError, match=r"0\.weight and 1\.weight are one Parameter in it, and differ there"):
        load_into(model, state, "weights")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weight: weight.to(torch.int8), r"2\.weight torch\.int8 for torch\.float32"),
        (lambda weight: weight.to(torch.complex64), r"2\.weight torch\.complex64 for torch\.float32"),
        (lambda weight: weight.to_sparse(), r"2\.weight torch\.sparse_coo for torch\.float32"),
    ],
)
def test_numbers_that_would_lose_their_meaning(change: Any, words: str) -> None:
    state = net(1).state_dict()
    with pytest.raises(ValueError, match=f"weights hold other kinds of numbers: {words}; save them as plain floats"):
        load_into(net(), {**state, "2.weight": change(state["2.weight"])}, "weights")
    model = net()
    load_into(model, {key: value.half() if value.is_floating_point() else value for key, value in state.items()}, "w")
    assert torch.allclose(model[2].weight, state["2.weight"], rtol=1e-3)  # type: ignore[index]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"0.weight": torch.zeros(5, 4)}, "missing: 0.bias, 1.weight, 1.bias, 1.running_mean and 3 more"),
        ({**net().state_dict(), "extra": torch.zeros(1)}, "left over: extra"),
        (net(out=2).state_dict(), r"of another shape: 2.weight \(2, 5\) for \(3, 5\), 2.bias \(2,\) for \(3,\)"),
        ({**net().state_dict(), "2.bias": torch.tensor([0, torch.nan, 0])}, "hold NaN or infinite values: 2.bias"),
    ],
)
def test_weights_of_another_network(state: dict[str, Tensor], words: str) -> None:
    model = net()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=words) as told:
        load_into(model, state, "weights 'w.pt'")
    assert "\n" not in str(told.value)
    assert same(model, before)


def test_files_that_are_none(tmp_path: Path) -> None:
    for content, words in (([1, 2], "but list"), ({"lr": 0.1, "seed": 3}, "but a dict of lr, seed")):
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(ValueError, match=f"holds no state dict, a dict of tensors by their names, {words}"):
            read_weights(str(tmp_path / "w.pt"))
    (tmp_path / "text.pt").write_text("not a file of weights")
    (tmp_path / "cut.safetensors").write_bytes(b'\x40\0\0\0\0\0\0\0{"a"')
    for name, words in (
        ("text.pt", "neither a safetensors file nor"),
        ("cut.safetensors", "no whole safetensors file"),
    ):
        with pytest.raises(ValueError, match=words):
            read_weights(str(tmp_path / name))
    with pytest.raises(FileNotFoundError, match=r"weights: no file 'nowhere\.pt'"):
        read_weights("nowhere.pt")


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "whole.pt")  # a pickled module, whose class would be imported
    with pytest.raises(
        ValueError,
        match=r"of tensors alone, which is all that is read: it holds torch\.nn\.modules\.\S+, for which code would "
        r"have to run; save torch.save\(model.state",
    ):
        read_weights(str(tmp_path / "whole.pt"))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the folder that ANALOGSIM_TEST_DATA names")
def test_published_weights_of_a_network_for_cifar() -> None:
    state = read_weights(str(DATA / "cifar-resnet20-12fca82f.th"))
    assert all(key.startswith("module.") for key in state)
    with pytest.raises(ValueError, match=r"missing: .*; left over: "):  # ours has other names
        load_into(networks.build("resnet20", (3, 32, 32), 10, seed=0), state, "weights")
