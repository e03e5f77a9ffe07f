from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from analogsim.recipes.cli import PROGRAMS, main
from analogsim.recipes.config.arguments import add_settings, files_and_overrides

SHORT = {"epochs": ("optimization.epochs", "100 % of the passes"), "min-clean": ("study.min_clean", "a bound")}


def given(*words: str) -> tuple[list[str], list[str]]:
    parser = argparse.ArgumentParser()
    add_settings(parser, SHORT)
    assert "100 % of the passes" in parser.format_help()
    return files_and_overrides(parser.parse_args(words), SHORT)


def test_files_settings_and_short_options_are_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "a=b.toml"
    file.touch()
    assert given() == ([], [])
    assert given("run.toml", "--epochs", "3", "--download", "--no-tracking") == (
        ["run.toml"],
        ["optimization.epochs=3", "data.download=true", "tracking.enabled=false"],
    )
    assert given(str(file), "a=b", "--min-clean=0.9") == ([str(file)], ["a=b", "study.min_clean=0.9"])
    with pytest.raises(ValueError, match=r"one configuration file, .* got a\.toml, b\.toml"):
        given("a.toml", "b.toml")


def test_every_program_is_listed_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = " ".join(capsys.readouterr().out.split())
    for program in PROGRAMS:
        assert f"{program.name} {program.help}" in listed
    names = [program.name for program in PROGRAMS]
    assert names == [
        *("judge", "train", "tune", "evaluate", "sensitivity", "compare", "ui", "devices", "fit", "summary"),
        *("init", "doctor", "completion"),
    ]
