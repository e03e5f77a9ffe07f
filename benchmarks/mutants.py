"""Do the tests notice? Wrong changes of the code, one after the other, and the tests that run the changed line.

    python -m benchmarks.mutants --count 200 --json benchmarks/results/mutants.json

The changes are a sample of all exchanged operators, numbers, conditions, functions and left-out calls
(`benchmarks.harness.mutations`), in all packages. A copy of the checkout takes one of them at a time. First the default
tests run once with a tracer, which tells what runs which line (``--traced FILE`` keeps that). A change is tried with
the quick ones among the tests that run its line, then with the test file of its file's name. It is noticed where a test
fails, or runs ten times as long as it should. What no test notices is listed; the reasons why nothing can be noticed
there stand in a file of their own (``--explained``), by file, function and change. ``--again`` takes what an earlier
``--json`` found unnoticed, without tracing, with the test files alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.harness.mutations import Mutation, choose, find_mutations, sources
from benchmarks.harness.traced_tests import LinesOfTests, trace

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("analogsim", "devices", "recipes")
EXPLAINED = ROOT / "benchmarks" / "results" / "mutants-explained.toml"
LEFT_OUT = ("tests/whole/test_contributing.py", "tests/whole/test_house.py")
"""Tests that say nothing of what code does, and copy trees or read all files."""

_TOO_SLOW = "too slow"
_SEEN = ("noticed", _TOO_SLOW)
_SECONDS = 20.0
"""Of quick tests that one change is tried with, by what they took when traced."""
_FILE = 60.0
"""That a file of tests takes at most."""


def _copy(root: Path, place: Path) -> Path:
    """The checkout without what git does not keep."""
    ignored = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".mypy_cache", ".ruff_cache", "*.db", "runs")
    return Path(shutil.copytree(root, place / "checkout", symlinks=True, ignore=ignored))


def _chosen_tests(tests: list[str], seconds: dict[str, float]) -> list[str]:
    """Those that fit into the time, quick ones first; at least one."""
    chosen: list[str] = []
    spent = 0.0
    for name in tests:
        spent += seconds[name]
        if chosen and spent > _SECONDS:
            break
        chosen.append(name)
    return chosen


def _test_file(tree: Path, path: str) -> list[str]:
    """The test file of a module's name, if there is one."""
    *folders, name = Path(path).parts
    below = folders[1:] if folders[0] == "analogsim" else folders
    mirror = Path("tests", *below, f"test_{name}")
    return [mirror.as_posix()] if (tree / mirror).exists() else []


def _enter(tree: str) -> None:
    """Let a forked process import from another tree; of ours it may hold nothing but what runs it."""
    os.setsid()
    os.chdir(tree)
    os.environ["PYTHONPATH"] = tree
    sys.path.insert(0, tree)
    for name in [name for name in sys.modules if name.split(".")[0] in ("analogsim", "benchmarks")]:
        del sys.modules[name]


