from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from analogsim.recipes.config.options import Config
from analogsim.recipes.tasks import networks
from analogsim.recipes.train import PLAIN, resume_config, train
from analogsim.recipes.training.checkpoint import load_checkpoint

Tiny = Callable[..., Config]


@pytest.fixture
def stopped(tiny: Tiny, tmp_path: Path) -> Path:
    """The folder of a run of one epoch, without MLflow."""
    train(tiny("optimization.epochs=1"), tmp_path / "run", show=False)
    return tmp_path / "run"


def test_a_checkpoint_of_another_architecture_is_refused(stopped: Path) -> None:
    path = stopped / PLAIN / "checkpoint.pt"
    content = load_checkpoint(path)
    content["model"] = networks.build("lenet5", (1, 8, 8), 10).state_dict()
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"plain/checkpoint.pt' belongs to another architecture: .*fc1") as told:
        train(resume_config(stopped), stopped, show=False)
    assert len(str(told.value)) < 800


def test_a_damaged_checkpoint_is_told(stopped: Path) -> None:
    path = stopped / PLAIN / "checkpoint.pt"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no checkpoint\n"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"plain/checkpoint.pt' cannot be read, it may be damaged: "):
            train(resume_config(stopped), stopped, show=False)
    for other in ({"weight": torch.zeros(2)}, [1, 2]):
        torch.save(other, path)
        with pytest.raises(ValueError, match=r"plain/checkpoint.pt' was not written by analogsim train"):
            train(resume_config(stopped), stopped, show=False)
    with pytest.raises(FileNotFoundError, match=r"checkpoint: no file '.*nothing.pt'"):
        load_checkpoint(stopped / "nothing.pt")


def test_a_write_that_is_cut_short_leaves_the_old_checkpoint(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stopped / PLAIN / "checkpoint.pt"
    before = path.read_bytes()

    def half(file: int) -> None:
        os.ftruncate(file, os.fstat(file).st_size // 2)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", half)
    with pytest.raises(OSError, match=r"No space left on device: '.*plain/checkpoint.pt'"):
        train(resume_config(stopped), stopped, show=False)
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".*"))
