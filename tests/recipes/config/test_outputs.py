from __future__ import annotations

import os
from pathlib import Path

import pytest

from analogsim.errors import AnalogsimError
from analogsim.recipes.config.outputs import check_figure, check_output, missing_folders, remove_empty


def test_what_can_be_written_is_left_alone(tmp_path: Path) -> None:
    there = tmp_path / "there.json"
    there.write_text("before")
    for file in (None, there, tmp_path / "new.json", os.devnull, "/dev/stdout"):
        check_output(file, "evaluate")
    assert there.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["there.json"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "needs a name"),
        ("a\0b", "needs a name"),
        ("there", "is a folder"),
        ("new/", "is a folder"),
        ("nowhere/x.json", "there is no folder for '.*'; make it first"),
        ("file/x.json", "there is no folder for"),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "file").touch()
    for check in (check_output, check_figure):
        with pytest.raises(AnalogsimError, match=f"^evaluate: .*{told}"):
            check(name, "evaluate")


def test_what_may_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(OSError, match=r"fit: '.*x.toml' may not be written"):
        check_output(tmp_path / "x.toml", "fit")


def test_a_figure_is_of_a_kind_that_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("x.png", "x.svg", "x.pdf", "x"):
        check_figure(tmp_path / name, "fit")
    with pytest.raises(ValueError, match=r"^fit: cannot draw '.*x.docx': Format 'docx' .*\.png, \.svg"):
        check_figure(tmp_path / "x.docx", "fit")
    assert not list(tmp_path.iterdir())


def test_folders_are_taken_away_again(tmp_path: Path) -> None:
    wanted = tmp_path / "a" / "b" / "c"
    made = missing_folders(wanted)
    assert made == [wanted, wanted.parent, wanted.parent.parent]
    wanted.mkdir(parents=True)
    assert missing_folders(wanted) == []
    (tmp_path / "a" / "kept").touch()
    remove_empty(made)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept"]
