"""How to install what an optional part needs: one answer for all messages."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

DISTRIBUTION = "analogsim-torch"
"""The name that pip knows analogsim by; its import name belongs to another project there."""


def how_to_install(extra: str) -> str:
    """The pip command that adds an extra of pyproject.toml, for this environment.

    Where analogsim is installed, from a checkout or a wheel, pip takes that one for its name and adds what the extra
    lists, even if no index knows the name. Where it runs from a checkout that is not installed, that checkout is named.
    """
    try:
        version(DISTRIBUTION)
    except PackageNotFoundError:
        return f'pip install "{Path(__file__).resolve().parents[2]}[{extra}]"'
    return f'pip install "{DISTRIBUTION}[{extra}]"'
