from __future__ import annotations

import threading
from pathlib import Path

from analogsim.recipes.study.folder import owned_folder


def test_a_folder_belongs_to_one_study(tmp_path: Path) -> None:
    first = owned_folder(tmp_path / "runs", "a", "one")
    assert (first, owned_folder(tmp_path / "runs", "a", "one")) == (tmp_path / "runs" / "a", first)
    (tmp_path / "runs" / "a-2").mkdir()  # somebody else's, without a mark
    assert owned_folder(tmp_path / "runs", "a", "two") == tmp_path / "runs" / "a-3"
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["a", "a-2", "a-3"]


def test_threads_that_ask_at_once_get_the_same_folder(tmp_path: Path) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(owned_folder(tmp_path, "a", "me"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(found) == {tmp_path / "a"}
    assert len(found) == 8
