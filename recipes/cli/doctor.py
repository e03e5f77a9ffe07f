"""Look at what analogsim runs on, and say what is missing and how to get it: ``analogsim doctor``.

Nothing is made or changed, nothing heavy is imported, and a server that does not answer is given up after seconds.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch

import analogsim
from analogsim.recipes.config.arguments import Program
from analogsim.recipes.study.storages import database_file, storage_url
from analogsim.recipes.tasks.data_sets import DATA_NAMES, found_at
from analogsim.recipes.tracking import stores
from analogsim.utils.packages import how_to_install
from analogsim.utils.text import table

RECIPES = {  # the packages of the extra, and the modules that they are
    **{name: name for name in ("torchvision", "optuna", "mlflow", "matplotlib", "pandas", "tqdm")},
    "scikit-learn": "sklearn",
}
OPTIONAL = {
    "transformers": ("transformers", "zoo", "networks of Hugging Face"),
    "timm": ("timm", "zoo", "networks of timm"),
    "torch_geometric": ("torch_geometric", "graphs", "graph networks"),
    "psycopg": ("psycopg", "postgres", "a study on PostgreSQL"),
    "shtab": ("shtab", "completion", "analogsim completion"),
    "optuna-dashboard": ("optuna_dashboard", "", "pages of a study in the browser"),
}
_COMPILERS = ("c++", "g++", "clang++", "cl")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        about: what it is.
        state: ``"ok"``; ``"-"``, not there and needed by nobody; ``"missing"``, where something would fail.
        found: what was found.
        cure: how to get it; empty where there is nothing to do.
    """

    about: str
    state: Literal["ok", "-", "missing"]
    found: str
    cure: str = ""


def examine() -> list[Finding]:
    """Everything that is looked at; a look that fails is a finding too."""
    findings: list[Finding] = []
    for look in (_versions, _hardware, _compiler, _packages, _folder, _mlflow_store, _optuna_storage, _data_sets):
        try:
            findings += look()
        except Exception as error:  # whatever is broken, the others are looked at
            told = stores.brief(error)
            findings.append(
                Finding(
                    look.__name__.strip("_").replace("_", " "), "missing", told, "repair or install again what it names"
                )
            )
    return findings


def _versions() -> Iterator[Finding]:
    yield Finding("analogsim", "ok", f"{analogsim.__version__} in {Path(analogsim.__file__).parent}")
    yield Finding("Python", "ok", f"{platform.python_version()}, {sys.executable}, {platform.platform()}")
    yield Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _hardware() -> Iterator[Finding]:
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield Finding("GPU", "ok", ", ".join(names))
    elif shutil.which("nvidia-smi"):
        built = torch.version.cuda or "no CUDA"
        cure = "install the torch of your driver: https://pytorch.org/get-started"
        yield Finding("GPU", "missing", f"there is a driver, and this torch ({built}) sees no GPU", cure)
    else:
        yield Finding("GPU", "-", "none; torch computes on the CPU")


def _compiler() -> Iterator[Finding]:
    named = os.environ.get("CXX")
    found = next((path for name in ((named,) if named else _COMPILERS) if (path := shutil.which(name))), None)
    if found:
        yield Finding("C++ compiler", "ok", found)
    else:
        cure = "for torch.compile on a CPU: apt install g++, xcode-select --install, or Build Tools for Visual Studio"
        yield Finding("C++ compiler", "-", f"none{f', CXX is {named}' if named else ''}", cure)


def _packages() -> Iterator[Finding]:
    lacking = [name for name, module in RECIPES.items() if importlib.util.find_spec(module) is None]
    for name in RECIPES:
        if name in lacking:
            yield Finding(name, "missing", "not installed", how_to_install("recipes"))
        else:
            yield Finding(name, "ok", _version(name))
    for name, (module, extra, what) in OPTIONAL.items():
        if importlib.util.find_spec(module) is None:
            cure = how_to_install(extra) if extra else f"pip install {name}"
            yield Finding(name, "-", f"not installed; for {what}", cure)
        else:
            yield Finding(name, "ok", _version(name))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "without a version"


