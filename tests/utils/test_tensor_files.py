from __future__ import annotations

from pathlib import Path

import pytest
import torch

from analogsim.utils.tensor_files import read_tensors, write_tensors


def test_what_is_written_is_read(tmp_path: Path) -> None:
    tensors = {"a/b": torch.arange(6.0).view(2, 3), "c": torch.tensor(True)}
    write_tensors(tmp_path / "file", tensors, {"format": "mine"}, "save")
    found, about = read_tensors(tmp_path / "file", "load", "is not mine")
    assert about == {"format": "mine"}
    assert found.keys() == tensors.keys()
    assert all(torch.equal(value, tensors[key]) for key, value in found.items())


def test_what_cannot_be_read_or_written_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^load: no file '.*there'$"):
        read_tensors(tmp_path / "there", "load", "is not mine")
    (tmp_path / "text").write_text("no tensors", encoding="utf-8")
    with pytest.raises(ValueError, match=r"^load: '.*text' is not mine or is damaged: "):
        read_tensors(tmp_path / "text", "load", "is not mine")
    with pytest.raises(OSError, match=r"^save: cannot write '.*nowhere.file'"):
        write_tensors(tmp_path / "nowhere" / "file", {"a": torch.zeros(1)}, {}, "save")


def test_what_was_there_stays_where_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_tensors(path, {"a": torch.ones(2)}, {}, "save")
    shared = torch.zeros(4)
    with pytest.raises((OSError, RuntimeError)):
        write_tensors(path, {"a": shared[:2], "b": shared}, {}, "save")  # of one storage, which the format has not
    assert torch.equal(read_tensors(path, "load", "is not mine")[0]["a"], torch.ones(2))
