"""The benchmark of starting: tables and records in one process, then in fresh ones. No time is asserted."""

import contextlib
import io
import json
import math

import pytest
import torch

CPU = torch.device("cpu")


@pytest.fixture
def in_this_process(monkeypatch):
    """Programs run here: no process has to import torch."""
    from benchmarks import startup

    ran = []

    def run(program):
        ran.append(program)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(program, {})
        return json.loads(printed.getvalue())

    monkeypatch.setattr(startup, "_fresh", run)
    return ran


def main(*arguments):
    from benchmarks.__main__ import main

    assert main(("startup", *arguments)) == 0


def check(results):
    assert [(r["what"], r["name"], r["kind"]) for r in results] == [
        ("import", "import torch", ""),
        ("import", "import analogsim", ""),
        ("import", "both, one after the other", ""),
        *((what, "tiny", "analog") for what in ("convert", "convert again")),
        *((what, "tiny", kind) for what in ("forward", "forward again") for kind in ("digital", "analog")),
        *((f"compiled {what}", "mlp", kind) for what in ("step", "step again") for kind in ("digital", "analog")),
    ]
    for result in results:
        for number in (*result["seconds"].values(), *result.get("ratio", {}).values()):
            assert math.isfinite(number)
            assert number > 0


def test_it_runs_and_writes_json(in_this_process, tmp_path, capsys):
    file = tmp_path / "found.json"
    main("--quick", "--rounds", "4", "--json", str(file))
    document = json.loads(file.read_text(encoding="utf-8"))
    assert document["settings"] == {"rounds": 4}
    check(document["results"])
    printed = capsys.readouterr().out
    for title in ("Imports, fresh processes: median of 2 rounds", "median of 1 rounds", "backend='eager'"):
        assert title in printed
    assert len(in_this_process) == 4 + 2 + 2
    # What is compared takes turns, and the turn is reversed in every other round.
    assert in_this_process[0] == in_this_process[3] != in_this_process[1] == in_this_process[2]


@pytest.mark.slow
def test_it_runs_in_fresh_processes(tmp_path):
    file = tmp_path / "found.json"
    main("--quick", "--rounds", "1", "--threads", str(torch.get_num_threads()), "--json", str(file))
    document = json.loads(file.read_text(encoding="utf-8"))
    check(document["results"])
    assert document["results"][0]["seconds"]["median"] > 0.01  # a process that had torch already would take no time


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "transformer"])
def test_the_networks_that_are_timed(name):
    from benchmarks import startup

    if startup.NETWORKS[name].needs:
        pytest.importorskip(startup.NETWORKS[name].needs)
    found = startup.first_forward(name, "analog", "cpu")
    assert list(found) == ["convert", "convert again", "forward", "forward again"]


def test_a_network_whose_library_is_missing_is_named(monkeypatch):
    from benchmarks import startup

    said = []
    monkeypatch.setattr(startup, "find_spec", lambda name: None)
    assert startup._forwards({"resnet50": startup.NETWORKS["resnet50"]}, CPU, 1, said.append) == []
    assert said[-1] == "ResNet-50, 4x3x64x64: needs torchvision, which is not installed\n"


def test_a_twin_that_answers_otherwise_is_not_timed(monkeypatch):
    from benchmarks import startup

    monkeypatch.setattr("analogsim.set_noise_scale", lambda analog, scale: None)  # the noise stays
    with pytest.raises(RuntimeError, match="analog tiny without noise and the model differ by"):
        startup.first_forward("tiny", "analog", "cpu")
    with pytest.raises(RuntimeError, match="compiled analog mlp without noise and the model differ by"):
        startup.first_compiled("mlp", "analog", "cpu", "eager")


def test_a_process_that_fails_says_why():
    from benchmarks import startup

    with pytest.raises(RuntimeError, match=r"a process failed:\nraise SystemExit\('no luck'\)\nno luck"):
        startup._fresh("raise SystemExit('no luck')")
