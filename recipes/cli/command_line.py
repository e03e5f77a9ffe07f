"""The command line, ``analogsim COMMAND``: a list of programs, each of which declares its own arguments."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import signal
import sys
import sysconfig
import textwrap
import traceback
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import torch

import analogsim
from analogsim.recipes import compare, evaluate, fit, judge, sensitivity, train, tune, ui
from analogsim.recipes.cli import completion, devices, doctor, init, summary
from analogsim.recipes.cli.output import add_output, result_written
from analogsim.recipes.config.arguments import help_width
from analogsim.recipes.config.options import StudyConfig
from analogsim.recipes.config.reader import every_option
from analogsim.recipes.training.stopping import Stopped, ended_in_order
from analogsim.utils.text import nearest

# The errors that say themselves what is wrong: ours, and those of the machine that it runs on. What the user's own code
# raises is told with its place; anything else is a bug and keeps its traceback.
_EXPECTED = (analogsim.AnalogsimError, OSError, MemoryError, torch.OutOfMemoryError)

# Whose versions are told with a bug, where they are installed.
_PACKAGES = ("torch", "numpy", "optuna", "mlflow", "safetensors", "matplotlib")

_LONG = 1200  # letters of an error that are told


PROGRAMS = (
    judge.PROGRAM,
    train.PROGRAM,
    tune.PROGRAM,
    evaluate.PROGRAM,
    sensitivity.PROGRAM,
    compare.PROGRAM,
    ui.PROGRAM,
    devices.PROGRAM,
    fit.PROGRAM,
    summary.PROGRAM,
    init.PROGRAM,
    doctor.PROGRAM,
    completion.PROGRAM,
)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="analogsim",
        description="What is left of your network on analog in-memory hardware, and training that survives it.",
        epilog='analogsim COMMAND --help tells more of one, with examples; "analogsim train" alone is a first try',
    )
    parser.add_argument("--version", action="version", version=f"analogsim {analogsim.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for program in PROGRAMS:
        command = commands.add_parser(
            program.name, help=program.help, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        program.declare(command)
        add_output(command, program)
        command.description = textwrap.fill(command.description or f"{program.help}.".capitalize(), help_width())
        examples = "\n".join(["examples:", *(f"  analogsim {example}" for example in program.examples)])
        parts = [examples if program.examples else "", command.epilog or ""]
        command.epilog = "\n\n".join(part for part in parts if part) or None
        command.set_defaults(program=program, whole=parser, parser=command)
    return parser


def _check_command(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Refuse a command that there is not, with the nearest one."""
    asked = next((word for word in arguments if not word.startswith("-")), None)
    names = [program.name for program in PROGRAMS]
    if asked is not None and asked not in names:
        meant = nearest(asked, names, 0.6) or f"; COMMAND is one of {', '.join(names)}"
        parser.error(f"there is no command {asked!r}{meant}")


def _option_meant(parser: argparse.ArgumentParser, rest: Sequence[str]) -> str:
    """A hint where an option is unknown and another one is much like it."""
    known = dict.fromkeys(re.findall(r"--[a-z][\w-]*", parser.format_usage()))
    hints = (nearest(word.partition("=")[0], known, 0.7) for word in rest if word.startswith("--"))
    return next((hint for hint in hints if hint), "")


def _told(error: Exception) -> str:
    """An error in one line, with what was noted about it in one."""
    text = " ".join(str(error).split())
    if len(text) > _LONG:  # some libraries tell all the numbers that they were given
        text = f"{text[: _LONG // 2]} ... {text[-_LONG // 4 :]}"
    notes = [note for note in getattr(error, "__notes__", []) if "\n" not in note]
    return "; ".join([text, *notes] if text else notes)


def _one_line(error: Exception) -> str | None:
    """What is told of an error; None for one that is a bug of ours."""
    if isinstance(error, _EXPECTED):
        return _told(error) or type(error).__name__
    place = _users_line(error)  # of whatever kind, in code of the user's: a metric, a task, a loader
    if place is None:
        return None
    return f"{type(error).__name__} in {place}: {_told(error) or 'no message'}; analogsim --debug ... shows it"


