"""Set up analogsim in a checkout and run it: ``python3 run.py demo``, ``... test``, ``... docs``, ``... check``.

Needs nothing but Python. The first command makes a virtual environment in ``.venv`` and installs the project with what
that command needs into it (torch is large: a minute or two); another one adds what it needs besides. From then on all
start at once. ``core`` makes another for a version of torch, in ``.venvs``, of about 5 GB:
``python3 run.py core --torch lowest``, ``... highest``, ``... 2.14.1``.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
STAMP = VENV / "installed-for"
HERE = BIN / "python" if STAMP.exists() else Path(sys.executable)
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")

NEXT = """
Next, a network and data of your own, from two functions of Python (docs/yours.md and docs/tasks.md say what they give):

    {activate}
    analogsim judge --model nets.py:build --weights net.safetensors --data data.py:load --crossbar standard
    analogsim train --model nets.py:build --data data.py:load --crossbar standard

All runs in MLflow: analogsim ui. Tutorial, how-to pages and reference: python3 run.py docs"""

# The extras of pyproject.toml that a command needs; dev has all of them.
EXTRAS = {"demo": "recipes", "docs": "docs", "test": "dev", "check": "dev", "setup": "dev"}

# The core's tests are all but these: they need neither torchvision, optuna, mlflow nor what else the recipes need.
NOT_CORE = (
    "tests/recipes",
    "tests/browser",
    "tests/examples",
    "tests/benchmarks",
    "tests/whole/test_benchmarks.py",
    "tests/zoo",
    "analogsim/recipes",
)


def call(command: Sequence[str | os.PathLike[str]], minutes: float | None = None) -> None:
    """Run a command in the checkout, for so many minutes at most; its failure is ours."""
    try:
        code = subprocess.run(command, cwd=ROOT, check=False, timeout=minutes and 60 * minutes).returncode
    except subprocess.TimeoutExpired:
        raise SystemExit(f"ended after {minutes:g} minutes: {' '.join(map(str, command))}") from None
    if code:
        raise SystemExit(code)


def fingerprint() -> str:
    """What an environment is made for."""
    return hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()


def set_up(extra: str) -> None:
    """Make the environment with an extra of pyproject.toml, unless it is there, for this very file."""
    wanted, (made_for, *there) = fingerprint(), STAMP.read_text().split() if STAMP.exists() else [""]
    there = there if made_for == wanted else []
    if extra in there or "dev" in there:
        return
    size = "a minute or two" if there else "once; torch is large, this takes a minute or two"
    print(f"setting up .venv with [{extra}] ({size})", flush=True)
    if not BIN.exists():
        call([sys.executable, "-m", "venv", VENV])
    call([BIN / "python", *PIP, "-e", f".[{extra}]"])
    STAMP.write_text("\n".join((wanted, *there, extra)))


def read_site(python: str | os.PathLike[str], port: int, serve: bool) -> None:
    """Build the site strictly into build/site, and serve it to this machine until Ctrl-C."""
    site = ROOT / "build" / "site"
    call([python, "-m", "sphinx", "-W", "--keep-going", "-E", "-q", "-d", site.with_name("doctrees"), "docs", site])
    print(f"the site is {site.relative_to(ROOT) / 'index.html'}", flush=True)
    if serve:
        print(f"and at http://127.0.0.1:{port} until Ctrl-C", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            call([python, "-m", "http.server", "--bind", "127.0.0.1", "--directory", site, str(port)])


def asked(command: Sequence[str | os.PathLike[str]]) -> tuple[int, str, str]:
    """Exit status, output and the last line of errors of a command outside of the machine's limits on versions."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PIP_CONSTRAINT": os.devnull},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, (done.stderr.strip() or "no word why").splitlines()[-1]


