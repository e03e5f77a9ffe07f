from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from analogsim.recipes.cli import PROGRAMS, main
from analogsim.recipes.cli.output import add_output, result_written
from analogsim.recipes.config.arguments import Program


def options(*words: str, result: str | None = "it") -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.set_defaults(command="program")
    add_output(parser, Program("program", "", lambda _: None, lambda _: None, result=result))
    return parser.parse_args(words)


def run(words: argparse.Namespace, result: object) -> None:
    with result_written(words) as give:
        print("a table")
        give(result)


def test_a_file_and_what_is_printed_as_ever(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(options("--json", "a.json"), {"x": 1})
    assert json.loads(Path("a.json").read_text()) == {"x": 1}
    assert capsys.readouterr() == ("a table\n", "")


def test_alone_on_standard_output(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(options("--json", "-"), {"x": 1})
    assert capsys.readouterr() == ('{"x": 1}\n', "a table\n")
    run(options("--json=-", "--quiet"), {"x": 1})
    assert capsys.readouterr() == ('{"x": 1}\n', "")
    run(options("--json", "-"), None)  # of a process that another one writes for
    assert capsys.readouterr() == ("", "a table\n")
    assert list(Path().iterdir()) == []


def test_nothing_is_written_after_an_error(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        with result_written(options("--json", "-")):
            print("half a table")
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert capsys.readouterr() == ("", "half a table\n")


def test_a_file_that_cannot_be_written_is_told_first(fail: Callable[..., str]) -> None:
    assert "devices: there is no folder for 'no/a.json'" in fail("devices", "--json", "no/a.json")


def test_every_command_with_a_result_has_it() -> None:
    without = [program.name for program in PROGRAMS if program.result is None]
    assert without == ["ui", "completion"]  # a server, and a script that is the output itself
    with pytest.raises(SystemExit):
        options("--json", "-", result=None)
    with pytest.raises(SystemExit):
        main(["ui", "--json", "-"])
