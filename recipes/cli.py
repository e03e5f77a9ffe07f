"""The command line, ``analogsim COMMAND``: a list of programs, each of which declares its own arguments."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import os
import platform
import re
import signal
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, fields
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import torch

import analogsim
from analogsim.device.parse import as_device_model
from analogsim.device.registry import factory
from analogsim.recipes import compare, evaluate, fit, judge, sensitivity, train, tune, ui
from analogsim.recipes.config.arguments import Program
from analogsim.recipes.config.options import StudyConfig
from analogsim.recipes.config.reader import every_option
from analogsim.recipes.tasks import data_sets, networks
from analogsim.recipes.tasks.references import is_reference
from analogsim.recipes.training.stopping import Stopped, ended_in_order
from analogsim.utils.text import table

# The errors that say themselves what is wrong: ours, and those of the machine that it runs on. What the user's own code
# raises is told with its place; anything else is a bug and keeps its traceback.
_EXPECTED = (analogsim.AnalogsimError, OSError, MemoryError, torch.OutOfMemoryError)

# Whose versions are told with a bug, where they are installed.
_PACKAGES = ("torch", "numpy", "optuna", "mlflow", "safetensors", "matplotlib")

_LONG = 1200  # letters of an error that are told


def _declare_devices(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="one of them, with parameters if you like")


def _devices(options: argparse.Namespace) -> None:
    if options.name is None:
        known = analogsim.available_devices()
        first = [(inspect.getdoc(factory(name)) or "").partition("\n")[0] for name in known]
        print(table(("device", "what it is"), list(zip(known, first, strict=True)), right=2))
        print('\nanalogsim devices NAME shows one; combine several with "+", as in "quantization(levels=16)+drift"')
        print('how weights are laid on cells may stand among the parameters of each, as in "pcm(copies=2)"')
        return
    model = as_device_model(options.name)
    if "+" not in options.name and not options.name.endswith(".toml"):
        print(f"{inspect.getdoc(factory(options.name.split('(')[0].strip()))}\n")
    rows = [
        (f"{type(effect).__name__}.{spec.name}", str(getattr(effect, spec.name)), spec.metadata["unit"], _allowed(spec))
        for effect in model.effects
        for spec in fields(effect)
        if spec.metadata
    ]
    rows += [(f"Mapping.{spec.name}", str(getattr(model.laid, spec.name)), "1", "") for spec in fields(model.laid)]
    print(table(("parameter", "value", "unit", "allowed"), rows, right=4))
    print(f"\n{model!r}")


def _allowed(spec: Field[Any]) -> str:
    rules = spec.metadata
    if rules["choices"] is not None:
        return ", ".join(rules["choices"])
    signs = (("ge", ">="), ("gt", ">"), ("le", "<="))
    return ", ".join(f"{sign} {rules[rule]:g}" for rule, sign in signs if rules[rule] is not None)


def _declare_summary(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", help="mlp, lenet5, resnet20, audio-cnn, ..., a torchvision classifier, or file.py:factory"
    )
    parser.add_argument("--device", default="pcm", help="device model (default: pcm)")
    parser.add_argument("--crossbar", default="ideal", help="array, converters and wires (default: ideal)")
    parser.add_argument("--data", help="what a network is made for, as in train; default for a name: digits")


def _summary(options: argparse.Namespace) -> None:
    networks.check_model(options.model)
    model = networks.make_network(options.model, _facts(options.data, options.model), seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", analogsim.ConversionWarning)  # the table says it all
        analog = analogsim.convert(model, options.device, crossbar=options.crossbar)
    print(analogsim.summary(analog))


def _facts(data: str | None, model: str) -> Mapping[str, object]:
    """What a network may ask for; of the data sets with names without a look at them."""
    if data is None and is_reference(model):
        return {}
    data = "digits" if data is None else data
    if data not in data_sets.SHAPES:
        return data_sets.load(data).facts
    shape, classes = data_sets.SHAPES[data]
    return {"shape": shape, "classes": classes, "outputs": classes}


PROGRAMS = (
    judge.PROGRAM,
    train.PROGRAM,
    tune.PROGRAM,
    evaluate.PROGRAM,
    sensitivity.PROGRAM,
    compare.PROGRAM,
    ui.PROGRAM,
    Program("devices", "list the device models, or show one", _declare_devices, _devices),
    fit.PROGRAM,
    Program("summary", "what of a network would run analog, and what not", _declare_summary, _summary),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="analogsim",
        description="What is left of your network on analog in-memory hardware, and training that survives it.",
    )
    parser.add_argument("--version", action="version", version=f"analogsim {analogsim.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for program in PROGRAMS:
        command = commands.add_parser(program.name, help=program.help)
        program.declare(command)
        command.set_defaults(program=program)
    return parser


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
    ours = str(Path(__file__).resolve().parents[1])
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ``arguments`` default to those of the process."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse takes positional words only in one place; settings may stand anywhere.
    words = options.program.words
    if rest and (words is None or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}{_setting_meant(rest) if words == 'settings' else ''}")
    if words is not None:
        getattr(options, words).extend(rest)
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go to files; a window toolkit only costs time
    try:
        with contextlib.nullcontext() if options.debug else _readable_warnings(), ended_in_order():
            options.program.run(options)
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