def version_of_torch(wanted: str) -> str | None:
    """The version that "lowest" or "highest" stands for, by pyproject.toml and pip; another as it is."""
    import tomllib  # from Python 3.11 on, and what is older is to hear so from `main`

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (requirement,) = (line for line in project["dependencies"] if re.match(r"torch\b(?![-_])", line))
    if wanted == "lowest":
        bound = re.search(r">=\s*([\w.]+)", requirement)
        if bound is None:
            raise SystemExit(f"pyproject.toml has no lowest torch: {requirement!r}")
        return bound[1]
    if wanted != "highest":
        return wanted
    query = ["--dry-run", "--no-deps", "--ignore-installed", "--report", "-", requirement]
    code, report, why = asked([HERE, *PIP, *query])
    if code:
        print(f"the newest torch cannot be had: {why}", flush=True)
        return None
    return str(json.loads(report)["install"][0]["metadata"]["version"]).split("+")[0]


def core(wanted: str, minutes: float, rest: Sequence[str]) -> None:
    """Run the core's tests on a version of torch in an environment of its own; say so where pip does not have it."""
    version = version_of_torch(wanted)
    if version is None:
        return
    _, present, _ = asked([HERE, "-c", "from importlib.metadata import version; print(version('torch'))"])
    present, release = (re.sub(r"(\.0)+$", "", text.strip().split("+")[0]) for text in (present, version))
    if STAMP.exists() and wanted in ("lowest", "highest") and present == release:
        print(f"the {wanted} torch, {version}, is that of .venv: `run.py test` covers it", flush=True)
        return
    place = ROOT / ".venvs" / f"torch-{version}"
    python, stamp, made_for = place / BIN.name / "python", place / STAMP.name, fingerprint()
    if not (stamp.exists() and stamp.read_text() == made_for):
        print(f"setting up {place.relative_to(ROOT)} (once; a minute or two)", flush=True)
        if not python.exists():
            call([sys.executable, "-m", "venv", place])
        code, _, why = asked([python, *PIP, f"torch=={version}"])
        if code:
            print(f"torch {version} cannot be had, so nothing was tested with it: {why}", flush=True)
            return
        code, _, why = asked([python, *PIP, "-e", ".[core-tests]", f"torch=={version}"])
        if code:
            raise SystemExit(f"the core cannot be installed with torch {version}: {why}")
        stamp.write_text(made_for)
    print(f"the core's tests on torch {version}", flush=True)
    call([python, "-m", "pytest", *(f"--ignore={path}" for path in NOT_CORE), *rest], minutes)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = {
        "demo": "train a small network plainly and hardware-aware, and compare; more words go to: analogsim train",
        "test": "run the tests; more words go to pytest, such as: -m slow",
        "docs": "build the site from docs/ and serve it on 127.0.0.1",
        "core": "run the core's tests (no recipes) on another torch; more words go to pytest",
        "check": "formatting, lint and types",
        "setup": "only make the environment",
    }
    listed = "; ".join(f"{name}: {text}" for name, text in commands.items())
    parser.add_argument("command", choices=commands, help=listed)
    parser.add_argument(
        "--torch",
        default="lowest",
        metavar="VERSION",
        help='of core: "lowest" that pyproject.toml allows, "highest" that pip has, or 2.14.1 (default: lowest)',
    )
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="of core: end its tests after so many (default: %(default)g)"
    )
    parser.add_argument("--port", type=int, default=8000, help="of docs: where it is served (default: %(default)d)")
    parser.add_argument("--no-serve", action="store_true", help="of docs: only build it")
    options, rest = parser.parse_known_args()
    if sys.version_info < (3, 11):  # noqa: UP036 - what runs this file is not yet what pyproject.toml asks for
        raise SystemExit(f"analogsim needs Python 3.11 or newer, this is {sys.version.split()[0]}")
    if options.command != "core":
        set_up(EXTRAS[options.command])
    python = BIN / "python"
    if options.command == "demo":
        call([python, "-m", "analogsim", "train", *(rest or ["digits-mlp-16"])])
        print(NEXT.format(activate=r".venv\Scripts\activate" if os.name == "nt" else ". .venv/bin/activate"))
    elif options.command == "test":
        call([python, "-m", "pytest", *rest])
    elif options.command == "docs":
        read_site(python, options.port, not options.no_serve)
    elif options.command == "core":
        core(options.torch, options.minutes, rest)
    elif options.command == "check":
        call([python, "-m", "ruff", "format", "--check"])
        call([python, "-m", "ruff", "check"])
        call([python, "-m", "mypy"])


if __name__ == "__main__":
    main()
