"""Who judges the chips of a command."""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import analogsim
from analogsim.evaluation.report import Report
from analogsim.recipes.cli import main
from analogsim.recipes.training.processes import ALONE
from analogsim.recipes.training.sharing import Sharing, add_sharing, sharing

PACKAGE = Path(analogsim.__file__).parents[1]


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_sharing(parser)
    return parser.parse_args(arguments)


def test_without_a_word_this_process_judges() -> None:
    with sharing(options(), "evaluate") as shared:
        assert shared == Sharing()
        assert shared.main
        assert shared.options("plain") == {"executor": None, "journal": None}
        assert shared.group is ALONE
    with sharing(options("--journal", "a.jsonl"), "evaluate") as shared:
        assert (shared.options("plain")["journal"].path, shared.options("plain")["journal"].name) == (
            "a.jsonl",
            "plain",
        )
    with (
        pytest.raises(ValueError, match="evaluate: --workers must be an integer >= 1, got 0"),
        sharing(options("--workers", "0"), "evaluate"),
    ):
        pass


def test_threads_are_shared_out_among_workers() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        with sharing(options("--workers", "2"), "evaluate") as shared:
            assert shared.executor is not None
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_a_journal_holds_all_networks_of_a_run(
    stopped: Path, capsys: pytest.CaptureFixture[str], fail: Callable[..., str]
) -> None:
    main(["evaluate", str(stopped), "--quiet"])
    alone = capsys.readouterr().out
    for _ in range(2):
        main(["evaluate", str(stopped), "--quiet", "--journal", "chips.jsonl"])
        assert capsys.readouterr().out == alone
        lines = Path("chips.jsonl").read_text().splitlines()
        assert sum('"chip"' in line for line in lines) == 2 * 2
    for name in ("plain", "hardware-aware"):
        assert sum(f'"name": "{name}"' in line for line in lines) == 1
    assert "another hardware" in fail(
        "evaluate", str(stopped), "--quiet", "--journal", "chips.jsonl", "--device", "gaussian"
    )
    main(["sensitivity", str(stopped), "--journal", "layers.jsonl", "--chips", "1", "--keep", "0.1"])
    first = capsys.readouterr().out
    size = Path("layers.jsonl").stat().st_size
    main(["sensitivity", str(stopped), "--journal", "layers.jsonl", "--chips", "1", "--keep", "0.1"])
    assert (capsys.readouterr().out, Path("layers.jsonl").stat().st_size) == (first, size)


@pytest.mark.slow
def test_workers_give_what_one_process_gives(stopped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["evaluate", str(stopped), "--quiet", "--chips", "5"])
    alone = capsys.readouterr().out
    main(["evaluate", str(stopped), "--quiet", "--chips", "5", "--workers", "2"])
    assert capsys.readouterr().out == alone
    main(["evaluate", str(stopped), "--quiet", "--chips", "2", "--ablate"])
    alone = capsys.readouterr().out
    main(["evaluate", str(stopped), "--quiet", "--chips", "2", "--ablate", "--workers", "2"])
    assert capsys.readouterr().out == alone


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    return subprocess.run(
        [*command, "-m", "analogsim", *arguments], env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.mark.slow
def test_torchruns_processes_share_the_chips_and_print_once(
    stopped: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["evaluate", str(stopped), "--quiet", "--chips", "5", "--json", "alone.json"])
    alone = capsys.readouterr().out
    done = torchrun("evaluate", str(stopped), "--quiet", "--chips", "5", "--journal", "c.jsonl", "--json", "both.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout == alone
    one, both = (json.loads(Path(name).read_text()) for name in ("alone.json", "both.json"))
    assert {name: Report.from_dict(report).seeds for name, report in both.items()} == dict.fromkeys(
        one, tuple(range(5))
    )
    assert both == one
    assert Path("c.jsonl").read_text().count('"chip"') == 10
    again = torchrun("evaluate", str(stopped), "--quiet", "--chips", "5", "--journal", "c.jsonl")
    assert again.stdout == alone
    assert Path("c.jsonl").read_text().count('"chip"') == 10
    layers = torchrun("sensitivity", str(stopped), "--chips", "2")
    main(["sensitivity", str(stopped), "--chips", "2"])
    assert layers.stdout == capsys.readouterr().out
    wrong = torchrun("evaluate", str(stopped), "--quiet", "--workers", "2")
    assert wrong.returncode != 0
    assert len(re.findall("leave out --workers", wrong.stderr)) == 1


def test_files_of_reports_are_merged(
    stopped: Path, capsys: pytest.CaptureFixture[str], fail: Callable[..., str]
) -> None:
    main(["evaluate", str(stopped), "--quiet", "--chips", "4", "--json", "whole.json"])
    whole = capsys.readouterr().out
    main(["evaluate", str(stopped), "--quiet", "--chips", "3", "--seed", "1", "--json", "b.json"])
    main(["evaluate", str(stopped), "--quiet", "--chips", "1", "--json", "a.json"])
    capsys.readouterr()
    main(["evaluate", "--merge", "b.json", "a.json", "--json", "merged.json"])
    assert capsys.readouterr().out == whole
    assert json.loads(Path("merged.json").read_text()) == json.loads(Path("whole.json").read_text())
    assert "chip 0 is in two of the reports" in fail("evaluate", "--merge", "a.json", "whole.json")
    Path("x.json").write_text("[]")
    assert "'x.json' holds no reports, or damaged ones" in fail("evaluate", "--merge", "x.json")
    stored = json.loads(Path("a.json").read_text())
    Path("y.json").write_text(json.dumps({"plain": stored["plain"]}))
    assert "has reports of plain, and 'a.json' of" in fail("evaluate", "--merge", "a.json", "y.json")
    assert "or --merge with files" in fail("evaluate")
    assert "or --merge with files" in fail("evaluate", str(stopped), "--merge", "a.json")
    assert "--workers must be an integer >= 1" in fail("evaluate", str(stopped), "--workers", "-1")
    assert "no folder for 'no/j.jsonl'" in fail("evaluate", str(stopped), "--journal", "no/j.jsonl")
