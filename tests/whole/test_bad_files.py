"""What is wrong in files, options and commands: the same judge as for public names, over what is written elsewhere.

A stored file that is not what was written must be refused; what is taken in spite of a change must hold the same as
before (a bit in the date of an archive's entry). A table of an instrument, a configuration and a command line are
refused by a clear error, or they are harmless.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import analogsim
from analogsim.evaluation.course import ChipScores
from analogsim.evaluation.journal import Journal
from analogsim.evaluation.report import Report
from analogsim.fit import sample_measurements
from analogsim.recipes import cli
from analogsim.recipes.config.options import Config, StudyConfig
from analogsim.recipes.config.toml import dump_toml, load_toml
from analogsim.recipes.evaluate import merge
from analogsim.recipes.judge.judgement import Judgement
from analogsim.recipes.judge.paired import Difference
from analogsim.recipes.study.folder import owned_folder
from analogsim.recipes.study.outcome import FOLDER, RUN, Outcome, outcome_of
from analogsim.recipes.train import resume_config
from analogsim.recipes.training.checkpoint import load_checkpoint, save_checkpoint
from analogsim.recipes.training.setup import check
from analogsim.utils.digests import sealed, unsealed
from tests.whole.test_bad_input import Case, told


def twin() -> nn.Module:
    torch.manual_seed(0)
    analog = analogsim.convert(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), "pcm", crossbar="standard")
    analogsim.program(analog.eval(), seed=3)
    return analog


X = torch.linspace(-1, 1, 12).reshape(3, 4)


@dataclasses.dataclass(frozen=True)
class Stored:
    """A kind of file: how one is written, and what it says."""

    write: Callable[[Path], object]
    read: Callable[[Path], object]


def _adapted() -> nn.Module:
    analog = twin()
    analogsim.add_adapters(analog, 1)
    with torch.no_grad():
        for number, parameter in enumerate(analogsim.adapter_parameters(analog)):
            parameter.add_(torch.linspace(0, 1, parameter.numel()).reshape(parameter.shape) + number)
    return analog


def _chip_in(path: Path) -> list[Any]:
    analog = twin()
    analogsim.load_chip(analog, path)
    found: list[Any] = []
    for layer in (analog[0], analog[2]):
        chip = layer.analog.chip
        found += [chip.time, chip.seed, chip.written.cells.programmed.tolist()]
    return found


def _adapters_in(path: Path) -> list[Any]:
    analog = _adapted()
    analogsim.load_adapters(analog, path)
    return [parameter.tolist() for parameter in analogsim.adapter_parameters(analog)]


def _report() -> Report:
    return analogsim.evaluate(twin(), [(X, torch.arange(3))], chips=2, times=["1s", "1h"])


def _journal(path: Path) -> None:
    with Journal(path, "mine").opened(QUESTION) as record:
        record.add([ChipScores(seed, (0.5 + seed, 0.25)) for seed in range(4)])


def _chips_of(path: Path) -> object:
    """What a journal holds; of chips that it lost, as when it was torn, it says nothing wrong."""
    with Journal(path, "mine").opened(QUESTION) as record:
        found = record.done(range(100))
    return [chip for seed, chip in found.items() if seed > 3 or chip.values != (0.5 + seed, 0.25)]


QUESTION = {"weights": "w", "network": "n", "data": "d", "metric": "m", "score": "s", "clean": 0.5, "device": "cpu"}


def _outcome(path: Path) -> None:
    outcome = Outcome(3, str(path.parent), "run", "COMPLETE", metrics={"seconds": 1.5, "objective": 0.25})
    path.write_text(json.dumps(sealed(dataclasses.asdict(outcome))), encoding="utf-8")


def _outcome_in(path: Path) -> object:
    state = SimpleNamespace(name="COMPLETE")
    return outcome_of(SimpleNamespace(number=3, state=state, user_attrs={FOLDER: str(path.parent), RUN: "run"}))


def _parts(path: Path) -> None:
    """Two of an evaluation, as ``--json`` writes them."""
    for part, first in ((path, 0), (path.with_name("other.json"), 2)):
        report = analogsim.evaluate(twin(), [(X, torch.arange(3))], chips=2, seed=first, times=["1s"])
        part.write_text(json.dumps({"plain": sealed(report.to_dict())}), encoding="utf-8")


def _judgement(path: Path) -> None:
    judged = Judgement("recommended", "Take it.", _report(), Difference(0.1, 0.01, 7.0), "1h", recommended=("column",))
    path.write_text(json.dumps(sealed(judged.to_dict())), encoding="utf-8")


STORED = {
    "journal": Stored(_journal, _chips_of),
    "config.toml": Stored(lambda path: dump_toml(Config(), path), lambda path: resume_config(path.parent)),
    "trial.json": Stored(_outcome, _outcome_in),
    "studies/.study": Stored(
        lambda path: owned_folder(path.parents[1], "studies", "mine"),
        lambda path: owned_folder(path.parents[1], "studies", "mine").name,
    ),
    "part.json": Stored(
        _parts,
        lambda path: {name: report.to_dict() for name, report in merge([str(path), "other.json"]).items()},
    ),
    "judgement": Stored(
        _judgement, lambda path: Judgement.from_dict(json.loads(path.read_text(encoding="utf-8"))).to_dict()
    ),
    "chip": Stored(lambda path: analogsim.save_chip(twin(), path), _chip_in),
    "adapters": Stored(lambda path: analogsim.save_adapters(_adapted(), path), _adapters_in),
    "checkpoint": Stored(
        lambda path: save_checkpoint({"model": nn.Linear(3, 2).state_dict(), "epoch": 1}, path),
        lambda path: {name: str(value) for name, value in load_checkpoint(path).items()},
    ),
    "device": Stored(
        lambda path: analogsim.save_device(analogsim.as_device_model("pcm(g_max=20)"), path),
        lambda path: repr(analogsim.load_device(path)),
    ),
    "report": Stored(
        lambda path: path.write_text(json.dumps(sealed(_report().to_dict())), encoding="utf-8"),
        lambda path: Report.from_dict(unsealed(json.loads(path.read_text(encoding="utf-8")))).to_dict(),
    ),
}


def changes_of(content: bytes, count: int) -> Iterator[tuple[str, bytes]]:
    """What can become of a file: nothing of it, a part, something else, a bit that is another one."""
    generator = np.random.default_rng(0)
    yield "empty", b""
    yield "text", b"no such thing"
    yield "zeros", bytes(len(content))
    yield "twice", content + content
    for share in (0.01, 0.3, 0.9, 0.999):
        yield f"first {share:.1%}", content[: int(share * len(content))]
    yield "without its last line", content[: content.rstrip(b"\n").rfind(b"\n") + 1] if b"\n" in content[:-1] else b""
    for place in np.sort(generator.integers(0, len(content), count)):
        changed = bytearray(content)
        changed[place] ^= 1 << int(generator.integers(0, 8))
        yield f"bit of byte {place}", bytes(changed)


def stored_cases(folder: Path, count: int) -> Iterator[Case]:
    """All changes of all kinds; one that is read says the same as before, or it was taken in silence."""
    for name, kind in STORED.items():
        path = folder / name
        kind.write(path)
        content, before = path.read_bytes(), kind.read(path)

        def one(changed: bytes, path: Path = path, kind: Stored = kind, before: object = before) -> None:
            path.write_bytes(changed)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error", UserWarning)
                    warnings.simplefilter("error", RuntimeWarning)
                    found = kind.read(path)
            # Of reading text, before any reader of ours; and of files that people change, which are told, not refused.
            except (UnicodeDecodeError, json.JSONDecodeError, UserWarning, RuntimeWarning) as error:
                raise analogsim.errors.InvalidValueError(str(error)) from error
            if found != before:
                raise AssertionError(f"{path.name} says something else")

        for what, changed in changes_of(content, count):
            yield Case(f"{name}, {what}", changed, one, False)


VALUES = ("x", "-5", "1e999", "-1e999", "1e308", "nan", "", "1;2", "2026-11-30", "0x10", "\uff11", "1_0", "9.91e37")


def table_cases() -> Iterator[Case]:
    """A table of measurements with one thing wrong."""
    columns = sample_measurements("gaussian(std=0.03)+drift", cells=4, levels=4, times=(0, "1h"), repeats=2)
    lines = ["target [µS],time [s],measured [µS],cell"]
    lines += [",".join(f"{value:.6g}" for value in row) for row in zip(*columns.values(), strict=True)]

    def changed(change: Callable[[list[str]], list[str]]) -> bytes:
        return "\n".join(change(list(lines))).encode()

    texts = {
        "empty": b"",
        "header alone": changed(lambda rows: rows[:1]),
        "no header": changed(lambda rows: rows[1:]),
        "binary": bytes(range(256)) * 4,
        "a value too many": changed(lambda rows: [*rows[:5], rows[5] + ",1", *rows[6:]]),
        "a value too few": changed(lambda rows: [*rows[:5], rows[5].rsplit(",", 1)[0], *rows[6:]]),
        "one row": changed(lambda rows: rows[:2]),
        "json": b'{"target": [1, 2]}',
        **{
            f"{word!r} for a {name}": changed(
                lambda rows, place=place, word=word: [  # type: ignore[misc]
                    *rows[:4],
                    ",".join(word if at == place else part for at, part in enumerate(rows[4].split(","))),
                    *rows[5:],
                ]
            )
            for place, name in enumerate(("target", "time", "reading", "cell"))
            for word in (
                "x",
                "-5",
                "1e999",
                "-1e999",
                "1e308",
                "nan",
                "",
                "1;2",
                "2026-11-30",
                "0x10",
                "１",
                "1_0",
                "9.91e37",
            )
        },
        **{
            f"unit {unit!r}": changed(lambda rows, unit=unit: [rows[0].replace("µS", unit), *rows[1:]])  # type: ignore[misc]
            for unit in ("V", "A", "siemens", "kΩ", "%", "µs", "", "mohm", "S")
        },
        **{
            f"time in {unit!r}": changed(lambda rows, unit=unit: [rows[0].replace("[s]", f"[{unit}]"), *rows[1:]])  # type: ignore[misc]
            for unit in ("y", "µS", "fortnight", "ns", "d", "")
        },
    }

    def one(content: bytes) -> object:
        path = Path("m.csv")
        path.write_bytes(content)
        return analogsim.fit_device(path, bootstrap=0)

    for name, content in texts.items():
        yield Case(f"table, {name}", content, one, False)


WRONG = (
    "",
    "no such thing",
    "-1",
    "0",
    "1e400",
    "nan",
    "true",
    "[]",
    "[1, 2]",
    "{}",
    "1.5",
    '"\\u0000"',
    "none",
    "9" * 400,
)


def keys_of(kind: type, before: str = "") -> Iterator[str]:
    """All options of a configuration, by their names in TOML."""
    for field in dataclasses.fields(kind):
        inside = field.default_factory if field.default_factory is not dataclasses.MISSING else None
        if isinstance(inside, type) and dataclasses.is_dataclass(inside):
            yield from keys_of(inside, f"{before}{field.name}.")
        else:
            yield f"{before}{field.name}"


def option_cases(kind: type, look: Callable[[Any], object]) -> Iterator[Case]:
    """Each option with values that are none of it, or odd ones."""
    for key in keys_of(kind):
        for value in WRONG:
            yield Case(key, value, lambda given, key=key: look(load_toml(kind, None, [f"{key}={given}"])), False)  # type: ignore[misc]


def file_cases() -> Iterator[Case]:
    """Configuration files that are none, or hold what no configuration has."""
    dump_toml(Config(), Path("all.toml"))
    text = Path("all.toml").read_text(encoding="utf-8")
    files = {
        "empty": "",
        "no TOML": "device = ",
        "a table twice": f"{text}\n[data]\n",
        "an unknown table": "[dats]\nname = 1\n",
        "an unknown option": "[data]\nnaem = 'digits'\n",
        "an option for a table": "data = 3\n",
        "a table for an option": "[device]\nname = 'pcm'\n",
        "a list of tables": "[[data]]\nname = 'digits'\n",
        "bytes": "\0\1",
    }

    def one(content: str) -> object:
        Path("c.toml").write_text(content, encoding="utf-8")
        return load_toml(Config, "c.toml")

    for name, content in files.items():
        yield Case(f"file, {name}", content, one, False)


COMMANDS = ("train", "tune", "evaluate", "sensitivity", "judge", "compare", "fit", "devices", "ui")


def command_cases() -> Iterator[Case]:
    """Command lines that ask for what there is not."""
    tails = (
        ["no such thing"],
        ["--no-such-option"],
        [""],
        ["--device", "pmc"],
        ["--times", "x"],
        ["--chips", "0"],
        ["--chips", "x"],
        ["--json", "no/such/folder/x.json"],
        ["--plot", "x.doc"],
        ["--html", "no/such/folder/x.html"],
        ["--data", "folder:no such folder"],
        ["--data", "npz:none.npz", "--model", "mlp"],
        ["--model", "none.py:build", "--data", "digits"],
        ["--weights", "none.pt"],
        ["--workers", "-1"],
        ["--minutes", "nan"],
        ["--seed", "9" * 400],
        ["--port", "x"],
        ["\0"],
        ["a=b"],
        ["device"],
        ["--"],
        ["--compensation", "colum"],
    )
    for command in COMMANDS:
        for tail in tails:
            if (command, tail) in [("devices", [""]), *((one, ["--"]) for one in ("devices", "train", "tune"))]:
                continue  # which ask for nothing but what the command does by itself
            yield Case(f"analogsim {command}", tuple(tail), lambda given, command=command: run(command, *given), True)  # type: ignore[misc]
    for words in (("trian",), ("",), ("--device",), ("\0",), ("train", "train")):
        yield Case("analogsim", words, lambda given: run(*given), True)


def run(*words: str) -> None:
    """A command line in this process; one line to standard error and an exit status of 2 are a clear error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(list(words))
        except SystemExit as ended:
            if not ended.code:
                return
            lines = err.getvalue().strip().splitlines()
            # argparse puts the usage above what is wrong.
            if lines and "error: " in lines[-1] and "Traceback" not in err.getvalue():
                raise analogsim.errors.InvalidValueError(lines[-1]) from None
            raise AssertionError(err.getvalue()) from None


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "OPTUNA_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_stored_file_that_is_another_one_is_noticed(here: Path) -> None:
    told(list(stored_cases(here, 25)))


@pytest.mark.slow
def test_any_bit_of_a_stored_file(here: Path) -> None:
    told(list(stored_cases(here, 400)))


def test_tables_of_measurements(here: Path) -> None:
    told(list(table_cases())[::4])


@pytest.mark.slow
def test_all_tables_of_measurements(here: Path) -> None:
    told(list(table_cases()))


def test_options(here: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        told([*file_cases(), *list(option_cases(Config, check))[::7]])


@pytest.mark.slow
def test_all_options(here: Path) -> None:
    told([*option_cases(Config, check), *option_cases(StudyConfig, check)])


def test_command_lines(here: Path) -> None:
    told(list(command_cases())[::5])
    assert not list(here.iterdir()), "a command that was refused left something"


@pytest.mark.slow
def test_all_command_lines(here: Path) -> None:
    told(list(command_cases()))
    assert not list(here.iterdir()), "a command that was refused left something"
