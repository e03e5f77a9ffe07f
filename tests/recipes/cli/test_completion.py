from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from analogsim.recipes.cli import main
from analogsim.recipes.cli.completion import SHELLS


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_names_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="needs analogsim-torch[completion]")
    main(["completion", shell])
    out = capsys.readouterr().out
    assert all(word in out for word in ("sensitivity", "doctor", "no-tracking", "journal"))


def test_bash_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="needs analogsim-torch[completion]")
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    main(["completion", "bash"])
    script = tmp_path / "analogsim"
    script.write_text(capsys.readouterr().out)
    asked = (
        f"source {script}; COMP_WORDS=(analogsim se); COMP_CWORD=1; _shtab_analogsim; echo ${{COMPREPLY[@]}}; "
        "complete -p analogsim"
    )
    done = subprocess.run([bash, "--norc", "-c", asked], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "sensitivity"
    assert "-o default" in second  # files, where a command takes one


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch, fail: Callable[..., str]) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert 'completion needs shtab: pip install "analogsim-torch[completion]"' in fail("completion", "bash")
