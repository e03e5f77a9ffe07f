"""The options that several commands share: what is taken, and what is refused with a line that says why."""

import argparse
from pathlib import Path

import pytest
import torch


@pytest.fixture
def parser():
    from benchmarks.harness.options import add_options

    parser = argparse.ArgumentParser(prog="bench")
    add_options(parser)
    return parser


def test_what_is_timed_by_default(parser):
    from benchmarks.harness.networks import CASES

    options = parser.parse_args([])
    assert vars(options) == {
        "models": list(CASES),
        "device": torch.device("cpu"),
        "rounds": 24,
        "steps": None,
        "threads": None,
        "json": None,
    }


def test_what_is_asked_for(parser):
    options = parser.parse_args(
        ["--models", " lenet5, mlp,,lenet5", "--rounds", "3", "--steps", "2", "--threads", "1", "--json", "a/b.json"]
    )
    assert options.models == ["lenet5", "mlp"]  # in this order, each once
    assert (options.rounds, options.steps, options.threads) == (3, 2, 1)
    assert options.json == Path("a", "b.json")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--models", "alexnet"], "argument --models: must be some of mlp,mlp-1024,lenet5,resnet18,transformer, got"),
        (["--models", "mlp,alexnet"], "got 'mlp,alexnet'"),
        (["--models", ","], "argument --models: must be some of"),
        (["--device", "tpu"], "argument --device: must be cpu or cuda, got 'tpu'"),
        (["--device", "cuda"], "argument --device: this torch sees no GPU; use cpu"),
        (["--rounds", "0"], "argument --rounds: must be an integer >= 1, got '0'"),
        (["--rounds=-1"], "argument --rounds: must be an integer >= 1, got '-1'"),
        (["--steps", "1.5"], "argument --steps: must be an integer >= 1, got '1.5'"),
        (["--threads", "two"], "argument --threads: must be an integer >= 1, got 'two'"),
        (["--threads", "²"], "argument --threads: must be an integer >= 1, got '²'"),
    ],
)
def test_what_is_refused(parser, arguments, said, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(arguments)
    assert stop.value.code == 2
    usage, last = capsys.readouterr().err.rstrip().rsplit("\n", 1)
    assert usage.startswith("usage: bench")
    assert last.startswith("bench: error: ")
    assert said in last


def test_a_gpu_is_taken_where_there_is_one(parser, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert parser.parse_args(["--device", "cuda"]).device == torch.device("cuda")


def test_it_begins_with_where_it_runs(parser, monkeypatch, capsys):
    import analogsim
    from benchmarks.harness.options import begin

    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    begin(parser.parse_args([]))
    assert threads == []
    document = begin(parser.parse_args(["--threads", "7"]), rival="1.2")
    assert threads == [7]
    assert document["versions"]["rival"] == "1.2"
    assert document["versions"]["torch"] == torch.__version__
    line = capsys.readouterr().out.splitlines()[-2]
    assert line.startswith(f"{document['hardware']['cpu']}, {document['hardware']['threads']} threads; torch ")
    assert line.endswith(f"analogsim {analogsim.__version__}, rival 1.2")