def _folder() -> Iterator[Finding]:
    here = Path.cwd()
    if os.access(here, os.W_OK):
        free = shutil.disk_usage(here).free / 2**30
        yield Finding("this folder", "ok" if free > 1 else "missing", f"{here}, {free:.1f} GiB free", _room(free))
    else:
        yield Finding("this folder", "missing", f"{here} may not be written", "go to a folder of your own")


def _room(free: float) -> str:
    return "" if free > 1 else "make room, or go to another disk"


def _mlflow_store() -> Iterator[Finding]:
    uri = stores.tracking_uri(None)
    where = f"{stores.shown(uri)}{' (MLFLOW_TRACKING_URI)' if os.environ.get('MLFLOW_TRACKING_URI') else ''}"
    if stores.lacks_password(uri):
        yield Finding("MLflow store", "missing", f"{where} without its password", f"set {stores.PASSWORD}")
        return
    cure = "start the server, or unset MLFLOW_TRACKING_URI; without MLflow: --no-tracking"
    yield _store("MLflow store", uri, where, database_file(uri), "experiments", cure)


def _optuna_storage() -> Iterator[Finding]:
    url = storage_url(None)
    where = f"{stores.shown(url)}{' (OPTUNA_STORAGE)' if os.environ.get('OPTUNA_STORAGE') else ''}"
    cure = "start the server, or unset OPTUNA_STORAGE"
    yield _store("Optuna storage", url, where, database_file(url), "studies", cure)


def _store(about: str, url: str, where: str, file: Path | None, rows: str, cure: str) -> Finding:
    """Whether a database can be read, or a server listens."""
    try:
        if file is None:
            stores.reach(url)
            return Finding(about, "ok", f"{where} answers")
        if not file.parent.is_dir():
            return Finding(about, "missing", f"{where}: there is no such folder", "make it, or name another one")
        if not file.exists():
            return Finding(about, "-", f"{where}: not there yet; the first run makes it")
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=2)) as database:
            (count,) = database.execute(f"SELECT COUNT(*) FROM {rows}").fetchone()
        return Finding(about, "ok", f"{where}, {count} {rows}")
    except sqlite3.Error as error:
        return Finding(about, "missing", f"{where}: {stores.brief(error)}", "move the file away; a new one is made")
    except OSError as error:
        return Finding(about, "missing", f"{where}: {stores.brief(error)}", cure)


def _data_sets() -> Iterator[Finding]:
    for name in DATA_NAMES:
        place = found_at(name)
        cure = "" if place else f"analogsim train --data {name} --download, or --folder with the place of its files"
        yield Finding(f"data {name}", "ok" if place else "-", place or "not here", cure)


def _declare(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Look at versions, GPU, compiler, packages, MLflow's store, Optuna's storage and data sets, and say what is "
        "missing and how to get it. Exit status 0, or 1 where a command would fail."
    )


def _run(options: argparse.Namespace) -> object:
    findings = examine()
    print(table(("", "what", "found"), [(each.state, each.about, each.found) for each in findings], right=3))
    wanted = [each for each in findings if each.cure and (each.state == "missing" or not options.quiet)]
    if wanted:
        print("\nhow to get what is not there:")
        print("\n".join(f"  {each.about}: {each.cure}" for each in wanted))
    missing = [each.about for each in findings if each.state == "missing"]
    print(f"\nmissing: {', '.join(missing)}" if missing else "\nnothing is missing that a command needs")
    return {"ok": not missing, "findings": [asdict(each) for each in findings]}


def _status(result: object) -> int:
    return 0 if isinstance(result, dict) and result["ok"] else 1


PROGRAM = Program(
    "doctor",
    "what is installed and found, and how to get what is missing",
    _declare,
    _run,
    examples=("doctor", "doctor --json - --quiet"),
    result="the findings",
    status=_status,
)
