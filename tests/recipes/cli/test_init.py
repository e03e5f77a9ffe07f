from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from analogsim.recipes.cli import main
from analogsim.recipes.cli.init import write_configuration
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.ready import ready_file, ready_names
from analogsim.recipes.config.toml import load_toml


@pytest.mark.parametrize("name", ready_names())
def test_what_is_written_is_the_configuration(alone: Path, name: str) -> None:
    written = write_configuration(name)
    assert written == Path(f"{name}.toml")
    assert load_toml(Config, written) == load_toml(Config, ready_file(name))
    assert written.read_text(encoding="utf-8").startswith(f"# analogsim train {name}.toml\n")


def test_the_command(alone: Path, capsys: pytest.CaptureFixture[str], fail: Callable[..., str]) -> None:
    main(["init", "digits-mlp"])
    assert (
        capsys.readouterr().out
        == "digits-mlp.toml\n\nchange it as you like, and run it: analogsim train digits-mlp.toml\n"
    )
    Path("digits-mlp.toml").write_text("mine")
    told = "there is a 'digits-mlp.toml' already; move it away, or overwrite it with --force"
    assert told in fail("init", "digits-mlp")
    assert Path("digits-mlp.toml").read_text() == "mine"
    main(["init", "digits-mlp", "--force", "--quiet"])
    assert capsys.readouterr().out == "digits-mlp.toml\n"
    assert "did you mean 'digits-mlp'?" in fail("init", "digit-mlp")
    assert list(Path().iterdir()) == [Path("digits-mlp.toml")]


def test_without_a_name_they_are_listed(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["init", "--json", "-"])
    out, err = capsys.readouterr()
    assert json.loads(out) == {"names": list(ready_names())}
    assert all(name in err for name in ready_names())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(alone: Path, fail: Callable[..., str]) -> None:
    alone.chmod(0o500)
    try:
        assert "may not be written" in fail("init", "digits-mlp")
    finally:
        alone.chmod(0o700)
