from __future__ import annotations

import threading
from pathlib import Path

import pytest

from analogsim.recipes.config.options import StudyConfig
from analogsim.recipes.config.toml import load_toml
from analogsim.recipes.study.folder import owned_folder, study_name


def test_a_folder_belongs_to_one_study(tmp_path: Path) -> None:
    first = owned_folder(tmp_path / "runs", "a", "one")
    assert (first, owned_folder(tmp_path / "runs", "a", "one")) == (tmp_path / "runs" / "a", first)
    (tmp_path / "runs" / "a-2").mkdir()  # somebody else's, without a mark
    assert owned_folder(tmp_path / "runs", "a", "two") == tmp_path / "runs" / "a-3"
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["a", "a-2", "a-3"]


def test_a_mark_of_an_earlier_version_and_one_that_is_damaged(tmp_path: Path) -> None:
    owner = "0123456789abcdef" * 2
    mark = owned_folder(tmp_path, "a", owner) / ".study"
    mark.write_text(owner)
    assert owned_folder(tmp_path, "a", owner) == tmp_path / "a"
    mark.write_text(owner.replace("3", "s", 1))
    with pytest.raises(ValueError, match=r"out: '.*a/.study', which says of which study its folder is, is damaged"):
        owned_folder(tmp_path, "a", owner)


def test_threads_that_ask_at_once_get_the_same_folder(tmp_path: Path) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(owned_folder(tmp_path, "a", "me"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(found) == {tmp_path / "a"}
    assert len(found) == 8


def test_a_study_is_named_by_data_model_and_device() -> None:
    def name(*settings: str) -> str:
        return study_name(load_toml(StudyConfig, None, list(settings)))

    assert name() == "digits-lenet5-pcm"
    assert name("study.pareto=true", "model=mlp") == "digits-mlp-pcm-pareto"
    assert name("study.name=mine") == "mine"
    assert name("model=my/nets.py:build", "data.name=/data/nets.py:data") == "nets-data-nets-build-pcm"
    assert name("model=my.nets:build", "data.name=folder:/data/leaves") == "folder-leaves-my-build-pcm"
