"""run.py: each command installs what it needs and no more, once; and hands on what it is told."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not (ROOT / "run.py").is_file(), reason="not in a checkout")


class Run:
    """run.py in a folder of its own, with all that it calls written down in place of being done."""

    def __init__(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = importlib.util.spec_from_file_location("run_of_the_test", ROOT / "run.py")
        assert spec is not None
        assert spec.loader is not None
        self.module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        (place / "pyproject.toml").write_text("[project]\n")
        self.place, self.calls, self.monkeypatch = place, [], monkeypatch
        venv = place / ".venv"
        for name, value in (
            ("ROOT", place),
            ("VENV", venv),
            ("BIN", venv / "bin"),
            ("STAMP", venv / "installed-for"),
            ("call", self.call),
        ):
            monkeypatch.setattr(self.module, name, value)

    def call(self, command: Any, minutes: float | None = None) -> None:
        words = [str(word) for word in command]
        if words[1:3] == ["-m", "venv"]:
            (self.place / ".venv" / "bin").mkdir(parents=True)
        self.calls.append(words)

    def __call__(self, *words: str) -> list[list[str]]:
        self.calls = []
        self.monkeypatch.setattr(sys, "argv", ["run.py", *words])
        self.module.main()
        return [call[1:] for call in self.calls]

    def installed(self, *words: str) -> list[str]:
        return [call[-1] for call in self(*words) if call[:3] == ["-m", "pip", "install"]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path, monkeypatch)


def test_a_command_installs_what_it_needs_and_another_adds_to_it(run: Run) -> None:
    assert run.installed("demo") == [".[recipes]"]
    assert run.installed("demo") == []
    assert run.installed("docs", "--no-serve") == [".[docs]"]
    assert run.installed("test") == [".[dev]"]
    for command in ("demo", "test", "check", "setup"):
        assert run.installed(command) == []


def test_dev_alone_is_enough_for_all_and_another_pyproject_begins_anew(run: Run) -> None:
    assert run.installed("setup") == [".[dev]"]
    assert run.installed("demo") == []
    (run.place / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    assert run.installed("demo") == [".[recipes]"]
    assert run.installed("check") == [".[dev]"]


def test_extras_that_are_asked_for_are_there() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    spec = importlib.util.spec_from_file_location("run_of_the_test", ROOT / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert set(module.EXTRAS.values()) <= set(extras)
    (everything,) = (line for line in extras["dev"] if line.startswith("analogsim-torch["))
    assert {"recipes", "docs"} <= set(everything.partition("[")[2].strip("]").split(","))


def test_the_demo_is_a_configuration_that_comes_along_and_says_what_is_next(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("demo")[-1] == ["-m", "analogsim", "train", "digits-mlp-16"]
    assert (ROOT / "recipes" / "configs" / "digits-mlp-16.toml").is_file()
    assert (
        "analogsim judge --model nets.py:build --weights net.safetensors --data data.py:load" in capsys.readouterr().out
    )
    assert run("demo", "--data", "fashion-mnist")[-1] == ["-m", "analogsim", "train", "--data", "fashion-mnist"]


def test_the_site_is_built_strictly_and_served_to_this_machine(run: Run) -> None:
    build, serve = run("docs", "--port", "8123")[-2:]
    assert build[:3] == ["-m", "sphinx", "-W"]
    assert serve[:4] == ["-m", "http.server", "--bind", "127.0.0.1"]
    assert serve[-1] == "8123"
    assert run("docs", "--no-serve")[-1][:2] == ["-m", "sphinx"]
