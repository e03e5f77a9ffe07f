import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from analogsim.recipes.judging.weights import put_weights, read_weights


@pytest.mark.parametrize("inside", [None, "state_dict", "model"])
def test_state_dicts(tmp_path, inside):
    state = nn.Linear(2, 3).state_dict()
    torch.save(state if inside is None else {inside: state, "epoch": 3}, tmp_path / "net.pt")
    assert read_weights(tmp_path / "net.pt").keys() == {"weight", "bias"}


def test_safetensors(tmp_path):
    save_file(nn.Linear(2, 3).state_dict(), tmp_path / "net.safetensors")
    assert read_weights(tmp_path / "net.safetensors").keys() == {"weight", "bias"}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module.model."])
def test_prefixes_are_left_out_and_said(prefix):
    source, target, told = nn.Linear(2, 3), nn.Linear(2, 3), []
    put_weights(target, {prefix + key: value for key, value in source.state_dict().items()}, "net.pt", told.append)
    assert torch.equal(source.weight, target.weight)
    assert told
    assert "net.pt" in told[0]


def test_a_network_whose_own_names_begin_so():
    target, told = nn.ModuleDict({"module": nn.Linear(2, 3)}), []
    put_weights(target, target.state_dict(), "net.pt", told.append)
    assert not told


class Harm:
    def __reduce__(self):
        return print, ("harm",)


def test_nothing_in_the_file_is_run(tmp_path, capsys):
    (tmp_path / "net.pt").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(ValueError, match=r"cannot be read as tensors alone"):
        read_weights(tmp_path / "net.pt")
    assert "harm" not in capsys.readouterr().out


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="weights: no file"):
        read_weights(tmp_path / "none.pt")
    torch.save({"epoch": 3}, tmp_path / "net.pt")
    with pytest.raises(ValueError, match="holds no state dict"):
        read_weights(tmp_path / "net.pt")
    with pytest.raises(ValueError, match="belong to another architecture"):
        put_weights(nn.Linear(2, 3), nn.Linear(3, 3).state_dict(), "net.pt", print)
