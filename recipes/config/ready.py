"""The configurations that come with analogsim, by their names."""

from __future__ import annotations

from pathlib import Path

from analogsim.errors import InvalidValueError
from analogsim.utils.text import nearest

_FOLDER = Path(__file__).resolve().parents[1] / "configs"


def ready_names() -> tuple[str, ...]:
    """The names that `ready_file` takes, in order."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def ready_file(name: str) -> Path:
    """Where the configuration of that name lies, in a checkout and in an installed package.

    Raises:
        ValueError: there is none of that name; with the nearest one.
    """
    known = ready_names()
    if name not in known:
        raise InvalidValueError(
            f"no configuration {name!r}{nearest(name, known, 0.6) or '.'} Known are {', '.join(known)}; of your own: "
            "the path of a TOML file"
        )
    return _FOLDER / f"{name}.toml"
