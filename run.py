"""Set up analogsim in a checkout and run it: ``python3 run.py demo``, ``... test``, ``... check``.

Needs nothing but Python. The first command makes a virtual environment in ``.venv`` and installs the project with all
that it needs into it (torch is large: a minute or two); later ones start at once.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
STAMP = VENV / "installed-for"


def call(command: Sequence[str | os.PathLike[str]]) -> None:
    """Run a command in the checkout; its failure is ours."""
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code:
        raise SystemExit(code)


def set_up() -> None:
    """Make the environment, unless it is there for this very pyproject.toml."""
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    print("setting up .venv (once; torch is large, this takes a minute or two)", flush=True)
    if not BIN.exists():
        call([sys.executable, "-m", "venv", VENV])
    call([BIN / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", ".[dev]"])
    STAMP.write_text(wanted)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = {
        "demo": "train LeNet-5 on handwritten digits for phase-change memory; more words go to: analogsim train",
        "test": "run the tests; more words go to pytest, such as: -m slow",
        "check": "formatting, lint and types",
        "setup": "only make the environment",
    }
    listed = "; ".join(f"{name}: {text}" for name, text in commands.items())
    parser.add_argument("command", choices=commands, help=listed)
    options, rest = parser.parse_known_args()
    if sys.version_info < (3, 11):  # noqa: UP036 - what runs this file is not yet what pyproject.toml asks for
        raise SystemExit(f"analogsim needs Python 3.11 or newer, this is {sys.version.split()[0]}")
    set_up()
    python = BIN / "python"
    if options.command == "demo":
        call([python, "-m", "analogsim", "train", *rest])
    elif options.command == "test":
        call([python, "-m", "pytest", *rest])
    elif options.command == "check":
        call([python, "-m", "ruff", "format", "--check"])
        call([python, "-m", "ruff", "check"])
        call([python, "-m", "mypy"])


if __name__ == "__main__":
    main()
