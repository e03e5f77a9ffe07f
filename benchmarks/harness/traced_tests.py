"""Which tests run which lines, and how long each takes: what a mutated line is tried with first."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

Coverage = dict[str, Any]
"""``"durations"``: seconds of each test by its id; ``"lines"``: of each file, by line, the ids of tests as numbers."""

MODULE = "import"
"""What stands for a test where a line runs when its module is imported."""


class _Tracer:
    """A pytest plugin: tells the tracer which test runs, and keeps the times."""

    def __init__(self, coverage: Any) -> None:
        self._coverage = coverage
        self.durations: dict[str, float] = defaultdict(float)
        self.failed: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """One test at a time."""
        self._coverage.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self._coverage.switch_context(MODULE)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Setting up counts too; what fails, or is skipped, notices nothing."""
        self.durations[report.nodeid] += report.duration
        if not report.passed:
            self.failed.add(report.nodeid)


def trace(root: Path, folders: Sequence[str], file: Path, arguments: Sequence[str]) -> None:
    """Run tests in this process, which has imported nothing of the checkout, and write which lines each runs.

    Args:
        root: of the checkout.
        folders: whose lines count, from there.
        file: JSON, a `Coverage`.
        arguments: to pytest.
    """
    from coverage import Coverage as Tracing

    tracing = Tracing(data_file=None, include=[f"{root}/{folder}/*" for folder in folders], config_file=False)
    tracer = _Tracer(tracing)
    tracing.start()
    tracing.switch_context(MODULE)
    try:
        pytest.main([*arguments, "-q", "-p", "no:cacheprovider"], plugins=[tracer])
    finally:
        tracing.stop()
    data, lines = tracing.get_data(), {}
    tests = sorted(set(tracer.durations) - tracer.failed)
    numbers = {name: number for number, name in enumerate(tests)}
    for path in data.measured_files():
        by_line = data.contexts_by_lineno(path)
        own = Path(path).resolve().relative_to(root.resolve()).as_posix()
        lines[own] = {
            str(line): sorted({numbers[name] for name in names if name in numbers}) for line, names in by_line.items()
        }
    content = {"durations": [[name, round(tracer.durations[name], 4)] for name in tests], "lines": lines}
    from analogsim.utils.files import write_whole

    write_whole(file, json.dumps(content))


class LinesOfTests:
    """What `trace` wrote.

    Args:
        file: of it.
    """

    def __init__(self, file: Path) -> None:
        content = json.loads(file.read_text(encoding="utf-8"))
        self._tests = [name for name, _ in content["durations"]]
        self.seconds = dict(content["durations"])
        self._lines = content["lines"]

    def of(self, path: str, line: int) -> list[str]:
        """Tests that run a line, or, where none does but importing, any line of its file; quick ones first."""
        by_line = self._lines.get(path, {})
        numbers = set(by_line.get(str(line), ()))
        if not numbers:
            numbers = {number for each in by_line.values() for number in each}
        return sorted((self._tests[number] for number in numbers), key=lambda name: self.seconds[name])
