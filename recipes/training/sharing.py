"""Who judges the chips of a command: this process, workers that it starts, or the processes that torchrun started."""

from __future__ import annotations

import argparse
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from analogsim.errors import InvalidValueError
from analogsim.evaluation.journal import Journal
from analogsim.evaluation.workers import Executor
from analogsim.recipes.config.outputs import check_output
from analogsim.recipes.training.processes import ALONE, Group, joined


@dataclass(frozen=True)
class Sharing:
    """Who judges, and where chips are kept.

    Args:
        executor: see `analogsim.evaluate`; None: this process.
        journal: a file for the chips of all networks of a run; None: nowhere.
        group: the processes that all run this command.
    """

    executor: Executor | None = None
    journal: str | os.PathLike[str] | None = None
    group: Group = ALONE

    @property
    def main(self) -> bool:
        """Whether this process prints and writes."""
        return self.group.main

    def options(self, network: str) -> dict[str, Any]:
        """What `analogsim.evaluate`, `ablate` and `sensitivity` are given for a network of a run."""
        journal = None if self.journal is None else Journal(self.journal, network)
        return {"executor": self.executor, "journal": journal}

    def tell(self, line: str) -> None:
        """Print a line, once."""
        if self.main:
            print(line)

    def place(self, choose: Callable[[], torch.device]) -> torch.device:
        """See `Group.place`."""
        return self.group.place(choose)


def add_sharing(parser: argparse.ArgumentParser) -> None:
    """The arguments that say who judges the chips."""
    parser.add_argument(
        "--workers", type=int, metavar="N", help="judge the chips in N processes; torch's threads are shared out"
    )
    parser.add_argument(
        "--journal", metavar="FILE", help="keep chips as they are judged; the same command goes on with the rest"
    )


@contextmanager
def sharing(options: argparse.Namespace, program: str) -> Iterator[Sharing]:
    """What the arguments of `add_sharing` say, for a block; under torchrun the processes that it started.

    Raises:
        FileNotFoundError, OSError: the journal cannot be written.
        ValueError: no number of workers, or workers under torchrun, whose processes share the chips as they are.
    """
    check_output(options.journal, program)
    workers = options.workers
    if workers is not None and workers < 1:
        raise InvalidValueError(f"{program}: --workers must be an integer >= 1, got {workers}")
    with joined() as group:
        if group.world > 1:
            if workers is not None:
                raise InvalidValueError(f"{program}: torchrun's processes share the chips; leave out --workers")
            yield Sharing(group, options.journal, group)
        elif workers is None:
            yield Sharing(None, options.journal)
        else:
            before = torch.get_num_threads()
            # Also here, so that all numbers come from one way of adding up.
            torch.set_num_threads(max(1, before // workers))
            try:
                context = multiprocessing.get_context("spawn")  # a process with threads is not to be forked
                with ProcessPoolExecutor(workers, mp_context=context) as pool:
                    yield Sharing(pool, options.journal)
            finally:
                torch.set_num_threads(before)