class _FirstFailure:
    """Writes down which test failed: the name in pytest's summary ends where a space or a dash may also stand in it."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self._file.exists():
            self._file.write_text(report.nodeid, encoding="utf-8")

    pytest_collectreport = pytest_runtest_logreport


def _name_of_failed(log: Path) -> Path:
    return log.with_suffix(".failed")


def _run_tests(tree: str, tests: list[str], log: str) -> None:
    """In a process of its own: the tests, in the changed tree; exits as pytest does."""
    _enter(tree)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdout = sys.stderr = os.fdopen(output, "w")
    import pytest

    arguments = ["-x", "-q", "-p", "no:cacheprovider", "--no-header", "-o", "addopts=", *_ARGUMENTS, *tests]
    code = pytest.main(arguments, plugins=[_FirstFailure(_name_of_failed(Path(log)))])
    sys.stdout.flush()
    os._exit(int(code))


_ARGUMENTS = ("--import-mode=importlib", "--doctest-modules", "--doctest-ignore-import-errors", "--strict-markers")


def _verdict(tree: Path, tests: list[str], seconds: float, log: Path) -> str:
    """``"noticed"``, ``"too slow"`` or ``"unnoticed"``."""
    _name_of_failed(log).unlink(missing_ok=True)
    worker = get_context("fork").Process(target=_run_tests, args=(str(tree), tests, str(log)))
    worker.start()
    worker.join(60 + 10 * seconds)
    if worker.is_alive():
        os.killpg(worker.pid or 0, signal.SIGKILL)
        worker.join()
        return _TOO_SLOW
    return "unnoticed" if worker.exitcode == 0 else "noticed"


def _try(mutation: Mutation, tree: Path, tests: LinesOfTests | None) -> dict[str, Any]:
    """Make the change, run the tests, take it back."""
    file = tree / mutation.path
    clean = file.read_text(encoding="utf-8")
    quick = [] if tests is None else _chosen_tests(tests.of(mutation.path, mutation.line), tests.seconds)
    start = time.monotonic()
    verdict, by = "no test runs it", None
    try:
        file.write_text(mutation.applied(clean), encoding="utf-8")
        for running in (quick, _test_file(tree, mutation.path)):
            if running and verdict not in _SEEN:
                expected = sum(tests.seconds.get(name, _FILE) for name in running) if tests else _FILE
                log = tree.parent / "log.txt"
                verdict = _verdict(tree, running, expected, log)
                failed = _name_of_failed(log)
                by = failed.read_text(encoding="utf-8") if failed.exists() else None
    finally:
        file.write_text(clean, encoding="utf-8")
    return {
        "path": mutation.path,
        "function": mutation.function,
        "line": mutation.line,
        "before": mutation.before,
        "after": mutation.after,
        "verdict": verdict,
        "by": by,
        "tests": len(quick),
        "seconds": round(time.monotonic() - start, 1),
    }


def _try_all(
    chosen: Sequence[Mutation], tree: Path, tests: LinesOfTests | None, reasons: dict[tuple[str, str, str, str], str]
) -> list[dict[str, Any]]:
    """One after the other, each told as it ends."""
    rows = []
    for place, mutation in enumerate(chosen, 1):
        row = _try(mutation, tree, tests)
        if row["verdict"] not in _SEEN and mutation.key in reasons:
            row |= {"verdict": "explained", "reason": reasons[mutation.key]}
        rows.append(row)
        print(f"{place:4} {row['verdict']:15} {row['seconds']:6.1f} s  {mutation}", flush=True)
    return rows


def _key(row: dict[str, Any]) -> tuple[str, str, str, str]:
    """What names a change, see `Mutation.key`."""
    return row["path"], row["function"], row["before"], row["after"]


def _reasons(file: Path) -> dict[tuple[str, str, str, str], str]:
    """Why changes cannot be noticed, by what names them."""
    if not file.exists():
        return {}
    entries = tomllib.loads(file.read_text(encoding="utf-8")).get("mutant", [])
    return {_key(entry): entry["reason"] for entry in entries}


def _doubtful(tree: Path, rows: list[dict[str, Any]]) -> list[str]:
    """Tests that noticed a change, and fail without one too."""
    names = sorted({row["by"] for row in rows if row["by"] and "::" in row["by"]})
    log = tree.parent / "log.txt"
    if not names or _verdict(tree, names, _FILE * len(names), log) == "unnoticed":
        return []
    alone = [name for name in names if _verdict(tree, [name], _FILE, log) != "unnoticed"]
    return alone or names


def _take_back_doubtful(rows: list[dict[str, Any]], tree: Path) -> None:
    """What only such tests noticed counts as unnoticed."""
    doubtful = _doubtful(tree, rows)
    for row in rows:
        if row["by"] in doubtful:
            row["verdict"] = "unnoticed"
            print(f"doubtful: {row['by']} also fails without {row['path']}:{row['line']}")


def table(rows: list[dict[str, Any]]) -> str:
    """By package: tried, noticed, explained."""
    tried, noticed, explained = Counter[str](), Counter[str](), Counter[str]()
    for row in rows:
        parts = Path(row["path"]).parts
        package = "/".join(parts[:2]) if len(parts) > 2 else parts[0]
        for name in (package, "all"):
            tried[name] += 1
            noticed[name] += row["verdict"] in _SEEN
            explained[name] += row["verdict"] == "explained"
    lines = ["| package | tried | noticed | nothing to notice | unnoticed |", "|---|---|---|---|---|"]
    for name in (*sorted(set(tried) - {"all"}), "all"):
        rest = tried[name] - noticed[name] - explained[name]
        lines.append(f"| {name} | {tried[name]} | {noticed[name]} | {explained[name]} | {rest} |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200, help="how many changes (default: %(default)d)")
    parser.add_argument("--least", type=int, default=4, help="of each package at least (default: %(default)d)")
    parser.add_argument("--only", nargs="+", default=list(FOLDERS), metavar="FOLDER", help="whose code is changed")
    parser.add_argument("--traced", type=Path, metavar="FILE", help="what runs which line; made where it is not there")
    parser.add_argument("--tests", nargs="+", default=["tests"], metavar="PATH", help="tests to trace (default: tests)")
    parser.add_argument(
        "--again", type=Path, metavar="FILE", help="what was unnoticed there, with the tests as they are"
    )
    parser.add_argument("--explained", type=Path, default=EXPLAINED, metavar="FILE", help="why some are not noticed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every change and its verdict to this file")
    return parser


def _run_traced(tree: Path, file: Path, arguments: list[str]) -> None:
    _enter(str(tree))
    trace(tree, FOLDERS, file, arguments)


def _trace_apart(tree: Path, file: Path, tests: Sequence[str]) -> None:
    """In a process of its own, since it imports the tree's modules."""
    arguments = [*tests, *(f"--ignore={path}" for path in LEFT_OUT)]
    worker = get_context("fork").Process(target=_run_traced, args=(tree, file, arguments))
    worker.start()
    worker.join()
    if not file.exists():
        raise SystemExit(f"mutants: the tests could not be traced (exit {worker.exitcode})")


