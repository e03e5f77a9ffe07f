"""Programs of the command line: what each tells of itself, and the arguments that several share."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from analogsim.errors import InvalidValueError
from analogsim.recipes.config.ready import ready_file


@dataclass(frozen=True)
class Program:
    """One command of ``analogsim``.

    Args:
        name: of the command.
        help: what it does, in one line.
        declare: gives a parser its arguments, and a description if one line does not say it all.
        run: does it, with the options that were given.
        words: the option that takes words without a dash, which may stand anywhere among the others; None where their
            places are fixed.
        examples: of what may follow ``analogsim``, for ``--help``.
        result: what ``--json`` writes, in words: what ``run`` gives, as JSON can hold it. None where there is nothing
            to be written, and no ``--json``.
        status: the exit status by what ``run`` gave; None: 0.
    """

    name: str
    help: str
    declare: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], object]
    words: str | None = None
    examples: tuple[str, ...] = ()
    result: str | None = None
    status: Callable[[object], int] | None = None


def add_settings(parser: argparse.ArgumentParser, short: Mapping[str, tuple[str, str]]) -> None:
    """A configuration file, settings, and the short options that stand for some of them.

    Args:
        parser: of the program.
        short: by the names of the options, the settings that they stand for and what they are.
    """
    parser.add_argument(
        "settings", nargs="*", metavar="FILE.toml | KEY=VALUE", help="a configuration file, and settings that change it"
    )
    for name, (_, help_text) in short.items():
        parser.add_argument(f"--{name}", metavar=name.upper(), help=help_text.replace("%", "%%"))
    parser.add_argument("--download", action="store_true", help="fetch missing data from the internet")
    parser.add_argument("--no-tracking", action="store_true", help="no MLflow")


def help_width() -> int:
    """Columns of help texts: those of the terminal, with a margin."""
    return max(40, shutil.get_terminal_size().columns - 2)


def files_and_overrides(
    options: argparse.Namespace, known: Mapping[str, tuple[str, str]]
) -> tuple[list[str], list[str]]:
    """The one configuration file, if there is one, and every setting that was given besides.

    A word that is no file is the name of a configuration that comes with analogsim.
    """
    files = [text for text in options.settings if "=" not in text or Path(text).is_file()]
    overrides = [text for text in options.settings if text not in files]
    if len(files) > 1:
        raise InvalidValueError(f"give one configuration file, and options as key=value; got {', '.join(files)}")
    files = [_found(text) for text in files]
    short = [(key, getattr(options, name.replace("-", "_"))) for name, (key, _) in known.items()]
    overrides += [f"{key}={value}" for key, value in short if value is not None]
    overrides += ["data.download=true"] if options.download else []
    overrides += ["tracking.enabled=false"] if options.no_tracking else []
    return files, overrides


def _found(text: str) -> str:
    """The path of a configuration file that is given by its path or by its name."""
    path = Path(text)
    return text if path.suffix or path.name != text or path.exists() else str(ready_file(text))
