from pathlib import Path

import pytest

from analogsim.recipes.tasks.sources.options import (
    check_choice,
    check_positive,
    check_whole,
    existing,
    path_and_options,
)


def reader(place, *, size=None, mels=40):
    raise AssertionError("it is looked at, not called")


@pytest.mark.parametrize(
    ("text", "path", "options"),
    [
        ("/data/set", "/data/set", {}),
        ("/data/set(size=32)", "/data/set", {"size": 32}),
        ("/data/set (size=(32, 48), mels=8)", "/data/set", {"size": (32, 48), "mels": 8}),
        ("/data/my set (1)", "/data/my set (1)", {}),
        ("/data/my set (1)(size=32)", "/data/my set (1)", {"size": 32}),
        (r"C:\data\set", r"C:\data\set", {}),
        (r"C:\data (old)\set(mels=4)", r"C:\data (old)\set", {"mels": 4}),
        ("a:b[c]{d}(mels=4)", "a:b[c]{d}", {"mels": 4}),
        ("a(b(mels=4)", "a(b", {"mels": 4}),
        ("a)(", "a)(", {}),
        ("a()", "a()", {}),
    ],
)
def test_a_path_and_its_options(text, path, options):
    assert path_and_options(text, "folder", reader) == (Path(path), options)


def test_what_exists_is_a_path_whatever_its_name(tmp_path):
    odd = tmp_path / "set(size=32)"
    odd.mkdir()
    assert path_and_options(str(odd), "folder", reader) == (odd, {})
    assert path_and_options(f"{odd}(mels=3)", "folder", reader) == (odd, {"mels": 3})


def test_home_is_understood(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert path_and_options("~/x(mels=3)", "folder", reader)[0] == tmp_path / "x"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "the path is missing; write folder:PATH"),
        ("  ", "the path is missing"),
        ("(size=32)", r"the path is missing in '\(size=32\)'"),
        ("x(sise=32)", r"no option 'sise'; did you mean 'size'\?; there are size, mels"),
        ("x(size=32, size=64)", "cannot read the parameters|name each parameter"),
        ("x(size=open)", "the value of size .* must be a number, True, False or text in quotes, got open"),
        ("x(size=__import__('os'))", "the value of size"),
    ],
)
def test_what_is_refused(text, why):
    with pytest.raises(ValueError, match=why):
        path_and_options(text, "folder", reader)


@pytest.mark.parametrize("value", [0, -3, 1.0, "2", True, None])
def test_whole_numbers(value):
    assert check_whole("audio", "mels", 4, 1) == 4
    with pytest.raises(ValueError, match=r"audio: mels must be a whole number >= 1, got "):
        check_whole("audio", "mels", value, 1)


@pytest.mark.parametrize("value", [0, -0.1, float("nan"), float("inf"), "1", True])
def test_positive_numbers(value):
    assert check_positive("audio", "hop", 1) == 1.0
    with pytest.raises(ValueError, match=r"audio: hop must be a number above 0, got "):
        check_positive("audio", "hop", value)


def test_choices():
    assert check_choice("audio", "layout", "image", ("image", "sequence")) == "image"
    with pytest.raises(ValueError, match="layout must be 'image' or 'sequence', got 3"):
        check_choice("audio", "layout", 3, ("image", "sequence"))


def test_what_is_there(tmp_path):
    file = tmp_path / "data.tar.gz"
    file.write_bytes(b"")
    assert existing(tmp_path, "folder", folder=True) == tmp_path
    assert existing(file, "npz", folder=False) == file
    with pytest.raises(ValueError, match=r"data.tar.gz: is an archive; unpack it"):
        existing(file, "folder", folder=True)
    with pytest.raises(ValueError, match="is a folder; give one file"):
        existing(tmp_path, "npz", folder=False)
    with pytest.raises(FileNotFoundError, match=r"no such file; did you mean 'data.tar.gz'\?"):
        existing(tmp_path / "data.tar.g", "npz", folder=False)
    with pytest.raises(FileNotFoundError, match=r"no such folder$"):
        existing(tmp_path / "no" / "where", "folder", folder=True)
    other = tmp_path / "x.txt"
    other.write_text("")
    with pytest.raises(ValueError, match="is a file; give the folder"):
        existing(other, "folder", folder=True)
