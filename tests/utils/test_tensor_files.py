from __future__ import annotations

import random
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from analogsim.utils.tensor_files import read_archive, read_tensors, write_archive, write_tensors


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


def flipped(path: Path, count: int = 200) -> Iterator[None]:
    """A file with one bit flipped, again and again; as it was in the end."""
    whole, draw = path.read_bytes(), random.Random(0)
    try:
        for place in (draw.randrange(8 * len(whole)) for _ in range(count)):
            damaged = bytearray(whole)
            damaged[place // 8] ^= 1 << place % 8
            path.write_bytes(damaged)
            yield
    finally:
        path.write_bytes(whole)


def test_one_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """Or hides that there is a digest, of which nothing else is hurt."""
    path = tmp_path / "file"
    tensors, about = {"a": torch.randn(30, 4), "b": torch.arange(3)}, {"format": "mine", "more": "words"}
    write_tensors(path, tensors, about, "save")
    silent = 0
    for _ in flipped(path):
        try:
            found, words = read_tensors(path, "load", "is not mine")
        except ValueError as error:
            assert re.match(r"load: '.*file' is (not mine or is )?damaged: ", str(error))  # noqa: PT017
        else:
            silent += 1
            assert about.items() <= words.items()
            assert all(torch.equal(found[key], value) for key, value in tensors.items())
    assert silent < 10
    assert read_tensors(path, "load", "is not mine")[1] == {"format": "mine", "more": "words"}


def test_a_file_without_a_digest_is_read(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "file", metadata={"format": "mine"})
    assert read_tensors(tmp_path / "file", "load", "is not mine")[1] == {"format": "mine"}


CONTENT = {"model": {"weight": torch.arange(600.0), "count": torch.tensor(3)}, "epoch": 3, "history": [{"loss": 1.5}]}


def same(found: Any) -> bool:
    """Whether what is read is what was written."""
    model = found["model"]
    numbers = torch.equal(model["weight"], torch.arange(600.0)) and torch.equal(model["count"], torch.tensor(3))
    return numbers and (found["epoch"], found["history"]) == (3, [{"loss": 1.5}])


def test_archives_are_those_of_torch(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    write_archive(path, CONTENT)
    for read in (read_archive(path), torch.load(path, weights_only=True)):
        assert same(read)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_one_flipped_bit_of_an_archive_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file.pt"
    write_archive(path, CONTENT)
    silent = 0
    for _ in flipped(path):
        try:
            found = read_archive(path)
        except ValueError as error:
            assert str(error).startswith("it is damaged")  # noqa: PT017
        else:
            silent += 1
            assert same(found)
    assert silent < 10, "in the mark of the digest, which is not seen then"


def test_archives_without_a_digest_are_looked_at_by_their_check_sums(tmp_path: Path) -> None:
    """What is left is filling and dates, of which nothing is used."""
    path = tmp_path / "file.pt"
    torch.save(CONTENT, path)
    for _ in flipped(path):
        try:
            found = read_archive(path)
        except (ValueError, RuntimeError):
            continue
        assert same(found)
    torch.save(CONTENT, path, _use_new_zipfile_serialization=False)
    assert read_archive(path)["epoch"] == 3
