"""Several processes that train together, on the CPU. Run as a program, this file is one of them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import analogsim
from analogsim.chip.ranges import get_ranges
from analogsim.recipes.config.options import Config
from analogsim.recipes.config.toml import load_toml
from analogsim.recipes.tasks import data_sets, networks
from analogsim.recipes.tracking.tracker import NoRun
from analogsim.recipes.train import AWARE, PLAIN, train
from analogsim.recipes.training.checkpoint import load_checkpoint
from analogsim.recipes.training.loop import Training
from analogsim.recipes.training.processes import ALONE, Group, Processes, joined
from analogsim.recipes.training.setup import load_data

Tiny = Callable[..., Config]
Weights = dict[str, torch.Tensor]

# 200 samples in batches of 15: the last batch has 5, which two processes cannot share evenly.
UNEVEN = ("data.batch_size=15", "evaluation.chips=3")
# In batches of 199: the last batch has one sample, and the second process none.
EMPTY = ("data.batch_size=199", "optimization.epochs=2")
NORM = ("model=resnet20", "data.limit=24", "data.batch_size=16", "optimization.epochs=1")
LEARNED = (*UNEVEN, "crossbar=standard(input_range='learned', output_bound='calibrated')")
# With gradient descent the steps are as long as the gradients.
QUIET = (
    *("noise.end=0", "noise.clip_sigmas=none", "calibration.percentile=90"),
    *("optimization.optimizer=sgd", "optimization.lr=0.1"),
)
WILD = ("optimization.lr=1e9", "optimization.optimizer=sgd")


def begun(config: Config, path: Path, kind: str, group: Group = ALONE) -> Training:
    return Training(config, load_data(config), aware=kind == AWARE, path=path, group=group)


def run(training: Training, until: int = 99) -> Weights:
    training.set_random_state()
    while not training.done and training.epoch < until:
        training.run_epoch(lambda _: None)
    return training.model.state_dict()


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def close(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[key], b[key], rtol=0, atol=1e-5) for key in a)


def said(work: Callable[[], object]) -> str:
    """The error that comes of it."""
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def live(place: Path, settings: Sequence[str]) -> None:
    """The life of one of two processes: does what the tests look at, tells it in a file, and ends by an error."""

    def config(*overrides: str) -> Config:
        return load_toml(Config, None, [*settings, "tracking.enabled=false", *overrides])

    told: dict[str, Any] = {}
    with joined() as group:
        if not group.main:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)

        def fails_in(rank: int) -> Callable[[], None]:
            def work() -> None:
                if group.rank == rank:
                    raise FileNotFoundError("no data here")

            return work

        result = train(config(*UNEVEN), group=group)
        told["folder"] = str(result.folder)
        told["reports"] = {kind: report.to_dict() for kind, report in result.reports.items()}
        told["silent"] = all(isinstance(tracker, NoRun) for tracker in result.trackers.values())
        for kind in (PLAIN, AWARE):
            path = place / f"{kind}.pt"
            run(begun(config(*UNEVEN), path, kind, group), until=1)
            if group.main:
                shutil.copy(path, place / f"{kind}-1.pt")
            torch.manual_seed(99)
            training = begun(config(*UNEVEN), path, kind, group)
            told[kind] = run(training), training.history, training._random.states["cpu"]
        told["empty"] = run(begun(config(*EMPTY), place / "empty.pt", PLAIN, group))
        training = begun(config(*NORM), place / "norm.pt", PLAIN, group)
        told["norm"] = run(training), training.history
        told["samples"] = [len(targets) for _, targets in training._loader]
        training = begun(config(*UNEVEN), place / "of-one.pt", PLAIN, group)
        told["of one"] = training.epoch, run(training)
        for noise, name in ((QUIET, "quiet"), ((), "noisy")):
            path = place / f"{name}.pt"
            training = begun(config(*LEARNED, *noise), path, AWARE, group)
            told[f"{name} first"] = get_ranges(training.analog)
            told[f"{name} whole"] = run(training), get_ranges(training._net), training.history
            if group.main:
                path.unlink()
            run(begun(config(*LEARNED, *noise), path, AWARE, group), until=1)
            training = begun(config(*LEARNED, *noise), path, AWARE, group)
            told[f"{name} again"] = run(training), get_ranges(training._net), training.history
        wild = begun(config(*UNEVEN, *WILD), place / "wild.pt", PLAIN, group)
        told["errors"] = [
            said(lambda: run(wild)),
            said(lambda: group.each(fails_in(0))),
            said(lambda: group.each(fails_in(1))),
            said(lambda: group.first(fails_in(0))),
        ]
        told["first"] = group.first(lambda: f"from {group.rank}")
        told["turns"] = group.by_turns(lambda: group.rank)
        torch.save(told, place / f"told-{group.rank}.pt")
        if not group.main:
            raise ValueError("the end of process 1")
        group.gather("nobody answers")


@dataclass(frozen=True)
class Ended:
    """What is left of a process."""

    told: dict[str, Any]
    code: int
    out: str
    err: str
    home: Path  # its working directory


@dataclass(frozen=True)
class Two:
    """What is left of two processes that shared a disk, but no working directory."""

    place: Path
    ended: list[Ended]

    def both(self, key: str) -> list[Any]:
        return [each.told[key] for each in self.ended]

    def checkpoint(self, kind: str) -> Path:
        return self.ended[0].home / self.ended[0].told["folder"] / kind / "checkpoint.pt"


@pytest.fixture(scope="module")
def two(settings: list[str], tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Two:
    """Two processes from start to end."""
    place = tmp_path_factory.mktemp("two")
    run(begun(tiny(*UNEVEN), place / "of-one.pt", PLAIN), until=1)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = []
    for rank in ("0", "1"):
        (place / rank).mkdir()
        role = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        environment = {**os.environ, **role, "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "error", "-W", "always:the checkpoint", __file__, str(place), *settings]
        pipe = subprocess.PIPE
        running.append(
            subprocess.Popen(command, cwd=place / rank, env=environment, stdout=pipe, stderr=pipe, text=True)
        )
    ended = []
    try:
        for rank, process in enumerate(running):
            out, err = process.communicate(timeout=300)
            path = place / f"told-{rank}.pt"
            assert path.exists(), err
            ended.append(Ended(torch.load(path), process.returncode, out, err, place / str(rank)))
    finally:
        for process in running:
            process.kill()
    return Two(place, ended)


def test_plain_training_is_that_of_one_process(two: Two, tiny: Tiny, tmp_path: Path) -> None:
    training = begun(tiny(*UNEVEN), tmp_path / "one.pt", PLAIN)
    alone = run(training)
    for weights, history, _ in two.both(PLAIN):
        assert close(weights, alone)
        assert [each.keys() for each in history] == [each.keys() for each in training.history]
        for ours, theirs in zip(history, training.history, strict=True):
            assert ours == pytest.approx(theirs, rel=0, abs=1e-5)


def test_a_process_without_a_share_takes_part(two: Two, tiny: Tiny, tmp_path: Path) -> None:
    alone = run(begun(tiny(*EMPTY), tmp_path / "one.pt", PLAIN))
    assert all(close(weights, alone) for weights in two.both("empty"))


def test_each_process_loads_its_share(two: Two) -> None:
    assert two.both("samples") == [[8, 4], [8, 4]]


@pytest.mark.parametrize("kind", [PLAIN, AWARE])
def test_all_processes_have_one_network_and_one_history(two: Two, kind: str) -> None:
    (weights, history, _), (others, other_history, _) = two.both(kind)
    assert same(weights, others)
    assert history == other_history
    assert [each["train/lr"] for each in history][-1] == 0
    if kind == AWARE:  # 14 steps in an epoch, of 42; with jitter
        assert [each["train/noise_scale"] for each in history] == pytest.approx([2 / 3, 1, 1], rel=0.11)


def test_each_process_draws_noise_of_its_own(two: Two, tiny: Tiny, tmp_path: Path) -> None:
    (weights, _, random), (_, _, other) = two.both(AWARE)
    assert not torch.equal(random, other)
    training = begun(tiny(*UNEVEN), tmp_path / "one.pt", AWARE)
    assert not close(weights, run(training))
    assert torch.equal(random, training._random.states["cpu"])  # process 0 draws the very same numbers as one alone


def test_batch_norm_of_process_0_is_that_of_all(two: Two) -> None:
    (weights, history), (others, other_history) = two.both("norm")
    assert weights["bn1.num_batches_tracked"] == 2
    assert same(weights, others)
    assert history == other_history


def test_chips_are_shared_out_and_the_report_is_that_of_one_process(two: Two, tiny: Tiny) -> None:
    config = tiny(*UNEVEN)
    data = load_data(config)
    for kind in (PLAIN, AWARE):
        model = networks.build("mlp", data.shape, data.classes)
        model.load_state_dict(load_checkpoint(two.checkpoint(kind))["model"])
        twin = analogsim.convert(model, "pcm")
        report = analogsim.evaluate(twin, data_sets.batches(data.test, 1000), chips=3, times=("1s", "1d"))
        assert [reports[kind] for reports in two.both("reports")] == [report.to_dict()] * 2


def test_learned_ranges_are_those_of_one_process(two: Two, tiny: Tiny, tmp_path: Path) -> None:
    training = begun(tiny(*LEARNED, *QUIET), tmp_path / "one.pt", AWARE)
    first = get_ranges(training.analog)
    assert two.both("quiet first") == [first, first]
    run(training)
    learned = get_ranges(training._net)
    (_, ranges, _), (_, others, _) = two.both("quiet whole")
    assert ranges == others
    for name, each in learned.items():
        start, moved = first[name]["input_range"].item(), abs(each["input_range"] - first[name]["input_range"]).item()
        assert moved > 1e-4
        assert ranges[name]["input_range"].item() - start == pytest.approx(each["input_range"].item() - start, rel=0.02)


@pytest.mark.parametrize("noise", ["quiet", "noisy"])
def test_all_processes_have_the_same_ranges_and_go_on_with_them(two: Two, noise: str) -> None:
    (weights, ranges, history), *others = [*two.both(f"{noise} whole"), *two.both(f"{noise} again")]
    assert len(others) == 3
    for other, other_ranges, other_history in others:
        assert same(weights, other)
        assert ranges == other_ranges
        assert history == other_history


@pytest.mark.parametrize("kind", [PLAIN, AWARE])
def test_a_training_that_was_interrupted_goes_on_to_the_same_numbers(two: Two, kind: str) -> None:
    whole = load_checkpoint(two.checkpoint(kind))
    weights, history, random = two.ended[1].told[kind]
    assert same(weights, whole["model"])
    assert history == whole["history"]
    assert torch.equal(random, whole["random_of_others"][0]["cpu"])


def test_another_number_of_processes_goes_on_with_a_warning(two: Two, tiny: Tiny, tmp_path: Path) -> None:
    alone = run(begun(tiny(*UNEVEN), tmp_path / "one.pt", PLAIN))
    for epoch, weights in two.both("of one"):
        assert epoch == 1
        assert close(weights, alone)
    text = (
        r"the checkpoint is of a training in {} process\(es\), now there are {}: it goes on, but not to the very same"
    )
    assert len(re.findall(text.format(1, 2), two.ended[0].err)) == 1
    shutil.copy(two.place / f"{PLAIN}-1.pt", tmp_path / "two.pt")
    with pytest.warns(UserWarning, match=text.format(2, 1)):
        training = begun(tiny(*UNEVEN), tmp_path / "two.pt", PLAIN)
    assert training.epoch == 1
    assert close(run(training), alone)


def test_only_process_0_writes_and_speaks(two: Two) -> None:
    first, other = two.ended
    assert first.told["folder"] == other.told["folder"]
    assert other.told["silent"]
    assert [path.name for path in first.home.iterdir()] == ["runs"]
    assert list(other.home.iterdir()) == []
    assert {path.parent.name for path in first.home.glob("runs/*/*/checkpoint.pt")} == {PLAIN, AWARE}
    assert f"{PLAIN}: epoch 1 of " in first.err
    assert "%" not in other.err
    assert "Warning" not in other.err
    assert first.out == other.out == ""


def test_an_error_in_one_process_is_one_in_all(two: Two) -> None:
    (wild, own, others, first), silent = two.both("errors")
    assert wild.startswith("DivergedError: training diverged: the mean loss of epoch 1 of 3")
    assert own == first == "FileNotFoundError: no data here"
    assert re.fullmatch(r"OperationError: process 1 on .+: FileNotFoundError: no data here", others)
    assert len(silent) == 4
    assert all(text.startswith("ElsewhereError: process ") for text in silent)
    assert two.both("first") == ["from 0", "from 0"]
    assert two.both("turns") == [0, 1]


def test_of_several_processes_the_one_that_failed_first_tells_it(two: Two) -> None:
    first, other = two.ended
    assert other.err.count("Traceback") == 1
    assert other.err.endswith("ValueError: the end of process 1\n")
    assert "Traceback" not in first.err
    assert first.code == other.code == 1


def test_without_torchrun_there_is_no_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "init_process_group", None)
    names = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")  # on its own it means nothing
    with joined() as group:
        assert group is ALONE
    for name in names:
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined() as group:
        assert group is ALONE
    net = nn.Linear(2, 2)
    group.average_gradients([net.weight])
    assert group.wrap(net) is group.synchronized(net) is net
    assert (group.main, group.seed(7), group.weight(3), group.gather("a")) == (True, 7, 1.0, ["a"])


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 2, 7, 8, 25])
def test_shares_are_even_and_whole(world: int, count: int) -> None:
    groups = [Processes(rank, world) for rank in range(world)]
    shares = [group.share(count) for group in groups]
    assert [index for share in shares for index in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert len(shares[0]) > 0  # process 0 shows the progress
    values = torch.arange(float(count))
    means = [
        group.weight(count) * values[list(share) or [0]].mean() for group, share in zip(groups, shares, strict=True)
    ]
    assert sum(means) / world == pytest.approx(values.mean())


def test_a_share_of_a_batch_is_never_without_a_sample() -> None:
    data = TensorDataset(torch.arange(10.0), torch.arange(10))
    parts = [Processes(rank, 3).shares(data)[[4, 7]][1].tolist() for rank in range(3)]
    assert parts == [[4], [7], [4]]
    assert [Processes(rank, 3).weight(2) for rank in range(3)] == [1.5, 1.5, 0]


def test_seeds_of_processes_are_their_own() -> None:
    seeds = [Processes(rank, 4).seed(seed) for seed in range(4) for rank in range(1, 4)]
    assert len(set(seeds)) == 12
    assert [Processes(0, 4).seed(seed) for seed in range(4)] == [0, 1, 2, 3]


class Pretended(Processes):
    """Processes that all say the same."""

    def gather(self, value: Any) -> list[Any]:
        return [value] * self.world


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_process_without_a_gpu_of_its_own_is_told(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    places = [torch.device("cuda", 0), torch.device("cuda", 1)]
    for rank in (0, 1):
        place = Pretended(rank, 3, rank).place(lambda: torch.device(kind))
        assert place == (places[rank] if kind == "cuda" else torch.device("cpu"))
    if kind == "cuda":
        with pytest.raises(
            RuntimeError, match=r"needs a GPU of its own, this machine has 2; start no more .*run_on=cpu"
        ):
            Pretended(2, 3, 2).place(lambda: torch.device(kind))


def test_processes_with_and_without_gpus_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "each", lambda _, work: work())
    monkeypatch.setattr(Processes, "gather", lambda *_: [torch.device("cuda", 0), torch.device("cpu")])
    with pytest.raises(ValueError, match="some of the processes have a GPU and others have none"):
        Processes(1, 2, 1).place(lambda: torch.device("cpu"))


def test_batch_norm_on_gpus_is_over_all_processes() -> None:
    model = networks.build("resnet20", (3, 32, 32), 10)
    names = list(model.state_dict())
    assert Processes(0, 2).synchronized(model) is model  # torch has none on the CPU
    model = Processes(0, 2).synchronized(model.to("meta"))
    assert list(model.state_dict()) == names
    twin = analogsim.convert(model.to_empty(device="cpu").apply(_reset), "gaussian")
    for net in (model, twin):
        kinds = {type(module) for module in net.modules()}
        assert nn.SyncBatchNorm in kinds
        assert nn.BatchNorm2d not in kinds
    assert twin.get_submodule("bn1").running_mean is model.get_submodule("bn1").running_mean


def _reset(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear | nn.SyncBatchNorm):
        module.reset_parameters()


def torchrun(*arguments: str, processes: int = 2) -> list[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*launch, "-m", "analogsim", "train", "--quiet", *arguments]


@pytest.fixture
def environment(here: Path) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--model lenet --no-tracking", "unknown name 'lenet'"),
        ("--epochs none", "optimization.epochs: wanted int"),
        ("--resume nowhere", "'nowhere' is no run of analogsim train"),
        ("model=mlp data.limit=20 tracking.uri=http://127.0.0.1:{port}", "cannot reach the MLflow store"),
    ],
)
def test_what_is_wrong_is_told_once(
    environment: dict[str, str], closed_port: int, arguments: str, message: str
) -> None:
    command = torchrun(*arguments.format(port=closed_port).split())
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if "analogsim: " in line]
    assert line.startswith("analogsim: error: ")
    assert message in line
    assert "[rank" not in done.stderr  # where torch puts a traceback of ours
    assert not list(Path("runs").glob("*"))


@pytest.mark.slow
def test_ctrl_c_and_on_to_the_same_numbers(environment: dict[str, str], store: Any, settings: list[str]) -> None:
    """With three processes, where the order of sums matters."""
    options = [*settings, "optimization.epochs=30"]
    command = torchrun(*options, "--out", "whole", processes=3)
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.count("accuracy [%]") == done.stdout.count("Both networks side by side") == 1
    (whole,) = Path("whole").iterdir()

    command = torchrun(*options, "--out", "stopped", processes=3)
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 200
    epoch = 0
    while epoch < 1:
        assert process.poll() is None, "it ended before it could be stopped"
        assert time.monotonic() < until
        with contextlib.suppress(FileNotFoundError, ValueError):
            epoch = max((load_checkpoint(path)["epoch"] for path in Path("stopped").glob("*/plain/*.pt")), default=0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=100)
    (folder,) = Path("stopped").iterdir()
    assert process.returncode != 0
    assert out == ""
    assert err.count(f"stopped; go on with: torchrun ... -m analogsim train --resume {folder}\n") == 1
    assert "analogsim: " not in err
    ids = {kind: load_checkpoint(folder / kind / "checkpoint.pt")["run_id"] for kind in (PLAIN, AWARE)}
    assert {store.run(run_id).info.status for run_id in ids.values()} == {"KILLED"}

    on = subprocess.run(torchrun("--resume", str(folder), processes=3), env=environment, capture_output=True, text=True)
    assert on.returncode == 0, on.stderr
    for kind, run_id in ids.items():
        ours, theirs = (load_checkpoint(each / kind / "checkpoint.pt") for each in (folder, whole))
        assert ours["epoch"] == 30
        assert same(ours["model"], theirs["model"])
        assert ours["history"] == theirs["history"]
        assert (folder / kind / "report.json").read_text() == (whole / kind / "report.json").read_text()
        assert store.run(run_id).info.status == "FINISHED"
        assert store.run(run_id).data.tags["hardware.processes"] == "3"
        assert len(store.points(run_id, "train/loss")) == 30


if __name__ == "__main__":
    live(Path(sys.argv[1]), sys.argv[2:])
