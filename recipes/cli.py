"""The command line: ``analogsim train | tune | evaluate | compare | ui | devices | fit | summary``."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import os
import shutil
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, NoReturn

import analogsim
from analogsim.device.parse import as_device_model
from analogsim.device.registry import factory
from analogsim.evaluation.report import compare_plot, compare_table
from analogsim.recipes import compare as compare_recipe
from analogsim.recipes import evaluate as evaluate_recipe
from analogsim.recipes import fit as fit_recipe
from analogsim.recipes import sensitivity as sensitivity_recipe
from analogsim.recipes import train as train_recipe
from analogsim.recipes import tune as tune_recipe
from analogsim.recipes import ui as ui_recipe
from analogsim.recipes.config.options import SHORT, STUDY_SHORT, Config, StudyConfig
from analogsim.recipes.config.space import DEFAULT_SPACE
from analogsim.recipes.config.toml import describe, load_toml
from analogsim.recipes.tasks import data_sets, networks
from analogsim.recipes.tracking import stores
from analogsim.recipes.tracking.links import PORT, compare_link, ui_address
from analogsim.recipes.tracking.tracked_run import Run
from analogsim.recipes.training.processes import joined
from analogsim.recipes.training.restored import Asked
from analogsim.utils.files import write_figure, write_whole
from analogsim.utils.text import table

# The errors that say themselves what is wrong and what to do; anything else is a bug and keeps its traceback.
_EXPECTED = (ValueError, TypeError, OSError, ImportError, RuntimeError)


def _files_and_overrides(
    options: argparse.Namespace, known: Mapping[str, tuple[str, str]]
) -> tuple[list[str], list[str]]:
    """The one configuration file, if there is one, and every setting that was given besides."""
    files = [text for text in options.settings if "=" not in text or Path(text).is_file()]
    overrides = [text for text in options.settings if text not in files]
    if len(files) > 1:
        raise ValueError(f"give one configuration file, and options as key=value; got {', '.join(files)}")
    short = [(key, getattr(options, name.replace("-", "_"))) for name, (key, _) in known.items()]
    overrides += [f"{key}={value}" for key, value in short if value is not None]
    overrides += ["data.download=true"] if options.download else []
    overrides += ["tracking.enabled=false"] if options.no_tracking else []
    return files, overrides


def _training(options: argparse.Namespace) -> tuple[Config, Path | None]:
    """What ``analogsim train`` is to do, and the folder to go on in."""
    if options.resume is not None:
        given = [f"--{name}" for name in SHORT if getattr(options, name) is not None]
        if options.settings or given or options.no_baseline or options.download:
            raise ValueError(
                "--resume goes on with the options of the run; the only others are --no-tracking and --quiet"
            )
        folder = Path(options.resume)
        return train_recipe.resume_config(folder, tracking=not options.no_tracking), folder
    files, overrides = _files_and_overrides(options, SHORT)
    overrides += ["baseline=false"] if options.no_baseline else []
    return load_toml(Config, files[0] if files else None, overrides), None


def _train(options: argparse.Namespace) -> None:
    with joined() as group:
        config, folder = group.first(lambda: _training(options))
        result = train_recipe.train(config, folder, show=not options.quiet, group=group)
    if not group.main:
        return
    print(f"\n{result}\n\nreport, drift curve, checkpoints: {result.folder}")
    runs = [tracker for tracker in result.trackers.values() if isinstance(tracker, Run)]
    if runs:
        print(f"\nSee the run in MLflow:\n{runs[-1].links()}")
    if len(runs) > 1:
        print(f"Both networks side by side:\n{compare_link(runs)}")


def _tune(options: argparse.Namespace) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("tune: torchrun makes one network of several processes; start the same command several times")
    files, overrides = _files_and_overrides(options, STUDY_SHORT)
    overrides += ["study.pareto=true"] if options.pareto else []
    config = tune_recipe.load(files[0] if files else None, overrides)

    def show(line: str) -> None:
        print(line, flush=True)

    tuned = tune_recipe.tune(config) if options.quiet else tune_recipe.tune(config, show=show)
    print(f"\n{tuned}\n\nbest settings, trials, checkpoints: {tuned.folder}")
    print(tuned.links())


def _evaluate(options: argparse.Namespace) -> None:
    for file in (options.json, options.plot):  # told before the work, not after it
        if file is not None and not Path(file).absolute().parent.is_dir():
            raise FileNotFoundError(f"evaluate: there is no folder for {file!r}; make it first")
    asked = _asked(options, None if options.times is None else options.times.split(","))
    if options.ablate:
        if options.json is not None or options.plot is not None:
            raise ValueError("evaluate: --ablate prints a table; leave out --json and --plot")
        for name, ablation in evaluate_recipe.ablate(Path(options.run), tell=print, **asked).items():
            print(f"{name} network\n\n{ablation}\n")
        return
    reports = evaluate_recipe.evaluate(Path(options.run), show=not options.quiet, tell=print, **asked)
    print(compare_table(reports))
    if options.json is not None:
        write_whole(options.json, json.dumps({name: report.to_dict() for name, report in reports.items()}))
    if options.plot is not None:
        write_figure(options.plot, compare_plot(reports))


def _sensitivity(options: argparse.Namespace) -> None:
    asked = _asked(options, (options.time,))
    found = sensitivity_recipe.sensitivity(Path(options.run), keep=options.keep, per=options.per, tell=print, **asked)
    print("\n\n".join(f"{name} network\n\n{result}" for name, result in found.items()))


def _compare(options: argparse.Namespace) -> None:
    if options.html is not None and not Path(options.html).absolute().parent.is_dir():
        raise FileNotFoundError(f"compare: there is no folder for {options.html!r}; make it first")
    found = compare_recipe.compare(
        options.runs,
        experiment=options.experiment,
        filter=options.filter,
        order=options.order,
        limit=options.limit,
        uri=options.uri,
        port=options.port,
    )
    print(found.text(shutil.get_terminal_size((200, 24)).columns))  # a pipe has no width: the wide tables
    if options.html is not None:
        write_whole(options.html, found.to_html())
        print(f"\nas a page: {options.html}")
    if found.link:
        print("\n" + "\n".join(["Side by side in MLflow:", *([found.command] if found.command else []), found.link]))
    if options.open:
        if not found.link:
            raise ValueError("compare: --open: there is no page of MLflow for these runs, see above")
        ui_recipe.open_page(found.link)


def _ui(options: argparse.Namespace) -> None:
    store = stores.tracking_uri(options.uri)
    if stores.is_http(store):
        print(f"{ui_address(store)}\nthis is a server of MLflow already: there is nothing to start")
        if options.open:
            ui_recipe.open_page(ui_address(store))
        return
    port = ui_recipe.check(store, options.port)
    print(f"MLflow starts on {stores.shown(store)}; this takes some seconds", file=sys.stderr)
    with ui_recipe.serve(store, port) as server:
        print(f"{server.address} answers; Ctrl-C stops it", flush=True)
        for name, page in server.experiments.items():
            print(f"runs of {name!r}: {page}", flush=True)
        if options.open:
            ui_recipe.open_page(next(iter(server.experiments.values()), server.address))
        server.wait()


def _devices(options: argparse.Namespace) -> None:
    if options.name is None:
        known = analogsim.available_devices()
        first = [(inspect.getdoc(factory(name)) or "").partition("\n")[0] for name in known]
        print(table(("device", "what it is"), list(zip(known, first, strict=True)), right=2))
        print('\nanalogsim devices NAME shows one; combine several with "+", as in "quantization(levels=16)+drift"')
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
    print(table(("parameter", "value", "unit", "allowed"), rows, right=4))
    print(f"\n{model!r}")


def _allowed(spec: Field[Any]) -> str:
    rules = spec.metadata
    if rules["choices"] is not None:
        return ", ".join(rules["choices"])
    signs = (("ge", ">="), ("gt", ">"), ("le", "<="))
    return ", ".join(f"{sign} {rules[rule]:g}" for rule, sign in signs if rules[rule] is not None)


def _summary(options: argparse.Namespace) -> None:
    shape, classes = data_sets.SHAPES[options.data]
    model = networks.build(options.model, shape, classes, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", analogsim.ConversionWarning)  # the table says it all
        analog = analogsim.convert(model, options.device, crossbar=options.crossbar)
    print(analogsim.summary(analog))


def _fit(options: argparse.Namespace) -> None:
    units = {}
    for text in options.units:
        name, equals, unit = text.partition("=")
        if not equals:
            raise ValueError(f"fit: --unit takes COLUMN=UNIT, such as time=h, got {text!r}")
        units[name] = unit
    fitted = fit_recipe.fit(
        options.measurements,
        options.out,
        plot=options.plot,
        units=units,
        t0=options.t0,
        g_min=options.g_min,
        g_max=options.g_max,
        bootstrap=options.bootstrap,
        seed=options.seed,
    )
    print(fitted)
    print(f'\nuse it: analog = analogsim.convert(model, device="{options.out}")')


def _add_settings(parser: argparse.ArgumentParser, short: Mapping[str, tuple[str, str]]) -> None:
    parser.add_argument(
        "settings", nargs="*", metavar="FILE.toml | KEY=VALUE", help="a configuration file, and settings that change it"
    )
    for name, (_, help_text) in short.items():
        parser.add_argument(f"--{name}", metavar=name.upper(), help=help_text.replace("%", "%%"))
    parser.add_argument("--download", action="store_true", help="fetch missing data from the internet")
    parser.add_argument("--no-tracking", action="store_true", help="no MLflow")


def _judged(parser: argparse.ArgumentParser) -> None:
    """Which run to judge, and on which chips."""
    parser.add_argument("run", metavar="RUN", help="a run's folder, or a checkpoint file")
    parser.add_argument("--device", help="device model; default: the run's")
    parser.add_argument("--crossbar", help="array, converters and wires; default: the run's")
    parser.add_argument("--chips", type=int, help="how many chips; default: the run's")
    parser.add_argument("--compensation", help='such as "column" or "global+batch-norm", or none; default: the run\'s')
    parser.add_argument("--folder", help="where the data lie")
    parser.add_argument("--seed", type=int, default=0, help="the first chip")


def _asked(options: argparse.Namespace, times: Sequence[str] | None) -> Asked:
    return {
        "device": options.device,
        "crossbar": options.crossbar,
        "chips": options.chips,
        "times": times,
        "compensation": options.compensation,
        "folder": options.folder,
        "seed": options.seed,
    }


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
    _add_settings(train, SHORT)
    train.add_argument("--no-baseline", action="store_true", help="only the hardware-aware network")
    train.add_argument("--resume", metavar="FOLDER", help="go on with a run that was stopped")
    train.add_argument("--quiet", action="store_true", help="no progress bars")
    train.set_defaults(action=_train)

    tune = commands.add_parser(
        "tune",
        help="let Optuna find the noise schedule with which a network survives best",
        description="Let Optuna find the training noise with which a network survives best. Started again with "
        "the same --study and --storage it goes on; started several times at once, the workers share the trials.",
        epilog=f"what is searched, unless a file says otherwise:\n\n{DEFAULT_SPACE}\n\n"
        'another range: search.noise.end="{low=1, high=4}"; out of the search: search.noise.end=none\n\n'
        f"all settings, for the file and for KEY=VALUE:\n\n{describe(StudyConfig)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_settings(tune, STUDY_SHORT)
    tune.add_argument("--pareto", action="store_true", help="the whole front of clean against drifted accuracy")
    tune.add_argument("--quiet", action="store_true", help="no line for each trial")
    tune.set_defaults(action=_tune)

    evaluate = commands.add_parser(
        "evaluate",
        help="evaluate a trained network again",
        description="Evaluate the networks of a run again: on another device, with more chips, at other times.",
    )
    _judged(evaluate)
    evaluate.add_argument("--times", help='since programming, such as "1s,1h,1d"; default: the run\'s')
    evaluate.add_argument("--json", metavar="FILE", help="write the reports")
    evaluate.add_argument("--plot", metavar="FILE", help="draw the drift curves (png, svg, pdf)")
    evaluate.add_argument("--ablate", action="store_true", help="switch each non-ideality off in turn")
    evaluate.add_argument("--quiet", action="store_true", help="no progress bars")
    evaluate.set_defaults(action=_evaluate)

    sensitivity = commands.add_parser(
        "sensitivity",
        help="which layers cost most, and which to keep digital",
        description="Make the layers of a trained network analog one at a time, on validation data.",
    )
    _judged(sensitivity)
    sensitivity.add_argument("--time", default="1d", help="since programming (default: 1d)")
    sensitivity.add_argument(
        "--keep",
        type=float,
        metavar="SCORE",
        help="keep layers digital until the mean over chips reaches this, such as 0.97; and judge that on test data",
    )
    sensitivity.add_argument(
        "--per", choices=("macs", "parameters"), default="macs", help="what a digital layer costs (default: macs)"
    )
    sensitivity.set_defaults(action=_sensitivity)

    compare = commands.add_parser(
        "compare",
        help="compare runs: drift curves, and in what the runs differ",
        description="Compare runs: their drift curves side by side, and the parameters in which they differ.",
    )
    compare.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="the name of an MLflow run, its id or the beginning of it, or a folder of analogsim train",
    )
    compare.add_argument("--experiment", metavar="NAME", help="the runs of an MLflow experiment, newest first")
    compare.add_argument("--filter", default="", help="of these: MLflow's filter, such as \"params.model = 'lenet5'\"")
    compare.add_argument("--order", metavar="METRIC", help='highest first; "METRIC asc" for the lowest first')
    compare.add_argument("--limit", type=int, default=compare_recipe.LIMIT, help="so many at most (%(default)s)")
    compare.add_argument("--html", metavar="FILE", help="write a page that needs nothing beside it")
    compare.add_argument("--open", action="store_true", help="open MLflow's page that compares them")
    compare.add_argument("--uri", help="MLflow store; default: MLFLOW_TRACKING_URI, else mlflow.db here")
    compare.add_argument("--port", type=int, default=PORT, help="of analogsim ui, for the links (%(default)s)")
    compare.set_defaults(action=_compare)

    ui = commands.add_parser(
        "ui",
        help="look at all runs in the browser",
        description="Serve MLflow's pages for the runs of all commands here, on this machine only, until Ctrl-C.",
    )
    ui.add_argument("--port", type=int, default=PORT, help="where (%(default)s); 0 takes a free one")
    ui.add_argument("--uri", help="MLflow store; default: MLFLOW_TRACKING_URI, else mlflow.db here")
    ui.add_argument("--open", action="store_true", help="open the browser when it answers")
    ui.set_defaults(action=_ui)

    devices = commands.add_parser("devices", help="list the device models, or show one")
    devices.add_argument("name", nargs="?", help="one of them, with parameters if you like")
    devices.set_defaults(action=_devices)

    fit = commands.add_parser(
        "fit",
        help="fit a device model to your measurements",
        description="Fit programming error, drift and read noise to measured conductances of single cells: a CSV file "
        "with the columns target, time, measured, cell and units in the header, such as 'target [µS]'.",
    )
    fit.add_argument("measurements", metavar="FILE.csv", help="one row for each reading of one cell")
    fit.add_argument("--out", metavar="FILE.toml", default="device.toml", help="the device file (%(default)s)")
    fit.add_argument("--plot", metavar="FILE", help="draw measurements and fit (png, svg, pdf)")
    fit.add_argument(
        "--unit",
        dest="units",
        metavar="COLUMN=UNIT",
        action="append",
        default=[],
        help="of target and measured (nS, uS, mS, S) or time (s, min, h, d); default: the header's, else uS and s",
    )
    fit.add_argument(
        "--t0", type=float, metavar="S", help="from programming to the first reading, if time starts there"
    )
    fit.add_argument("--g-min", type=float, metavar="uS", help="of a cell that stands for zero; default: lowest target")
    fit.add_argument("--g-max", type=float, metavar="uS", help="of the largest weight; default: highest target")
    fit.add_argument("--bootstrap", type=int, default=200, help="samples for the intervals (%(default)s); 0: none")
    fit.add_argument("--seed", type=int, default=0, help="of these samples")
    fit.set_defaults(action=_fit)

    summary = commands.add_parser("summary", help="what of a network would run analog, and what not")
    summary.add_argument("model", help="mlp, lenet5, resnet20, resnet32, or a torchvision classifier")
    summary.add_argument("--device", default="pcm", help="device model (default: pcm)")
    summary.add_argument("--crossbar", default="ideal", help="array, converters and wires (default: ideal)")
    summary.add_argument("--data", default="digits", choices=tuple(data_sets.SHAPES), help="for the input's shape")
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


class _Terminated(KeyboardInterrupt):
    """SIGTERM, as batch systems send it before they kill."""


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: checkpoints are whole, runs are ended, how to go on is told."""

    def stop(*_: object) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ``arguments`` default to those of the process."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    # argparse takes positional words only in one place; settings may stand anywhere.
    words = {"train": "settings", "tune": "settings", "compare": "runs"}.get(options.command)
    if rest and (words is None or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if words is not None:
        getattr(options, words).extend(rest)
    os.environ.setdefault("MPLBACKEND", "Agg")  # figures go to files; a window toolkit only costs time
    try:
        with contextlib.nullcontext() if options.debug else _readable_warnings(), _terminated_as_interrupted():
            options.action(options)
    except KeyboardInterrupt as stop:
        print("\n" + "; ".join(["stopped", *getattr(stop, "__notes__", [])]), file=sys.stderr)
        raise SystemExit(143 if isinstance(stop, _Terminated) else 130) from None
    except BrokenPipeError:  # who reads our output has seen enough; what is still to be written goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except _EXPECTED as error:
        if options.debug:
            raise
        _fail(" ".join(str(error).split()) or type(error).__name__)
