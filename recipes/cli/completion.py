"""Completion of the command line by the Tab key: ``analogsim completion bash``."""

from __future__ import annotations

import argparse
import re

from analogsim.errors import MissingPackageError
from analogsim.recipes.config.arguments import Program
from analogsim.utils.packages import how_to_install

SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")
_PLACES = """where it goes:
  bash:
    completions=~/.local/share/bash-completion/completions
    mkdir -p $completions && analogsim completion bash > $completions/analogsim
  zsh (with fpath+=~/.zfunc before compinit in ~/.zshrc):
    mkdir -p ~/.zfunc && analogsim completion zsh > ~/.zfunc/_analogsim
  fish:
    analogsim completion fish > ~/.config/fish/completions/analogsim.fish
  tcsh (with source ~/.analogsim.tcsh in ~/.tcshrc):
    analogsim completion tcsh > ~/.analogsim.tcsh
  powershell:
    analogsim completion powershell >> $PROFILE"""


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """A shell's own script, which completes commands and options without starting Python.

    Raises:
        ImportError: shtab, which makes it, is not installed.
    """
    try:
        import shtab
    except ImportError as error:
        raise MissingPackageError(f"completion needs shtab: {how_to_install('completion')}") from error
    script = str(shtab.complete(parser, shell=shell))
    # By itself bash would complete no files any more, of which most commands take one.
    return re.sub(r"^(complete .*)-F ", r"\1-o default -F ", script, flags=re.MULTILINE) if shell == "bash" else script


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.description = "Print a script by which the Tab key completes commands and options."
    parser.epilog = _PLACES
    parser.add_argument("shell", choices=SHELLS, help="the shell that it is for")


def _run(options: argparse.Namespace) -> None:
    print(completion(options.whole, options.shell))


PROGRAM = Program(
    "completion",
    "a script for the shell, by which the Tab key completes",
    _declare,
    _run,
    examples=("completion bash", "completion zsh"),
)
