"""Files are there whole or not at all, whatever happens."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from analogsim.utils.files import lock_file, write_figure, write_whole

POSIX = pytest.mark.skipif(os.name != "posix", reason="modes, links and streams are those of POSIX")


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("content", ["µS\n", "µS\n".encode(), memoryview("µS\n".encode())])
def test_text_and_bytes(tmp_path: Path, content: Any) -> None:
    write_whole(tmp_path / "a.txt", content)
    assert (tmp_path / "a.txt").read_bytes() == "µS\n".encode()
    write_whole(str(tmp_path / "a.txt"), "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_a_function_writes_to_a_path_it_is_given(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.bin", lambda draft: draft.write_bytes(b"new"))
    assert (tmp_path / "a.bin").read_bytes() == b"new"
    assert names(tmp_path) == ["a.bin"]


def test_the_old_file_is_there_until_the_new_one_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen, sync = tmp_path / "a.txt", [], os.fsync
    path.write_text("old")

    def look(file: int) -> None:
        seen.append(("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else os.fstat(file).st_size, path.read_text()))
        sync(file)

    monkeypatch.setattr("os.fsync", look)
    write_whole(path, "new one")
    assert seen[0] == (7, "old")
    assert seen[1:] == ([("folder", "new one")] if os.name == "posix" else [])


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_an_error_in_the_middle_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    def half(draft: Path) -> None:
        draft.write_text("ha")
        raise error

    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(type(error)):
        write_whole(tmp_path / "a.txt", half)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("step", ["os.fsync", "os.replace"])
def test_a_full_disk_leaves_the_old_file_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a.txt").write_text("old")
    monkeypatch.setattr(step, full)
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.txt'$"):
        write_whole(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_where_folders_cannot_be_synced_it_works_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync = os.fsync

    def files_only(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(file)

    monkeypatch.setattr("os.fsync", files_only)
    write_whole(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_a_folder_that_is_not_there_or_cannot_be_written_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FileNotFoundError, match=r"'.*nowhere.a\.txt'$"):
        write_whole(tmp_path / "nowhere" / "a.txt", "new")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=r"folder'$"):
        write_whole(tmp_path / "folder", "new")
    (tmp_path / "a.txt").write_text("old")

    def refuse(path: Any, *_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))

    monkeypatch.setattr("os.open", refuse)
    with pytest.raises(PermissionError, match=r"a\.txt'$"):
        write_whole(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt", "folder"]


def test_a_file_that_is_write_protected_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("old")
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)  # root may write anything
    with pytest.raises(PermissionError, match=r"Permission denied: '.*a\.txt'$"):
        write_whole(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"


@POSIX
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_modes_are_those_of_open(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "whole", lambda draft: draft.write_text("new"))
        (tmp_path / "opened").write_text("new")
        for name in ("shared", "private"):
            (tmp_path / name).write_text("old")
            (tmp_path / name).chmod(0o664 if name == "shared" else 0o600)
            write_whole(tmp_path / name, "new")
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in names(tmp_path)}
    assert modes == {"whole": 0o666 & ~umask, "opened": 0o666 & ~umask, "shared": 0o664, "private": 0o600}


@POSIX
def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far" / "a.txt")
    for content in ("one", "two"):
        write_whole(tmp_path / "link", content)
        assert (tmp_path / "far" / "a.txt").read_text() == content
    assert (tmp_path / "link").is_symlink()


@POSIX
def test_streams_are_written_into(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_whole(tmp_path / "pipe", "through")
    reader.join(10)
    assert read == ["through"]
    write_whole(os.devnull, "gone")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    program = "from analogsim.utils.files import write_whole; write_whole('/dev/stdout', 'shown')"
    with open(tmp_path / "out.txt", "w") as out:
        subprocess.run([sys.executable, "-c", program], stdout=out, check=True)
    assert (tmp_path / "out.txt").read_text() == "shown"


def test_many_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    path, spoilt = tmp_path / "a.txt", []
    whole = {f"{number}" * 100_000 for number in range(4)}
    write_whole(path, min(whole))

    def write(content: str) -> None:
        for _ in range(10):
            write_whole(path, content)
            if path.read_text() not in whole:
                spoilt.append(content)

    writers = [threading.Thread(target=write, args=(content,)) for content in whole]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert not spoilt
    assert path.read_text() in whole
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills with SIGKILL")
def test_a_kill_in_the_middle_leaves_the_old_file(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from analogsim.utils.files import write_whole\n"
        "def half(draft):\n"
        "    draft.write_text('ha')\n"
        "    print('half', flush=True)\n"
        "    time.sleep(60)\n"
        "write_whole(sys.argv[1], half)\n"
    )
    path = tmp_path / "a.txt"
    path.write_text("old")
    writer = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "half\n"
    writer.kill()
    writer.communicate()
    assert path.read_text() == "old"
    (draft,) = (each for each in names(tmp_path) if each.endswith(".part"))
    (tmp_path / f"{draft}-journal").touch()  # as SQLite leaves it beside a database
    write_whole(path, "new")  # what the killed one left is in nobody's way
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_names_as_long_as_the_system_takes(tmp_path: Path) -> None:
    for name in ("a" * 255, "µ" * 127):
        write_whole(tmp_path / name, "new")
        assert (tmp_path / name).read_text() == "new"


def test_figures_take_their_format_from_the_name(tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib", reason="needs analogsim-torch[plot]")
    from matplotlib.figure import Figure

    assert matplotlib
    for name, start in (("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("plain", None)):
        write_figure(tmp_path / name, Figure())
        assert start is None or (tmp_path / name).read_bytes().startswith(start)
    assert (tmp_path / "plain.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="nonsense"):
        write_figure(tmp_path / "a.nonsense", Figure())
    assert names(tmp_path) == ["a.png", "a.svg", "plain.png"]


@POSIX
def test_what_a_killed_writer_left_goes_with_the_next(tmp_path: Path) -> None:
    """Its draft, that of nobody else: not those of writers that live, or of another machine."""
    code = (
        "import os, sys\nfrom analogsim.utils.files import write_whole\n"
        "write_whole(sys.argv[1], lambda draft: os.kill(os.getpid(), 9))\n"
    )
    path = tmp_path / "report.json"
    done = subprocess.run([sys.executable, "-c", code, str(path)], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = names(tmp_path)
    machine = left.removeprefix(".report.json.").partition("-")[0]
    others = [
        f".report.json.{machine}-{os.getppid()}-00.part",
        f".report.json.0{machine[1:]}x-{2**22}-00.part",
        ".other.json.x.part",
    ]
    for name in others:
        (tmp_path / name).touch()
    write_whole(path, "{}")
    assert names(tmp_path) == sorted([*others, "report.json"])
    for name in others:
        os.utime(tmp_path / name, (0, 0))
    write_whole(path, "{}")
    assert names(tmp_path) == sorted([others[0], others[2], "report.json"]), "older than a day"


def test_a_lock_holds_until_the_file_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    code = (
        "import sys\nfrom analogsim.utils.files import lock_file\nprint(lock_file(open(sys.argv[1], 'r+b')), end='')\n"
    )

    def elsewhere() -> str:
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        return done.stdout

    path.touch()
    with path.open("r+b") as file:
        assert lock_file(file)
        assert elsewhere() == "False"
    assert elsewhere() == "True"
