"""What is printed as a table is kept too, whatever fails after it: every program, on a full disk and otherwise."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import analogsim
from analogsim.fit import sample_measurements
from analogsim.recipes import train, tune
from analogsim.recipes.cli import main
from tests.recipes.conftest import Finished

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")

Patch = Callable[[pytest.MonkeyPatch], object]


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def nothing(_: pytest.MonkeyPatch) -> None:
    """The disk is full where the command writes last."""


def second(name: str, error: type[BaseException] = OSError) -> Patch:
    """The second network fails."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        original, calls = getattr(analogsim, name), []

        def call(*arguments: Any, **options: Any) -> Any:
            calls.append(1)
            if len(calls) == 2:
                raise error("the second one")
            return original(*arguments, **options)

        monkeypatch.setattr(analogsim, name, call)

    return patch


QUICK = ("--chips", "1", "--times", "1s")
CASES: dict[str, tuple[list[str], Patch, str, str]] = {
    "evaluate, plot": (["evaluate", "RUN", *QUICK, "--plot", "full.png"], nothing, "after 1s", "hardware-aware"),
    "evaluate, second": (["evaluate", "RUN", *QUICK], second("evaluate"), "after 1s", "plain"),
    "evaluate, Ctrl-C": (["evaluate", "RUN", *QUICK], second("evaluate", KeyboardInterrupt), "after 1s", "plain"),
    "evaluate --merge": (["evaluate", "--merge", "part.json", "--plot", "full.png"], nothing, "after 1s", "plain"),
    "ablate": (["evaluate", "RUN", *QUICK, "--ablate"], second("ablate"), "plain network", "plain"),
    "sensitivity": (["sensitivity", "RUN", "--chips", "1"], second("sensitivity"), "plain network", "plain"),
    "judge": (
        ["judge", "RUN/plain/checkpoint.pt", "--minutes", "0.02", "--html", "/dev/full"],
        nothing,
        "plain network",
        "plain",
    ),
    "compare": (["compare", "RUN", "--html", "/dev/full"], nothing, "accuracy [%]", "runs"),
    "fit": (["fit", "m.csv", "--bootstrap", "0", "--plot", "full.png"], nothing, "parameter  ", "parameters"),
    "train": (
        ["train", "SETTINGS", "--no-tracking"],
        lambda patch: patch.setattr(train, "write_figure", no_space),
        "after 1d",
        "reports",
    ),
    "tune": (
        ["tune", "SETTINGS", "--no-tracking", "study.trials=1", "study.chips=1"],
        lambda patch: patch.setattr(tune, "write_figure", no_space),
        "best trial",
        "reports",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_table_is_kept_whatever_fails_after_it(
    case: str,
    finished: Finished,
    settings: list[str],
    alone: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words, patch, shown, kept = CASES[case]
    columns = sample_measurements("gaussian(std=0.03)+drift", cells=4, levels=4, times=(0, "1h"), repeats=2)
    rows = [",".join(f"{value:.6g}" for value in row) for row in zip(*columns.values(), strict=True)]
    Path("m.csv").write_text("\n".join(["target [uS],time [s],measured [uS],cell", *rows]))
    Path("full.png").symlink_to("/dev/full")
    if "part.json" in words:
        main(["evaluate", str(finished.folder), *QUICK, "--json", "part.json", "--quiet"])
    given = {"SETTINGS": settings}
    line = [part for word in words for part in given.get(word, [word.replace("RUN", str(finished.folder))])]
    capsys.readouterr()
    patch(monkeypatch)
    with pytest.raises(SystemExit) as ended:
        main([*line, "--json", "kept.json"])
    out, err = capsys.readouterr()
    assert ended.value.code == (130 if "Ctrl-C" in case else 2), err
    assert shown in out
    assert kept in json.loads(Path("kept.json").read_text())
    assert "analogsim: what was found before that is written to kept.json" in err
    assert "Traceback" not in err
    if case in ("train", "tune"):
        (text,) = (path for path in Path("runs").rglob("report.txt"))
        assert shown in text.read_text()


def test_nothing_is_kept_of_a_command_that_found_nothing(
    finished: Finished, alone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(analogsim, "evaluate", no_space)
    with pytest.raises(SystemExit):
        main(["evaluate", str(finished.folder), *QUICK, "--json", "kept.json"])
    assert not Path("kept.json").exists()
    assert "what was found" not in capsys.readouterr().err


def test_a_result_that_cannot_be_written_either_is_shown(
    finished: Finished, alone: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(finished.folder), *QUICK, "--json", "/dev/full"])
    out, err = capsys.readouterr()
    assert ended.value.code == 2
    assert "after 1s" in out
    assert "No space left on device" in err
