"""The command line: ``analogsim train | evaluate | devices | summary``."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, NoReturn

import analogsim
from analogsim.recipes import _data, _models
from analogsim.recipes import evaluate as evaluate_recipe
from analogsim.recipes import train as train_recipe
from analogsim.recipes._config import describe, load_toml
from analogsim.recipes._options import Config
from analogsim.recipes._tracking import Run, compare_link
from analogsim.registry import as_device_model, factory
from analogsim.report import compare_plot, compare_table
from analogsim.text import table

# The errors that say themselves what is wrong and what to do; anything else is a bug and keeps its traceback.
_EXPECTED = (ValueError, TypeError, OSError, ImportError, RuntimeError)

# Short options of `analogsim train` and the configuration keys they stand for.
_SHORT = {
    "device": ("device", "device model: pcm, gaussian(std=0.05), ... (see: analogsim devices)"),
    "data": ("data.name", "digits (bundled), mnist, fashion-mnist, cifar10"),
    "folder": ("data.folder", "where the data files lie, plain or gzipped"),
    "model": ("model", "mlp, lenet5, resnet20, resnet32, or a torchvision classifier"),
    "epochs": ("optimization.epochs", "passes over the training data"),
    "chips": ("evaluation.chips", "chips of the final evaluation"),
    "seed": ("seed", "of weights, batches and noise"),
    "out": ("out", "folder of the runs"),
}


def _train(options: argparse.Namespace) -> None:
    if options.resume is not None:
        given = [f"--{name}" for name in _SHORT if getattr(options, name) is not None]
        if options.settings or given or options.no_baseline or options.download:
            raise ValueError(
                "--resume goes on with the options of the run; the only others are --no-tracking and --quiet"
            )
        folder = Path(options.resume)
        config = train_recipe.resume_config(folder, tracking=not options.no_tracking)
    else:
        files = [text for text in options.settings if "=" not in text or Path(text).is_file()]
        overrides = [text for text in options.settings if text not in files]
        if len(files) > 1:
            raise ValueError(f"give one configuration file, and options as key=value; got {', '.join(files)}")
        short = [(key, getattr(options, name)) for name, (key, _) in _SHORT.items()]
        overrides += [f"{key}={value}" for key, value in short if value is not None]
        overrides += ["baseline=false"] if options.no_baseline else []
        overrides += ["data.download=true"] if options.download else []
        overrides += ["tracking.enabled=false"] if options.no_tracking else []
        config = load_toml(Config, files[0] if files else None, overrides)
        folder = None
    result = train_recipe.train(config, folder, show=not options.quiet)
    print(f"\n{result}\n\nreport, drift curve, checkpoints: {result.folder}")
    runs = [tracker for tracker in result.trackers.values() if isinstance(tracker, Run)]
    if runs:
        print(f"\nSee the run in MLflow:\n{runs[-1].links()}")
    if len(runs) > 1:
        print(f"Both networks side by side:\n{compare_link(runs)}")


def _evaluate(options: argparse.Namespace) -> None:
    for file in (options.json, options.plot):  # told before the work, not after it
        if file is not None and not Path(file).absolute().parent.is_dir():
            raise FileNotFoundError(f"evaluate: there is no folder for {file!r}; make it first")
    reports = evaluate_recipe.evaluate(
        Path(options.run),
        device=options.device,
        chips=options.chips,
        times=None if options.times is None else options.times.split(","),
        compensation=options.compensation,
        folder=options.folder,
        seed=options.seed,
        show=not options.quiet,
    )
    print(compare_table(reports))
    if options.json is not None:
        Path(options.json).write_text(json.dumps({name: report.to_dict() for name, report in reports.items()}))
    if options.plot is not None:
        compare_plot(reports).savefig(options.plot, dpi=120)


def _devices(options: argparse.Namespace) -> None:
    if options.name is None:
        known = analogsim.available_devices()
        first = [(inspect.getdoc(factory(name)) or "").partition("\n")[0] for name in known]
        print(table(("device", "what it is"), list(zip(known, first, strict=True)), right=2))
        print('\nanalogsim devices NAME shows one; combine several with "+", as in "quantization(levels=16)+drift"')
        return
    model = as_device_model(options.name)
    if "+" not in options.name:
        print(f"{inspect.getdoc(factory(options.name.split('(')[0].strip()))}\n")
    rows = [
        (f"{type(effect).__name__}.{spec.name}", str(getattr(effect, spec.name)), spec.metadata["unit"], _allowed(spec))
        for effect in model.effects
        for spec in fields(effect)
        if spec.metadata
    ]
    print(table(("parameter", "value", "unit", "allowed"), rows, right=4))
    print(f"\n{model!r}")


def _allowed(spec: Field[Any]) -> str:
    rules = spec.metadata
    if rules["choices"] is not None:
        return ", ".join(rules["choices"])
    signs = (("ge", ">="), ("gt", ">"), ("le", "<="))
    return ", ".join(f"{sign} {rules[rule]:g}" for rule, sign in signs if rules[rule] is not None)


def _summary(options: argparse.Namespace) -> None:
    shape, classes = _data.SHAPES[options.data]
    model = _models.build(options.model, shape, classes, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", analogsim.ConversionWarning)  # the table says it all
        analog = analogsim.convert(model, options.device)
    print(analogsim.summary(analog))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="analogsim",
        description="What is left of your network on analog in-memory hardware, and training that survives it.",
    )
    parser.add_argument("--version", action="version", version=f"analogsim {analogsim.__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train",
        help="train a network for a device, beside the same network trained plainly",
        description="Train a network for a device, beside the same network trained plainly, and evaluate both on many "
        "chips through time. With no options: LeNet-5 on the bundled digits, for phase-change memory, one minute.",
        epilog="all settings, for the file and for KEY=VALUE:\n\n" + describe(Config),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument(
        "settings", nargs="*", metavar="FILE.toml | KEY=VALUE", help="a configuration file, and settings that change it"
    )
    for name, (_, help_text) in _SHORT.items():
        train.add_argument(f"--{name}", metavar=name.upper(), help=help_text.replace("%", "%%"))
    train.add_argument("--download", action="store_true", help="fetch missing data from the internet")
    train.add_argument("--no-baseline", action="store_true", help="only the hardware-aware network")
    train.add_argument("--no-tracking", action="store_true", help="no MLflow")
    train.add_argument("--resume", metavar="FOLDER", help="go on with a run that was stopped")
    train.add_argument("--quiet", action="store_true", help="no progress bars")
    train.set_defaults(action=_train)

    evaluate = commands.add_parser(
        "evaluate",
        help="evaluate a trained network again",
        description="Evaluate the networks of a run again: on another device, with more chips, at other times.",
    )
    evaluate.add_argument("run", metavar="RUN", help="a run's folder, or a checkpoint file")
    evaluate.add_argument("--device", help="device model; default: the run's")
    evaluate.add_argument("--chips", type=int, help="how many chips; default: the run's")
    evaluate.add_argument("--times", help='since programming, such as "1s,1h,1d"; default: the run\'s')
    evaluate.add_argument("--compensation", choices=("global", "none"), help="of drift; default: the run's")
    evaluate.add_argument("--folder", help="where the data lie")
    evaluate.add_argument("--seed", type=int, default=0, help="the first chip")
    evaluate.add_argument("--json", metavar="FILE", help="write the reports")
    evaluate.add_argument("--plot", metavar="FILE", help="draw the drift curves (png, svg, pdf)")
    evaluate.add_argument("--quiet", action="store_true", help="no progress bars")
    evaluate.set_defaults(action=_evaluate)

    devices = commands.add_parser("devices", help="list the device models, or show one")
    devices.add_argument("name", nargs="?", help="one of them, with parameters if you like")
    devices.set_defaults(action=_devices)

    summary = commands.add_parser("summary", help="what of a network would run analog, and what not")
    summary.add_argument("model", help="mlp, lenet5, resnet20, resnet32, or a torchvision classifier")
    summary.add_argument("--device", default="pcm", help="device model (default: pcm)")
    summary.add_argument("--data", default="digits", choices=tuple(_data.SHAPES), help="for the input's shape")
    summary.set_defaults(action=_summary)
    return parser


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
    if rest and (options.command != "train" or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.settings += rest
    try:
        with contextlib.nullcontext() if options.debug else _readable_warnings():
            options.action(options)
    except KeyboardInterrupt as stop:
        print("\n" + "; ".join(["stopped", *getattr(stop, "__notes__", [])]), file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # who reads our output has seen enough; what is still to be written goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except _EXPECTED as error:
        if options.debug:
            raise
        _fail(" ".join(str(error).split()) or type(error).__name__)
