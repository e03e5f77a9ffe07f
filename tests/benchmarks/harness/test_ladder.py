import tarfile
from pathlib import Path

import pytest
import torch
from torch import nn

from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import load_toml
from analogsim.recipes.tasks import networks
from analogsim.recipes.training.setup import check
from benchmarks.harness import ladder

SHAPES = {"narrow": (1, 28, 28), "small_mlp": (1, 8, 8), "separable": (1, 28, 28), "small_vit": (1, 28, 28)}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data that is empty."""
    monkeypatch.setenv(ladder.FOLDER, str(tmp_path / "given"))
    (tmp_path / "given").mkdir()
    return tmp_path / "given"


@pytest.mark.parametrize("name", SHAPES)
def test_networks_answer_with_a_logit_for_each_class(name: str) -> None:
    if name == "small_vit":
        pytest.importorskip("torchvision", reason="needs analogsim-torch[recipes]")
    network = getattr(ladder, name)(SHAPES[name], 10).eval()
    assert network(torch.rand(2, *SHAPES[name])).shape == (2, 10)


def test_characters_are_told_at_each_place() -> None:
    assert ladder.char_lstm(11)(torch.zeros(2, 5, dtype=torch.int64)).shape == (2, 5, 11)


@pytest.mark.parametrize(
    "name", [name for name, rung in ladder.LADDER.items() if not (rung.archive or "{" in rung.data)]
)
def test_what_needs_no_data_of_its_own_can_be_trained(name: str, tmp_path: Path) -> None:
    check(load_toml(Config, None, ladder.settings_of(ladder.LADDER[name], tmp_path)))


def test_data_that_are_not_there_are_told_with_the_variable(place: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no spoken-digits.tar.gz in .* by {ladder.FOLDER}"):
        ladder.settings_of(ladder.LADDER["spoken-cnn"], tmp_path)


def test_an_archive_is_unpacked_once(place: Path, tmp_path: Path) -> None:
    (tmp_path / "spoken-digits").mkdir()
    (tmp_path / "spoken-digits" / "one").write_text("1", encoding="utf-8")
    with tarfile.open(place / "spoken-digits.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "spoken-digits", "spoken-digits")
    work = tmp_path / "work"
    settings = ladder.settings_of(ladder.LADDER["spoken-cnn"], work)
    assert settings[0] == f"data.name=audio:{work}/spoken-digits"
    unpacked = work / "spoken-digits" / "one"
    unpacked.unlink()
    ladder.settings_of(ladder.LADDER["spoken-cnn"], work)
    assert not unpacked.exists()


def test_weights_of_others_come_under_our_names(place: Path, tmp_path: Path) -> None:
    with tarfile.open(place / "cifar10-jpeg.tar.gz", "w:gz"):
        pass
    network = networks.build("resnet20", (3, 32, 32), 10, seed=5)
    theirs = {f"module.{at}": value for at, value in enumerate(network.state_dict().values()) if value.ndim}
    torch.save({"state_dict": theirs}, place / ladder.LADDER["cifar10-resnet20"].weights)
    *_, last = ladder.settings_of(ladder.LADDER["cifar10-resnet20"], tmp_path / "work")
    ours = torch.load(last.removeprefix("weights="), weights_only=True)
    assert ours.keys() == network.state_dict().keys()
    assert all(torch.equal(ours[name], value) for name, value in network.state_dict().items())


def test_weights_of_another_network_are_refused(place: Path, tmp_path: Path) -> None:
    with tarfile.open(place / "cifar10-jpeg.tar.gz", "w:gz"):
        pass
    torch.save({"state_dict": nn.Linear(2, 2).state_dict()}, place / ladder.LADDER["cifar10-resnet20"].weights)
    with pytest.raises(ValueError, match="are not the weights of resnet20"):
        ladder.settings_of(ladder.LADDER["cifar10-resnet20"], tmp_path / "work")
