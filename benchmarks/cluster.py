"""Chips of an MLP through a process pool and through a local Dask cluster, killed at random moments.

    python -m benchmarks.cluster --chips 2000 --kills 10

Each time the whole process group gets SIGKILL, and the same call is made again with the same journal. At the end the
journal is counted: chips that were in it at a kill and are not any more (lost), chips that are in it twice, and whether
the report is that of one process bit for bit.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import analogsim
from analogsim.recipes.tasks import data_sets
from analogsim.utils.files import write_whole

KINDS = ("process pool", "dask")
WORKERS = 2


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def trained(folder: Path) -> None:
    """Train the network for a moment and leave it, with its test data, in a folder."""
    torch.manual_seed(0)
    data = data_sets.load("digits")
    (x, y), model = data.train[: len(data.train)], network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    torch.save({"model": model.state_dict(), "test": data.test[: len(data.test)]}, folder / "network.pt")


def loaded(folder: Path) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    content = torch.load(folder / "network.pt", weights_only=True)
    model = network()
    model.load_state_dict(content["model"])
    x, y = content["test"]
    return analogsim.convert(model, "pcm"), list(zip(x.split(90), y.split(90), strict=True))


@contextmanager
def executor_of(kind: str) -> Iterator[Any]:
    """An executor with two workers; None for one process."""
    if kind == "process pool":
        with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool
    elif kind == "dask":
        dask: Any = importlib.import_module("dask.distributed")
        one = {"n_workers": WORKERS, "threads_per_worker": 1, "dashboard_address": None}
        with dask.LocalCluster(**one) as cluster, dask.Client(cluster) as client:
            yield client.get_executor()
    else:
        yield None


def judge(kind: str, folder: Path, chips: int, journal: Path | None, out: Path) -> None:
    """What is killed: one call of `analogsim.evaluate`, which leaves its report."""
    torch.set_num_threads(1)
    analog, data = loaded(folder)
    options: dict[str, Any] = {"chips": chips, "times": ("1s", "1y"), "metric": "cross_entropy", "journal": journal}
    with executor_of(kind) as executor:
        report = analogsim.evaluate(analog, data, executor=executor, **options)
    write_whole(out, json.dumps(report.to_dict()))


def _begun(kind: str, folder: Path, chips: int, journal: Path | None, out: Path) -> subprocess.Popen[bytes]:
    told = [kind, str(folder), str(chips), "" if journal is None else str(journal), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.cluster", "--judge", *told]
    return subprocess.Popen(command, start_new_session=True, env=environment, stderr=subprocess.DEVNULL)


def whole_lines(journal: Path) -> list[bytes]:
    """The lines of chips in a journal, but for one that is torn."""
    if not journal.exists():
        return []
    lines = journal.read_bytes().splitlines(keepends=True)
    return [line for line in lines if b'"chip"' in line and line.endswith(b"}\n")]


def killed(kind: str, folder: Path, chips: int, kills: int, rng: random.Random) -> dict[str, Any]:
    """Kill the call at random moments, let it come to its end, and count."""
    journal, out = folder / f"{kind}.jsonl".replace(" ", "-"), folder / f"{kind}.json".replace(" ", "-")
    seen: set[bytes] = set()
    at: list[int] = []
    while len(at) < kills:
        there = len(whole_lines(journal))
        share = 2 * (chips - there) // (kills - len(at) + 1)
        aim = there + rng.randint(0, max(0, min(share, chips - there - 1)))
        process = _begun(kind, folder, chips, journal, out)
        while process.poll() is None and len(whole_lines(journal)) < aim:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 10.0 if aim == there else 0.1))
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        seen |= set(whole_lines(journal))
        at.append(len(whole_lines(journal)))
    last = _begun(kind, folder, chips, journal, out)
    if last.wait():
        raise RuntimeError(f"the last call of {kind} failed with exit code {last.returncode}")
    lines = whole_lines(journal)
    counted = Counter(json.loads(line)["chip"] for line in lines)
    return {
        "kind": kind,
        "chips": len(counted),
        "kills": len(at),
        "at": at,
        "lost": len(seen - set(lines)),
        "twice": sum(count > 1 for count in counted.values()),
        "report": json.loads(out.read_text(encoding="utf-8")),
    }


def run(chips: int, kills: int, kinds: Sequence[str], seed: int) -> list[dict[str, Any]]:
    """Both ways, each compared with one process."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trained(folder)
        alone = folder / "alone.json"
        if _begun("one process", folder, chips, None, alone).wait():
            raise RuntimeError("one process alone failed")
        expected = json.loads(alone.read_text(encoding="utf-8"))
        for kind in kinds:
            row = killed(kind, folder, chips, kills, random.Random(f"{seed}/{kind}"))
            row["identical"] = row.pop("report") == expected
            rows.append(row)
            print(
                f"{kind}: {row['chips']} chips, {row['kills']} kills (with {row['at']} chips done), "
                f"{row['lost']} lost, {row['twice']} twice, report {'identical' if row['identical'] else 'DIFFERS'}",
                flush=True,
            )
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--chips", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--judge", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.judge is not None:
        kind, folder, chips, journal, out = options.judge
        judge(kind, Path(folder), int(chips), Path(journal) if journal else None, Path(out))
        return 0
    rows = run(options.chips, options.kills, options.kinds.split(","), options.seed)
    good = all(row["identical"] and not row["lost"] and not row["twice"] for row in rows)
    return 0 if good and all(row["chips"] == options.chips for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