def _traced(tree: Path, file: Path, options: argparse.Namespace) -> LinesOfTests:
    """What runs which line; made where the file is not there."""
    if not file.exists():
        _trace_apart(tree, file, options.tests)
    return LinesOfTests(file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the sample and print the table; 1 if something is neither noticed nor explained."""
    options = _parser().parse_args(arguments)
    import torch  # once, before the processes that need it are forked off

    before = [] if options.again is None else json.loads(options.again.read_text(encoding="utf-8"))["results"]
    rows = [row for row in before if row["verdict"] in _SEEN]
    with tempfile.TemporaryDirectory() as folder:
        tree = _copy(ROOT, Path(folder))
        found = [mutation for path in sources(tree, options.only) for mutation in find_mutations(tree, path)]
        tests = None
        if options.again is None:
            tests = _traced(tree, options.traced.resolve() if options.traced else Path(folder) / "traced.json", options)
            chosen = choose(found, options.count, options.least)
        else:
            left = {_key(row) for row in before if row["verdict"] not in _SEEN}
            chosen = list({mutation.key: mutation for mutation in found if mutation.key in left}.values())
        print(f"{len(chosen)} of {len(found)} possible changes", flush=True)
        rows += _try_all(chosen, tree, tests, _reasons(options.explained))
        _take_back_doubtful(rows, tree)
    print(f"\n{table(rows)}")
    if options.json is not None:
        from benchmarks.harness.timing import environment, write

        document = environment(torch.device("cpu"))
        document["settings"] = {"count": len(rows), "possible": len(found)}
        document["results"] = rows
        write(options.json, document)
    return int(any(row["verdict"] in ("unnoticed", "no test runs it") for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