def _request() -> str:
    """What is asked of a user who met a bug, below its traceback."""
    versions = [f"{name} {version}" for name in _PACKAGES if (version := _version(name)) is not None]
    return (
        "analogsim: this error was not foreseen: a bug of analogsim, or of a library that it uses. Please report it "
        "with the lines above, the command, and these versions:\n"
        f"analogsim {analogsim.__version__}, Python {platform.python_version()}, {', '.join(versions)}, "
        f"{platform.platform()}"
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _users_line(error: Exception) -> str | None:
    """Where in the user's own files an error came from; None if it did not."""
    ours = str(Path(__file__).resolve().parents[2])
    others = (ours, *(str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "purelib", "platlib")))
    frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    for note in getattr(error, "__notes__", []):  # of a worker there is the text of its traceback
        frames += [
            (Path(file), int(line)) for file, line in re.findall(r'^  File "(.+)", line (\d+)', note, re.MULTILINE)
        ]
    own = [(path, line) for path, line in frames if path.is_file() and not str(path.resolve()).startswith(others)]
    return f"{own[-1][0]}, line {own[-1][1]}" if own else None


def _setting_meant(rest: Sequence[str]) -> str:
    """A hint where an option is unknown by whose name there is a setting."""
    names = [name for name, _, _ in every_option(StudyConfig)]
    for word in rest:
        asked = word.removeprefix("--").partition("=")[0].replace("-", "_") if word.startswith("--") else ""
        found = [name for name in names if asked and asked in (name, name.rpartition(".")[2])]
        if found:
            return f"; did you mean {' or '.join(f'{name}=...' for name in found)}, without dashes?"
    return ""


def _fail(message: str) -> NoReturn:
    print(f"analogsim: error: {message}", file=sys.stderr)
    raise SystemExit(2)


@contextlib.contextmanager
def _readable_warnings() -> Iterator[None]:
    """Print each warning once, as one line, where Python would show a line of source with it."""
    shown = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        text = " ".join(str(message).split())
        if text not in shown:
            shown.add(text)
            print(f"analogsim: warning: {text}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", analogsim.ConversionWarning)
        warnings.filterwarnings("always", module=r"analogsim\.")
        warnings.showwarning = show
        yield


def _asked(words: Sequence[str]) -> argparse.Namespace:
    """What the words of a command line ask for; what cannot be read ends the process, as argparse does it."""
    parser = make_parser()
    _check_command(parser, words)
    options, rest = parser.parse_known_args(words)
    # argparse takes positional words only in one place; settings may stand anywhere.
    place = options.program.words
    if rest and (place is None or any(word.startswith("-") for word in rest)):
        meant = _setting_meant(rest) if place == "settings" else ""
        meant = meant or _option_meant(options.parser, rest)
        options.parser.error(f"unrecognized arguments: {' '.join(rest)}{meant}")
    if place is not None:
        getattr(options, place).extend(rest)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ``arguments`` default to those of the process."""
    options = _asked(sys.argv[1:] if arguments is None else list(arguments))
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go to files; a window toolkit only costs time
    try:
        with contextlib.nullcontext() if options.debug else _readable_warnings(), ended_in_order():
            with result_written(options) as give:
                result = options.program.run(options)
                give(result)
            ended = options.program.status
            status = 0 if ended is None else ended(result)
    except KeyboardInterrupt as stop:
        print("\n" + "; ".join(["stopped", *getattr(stop, "__notes__", [])]), file=sys.stderr)
        raise SystemExit(128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)) from None
    except BrokenPipeError:  # who reads our output has seen enough; what is still to be written goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except Exception as error:
        line = _one_line(error)
        if line is None:
            error.add_note(_request())
        if line is None or options.debug:
            raise
        _fail(line)
    if status:
        raise SystemExit(status)
